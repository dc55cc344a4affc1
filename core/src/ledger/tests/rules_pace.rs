//! How fast connections come back, as a number: what those who are refused are told by (rule 19).

use std::time::Duration;

use super::rig::MS;
use crate::ledger::Moment;
use crate::ledger::pace::Pace;

/// A pace that is told of returns, and when the last of them was.
#[derive(Default)]
struct Returning(Pace, Duration);

impl Returning {
    fn every(mut self, apart: Duration, times: u32) -> Self {
        for _ in 0..times {
            self.1 += apart;
            self.0.came_back(Moment::from(self.1).nanos());
        }
        self
    }

    /// What the first in line is told, who was told nothing before.
    fn average(mut self) -> Option<Duration> {
        self.0.estimate(1, Moment::from(self.1))
    }
}

#[test]
fn sixteen_returns_count_in_full_and_fewer_beside_the_average_before_them() {
    let steady = || Returning::default().every(MS * 100, 65);
    assert_eq!(steady().average(), Some(MS * 100));
    assert_eq!(steady().every(MS * 10, 16).average(), Some(MS * 10), "nothing is left of what was before");
    assert_eq!(steady().every(MS * 20, 4).average(), Some(MS * 80), "a quarter of it is new");
}

#[test]
fn of_many_returns_the_last_ones_count() {
    let later = Returning::default().every(MS * 100, 65).every(MS * 10, 64).every(MS * 50, 16);
    assert_eq!(later.average(), Some(MS * 50));
}

#[test]
fn nothing_is_known_before_two_came_back() {
    assert_eq!(Returning::default().average(), None);
    assert_eq!(Returning::default().every(MS, 1).average(), None);
    assert_eq!(Returning::default().every(MS, 2).average(), Some(MS));
}
