//! `cargo xtask demo`: runs the example `saas` (`examples/saas/main.rs`), and is itself a step of `test.rs`.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::run::{Loudness, Outcome, cargo, must, outcome, program};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// Given to the example as they are; `cargo xtask demo --help` shows them.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// --tenants 500 --budget 32 --seconds 30 --clients 64 --serve
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the demonstration, built to run fast, and ends as it ends.
pub(crate) fn demo(args: &Args) -> Result<ExitCode> {
    let mut command = cargo("run --quiet --profile demo --package tenantry --features sqlx-sqlite --example saas --");
    command.args(&args.rest);
    println!("building the example (a minute or two at the first time)");
    become_it(command)
}

/// Lets the command take this one's place, so that Ctrl-C reaches it alone and its exit status is ours.
#[cfg(unix)]
pub(crate) fn become_it(mut command: std::process::Command) -> Result<ExitCode> {
    use std::os::unix::process::CommandExt;
    Err(command.exec().into())
}

#[cfg(not(unix))]
pub(crate) fn become_it(mut command: std::process::Command) -> Result<ExitCode> {
    let code = command.status()?.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// The step `demo`: it holds, and it can fail. Built as the tests are, so that nothing is compiled twice.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    must(&mut cargo("build --workspace --all-features --example saas"), loudness)?;
    let saas = Workspace::ask()?.example("saas");
    must(&mut program(&saas, "--seconds 5"), loudness)?;

    let broken = "--tenants 24 --budget 8 --seconds 1 --break-the-budget";
    let Outcome { code, said } = outcome(&mut program(&saas, broken), loudness)?;
    ensure!(
        code == Some(1) && said.contains("THE BUDGET WAS PASSED"),
        "$ saas {broken}\nhas one database open outside of the budget and did not say so (exit status {code:?}):\n{said}"
    );
    Ok(Tally::default())
}

/// The step `demo-long`, as a visitor runs it.
pub(crate) fn long_step(loudness: Loudness) -> Result<Tally> {
    let command = "run --profile demo --package tenantry --features sqlx-sqlite --example saas -- --seconds 60";
    must(&mut cargo(command), loudness)?;
    Ok(Tally::default())
}
