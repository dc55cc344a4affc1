//! Rule 18: a tenant drains while its database is dropped, and what an operator says meanwhile stands.

use super::rig::Rig;
use crate::ServerId;
use crate::ledger::Refusal;

impl Rig {
    fn drop_begins(&mut self) {
        self.admit("a");
        assert!(self.step(|ledger, now| ledger.drop_begins("a", now)));
    }

    fn drop_ends(&mut self) {
        self.step(|ledger, now| ledger.drop_ends("a", &ServerId::default(), now));
    }

    fn drains(&mut self) -> bool {
        let draining = self.ledger.tenant_stats("a").expect("it is known").draining;
        if draining {
            let refusal = self.refused("a");
            assert!(matches!(refusal, Refusal::Draining), "{refusal:?}");
        }
        draining
    }
}

#[test]
fn a_tenant_drains_until_the_last_drop_of_its_database_ended() {
    let mut rig = Rig::with(4, 4);
    rig.warm_up("a");
    let waiter = rig.wait_pool("a", 4);
    rig.drop_begins();
    let _ = rig.refusal(waiter);
    assert_eq!(rig.closes.len(), 1);
    rig.drop_begins();
    rig.drop_ends();
    assert!(rig.drains(), "another is under way");
    rig.drop_ends();
    assert!(!rig.drains());
}

#[test]
fn a_drain_during_a_drop_outlives_it() {
    let mut rig = Rig::with(4, 4);
    rig.drop_begins();
    rig.step(|ledger, now| ledger.drain("a", now));
    rig.drop_begins();
    rig.drop_ends();
    rig.drop_ends();
    assert!(rig.drains());
    assert!(rig.step(|ledger, now| ledger.resume("a", &ServerId::default(), now)));
    assert!(!rig.drains());
}

#[test]
fn a_resume_during_a_drop_holds_until_the_next_drop_which_drains_to_its_own_end() {
    let mut rig = Rig::with(4, 4);
    rig.drop_begins();
    assert!(rig.step(|ledger, now| ledger.resume("a", &ServerId::default(), now)));
    assert!(!rig.drains());
    rig.drop_begins();
    assert!(rig.drains());
    rig.drop_ends();
    assert!(rig.drains(), "one of the two is under way");
    rig.drop_ends();
    assert!(!rig.drains());
}

#[test]
fn a_tenant_that_was_removed_during_a_drop_stays_removed_and_known_to_its_end() {
    let mut rig = Rig::with(4, 4);
    rig.drop_begins();
    rig.step(|ledger, now| ledger.remove("a", now));
    rig.pass(rig.ledger.settings().tombstone_ttl * 2);
    rig.drop_ends();
    assert!(rig.ledger.tenant_stats("a").expect("it is known").removed);
    rig.pass(rig.ledger.settings().tombstone_ttl * 2);
    assert!(rig.ledger.tenant_stats("a").is_none());
}
