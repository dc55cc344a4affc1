//! `cargo xtask sim`: runs the simulation (`testkit/src/sim.rs`), and is itself a step of `test.rs`.

use std::process::ExitCode;
use std::thread;

use anyhow::{Result, bail};

use crate::demo::become_it;
use crate::run::{Loudness, cargo, must, program};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// Given to the simulation as they are; `cargo xtask sim --help` shows them.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// --seed 1 --tenants 100000 --hours 1 | --scale
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

const RUN: &str = "run --quiet --release --package tenantry-testkit --features sim-command --bin tenantry-sim --";

/// Runs the simulation, built to run fast, and ends as it ends.
pub(crate) fn sim(args: &Args) -> Result<ExitCode> {
    let mut command = cargo(RUN);
    command.args(&args.rest);
    become_it(command)
}

/// The step `sim`: small worlds with a recount at nearly every event, and a large one. Built as the tests are, so that
/// nothing is compiled twice and the ledger's own assertions are on.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    must(&mut cargo("build --workspace --all-features --bins"), loudness)?;
    let sim = Workspace::ask()?.binary("tenantry-sim");
    let worlds = [
        "--seed 1 --runs 12 --tenants 12 --hours 0.001",
        "--seed 13 --runs 12 --tenants 12 --hours 0.001",
        "--seed 1 --tenants 100000 --hours 0.01",
    ];
    // Each takes one core.
    let played = thread::scope(|scope| {
        let worlds = worlds.map(|world| scope.spawn(|| must(&mut program(&sim, world), loudness)));
        worlds.map(|world| world.join().unwrap_or_else(|_| bail!("a thread of the step ended by a panic")))
    });
    played.into_iter().try_for_each(|world| world.map(drop))?;
    Ok(Tally::default())
}

/// The step `sim-long`: seeds that nobody has played before.
pub(crate) fn long_step(loudness: Loudness) -> Result<Tally> {
    let sizes =
        ["--runs 300 --tenants 40 --hours 0.01", "--tenants 1000 --hours 4", "--runs 5 --tenants 100000 --hours 0.5"];
    for size in sizes {
        must(&mut cargo(&format!("{RUN} {size}")), loudness)?;
    }
    Ok(Tally::default())
}
