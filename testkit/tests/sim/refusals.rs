//! A "no" that helps: it comes in time, and says when to come again.

use std::time::Duration;

use tenantry_testkit::sim::{Bursts, Lasts, Pace, Report, Retries, Whom};

use crate::support::{MS, SECOND, crowd, one_crowd, play};

#[test]
fn of_200_at_once_each_is_served_or_told_when_to_come_again() {
    for (max_waiters, timeout) in [(50, SECOND), (1_000, MS * 120), (1_000, SECOND * 5), (0, SECOND)] {
        let mut crowd = crowd("callers", Whom::Each(0..200), Pace::Once(200), Lasts::ms(50));
        crowd.timeout = timeout;
        let mut plan = one_crowd(200, 10, crowd);
        plan.settings.max_waiters = max_waiters;
        plan.settings.max_waiters_per_tenant = max_waiters;
        plan.lasts = SECOND * 10;
        let report = play(&format!("200 at once, {max_waiters} may wait for {timeout:?}"), &plan);
        let callers = report.crowd("callers");
        assert_eq!(callers.granted + callers.late + callers.no_place, 200, "served or refused, nothing else");
        assert_eq!(callers.unguided, 0, "everybody is told when");
        assert!(callers.granted >= 2, "where nobody may wait, those are served for whom a connect may begin");
        if timeout == SECOND * 5 {
            assert_eq!(callers.granted, 200, "all who have the time are served");
        }
    }
}

fn tides(max_waiters: u32, timeout: Duration) -> Report {
    let bursts = Bursts { every: Lasts::Around(SECOND * 6), last: Lasts::Exactly(SECOND), times: 6.0 };
    let pace = Pace::Arrivals { per_second: 60.0, bursts: Some(bursts) };
    let mut crowd = crowd("callers", Whom::Zipf(0..40, 0.8), pace, Lasts::Between(MS * 25, MS * 75));
    (crowd.timeout, crowd.retries) = (timeout, Retries::AsTold(10));
    let mut plan = one_crowd(40, 8, crowd);
    plan.settings.max_waiters = max_waiters;
    plan.settings.max_waiters_per_tenant = max_waiters;
    plan.lasts = SECOND * 90;
    play(&format!("bursts, {max_waiters} may wait for {timeout:?}"), &plan)
}

#[test]
fn most_who_come_again_as_told_are_served_at_their_first_retry() {
    for (max_waiters, timeout) in [(16, SECOND * 5), (64, SECOND * 5), (1_000, MS * 100), (1_000, MS * 400)] {
        let report = tides(max_waiters, timeout);
        let callers = report.crowd("callers");
        let served = callers.first_retries_served as f64 / callers.first_retries as f64;
        println!("{} came again, {served:.3} of them were served at once", callers.first_retries);
        assert!(callers.first_retries > 100, "there were refusals to speak of: {}", callers.first_retries);
        assert!(served > 0.6, "{max_waiters} waiters, {timeout:?}: {served}");
    }
}
