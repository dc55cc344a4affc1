//! `cargo xtask model`: the ledger against its naive reference (`testkit/tests/model`), in many more cases than the tests draw.

use std::process::ExitCode;

use anyhow::Result;

use crate::loom::built_apart;
use crate::run::{Loudness, cargo, must};
use crate::seeded;
use crate::tally::Tally;

/// What the step plays.
const CASES: u32 = 10_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How many cases; the same ones each time, the first ones first
    #[arg(long, default_value_t = CASES)]
    cases: u32,
    /// Draws as many that nobody has played before instead
    #[arg(long)]
    new: bool,
    #[command(flatten)]
    loudness: Loudness,
}

pub(crate) fn model(args: &Args) -> Result<ExitCode> {
    let count = if args.new { "PROPTEST_CASES" } else { "TENANTRY_MODEL_CASES" };
    play(count, args.cases, args.loudness)?;
    Ok(ExitCode::SUCCESS)
}

/// The step `model`.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    play("TENANTRY_MODEL_CASES", CASES, loudness)
}

/// Built with the seeded faults, all off, as those need the same tests in the same build.
fn play(count: &str, cases: u32, loudness: Loudness) -> Result<Tally> {
    let mut tests = cargo("test --package tenantry-testkit --test model");
    let tests = built_apart(&mut tests, seeded::FOLDER, seeded::FLAGS)?;
    Ok(Tally::read(&must(tests.env(count, cases.to_string()), loudness)?))
}
