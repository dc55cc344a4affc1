//! What can be read about a manager. All of it comes from the ledger; nothing is counted twice.

use std::time::Duration;

use crate::{LimitScope, ServerId, TenantId};

/// Events counted since the manager was built.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connects that succeeded.
    pub connects: u64,
    /// Connects that failed, timed out or panicked, "server full" included.
    pub connect_failures: u64,
    /// Times that a server said it is full, as the factory saw it.
    pub server_full: u64,
    /// Acquires served by an idle connection at once.
    pub warm_hits: u64,
    /// Acquires that waited in line.
    pub waits: u64,
    /// The time they waited, all together.
    pub waited: Duration,
    /// Released connections that went straight to a waiter of the same tenant.
    pub hand_overs: u64,
    /// Connections cleaned or validated.
    pub recycles: u64,
    /// Idle connections closed to make room for another tenant.
    pub evictions: u64,
    /// Connections closed by `evict`.
    pub closed_evict: u64,
    /// Connections closed after `idle_timeout`.
    pub closed_idle: u64,
    /// Connections closed after `max_lifetime`.
    pub closed_lifetime: u64,
    /// Connections closed because they were broken, lost, discarded or could not be cleaned.
    pub closed_broken: u64,
    /// Acquires refused for a limit, by [`LimitScope`].
    pub refusals: [u64; 5],
    /// Acquires that had a permit and no connection in time.
    pub timeouts: u64,
}

impl Counters {
    /// Acquires refused for a limit of this scope.
    #[must_use]
    pub fn refused(&self, scope: LimitScope) -> u64 {
        self.refusals[scope as usize]
    }
}

/// A moment's picture of the whole manager.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// The total budget.
    pub max: u64,
    /// Connections being opened.
    pub opening: u64,
    /// Connections kept for the next acquire.
    pub idle: u64,
    /// Connections out with a lease, on their way to a waiter, or being cleaned.
    pub in_use: u64,
    /// Connections being closed.
    pub closing: u64,
    /// Permits held by pool leases or set aside for one.
    pub pool_leased: u64,
    /// Of those closing, the ones past `close_timeout`.
    pub overdue: u64,
    /// Permits that background work holds: what it opened and what it has borrowed.
    pub background: u64,
    /// The most that it may hold.
    pub background_share: u64,
    /// Acquires in line.
    pub waiting: u64,
    /// Tenants known.
    pub tenants: u64,
    /// Whether `close` was called.
    pub closed: bool,
    /// Events since the start.
    pub totals: Counters,
    /// One entry for each server seen.
    pub servers: Vec<ServerStats>,
}

impl Stats {
    /// All permits that are taken: `opening + idle + in_use + closing + pool_leased`, never above `max`.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.opening + self.idle + self.in_use + self.closing + self.pool_leased
    }

    /// The part of the budget that is doing something, 0 to 1: everything taken but the idle.
    #[must_use]
    pub fn saturation(&self) -> f64 {
        if self.max == 0 { 0.0 } else { (self.open() - self.idle) as f64 / self.max as f64 }
    }
}

/// One server's part of [`Stats`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// The server.
    pub server: ServerId,
    /// Its cap; the total's where it has none of its own.
    pub max: u64,
    /// What it takes at present: less than `max` after it said it is full.
    pub effective_max: u64,
    /// Permits taken on it.
    pub open: u64,
    /// Of those, the idle ones.
    pub idle: u64,
    /// Of those, the ones being opened.
    pub opening: u64,
    /// Breakages seen: rises when a connection that was alive is found lost.
    pub epoch: u64,
    /// The moving average of a connect's time, None before the first.
    pub connect_time: Option<Duration>,
}

/// Events of one tenant, for as long as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantCounters {
    /// Connects that succeeded.
    pub connects: u64,
    /// Connects that failed.
    pub connect_failures: u64,
    /// Acquires served by an idle connection at once.
    pub warm_hits: u64,
    /// Acquires that waited in line.
    pub waits: u64,
    /// The time they waited, all together.
    pub waited: Duration,
    /// Its idle connections closed to make room for others.
    pub evicted: u64,
    /// Acquires refused for a limit.
    pub refusals: u64,
}

/// A moment's picture of one tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TenantStats {
    /// The tenant.
    pub tenant: TenantId,
    /// Its server.
    pub server: ServerId,
    /// Its cap.
    pub max: u64,
    /// Connections being opened.
    pub opening: u64,
    /// Connections kept for its next acquire.
    pub idle: u64,
    /// Connections out, on their way to a waiter, or being cleaned.
    pub in_use: u64,
    /// Connections being closed.
    pub closing: u64,
    /// Permits held by pool leases or set aside for one.
    pub pool_leased: u64,
    /// Its acquires in line.
    pub waiting: u64,
    /// Whether it is being drained.
    pub draining: bool,
    /// Whether it was removed.
    pub removed: bool,
    /// Events since it became known.
    pub totals: TenantCounters,
}
