//! `cargo xtask bench`: tenantry beside what one would write instead, in one run. Writes `BENCHMARKS.md`.
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark measures and tells")]

mod contenders;
mod fairness;
mod floor;
mod ledger_only;
mod measure;
mod memory_only;
mod postgres;
mod table;

use std::alloc::System;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

/// Counts allocations, and weighs what is held.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Warm,
    Crowds,
    Churn,
    Memory,
    Scale,
    Fairness,
    Postgres,
    Service,
    Clients,
}

#[derive(Parser)]
#[command(name = "cargo xtask bench")]
struct Args {
    /// Measures these alone, and prints them instead of writing the report
    #[arg(long, value_delimiter = ',')]
    only: Vec<Section>,
    /// Rounds of each workload in memory
    #[arg(long, default_value_t = 21)]
    rounds: usize,
    /// Seconds of each part of the service's traffic, in all its rounds
    #[arg(long, default_value_t = 6)]
    seconds: u64,
    /// Runs one contender's warm path alone, for a tool that counts instructions
    #[arg(long, num_args = 2, value_names = ["CONTENDER", "TIMES"], hide = true)]
    warm_only: Vec<usize>,
}

impl Args {
    fn measure(&self, section: Section) -> Result<String> {
        Ok(match section {
            Section::Warm => memory_only::warm(self.rounds),
            Section::Crowds => memory_only::crowds(self.rounds),
            Section::Churn => memory_only::churns(self.rounds),
            Section::Memory => memory_only::memory(),
            Section::Scale => memory_only::scale(self.rounds),
            Section::Fairness => fairness::fairness(),
            Section::Postgres => postgres::warm()?,
            Section::Service => postgres::service(self.seconds)?,
            Section::Clients => postgres::clients(self.seconds)?,
        })
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    if let [contender, times] = args.warm_only[..] {
        memory_only::warm_only(contender, times);
        return Ok(());
    }
    let all = args.only.is_empty();
    let mut report =
        include_str!("report.md").replace("{machine}", &table::machine()).replace("{versions}", &table::versions());
    let start = Instant::now();
    for section in Section::value_variants() {
        if !all && !args.only.contains(section) {
            continue;
        }
        let name = section.to_possible_value().context("every section has a name")?.get_name().to_owned();
        println!("{name}, after {} s", start.elapsed().as_secs());
        let measured = args.measure(*section)?;
        println!("{measured}");
        report = report.replace(&format!("{{{name}}}"), measured.trim());
    }
    if all {
        report = report.replace("{minutes}", &format!("{:.0}", start.elapsed().as_secs_f64() / 60.0));
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../BENCHMARKS.md"), report)?;
    }
    Ok(())
}
