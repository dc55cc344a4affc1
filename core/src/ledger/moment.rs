//! A moment in one word, as the ledger keeps many and looks at some in every operation.

use std::ops::Add;
use std::time::Duration;

use super::Time;

/// Nanoseconds since the manager's start: as far as 584 years.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Moment(u64);

impl Moment {
    /// So many nanoseconds after the manager's start.
    #[inline]
    #[must_use]
    pub const fn at(nanos: u64) -> Self {
        Self(nanos)
    }

    pub(super) const START: Self = Self(0);
    pub(super) const NEVER: Self = Self(u64::MAX);

    /// The time since an earlier moment; none since a later one.
    #[inline]
    pub(super) fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.nanos_since(earlier))
    }

    #[inline]
    pub(super) fn nanos_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }

    #[inline]
    pub(super) fn nanos(self) -> u64 {
        self.0
    }

    /// None before the start.
    pub(super) fn checked_sub(self, time: Duration) -> Option<Self> {
        self.0.checked_sub(nanos(time)).map(Self)
    }
}

/// The most that fits, for what is longer.
#[inline]
pub(super) fn nanos(time: Duration) -> u64 {
    match time.as_secs().checked_mul(1_000_000_000) {
        Some(nanos) => nanos.saturating_add(u64::from(time.subsec_nanos())),
        None => u64::MAX,
    }
}

impl From<Time> for Moment {
    #[inline]
    fn from(time: Time) -> Self {
        Self(nanos(time))
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    #[inline]
    fn add(self, time: Duration) -> Self {
        Self(self.0.saturating_add(nanos(time)))
    }
}
