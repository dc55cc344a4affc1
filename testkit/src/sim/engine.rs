//! The run itself: takes one event after the other, tells the desk, and carries out what the desk wants. `callers.rs` plays
//! those who ask, `sockets.rs` the connections, `trouble.rs` faults and operators.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use slotmap::{Key, SlotMap};
use tenantry_core::TenantId;

use super::agenda::Agenda;
use super::callers::{CrowdState, Request};
use super::desk::{Desk, RequestKey, Seen, SocketKey, Work};
use super::log::{Log, What};
use super::outside::Outside;
use super::plan::{Breakage, Operation, Plan};
use super::report::{Report, Violation};
use super::server::Server;
use super::sockets::{Place, Socket};

/// More events than this at one moment mean that the desk and the engine chase each other.
const MOST_AT_ONCE: u32 = 1_000_000;
const CONNECTS_LOGGED: usize = 10_000;
/// How much of a recount is worth one event.
const CHECK_WORK: u64 = 1_000;
/// How long the last holds and closes may take after the manager was closed.
const LONGEST_END: Duration = Duration::from_secs(3_600);
/// How often time passes for a manager that holds nothing.
const QUIET_TICK: Duration = Duration::from_secs(1);

/// What may come next.
pub(super) enum Event {
    /// The next one of a crowd that comes by itself.
    Arrives(usize),
    /// A crowd's pace changes for a while, or back.
    Bursts(usize),
    /// A caller of a crowd asks: a first time, or again as told.
    Asks(Errand),
    /// A woken caller looks.
    Looks(RequestKey),
    Deadline(RequestKey),
    Cancels(RequestKey),
    HoldEnds(RequestKey),
    /// A connect is over, well or not.
    Connected(SocketKey),
    Recycled(SocketKey, bool),
    Closed(SocketKey),
    PoolClosed(RequestKey),
    /// A server forgets a session.
    Forgets(usize, u32),
    FaultBegins(usize),
    FaultEnds(usize),
    Operates(Operation),
    Meddles,
    Tick,
    /// The crowds go home.
    Ends,
    /// Nobody is left who asks.
    Closes,
}

/// One caller's wish.
#[derive(Clone, Copy, Debug)]
pub(super) struct Errand {
    pub(super) crowd: usize,
    pub(super) caller: u32,
    /// None: to be drawn.
    pub(super) tenant: Option<u32>,
    /// Tries before this one.
    pub(super) tries: u32,
    /// What the caller holds meanwhile.
    pub(super) outer: Option<RequestKey>,
}

pub(super) struct Engine<'a, D: Desk> {
    pub(super) plan: &'a Plan,
    pub(super) desk: D,
    pub(super) agenda: Agenda<Event>,
    pub(super) now: Duration,
    pub(super) requests: SlotMap<RequestKey, Request<D>>,
    pub(super) sockets: SlotMap<SocketKey, Socket<D>>,
    pub(super) servers: Vec<Server>,
    /// Where each tenant lives.
    pub(super) homes: Vec<usize>,
    pub(super) broken: BTreeMap<u32, Breakage>,
    pub(super) crowds: Vec<CrowdState>,
    pub(super) outside: Outside,
    pub(super) log: Log,
    /// For wake-ups, jitter and operators.
    pub(super) rng: Rng,
    pub(super) holds: u64,
    pub(super) ended: bool,
    closed_at: Option<Duration>,
    work: Vec<Work<D::Permit>>,
    at_once: u32,
    next_tick: Duration,
    last_check: u64,
    next_check: u64,
    pub(super) report: Report,
}

impl<'a, D: Desk> Engine<'a, D> {
    fn new(plan: &'a Plan) -> Self {
        let names: Rc<[TenantId]> = (0..plan.tenants).map(name).collect();
        // A generator for each part, so that one part's draws do not change another's.
        let mut seeds = Rng::with_seed(plan.seed);
        let mut part = || Rng::with_seed(seeds.u64(..));
        let crowds: Vec<CrowdState> = plan.crowds.iter().map(|crowd| CrowdState::new(crowd, part())).collect();
        let servers: Vec<Server> = plan.servers.iter().map(|server| Server::new(server, part())).collect();
        Self {
            plan,
            desk: D::new(plan, names),
            agenda: Agenda::new(),
            now: Duration::ZERO,
            requests: SlotMap::with_key(),
            sockets: SlotMap::with_key(),
            homes: (0..plan.tenants as usize).map(|tenant| tenant % servers.len()).collect(),
            servers,
            broken: BTreeMap::new(),
            outside: Outside::new(plan),
            log: Log::new(plan.last_events),
            rng: part(),
            holds: 0,
            ended: false,
            closed_at: None,
            work: Vec::new(),
            at_once: 0,
            next_tick: Duration::ZERO,
            last_check: 0,
            next_check: 0,
            report: Report::new(plan, &crowds),
            crowds,
        }
    }

    /// Everything that is known beforehand.
    fn begin(&mut self) {
        for (index, fault) in self.plan.faults.iter().enumerate() {
            self.agenda.put(fault.at, Event::FaultBegins(index));
            self.agenda.put(fault.at + fault.lasts, Event::FaultEnds(index));
        }
        for &(at, operation) in &self.plan.operations {
            self.agenda.put(at, Event::Operates(operation));
        }
        for crowd in 0..self.crowds.len() {
            self.send(crowd);
        }
        if self.plan.meddling.is_some() {
            self.agenda.put(Duration::ZERO, Event::Meddles);
        }
        self.agenda.put(self.plan.lasts, Event::Ends);
        self.agenda.put(Duration::ZERO, Event::Tick);
    }

    fn run(&mut self) {
        self.begin();
        while let Some((at, event)) = self.agenda.next() {
            self.at_once = if at > self.now { 0 } else { self.at_once + 1 };
            assert!(self.at_once < MOST_AT_ONCE, "{MOST_AT_ONCE} events at one moment");
            self.now = at;
            self.log.event += 1;
            self.log.at = at;
            self.event(event);
            self.act();
            if self.log.event >= self.next_check.min(self.plan.check_all_from) {
                self.check();
            }
        }
        self.end();
    }

    fn check(&mut self) {
        self.desk.check(self.seen());
        self.report.checks += 1;
        self.last_check = self.log.event;
        let pause = if self.plan.check_every > 0 {
            self.plan.check_every
        } else {
            // A recount looks at each tenant's every connection, and at each waiter.
            let (open, waiting) = self.desk.counts();
            ((u64::from(self.plan.tenants) * open + 2 * waiting) / CHECK_WORK).max(1)
        };
        self.next_check = self.last_check + pause;
    }

    fn seen(&self) -> Seen {
        let mut seen = Seen::default();
        for socket in self.sockets.values() {
            match socket.place {
                Place::Opening => seen.opening += 1,
                Place::Kept | Place::Out(_) | Place::Recycling => seen.open += 1,
                Place::Closing => seen.closing += 1,
            }
        }
        for request in self.requests.values() {
            seen.waiting += u64::from(request.has_no_answer());
            seen.leased += u64::from(request.leased());
            seen.closing += u64::from(request.closing());
        }
        seen
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Arrives(crowd) => self.arrives(crowd),
            Event::Bursts(crowd) => self.bursts(crowd),
            Event::Asks(errand) => self.asks(errand),
            Event::Looks(request) => self.looks(request),
            Event::Deadline(request) => self.deadline(request),
            Event::Cancels(request) => self.cancels(request),
            Event::HoldEnds(request) => self.hold_ends(request),
            Event::Connected(socket) => self.connected(socket),
            Event::Recycled(socket, well) => self.recycled(socket, well),
            Event::Closed(socket) => self.closed(socket),
            Event::PoolClosed(request) => self.pool_closed(request),
            Event::Forgets(server, incarnation) => self.forgets(server, incarnation),
            Event::FaultBegins(fault) => self.fault_begins(fault),
            Event::FaultEnds(fault) => self.fault_ends(fault),
            Event::Operates(operation) => self.operates(operation),
            Event::Meddles => self.meddles(),
            Event::Tick => self.tick(),
            Event::Ends => self.ends(),
            Event::Closes => self.closes(),
        }
    }

    /// Carries out what the desk wants. Called after each command.
    pub(super) fn act(&mut self) {
        let mut work = std::mem::take(&mut self.work);
        self.desk.work(&mut work);
        for wanted in work.drain(..) {
            match wanted {
                Work::Open { permit, tenant } => self.open(permit, tenant),
                Work::Recycle { permit, socket } => self.recycle(permit, socket),
                Work::Close { permit, socket } => self.close(permit, socket),
                Work::Wake(request) => self.wake(request),
            }
        }
        self.work = work;
    }

    /// As often as tenantry's own maintenance does: a tenth of the shortest time that matters.
    pub(super) fn tick_period(&self) -> Duration {
        let plan = &self.plan.settings;
        let times =
            [plan.validate_after_idle, plan.idle_timeout, plan.max_lifetime, plan.close_timeout, plan.lease_warn_after];
        let shortest = times.into_iter().filter(|time| !time.is_zero()).min().unwrap_or(QUIET_TICK);
        (shortest / 10).clamp(Duration::from_millis(10), QUIET_TICK)
    }

    fn tick(&mut self) {
        // One that was replaced by an earlier one.
        if self.now < self.next_tick {
            return;
        }
        self.desk.tick(self.now);
        let quiet = self.desk.is_quiet();
        let over = self.ended && quiet && self.sockets.is_empty() && self.requests.is_empty();
        let closed = self.closed_at.unwrap_or(self.now);
        assert!(self.now <= closed + LONGEST_END, "{LONGEST_END:?} after the close it has not ended");
        if !over {
            self.next_tick = self.now + if quiet { QUIET_TICK } else { self.tick_period() };
            self.agenda.put(self.next_tick, Event::Tick);
        }
    }

    /// Something begins: time matters again.
    pub(super) fn stir(&mut self) {
        if self.next_tick > self.now + self.tick_period() {
            self.next_tick = self.now;
            self.agenda.put(self.now, Event::Tick);
        }
    }

    fn ends(&mut self) {
        self.ended = true;
        self.report.busy = self.outside.busy.average(self.now);
        self.report.occupied = self.outside.occupied.average(self.now);
        let (open, waiting) = self.desk.counts();
        self.log.note(What::AllGoHome, open, waiting);
        let longest = self.plan.crowds.iter().map(|crowd| crowd.timeout).max().unwrap_or_default();
        // By then everybody who waited was served or told.
        let patience = if self.plan.closes_at_once { Duration::ZERO } else { longest + Duration::from_secs(60) };
        self.agenda.put(self.now + patience, Event::Closes);
    }

    fn closes(&mut self) {
        let (open, waiting) = self.desk.counts();
        self.log.note(What::ManagerCloses, open, waiting);
        if !self.plan.closes_at_once {
            assert_eq!(waiting, 0, "somebody waits though all deadlines have passed");
            let waits = self.requests.values().filter(|request| request.waits()).count();
            assert_eq!(waits, 0, "a caller has no answer though all deadlines have passed");
        }
        self.desk.close(self.now);
        self.closed_at = Some(self.now);
        self.outside.closes();
    }

    /// Nothing is to come any more.
    fn end(&mut self) {
        self.check();
        assert!(self.desk.is_quiet(), "all has ended, and the manager is not quiet");
        assert!(self.requests.is_empty(), "all has ended, and {} callers have no answer", self.requests.len());
        assert!(self.sockets.is_empty(), "all has ended, and {} connections are not closed", self.sockets.len());
        self.outside.assert_free();
        let sessions: u32 = self.servers.iter().map(|server| server.sessions).sum();
        assert_eq!(sessions, 0, "a server still counts a session");
        self.report.most_open = self.outside.total.most;
        self.report.most_connecting = self.outside.most_connecting();
    }

    pub(super) fn log_connect(&mut self, tenant: u32) {
        if self.report.connect_log.len() < CONNECTS_LOGGED {
            self.report.connect_log.push((self.now, tenant));
        }
    }

    pub(super) fn note_request(&mut self, what: What, request: RequestKey, object: u64) {
        self.log.note(what, request.data().as_ffi() & 0xffff_ffff, object);
    }

    pub(super) fn note_socket(&mut self, what: What, socket: SocketKey, object: u64) {
        self.log.note(what, number(socket), object);
    }
}

/// A connection's number in the log.
pub(super) fn number(socket: SocketKey) -> u64 {
    socket.data().as_ffi() & 0xffff_ffff
}

fn name(tenant: u32) -> TenantId {
    let name = format!("tenant_{tenant}");
    TenantId::new(name).unwrap_or_else(|invalid| unreachable!("a number is a name: {invalid}"))
}

/// Runs a plan on a desk of this kind.
pub(super) fn run<D: Desk>(plan: &Plan) -> Result<Report, Violation> {
    let mut engine = Engine::<D>::new(plan);
    let outcome = catch_unwind(AssertUnwindSafe(|| engine.run()));
    let Err(panic) = outcome else {
        engine.report.simulated = engine.now;
        engine.report.events = engine.log.event;
        engine.report.digest = engine.log.digest;
        return Ok(engine.report);
    };
    let what = panic.downcast_ref::<String>().cloned();
    let what = what.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned()));
    let violation = Violation {
        seed: plan.seed,
        event: engine.log.event,
        at: engine.now,
        what: what.unwrap_or_default(),
        last: engine.log.last(),
        digest: engine.log.digest,
    };
    // Found by a recount that is not made at every event: it may have been so for a while.
    if plan.check_every != 1 && plan.check_all_from == u64::MAX {
        let closer = Plan { check_all_from: engine.last_check + 1, ..plan.clone() };
        return Err(run::<D>(&closer).err().unwrap_or(violation));
    }
    Err(violation)
}
