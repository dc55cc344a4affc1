//! The simulation itself: it repeats exactly, and what is wrong is found, and found again.

use std::time::Duration;

use tenantry_testkit::sim::{Lasts, Plan, Whom};

use crate::support::{MS, SECOND, always, crowd, one_crowd};

#[test]
fn runs_of_one_seed_are_the_same_to_the_last_event() {
    let plan = |seed| Plan::chaos(seed, 25, SECOND * 3);
    let digest = |plan: Plan| plan.run().unwrap_or_else(|violation| panic!("{violation}")).digest;
    assert_eq!(digest(plan(1)), digest(plan(1)));
    assert_ne!(digest(plan(1)), digest(plan(2)));
    let mut checked = plan(1);
    checked.check_every = 1_000;
    assert_eq!(digest(plan(1)), digest(checked), "looking changes nothing");
}

#[test]
fn trouble_of_every_kind_breaks_nothing() {
    for seed in 0..10 {
        let plan = Plan::chaos(seed, 5 + 3 * u32::try_from(seed).unwrap_or_default(), SECOND * 2);
        if let Err(violation) = plan.run() {
            panic!("{violation}");
        }
    }
}

/// The one line for all knows of no cap but the budget.
fn capped() -> Plan {
    let mut plan = one_crowd(3, 6, crowd("callers", Whom::Any(0..3), always(10), Lasts::Around(MS * 10)));
    plan.settings.max_connections_per_tenant = 3;
    plan.settings.max_connecting = Some(6);
    plan.lasts = SECOND;
    plan
}

#[test]
fn a_cap_that_is_passed_is_found_and_found_again() {
    let first = capped().run_in_one_line().expect_err("a tenant has more than three");
    let again = capped().run_in_one_line().expect_err("again");
    assert!(first.what.contains("connections of tenant") && first.what.ends_with("4 of 3"), "{first}");
    assert_eq!((first.event, first.at, first.digest), (again.event, again.at, again.digest));
    assert!(first.to_string().contains("Opens"), "it shows what happened before: {first}");
    assert!(capped().run().is_ok(), "the ledger knows of it");
}

#[test]
fn a_reserve_that_is_taken_is_found() {
    let mut plan = capped();
    plan.settings.max_connections_per_tenant = 6;
    plan.crowds[0].tenants = Whom::Any(0..2);
    plan.limits.insert(2, tenantry_testkit::sim::Limits { reserve: 1, ..Default::default() });
    let found = plan.run_in_one_line().expect_err("nothing is kept free");
    assert!(found.what.contains("reserved"), "{found}");
    assert!(plan.run().is_ok());
}

#[test]
fn a_reference_of_one_line_serves_in_order_of_arrival() {
    // One connection, nobody thinks: whoever asks waits for all who asked before.
    let mut plan = one_crowd(4, 1, crowd("callers", Whom::Each(0..4), always(4), Lasts::ms(10)));
    plan.servers[0].connect = Lasts::NONE;
    plan.servers[0].close = Lasts::NONE;
    (plan.lasts, plan.measured_from) = (SECOND * 4, 8);
    let report = plan.run_in_one_line().unwrap_or_else(|violation| panic!("{violation}"));
    let callers = report.crowd("callers");
    assert!(callers.percentile(0.0) >= Duration::from_micros(29_900), "{report}");
    assert!(callers.percentile(100.0) <= Duration::from_micros(30_100), "{report}");
}
