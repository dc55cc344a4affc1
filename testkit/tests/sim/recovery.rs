//! A server that restarts under 50 warm tenants, and outages.

use std::collections::BTreeSet;
use std::time::Duration;

use tenantry_testkit::sim::{Fault, Lasts, Pace, Plan, Report, Trouble, Whom};

use crate::support::{MS, SECOND, assert_all_served, crowd, one_crowd, play};

const RESTART: Duration = Duration::from_secs(20);

/// 50 tenants with a caller each, asking about five times a second; the server is away for `away`.
fn restarted(away: Duration, hangs: bool, sees_closed: bool) -> Plan {
    let pace = Pace::Loop { callers: 50, think: Lasts::Around(MS * 200) };
    let mut plan = one_crowd(50, 60, crowd("callers", Whom::Each(0..50), pace, Lasts::ms(10)));
    plan.crowds[0].timeout = SECOND * 5;
    plan.servers[0].sees_closed = sees_closed;
    plan.faults.push(Fault { at: RESTART, lasts: away, what: Trouble::Down { server: 0, hangs } });
    plan.lasts = SECOND * 60;
    plan
}

/// The default for 60 connections.
const MAX_CONNECTING: u32 = 15;

/// Who was connected to from this moment on, and when the last one was for the first time.
fn back(report: &Report, from: Duration) -> (usize, Duration) {
    let mut seen = BTreeSet::new();
    let mut last = Duration::ZERO;
    for &(at, tenant) in report.connect_log.iter().filter(|(at, _)| *at >= from) {
        if seen.insert(tenant) {
            last = at - from;
        }
    }
    (seen.len(), last)
}

#[test]
fn a_restart_is_no_stampede_and_no_error() {
    for sees_closed in [true, false] {
        let report = play("a restart in no time", &restarted(Duration::ZERO, false, sees_closed));
        let (tenants, last) = back(&report, RESTART);
        println!("{tenants} tenants are back after {last:?}, {} dead connections met", report.met_dead);
        assert!(report.most_connecting <= MAX_CONNECTING, "{} connects at once", report.most_connecting);
        assert_eq!(tenants, 50, "all are back");
        assert_all_served(report.crowd("callers"));
        let met = if sees_closed { 0 } else { 1 };
        assert!(report.met_dead <= met, "{} callers met a dead connection", report.met_dead);
    }
}

#[test]
fn callers_outlast_a_server_that_accepts_slowly() {
    // Connects take a second and a half: longer than a caller's think time, shorter than its patience.
    let mut plan = restarted(Duration::ZERO, false, true);
    plan.faults.push(Fault { at: RESTART, lasts: SECOND * 10, what: Trouble::Slow { server: 0, times: 300.0 } });
    plan.servers[0].connect = Lasts::ms(5);
    let report = play("a restart with slow connects", &plan);
    assert!(report.most_connecting <= MAX_CONNECTING, "{} connects at once", report.most_connecting);
    assert_eq!(back(&report, RESTART).0, 50, "all are back");
    assert_eq!(report.crowd("callers").connect_errors + report.crowd("callers").unavailable, 0);
}

/// How long after the outage the last tenant is back.
fn comes_back(away: Duration, hangs: bool) -> Duration {
    let report = play(&format!("away for {away:?}, connects hang: {hangs}"), &restarted(away, hangs, true));
    let (tenants, last) = back(&report, RESTART + away);
    println!("{tenants} tenants are back {last:?} after an outage of {away:?}");
    assert!(report.most_connecting <= MAX_CONNECTING, "{} connects at once", report.most_connecting);
    assert_eq!(tenants, 50, "all are back");
    last
}

#[test]
fn after_an_outage_of_a_second_all_are_back_within_two() {
    assert!(comes_back(SECOND, false) <= SECOND * 2);
}

#[test]
fn after_an_outage_of_ten_seconds_all_are_back_within_ten() {
    assert!(comes_back(SECOND * 10, false) <= SECOND * 10);
}

#[test]
fn after_an_outage_in_which_connects_hang_all_are_back_within_as_long_and_a_connect() {
    assert!(comes_back(SECOND * 10, true) <= SECOND * 15);
}
