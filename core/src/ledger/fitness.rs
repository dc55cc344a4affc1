//! What an idle connection is good for: handed out as it is, validated first, or closed.

use super::Ledger;
use super::budget::{Permit, State};
use super::moment::Moment;
use crate::stats::CloseReason;

/// What an idle connection is good for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fitness {
    Fit,
    /// Past its lifetime.
    Expired,
    /// Its server was seen to break since it was last known to be alive.
    Outdated,
    /// Idle for `validate_after_idle`.
    Aged,
}

impl<C, E> Ledger<C, E> {
    /// The tenant's newest idle connection that is fit to be handed out. What is unfit is put away on the search.
    pub(super) fn find_fit(&mut self, tenant: u32, background: bool, by_age: bool, now: Moment) -> Option<u32> {
        loop {
            let newest = self.idle_for(tenant, background)?;
            match self.fitness(newest, by_age, now) {
                Fitness::Fit => return Some(newest),
                // All others are older still; the caller can use one.
                Fitness::Aged => {
                    self.put_away(newest, Fitness::Aged, background, now);
                    return None;
                }
                unfit => self.put_away(newest, unfit, background, now),
            }
        }
    }

    /// idle -> closing where its lifetime is over, else recycling, to find out whether it still lives. For background work it
    /// is lent meanwhile.
    pub(super) fn put_away(&mut self, idle: u32, unfit: Fitness, background: bool, now: Moment) {
        if unfit == Fitness::Expired {
            return self.close_idle(idle, CloseReason::Lifetime, now);
        }
        self.take_out(idle, background);
        let State::Idle(connection) = self.enter(idle, State::Recycling, now) else {
            unreachable!("what stands in a list of idle connections is idle")
        };
        self.recycle(idle, connection);
    }

    /// What the connection is good for; `by_age`: whether its age is asked as well.
    #[inline]
    pub(super) fn fitness(&self, idle: u32, by_age: bool, now: Moment) -> Fitness {
        let permit = &self.permits[idle];
        let aged_after = if by_age { self.aged_after } else { u64::MAX };
        permit.fitness(self.servers[permit.server as usize].epoch, aged_after, now)
    }
}

impl<C> Permit<C> {
    /// What the connection is good for in its server's epoch; idle for so many nanoseconds, it is aged.
    #[inline(always)]
    pub(super) fn fitness(&self, epoch: u32, aged_after: u64, now: Moment) -> Fitness {
        if self.expires_at <= now {
            Fitness::Expired
        } else if self.epoch != epoch {
            Fitness::Outdated
        } else if now.nanos_since(self.since) >= aged_after {
            Fitness::Aged
        } else {
            Fitness::Fit
        }
    }
}
