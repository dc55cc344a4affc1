//! One command per chore, with cargo alone:
//! `cargo xtask quick | test | conformance | model | loom | seeded | mutants | guard | bench | sim | demo`.
//! Each chore is a file of this folder; what `quick` and `test` run is the table in `test.rs`.
#![allow(clippy::print_stdout, reason = "a command's lines are for the person who ran it")]

use std::process::ExitCode;

use clap::Parser;

mod bench;
mod conformance;
mod demo;
mod features;
mod guard;
mod loom;
mod model;
mod mutants;
mod needs;
mod run;
mod seeded;
mod sim;
mod tally;
mod test;
mod workspace;

/// The chores of this workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask", disable_help_subcommand = true)]
enum Chore {
    /// What to run after each change: format, clippy and tests of the core and the testkit
    Quick(run::Loudness),
    /// Everything that must pass
    Test(test::Args),
    /// The models of the manager's threads, in every order that these can have
    Loom(run::Loudness),
    /// The ledger against a naive reference that decides everything a second time
    Model(model::Args),
    /// The suite for drivers and their load at an exact limit, on every driver and database here, as one table
    Conformance(run::Loudness),
    /// Bugs planted on purpose, each of which some suite must notice
    Seeded(run::Loudness),
    /// The ledger, changed at one place after the other: some test must notice each change
    Mutants(mutants::Args),
    /// Instructions and allocations of an operation, against bounds
    Guard(run::Loudness),
    /// tenantry beside what one would write instead, in one run; writes `BENCHMARKS.md`
    Bench(bench::Args),
    /// The example `saas`: 500 tenants' databases under a budget of 32 connections, with real HTTP clients
    Demo(demo::Args),
    /// Hours of the manager's life in seconds: the real ledger under virtual time, with crowds, failing servers and operators
    Sim(sim::Args),
}

fn main() -> ExitCode {
    let ended = match Chore::parse() {
        Chore::Quick(loudness) => test::quick(&loudness),
        Chore::Test(args) => test::test(&args),
        Chore::Loom(loudness) => test::one("loom", &loudness),
        Chore::Model(args) => model::model(&args),
        Chore::Conformance(loudness) => conformance::conformance(&loudness),
        Chore::Seeded(loudness) => test::one("seeded", &loudness),
        Chore::Mutants(args) => mutants::mutants(&args),
        Chore::Guard(loudness) => test::one("guard", &loudness),
        Chore::Bench(args) => bench::bench(&args),
        Chore::Demo(args) => demo::demo(&args),
        Chore::Sim(args) => sim::sim(&args),
    };
    ended.unwrap_or_else(|error| {
        eprintln!("{error:#}");
        ExitCode::FAILURE
    })
}
