//! What an observer is told, and how often.

use super::rig::{MS, Rig};
use super::rules_failures::{DOWN, FULL};
use crate::Event;
use crate::observe::Attention;

impl Rig {
    /// The same with somebody who wants to know.
    fn observed(mut self, attention: Attention) -> Self {
        self.ledger.attend(attention);
        self
    }

    fn circuits_opened(&self) -> usize {
        self.told.iter().filter(|event| matches!(event, Event::CircuitOpened { .. })).count()
    }
}

#[test]
fn connects_that_fail_together_are_told_as_one_failure() {
    let mut rig = Rig::with(4, 2).observed(Attention::Rare);
    let _line = [rig.wait("a"), rig.wait("a")];
    rig.open_failed(DOWN);
    rig.open_failed(DOWN);
    assert_eq!(rig.circuits_opened(), 1);
}

#[test]
fn a_failure_while_its_server_is_full_is_told() {
    let mut rig = Rig::with(4, 2).observed(Attention::Rare);
    let _line = [rig.wait("a"), rig.wait("a")];
    rig.open_failed(FULL);
    assert_eq!(rig.circuits_opened(), 0, "that is not its failure");
    rig.open_failed(DOWN);
    assert_eq!(rig.circuits_opened(), 1);
}

#[test]
fn a_circuit_that_no_failure_opened_is_not_told_to_close() {
    let mut rig = Rig::with(4, 2).observed(Attention::Rare);
    rig.wait("a");
    rig.open_failed(FULL);
    rig.pass(MS * 101);
    rig.opened();
    assert!(!rig.told.iter().any(|event| matches!(event, Event::CircuitClosed { .. })), "{:?}", rig.told);
}

#[test]
fn times_are_told_to_those_who_want_to_know_all() {
    for (attention, told) in [(Attention::None, false), (Attention::Rare, false), (Attention::All, true)] {
        assert_eq!(Rig::with(1, 1).observed(attention).ledger.tells_times(), told);
    }
}
