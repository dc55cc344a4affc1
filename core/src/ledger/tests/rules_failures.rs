//! The rules of failing connects: a tenant's circuit (rule 9), and a server that says it is full (rule 10).

use std::time::Duration;

use super::rig::{MS, Oops, Rig};
use super::rules::reserving;
use crate::ledger::{Failure, Polled, Refusal};
use crate::{FailureKind, Health, Settings};

pub(super) const FULL: FailureKind = FailureKind::ServerFull;
pub(super) const DOWN: FailureKind = FailureKind::Unreachable;
/// The first backoff's ceiling, and the last one's.
pub(super) const FIRST: u64 = 100;
const LAST: u64 = 30_000;

/// The random number that gives the longest backoff under this ceiling.
fn longest(ceiling_ms: u64) -> u64 {
    ceiling_ms * 1_000 - 1
}

/// The same for a server's backoff: its random number is the other half of the one that chooses the tenant's.
fn longest_for_the_server(ceiling_ms: u64) -> u64 {
    longest(ceiling_ms) << 32
}

fn retry_after(refusal: &Refusal<Oops>) -> Duration {
    match refusal {
        Refusal::Unavailable { retry_after, .. } => *retry_after,
        other => panic!("should be unavailable, not {other:?}"),
    }
}

/// One more failure of the tenant `a`, whose rest is over, with the longest wait under that ceiling.
pub(super) fn fail(rig: &mut Rig, ceiling_ms: u64) {
    let waiter = rig.wait("a");
    rig.open_failed_by_chance(DOWN, longest(ceiling_ms));
    assert!(matches!(rig.refusal(waiter), Refusal::Connect { .. }));
}

#[test]
fn the_backoffs_ceiling_doubles_up_to_half_a_minute() {
    let mut rig = Rig::with(2, 2);
    let mut ceiling = FIRST;
    for failures in 1..=20 {
        fail(&mut rig, ceiling);
        let refused = rig.refused("a");
        let almost = Duration::from_millis(ceiling) + MS - Duration::from_micros(1);
        assert_eq!(retry_after(&refused), almost, "after {failures} failures");
        rig.now += almost - Duration::from_micros(1);
        assert_eq!(retry_after(&rig.refused("a")), MS * 10, "never less than 10 ms");
        rig.now += Duration::from_micros(1);
        ceiling = (ceiling * 2).min(LAST);
    }
}

#[test]
fn a_backoff_lasts_a_millisecond_at_least_and_its_ceiling_at_most() {
    for random in [0, 1, 12_345_678_901, u64::MAX / 3, u64::MAX] {
        let mut rig = Rig::with(2, 2);
        for failures in 0..12_u32 {
            let waiter = rig.wait("a");
            rig.open_failed_by_chance(DOWN, random);
            let _ = rig.refusal(waiter);
            rig.now += MS - Duration::from_micros(1);
            let rest = retry_after(&rig.refused("a"));
            let ceiling = Duration::from_millis(FIRST * (1 << failures)).min(Duration::from_millis(LAST));
            assert!(rest <= ceiling, "{random}, failure {failures}: {rest:?} of {ceiling:?}");
            rig.now += rest;
        }
    }
}

#[test]
fn one_caller_probes_and_the_others_are_told_at_once() {
    let mut rig = Rig::with(5, 5);
    fail(&mut rig, FIRST);
    rig.pass(MS * 101);
    let probe = rig.wait("a");
    for _ in 0..10 {
        assert_eq!(retry_after(&rig.refused("a")), MS * 10);
    }
    assert_eq!(rig.counts(), [1, 0, 0, 0, 0]);
    rig.opened();
    let _held = rig.granted(probe);
    let (next, other) = (rig.wait("a"), rig.wait("a"));
    assert_eq!(rig.counts(), [2, 0, 1, 0, 0], "a success closes the circuit");
    rig.opened();
    rig.opened();
    let _ = (rig.granted(next), rig.granted(other));
}

#[test]
fn a_success_makes_the_next_failure_the_first() {
    let mut rig = Rig::with(2, 2);
    for ceiling in [FIRST, FIRST * 2, FIRST * 4] {
        fail(&mut rig, ceiling);
        rig.pass(Duration::from_secs(1));
    }
    let held = rig.lease("a");
    rig.release(held, Health::Broken);
    rig.closed();
    fail(&mut rig, FIRST);
    assert_eq!(retry_after(&rig.refused("a")), MS * 101 - Duration::from_micros(1));
}

#[test]
fn a_probe_that_is_cancelled_leaves_its_open_as_the_probe() {
    let mut rig = Rig::with(5, 5);
    fail(&mut rig, FIRST);
    rig.pass(MS * 101);
    let probe = rig.wait("a");
    rig.cancel(probe);
    let _told = rig.refused("a");
    assert_eq!(rig.opens.len(), 1);
    rig.opened();
    let _ = rig.warm("a");
}

#[test]
fn connects_that_fail_together_are_one_failure() {
    let mut rig = Rig::with(5, 5);
    for _ in 0..5 {
        rig.wait("a");
    }
    assert_eq!(rig.opens.len(), 5);
    for _ in 0..5 {
        rig.open_failed_by_chance(DOWN, longest(FIRST * 16));
    }
    assert!(retry_after(&rig.refused("a")) <= MS * 101);
}

#[test]
fn after_an_outage_the_first_that_gets_through_ends_the_wait_of_the_others() {
    let mut rig = Rig::with(4, 4);
    for tenant in ["a", "b"] {
        let waiter = rig.wait(tenant);
        rig.open_failed_by_chance(DOWN, longest(FIRST));
        let _ = rig.refusal(waiter);
    }
    rig.now += Duration::from_millis(FIRST + 1);
    let waiter = rig.wait("b");
    rig.open_failed_by_chance(DOWN, longest(FIRST * 2));
    let _ = rig.refusal(waiter);
    let probe = rig.wait("a");
    rig.now += MS;
    assert!(retry_after(&rig.refused("b")) > MS * 100, "it would rest for long");
    rig.opened();
    let _ = rig.granted(probe);
    let waiter = rig.wait("b");
    rig.opened();
    let _ = rig.granted(waiter);
}

#[test]
fn who_fails_for_reasons_of_its_own_waits_on_when_others_get_through() {
    let mut rig = Rig::with(4, 4);
    let waiter = rig.wait("a");
    rig.open_failed_by_chance(DOWN, longest(FIRST));
    let _ = rig.refusal(waiter);
    rig.now += MS;
    // `b` never failed: that it gets through says nothing of `a`'s own host.
    let _ = rig.lease("b");
    assert!(matches!(rig.refused("a"), Refusal::Unavailable { .. }));
    // `c`'s password was refused: that it gets in now says nothing either.
    let waiter = rig.wait("c");
    rig.open_failed_by_chance(FailureKind::Auth, 0);
    let _ = rig.refusal(waiter);
    rig.now += MS * 2;
    let _ = rig.lease("c");
    assert!(matches!(rig.refused("a"), Refusal::Unavailable { .. }));
}

#[test]
fn a_failure_after_the_end_of_a_rest_that_nobody_noticed_begins_another() {
    let mut settings = Settings::new(4);
    settings.max_connections_per_tenant = 4;
    settings.max_connecting = Some(4);
    let mut rig = Rig::new(settings);
    let line = [rig.wait("a"), rig.wait("a"), rig.wait("a")];
    assert_eq!(rig.opens.len(), 2, "two are under way");
    rig.open_failed_by_chance(FailureKind::ServerFull, 0);
    rig.now += MS * 50;
    rig.open_failed_by_chance(DOWN, longest(FIRST));
    assert!(matches!(rig.refusal(line[0]), Refusal::Connect { .. }));
    for waiter in &line[1..] {
        assert!(retry_after(&rig.refusal(*waiter)) > MS * 90);
    }
    assert!(matches!(rig.refused("a"), Refusal::Unavailable { .. }));
}

#[test]
fn a_tenant_that_was_asked_for_is_probed_without_a_caller() {
    let mut rig = Rig::with(2, 2);
    fail(&mut rig, FIRST);
    rig.pass(Duration::from_millis(FIRST + 1));
    assert!(rig.opens.is_empty(), "nobody has asked since");
    fail(&mut rig, FIRST * 2);
    assert!(matches!(rig.refused("a"), Refusal::Unavailable { .. }));
    rig.pass(Duration::from_millis(FIRST));
    assert!(rig.opens.is_empty(), "it rests");
    rig.pass(Duration::from_millis(FIRST + 1));
    assert_eq!(rig.opens.len(), 1);
    assert!(matches!(rig.refused("a"), Refusal::Unavailable { .. }), "one probe at a time");
    rig.opened();
    let _ = rig.warm("a");
}

#[test]
fn no_probe_takes_what_others_hold_or_follows_a_name_that_nobody_has() {
    let mut rig = Rig::with(2, 2);
    fail(&mut rig, FIRST);
    let _ = rig.refused("a");
    let _others = [rig.lease("b"), rig.lease("b")];
    rig.pass(Duration::from_millis(FIRST + 1));
    assert!(rig.opens.is_empty() && rig.closes.is_empty());
    let mut rig = Rig::with(2, 2);
    let waiter = rig.wait("a");
    rig.open_failed_by_chance(FailureKind::NoSuchTenant, 0);
    let _ = rig.refusal(waiter);
    let _ = rig.refused("a");
    rig.pass(MS * 1_000);
    assert!(rig.opens.is_empty());
}

#[test]
fn the_memory_of_failures_outlives_the_connections() {
    let mut rig = Rig::with(2, 2);
    let held = rig.lease("a");
    let waiter = rig.wait("a");
    rig.open_failed_by_chance(DOWN, longest(FIRST));
    let _ = rig.refusal(waiter);
    rig.release(held, Health::Broken);
    rig.closed();
    assert_eq!(rig.counts(), [0; 5]);
    let _still = retry_after(&rig.refused("a"));
}

#[test]
fn an_open_circuit_does_not_keep_a_tenant_from_its_own_connections() {
    let mut rig = Rig::with(2, 2);
    let held = rig.lease("a");
    let waiter = rig.wait("a");
    rig.open_failed_by_chance(DOWN, longest(FIRST));
    let _ = rig.refusal(waiter);
    rig.release(held, Health::Clean);
    let _ = rig.warm("a");
}

#[test]
fn nobody_waits_behind_a_resting_circuit_for_a_recycling_that_failed() {
    let mut rig = Rig::with(2, 2);
    let held = rig.lease("a");
    let first = rig.wait("a");
    rig.release(held, Health::Dirty);
    rig.open_failed_by_chance(DOWN, longest(FIRST));
    let _ = rig.refusal(first);
    let second = rig.wait("a");
    let _only_one_may_hope = retry_after(&rig.refused("a"));
    let (permit, connection) = rig.recycles.remove(0);
    rig.step(|ledger, now| ledger.recycle_failed(permit, now));
    rig.closes.push((permit, connection));
    let _ = retry_after(&rig.refusal(second));
}

#[test]
fn a_failing_tenant_opens_one_at_a_time_and_costs_the_others_nothing() {
    let mut settings = Settings::new(40);
    settings.max_connections_per_tenant = 10;
    settings.max_connecting = Some(8);
    let mut rig = Rig::new(settings);
    for _ in 0..10 {
        rig.wait("hole");
    }
    assert_eq!(rig.opens.len(), 4, "half of the opening slots");
    for _ in 0..10 {
        rig.wait("other");
    }
    assert_eq!(rig.opens.len(), 8);
    rig.wait("third");
    assert_eq!(rig.opens.len(), 8, "no slot is left");
    rig.open_failed_by_chance(DOWN, longest(FIRST));
    assert_eq!(rig.opens.iter().filter(|(_, tenant)| tenant.as_str() == "third").count(), 1);
    for _ in 0..3 {
        rig.open_failed_by_chance(DOWN, longest(FIRST));
    }
    rig.pass(MS * 101);
    rig.wait("hole");
    let _told = rig.refused("hole");
    assert_eq!(rig.opens.iter().filter(|(_, tenant)| tenant.as_str() == "hole").count(), 1);
}

#[test]
fn the_waiter_is_told_why_and_the_others_that_it_is_unavailable() {
    let mut rig = Rig::with(3, 3);
    let line: Vec<_> = (0..3).map(|_| rig.wait("a")).collect();
    rig.open_failed(FailureKind::Auth);
    assert!(matches!(rig.refusal(line[0]), Refusal::Connect { kind: FailureKind::Auth, .. }));
    for &waiter in &line[1..] {
        let told = rig.refusal(waiter);
        assert!(matches!(told, Refusal::Unavailable { kind: FailureKind::Auth, source: Some(_), .. }), "{told:?}");
    }
}

#[test]
fn a_panic_has_no_source_and_a_timeout_says_its_phase() {
    let mut rig = Rig::with(1, 1);
    for failure in [Failure::Panicked, Failure::TimedOut] {
        let panicked = matches!(failure, Failure::Panicked);
        let waiter = rig.wait("a");
        let (permit, _) = rig.opens.remove(0);
        rig.step(|ledger, now| ledger.open_failed(permit, failure, 0, now));
        match rig.refusal(waiter) {
            Refusal::Unavailable { kind: FailureKind::Other, source: None, .. } => assert!(panicked),
            Refusal::Timeout { phase: crate::Phase::Connecting, .. } => assert!(!panicked),
            other => panic!("{other:?}"),
        }
        rig.pass(Duration::from_secs(1));
    }
}

#[test]
fn a_full_server_is_nobodys_failure_and_waiters_keep_their_place() {
    let mut rig = Rig::with(3, 3);
    let (first, second) = (rig.wait("a"), rig.wait("a"));
    rig.open_failed_by_chance(FULL, longest(FIRST));
    rig.open_failed_by_chance(FULL, longest(FIRST));
    rig.pending(first);
    rig.pending(second);
    assert_eq!(rig.opens.len(), 0, "its opens pause");
    rig.wait("b");
    assert_eq!(rig.opens.len(), 1, "another tenant's do not");
    rig.opened();
    assert_eq!(effective(&rig), 3);
    rig.pass(MS * 101);
    assert_eq!(rig.opens.len(), 1, "one at a time until a success");
    rig.opened();
    let _ = rig.granted(first);
    rig.opened();
    let _ = rig.granted(second);
    assert_eq!(rig.ledger.stats().totals.server_full, 2);
}

/// `open` connections, idle, each of its own tenant; then two tenants are told that the server is full.
fn full_at(total: u32, open: u32) -> Rig {
    let mut rig = Rig::with(total, 1);
    for n in 0..open {
        rig.warm_up(&format!("warm-{n}"));
    }
    rig.wait("told-1");
    rig.wait("told-2");
    rig.open_failed_by_chance(FULL, longest(FIRST));
    rig.open_failed_by_chance(FULL, longest(FIRST));
    rig
}

pub(super) fn effective(rig: &Rig) -> u64 {
    rig.ledger.stats().servers[0].effective_max
}

#[test]
fn full_to_two_tenants_is_full_to_all() {
    let mut rig = full_at(10, 3);
    assert_eq!(effective(&rig), 3);
    rig.wait("other");
    assert_eq!((rig.opens.len(), rig.closes.len()), (0, 1), "an idle connection of our own goes first");
    rig.closed();
    assert_eq!(rig.opens.len(), 1);
}

#[test]
fn full_to_two_tenants_long_apart_is_their_own_trouble() {
    let mut rig = Rig::with(10, 1);
    rig.wait("a");
    rig.open_failed(FULL);
    rig.wait("b");
    rig.now += Duration::from_secs(11);
    rig.open_failed(FULL);
    assert_eq!(effective(&rig), 10);
}

#[test]
fn a_full_server_is_probed_by_one_connection_at_a_time() {
    let mut rig = Rig::with(10, 1);
    let leases: Vec<_> = (0..3).map(|n| rig.lease(&format!("out-{n}"))).collect();
    for n in 0..4 {
        rig.wait(&format!("cold-{n}"));
    }
    for _ in 0..4 {
        rig.open_failed_by_chance(FULL, 0);
    }
    assert_eq!((effective(&rig), rig.opens.len()), (3, 0));
    rig.pass(MS * 1_000);
    assert_eq!((effective(&rig), rig.opens.len()), (4, 1), "one probe");
    rig.open_failed_by_chance(FULL, longest_for_the_server(FIRST * 2));
    rig.pass(MS * 200);
    assert_eq!(rig.opens.len(), 0, "the second rest is twice as long as the first can be");
    rig.pass(MS);
    assert_eq!(rig.opens.len(), 1);
    rig.opened();
    assert_eq!((effective(&rig), rig.opens.len()), (5, 1), "a success has the next tried at once");
    for lease in leases {
        rig.release(lease, Health::Clean);
    }
}

#[test]
fn refusals_of_one_full_moment_are_one() {
    let mut rig = Rig::with(100, 1);
    for n in 0..40 {
        rig.wait(&format!("cold-{n}"));
    }
    for _ in 0..40 {
        rig.open_failed_by_chance(FULL, longest_for_the_server(FIRST));
    }
    rig.wait("another");
    assert_eq!(rig.opens.len(), 0);
    rig.pass(MS * 101);
    assert_eq!(rig.opens.len(), 1, "a tenth of a second after 40 refusals at once there is one probe");
}

#[test]
fn a_server_that_was_full_is_used_in_full_again() {
    let mut rig = full_at(20, 4);
    for _ in 0..600 {
        rig.pass(MS * 100);
        while !rig.closes.is_empty() || !rig.opens.is_empty() {
            if rig.closes.is_empty() {
                rig.opened();
            } else {
                rig.closed();
            }
        }
    }
    assert_eq!(effective(&rig), 20, "after a minute without a refusal");
    let before = rig.ledger.stats().totals.evictions;
    for n in 0..6 {
        rig.wait(&format!("burst-{n}"));
    }
    assert_eq!(rig.opens.len(), 6, "{:?}", rig.counts());
    assert_eq!(rig.ledger.stats().totals.evictions, before, "nothing warm is closed while permits are free");
}

#[test]
fn reserves_on_a_full_server_cost_a_waiter_no_more_than_one_victim() {
    let mut rig = reserving(10, 4);
    for tenant in ["p", "q", "r", "s"] {
        rig.warm_up(tenant);
    }
    rig.wait("a");
    rig.wait("b");
    rig.open_failed(FULL);
    rig.open_failed(FULL);
    let waiter = rig.wait("c");
    let mut closed = 0;
    while !rig.closes.is_empty() {
        rig.closed();
        closed += 1;
    }
    assert_eq!((closed, rig.opens.len()), (1, 1));
    rig.opened();
    let Polled::Connection(_) = rig.poll(waiter) else { panic!("c was the only one that did not rest") };
}

#[test]
fn a_tenant_alone_on_a_full_server_makes_room_among_the_idle() {
    let mut rig = Rig::with(10, 2);
    for n in 0..3 {
        rig.warm_up(&format!("warm-{n}"));
    }
    let waiter = rig.wait("a");
    for _ in 0..4 {
        if !rig.closes.is_empty() {
            break;
        }
        rig.open_failed(FULL);
        rig.pass(MS * 100);
    }
    assert_eq!(rig.closes.len(), 1, "{:?}", rig.counts());
    rig.closed();
    rig.opened();
    let _ = rig.granted(waiter);
}
