//! The rules of a server that says it is full, as time passes (rule 10).

use std::time::Duration;

use super::rig::{MS, Rig};
use super::rules_failures::{FULL, effective};
use crate::Health;

#[test]
fn a_server_counts_as_full_until_it_has_not_said_so_for_half_a_minute() {
    let mut rig = Rig::with(10, 1);
    let _out: Vec<_> = (0..3).map(|n| rig.lease(&format!("out-{n}"))).collect();
    for tenant in ["a", "b"] {
        rig.wait(tenant);
    }
    rig.open_failed(FULL);
    rig.open_failed(FULL);
    rig.pass(Duration::from_secs(20));
    assert_eq!((effective(&rig), rig.opens.len()), (4, 1), "a probe");
    rig.open_failed(FULL);
    rig.pass(Duration::from_secs(30) - MS);
    assert_eq!(effective(&rig), 4, "half a minute after the first time, not after the last");
    rig.pass(MS);
    assert_eq!(effective(&rig), 10);
}

#[test]
fn a_recycling_that_fails_beside_a_full_server_costs_nobody_their_place() {
    let mut rig = Rig::with(4, 4);
    let held = rig.lease("a");
    let line = [rig.wait("a"), rig.wait("a")];
    rig.open_failed(FULL);
    rig.open_failed(FULL);
    rig.release(held, Health::Dirty);
    let (permit, _connection) = rig.recycles.remove(0);
    rig.step(|ledger, now| ledger.recycle_failed(permit, now));
    for waiter in line {
        rig.pending(waiter);
    }
}
