//! A budget of 8, one tenant with 64 callers, 63 tenants with one each. Connects cost 3 ms and closes 1 ms; a hold is 100 ms.
//!
//! One line for all gives the noisy tenant half of everything, and with it the cheapest work: its callers hand their
//! connections to each other, so that only every second grant needs a connect. Whoever shares fairly opens one for nearly
//! every grant; how much of the throughput that costs is the ratio of a connect to a hold, and none of the sharing.

use std::time::Duration;

use tenantry_testkit::sim::{Lasts, Pace, Plan, Report, Whom};

use crate::support::{MS, SECOND, always, crowd, one_crowd, play, play_in_one_line};

const HOLD: Duration = Duration::from_millis(100);

/// All connections come back at the same moments, or one after the other.
const TOGETHER: Lasts = Lasts::Exactly(HOLD);
const SPREAD: Lasts = Lasts::Between(Duration::from_millis(50), Duration::from_millis(150));

/// Quiet callers think for this long between their holds.
fn crowded(hold: Lasts, think: Lasts, handover_bound: Option<Duration>) -> Plan {
    let mut plan = one_crowd(64, 8, crowd("noisy", Whom::One(0), always(64), hold));
    plan.crowds.push(crowd("quiet", Whom::Each(1..64), Pace::Loop { callers: 63, think }, hold));
    plan.settings.max_connections_per_tenant = 8;
    plan.settings.max_connecting = Some(8);
    plan.settings.handover_bound = handover_bound;
    plan.lasts = SECOND * 40;
    plan.measured_from = 64;
    plan
}

const NOW_AND_THEN: Lasts = Lasts::Around(Duration::from_secs(4));

fn assert_throughput(report: &Report, line: &Report) {
    let ratio = report.granted() as f64 / line.granted() as f64;
    println!("throughput: {ratio:.4} of one line's");
    assert!(ratio >= 0.98, "{ratio}");
}

#[test]
fn who_asks_with_64_callers_gets_no_more_than_who_asks_with_one() {
    let plan = crowded(TOGETHER, Lasts::NONE, Some(Duration::ZERO));
    let report = play("all ask always", &plan);
    assert!(report.share("noisy") <= 1.0 / 64.0 + 0.01, "{}", report.share("noisy"));
    assert!(report.crowd("quiet").p99() <= HOLD * 10, "{:?}", report.crowd("quiet").p99());
    assert_throughput(&report, &play_in_one_line(&plan));
}

#[test]
fn who_asks_now_and_then_is_served_with_the_next_connection_that_comes_back() {
    let plan = crowded(TOGETHER, NOW_AND_THEN, Some(Duration::ZERO));
    let report = play("the quiet ask now and then", &plan);
    assert!(report.crowd("quiet").p99() <= HOLD * 3 / 2, "{:?}", report.crowd("quiet").p99());
    assert_throughput(&report, &play_in_one_line(&plan));
}

#[test]
fn handing_over_costs_the_others_no_more_than_its_bound() {
    // Twice what a connect takes, where the bound follows it.
    for (bound, allowed) in [(Some(MS * 5), MS * 5), (Some(HOLD), HOLD), (None, MS * 6)] {
        for hold in [SPREAD, TOGETHER] {
            let title = format!("handover_bound {bound:?}, {hold:?}");
            let busy = play(&format!("{title}, all ask always"), &crowded(hold, Lasts::NONE, bound));
            let busy = busy.crowd("quiet").p99();
            assert!(busy <= HOLD * 10 + allowed, "{title}: {busy:?} where all ask always");
            let calm = play(&format!("{title}, the quiet ask now and then"), &crowded(hold, NOW_AND_THEN, bound));
            let calm = calm.crowd("quiet").p99();
            assert!(calm <= HOLD * 3 / 2 + allowed, "{title}: {calm:?} where the quiet ask now and then");
        }
    }
}

#[test]
fn on_a_large_budget_the_bound_is_no_queue() {
    // 100 connections with holds of 10 ms, all of them with five tenants that have 40 callers each; 400 others ask every
    // two seconds, 200 a second in all. A turn for each of them is 2 % of what comes back.
    let hold = Lasts::Between(MS * 5, MS * 15);
    let mut plan = one_crowd(405, 100, crowd("noisy", Whom::Each(0..5), always(200), hold));
    let pace = Pace::Loop { callers: 400, think: Lasts::Around(SECOND * 2) };
    plan.crowds.push(crowd("quiet", Whom::Each(5..405), pace, hold));
    plan.settings.max_connections_per_tenant = 40;
    (plan.lasts, plan.measured_from) = (SECOND * 4, 1_000);
    plan.check_every = 20_000;
    let report = play("a large budget", &plan);
    let p99 = report.crowd("quiet").p99();
    // A hold, a close, a connect, and the bound of twice a connect.
    assert!(p99 <= MS * (10 + 4 + 6), "{p99:?}");
}
