//! What callers do: ask, look, leave, give back.

use tenantry_core::Health;
use tenantry_core::ledger::Ask;

use super::super::expectation::{Answer, Command, Refusal, Reply};
use super::{Claim, Fitness, Mode, Permit, PoolLease, Reference, State, Waiter};

impl Reference {
    pub(super) fn acquire(&mut self, tenant: usize, ask: Ask, polled: bool) {
        if ask.pool == 0 && polled && self.acquire_warm(tenant, ask) {
            return;
        }
        let Ask { pool, background, caller } = ask;
        let command = Command::Acquire { tenant, pool, background, caller };
        if !self.closed {
            self.forget_tombstone(tenant);
        }
        if !self.closed && !self.is_known(tenant) {
            self.call(command.clone(), Reply::Unknown);
            self.admit(tenant);
        }
        let reply = self.ask(tenant, ask);
        let waits = if let Reply::Waits(waiter) = reply { Some(waiter) } else { None };
        self.call(command, reply);
        if let Some(waiter) = waits.filter(|_| polled) {
            self.poll(waiter);
        }
    }

    fn ask(&mut self, tenant: usize, ask: Ask) -> Reply {
        if self.closed {
            return Reply::Refused(Refusal::Closed);
        }
        if let Some(refusal) = self.refuse_by_mode(tenant) {
            return Reply::Refused(refusal);
        }
        let reply = self.take_or_wait(tenant, ask);
        self.settle();
        reply
    }

    /// Whether nobody in line comes before a new one of this kind.
    fn is_first(&self, tenant: usize, background: bool) -> bool {
        self.line(tenant).next().is_none_or(|head| head.background && !background)
    }

    fn take_or_wait(&mut self, tenant: usize, ask: Ask) -> Reply {
        let first = self.line_len(tenant) == 0;
        let Ask { pool, background, caller } = ask;
        if self.is_first(tenant, background)
            && pool == 0
            && let Some(permit) = self.find_fit(tenant, background, true)
        {
            return self.take(permit, background, caller);
        }
        if let Some(refusal) = self.refuse_at_once(tenant, ask) {
            return Reply::Refused(refusal);
        }
        self.clock += 1;
        if first {
            let clock = self.clock;
            let entry = self.tenant_mut(tenant);
            entry.next_turn = entry.next_turn.max(clock);
        }
        let id = self.next_id();
        let since = self.now;
        self.events.waits += 1;
        self.waiters.push(Waiter {
            id,
            tenant,
            pool,
            background,
            caller,
            since,
            polled: false,
            answer: None,
            answered: 0,
            gathered: Vec::new(),
        });
        self.note_who_is_quiet();
        self.settle_with(tenant);
        self.refuse_by_queue(id).map_or(Reply::Waits(id), Reply::Refused)
    }

    /// There was no place in line for it.
    pub(super) fn turn_away(&mut self, waiter: u32) {
        self.stop_gathering(waiter);
        let tenant = self.remove_waiter(waiter).tenant;
        self.left_the_line(tenant);
    }

    pub(super) fn try_acquire(&mut self, tenant: usize, caller: u64) {
        if !self.closed {
            self.forget_tombstone(tenant);
        }
        let reply = if self.closed {
            Reply::Refused(Refusal::Closed)
        } else if let Some(refusal) = self.refuse_by_mode(tenant) {
            Reply::Refused(refusal)
        } else if !self.is_known(tenant) {
            Reply::NotIdle
        } else {
            let fit = if self.is_first(tenant, false) { self.find_fit(tenant, false, false) } else { None };
            let reply = fit.map_or(Reply::NotIdle, |permit| self.take(permit, false, caller));
            self.settle();
            reply
        };
        self.call(Command::TryAcquire { tenant, caller }, reply);
    }

    /// The warm path alone: it changes nothing where it has nothing to give.
    pub(super) fn acquire_warm(&mut self, tenant: usize, ask: Ask) -> bool {
        let Ask { background, caller, .. } = ask;
        let asked = !self.closed && self.mode(tenant) == Some(Mode::Active) && self.line_len(tenant) == 0;
        let newest = if asked { self.idle_for(tenant, background) } else { None };
        // What leaves the share of background work may serve others, and this path serves nobody.
        let newest = newest.filter(|&newest| background || !self.permit(newest).background);
        let fit = newest.filter(|&newest| self.fitness(newest, true) == Fitness::Fit);
        let reply = fit.map_or(Reply::NotIdle, |permit| self.take(permit, background, caller));
        self.call(Command::AcquireWarm { tenant, background, caller }, reply);
        fit.is_some()
    }

    /// The newest idle connection that the tenant's work of this kind may have (rule 7).
    pub(super) fn idle_for(&self, tenant: usize, background: bool) -> Option<u32> {
        let any = !background || self.has_share();
        self.idle_of(tenant).into_iter().rfind(|&idle| any || self.permit(idle).background)
    }

    /// For work of this kind: lent to background work where it is not its own; a user's from now on where it was.
    pub(super) fn hand_out(&mut self, permit: u32, background: bool) {
        self.lend(permit, background);
        self.permit_mut(permit).background = background;
    }

    /// Lent, where it is not background's own.
    fn lend(&mut self, permit: u32, background: bool) {
        let entry = self.permit_mut(permit);
        if background && !entry.background {
            (entry.background, entry.lent) = (true, true);
        }
    }

    fn take(&mut self, permit: u32, background: bool, caller: u64) -> Reply {
        self.hand_out(permit, background);
        self.events.warm_hits += 1;
        let now = self.now;
        self.permit_mut(permit).run_since = now;
        self.lease(permit, caller)
    }

    /// idle or granted -> leased.
    fn lease(&mut self, permit: u32, caller: u64) -> Reply {
        self.enter(permit, State::Leased);
        let entry = self.permit_mut(permit);
        entry.caller = caller;
        Reply::Connection { permit, connection: entry.connection.expect("an open one") }
    }

    /// The tenant's newest idle connection that may be handed out as it is. What is unfit is put away on the search; one
    /// that is aged ends it, as all others are older still.
    fn find_fit(&mut self, tenant: usize, background: bool, by_age: bool) -> Option<u32> {
        loop {
            let newest = self.idle_for(tenant, background)?;
            match self.fitness(newest, by_age) {
                Fitness::Fit => return Some(newest),
                Fitness::Aged => {
                    self.put_away(newest, Fitness::Aged, background);
                    return None;
                }
                unfit => self.put_away(newest, unfit, background),
            }
        }
    }

    /// Rules 15 and 16.
    pub(super) fn fitness(&self, idle: u32, by_age: bool) -> Fitness {
        let permit = self.permit(idle);
        if permit.expires_at <= self.now {
            Fitness::Expired
        } else if permit.epoch != self.epoch(permit.server) {
            Fitness::Outdated
        } else if by_age && self.now - permit.since >= self.world.validate_after_idle {
            Fitness::Aged
        } else {
            Fitness::Fit
        }
    }

    /// Closed where its lifetime is over, else validated; for background work it is lent meanwhile.
    pub(super) fn put_away(&mut self, idle: u32, unfit: Fitness, background: bool) {
        if unfit == Fitness::Expired {
            self.events.closed_lifetime += 1;
            self.close_permit(idle);
        } else {
            self.lend(idle, background);
            self.recycle(idle);
        }
    }

    pub(super) fn poll(&mut self, waiter: u32) {
        let reply = if self.waiter(waiter).answer.is_some() {
            self.collect(waiter)
        } else {
            self.waiter_mut(waiter).polled = true;
            Reply::Pending
        };
        self.call(Command::Poll { waiter }, reply);
    }

    /// An answer -> gone.
    fn collect(&mut self, waiter: u32) -> Reply {
        let waiter = self.remove_waiter(waiter);
        match waiter.answer.expect("collect is for the answered") {
            Answer::Connection(permit) => self.lease(permit, waiter.caller),
            Answer::Pool => {
                self.pools.push(PoolLease { permits: waiter.gathered.clone(), closing: false });
                Reply::Pool(waiter.gathered)
            }
            Answer::Refused(refusal) => Reply::Refused(refusal),
        }
    }

    fn remove_waiter(&mut self, waiter: u32) -> Waiter {
        let at = self.waiters.iter().position(|other| other.id == waiter).expect("a waiter that exists");
        self.waiters.remove(at)
    }

    /// The acquire was dropped: nothing stays behind, and what it had been granted moves on (rule 8).
    pub(super) fn cancel(&mut self, waiter: u32) {
        self.stop_gathering(waiter);
        let gone = self.remove_waiter(waiter);
        match gone.answer {
            None => {
                self.events.waited += self.now - gone.since;
                self.left_the_line(gone.tenant);
                self.settle_with(gone.tenant);
            }
            Some(Answer::Connection(permit)) => {
                self.enter(permit, State::Leased);
                self.permit_mut(permit).caller = gone.caller;
                self.come_back(permit, false);
            }
            Some(Answer::Pool) => {
                self.free(&gone.gathered);
                self.settle();
            }
            Some(Answer::Refused(_)) => {}
        }
        self.call(Command::Cancel { waiter }, Reply::Nothing);
    }

    /// A deadline passed. What was given meanwhile is the answer.
    pub(super) fn give_up(&mut self, waiter: u32) {
        if self.waiter(waiter).answer.is_none() {
            let refusal = self.refuse_late(waiter);
            self.stop_gathering(waiter);
            // The one who asks need not be woken.
            self.waiter_mut(waiter).polled = false;
            self.answer(waiter, Answer::Refused(refusal));
            self.settle_with(self.waiter(waiter).tenant);
        }
        let reply = self.collect(waiter);
        self.call(Command::GiveUp { waiter }, reply);
    }

    /// A waiter without an answer no longer gathers permits.
    pub(super) fn stop_gathering(&mut self, waiter: u32) {
        if self.waiter(waiter).answer.is_none() {
            let gathered = std::mem::take(&mut self.waiter_mut(waiter).gathered);
            self.free(&gathered);
        }
        if self.gathering == Some(waiter) {
            self.gathering = None;
        }
    }

    /// in use -> idle, recycling or closing (rules 3, 15).
    pub(super) fn release(&mut self, permit: u32, health: Health) {
        self.permit_mut(permit).warned = false;
        match health {
            Health::Clean => self.come_back(permit, false),
            Health::Dirty if !self.is_retired(permit) => {
                self.recycle(permit);
                self.settle();
            }
            Health::Dirty => {
                self.events.closed_lifetime += u64::from(self.permit(permit).expires_at <= self.now);
                self.retire(permit);
            }
            Health::Broken | Health::Lost => {
                if health == Health::Lost {
                    self.saw_breakage(permit);
                }
                self.events.closed_broken += 1;
                self.retire(permit);
            }
        }
        self.call(Command::Release { permit, health }, Reply::Nothing);
    }

    /// in use -> idle and to whom it may concern; closing, where it is not to be used again.
    pub(super) fn come_back(&mut self, permit: u32, fresh: bool) {
        if self.is_retired(permit) {
            self.events.closed_lifetime += u64::from(!fresh && self.permit(permit).expires_at <= self.now);
            self.retire(permit);
        } else {
            if !fresh {
                self.note_return(permit);
            }
            self.become_idle(permit);
            self.offer(permit, fresh);
        }
    }

    /// A connection is found lost: the end of its server's epoch, unless it was of an older one (rule 15).
    pub(super) fn saw_breakage(&mut self, permit: u32) {
        let permit = self.permit(permit);
        let (server, epoch) = (permit.server, permit.epoch);
        self.servers[server].epoch += u32::from(epoch == self.epoch(server));
    }

    /// in use -> closing. What waits may count on its permit.
    pub(super) fn retire(&mut self, permit: u32) {
        self.note_return(permit);
        self.close_permit(permit);
        self.settle_with(self.permit(permit).tenant);
    }

    /// Whether a connection is to be closed instead of kept.
    fn is_retired(&self, permit: u32) -> bool {
        let permit = self.permit(permit);
        let tenant = self.tenant(permit.tenant);
        self.closed
            || self.is_too_many(permit)
            || tenant.mode != Mode::Active
            || tenant.server != permit.server
            || self.servers[permit.server].paused
            || permit.expires_at <= self.now
    }

    /// Whether more stay than a limit, which was lowered, allows.
    pub(super) fn is_too_many(&self, permit: &Permit) -> bool {
        let (tenant, server) = (permit.tenant, permit.server);
        let stays = |permit: &Permit| !matches!(permit.state, State::Closing { .. });
        self.count(|permit| stays(permit) && permit.tenant == tenant) > self.world.tenants[tenant].max
            || self.count(|permit| stays(permit) && permit.server == server) > self.world.server_cap(server)
            || self.count(stays) > self.world.total
    }

    /// The newest of its tenant from now on, pinned where the reserve has a pin to give (rule 4).
    fn become_idle(&mut self, permit: u32) {
        self.enter(permit, State::Idle);
        let (tenant, now) = (self.permit(permit).tenant, self.now);
        let pins = self.pins_of(tenant) < self.reserve(tenant);
        let entry = self.permit_mut(permit);
        if entry.lent {
            (entry.background, entry.lent) = (false, false);
        } else {
            (entry.used_at, entry.used_order) = (now, entry.order);
        }
        if pins {
            // What fills a reserve is its tenant's, whoever opened it.
            (entry.pinned, entry.background) = (true, false);
        }
    }

    pub(super) fn pins_of(&self, tenant: usize) -> u32 {
        self.count(|permit| permit.tenant == tenant && permit.pinned)
    }

    /// Counts one return, for `retry_after`: something is not in use any more.
    pub(super) fn note_return(&mut self, permit: u32) {
        let permit = self.permit(permit);
        let (tenant, server, now) = (permit.tenant, permit.server, self.now);
        self.tenant_mut(tenant).returns.note(now);
        self.servers[server].returns.note(now);
        self.returns.note(now);
    }

    pub(super) fn recycle(&mut self, permit: u32) {
        self.events.recycles += 1;
        self.enter(permit, State::Recycling);
        let epoch = self.epoch(self.permit(permit).server);
        let entry = self.permit_mut(permit);
        entry.epoch = epoch;
        let connection = entry.connection.expect("an open one");
        self.expected.recycles.push((permit, connection));
        // It covers one of those who are in line by now; a new one, for whom it may be, joins them later.
        self.withdraw_promises();
    }

    /// -> closing, by a task of the manager's.
    pub(super) fn close_permit(&mut self, permit: u32) {
        let connection = self.permit(permit).connection.expect("an open one");
        self.expected.closes.push((permit, connection));
        self.start_closing(permit);
    }

    /// -> closing. The pin goes to another idle one of the tenant, the oldest (rule 4).
    pub(super) fn start_closing(&mut self, permit: u32) {
        let tenant = self.permit(permit).tenant;
        let kept = self.all_of(tenant) <= self.reserve(tenant);
        self.enter(permit, State::Closing { claim: if kept { Claim::Nobody } else { Claim::Spare }, overdue: false });
        let entry = self.permit_mut(permit);
        (entry.pinned, entry.lent) = (false, false);
        self.pin_idle(tenant);
    }

    /// Idle connections take the pins that a reserve has to give, the oldest first.
    pub(super) fn pin_idle(&mut self, tenant: usize) {
        for idle in self.idle_of(tenant) {
            if self.pins_of(tenant) < self.reserve(tenant) {
                let entry = self.permit_mut(idle);
                (entry.pinned, entry.background) = (true, false);
            }
        }
    }

    /// -> free.
    pub(super) fn free(&mut self, permits: &[u32]) {
        for &permit in permits {
            let at = self.at(permit);
            if !matches!(self.permits[at].state, State::Closing { .. }) {
                self.note_return(permit);
            }
            let place = self.permits.remove(at).place;
            self.permit_places.free.push(place);
        }
    }
}
