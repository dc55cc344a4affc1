//! Plans that several tests begin with, and how they are played.

use std::time::Duration;

use tenantry_testkit::sim::{Crowd, Lasts, Measures, Pace, Plan, Report, Whom};

pub(crate) const MS: Duration = Duration::from_millis(1);
pub(crate) const SECOND: Duration = Duration::from_secs(1);

/// Ask, hold, and ask again at once.
pub(crate) const fn always(callers: u32) -> Pace {
    Pace::Loop { callers, think: Lasts::NONE }
}

/// Callers that come at random, so many a second.
pub(crate) const fn arrivals(per_second: f64) -> Pace {
    Pace::Arrivals { per_second, bursts: None }
}

/// A plan of one crowd. The ledger recounts itself now and then; `itself.rs` has it do so at every event.
pub(crate) fn one_crowd(tenants: u32, budget: u32, crowd: Crowd) -> Plan {
    let mut plan = Plan::new(1, tenants, budget);
    plan.crowds.push(crowd);
    plan.check_every = 200;
    plan
}

/// So many callers for as many tenants, each waiting for a minute.
pub(crate) fn crowd(name: &'static str, tenants: Whom, pace: Pace, hold: Lasts) -> Crowd {
    Crowd { timeout: SECOND * 60, ..Crowd::new(name, tenants, pace, hold) }
}

/// Plays it with the real ledger; it must hold.
pub(crate) fn play(title: &str, plan: &Plan) -> Report {
    let report = plan.run().unwrap_or_else(|violation| panic!("{title}: {violation}"));
    println!("{title}: {report}");
    report
}

/// Plays it with one line for all in the ledger's place.
pub(crate) fn play_in_one_line(plan: &Plan) -> Report {
    let report = plan.run_in_one_line().unwrap_or_else(|violation| panic!("one line: {violation}"));
    println!("one line for all: {report}");
    report
}

/// Nobody was told anything but a connection.
pub(crate) fn assert_all_served(crowd: &Measures) {
    assert_eq!(crowd.refused(), 0, "{} was refused", crowd.name);
    assert!(crowd.granted > 0, "{} was served", crowd.name);
}
