//! The rules of a server that says it is full, as time passes (rule 10).

use std::time::Duration;

use super::rig::{MS, Rig};
use super::rules_failures::{FULL, effective};

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
fn what_is_still_being_opened_is_no_part_of_what_a_full_server_takes() {
    let mut rig = Rig::with(10, 1);
    for tenant in ["a", "b", "c", "d"] {
        rig.wait(tenant);
    }
    rig.open_failed(FULL);
    rig.open_failed(FULL);
    assert_eq!(effective(&rig), 0);
    rig.opened();
    assert_eq!((effective(&rig), rig.opens.len()), (1, 1), "that of `d` may yet be refused");
}

#[test]
fn a_full_servers_statistics_say_how_long_it_rests() {
    let mut rig = Rig::with(10, 1);
    let rests = |rig: &Rig| rig.ledger.stats().servers[0].full;
    for tenant in ["a", "b"] {
        rig.wait(tenant);
    }
    rig.open_failed(FULL);
    assert_eq!(rests(&rig), None, "one tenant alone may have its own limit");
    rig.open_failed(FULL);
    assert_eq!(rests(&rig), Some(MS), "the shortest backoff");
    rig.pass(MS);
    assert_eq!(rests(&rig), Some(Duration::ZERO), "it is tried");
}
