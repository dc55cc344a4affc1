//! What tasks answer, what operators do, and what time alone changes.

use std::time::Duration;

use super::super::expectation::{Answer, Command, Refusal, Reply};
use super::super::world::{Change, MS, TENANTS};
use super::{Claim, Mode, Reference, State};

/// How long a close is counted on before its permit is expected from elsewhere; for a promised one twice as long each
/// time in a row. The rules leave it open.
const CLOSE_IS_LATE: Duration = Duration::from_millis(100);

impl Reference {
    /// opening -> idle, or straight to a waiter (rule 2).
    pub(super) fn opened(&mut self, permit: u32, random: u64) {
        let connection = self.next_id();
        self.events.connects += 1;
        let (tenant, server) = (self.permit(permit).tenant, self.permit(permit).server);
        let took = self.now - self.permit(permit).since;
        // How the connect time is averaged is left open.
        let average = &mut self.servers[server].connect_time;
        *average = Some(average.map_or(took, |average| (average * 7 + took) / 8));
        // A success ends what was remembered of failures (rule 9).
        self.tenant_mut(tenant).memory = None;
        let jitter = (self.world.max_lifetime.as_millis() as u64 / 10).max(1);
        let expires_at = self.now + self.world.max_lifetime - MS * (random % jitter) as u32;
        self.enter(permit, State::Leased);
        let entry = self.permit_mut(permit);
        (entry.connection, entry.expires_at) = (Some(connection), expires_at);
        self.server_took_one(server);
        self.come_back(permit, true);
        self.call(Command::Opened { permit, connection, random }, Reply::Nothing);
    }

    pub(super) fn recycled(&mut self, permit: u32) {
        self.come_back(permit, false);
        self.call(Command::Recycled { permit }, Reply::Nothing);
    }

    /// recycling -> closing, by the task that could not clean it.
    pub(super) fn recycle_failed(&mut self, permit: u32, lost: bool) {
        if lost {
            self.saw_breakage(permit);
            self.call(Command::FoundLost { permit }, Reply::Nothing);
        }
        self.events.closed_broken += 1;
        let tenant = self.permit(permit).tenant;
        self.start_closing(permit);
        self.settle_line(tenant, None);
        self.refuse_uncovered(tenant);
        self.settle();
        self.call(Command::RecycleFailed { permit }, Reply::Nothing);
    }

    pub(super) fn closing_ended(&mut self, at: usize) {
        let of_pools: Vec<u32> = self.pools.iter().flat_map(|pool| &pool.permits).copied().collect();
        let single = |id: u32| !of_pools.contains(&id);
        let closing = self.in_order(|permit| matches!(permit.state, State::Closing { .. }) && single(permit.id));
        if !closing.is_empty() {
            self.closed(closing[at % closing.len()]);
        }
    }

    /// closing -> free.
    fn closed(&mut self, permit: u32) {
        let state = self.permit(permit).state;
        self.free(&[permit]);
        if let State::Closing { claim: Claim::Promised { to, .. }, .. } = state {
            self.tenant_mut(to).lateness = 0;
            self.keep_promise(to);
        }
        self.settle();
        self.call(Command::Closed { permit }, Reply::Nothing);
    }

    /// A clone of the driver's pool may live on for long, so nobody counts on its permits.
    pub(super) fn closing_pool(&mut self, pool: usize) {
        self.pools[pool].closing = true;
        let permits = self.pools[pool].permits.clone();
        for &permit in &permits {
            self.enter(permit, State::Closing { claim: Claim::Nobody, overdue: false });
        }
        self.settle();
        self.call(Command::ClosingPool { permits }, Reply::Nothing);
    }

    pub(super) fn closed_pool(&mut self, pool: usize) {
        for permit in self.pools.remove(pool).permits {
            self.closed(permit);
        }
    }

    pub(super) fn free_pool(&mut self, pool: usize) {
        let permits = self.pools.remove(pool).permits;
        self.free(&permits);
        self.settle();
        self.call(Command::FreePool { permits }, Reply::Nothing);
    }

    /// Rule 18.
    pub(super) fn drain(&mut self, tenant: usize) {
        let known = self.is_known(tenant);
        if self.mode(tenant) == Some(Mode::Active) {
            self.tenant_mut(tenant).mode = Mode::Draining;
            self.clear_out(&[tenant], &Refusal::Draining);
        }
        self.call(Command::Drain { tenant }, Reply::Was(known));
    }

    /// As a drain, and a tombstone stays.
    pub(super) fn remove(&mut self, tenant: usize) {
        let known = self.is_known(tenant);
        if known && self.mode(tenant) != Some(Mode::Removed) {
            self.tenant_mut(tenant).mode = Mode::Removed;
            self.clear_out(&[tenant], &Refusal::Removed);
        }
        self.call(Command::Remove { tenant }, Reply::Was(known));
    }

    /// A tenant's database was made: what was remembered of failures, and its tombstone, are history.
    pub(super) fn created(&mut self, tenant: usize) {
        if let Some(entry) = &mut self.tenants[tenant] {
            entry.memory = None;
            if entry.mode == Mode::Removed {
                entry.mode = Mode::Active;
            }
            // Its quiet time begins anew.
            entry.quiet = None;
            self.settle();
        }
        self.call(Command::Created { tenant }, Reply::Nothing);
    }

    /// Nothing is opened on a server any more, and nothing kept. Who waits waits on.
    pub(super) fn pause(&mut self, server: usize) {
        self.servers[server].paused = true;
        for idle in self.by_place(|permit| permit.server == server && permit.state == State::Idle) {
            self.close_permit(idle);
        }
        self.settle();
        self.call(Command::Pause { server }, Reply::Nothing);
    }

    pub(super) fn unpause(&mut self, server: usize) {
        let paused = std::mem::take(&mut self.servers[server].paused);
        self.settle();
        self.call(Command::Unpause { server }, Reply::Was(paused));
    }

    /// Rule 12.
    pub(super) fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            let known: Vec<usize> = (0..TENANTS).filter(|&tenant| self.is_known(tenant)).collect();
            self.clear_out(&known, &Refusal::Closed);
        }
        self.call(Command::Close, Reply::Nothing);
    }

    /// Everybody in line and everybody who has not collected yet is refused; what is idle or granted closes.
    fn clear_out(&mut self, tenants: &[usize], refusal: &Refusal) {
        let theirs = |tenant: usize| tenants.contains(&tenant);
        let of_theirs: Vec<u32> =
            self.waiters.iter().filter(|waiter| theirs(waiter.tenant)).map(|waiter| waiter.id).collect();
        let (waiting, answered): (Vec<u32>, Vec<u32>) =
            of_theirs.into_iter().partition(|&waiter| self.waiter(waiter).answer.is_none());
        for waiter in waiting {
            self.stop_gathering(waiter);
            self.answer(waiter, Answer::Refused(refusal.clone()));
        }
        for waiter in answered {
            match self.waiter(waiter).answer.clone() {
                Some(Answer::Connection(permit)) => self.retire(permit),
                Some(Answer::Pool) => {
                    let gathered = std::mem::take(&mut self.waiter_mut(waiter).gathered);
                    self.free(&gathered);
                }
                _ => continue,
            }
            self.waiter_mut(waiter).answer = Some(Answer::Refused(refusal.clone()));
        }
        for idle in self.in_order(|permit| permit.state == State::Idle && theirs(permit.tenant)) {
            self.close_permit(idle);
        }
        self.settle();
    }

    /// What is above a lowered limit closes: the idle now, the least recently used first; the others as they come back.
    pub(super) fn set_limits(&mut self, change: &Change) {
        // Who has limits of its own is made known first.
        if !self.is_known(change.tenant) {
            self.admit(change.tenant);
        }
        let home = |tenant: usize| {
            let known = self.tenants[tenant].as_ref().map(|tenant| tenant.server);
            known.unwrap_or(self.world.tenants[tenant].home)
        };
        let homes = std::array::from_fn(home);
        self.world.change(change, homes);
        for tenant in self.by_their_places() {
            self.pin_idle(tenant);
            self.drop_pins(tenant);
        }
        for idle in self.in_order(|permit| permit.state == State::Idle && !permit.pinned) {
            if self.is_too_many(self.permit(idle)) {
                self.close_permit(idle);
            }
        }
        self.settle();
        self.call(Command::SetLimits(Box::new(self.world.settings())), Reply::Nothing);
    }

    /// Fewer pins for a smaller reserve: an idle connection that loses its pin closes.
    fn drop_pins(&mut self, tenant: usize) {
        for permit in self.by_place(|permit| permit.tenant == tenant && permit.pinned) {
            if self.pins_of(tenant) <= self.reserve(tenant) {
                return;
            }
            if self.permit(permit).state == State::Idle {
                self.close_permit(permit);
            } else {
                self.permit_mut(permit).pinned = false;
            }
        }
    }

    pub(super) fn resume(&mut self, tenant: usize, server: usize) {
        let draining = self.mode(tenant) == Some(Mode::Draining);
        if draining {
            if self.server_of(tenant) != server {
                // What the old server said is no news of the new one.
                self.tenant_mut(tenant).memory = None;
            }
            let entry = self.tenant_mut(tenant);
            (entry.mode, entry.server) = (Mode::Active, server);
            self.settle();
        }
        self.call(Command::Resume { tenant, server }, Reply::Was(draining));
    }

    pub(super) fn evict(&mut self, tenant: usize) {
        let idle = self.idle_of(tenant);
        for &permit in &idle {
            self.close_permit(permit);
        }
        self.events.closed_evict += idle.len() as u64;
        self.settle();
        self.call(Command::Evict { tenant }, Reply::Evicted(idle.len() as u32));
    }

    pub(super) fn tick(&mut self) {
        self.end_backoffs();
        self.close_expired();
        self.forget();
        let long = self.look_at_permits();
        self.settle();
        self.call(Command::Tick, Reply::LongLeases(long));
    }

    fn close_expired(&mut self) {
        let now = self.now;
        let idle_for = self.world.idle_timeout;
        let unused = |permit: &super::Permit| !permit.pinned && now - permit.since >= idle_for;
        for idle in self.in_order(|permit| permit.state == State::Idle && unused(permit)) {
            self.events.closed_idle += 1;
            self.close_permit(idle);
        }
        let mut expired = self.in_order(|permit| permit.state == State::Idle && permit.expires_at <= now);
        expired.sort_by_key(|&permit| (self.permit(permit).expires_at, self.permit(permit).place));
        for idle in expired {
            self.events.closed_lifetime += 1;
            self.close_permit(idle);
        }
    }

    /// Leases that are out for long, each once; closes that are late or overdue.
    fn look_at_permits(&mut self) -> Vec<(usize, Duration)> {
        let mut long = Vec::new();
        let (now, warn_after, close_timeout) = (self.now, self.world.lease_warn_after, self.world.close_timeout);
        for permit in &mut self.permits {
            let age = now - permit.since;
            match &mut permit.state {
                State::Leased if age >= warn_after && !permit.warned => {
                    permit.warned = true;
                    long.push((permit.tenant, age));
                }
                State::Closing { claim, overdue } => {
                    *overdue |= age >= close_timeout;
                    match *claim {
                        Claim::Spare if age >= CLOSE_IS_LATE => *claim = Claim::Nobody,
                        Claim::Promised { to, lateness, .. } if age >= CLOSE_IS_LATE * (1 << lateness.min(10)) => {
                            let tenant = self.tenants[to].as_mut().expect("a promise keeps it known");
                            tenant.lateness = tenant.lateness.max(lateness + 1);
                            *claim = Claim::Nobody;
                        }
                        _ => {}
                    }
                }
                _ => {}
            }
        }
        long.sort_unstable();
        long
    }
}
