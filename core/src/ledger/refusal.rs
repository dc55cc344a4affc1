//! How a "no" is made: which limit was short, who holds it, and when a retry makes sense (rule 19).

use std::sync::Arc;
use std::time::Duration;

use super::Ledger;
use super::budget::{Place, State};
use super::moment::Moment;
use super::queue::Ask;
use super::tally::Count;
use super::tenants::Mode;
use crate::FailureKind;
use crate::error::{Holder, LimitScope, Phase};
use crate::observe::{Attention, Event};

/// The most holders that a refusal names.
const HOLDERS: usize = 5;
const HOLDERS_AGE: Duration = Duration::from_millis(10);
const RETRY_LEAST: Duration = Duration::from_millis(1);
const RETRY_MOST: Duration = Duration::from_secs(60);

/// Why an acquire was not served.
#[derive(Debug)]
pub enum Refusal<E> {
    /// A limit was short.
    Limit(Box<Shortage>),
    /// The permit was there, the connection was not in time.
    Timeout {
        /// What took so long.
        phase: Phase,
        /// How long this acquire waited in all.
        waited: Duration,
    },
    /// A connect failed while this one was the first in line for it.
    Connect {
        /// As the factory classified it.
        kind: FailureKind,
        /// The driver's own error.
        source: Arc<E>,
    },
    /// The tenant's circuit is open.
    Unavailable {
        /// What the last failure was.
        kind: FailureKind,
        /// The time to the next probe.
        retry_after: Duration,
        /// The last failure's error, None where a connect panicked or never ended.
        source: Option<Arc<E>>,
    },
    /// The tenant is being drained.
    Draining,
    /// The tenant was removed.
    Removed,
    /// The manager is closed.
    Closed,
}

/// What a limit error says, but for the tenant's name and the time of day.
#[derive(Debug, Clone)]
pub struct Shortage {
    /// The narrowest limit that was short.
    pub scope: LimitScope,
    /// Its value.
    pub limit: u32,
    /// The permits that count against it.
    pub open: u32,
    /// Who waits for it, the refused one included.
    pub waiting: u32,
    /// How long the refused one waited.
    pub waited: Duration,
    /// When a retry may be served; None where it never can.
    pub retry_after: Option<Duration>,
    /// The largest holders, at most five.
    pub holders: Vec<Holder>,
    /// How many leases the asking task holds itself.
    pub held_by_caller: u32,
}

impl<C, E> Ledger<C, E> {
    /// The refusals that need no waiting. The tenant has no idle connection for this one.
    pub(super) fn refuse_at_once(&mut self, tenant: u32, ask: Ask, now: Moment) -> Option<Refusal<E>> {
        if let Some(refusal) = self.refuse_by_circuit(tenant, now) {
            return Some(refusal);
        }
        if ask.background && ask.pool > 0 {
            return Some(self.shortage(tenant, LimitScope::Background, 0, ask, Duration::ZERO, None, now));
        }
        let entry = &self.tenants[tenant];
        let server = &self.servers[entry.server as usize].scope;
        // What others have reserved is never for this one.
        let limits = [
            (LimitScope::Tenant, entry.cap),
            (LimitScope::Server, (server.cap + entry.reserve).saturating_sub(server.reserved)),
            (LimitScope::Total, (self.total.cap + entry.reserve).saturating_sub(self.total.reserved)),
        ];
        let named = |scope: LimitScope| scope != LimitScope::Server || self.servers[entry.server as usize].capped;
        let &(scope, limit) = limits.iter().find(|&&(scope, limit)| ask.pool > limit && named(scope))?;
        Some(self.shortage(tenant, scope, limit, ask, Duration::ZERO, None, now))
    }

    /// Turns the newest waiter away where the line is full and nothing is on its way to it. Those for whom a connection is
    /// being opened do not count: what is free serves them however many others wait.
    pub(super) fn refuse_by_queue(&mut self, waiter: u32, now: Moment) -> Option<Refusal<E>> {
        let (tenant, ask) = (self.waiters[waiter].tenant.index(), self.waiters[waiter].ask);
        if self.waiters[waiter].answer.is_some() || self.affairs(tenant).wants(&self.waiters) == 0 {
            return None;
        }
        let promised: u32 = self.servers.iter().map(|server| server.promised).sum();
        let coming = promised + self.total.counts.of(Place::Opening);
        // A pool lease at the head leaves all behind it uncovered.
        let affairs = self.affairs(tenant);
        let line = affairs.line.len().saturating_sub(affairs.coming());
        let entry = self.affairs(tenant);
        let (limit, place, scope) = if line > self.settings.max_waiters_per_tenant {
            (self.settings.max_waiters_per_tenant, entry.line.len(), LimitScope::Tenant)
        } else if self.total.queued.saturating_sub(coming) > self.settings.max_waiters {
            (self.settings.max_waiters, self.total.queued, LimitScope::Total)
        } else {
            return None;
        };
        let retry_after = self.estimate(tenant, scope, place, now);
        self.turn_away(waiter, now);
        Some(self.shortage(tenant, LimitScope::Queue, limit, ask, Duration::ZERO, Some(retry_after), now))
    }

    /// The refusal of a waiter whose deadline has passed in the line.
    pub(super) fn refuse_late(&mut self, waiter: u32, now: Moment) -> Refusal<E> {
        let (tenant, ask) = (self.waiters[waiter].tenant.index(), self.waiters[waiter].ask);
        let waited = now.since(self.waiters[waiter].since);
        let entry = self.affairs(tenant);
        let (opening, recycling) = (entry.opening, entry.recycling);
        let place = entry.line.iter(&self.waiters).position(|other| other == waiter).unwrap_or(0);
        let place = u32::try_from(place).unwrap_or(u32::MAX);
        // The first ones in line are those for whom a connection is on its way.
        if ask.pool == 0 && place < opening + recycling {
            let phase = if place < opening { Phase::Connecting } else { Phase::Recycling };
            return self.timed_out(tenant, phase, waited);
        }
        let Some((scope, limit)) = self.short_scope(tenant, ask.background) else {
            // There is room, but too many connect already.
            return self.timed_out_connecting(waiter, now);
        };
        let retry_after = self.estimate(tenant, scope, place + 1, now);
        self.shortage(tenant, scope, limit, ask, waited, Some(retry_after), now)
    }

    pub(super) fn timed_out_connecting(&mut self, waiter: u32, now: Moment) -> Refusal<E> {
        let (tenant, since) = (self.waiters[waiter].tenant.index(), self.waiters[waiter].since);
        self.timed_out(tenant, Phase::Connecting, now.since(since))
    }

    fn timed_out(&mut self, tenant: u32, phase: Phase, waited: Duration) -> Refusal<E> {
        self.count(tenant, Count::Timeout);
        self.tell(Attention::Rare, |ledger| Event::TimedOut { tenant: ledger.name(tenant), phase, waited });
        Refusal::Timeout { phase, waited }
    }

    /// The narrowest limit that keeps a tenant from one more permit; None where nothing does.
    fn short_scope(&self, tenant: u32, background: bool) -> Option<(LimitScope, u32)> {
        let entry = &self.tenants[tenant];
        let server = &self.servers[entry.server as usize];
        if entry.counts.all() >= entry.cap {
            return Some((LimitScope::Tenant, entry.cap));
        }
        if background && !self.has_share() {
            return Some((LimitScope::Background, self.background_share()));
        }
        let takes = self.server_cap(entry.server);
        let limited = self.limit_on(entry.server) == LimitScope::Server;
        if self.was_told_full(tenant) || (limited && !server.scope.has_room(takes, entry.unfilled())) {
            return Some((LimitScope::Server, takes));
        }
        let short = self.affairs(tenant).pool_at_head(&self.waiters).is_some()
            || !self.total.has_room(self.total.cap, entry.unfilled());
        short.then_some((LimitScope::Total, self.total.cap))
    }

    /// A place in line times the average time between permits coming back in a scope, within bounds.
    fn estimate(&mut self, tenant: u32, scope: LimitScope, place: u32, now: Moment) -> Duration {
        let pace = match scope {
            LimitScope::Tenant => &mut self.tenants[tenant].pace,
            LimitScope::Server => &mut self.servers[self.tenants[tenant].server as usize].scope.pace,
            LimitScope::Total | LimitScope::Queue | LimitScope::Background => &mut self.total.pace,
        };
        pace.estimate(place, now).unwrap_or(self.settings.acquire_timeout).clamp(RETRY_LEAST, RETRY_MOST)
    }

    #[allow(clippy::too_many_arguments, reason = "each is one field of what is made")]
    fn shortage(
        &mut self,
        tenant: u32,
        scope: LimitScope,
        limit: u32,
        ask: Ask,
        waited: Duration,
        retry_after: Option<Duration>,
        now: Moment,
    ) -> Refusal<E> {
        self.refreshed_holders(now);
        let entry = &self.tenants[tenant];
        let server = &self.servers[entry.server as usize];
        let (open, waiting) = match scope {
            LimitScope::Tenant => (entry.counts.all(), self.affairs(tenant).line.len()),
            LimitScope::Server => (server.scope.counts.all(), server.scope.queued),
            LimitScope::Background => (self.share.taken, self.total.queued),
            LimitScope::Total | LimitScope::Queue => (self.total.counts.all(), self.total.queued),
        };
        let holders = if scope == LimitScope::Tenant {
            vec![Holder { tenant: entry.name.clone(), connections: entry.counts.all() }]
        } else {
            self.holders.1.clone()
        };
        self.count(tenant, Count::Refused(scope));
        if !self.tenants[tenant].name.is_maintenance() {
            self.tell(Attention::Rare, |ledger| Event::Refused { tenant: ledger.name(tenant), scope, waited });
        }
        // A full line refuses many at once; a task that waits for itself is told at its deadline.
        let held_by_caller = if scope == LimitScope::Queue { 0 } else { self.held_by(ask.caller) };
        Refusal::Limit(Box::new(Shortage { scope, limit, open, waiting, waited, retry_after, holders, held_by_caller }))
    }

    /// Counted when a refusal is made and at no other time.
    fn held_by(&self, caller: u64) -> u32 {
        let caller = caller as u32;
        if caller == 0 {
            return 0;
        }
        let held = self
            .permits
            .iter()
            .filter(|(_, permit)| matches!(permit.state, State::InUse { caller: holder, .. } if holder == caller));
        u32::try_from(held.count()).unwrap_or(u32::MAX)
    }

    /// The largest holders, recounted when they are older than [`HOLDERS_AGE`]: an overload refuses many at once.
    fn refreshed_holders(&mut self, now: Moment) {
        if self.holders.0.is_some_and(|at| now.since(at) < HOLDERS_AGE) {
            return;
        }
        let mut tenants: Vec<u32> = Vec::new();
        for (_, permit) in self.permits.iter() {
            let more = |&other: &u32| self.tenants[other].counts.all() >= self.tenants[permit.tenant].counts.all();
            let known = tenants.contains(&permit.tenant) || self.tenants[permit.tenant].name.is_maintenance();
            if known || (tenants.len() == HOLDERS && tenants.iter().all(more)) {
                continue;
            }
            tenants.push(permit.tenant);
            tenants.sort_by_key(|&tenant| std::cmp::Reverse(self.tenants[tenant].counts.all()));
            tenants.truncate(HOLDERS);
        }
        let holder = |tenant: u32| Holder {
            tenant: self.tenants[tenant].name.clone(),
            connections: self.tenants[tenant].counts.all(),
        };
        self.holders = (Some(now), tenants.into_iter().map(holder).collect::<Vec<Holder>>());
    }

    /// What a tenant's mode says to an acquire.
    pub(super) fn refuse_by_mode(mode: Mode) -> Option<Refusal<E>> {
        match mode {
            Mode::Active => None,
            Mode::Draining | Mode::Dropping => Some(Refusal::Draining),
            Mode::Removed => Some(Refusal::Removed),
        }
    }
}
