//! `cargo xtask loom`: the models of `testkit/tests/loom`, in every order that their threads can have.

use std::process::Command;

use anyhow::{Result, ensure};

use crate::run::{Loudness, cargo, must, works};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// With the planted bugs of `seeded.rs` in it, all off: one build serves both steps.
pub(crate) const FLAGS: &str = "--cfg tenantry_loom --cfg tenantry_seeded";
pub(crate) const FOLDER: &str = "loom";

/// The step, and the chore. A hung model is what nextest's time limit is for; `cargo test` waits.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    let runner = if works("cargo", "nextest --version") { "nextest run" } else { "test" };
    let mut models = cargo(&format!("{runner} --no-fail-fast --package tenantry-testkit --test loom"));
    let tally = Tally::read(&must(built_apart(&mut models, FOLDER, FLAGS)?, loudness)?);
    ensure!(!tally.is_empty(), "not one model ran");
    Ok(tally)
}

/// Makes a cargo command build into a folder of its own below the target folder, with flags that nothing else is built
/// with. Optimised a little, as its tests run for much longer than they take to build.
pub(crate) fn built_apart<'a>(command: &'a mut Command, folder: &str, flags: &str) -> Result<&'a mut Command> {
    command.env("CARGO_TARGET_DIR", Workspace::ask()?.target().join(folder)).env("RUSTFLAGS", flags);
    command.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_PROFILE_DEV_DEBUG", "line-tables-only");
    Ok(command.env_remove("TENANTRY_FAULT"))
}
