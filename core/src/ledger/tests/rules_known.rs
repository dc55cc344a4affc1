//! Who is remembered, and for how long (rule 17).

use std::time::Duration;

use super::rig::{MS, Rig};
use crate::ledger::{Refusal, TryDecision};
use crate::{FailureKind, Health, Settings, TenantId, TenantLimits};

fn knows(rig: &Rig, tenant: &str) -> bool {
    rig.ledger.tenant_stats(tenant).is_some()
}

#[test]
fn a_tenant_is_forgotten_when_it_was_quiet_for_long_enough() {
    let mut settings = Settings::new(2);
    settings.forget_after = MS * 1_000;
    let mut rig = Rig::new(settings);
    rig.admit("never-used");
    let held = rig.lease("a");
    rig.pass(MS * 1_000);
    assert!(!knows(&rig, "never-used") && knows(&rig, "a"));
    rig.release(held, Health::Broken);
    rig.pass(MS * 1_000);
    assert!(knows(&rig, "a"), "its close is under way");
    rig.closed();
    rig.pass(MS * 999);
    assert!(knows(&rig, "a"));
    rig.pass(MS);
    assert!(!knows(&rig, "a"));
}

#[test]
fn a_tenant_with_something_to_remember_is_not_forgotten() {
    let mut settings = Settings::new(3);
    settings.forget_after = MS * 10;
    settings.tenants.insert(TenantId::new("reserved").expect("valid"), TenantLimits::new().reserve(1));
    let mut rig = Rig::new(settings);
    rig.admit("reserved");
    rig.admit("draining");
    rig.step(|ledger, now| ledger.drain("draining", now));
    let _out = [rig.lease("out"), rig.lease("out")];
    rig.wait("waiting");
    let failing = rig.wait("reserved");
    rig.open_failed_by_chance(FailureKind::Unreachable, 99_999);
    let _ = rig.refusal(failing);
    rig.pass(MS * 50);
    rig.pass(MS * 20);
    for tenant in ["reserved", "draining", "out", "waiting"] {
        assert!(knows(&rig, tenant), "{tenant}");
    }
}

#[test]
fn a_tombstone_that_is_over_is_in_nobodys_way_though_no_tick_has_taken_it() {
    let mut settings = Settings::new(1);
    settings.tombstone_ttl = MS * 100;
    let mut rig = Rig::new(settings);
    for warm in [true, false] {
        rig.admit("gone");
        rig.step(|ledger, now| ledger.remove("gone", now));
        rig.now += MS * 99;
        assert!(matches!(rig.try_acquire("gone"), TryDecision::Removed));
        assert!(matches!(rig.refused("gone"), Refusal::Removed));
        rig.now += MS;
        if warm {
            assert!(matches!(rig.try_acquire("gone"), TryDecision::NotIdle));
            assert!(!knows(&rig, "gone"));
        } else {
            rig.wait("gone");
        }
    }
}

#[test]
fn an_open_circuit_is_remembered_until_it_may_be_tried_again() {
    let mut settings = Settings::new(2);
    settings.forget_after = MS * 10;
    let mut rig = Rig::new(settings);
    let waiter = rig.wait("a");
    rig.open_failed_by_chance(FailureKind::Unreachable, 99_999);
    let _ = rig.refusal(waiter);
    rig.pass(MS * 50);
    assert!(knows(&rig, "a"));
    rig.pass(MS * 100);
    rig.pass(MS * 100);
    assert!(!knows(&rig, "a"));
}

#[test]
fn what_is_known_of_tenants_that_do_not_exist_is_bounded_and_costs_the_others_nothing() {
    let mut settings = Settings::new(2);
    settings.max_waiters = 8;
    settings.max_waiters_per_tenant = 8;
    settings.max_known_tenants = 10;
    let mut rig = Rig::new(settings);
    let waiter = rig.wait("down");
    rig.open_failed_by_chance(FailureKind::Unreachable, 99_999);
    let _ = rig.refusal(waiter);
    for n in 0..1_000 {
        let waiter = rig.wait(&format!("stranger-{n}"));
        rig.open_failed(FailureKind::NoSuchTenant);
        let _ = rig.refusal(waiter);
        assert!(rig.ledger.stats().tenants <= 10);
    }
    assert!(matches!(rig.refused("down"), Refusal::Unavailable { .. }), "its circuit is still open");
    assert!(rig.ledger.due.len() <= 1_001, "{}", rig.ledger.due.len());
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.ledger.due.len(), 0);
}

#[test]
fn the_longest_quiet_is_forgotten_first_where_too_many_are_known() {
    let mut settings = Settings::new(2);
    settings.max_waiters = 2;
    settings.max_waiters_per_tenant = 2;
    settings.max_known_tenants = 4;
    let mut rig = Rig::new(settings);
    let held = rig.lease("busy");
    for tenant in ["a", "b", "c"] {
        rig.admit(tenant);
    }
    rig.warm_up("a");
    rig.step(|ledger, now| ledger.evict("a", now));
    rig.closed();
    rig.admit("d");
    assert!(!knows(&rig, "b"));
    for tenant in ["busy", "a", "c", "d"] {
        assert!(knows(&rig, tenant), "{tenant}");
    }
    rig.release(held, Health::Clean);
}

#[test]
fn all_that_have_been_quiet_for_long_are_forgotten_at_once() {
    let mut settings = Settings::new(4);
    settings.forget_after = MS * 1_000;
    let mut rig = Rig::new(settings);
    for tenant in ["a", "b", "c"] {
        rig.admit(tenant);
    }
    rig.pass(MS * 999);
    rig.admit("young");
    assert_eq!(rig.ledger.stats().tenants, 4);
    rig.pass(MS);
    assert_eq!(rig.ledger.stats().tenants, 1);
}
