//! `cargo xtask sim`: plays the simulation of `testkit/src/sim.rs` and says what it showed, or what did not hold and how to see
//! it again. `scale.rs` is its `--scale`,
//! `statistics.rs` its `--statistics`.
#![allow(clippy::print_stdout, reason = "a command's lines are for the person who ran it")]

mod scale;
mod statistics;

use std::alloc::System;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tenantry_testkit::sim::{Plan, Report, Violation};

/// Counts what is held, for `--scale`.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Plays hours of a manager's life in seconds, with the real ledger.
#[derive(Parser)]
#[command(name = "cargo xtask sim")]
struct Args {
    /// Where all chance comes from; drawn where it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// How many tenants there are
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    tenants: u32,
    /// How long callers come, in the simulation's hours
    #[arg(long, default_value_t = 0.25)]
    hours: f64,
    /// How many seeds, one after the other
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// After how many events the ledger recounts itself; as often as is bearable where it is not given
    #[arg(long)]
    check_every: Option<u64>,
    /// How many events are shown where something does not hold
    #[arg(long, default_value_t = 60)]
    last: usize,
    /// Plays every run a second time and compares
    #[arg(long)]
    twice: bool,
    /// Shows each run and not only what they were together
    #[arg(long)]
    each: bool,
    /// Measures instead what operations cost, and tenants weigh, at 1,000 to 1,000,000 tenants
    #[arg(long)]
    scale: bool,
    /// Measures instead how long statistics of 100,000 tenants hold the lock, and what acquires cost meanwhile
    #[arg(long)]
    statistics: bool,
}

impl Args {
    fn plan(&self, seed: u64) -> Plan {
        let mut plan = Plan::chaos(seed, self.tenants, Duration::from_secs_f64(self.hours * 3600.0));
        plan.last_events = self.last;
        plan.check_every = self.check_every.unwrap_or(plan.check_every);
        plan
    }

    fn play(&self, seed: u64) -> Result<Report, Violation> {
        let plan = self.plan(seed);
        let report = plan.run()?;
        if self.twice {
            let again = plan.run()?;
            if report.digest != again.digest {
                let what = format!("two runs gave two digests, this and {:016x}", again.digest);
                let Report { seed, events: event, simulated: at, digest, .. } = report;
                return Err(Violation { seed, event, at, what, last: Vec::new(), digest });
            }
        }
        Ok(report)
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.scale {
        scale::scale();
        return ExitCode::SUCCESS;
    }
    if args.statistics {
        statistics::statistics();
        return ExitCode::SUCCESS;
    }
    // A violation is told once, at the end.
    std::panic::set_hook(Box::new(|_| {}));
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let start = now();
    let (mut simulated, mut events, mut checks, mut digest) = (Duration::ZERO, 0, 0, 0_u64);
    for seed in seed..seed + args.runs {
        match args.play(seed) {
            Ok(report) => {
                simulated += report.simulated;
                events += report.events;
                checks += report.checks;
                digest = digest.rotate_left(1) ^ report.digest;
                if args.each || args.runs == 1 {
                    print!("{report}");
                }
            }
            Err(violation) => {
                println!("{violation}");
                let Args { tenants, hours, .. } = args;
                println!("again: cargo xtask sim --seed {seed} --tenants {tenants} --hours {hours}");
                return ExitCode::FAILURE;
            }
        }
    }
    let hours = simulated.as_secs_f64() / 3600.0;
    let taken = start.elapsed().as_secs_f64();
    let same = if args.twice { ", each played twice the same" } else { "" };
    println!(
        "seeds {seed} to {}{same}: {events} events, {checks} recounts, digest {digest:016x}; {hours:.2} h in {taken:.1} s, {:.2} h a second",
        seed + args.runs - 1,
        hours / taken
    );
    ExitCode::SUCCESS
}

#[expect(clippy::disallowed_methods, reason = "how fast it went is for the reader only; nothing is decided by it")]
fn now() -> Instant {
    Instant::now()
}
