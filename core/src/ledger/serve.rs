//! Where freed capacity goes: [`Ledger::serve`] gives turns until no servable tenant is left (rule 5), and
//! [`Ledger::offer`] decides whether a connection that came back stays with its tenant (rule 6).

use std::time::Duration;

use super::budget::{Claim, Permit, Place, Promise, State};
use super::fitness::Fitness;
use super::moment::Moment;
use super::queue::{Answer, Lane, Turn};
use super::tally::Count;
use super::{Action, Ledger, PermitKey, Time};
use crate::error::LimitScope;
use crate::observe::{Attention, Event};
use crate::stats::CloseReason;

/// Where a turn's permit comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Free,
    /// This connection has to close first, as this limit leaves no other room.
    Victim(u32, LimitScope),
}

impl<C, E> Ledger<C, E> {
    /// Gives free and evictable permits to waiting tenants, the one whose turn it is first, while there is one that can
    /// use them. Ends every command that may have made room.
    pub(super) fn serve(&mut self, now: Moment) {
        while self.ready > 0
            && let Some((lane, turn, source)) = self.next_turn()
        {
            self.give_turn(turn.tenant, lane, source, now);
            self.had_turn(turn.tenant);
        }
    }

    /// The permit that was promised to a tenant is free. It had its turn when its victim was chosen.
    pub(super) fn keep_promise(&mut self, tenant: u32, now: Moment) {
        if let Some((lane, _)) = self.affairs(tenant).ready
            && (!lane.is_pool()
                || self.gathering.is_none()
                || self.gathering == self.affairs(tenant).pool_at_head(&self.waiters))
            && lane != Lane::Borrow
            && (!lane.is_background() || self.has_share())
            && self.has_slot(tenant, lane)
            && self.has_room(tenant, lane)
            && self.tenants[tenant].counts.all() < self.tenants[tenant].cap
        {
            self.give_turn(tenant, lane, Source::Free, now);
        }
    }

    /// After a change in one tenant's line: its idle connections are for its own waiters, and it may have left room.
    pub(super) fn serve_line_and_others(&mut self, tenant: u32, now: Moment) {
        self.serve_line(tenant, None, now);
        self.serve(now);
    }

    /// Gives a tenant's idle connections to its own line: granted where they are fit, put away where they are not. A waiter
    /// for whom one is opened or promised elsewhere gets one that is idle here all the same; only what is merely old is
    /// left alone while enough others are being validated for the line.
    /// What has just `come_back` is not old, whatever `validate_after_idle` says.
    pub(super) fn serve_line(&mut self, tenant: u32, come_back: Option<u32>, now: Moment) {
        while let Some(waiter) = self.plain_waiter(tenant)
            && let background = self.waiters[waiter].ask.background
            && let Some(newest) = self.idle_for(tenant, background)
        {
            let entry = self.affairs(tenant);
            match self.fitness(newest, come_back != Some(newest), now) {
                Fitness::Fit => self.grant(newest, now),
                Fitness::Aged if entry.line.len() <= entry.recycling => return,
                unfit => self.put_away(newest, unfit, background, now),
            }
        }
    }

    pub(super) fn can_serve(&self) -> bool {
        self.next_turn().is_some()
    }

    /// The servable tenant whose turn it is.
    fn next_turn(&self) -> Option<(Lane, Turn, Source)> {
        if let Some(waiter) = self.gathering
            && let Some((lane, turn)) = self.affairs(self.waiters[waiter].tenant.index()).ready
            && let Some(source) = self.source(turn.tenant, lane)
        {
            // What is being gathered is finished first, so that half a pool lease does not hold permits for long.
            return Some((lane, turn, source));
        }
        self.first_of(&Lane::FOREGROUND).or_else(|| self.first_of(&Lane::BACKGROUND))
    }

    fn first_of(&self, lanes: &[Lane]) -> Option<(Lane, Turn, Source)> {
        let mut best: Option<(Lane, Turn, Source)> = None;
        for server in &self.servers {
            for &lane in lanes {
                let ready = &server.ready.lanes[lane as usize];
                // What is kept for one reserve is not kept for another; there are few.
                let most = if matches!(lane, Lane::Reserved | Lane::PoolReserved) { usize::MAX } else { 1 };
                for &turn in ready.iter().take(most) {
                    if (self.gathering.is_none() || !lane.is_pool() || seeded!(TwoPoolLeasesGather))
                        && best.is_none_or(|(_, first, _)| turn < first)
                        && let Some(source) = self.source(turn.tenant, lane)
                    {
                        best = Some((lane, turn, source));
                    }
                }
            }
        }
        best
    }

    /// Where a permit for this tenant would come from: nowhere, if its server or the total is in the way.
    pub(super) fn source(&self, tenant: u32, lane: Lane) -> Option<Source> {
        let entry = &self.tenants[tenant];
        let server = &self.servers[entry.server as usize];
        let (takes, own) = (self.server_cap(entry.server), self.own_reserve(tenant, lane));
        if lane != Lane::Borrow && (!self.has_slot(tenant, lane) || !self.total.makes_room(u32::MAX, own)) {
            return None;
        }
        if lane.is_background() {
            return self.background_source(tenant, lane);
        }
        seeded!(OneMoreUnderPoolLeases => if self.allows_one_more(lane) { return Some(Source::Free) });
        if let Lane::Exchange | Lane::PoolExchange = lane {
            let victim = self.affairs(tenant).spare.oldest().or(entry.idle.oldest());
            let victim = victim.filter(|_| server.scope.counts.all() <= takes);
            return victim.map(|victim| Source::Victim(victim, LimitScope::Tenant));
        }
        let victim = self.victim(Some(entry.server)).filter(|_| server.scope.makes_room(takes, own));
        if !server.scope.has_room(takes, own) || (self.was_told_full(tenant) && victim.is_some()) {
            victim.map(|victim| Source::Victim(victim, self.limit_on(entry.server)))
        } else if !self.has_room(tenant, lane) {
            let victim = self.victim(None).filter(|_| self.total.makes_room(self.total.cap, own));
            victim.map(|victim| Source::Victim(victim, LimitScope::Total))
        } else {
            Some(Source::Free)
        }
    }

    /// The limit that is short where a server is: the total, where it has no cap of its own and takes as much as that.
    pub(super) fn limit_on(&self, server: u32) -> LimitScope {
        let entry = &self.servers[server as usize];
        let own = entry.capped || self.server_cap(server) < entry.scope.cap;
        if own { LimitScope::Server } else { LimitScope::Total }
    }

    /// Whether the tenant's server has an opening slot, where its lane needs one.
    pub(super) fn has_slot(&self, tenant: u32, lane: Lane) -> bool {
        let server = &self.servers[self.tenants[tenant].server as usize];
        lane.is_pool() || server.scope.counts.of(Place::Opening) + server.promised < server.max_connecting
    }

    /// What the tenant lacks of its reserve, which is kept for its foreground work.
    fn own_reserve(&self, tenant: u32, lane: Lane) -> u32 {
        if lane.is_background() { 0 } else { self.tenants[tenant].unfilled() }
    }

    /// Whether a permit is free for the tenant.
    pub(super) fn has_room(&self, tenant: u32, lane: Lane) -> bool {
        let (server, own) = (self.tenants[tenant].server, self.own_reserve(tenant, lane));
        self.servers[server as usize].scope.has_room(self.server_cap(server), own)
            && self.total.has_room(self.total.cap, own)
    }

    fn give_turn(&mut self, tenant: u32, lane: Lane, source: Source, now: Moment) {
        let pool = self.affairs(tenant).pool_at_head(&self.waiters);
        if pool.is_some() {
            debug_assert!(self.gathering.is_none() || self.gathering == pool, "one gathers at a time");
            self.gathering = pool;
        }
        match (source, pool) {
            (_, None) if lane == Lane::Borrow => {
                if let Source::Victim(own, limit) = source {
                    // It leaves its part of the share to what is lent in its place, at once.
                    self.evict_idle(own, tenant, limit, now);
                    self.charge(own, false);
                }
                self.serve_line(tenant, None, now);
            }
            (Source::Victim(victim, limit), _) => {
                if let State::Idle(_) = self.permits[victim].state {
                    self.evict_idle(victim, tenant, limit, now);
                }
                self.promise(victim, tenant, lane, now);
            }
            (Source::Free, None) => {
                self.start_open(tenant, lane.is_background(), now);
            }
            (Source::Free, Some(waiter)) => {
                let permit = self.take_permit(tenant, State::Pool, false, now);
                let key = self.permits.key(permit);
                self.waiters[waiter].gathered.push(key);
                self.refresh(tenant);
                if self.waiters[waiter].gathered.len() == self.waiters[waiter].ask.pool as usize {
                    self.gathering = None;
                    self.answer(waiter, Answer::Pool, now);
                    // The next in line may want a connection, and some may have gone idle meanwhile.
                    self.serve_line(tenant, None, now);
                }
            }
        }
    }

    /// free -> opening. The caller has made sure of the room.
    pub(super) fn start_open(&mut self, tenant: u32, background: bool, now: Moment) {
        let permit = self.take_permit(tenant, State::Opening, background, now);
        let tenant = self.tenants[tenant].name.clone();
        self.actions.push(Action::Open { permit: self.permits.key(permit), tenant });
    }

    /// Sets the permit of a connection that is being closed aside for a tenant.
    fn promise(&mut self, victim: u32, tenant: u32, lane: Lane, now: Moment) {
        let (server, lateness) = (self.tenants[tenant].server, self.affairs(tenant).lateness);
        let background = lane.is_background() && !self.permits[victim].background;
        let promise =
            Promise { tenant: self.tenants.key(tenant), server, opens: !lane.is_pool(), background, lateness };
        self.set_claim(victim, Claim::Promised(promise));
        self.settle(tenant, now);
    }

    fn evict_idle(&mut self, victim: u32, for_whom: u32, limit: LimitScope, now: Moment) {
        self.tell(Attention::Rare, |ledger| {
            let Permit { tenant, server, .. } = ledger.permits[victim];
            let for_whom = Some(ledger.name(for_whom)).filter(|name| !name.is_maintenance());
            let server = ledger.servers[server as usize].id.clone();
            Event::Evicted { tenant: ledger.name(tenant), server, for_whom, limit }
        });
        self.close_idle(victim, CloseReason::MadeRoom, now);
    }

    /// The tenant's first waiter, if it wants a connection and not a pool lease.
    #[inline]
    pub(super) fn plain_waiter(&self, tenant: u32) -> Option<u32> {
        self.affairs(tenant).plain_waiter(&self.waiters)
    }

    /// A connection has become idle: its tenant's first waiter gets it, unless another tenant's turn has come; what is
    /// left is served to others. A fresh one was opened for its tenant and stays with it.
    #[inline]
    pub(super) fn offer(&mut self, permit: u32, fresh: bool, now: Moment) {
        let tenant = self.permits[permit].tenant;
        if self.ready == 0 && self.affairs(tenant).line.is_empty() {
            return;
        }
        if !fresh && self.plain_waiter(tenant).is_some() {
            match self.passed_over(tenant) {
                Some((lane, first)) if self.may_pass_over(lane, first, permit, now) => {
                    self.count(tenant, Count::HandOver);
                }
                Some(_) => {
                    self.permits[permit].run_since = now;
                    self.serve(now);
                }
                None => {
                    self.permits[permit].run_since = now;
                    self.count(tenant, Count::HandOver);
                    self.had_turn(tenant);
                }
            }
        }
        self.serve_line(tenant, Some(permit), now);
        self.serve(now);
    }

    /// idle -> granted, to its tenant's first waiter.
    fn grant(&mut self, permit: u32, now: Moment) {
        let tenant = self.permits[permit].tenant;
        let Some(waiter) = self.plain_waiter(tenant) else { unreachable!("a grant is for a waiter") };
        let background = self.waiters[waiter].ask.background;
        self.take_out(permit, background);
        self.charge(permit, background);
        let State::Idle(connection) = self.enter(permit, State::IN_USE, now) else {
            unreachable!("what stands in a list of idle connections is idle")
        };
        self.permits[permit].state = State::Granted(connection, self.waiters.key(waiter));
        self.answer(waiter, Answer::Connection(self.permits.key(permit)), now);
    }

    /// Whose turn it is, if a connection that came back to this tenant's line were not for the tenant itself.
    fn passed_over(&self, tenant: u32) -> Option<(Lane, u32)> {
        if self.ready == 0 {
            return None;
        }
        let (lane, first, _) = self.next_turn()?;
        if lane.is_background() != self.head_is_background(tenant) {
            return (!lane.is_background()).then_some((lane, first.tenant));
        }
        // What gathers has a load for what it holds already and cannot use; its turn is by time alone.
        let gathers = lane.is_pool() && self.gathering.is_some();
        (first.tenant != tenant && (gathers || first < self.turn_of(tenant))).then_some((lane, first.tenant))
    }

    /// Whether a connection that came back may stay with its tenant's line although it is another's turn (rule 6): until it
    /// has done so, and the other has waited, for `handover_bound`. Background work passes no foreground over.
    fn may_pass_over(&self, lane: Lane, first: u32, permit: u32, now: Moment) -> bool {
        seeded!(HandOverIgnoresTheBound => return true);
        let entry = &self.permits[permit];
        if self.head_is_background(entry.tenant) && !lane.is_background() {
            return false;
        }
        let bound = self.settings.handover_bound.unwrap_or_else(|| self.twice_connect_time(entry.tenant));
        let arrived = self.affairs(first).line.oldest().map_or(now, |waiter| self.waiters[waiter].since);
        now.since(entry.run_since.max(arrived)) < bound
    }

    pub(super) fn head_is_background(&self, tenant: u32) -> bool {
        self.plain_waiter(tenant).is_some_and(|waiter| self.waiters[waiter].ask.background)
    }

    fn twice_connect_time(&self, tenant: u32) -> Duration {
        let server = self.tenants[tenant].server;
        self.servers[server as usize].connect_time.unwrap_or_default() * 2
    }

    /// The waiter no longer gathers permits; what it had is free again. Serves nobody.
    pub(super) fn give_up_gathering(&mut self, waiter: u32, now: Moment) {
        if self.gathering == Some(waiter) {
            self.gathering = None;
        }
        for key in std::mem::take(&mut self.waiters[waiter].gathered) {
            if let Some(permit) = self.permits.find(key) {
                self.free_permit(permit, now);
            }
        }
    }

    /// pool, or closing after [`closing_pool`](Self::closing_pool) -> free.
    pub fn free_pool(&mut self, permits: &[PermitKey], now: Time) {
        let now = self.advance(now);
        self.free_permits(permits, now);
    }

    pub(super) fn free_permits(&mut self, permits: &[PermitKey], now: Moment) {
        for &key in permits {
            if let Some(permit) = self.permits.find(key) {
                self.free_permit(permit, now);
            }
        }
        self.serve(now);
    }

    /// pool -> closing: the driver's pool is being closed. Nobody counts on its permits, as a clone of it may live on.
    pub fn closing_pool(&mut self, permits: &[PermitKey], now: Time) {
        let now = self.advance(now);
        for &key in permits {
            if let Some(permit) = self.permits.find(key) {
                self.came_back(self.permits[permit].tenant, self.permits[permit].server, now);
                self.enter(permit, State::CLOSING, now);
            }
        }
        self.serve(now);
    }
}
