//! Those in line who lose what was on its way to them, while nothing may be opened in its place (rules 9 and 10).

use super::rig::Rig;
use super::rules_failures::{FIRST, FULL, fail};
use crate::Health;
use crate::ledger::Refusal;

impl Rig {
    /// The oldest recycling fails.
    fn recycle_failed(&mut self) {
        let (permit, connection) = self.recycles.remove(0);
        self.step(|ledger, now| ledger.recycle_failed(permit, now));
        self.closes.push((permit, connection));
    }
}

#[test]
fn as_many_are_told_as_have_lost_theirs_the_last_ones_first() {
    let mut rig = Rig::with(4, 4);
    let both = [rig.lease("a"), rig.lease("a")];
    fail(&mut rig, FIRST);
    both.into_iter().for_each(|held| rig.release(held, Health::Dirty));
    let [first, second] = [rig.wait("a"), rig.wait("a")];
    rig.recycle_failed();
    assert!(matches!(rig.refusal(second), Refusal::Unavailable { .. }));
    rig.pending(first);
    rig.recycled();
    let _ = rig.granted(first);
}

#[test]
fn a_recycling_that_fails_beside_a_full_server_costs_nobody_their_place() {
    let mut rig = Rig::with(4, 4);
    let held = rig.lease("a");
    let line = [rig.wait("a"), rig.wait("a")];
    rig.open_failed(FULL);
    rig.open_failed(FULL);
    rig.release(held, Health::Dirty);
    rig.recycle_failed();
    for waiter in line {
        rig.pending(waiter);
    }
}
