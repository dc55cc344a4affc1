//! `cargo xtask mutants`: changes the ledger at one place after the other, and expects a test to notice each. What is
//! changed, what is left out as it changes nothing that can be seen, and which tests are run stand in `.cargo/mutants.toml`.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail, ensure};

use crate::run::{Loudness, cargo, must, outcome, program, works};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// The step takes one of so many parts, another one after each commit.
const PARTS: u32 = 96;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A part of them: 3/96 is the fourth of 96, every 96th of all. Without it all are tried, which takes a day
    #[arg(long, value_name = "PART/OF")]
    shard: Option<String>,
    /// Only what this file changes, made by `git diff main`
    #[arg(long, value_name = "FILE")]
    in_diff: Option<String>,
    #[command(flatten)]
    loudness: Loudness,
}

/// The chore.
pub(crate) fn mutants(args: &Args) -> Result<ExitCode> {
    let mut command = command()?;
    command.args(args.shard.iter().flat_map(|shard| ["--shard", shard]));
    command.args(args.in_diff.iter().flat_map(|diff| ["--in-diff", diff]));
    println!("{}", noticed(&mut command, args.loudness)?);
    Ok(ExitCode::SUCCESS)
}

/// The step.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    let commits: u32 =
        must(&mut program("git", "rev-list --count HEAD"), Loudness { verbose: false })?.trim().parse()?;
    let shard = format!("{}/{PARTS}", commits % PARTS);
    let said = noticed(command()?.args(["--shard", &shard]), loudness)?;
    println!("part {shard}: {said}");
    Ok(Tally::default())
}

/// In a copy of the workspace, built as the other suites that run for longer than they take to build.
fn command() -> Result<Command> {
    ensure!(works("cargo", "mutants --version"), "it needs cargo-mutants: cargo install cargo-mutants --locked");
    let target = Workspace::ask()?.target().join("mutants");
    let mut command = cargo("mutants --package tenantry-core --sharding round-robin --no-shuffle --output");
    command.arg(&target).env("CARGO_TARGET_DIR", target.join("build")).env("CARGO_INCREMENTAL", "1");
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "false");
    Ok(command)
}

/// Its last line. A change that makes a test run for ever was noticed by it.
fn noticed(command: &mut Command, loudness: Loudness) -> Result<String> {
    const ALL_CAUGHT: i32 = 0;
    const SOME_NEVER_ENDED: i32 = 3;
    let ended = outcome(command, loudness)?;
    match ended.code {
        Some(ALL_CAUGHT | SOME_NEVER_ENDED) => Ok(ended.said.lines().last().unwrap_or_default().to_owned()),
        _ => bail!("{}", ended.said.trim_end()),
    }
}
