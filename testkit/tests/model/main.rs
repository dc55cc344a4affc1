//! The ledger against a naive reference: any operations in any order, and after each of them both have decided the same.
//!
//! Start with `reference.rs`. It is written from the rules (`core/RULES.md`), naively, and predicts all that can be seen of a
//! command: its reply, which connections are opened, closed and recycled for it, who is woken, and every count. It knows
//! each victim by its name. `operations.rs` and `world.rs` say what is drawn; `driver.rs` plays it on a ledger, recounts that
//! after each command ([`check`](tenantry_core::ledger::Ledger::check)), and sees to it that the ledger drops nobody's
//! connection, error or waker by itself. `found.rs` keeps what came of it.
//!
//! How to read a failure: the first line says which expectation did not hold, the ledger's side on the left and the
//! reference's on the right; a line that begins with a number is an invariant of `check`. Below "minimal failing input" stand
//! the world of the case (its budgets and times) and the shortest sequence of operations found; what an operation acts on is a
//! number modulo what exists. `PROPTEST_VERBOSE=1` prints each command as it is resolved, with what must come of it. Where
//! the two disagree, the rules decide who is wrong; where they leave it open, the reference follows the ledger and says so.
//! Put the sequence into `found.rs`, named by what holds: the seed in `proptest-regressions.txt` dies with the next change of
//! a strategy.
//!
//! The same 300 cases run each time, as a gate must say the same twice, and the first 10,000 of them in `cargo xtask model`;
//! `PROPTEST_CASES=10000` draws as many new ones.

mod compare;
mod driver;
mod expectation;
mod found;
mod operations;
mod reference;
mod world;

use proptest::prelude::*;
use proptest::test_runner::{FileFailurePersistence, RngSeed};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use self::driver::Driver;
use self::operations::{Step, any_step};
use self::reference::Reference;
use self::world::any_world;

impl ReferenceStateMachine for Reference {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        any_world().prop_map(Self::new).boxed()
    }

    fn transitions(reference: &Self) -> BoxedStrategy<Step> {
        any_step(reference.exists())
    }

    fn apply(reference: Self, step: &Step) -> Self {
        Self::apply(reference, step.0)
    }
}

struct Model;

impl StateMachineTest for Model {
    type SystemUnderTest = Driver;
    type Reference = Reference;

    fn init_test(reference: &Reference) -> Driver {
        let mut driver = Driver::new(&reference.world);
        play(&mut driver, reference);
        driver
    }

    fn apply(mut driver: Driver, reference: &Reference, _: Step) -> Driver {
        play(&mut driver, reference);
        driver
    }

    fn check_invariants(driver: &Driver, reference: &Reference) {
        compare::same_statistics(driver, reference);
    }
}

fn play(driver: &mut Driver, reference: &Reference) {
    let verbose = std::env::var_os("PROPTEST_VERBOSE").is_some_and(|level| level != "0");
    for call in &reference.calls {
        if verbose {
            eprintln!("{:?}: {call:?}", reference.now);
        }
        driver.play(call, reference.now);
    }
}

fn config() -> ProptestConfig {
    let drawn = ProptestConfig::default();
    let (cases, rng_seed) = match std::env::var_os("PROPTEST_CASES") {
        Some(_) => (drawn.cases, drawn.rng_seed),
        None => {
            let asked = std::env::var("TENANTRY_MODEL_CASES");
            (asked.map_or(300, |cases| cases.parse().expect("a number of cases")), RngSeed::Fixed(1))
        }
    };
    let regressions = FileFailurePersistence::Direct("tests/model/proptest-regressions.txt");
    ProptestConfig {
        cases,
        rng_seed,
        failure_persistence: Some(Box::new(regressions)),
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    }
}

prop_state_machine! {
    #![proptest_config(config())]

    #[test]
    fn the_ledger_and_the_reference_decide_the_same(sequential 1..80 => Model);
}
