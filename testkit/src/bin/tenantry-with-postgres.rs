//! Runs a program beside a PostgreSQL server that is there for it alone, named by `DATABASE_URL`: behind
//! `cargo xtask demo --postgres`.

use std::process::ExitCode;

#[cfg(unix)]
#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    with_server().await.unwrap_or_else(|error| {
        eprintln!("{error}");
        ExitCode::from(2)
    })
}

#[cfg(unix)]
async fn with_server() -> Result<ExitCode, Box<dyn std::error::Error>> {
    let mut words = std::env::args_os().skip(1);
    let program = words.next().ok_or("usage: tenantry-with-postgres PROGRAM [ARGUMENT]...")?;
    // Ctrl-C is for the program; the server goes after it.
    let _ctrl_c = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())?;
    let server = tenantry_testkit::PrivatePostgres::new()?;
    let mut program = tokio::process::Command::new(program);
    let status = program.args(words).env("DATABASE_URL", server.url("postgres")).status().await?;
    let code = status.code().and_then(|code| u8::try_from(code).ok());
    Ok(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

#[cfg(not(unix))]
fn main() -> ExitCode {
    eprintln!("private servers need a Unix system");
    ExitCode::from(2)
}
