//! A tenant that moves from one server to another (drain, resume), and what is under way for it meanwhile.

use super::rig::Rig;
use crate::{Health, ServerId};

impl Rig {
    fn move_to(&mut self, tenant: &str, server: &str) {
        self.step(|ledger, now| ledger.drain(tenant, now));
        self.step(|ledger, now| ledger.resume(tenant, &ServerId::from(server), now));
    }
}

#[test]
fn a_connect_under_way_serves_a_tenant_that_has_moved_back_and_no_other() {
    let mut rig = Rig::with(4, 4);
    rig.wait("a");
    rig.move_to("a", "two");
    let waiter = rig.wait("a");
    assert_eq!(rig.opens.len(), 2, "what is opened on the server that it has left is not for its line");
    rig.move_to("a", "");
    let _ = rig.refusal(waiter);
    let waiter = rig.wait("a");
    assert_eq!(rig.opens.len(), 2, "one of the two is on this server");
    rig.opened();
    let held = rig.granted(waiter);
    rig.opened();
    assert_eq!(rig.closes.len(), 1, "the other is on the server that it left last");
    rig.release(held, Health::Clean);
}

#[test]
fn a_cleaning_under_way_serves_a_tenant_that_has_moved_back() {
    let mut rig = Rig::with(4, 4);
    let held = rig.lease("a");
    rig.release(held, Health::Dirty);
    rig.move_to("a", "two");
    rig.move_to("a", "");
    let waiter = rig.wait("a");
    assert_eq!(rig.opens.len(), 0, "it waits for what is being cleaned");
    rig.recycled();
    let _ = rig.granted(waiter);
}
