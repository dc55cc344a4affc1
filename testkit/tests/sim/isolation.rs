//! One tenant's trouble is nobody else's.

use std::time::Duration;

use tenantry_core::FailureKind;
use tenantry_testkit::sim::{
    Breakage, Crowd, Fault, Lasts, Operation, Pace, Plan, Report, Retries, Server, Trouble, Whom,
};

use crate::support::{MS, SECOND, always, arrivals, assert_all_served, crowd, one_crowd, play};

/// 20 tenants with 240 callers a second in all, each with a hold of about 50 ms: 60 % of 20 connections.
fn twenty(how: Option<Breakage>) -> Report {
    let hold = Lasts::Between(MS * 25, MS * 75);
    let mut plan = one_crowd(20, 20, crowd("others", Whom::Any(1..20), arrivals(228.0), hold));
    let mut broken = crowd("broken", Whom::One(0), arrivals(12.0), hold);
    broken.timeout = SECOND * 2;
    plan.crowds.push(broken);
    plan.lasts = SECOND * 60;
    if let Some(how) = how {
        let what = Trouble::Tenant { tenant: 0, how };
        plan.faults.push(Fault { at: Duration::ZERO, lasts: plan.lasts, what });
    }
    play(&format!("tenant 0: {how:?}"), &plan)
}

#[test]
fn a_tenant_whose_connects_hang_costs_the_others_nothing() {
    let (well, ill) = (twenty(None), twenty(Some(Breakage::Hangs)));
    let (before, after) = (well.crowd("others"), ill.crowd("others"));
    assert_all_served(after);
    println!("p99 of the others: {:?} without, {:?} with", before.p99(), after.p99());
    assert!(after.p99() <= before.p99().mul_f64(1.1), "{:?}, without it {:?}", after.p99(), before.p99());
    let broken = ill.crowd("broken");
    assert_eq!(broken.granted, 0);
    let told = broken.unavailable as f64 / broken.refused() as f64;
    assert!(told > 0.9, "nearly all of its callers are told at once: {told}");
    assert_eq!(broken.late, 0, "its callers wait for no limit");
}

#[test]
fn a_tenant_whose_connects_fail_costs_the_others_nothing() {
    let well = twenty(None);
    for kind in [FailureKind::Unreachable, FailureKind::Auth, FailureKind::NoSuchTenant, FailureKind::ServerFull] {
        let ill = twenty(Some(Breakage::Fails(kind)));
        let (before, after) = (well.crowd("others"), ill.crowd("others"));
        assert_all_served(after);
        assert!(after.p99() <= before.p99().mul_f64(1.1), "{kind:?}: {:?}, without {:?}", after.p99(), before.p99());
    }
}

#[test]
fn what_is_known_of_a_broken_tenant_outlives_its_connections() {
    let hold = Lasts::ms(20);
    let pace = Pace::Loop { callers: 3, think: Lasts::Around(MS * 30) };
    let mut callers = crowd("callers", Whom::One(0), pace, hold);
    callers.retries = Retries::AsTold(1);
    let mut plan = one_crowd(1, 8, callers);
    let broken = SECOND * 5;
    let what = Trouble::Tenant { tenant: 0, how: Breakage::Fails(FailureKind::Unreachable) };
    plan.faults.push(Fault { at: broken, lasts: SECOND * 55, what });
    // Its connections are fine until they are closed, again and again: what asks then is cold.
    plan.operations = (0..200).map(|n| (broken + MS * 250 * n, Operation::Evict(0))).collect();
    plan.lasts = SECOND * 60;
    // That nobody connects before the time that callers were told is checked at every event.
    let report = play("broken and evicted", &plan);
    let tries: Vec<Duration> = report.connect_log.iter().map(|&(at, _)| at).filter(|&at| at > broken + MS).collect();
    println!("connects while it is broken: {tries:?}");
    assert!(report.crowd("callers").unavailable > 0);
    assert!((3..=15).contains(&tries.len()), "backoff up to 30 s: {} connects in 55 s", tries.len());
}

#[test]
fn a_caller_that_waits_for_itself_is_told_so_by_its_deadline() {
    let mut selfish = crowd("selfish", Whom::One(0), always(4), Lasts::ms(20));
    (selfish.timeout, selfish.nests) = (MS * 500, 1.0);
    let mut plan = one_crowd(5, 8, selfish);
    plan.crowds.push(crowd("others", Whom::Each(1..5), always(4), Lasts::ms(20)));
    plan.settings.max_connections_per_tenant = 4;
    plan.lasts = SECOND * 20;
    let report = play("four callers hold all four and ask again", &plan);
    let selfish = report.crowd("selfish");
    assert!(selfish.held_by_caller > 0, "they are told");
    assert_eq!(selfish.held_by_caller, selfish.late, "each of them");
    assert_all_served(report.crowd("others"));
    assert!(report.crowd("others").p99() <= MS * 25, "{:?}", report.crowd("others").p99());
}

fn in_the_foreground(mut plan: Plan) -> Plan {
    plan.crowds.iter_mut().for_each(|crowd| crowd.background = false);
    plan
}

#[test]
fn a_sweep_over_all_tenants_leaves_the_busy_ones_their_connections() {
    // Room for 30. Five tenants with three callers each hold 15 of them now and then; a poller visits 200 others each second.
    let pace = Pace::Loop { callers: 15, think: Lasts::Around(MS * 200) };
    let mut plan = one_crowd(205, 30, crowd("busy", Whom::Each(0..5), pace, Lasts::ms(10)));
    let pace = Pace::Loop { callers: 8, think: Lasts::ms(20) };
    let poller = crowd("poller", Whom::InTurn(5..205), pace, Lasts::ms(10));
    plan.crowds.push(Crowd { background: true, ..poller });
    (plan.lasts, plan.measured_from) = (SECOND * 30, 1_000);
    // What is validated is no miss, and no hit at once either.
    plan.settings.validate_after_idle = SECOND * 60;
    plan.check_every = 5_000;
    let report = play("a poller", &plan);
    let sweeps = report.crowd("poller").granted / 200;
    println!("hit ratio {:.4}, {sweeps} sweeps", report.crowd("busy").hit_ratio());
    assert!(report.crowd("busy").hit_ratio() >= 0.99, "{}", report.crowd("busy").hit_ratio());
    assert!(sweeps >= 25, "the poller gets on: {sweeps}");
    let flushing = play("a poller that is no background work", &in_the_foreground(plan));
    assert!(flushing.crowd("busy").hit_ratio() < 0.9, "{}", flushing.crowd("busy").hit_ratio());
}

#[test]
fn at_the_limit_everything_is_in_use() {
    let hold = Lasts::Around(MS * 50);
    let mut plan = one_crowd(100, 40, crowd("all", Whom::Each(0..100), always(200), hold));
    plan.lasts = SECOND * 30;
    plan.measured_from = 200;
    let report = play("200 callers of 100 tenants on 40 connections", &plan);
    println!("busy {:.2}, not idle {:.2} of 40", report.busy, report.occupied);
    assert!(report.occupied >= 39.9, "{} of 40 connections are in use or on their way", report.occupied);
    assert!(report.busy >= 40.0 * 0.9, "{} of 40 connections are with callers", report.busy);
}

#[test]
fn the_last_connection_of_the_budget_is_given_out() {
    // Two tenants that may have 5 each, on 10.
    let mut plan: Plan = one_crowd(2, 10, crowd("all", Whom::Each(0..2), always(10), Lasts::ms(50)));
    plan.lasts = SECOND * 5;
    let report = play("two tenants of five", &plan);
    assert_eq!(report.most_open, 10);
    assert_all_served(report.crowd("all"));
    assert!(report.crowd("all").p99() <= MS * 20, "nobody waits for anybody: {:?}", report.crowd("all").p99());
}

#[test]
fn background_work_goes_on_when_a_user_takes_over_what_it_had_left_idle() {
    let once = |name, tenant, from, background| Crowd {
        from,
        background,
        ..crowd(name, Whom::One(tenant), Pace::Once(1), Lasts::ms(10))
    };
    // Tenants 1 and 3 live on the second server, which takes one connection. Background work may have one in all.
    let mut plan = one_crowd(4, 10, once("opens", 0, Duration::ZERO, true));
    plan.servers.push(Server { cap: Some(1), ..Server::default() });
    plan.crowds.push(once("user", 1, Duration::ZERO, false));
    plan.crowds.push(once("waits", 3, MS * 100, true));
    plan.crowds.push(once("takes over", 0, MS * 200, false));
    (plan.settings.background_share, plan.settings.background_steals_after) = (Some(1), Duration::ZERO);
    (plan.lasts, plan.check_every) = (SECOND * 2, 1);
    let report = play("the share is free again", &plan);
    let waits = report.crowd("waits");
    assert_eq!(waits.granted, 1);
    assert!(waits.p99() <= MS * 110, "it waits for nothing but its share: {:?}", waits.p99());
}
