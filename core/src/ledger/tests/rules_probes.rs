//! When the manager finds out by a connect of its own whether a tenant is back, and when it must not (rule 9).

use std::time::Duration;

use super::rig::Rig;
use super::rules_failures::{DOWN, FIRST, fail};

#[test]
fn no_probe_is_made_beside_a_connect_that_is_under_way() {
    let mut rig = Rig::with(4, 2);
    let line = [rig.wait("a"), rig.wait("a")];
    rig.open_failed(DOWN);
    line.into_iter().for_each(|waiter| drop(rig.refusal(waiter)));
    let _ = rig.refused("a");
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.opens.len(), 1, "the other of the two");
}

#[test]
fn no_probe_passes_a_cap_that_was_lowered() {
    let mut rig = Rig::with(4, 2);
    let _out = rig.lease("a");
    fail(&mut rig, FIRST);
    let _ = rig.refused("a");
    let mut lower = rig.ledger.settings().clone();
    lower.max_connections_per_tenant = 1;
    rig.step(|ledger, now| ledger.set_limits(lower, now));
    rig.pass(Duration::from_secs(1));
    assert_eq!(rig.opens.len(), 0);
}
