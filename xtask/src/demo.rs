//! `cargo xtask demo`: runs the example `saas` (`examples/saas/main.rs`), or with `--postgres` the example
//! `saas_postgres` beside a server of its own, and is itself a step of `test.rs`.

use std::process::{Command, ExitCode};

use anyhow::{Result, ensure};

use crate::needs;
use crate::run::{Loudness, Outcome, cargo, must, outcome, program};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// Given to the example as they are; `cargo xtask demo --help` shows them.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Args {
    /// --postgres --tenants 500 --budget 32 --seconds 30 --clients 64 --serve
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

/// Runs the demonstration, built to run fast, and ends as it ends.
pub(crate) fn demo(args: &Args) -> Result<ExitCode> {
    let (postgres, rest): (Vec<&String>, Vec<&String>) = args.rest.iter().partition(|word| *word == "--postgres");
    println!("building the example (some minutes at the first time)");
    let mut command = if postgres.is_empty() {
        cargo("run --quiet --profile demo --package tenantry --features axum,metrics,sqlx-sqlite --example saas --")
    } else {
        let quietly = Loudness { verbose: false };
        needs::ensure_server("postgres", quietly)?;
        let example =
            "build --profile demo --package tenantry --features axum,metrics,sqlx-postgres --example saas_postgres";
        must(&mut cargo(example), quietly)?;
        let around = "build --profile demo --package tenantry-testkit --features postgres-command --bins";
        must(&mut cargo(around), quietly)?;
        beside_postgres("demo")?
    };
    command.args(rest);
    become_it(command)
}

/// The example for PostgreSQL, which is built to that folder, beside a server of its own.
fn beside_postgres(folder: &str) -> Result<Command> {
    let workspace = Workspace::ask()?;
    let mut command = program(workspace.program(folder, "tenantry-with-postgres"), "");
    command.arg(workspace.example(folder, "saas_postgres"));
    Ok(command)
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
    let saas = Workspace::ask()?.example("debug", "saas");
    holds_and_can_fail(|| Ok(program(&saas, "")), loudness)
}

/// The step `demo-postgres`: the same with a server.
pub(crate) fn postgres_step(loudness: Loudness) -> Result<Tally> {
    let build = "build --workspace --all-features --example saas_postgres --bin tenantry-with-postgres";
    must(&mut cargo(build), loudness)?;
    holds_and_can_fail(|| beside_postgres("debug"), loudness)
}

fn holds_and_can_fail(example: impl Fn() -> Result<Command>, loudness: Loudness) -> Result<Tally> {
    must(example()?.args(["--seconds", "5"]), loudness)?;

    let broken = "--tenants 24 --budget 8 --seconds 1 --break-the-budget";
    let Outcome { code, said } = outcome(example()?.args(broken.split(' ')), loudness)?;
    ensure!(
        code == Some(1) && said.contains("THE BUDGET WAS PASSED"),
        "the example with {broken}\nhas one database open outside of the budget and did not say so (exit status {code:?}):\n{said}"
    );
    Ok(Tally::default())
}

/// The step `demo-long`, as a visitor runs it.
pub(crate) fn long_step(loudness: Loudness) -> Result<Tally> {
    let command =
        "run --profile demo --package tenantry --features axum,metrics,sqlx-sqlite --example saas -- --seconds 60";
    must(&mut cargo(command), loudness)?;
    Ok(Tally::default())
}
