//! Shares by weight.

use std::time::Duration;

use tenantry_testkit::sim::{Lasts, Limits, Plan, Whom};

use crate::support::{MS, SECOND, always, crowd, one_crowd, play};

const HOLD: Lasts = Lasts::Between(Duration::from_millis(40), Duration::from_millis(60));

fn weighed(plan: &mut Plan, tenant: u32, weight: u32) {
    plan.limits.insert(tenant, Limits { weight, ..Limits::default() });
}

fn shared(mut plan: Plan) -> Plan {
    plan.settings.max_connections_per_tenant = plan.settings.max_connections;
    plan.settings.max_connecting = Some(plan.settings.max_connections);
    plan.settings.handover_bound = Some(Duration::ZERO);
    plan.lasts = SECOND * 60;
    plan.measured_from = 100;
    plan
}

#[test]
fn tenants_that_always_ask_get_grants_by_their_weights() {
    let mut plan = shared(one_crowd(3, 28, crowd("one", Whom::One(0), always(40), HOLD)));
    plan.crowds.push(crowd("two", Whom::One(1), always(40), HOLD));
    plan.crowds.push(crowd("four", Whom::One(2), always(40), HOLD));
    for (tenant, weight) in [(0, 1), (1, 2), (2, 4)] {
        weighed(&mut plan, tenant, weight);
    }
    let report = play("weights 1, 2, 4 on 28 connections", &plan);
    for (name, weight) in [("one", 1.0), ("two", 2.0), ("four", 4.0)] {
        let (share, due) = (report.share(name), weight / 7.0);
        assert!((share - due).abs() <= 0.02, "{name}: {share} of all grants, {due} are due");
    }
}

#[test]
fn weights_count_where_a_tenants_share_is_less_than_one_connection() {
    // 40 tenants on 8 connections: nobody has two at once.
    let mut plan = shared(one_crowd(40, 8, crowd("light", Whom::Each(0..20), always(80), HOLD)));
    plan.crowds.push(crowd("heavy", Whom::Each(20..40), always(80), HOLD));
    for tenant in 20..40 {
        weighed(&mut plan, tenant, 4);
    }
    let report = play("20 of weight 1, 20 of weight 4, on 8 connections", &plan);
    let share = report.share("heavy");
    assert!((share - 0.8).abs() <= 0.05, "{share} of all grants, 0.8 are due");
}

#[test]
fn a_tenant_within_its_reserve_is_served_as_if_it_were_alone() {
    let mut plan = shared(one_crowd(20, 10, crowd("others", Whom::Each(1..20), always(60), HOLD)));
    plan.crowds.push(crowd("reserved", Whom::One(0), always(2), HOLD));
    plan.limits.insert(0, Limits { reserve: 2, ..Limits::default() });
    let report = play("a reserve of 2 of 10", &plan);
    let p99 = report.crowd("reserved").p99();
    assert!(p99 <= MS, "its connections are there: {p99:?}");
}
