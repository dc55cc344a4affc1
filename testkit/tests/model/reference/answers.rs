//! What tasks answer, and what time alone changes.

use std::time::Duration;

use super::super::expectation::{Command, Reply};
use super::super::world::MS;
use super::failures::Memory;
use super::{Claim, Reference, State};

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
        // A success ends what was remembered of failures (rule 9), and for who found the server unreachable as well, the wait;
        // but not one on a server that the tenant has left since.
        if server == self.server_of(tenant) {
            if self.tenant(tenant).memory.as_ref().is_some_and(Memory::finds_unreachable) {
                self.servers[server].reached_again = self.now;
            }
            self.tenant_mut(tenant).memory = None;
        }
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
        self.note_return(permit);
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
            self.note_return(permit);
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

    pub(super) fn tick(&mut self) {
        self.end_backoffs();
        self.idle_for_long = self.now.checked_sub(self.world.background_steals_after);
        self.close_expired();
        self.forget();
        let long = self.look_at_permits();
        self.settle();
        self.call(Command::Tick, Reply::LongLeases(long));
    }

    fn close_expired(&mut self) {
        let now = self.now;
        let idle_for = self.world.idle_timeout;
        let mut unused = self.evictable(false);
        unused.extend(self.evictable(true));
        unused.retain(|&idle| now - self.permit(idle).used_at >= idle_for);
        unused.sort_by_key(|&idle| self.permit(idle).used_at);
        for idle in unused {
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
