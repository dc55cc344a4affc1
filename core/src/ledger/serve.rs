//! Where freed capacity goes: [`Ledger::serve`] gives turns until no servable tenant is left (rule 5), and
//! [`Ledger::offer`] decides whether a connection that came back stays with its tenant (rule 6).

use std::time::Duration;

use super::budget::{Place, Promise, State};
use super::queue::{Answer, Lane, Turn};
use super::{Action, Ledger, PermitKey, Time};

/// Where a turn's permit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Free,
    /// This connection has to close first.
    Victim(u32),
}

impl<C, E> Ledger<C, E> {
    /// Gives free and evictable permits to waiting tenants, the one whose turn it is first, while there is one that can
    /// use them. Ends every command that may have made room.
    pub(super) fn serve(&mut self, now: Time) {
        while self.ready > 0
            && let Some((turn, source)) = self.next_turn()
        {
            self.give_turn(turn.tenant, source, now);
        }
    }

    /// After a change in one tenant's line: its idle connections may be for its own waiters, and it may have left room.
    pub(super) fn serve_line_and_others(&mut self, tenant: u32, now: Time) {
        self.serve_line(tenant, now);
        self.serve(now);
    }

    fn serve_line(&mut self, tenant: u32, now: Time) {
        while self.plain_waiter(tenant).is_some() && self.wants(tenant) > 0 && self.take_idle_for_line(tenant, now) {}
    }

    pub(super) fn can_serve(&self) -> bool {
        self.next_turn().is_some()
    }

    /// The servable tenant whose turn it is.
    fn next_turn(&self) -> Option<(Turn, Source)> {
        if let Some(waiter) = self.gathering {
            // What is being gathered is finished first, so that half a pool lease does not hold permits for long.
            let tenant = self.waiters[waiter].tenant.index();
            if let Some((Lane::Pool, turn)) = self.tenants[tenant].ready
                && let Some(source) = self.source(tenant, Lane::Pool)
            {
                return Some((turn, source));
            }
        }
        let mut best: Option<(Turn, Source)> = None;
        for server in &self.servers {
            for lane in [Lane::Reserved, Lane::Common] {
                // Within a lane the same things are in everybody's way: the first one speaks for all.
                self.consider(&mut best, server.ready.lanes[lane as usize].first(), lane);
            }
            if self.gathering.is_none() {
                for turn in &server.ready.lanes[Lane::Pool as usize] {
                    self.consider(&mut best, Some(turn), Lane::Pool);
                }
            }
        }
        best
    }

    fn consider(&self, best: &mut Option<(Turn, Source)>, turn: Option<&Turn>, lane: Lane) {
        if let Some(&turn) = turn
            && best.is_none_or(|(first, _)| turn < first)
            && let Some(source) = self.source(turn.tenant, lane)
        {
            *best = Some((turn, source));
        }
    }

    /// Where a permit for this tenant would come from: nowhere, if its server or the total is in the way.
    fn source(&self, tenant: u32, lane: Lane) -> Option<Source> {
        let entry = &self.tenants[tenant];
        let server = &self.servers[entry.server as usize];
        if lane == Lane::Pool && entry.counts.all() + entry.promised >= entry.cap {
            return entry.idle.oldest().map(Source::Victim);
        }
        if lane != Lane::Pool && server.scope.counts.of(Place::Opening) + server.promised >= server.max_connecting {
            return None;
        }
        let (cap, own) = (self.server_cap(entry.server), entry.unfilled());
        if !server.scope.has_room(cap, own) {
            server.scope.victim(cap).map(Source::Victim)
        } else if !self.total.has_room(self.total.cap, own) {
            self.total.victim(self.total.cap).map(Source::Victim)
        } else {
            Some(Source::Free)
        }
    }

    fn give_turn(&mut self, tenant: u32, source: Source, now: Time) {
        let pool = self.pool_at_head(tenant);
        if pool.is_some() {
            self.gathering = pool;
        }
        match (source, pool) {
            (Source::Victim(victim), _) => {
                if let State::Idle(_) = self.permits[victim].state {
                    let owner = self.permits[victim].tenant;
                    self.tenants[owner].counters.evicted += 1;
                    self.counters.evictions += 1;
                    self.close_idle(victim, now);
                }
                self.promise(victim, tenant);
            }
            (Source::Free, None) => {
                let permit = self.take_permit(tenant, State::Opening, now);
                self.actions
                    .push(Action::Open { permit: self.permits.key(permit), tenant: self.tenants[tenant].name.clone() });
            }
            (Source::Free, Some(waiter)) => {
                let permit = self.take_permit(tenant, State::Pool, now);
                let key = self.permits.key(permit);
                self.waiters[waiter].gathered.push(key);
                if self.waiters[waiter].gathered.len() == self.waiters[waiter].ask.pool as usize {
                    self.answer(waiter, Answer::Pool, now);
                    self.gathering = None;
                }
            }
        }
        self.had_turn(tenant);
        self.settle(tenant, now);
        if pool.is_some() && self.gathering.is_none() {
            // The next in line may want a connection, and some may have gone idle meanwhile.
            self.serve_line(tenant, now);
        }
    }

    /// Sets the permit of a connection that is being closed aside for a tenant.
    fn promise(&mut self, closing: u32, tenant: u32) {
        self.unlink_closing(closing);
        let server = self.tenants[tenant].server;
        let to = Promise { tenant: self.tenants.key(tenant), server };
        if let State::Closing { promise, .. } = &mut self.permits[closing].state {
            *promise = Some(to);
        }
        self.tenants[tenant].promised += 1;
        self.servers[server as usize].promised += 1;
    }

    /// The close that was promised ended, or takes too long to count on.
    pub(super) fn end_promise(&mut self, promise: Promise, now: Time) {
        self.servers[promise.server as usize].promised -= 1;
        // Promises keep a tenant known, so it is found.
        if let Some(tenant) = self.tenants.find(promise.tenant) {
            self.tenants[tenant].promised -= 1;
            self.refresh(tenant);
            self.settle(tenant, now);
            self.serve_line(tenant, now);
        }
    }

    /// The tenant's first waiter, if it wants a connection and not a pool lease.
    pub(super) fn plain_waiter(&self, tenant: u32) -> Option<u32> {
        self.tenants[tenant].line.oldest().filter(|&waiter| self.waiters[waiter].ask.pool == 0)
    }

    /// A connection has become idle: its tenant's first waiter gets it, unless another tenant's turn has come; what is
    /// left is served to others.
    pub(super) fn offer(&mut self, permit: u32, fresh: bool, now: Time) {
        let tenant = self.permits[permit].tenant;
        if self.plain_waiter(tenant).is_none() {
            return self.serve(now);
        }
        if !fresh && !self.may_hand_over(tenant, now) {
            let key = self.permits.key(permit);
            self.serve(now);
            let idle = self.permits.find(key).is_some_and(|index| matches!(self.permits[index].state, State::Idle(_)));
            if !idle || self.plain_waiter(tenant).is_none() {
                return;
            }
        }
        if !fresh {
            self.counters.hand_overs += 1;
        }
        self.grant(permit, now);
        self.serve(now);
    }

    /// idle -> granted, to its tenant's first waiter.
    pub(super) fn grant(&mut self, permit: u32, now: Time) {
        let tenant = self.permits[permit].tenant;
        let Some(waiter) = self.plain_waiter(tenant) else { unreachable!("a grant is for a waiter") };
        self.unlink_idle(permit);
        let State::Idle(connection) = self.enter(permit, State::InUse, now) else {
            unreachable!("only an idle one is granted")
        };
        self.permits[permit].state = State::Granted(connection, self.waiters.key(waiter));
        self.answer(waiter, Answer::Connection(self.permits.key(permit)), now);
        self.had_turn(tenant);
    }

    /// Whether a released connection may stay with its own tenant's line although others wait (rule 6).
    fn may_hand_over(&mut self, tenant: u32, now: Time) -> bool {
        if self.ready == 0 {
            return true;
        }
        let Some((first, _)) = self.next_turn() else {
            return true;
        };
        if first.tenant == tenant || self.turn_of(tenant) < first {
            return true;
        }
        let bound = self.settings.handover_bound.unwrap_or_else(|| self.twice_connect_time(tenant));
        let since = *self.tenants[first.tenant].passed_since.get_or_insert(now);
        now.saturating_sub(since) < bound
    }

    fn twice_connect_time(&self, tenant: u32) -> Duration {
        let server = self.tenants[tenant].server;
        self.servers[server as usize].connect_time.unwrap_or_default() * 2
    }

    /// The waiter no longer gathers permits; what it had is free again. Serves nobody.
    pub(super) fn give_up_gathering(&mut self, waiter: u32, now: Time) {
        let gathered = std::mem::take(&mut self.waiters[waiter].gathered);
        for key in gathered {
            if let Some(permit) = self.permits.find(key) {
                self.free_permit(permit, now);
            }
        }
        if self.gathering == Some(waiter) {
            self.gathering = None;
        }
    }

    /// pool, or closing after [`closing_pool`](Self::closing_pool) -> free.
    pub fn free_pool(&mut self, permits: &[PermitKey], now: Time) {
        for &key in permits {
            if let Some(permit) = self.permits.find(key) {
                self.free_permit(permit, now);
            }
        }
        self.serve(now);
    }

    /// pool -> closing: the driver's pool is being closed. Nobody counts on its permits, as a clone of it may live on.
    pub fn closing_pool(&mut self, permits: &[PermitKey], now: Time) {
        for &key in permits {
            if let Some(permit) = self.permits.find(key) {
                self.enter(permit, State::Closing { promise: None, late: true, overdue: false }, now);
                self.refresh(self.permits[permit].tenant);
            }
        }
        self.serve(now);
    }
}
