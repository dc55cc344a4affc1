//! Looking at the ledger from outside: statistics, and waiting until a tenant, or everybody, holds no permit.

use std::task::Waker;

use super::budget::{Counts, Place};
use super::slots::Key;
use super::tenants::Mode;
use super::{Action, Ledger, TenantKey};
use crate::Settings;
use crate::stats::{ServerStats, Stats, TenantStats};

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

    /// A picture of everything. Costs one step for each server.
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
            closed: self.closed,
            totals: self.counters,
            servers: (0..)
                .zip(&self.servers)
                .map(|(index, server)| self.server_stats(index, &server.scope.counts))
                .collect(),
        }
    }

    fn server_stats(&self, index: u32, counts: &Counts) -> ServerStats {
        let server = &self.servers[index as usize];
        ServerStats {
            server: server.id.clone(),
            max: server.scope.cap.into(),
            effective_max: self.server_cap(index).into(),
            open: counts.all().into(),
            idle: counts.of(Place::Idle).into(),
            opening: counts.of(Place::Opening).into(),
            epoch: server.epoch.into(),
            connect_time: server.connect_time,
        }
    }

    /// A picture of one tenant, None where it is not known.
    pub fn tenant_stats(&self, name: &str) -> Option<TenantStats> {
        let tenant = &self.tenants[self.find(name)?];
        let of = |place: Place| u64::from(tenant.counts.of(place));
        Some(TenantStats {
            tenant: tenant.name.clone(),
            server: self.servers[tenant.server as usize].id.clone(),
            max: tenant.cap.into(),
            opening: of(Place::Opening),
            idle: of(Place::Idle),
            in_use: of(Place::InUse),
            closing: of(Place::Closing),
            pool_leased: of(Place::Pool),
            waiting: tenant.line.len().into(),
            draining: tenant.mode == Mode::Draining,
            removed: tenant.mode == Mode::Removed,
            totals: tenant.counters,
        })
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
