//! How fast connections come back in a scope, from which those who are refused are told when to come again (rule 19).

use std::time::Duration;

use super::Ledger;
use super::moment::Moment;

/// The average time between permits coming back of late, and what those who are refused were told by it. Counting is part of every
/// release, averaging is not. All times are nanoseconds.
#[derive(Clone, Copy)]
pub(super) struct Pace {
    /// When one came back last.
    last: u64,
    /// When counting began, and how many came back since.
    since: u64,
    returns: u32,
    /// The average before that; 0 where nothing was seen.
    average: u64,
    /// When the one who was refused last was told to come again.
    told: u64,
}

/// Before any time: nothing came back yet.
const NEVER: u64 = 1 << 63;
/// Times longer than this are quiet times, and no part of the average.
const QUIET: u64 = 60_000_000_000;
/// So many returns count in full; of fewer, what is left is the average before them.
const MANY: u64 = 16;
const AT_A_TIME: u32 = 64;

impl Default for Pace {
    fn default() -> Self {
        Self { last: NEVER, since: 0, returns: 0, average: 0, told: 0 }
    }
}

impl Pace {
    #[inline]
    pub(super) fn came_back(&mut self, now: u64) {
        if now.wrapping_sub(self.last) < QUIET {
            self.last = now;
            self.returns += 1;
            if self.returns == AT_A_TIME {
                self.fold();
            }
        } else {
            self.begin(now);
        }
    }

    #[cold]
    fn begin(&mut self, now: u64) {
        self.fold();
        (self.since, self.last) = (now, now);
    }

    /// Puts what was counted into the average.
    #[cold]
    fn fold(&mut self) {
        if self.returns > 0 {
            let returns = u64::from(self.returns);
            let mean = (self.last.saturating_sub(self.since) / returns).max(1);
            let (new, old) = (returns.min(MANY), if self.average == 0 { 0 } else { MANY.saturating_sub(returns) });
            self.average = (self.average * old + mean * new) / (old + new);
            (self.since, self.returns) = (self.last, 0);
        }
    }

    /// When the one at `place` in a line may be served: nobody is told a time that another one was told already. None while
    /// nothing was seen.
    pub(super) fn estimate(&mut self, place: u32, now: Moment) -> Option<Duration> {
        self.fold();
        if self.average == 0 {
            return None;
        }
        let now = now.nanos();
        let soonest = now.saturating_add(self.average.saturating_mul(u64::from(place)));
        // Half of what comes back is left for those who come for the first time.
        let next = self.told.saturating_add(self.average.saturating_mul(2));
        self.told = soonest.max(next).min(now.saturating_add(QUIET));
        Some(Duration::from_nanos(self.told - now))
    }
}

impl<C, E> Ledger<C, E> {
    /// Counts one return for `retry_after`: a connection that is not in use any more, a failed connect, a permit of a pool.
    /// An idle connection that makes room was counted when it came back.
    #[inline]
    pub(super) fn came_back(&mut self, tenant: u32, server: u32, now: Moment) {
        let nanos = now.nanos();
        self.tenants[tenant].pace.came_back(nanos);
        self.servers[server as usize].scope.pace.came_back(nanos);
        self.total.pace.came_back(nanos);
    }
}
