//! `cargo xtask conformance`: what the suite for drivers says of each, and what a server that limits sees of each at an exact
//! limit. The tests run in `cargo xtask test` too; this prints what they measured.

use std::process::ExitCode;

use anyhow::{Result, ensure};

use crate::needs::SERVERS;
use crate::run::{Loudness, cargo, outcome};

/// The driver and the database of each backend, as its tests name it.
const BACKENDS: [&str; 6] =
    ["sqlx, PostgreSQL", "sqlx, MariaDB", "sqlx, SQLite", "diesel, PostgreSQL", "diesel, MariaDB", "diesel, SQLite"];

/// What a test's line begins with, the heading above those lines, and the backends that must have one.
const TABLES: [(&str, &str, &[&str]); 2] = [
    ("conformance: ", "the suite for drivers", &BACKENDS),
    ("hard cap: ", "at an exact limit of the server's", &[BACKENDS[0], BACKENDS[1], BACKENDS[3], BACKENDS[4]]),
];

/// The tests that print them, in nextest's words.
const TESTS: &str = "binary(/_(conformance|load)$/)";

/// Runs the tests and prints the tables.
pub(crate) fn conformance(loudness: &Loudness) -> Result<ExitCode> {
    for server in SERVERS {
        server.ensure(*loudness)?;
    }
    // As the step `tests` builds them, so that nothing is built twice.
    let mut tests = cargo("nextest run --no-fail-fast --workspace --all-features --tests --success-output final");
    tests.args(["--filterset", TESTS]);
    let ran = outcome(&mut tests, *loudness)?;
    let mut missing = Vec::new();
    for (mark, heading, backends) in TABLES {
        println!("{heading}");
        for backend in backends {
            let of_this = |line: &&str| line.trim_start().starts_with(&format!("{mark}{backend}: "));
            let lines: Vec<&str> = ran.said.lines().filter(of_this).collect();
            for line in &lines {
                let said = line.trim_start().trim_start_matches(mark).trim_start_matches(backend);
                println!("  {backend:20}{}", said.trim_start_matches(": "));
            }
            if lines.is_empty() {
                println!("  {backend:20}NOTHING");
                missing.push(format!("{mark}{backend}"));
            }
        }
    }
    ensure!(ran.code == Some(0), "{}", ran.said.trim_end());
    ensure!(missing.is_empty(), "no test said: {}", missing.join("; "));
    Ok(ExitCode::SUCCESS)
}
