//! Looking at the ledger from outside: statistics, and waiting until a tenant, or everybody, holds no permit.

use std::task::Waker;

use super::budget::Place;
use super::slots::Key;
use super::tenants::Mode;
use super::{Action, Ledger, PermitKey, TenantKey, Time};
use crate::observe::Attention;
use crate::stats::{ServerStats, Stats, TenantStats};
use crate::walk::TopBy;
use crate::{Event, ServerId, Settings, TenantId};

/// The most tenants looked at in one command of a walk, and the most that one describes, so that the lock is held for tens
/// of microseconds.
pub const STRETCH: u32 = 512;
/// See [`STRETCH`].
pub const ROWS: usize = 64;

/// Someone waits for an end.
pub(super) struct Watcher {
    tenant: Option<TenantKey>,
    waker: Waker,
}

/// A watcher's place.
#[derive(Debug, Default)]
pub struct Watched(Option<Key<()>>);

impl<C, E> Ledger<C, E> {
    /// True once the tenant (None: everybody) holds no permit. Until then `waker` is kept and woken at that moment;
    /// `watched` must be given again, or to [`unwatch`](Self::unwatch).
    pub fn poll_empty(&mut self, name: Option<&str>, watched: &mut Watched, waker: Waker) -> bool {
        self.unwatch(watched);
        let tenant = name.and_then(|name| self.find(name));
        let left = match (name, tenant) {
            (None, _) => self.total.counts.all(),
            (Some(_), Some(tenant)) => self.tenants[tenant].counts.all(),
            (Some(_), None) => 0,
        };
        if left == 0 {
            self.actions.push(Action::DropWaker(waker));
            return true;
        }
        let index = self.watchers.insert(Watcher { tenant: tenant.map(|tenant| self.tenants.key(tenant)), waker });
        watched.0 = Some(self.watchers.key(index));
        false
    }

    /// Ends a watch.
    pub fn unwatch(&mut self, watched: &mut Watched) {
        if let Some(index) = watched.0.take().and_then(|key| self.watchers.find(key)) {
            let watcher = self.watchers.remove(index);
            self.actions.push(Action::DropWaker(watcher.waker));
        }
    }

    /// A permit of the tenant became free.
    pub(super) fn notify_watchers(&mut self, tenant: u32) {
        if self.watchers.len() == 0 {
            return;
        }
        let everybody = self.total.counts.all() == 0;
        let key = (self.tenants[tenant].counts.all() == 0).then(|| self.tenants.key(tenant));
        for index in self.watchers.indices() {
            let over = match self.watchers[index].tenant {
                None => everybody,
                watched => watched == key,
            };
            if over {
                let watcher = self.watchers.remove(index);
                self.actions.push(Action::Wake(watcher.waker));
            }
        }
    }

    /// From here on, this much of what happens is told.
    pub fn attend(&mut self, attention: Attention) {
        self.attention = attention;
    }

    /// Whether the times of acquires and releases are told, so that they have to be true.
    #[inline]
    pub fn tells_times(&self) -> bool {
        self.attention == Attention::All
    }

    /// Notes an event where somebody pays this much attention.
    #[inline]
    pub(super) fn tell(&mut self, attention: Attention, event: impl FnOnce(&Self) -> Event) {
        if self.attention >= attention {
            let event = Box::new(event(self));
            self.actions.push(Action::Tell(event));
        }
    }

    /// Where the connection of a permit is, or is to be.
    pub fn server_of(&self, permit: PermitKey) -> Option<ServerId> {
        let permit = self.permits.find(permit)?;
        Some(self.servers[self.permits[permit].server as usize].id.clone())
    }

    pub(super) fn name(&self, tenant: u32) -> TenantId {
        self.tenants[tenant].name.clone()
    }

    /// The ledger at this time, to look at.
    pub fn at(&mut self, now: Time) -> &mut Self {
        self.advance(now);
        self
    }

    /// A picture of everything at the time of the last command. Costs one step for each server.
    pub fn stats(&self) -> Stats {
        let of = |place: Place| u64::from(self.total.counts.of(place));
        Stats {
            max: self.total.cap.into(),
            opening: of(Place::Opening),
            idle: of(Place::Idle),
            in_use: of(Place::InUse),
            closing: of(Place::Closing),
            pool_leased: of(Place::Pool),
            overdue: self.overdue.into(),
            background: self.share.taken.into(),
            background_share: self.background_share().into(),
            waiting: self.total.queued.into(),
            tenants: (self.tenants.len() - self.maintenance_lines) as u64,
            unavailable: self.unavailable.into(),
            closed: self.closed,
            totals: self.counters,
            servers: (0..).zip(&self.servers).map(|(index, _)| self.server_stats(index)).collect(),
        }
    }

    fn server_stats(&self, index: u32) -> ServerStats {
        let server = &self.servers[index as usize];
        let of = |place: Place| u64::from(server.scope.counts.of(place));
        ServerStats {
            server: server.id.clone(),
            max: server.scope.cap.into(),
            effective_max: self.server_cap(index).into(),
            open: server.scope.counts.all().into(),
            opening: of(Place::Opening),
            idle: of(Place::Idle),
            in_use: of(Place::InUse),
            closing: of(Place::Closing),
            pool_leased: of(Place::Pool),
            waiting: server.scope.queued.into(),
            paused: server.paused,
            full: server.full.as_ref().map(|full| full.rests(self.latest)),
            epoch: server.epoch.into(),
            connect_time: server.connect_time,
            connects: server.connects,
            connect_failures: server.connect_failures,
            server_full: server.said_full,
        }
    }

    /// A picture of one tenant at the time of the last command, None where it is not known.
    pub fn tenant_stats(&self, name: &str) -> Option<TenantStats> {
        self.find(name).map(|tenant| self.picture(tenant))
    }

    fn picture(&self, index: u32) -> TenantStats {
        let tenant = &self.tenants[index];
        let of = |place: Place| u64::from(tenant.counts.of(place));
        TenantStats {
            tenant: tenant.name.clone(),
            server: self.servers[tenant.server as usize].id.clone(),
            max: tenant.cap.into(),
            reserve: tenant.reserve.into(),
            weight: tenant.weight.into(),
            opening: of(Place::Opening),
            idle: of(Place::Idle),
            in_use: of(Place::InUse),
            closing: of(Place::Closing),
            pool_leased: of(Place::Pool),
            waiting: self.affairs(index).line.len().into(),
            draining: tenant.mode.drains(),
            removed: tenant.mode == Mode::Removed,
            circuit: self.circuit_state(tenant),
            totals: tenant.tally.counters(),
        }
    }

    /// One stretch of a walk over all tenants: describes those after place `from` whose name contains the text, until `rows`
    /// has `limit` of them. Where to go on; None at the end.
    pub fn tenants_from(
        &self,
        from: u32,
        containing: Option<&str>,
        limit: usize,
        rows: &mut Vec<TenantStats>,
    ) -> Option<u32> {
        let limit = limit.min(rows.len() + ROWS);
        let (end, stretch) = (self.tenants.span(), from.saturating_add(STRETCH));
        for index in from..end.min(stretch) {
            if rows.len() == limit {
                return Some(index);
            }
            if let Some(tenant) = self.tenants.get(index)
                && !tenant.name.is_maintenance()
                && containing.is_none_or(|text| tenant.name.as_str().contains(text))
            {
                rows.push(self.picture(index));
            }
        }
        (stretch < end).then_some(stretch)
    }

    /// One stretch of a walk over all tenants: finds those after place `from` that have more than `least` of something.
    /// Where to go on; None at the end.
    pub fn measure_from(&self, from: u32, by: TopBy, least: u64, found: &mut Vec<(u64, TenantKey)>) -> Option<u32> {
        let (end, stretch) = (self.tenants.span(), from.saturating_add(STRETCH));
        for index in from..end.min(stretch) {
            if let Some(tenant) = self.tenants.get(index).filter(|tenant| !tenant.name.is_maintenance()) {
                let value = match by {
                    TopBy::InUse => (tenant.counts.all() - tenant.counts.of(Place::Idle)).into(),
                    TopBy::Waiting => self.affairs(index).line.len().into(),
                    TopBy::Waits => tenant.tally.counters().waits,
                    TopBy::Refusals => tenant.tally.counters().refusals.iter().sum(),
                    TopBy::Connects => tenant.tally.counters().connects,
                    TopBy::Evictions => tenant.tally.counters().evictions,
                };
                if value > least {
                    found.push((value, self.tenants.key(index)));
                }
            }
        }
        (stretch < end).then_some(stretch)
    }

    /// A picture of a tenant that a walk has found, None where it was forgotten since.
    pub fn stats_of(&self, tenant: TenantKey) -> Option<TenantStats> {
        self.tenants.find(tenant).map(|tenant| self.picture(tenant))
    }

    /// The settings in force.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether somebody is in a line.
    #[inline]
    pub fn anyone_waits(&self) -> bool {
        self.total.queued > 0
    }

    /// Whether nothing here changes with time: no permit is taken and nobody waits.
    pub fn is_quiet(&self) -> bool {
        self.total.counts.all() == 0 && self.total.queued == 0
    }

    /// Whether [`close`](Self::close) was called.
    pub fn is_closed(&self) -> bool {
        self.closed
    }
}
