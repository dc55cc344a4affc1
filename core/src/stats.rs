//! What can be read about a manager. All of it comes from the ledger; nothing is counted twice.
//!
//! With the feature `serde` all of it can be serialized: durations as seconds (a number with a fraction, its name ends in
//! `_seconds`), refusals by scope as a map, and the sums that are methods here (`open`, `saturation`) as fields.

use std::ops::AddAssign;
use std::time::Duration;

use crate::{FailureKind, LimitScope, ServerId, TenantId};

/// Events counted: for everybody since the manager was built, for one tenant since it became known.
///
/// They outlive the connections that they tell of. Those of a tenant that is forgotten stay in the totals.
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
    /// Idle connections closed to make room: for another tenant, a pool lease of their own one, or background work.
    pub evictions: u64,
    /// Connections closed by `evict`.
    pub closed_evict: u64,
    /// Connections closed after `idle_timeout`.
    pub closed_idle: u64,
    /// Connections closed after `max_lifetime`, or by `renew`.
    pub closed_lifetime: u64,
    /// Connections closed because they were broken, lost, discarded or could not be cleaned.
    pub closed_broken: u64,
    /// Connections closed because their use came to an end otherwise: a drained or removed tenant, a paused server, a lowered
    /// limit, a closed manager.
    pub closed_ended: u64,
    /// Acquires refused for a limit, by [`LimitScope`].
    pub refusals: [u64; 5],
    /// Acquires refused as their tenant's connects fail: told of a failure, or not tried.
    pub unavailable: u64,
    /// Acquires that had no connection in time, although no limit was short.
    pub timeouts: u64,
}

impl Counters {
    /// Acquires refused for a limit of this scope.
    #[must_use]
    pub fn refused(&self, scope: LimitScope) -> u64 {
        self.refusals[scope as usize]
    }

    /// Connections closed, or being closed, for whichever reason.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.evictions
            + self.closed_evict
            + self.closed_idle
            + self.closed_lifetime
            + self.closed_broken
            + self.closed_ended
    }

    /// Every number, in one order.
    fn numbers(&mut self) -> [&mut u64; 20] {
        let Self {
            connects,
            connect_failures,
            server_full,
            warm_hits,
            waits,
            hand_overs,
            recycles,
            evictions,
            closed_evict,
            closed_idle,
            closed_lifetime,
            closed_broken,
            closed_ended,
            unavailable,
            timeouts,
            refusals: [tenant, server, total, queue, background],
            waited: _,
        } = self;
        [
            connects,
            connect_failures,
            server_full,
            warm_hits,
            waits,
            hand_overs,
            recycles,
            evictions,
            closed_evict,
            closed_idle,
            closed_lifetime,
            closed_broken,
            closed_ended,
            unavailable,
            timeouts,
            tenant,
            server,
            total,
            queue,
            background,
        ]
    }

    /// Whether none of these is above its like.
    pub(crate) fn is_within(mut self, other: &Self) -> bool {
        let mut other = *other;
        self.waited <= other.waited && self.numbers().into_iter().zip(other.numbers()).all(|(own, all)| *own <= *all)
    }
}

impl AddAssign for Counters {
    fn add_assign(&mut self, mut other: Self) {
        self.waited += other.waited;
        self.numbers().into_iter().zip(other.numbers()).for_each(|(sum, part)| *sum += *part);
    }
}

/// Why a connection was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CloseReason {
    /// It made room ([`Counters::evictions`]).
    MadeRoom,
    /// `evict` was called ([`Counters::closed_evict`]).
    Evict,
    /// It was idle for `idle_timeout` ([`Counters::closed_idle`]).
    Idle,
    /// It was as old as `max_lifetime` allows, or renewed ([`Counters::closed_lifetime`]).
    Lifetime,
    /// It was broken, lost, discarded or could not be cleaned ([`Counters::closed_broken`]).
    Broken,
    /// Its use came to an end otherwise: a drained or removed tenant, a paused server, a lowered limit, a closed manager
    /// ([`Counters::closed_ended`]).
    Ended,
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
    /// Of those, the ones whose last connect failed although their database exists, as far as is known.
    pub unavailable: u64,
    /// Whether `close` was called.
    pub closed: bool,
    /// Events since the start.
    pub totals: Counters,
    /// One entry for each server seen.
    pub servers: Vec<ServerStats>,
}

impl Stats {
    /// All permits that are taken: `opening + idle + in_use + closing + pool_leased`. Above `max` only where it was lowered
    /// under what was taken.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.opening + self.idle + self.in_use + self.closing + self.pool_leased
    }

    /// The part of the budget that is doing something, 0 to 1: everything taken but the idle.
    #[must_use]
    pub fn saturation(&self) -> f64 {
        saturation(self.open() - self.idle, self.max)
    }
}

/// More than 1 only where a limit was lowered under what was taken.
fn saturation(busy: u64, max: u64) -> f64 {
    if max == 0 { 0.0 } else { busy as f64 / max as f64 }
}

/// One server's part of [`Stats`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerStats {
    /// The server.
    pub server: ServerId,
    /// Its cap; the total's where it has none of its own.
    pub max: u64,
    /// What it takes at present: less than `max` after it said it is full, 0 while it is paused.
    pub effective_max: u64,
    /// Permits taken on it.
    pub open: u64,
    /// Of those, the ones being opened.
    pub opening: u64,
    /// Of those, the idle ones.
    pub idle: u64,
    /// Of those, the ones in use.
    pub in_use: u64,
    /// Of those, the ones being closed.
    pub closing: u64,
    /// Of those, the ones of pool leases.
    pub pool_leased: u64,
    /// Acquires in the lines of its tenants.
    pub waiting: u64,
    /// Whether it is paused.
    pub paused: bool,
    /// While it is full: the time until it is tried with one more connection than it has proved to take since; zero where that
    /// may be done now. None where it is not full.
    pub full: Option<Duration>,
    /// Breakages seen: rises when a connection that was alive is found lost.
    pub epoch: u64,
    /// The moving average of a connect's time, None before the first.
    pub connect_time: Option<Duration>,
    /// Connects that succeeded since the start.
    pub connects: u64,
    /// Connects that failed, timed out or panicked, "server full" included.
    pub connect_failures: u64,
    /// Times that it said it is full.
    pub server_full: u64,
}

impl ServerStats {
    /// The part of its cap that is doing something, as [`Stats::saturation`].
    #[must_use]
    pub fn saturation(&self) -> f64 {
        saturation(self.open - self.idle, self.max)
    }
}

/// What is known of a tenant's connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(tag = "state", rename_all = "snake_case"))]
#[non_exhaustive]
pub enum CircuitState {
    /// None has failed since the last that succeeded.
    Closed,
    /// The last failed. Until the next is tried callers are refused at once.
    #[non_exhaustive]
    Open {
        /// What the failure means.
        kind: FailureKind,
        /// The time until the next may be tried.
        #[cfg_attr(feature = "serde", serde(rename = "retry_after_seconds", with = "serial::seconds"))]
        retry_after: Duration,
    },
    /// The last failed, and its rest is over: the next one to be made is a probe, or under way.
    #[non_exhaustive]
    HalfOpen {
        /// What the failure means.
        kind: FailureKind,
    },
    /// Its server said that it is full. Callers keep their places in line.
    #[non_exhaustive]
    ServerFull {
        /// The time until the next connect may be tried.
        #[cfg_attr(feature = "serde", serde(rename = "retry_after_seconds", with = "serial::seconds"))]
        retry_after: Duration,
    },
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
    /// The connections it can always have.
    pub reserve: u64,
    /// Its share of a crowded budget, relative to the others'.
    pub weight: u64,
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
    /// What is known of its connects.
    pub circuit: CircuitState,
    /// Events since it became known.
    pub totals: Counters,
}

impl TenantStats {
    /// All permits that it holds.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.opening + self.idle + self.in_use + self.closing + self.pool_leased
    }

    /// The part of its cap that is doing something, as [`Stats::saturation`].
    #[must_use]
    pub fn saturation(&self) -> f64 {
        saturation(self.open() - self.idle, self.max)
    }
}

#[cfg(feature = "serde")]
pub(crate) mod serial;
