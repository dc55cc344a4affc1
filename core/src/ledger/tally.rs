//! What is counted: each event once for everybody and once for its tenant, here and nowhere else.

use std::time::Duration;

use super::budget::Place;
use super::tenants::Tenant;
use super::{Ledger, Time};
use crate::error::LimitScope;
use crate::stats::{CloseReason, Counters};

/// An event.
#[derive(Clone, Copy)]
pub(super) enum Count {
    Connect,
    ConnectFailure,
    ServerFull,
    Wait,
    Waited(Time),
    HandOver,
    Recycle,
    Closed(CloseReason),
    Refused(LimitScope),
    Unavailable,
    Timeout,
}

/// One tenant's events. Most tenants have a connect, some use, and a close behind them: what else there may be stands behind
/// a box, together with what no longer fits here.
#[derive(Default)]
pub(super) struct Tally {
    warm_hits: u64,
    /// Nanoseconds: enough for 584 years of waiting.
    waited: u64,
    connects: u32,
    waits: u32,
    evictions: u32,
    closed_idle: u32,
    rest: Option<Box<Counters>>,
}

/// Adds one to a small counter; where it is full, it begins again and the rest has all of it.
#[inline]
fn bump(small: &mut u32, rest: &mut Option<Box<Counters>>, large: fn(&mut Counters) -> &mut u64) {
    let (sum, full) = small.overflowing_add(1);
    *small = sum;
    if full {
        *large(rest.get_or_insert_default()) += 1 << 32;
    }
}

impl Tally {
    #[inline]
    pub(super) fn warm_hit(&mut self) {
        self.warm_hits += 1;
    }

    fn add(&mut self, event: Count) {
        let rest = &mut self.rest;
        match event {
            Count::Connect => bump(&mut self.connects, rest, |rest| &mut rest.connects),
            Count::Wait => bump(&mut self.waits, rest, |rest| &mut rest.waits),
            Count::Waited(time) => self.waited += u64::try_from(time.as_nanos()).unwrap_or(u64::MAX),
            Count::Closed(CloseReason::MadeRoom) => bump(&mut self.evictions, rest, |rest| &mut rest.evictions),
            Count::Closed(CloseReason::Idle) => bump(&mut self.closed_idle, rest, |rest| &mut rest.closed_idle),
            event => rest.get_or_insert_default().add(event),
        }
    }

    pub(super) fn counters(&self) -> Counters {
        let mut counters = self.rest.as_deref().copied().unwrap_or_default();
        counters.warm_hits += self.warm_hits;
        counters.waited += Duration::from_nanos(self.waited);
        counters.connects += u64::from(self.connects);
        counters.waits += u64::from(self.waits);
        counters.evictions += u64::from(self.evictions);
        counters.closed_idle += u64::from(self.closed_idle);
        counters
    }
}

impl Counters {
    fn add(&mut self, event: Count) {
        let counter = match event {
            Count::Waited(time) => {
                self.waited += time;
                return;
            }
            Count::Connect => &mut self.connects,
            Count::ConnectFailure => &mut self.connect_failures,
            Count::ServerFull => &mut self.server_full,
            Count::Wait => &mut self.waits,
            Count::HandOver => &mut self.hand_overs,
            Count::Recycle => &mut self.recycles,
            Count::Closed(CloseReason::MadeRoom) => &mut self.evictions,
            Count::Closed(CloseReason::Idle) => &mut self.closed_idle,
            Count::Closed(CloseReason::Lifetime) => &mut self.closed_lifetime,
            Count::Closed(CloseReason::Broken) => &mut self.closed_broken,
            Count::Closed(CloseReason::Evict) => &mut self.closed_evict,
            Count::Closed(CloseReason::Ended) => &mut self.closed_ended,
            Count::Refused(scope) => &mut self.refusals[scope as usize],
            Count::Unavailable => &mut self.unavailable,
            Count::Timeout => &mut self.timeouts,
        };
        *counter += 1;
    }
}

impl<C, E> Ledger<C, E> {
    /// Counts an event. What was counted stays in the totals when its tenant is forgotten.
    pub(super) fn count(&mut self, tenant: u32, event: Count) {
        self.tenants[tenant].tally.add(event);
        self.counters.add(event);
    }

    /// Invariant 16.
    pub(super) fn check_tallies(&self) {
        let all = &self.counters;
        let open = self.total.counts.of(Place::Idle) + self.total.counts.of(Place::InUse);
        assert_eq!(
            all.connects,
            all.closed() + u64::from(open),
            "16: each connection is open or was closed for a reason"
        );
        let mut sum = Counters::default();
        for (_, tenant) in self.tenants.iter() {
            sum += tenant.tally.counters();
        }
        assert!(sum.is_within(all), "16: tenants have counted {sum:?}, all together {all:?}");
        let failing = |tenant: &Tenant<E>| tenant.circuit.as_ref().is_some_and(|circuit| circuit.is_unavailable());
        let unavailable = self.tenants.iter().filter(|(_, tenant)| failing(tenant)).count();
        assert_eq!(self.unavailable as usize, unavailable, "16: tenants whose last connect failed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_that_is_full_goes_on_in_the_rest() {
        let mut tally = Tally { connects: u32::MAX - 1, waits: u32::MAX, ..Tally::default() };
        for _ in 0..3 {
            tally.add(Count::Connect);
            tally.add(Count::Wait);
        }
        let counters = tally.counters();
        assert_eq!((counters.connects, counters.waits), (u64::from(u32::MAX) + 2, u64::from(u32::MAX) + 3));
    }

    #[test]
    fn an_ordinary_tenants_tally_is_small() {
        assert!(size_of::<Tally>() <= 40);
    }
}
