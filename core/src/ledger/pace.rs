//! How fast connections come back in a scope, from which those who are refused are told when to come again (rule 19).

use super::{Ledger, Time};

/// The moving average of the time between permits coming back, and what those who are refused were told by it.
#[derive(Clone, Copy, Default)]
pub(super) struct Pace {
    /// In nanoseconds, as this is part of every release; 0 is "never".
    last: u64,
    average: u64,
    /// When the one who was refused last was told to come again.
    told: u64,
}

fn nanos(time: Time) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

impl Pace {
    /// Times longer than this are quiet times, and no part of the average.
    const QUIET: u64 = 60_000_000_000;

    #[inline]
    fn came_back(&mut self, now: u64) {
        let sample = now.saturating_sub(std::mem::replace(&mut self.last, now.max(1)));
        if sample < Self::QUIET && sample < now {
            self.average = if self.average == 0 { sample.max(1) } else { (self.average * 15 + sample) / 16 };
        }
    }

    /// When the one at `place` in a line may be served: nobody is told a time that another one was told already. None while
    /// nothing was seen.
    pub(super) fn estimate(&mut self, place: u32, now: Time) -> Option<Time> {
        if self.average == 0 {
            return None;
        }
        let now = nanos(now);
        let soonest = now.saturating_add(self.average.saturating_mul(u64::from(place)));
        // Half of what comes back is left for those who come for the first time.
        let next = self.told.saturating_add(self.average.saturating_mul(2));
        self.told = soonest.max(next).min(now.saturating_add(Self::QUIET));
        Some(Time::from_nanos(self.told - now))
    }
}

impl<C, E> Ledger<C, E> {
    /// Counts one return for `retry_after`: a connection that is not in use any more, a failed connect, a permit of a pool.
    /// An idle connection that makes room was counted when it came back.
    #[inline]
    pub(super) fn came_back(&mut self, tenant: u32, server: u32, now: Time) {
        let nanos = nanos(now);
        self.tenants[tenant].pace.came_back(nanos);
        self.servers[server as usize].scope.pace.came_back(nanos);
        self.total.pace.came_back(nanos);
    }
}
