//! `cargo xtask bench`: builds and runs `testkit/bench/`, which plays tenantry and what one would write instead in one run,
//! and writes `BENCHMARKS.md`. How long things take decides nothing: the step `bench` only looks whether it still compiles.

use std::process::ExitCode;

use anyhow::Result;

use crate::demo::become_it;
use crate::needs::{self, ensure_server};
use crate::run::{Loudness, cargo, must};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// Given to the benchmarks as they are; `cargo xtask bench --help` shows them.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// --only warm,churn | --rounds 21 --seconds 6
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs it, and ends as it ends.
pub(crate) fn bench(args: &Args) -> Result<ExitCode> {
    let loudness = Loudness { verbose: false };
    ensure_server("postgres", loudness)?;
    needs::VALGRIND.ensure(loudness)?;
    needs::PGBOUNCER.ensure(loudness)?;
    let mut command = cargo("run --quiet --release --manifest-path testkit/bench/Cargo.toml --");
    // It is no member of the workspace, and shares its folder all the same.
    command.args(&args.rest).env("CARGO_TARGET_DIR", Workspace::ask()?.target());
    become_it(command)
}

/// The step `bench`.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    let mut clippy = cargo("clippy --manifest-path testkit/bench/Cargo.toml -- -D warnings");
    must(clippy.env("CARGO_TARGET_DIR", Workspace::ask()?.target()), loudness)?;
    must(&mut cargo("fmt --check --manifest-path testkit/bench/Cargo.toml"), loudness)?;
    Ok(Tally::default())
}
