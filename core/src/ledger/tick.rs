//! What time alone changes. The maintenance task calls [`Ledger::tick`]; each call does a bounded amount of work.

use std::time::Duration;

use super::budget::{Claim, State};
use super::moment::Moment;
use super::{Ledger, Time};
use crate::TenantId;
use crate::stats::CloseReason;

/// The most idle connections closed for their idleness, tenants forgotten from each of the two lists, and permits looked at in one
/// tick, so that the lock is not held for long: at the default period of 50 ms these are 5,120 closes and 20,480 looks a second.
const CLOSES_PER_TICK: u32 = 256;
const LOOKS_PER_TICK: u32 = 1_024;

/// How long a close is counted on before another victim is taken, twice as long each time in a row. Servers let go
/// within 10 ms; the largest value seen on a healthy one was 97 ms.
const PROMISE_PATIENCE: Duration = Duration::from_millis(100);

/// A lease that has been out for long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongLease {
    /// Whose connection it is.
    pub tenant: TenantId,
    /// How long it has been out.
    pub held: Duration,
}

impl<C, E> Ledger<C, E> {
    /// Closes what is idle or alive for too long, lets backoffs end, forgets quiet tenants, and reports leases that have
    /// been out for longer than `lease_warn_after`, each once.
    pub fn tick(&mut self, now: Time) -> Vec<LongLease> {
        let now = self.advance(now);
        self.pop_due(now, LOOKS_PER_TICK);
        self.share.idle_for_long = now.checked_sub(self.settings.background_steals_after);
        self.close_unused(now);
        self.forget_due(now, CLOSES_PER_TICK);
        let long = self.look_around(now);
        self.serve(now);
        long
    }

    fn close_unused(&mut self, now: Moment) {
        for _ in 0..CLOSES_PER_TICK {
            let oldest_idle = self.oldest_of(None, |victims| victims.oldest_idle(&self.permits));
            let idle = [oldest_idle, self.oldest_of(None, |victims| victims.background.oldest())];
            let Some(oldest) = idle.into_iter().flatten().min_by_key(|&idle| self.permits[idle].used_at) else {
                break;
            };
            if now.since(self.permits[oldest].used_at) < self.settings.idle_timeout {
                break;
            }
            self.close_idle(oldest, CloseReason::Idle, now);
        }
    }

    /// Walks over the permits, a stretch at a time: idle connections whose lifetime is over, leases out for long, closes that
    /// are overdue or late for the one they were promised to.
    fn look_around(&mut self, now: Moment) -> Vec<LongLease> {
        let (span, begin) = (self.permits.span(), self.cursor);
        // A budget of many thousands is walked in eight ticks.
        let stretch = (1..=span.min(LOOKS_PER_TICK.max(span / 8))).map(|step| (begin + step) % span);
        self.close_expired(stretch.clone(), now);
        let mut long = Vec::new();
        for index in stretch {
            self.cursor = index;
            if self.permits.live(index) {
                long.extend(self.look_at(index, now));
            }
        }
        long
    }

    /// Closes those that are idle after the end of their lifetime, which ended first first. One that is out is closed when it
    /// comes back.
    fn close_expired(&mut self, stretch: impl Iterator<Item = u32>, now: Moment) {
        let idle = |&index: &u32| self.permits.get(index).is_some_and(|permit| matches!(permit.state, State::Idle(_)));
        let lifetimes = stretch.filter(idle).map(|index| (self.permits[index].expires_at, index));
        let mut expired: Vec<_> = lifetimes.filter(|&(expires_at, _)| expires_at <= now).collect();
        expired.sort_unstable();
        for (_, permit) in expired {
            self.close_idle(permit, CloseReason::Lifetime, now);
        }
    }

    fn look_at(&mut self, index: u32, now: Moment) -> Option<LongLease> {
        let permit = &mut self.permits[index];
        let age = now.since(permit.since);
        match permit.state {
            State::InUse { ref mut warned, .. } if age >= self.settings.lease_warn_after && !*warned => {
                *warned = true;
                return Some(LongLease { tenant: self.tenants[permit.tenant].name.clone(), held: age });
            }
            State::Closing { claim, ref mut overdue } => {
                if age >= self.settings.close_timeout && !*overdue {
                    *overdue = true;
                    self.overdue += 1;
                }
                self.lose_patience(index, claim, age, now);
            }
            _ => {}
        }
        None
    }

    /// A close that takes too long is not counted on any more; who waited for it gets another victim.
    fn lose_patience(&mut self, closing: u32, claim: Claim, age: Duration, now: Moment) {
        match claim {
            Claim::Uncounted => {}
            Claim::Spare if age < PROMISE_PATIENCE => {}
            Claim::Spare => self.set_claim(closing, Claim::Uncounted),
            Claim::Promised(promise) => {
                let tenant = promise.tenant.index();
                if age >= PROMISE_PATIENCE * (1 << promise.lateness.min(10)) {
                    let entry = self.affairs_mut(tenant);
                    entry.lateness = entry.lateness.max(promise.lateness.saturating_add(1));
                    self.set_claim(closing, Claim::Uncounted);
                    self.settle(tenant, now);
                }
            }
        }
    }
}
