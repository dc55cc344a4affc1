//! Those who ask: they come, wait, hold, give back, give up and come again, each crowd as its plan says.

use std::time::Duration;

use fastrand::Rng;
use tenantry_core::{Health, LimitScope};

use super::chance::{Zipf, between, happens};
use super::desk::{Answer, Desk, No, RequestKey, SocketKey, Wish};
use super::engine::{Engine, Errand, Event};
use super::log::What;
use super::plan::{Crowd, Pace, Retries, Whom};
use super::report::{Measures, Report};

/// A caller in a loop that was refused does something else for at least so long.
const BREATH: Duration = Duration::from_millis(20);
/// How long it takes a caller to find out that its connection is dead.
const FIRST_QUERY: Duration = Duration::from_micros(200);

pub(super) struct Request<D: Desk> {
    errand: Errand,
    pub(super) tenant: u32,
    pool: u32,
    asked: Duration,
    /// When its answer was made; until then, when it asked.
    answered: Duration,
    woken: bool,
    state: State<D>,
}

enum State<D: Desk> {
    Asking,
    Waits(D::Waiter),
    Holds(SocketKey),
    HoldsPool(Vec<D::Permit>, usize),
    ClosesPool(Vec<D::Permit>, usize),
}

impl<D: Desk> Request<D> {
    pub(super) fn has_no_answer(&self) -> bool {
        matches!(self.state, State::Waits(_)) && !self.woken
    }

    /// The connections of its pool lease.
    pub(super) fn leased(&self) -> u32 {
        if let State::HoldsPool(..) = self.state { self.pool } else { 0 }
    }

    /// Those of its pool lease, while it is being closed.
    pub(super) fn closing(&self) -> u32 {
        if let State::ClosesPool(..) = self.state { self.pool } else { 0 }
    }

    pub(super) fn crowd(&self) -> usize {
        self.errand.crowd
    }

    pub(super) fn waits(&self) -> bool {
        matches!(self.state, State::Asking | State::Waits(_))
    }
}

pub(super) struct CrowdState {
    rng: Rng,
    zipf: Option<Zipf>,
    bursting: bool,
    /// Tenants picked in turn so far.
    turns: u32,
}

impl CrowdState {
    pub(super) fn new(crowd: &Crowd, rng: Rng) -> Self {
        let zipf = match &crowd.tenants {
            Whom::Zipf(range, exponent) => Some(Zipf::new(range.end - range.start, *exponent)),
            _ => None,
        };
        Self { rng, zipf, bursting: false, turns: 0 }
    }

    fn tenant(&mut self, crowd: &Crowd, caller: u32) -> u32 {
        match &crowd.tenants {
            &Whom::One(tenant) => tenant,
            Whom::Each(range) if matches!(crowd.pace, Pace::Loop { .. } | Pace::Once(_)) => {
                range.start + caller % (range.end - range.start)
            }
            Whom::InTurn(range) => {
                self.turns += 1;
                range.start + (self.turns - 1) % (range.end - range.start)
            }
            Whom::Each(range) | Whom::Any(range) => self.rng.u32(range.clone()),
            Whom::Zipf(range, _) => range.start + self.zipf.as_ref().map_or(0, |zipf| zipf.pick(&mut self.rng)),
        }
    }

    /// Until the next one comes by itself.
    fn gap(&mut self, per_second: f64, times: f64) -> Duration {
        let rate = if self.bursting { per_second * times } else { per_second };
        Duration::from_secs_f64((-(1.0 - self.rng.f64()).ln() / rate.max(1e-9)).min(1e6))
    }
}

impl Report {
    pub(super) fn new(plan: &super::plan::Plan, _: &[CrowdState]) -> Self {
        Self {
            seed: plan.seed,
            simulated: Duration::ZERO,
            events: 0,
            checks: 0,
            digest: 0,
            crowds: plan.crowds.iter().map(|crowd| Measures::new(crowd.name)).collect(),
            connects: 0,
            connect_failures: 0,
            met_dead: 0,
            most_open: 0,
            most_connecting: 0,
            busy: 0.0,
            occupied: 0.0,
            connect_log: Vec::new(),
        }
    }
}

/// Coming and going.
impl<D: Desk> Engine<'_, D> {
    /// Sends a crowd on its way.
    pub(super) fn send(&mut self, crowd: usize) {
        let plan = &self.plan.crowds[crowd];
        let errand = |caller| Event::Asks(Errand { crowd, caller, tenant: None, tries: 0, outer: None });
        match &plan.pace {
            &Pace::Loop { callers, think } => {
                for caller in 0..callers {
                    let first = think.draw(&mut self.crowds[crowd].rng);
                    self.agenda.put(plan.from + first, errand(caller));
                }
            }
            &Pace::Once(callers) => {
                for caller in 0..callers {
                    self.agenda.put(plan.from, errand(caller));
                }
            }
            Pace::Arrivals { bursts, .. } => {
                self.agenda.put(plan.from, Event::Arrives(crowd));
                if let Some(bursts) = bursts {
                    let first = bursts.every.draw(&mut self.crowds[crowd].rng);
                    self.agenda.put(plan.from + first, Event::Bursts(crowd));
                }
            }
        }
    }

    pub(super) fn arrives(&mut self, crowd: usize) {
        if self.ended {
            return;
        }
        if let Pace::Arrivals { per_second, bursts } = &self.plan.crowds[crowd].pace {
            let times = bursts.as_ref().map_or(1.0, |bursts| bursts.times);
            let gap = self.crowds[crowd].gap(*per_second, times);
            self.agenda.put(self.now + gap, Event::Arrives(crowd));
            self.asks(Errand { crowd, caller: 0, tenant: None, tries: 0, outer: None });
        }
    }

    pub(super) fn bursts(&mut self, crowd: usize) {
        if let Pace::Arrivals { bursts: Some(bursts), .. } = &self.plan.crowds[crowd].pace
            && !self.ended
        {
            let state = &mut self.crowds[crowd];
            state.bursting = !state.bursting;
            let next = if state.bursting { &bursts.last } else { &bursts.every };
            let next = next.draw(&mut state.rng);
            self.agenda.put(self.now + next, Event::Bursts(crowd));
        }
    }

    /// What a caller does when it is done, served or not.
    fn next_errand(&mut self, errand: Errand, served: bool) {
        if let Some(outer) = errand.outer {
            return self.agenda.put(self.now, Event::HoldEnds(outer));
        }
        if let Pace::Loop { think, .. } = &self.plan.crowds[errand.crowd].pace
            && !self.ended
        {
            let pause = think.draw(&mut self.crowds[errand.crowd].rng);
            let pause = if served { pause } else { pause.max(BREATH) };
            let again = Errand { tenant: None, tries: 0, ..errand };
            self.agenda.put(self.now + pause, Event::Asks(again));
        }
    }

    fn is_measured(&self) -> bool {
        self.holds >= self.plan.measured_from && !self.ended
    }

    fn measure(&mut self, crowd: usize, change: impl FnOnce(&mut Measures)) {
        if self.is_measured() {
            change(&mut self.report.crowds[crowd]);
        }
    }
}

/// Asking and being answered.
impl<D: Desk> Engine<'_, D> {
    pub(super) fn asks(&mut self, errand: Errand) {
        if self.ended {
            return self.next_errand(errand, false);
        }
        let plan = &self.plan.crowds[errand.crowd];
        let state = &mut self.crowds[errand.crowd];
        let tenant = errand.tenant.unwrap_or_else(|| state.tenant(plan, errand.caller));
        let pool = if happens(&mut state.rng, plan.pools.0) { state.rng.u32(1..=plan.pools.1) } else { 0 };
        let (asked, state) = (self.now, State::Asking);
        let request =
            self.requests.insert(Request { errand, tenant, pool, asked, answered: asked, woken: false, state });
        self.note_request(What::Asks, request, tenant.into());
        self.measure(errand.crowd, |measures| {
            measures.asked += 1;
            measures.first_retries += u64::from(errand.tries == 1);
        });
        loop {
            let home = self.homes[tenant as usize];
            let caller = errand.outer.unwrap_or(request);
            let background = self.plan.crowds[errand.crowd].background;
            let answer = self.desk.acquire(Wish { tenant, home, pool, background, request, caller }, self.now);
            self.act();
            match answer {
                Answer::Waits(waiter) => return self.waits(request, waiter),
                Answer::Socket(permit, socket) => {
                    self.hand_out(permit, socket, request);
                    if self.is_alive(socket) || !self.servers[self.sockets[socket].server].sees_closed() {
                        self.measure(errand.crowd, |measures| measures.at_once += 1);
                        return self.holds(request, socket);
                    }
                    // The driver sees that it is dead, and the caller asks again.
                    self.give_back(request, socket, Health::Lost);
                }
                answer => return self.answered(request, answer),
            }
        }
    }

    fn waits(&mut self, request: RequestKey, waiter: D::Waiter) {
        let entry = &mut self.requests[request];
        entry.state = State::Waits(waiter);
        let (crowd, tenant) = (entry.errand.crowd, entry.tenant);
        self.note_request(What::Waits, request, tenant.into());
        let answer = self.desk.poll(request, waiter, self.now);
        self.act();
        if !matches!(answer, Answer::Waits(_)) {
            return self.answered(request, answer);
        }
        let plan = &self.plan.crowds[crowd];
        self.agenda.put(self.now + plan.timeout, Event::Deadline(request));
        let rng = &mut self.crowds[crowd].rng;
        for (part, event) in [(plan.cancels, Event::Cancels(request)), (plan.glances, Event::Looks(request))] {
            if happens(rng, part) {
                let after = between(rng, Duration::ZERO, plan.timeout);
                self.agenda.put(self.now + after, event);
            }
        }
    }

    pub(super) fn wake(&mut self, request: RequestKey) {
        let Some(entry) = self.requests.get_mut(request).filter(|entry| entry.waits()) else { return };
        (entry.woken, entry.answered) = (true, self.now);
        let (crowd, tenant) = (entry.errand.crowd, entry.tenant);
        self.note_request(What::IsWoken, request, tenant.into());
        if happens(&mut self.crowds[crowd].rng, self.plan.crowds[crowd].cancels) {
            // Its task is gone before it runs.
            self.agenda.put(self.now, Event::Cancels(request));
        }
        let after = self.plan.scheduling.draw(&mut self.rng);
        self.agenda.put(self.now + after, Event::Looks(request));
    }

    fn waiter(&self, request: RequestKey) -> Option<D::Waiter> {
        match self.requests.get(request)?.state {
            State::Waits(waiter) => Some(waiter),
            _ => None,
        }
    }

    pub(super) fn looks(&mut self, request: RequestKey) {
        let Some(waiter) = self.waiter(request) else { return };
        let woken = std::mem::take(&mut self.requests[request].woken);
        let answer = self.desk.poll(request, waiter, self.now);
        self.act();
        if !matches!(answer, Answer::Waits(_)) {
            assert!(woken, "a caller had an answer and was not woken");
            self.answered(request, answer);
        }
    }

    /// The deadline: the caller's task polls once more, and gives up where there is nothing. Another thread may have been
    /// faster in between, so now and then it does not look before.
    pub(super) fn deadline(&mut self, request: RequestKey) {
        let Some(waiter) = self.waiter(request) else { return };
        let woken = self.requests[request].woken;
        if woken || self.rng.bool() {
            let answer = self.desk.poll(request, waiter, self.now);
            self.act();
            if !matches!(answer, Answer::Waits(_)) {
                assert!(woken, "a caller had an answer and was not woken");
                return self.answered(request, answer);
            }
        }
        let tenant = self.requests[request].tenant;
        self.note_request(What::GivesUp, request, tenant.into());
        let answer = self.desk.give_up(waiter, self.now);
        self.act();
        let served = matches!(answer, Answer::Socket(..) | Answer::Pool(_));
        assert!(woken || !served, "a caller had an answer and was not woken");
        assert!(!matches!(answer, Answer::Waits(_)), "a caller waits past its deadline");
        self.answered(request, answer);
    }

    pub(super) fn cancels(&mut self, request: RequestKey) {
        let Some(waiter) = self.waiter(request) else { return };
        let entry = &self.requests[request];
        let (errand, tenant) = (entry.errand, entry.tenant);
        self.note_request(What::Cancels, request, tenant.into());
        self.measure(errand.crowd, |measures| measures.cancelled += 1);
        self.requests.remove(request);
        self.desk.cancel(waiter, self.now);
        self.act();
        self.next_errand(errand, false);
    }

    fn answered(&mut self, request: RequestKey, answer: Answer<D>) {
        match answer {
            Answer::Socket(permit, socket) => {
                self.hand_out(permit, socket, request);
                self.holds(request, socket);
            }
            Answer::Pool(permits) => self.holds_pool(request, permits),
            Answer::No(no) => self.is_refused(request, no),
            Answer::Waits(_) => unreachable!("it was answered"),
        }
    }

    fn is_refused(&mut self, request: RequestKey, no: No) {
        let Some(entry) = self.requests.remove(request) else { unreachable!("a request is answered once") };
        let (errand, tenant) = (entry.errand, entry.tenant);
        let (reason, hint) = match no {
            No::Limit(scope, hint, _) => (scope as u64, hint),
            No::Timeout => (10, None),
            No::Connect(kind) => (20 + kind as u64, None),
            No::Unavailable(kind, hint) => (40 + kind as u64, Some(hint)),
            No::Draining => (60, None),
            No::Removed => (61, None),
            No::Closed => (62, None),
        };
        self.note_request(What::IsRefused, request, reason);
        if let No::Unavailable(kind, hint) = no {
            self.outside.tells(tenant, kind, hint, entry.answered);
        }
        assert_ne!(hint, Some(Duration::ZERO), "a caller is told to come again at once");
        let now = self.now;
        self.measure(errand.crowd, |measures| match no {
            No::Limit(scope, hint, held) => {
                measures.unguided += u64::from(hint.is_none());
                measures.held_by_caller += u64::from(held > 0);
                if scope == LimitScope::Queue || entry.asked == now {
                    measures.no_place += 1
                } else {
                    measures.late += 1
                }
            }
            No::Timeout => measures.timeouts += 1,
            No::Connect(_) => measures.connect_errors += 1,
            No::Unavailable(..) => measures.unavailable += 1,
            No::Draining | No::Removed | No::Closed => measures.sent_away += 1,
        });
        match (self.plan.crowds[errand.crowd].retries, hint) {
            (Retries::AsTold(most), Some(hint)) if errand.tries < most => {
                let again = Errand { tenant: Some(tenant), tries: errand.tries + 1, ..errand };
                self.agenda.put(self.now + hint, Event::Asks(again));
            }
            _ => self.next_errand(errand, false),
        }
    }
}

/// Holding and giving back.
impl<D: Desk> Engine<'_, D> {
    fn granted(&mut self, request: RequestKey) -> usize {
        let entry = &self.requests[request];
        let (crowd, tries, waited) = (entry.errand.crowd, entry.errand.tries, self.now - entry.asked);
        self.measure(crowd, |measures| {
            measures.granted += 1;
            measures.first_retries_served += u64::from(tries == 1);
            // A wait longer than an hour is as bad as one of an hour.
            let micros = u64::try_from(waited.as_micros()).unwrap_or(u64::MAX);
            measures.waits.saturating_record(micros);
        });
        self.holds += 1;
        if self.holds == self.plan.measured_from {
            self.outside.busy.begin(self.now);
            self.outside.occupied.begin(self.now);
        }
        crowd
    }

    fn holds(&mut self, request: RequestKey, socket: SocketKey) {
        let crowd = self.granted(request);
        self.requests[request].state = State::Holds(socket);
        self.note_request(What::Takes, request, super::engine::number(socket));
        let plan = &self.plan.crowds[crowd];
        let mut hold = plan.hold.draw(&mut self.crowds[crowd].rng);
        let errand = self.requests[request].errand;
        if errand.outer.is_none() && happens(&mut self.crowds[crowd].rng, plan.nests) {
            let tenant = Some(self.requests[request].tenant);
            let inner = Errand { tenant, tries: 0, outer: Some(request), ..errand };
            return self.agenda.put(self.now, Event::Asks(inner));
        }
        if !self.is_alive(socket) {
            self.note_request(What::MeetsDead, request, super::engine::number(socket));
            self.report.met_dead += 1;
            hold = hold.min(FIRST_QUERY);
        }
        self.agenda.put(self.now + hold, Event::HoldEnds(request));
    }

    pub(super) fn hold_ends(&mut self, request: RequestKey) {
        let Some(entry) = self.requests.get_mut(request) else { return };
        match std::mem::replace(&mut entry.state, State::Asking) {
            State::Holds(socket) => self.releases(request, socket),
            State::HoldsPool(permits, server) => self.closes_pool(request, permits, server),
            other => entry.state = other,
        }
    }

    fn releases(&mut self, request: RequestKey, socket: SocketKey) {
        let errand = self.requests[request].errand;
        let plan = &self.plan.crowds[errand.crowd];
        let rng = &mut self.crowds[errand.crowd].rng;
        let drawn = match rng.f64() {
            chance if chance < plan.dirty => Health::Dirty,
            chance if chance < plan.dirty + plan.broken => Health::Broken,
            chance if chance < plan.dirty + plan.broken + plan.lost => Health::Lost,
            _ => Health::Clean,
        };
        let health = if self.is_alive(socket) { drawn } else { Health::Lost };
        self.give_back(request, socket, health);
        self.requests.remove(request);
        self.next_errand(errand, true);
    }

    fn give_back(&mut self, request: RequestKey, socket: SocketKey, health: Health) {
        let what = match health {
            Health::Dirty => What::ReleasesDirty,
            Health::Broken => What::ReleasesBroken,
            Health::Lost => What::ReleasesLost,
            _ => What::Releases,
        };
        self.note_request(what, request, super::engine::number(socket));
        let permit = self.take_back(socket, health);
        self.desk.release(permit, socket, health, self.now);
        self.act();
    }

    fn holds_pool(&mut self, request: RequestKey, permits: Vec<D::Permit>) {
        let crowd = self.granted(request);
        let entry = &mut self.requests[request];
        assert_eq!(permits.len(), entry.pool as usize, "a pool lease of another size");
        let (tenant, pool) = (entry.tenant, entry.pool);
        let server = self.homes[tenant as usize];
        entry.state = State::HoldsPool(permits, server);
        self.outside.take(tenant, server, pool, self.now);
        self.outside.is_busy(pool.cast_signed(), self.now);
        self.note_request(What::TakesPool, request, pool.into());
        let hold = self.plan.crowds[crowd].hold.draw(&mut self.crowds[crowd].rng);
        self.agenda.put(self.now + hold, Event::HoldEnds(request));
    }

    fn closes_pool(&mut self, request: RequestKey, permits: Vec<D::Permit>, server: usize) {
        self.note_request(What::ClosesPool, request, permits.len() as u64);
        self.desk.closing_pool(&permits, self.now);
        self.act();
        let takes = self.servers[server].close(true, self.plan.settings.close_timeout);
        self.requests[request].state = State::ClosesPool(permits, server);
        self.agenda.put(self.now + takes, Event::PoolClosed(request));
    }

    pub(super) fn pool_closed(&mut self, request: RequestKey) {
        let Some(entry) = self.requests.remove(request) else { unreachable!("a pool is closed once") };
        let State::ClosesPool(permits, server) = entry.state else { unreachable!("it is being closed") };
        self.outside.is_busy(-entry.pool.cast_signed(), self.now);
        self.outside.frees(entry.tenant, server, entry.pool, self.now);
        self.desk.free_pool(&permits, self.now);
        self.act();
        self.next_errand(entry.errand, true);
    }
}
