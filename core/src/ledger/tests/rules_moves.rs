//! A tenant that moves from one server to another (drain, resume), and what is under way for it meanwhile.

use super::rig::Rig;
use crate::ledger::{Failure, WaiterKey};
use crate::stats::CircuitState;
use crate::{FailureKind, Health, ServerId};

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

/// One of `a` waits for a connect on its new server, one on the old server is still under way: that is the oldest.
fn left_behind() -> (Rig, WaiterKey) {
    let mut rig = Rig::with(4, 4);
    rig.wait("a");
    rig.move_to("a", "two");
    let waiter = rig.wait("a");
    assert_eq!(rig.opens.len(), 2);
    (rig, waiter)
}

#[test]
fn a_connect_that_fails_on_the_server_that_was_left_is_no_news_of_the_new_one() {
    for kind in [FailureKind::Unreachable, FailureKind::Auth, FailureKind::ServerFull] {
        let (mut rig, waiter) = left_behind();
        rig.open_failed(kind);
        rig.pending(waiter);
        let stats = rig.ledger.tenant_stats("a").expect("it is known");
        assert_eq!(stats.circuit, CircuitState::Closed, "{kind:?}");
        assert_eq!(stats.totals.connect_failures, 1, "it is counted all the same");
        rig.opened();
        let _ = rig.granted(waiter);
    }
    let (mut rig, waiter) = left_behind();
    for failure in [Failure::TimedOut, Failure::Panicked] {
        let (permit, _) = rig.opens.remove(0);
        rig.step(|ledger, now| ledger.open_failed(permit, failure, 0, now));
        if rig.opens.len() == 1 {
            rig.pending(waiter);
        }
    }
    let _ = rig.refusal(waiter);
}

#[test]
fn a_connect_that_succeeds_on_the_server_that_was_left_is_no_news_of_the_new_one() {
    let (mut rig, _) = left_behind();
    let old = rig.opens.remove(0);
    rig.open_failed(FailureKind::Unreachable);
    let _ = rig.refused("a");
    rig.opens.push(old);
    rig.opened();
    let _ = rig.refused("a");
}

#[test]
fn a_server_that_was_left_is_full_although_it_said_so_to_one_that_left() {
    let (mut rig, _) = left_behind();
    rig.wait("b");
    let b = rig.opens.pop().expect("b's connect");
    rig.open_failed(FailureKind::ServerFull);
    rig.opens.insert(0, b);
    rig.open_failed(FailureKind::ServerFull);
    let stats = rig.ledger.stats();
    let server = stats.servers.iter().find(|server| server.server == ServerId::default()).expect("it is known");
    assert_eq!(server.effective_max, 0, "two were told, and nothing is open");
}
