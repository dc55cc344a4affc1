//! Waiting for an end: a watcher hears of its own tenant's last permit, and of nobody else's.

use std::task::Waker;

use super::rig::Rig;
use crate::ledger::Watched;
use crate::{FailureKind, Health, ServerId};

impl Rig {
    fn watch(&mut self, tenant: Option<&str>, watched: &mut Watched) -> bool {
        self.step(|ledger, _| ledger.poll_empty(tenant, watched, Waker::noop().clone()))
    }
}

#[test]
fn a_watcher_is_woken_by_the_last_permit_of_its_tenant_and_by_no_other() {
    let mut rig = Rig::with(4, 2);
    let leases = [rig.lease("a"), rig.lease("a"), rig.lease("b")];
    let (mut of_a, mut of_all) = (Watched::default(), Watched::default());
    assert!(!rig.watch(Some("a"), &mut of_a) && !rig.watch(None, &mut of_all));
    let [first, second, others] = leases;
    for (held, woken) in [(first, 0), (others, 0), (second, 2)] {
        rig.wakes = 0;
        rig.release(held, Health::Broken);
        rig.closed();
        assert_eq!(rig.wakes, woken, "the last of `a` is the last of all");
    }
    assert!(rig.watch(Some("a"), &mut of_a) && rig.watch(None, &mut of_all));
    assert!(rig.watch(Some("nobody"), &mut Watched::default()));
}

#[test]
fn somebody_waits_from_the_first_in_line_to_the_last() {
    let mut rig = Rig::with(1, 1);
    let held = rig.lease("a");
    assert!(!rig.ledger.anyone_waits());
    let waiter = rig.wait("a");
    assert!(rig.ledger.anyone_waits());
    rig.cancel(waiter);
    assert!(!rig.ledger.anyone_waits());
    rig.release(held, Health::Clean);
}

#[test]
fn a_permits_server_is_known_for_as_long_as_the_permit() {
    let mut rig = Rig::with(1, 1);
    rig.server_of = |_| ServerId::from("two");
    rig.wait("a");
    let (permit, _) = rig.opens[0].clone();
    assert_eq!(rig.ledger.server_of(permit), Some(ServerId::from("two")));
    rig.open_failed(FailureKind::Unreachable);
    assert_eq!(rig.ledger.server_of(permit), None);
}

#[test]
fn who_stopped_watching_is_not_woken() {
    let mut rig = Rig::with(1, 1);
    let held = rig.lease("a");
    let mut watched = Watched::default();
    assert!(!rig.watch(None, &mut watched));
    rig.step(|ledger, _| ledger.unwatch(&mut watched));
    rig.release(held, Health::Broken);
    rig.closed();
    assert_eq!(rig.wakes, 0);
}
