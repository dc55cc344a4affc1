//! `cargo xtask guard`: the cost of an operation in instructions and allocations, against bounds that stand here. Neither depends
//! on the machine's load, so that a slower warm path is noticed in the change that made it. A bound that has become too generous
//! is lowered by hand; one that has to be raised needs a reason in its commit.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::needs;
use crate::run::{Loudness, cargo, must, program};
use crate::tally::Tally;
use crate::workspace::Workspace;

/// What is counted, and the most that each may cost.
struct Bound {
    /// As `tenantry-guard` calls it.
    what: &'static str,
    /// Instructions of one operation on x86-64, an optimised build; some 3 % above what was measured, for other compilers.
    instructions: u64,
    allocations: f64,
}

const BOUNDS: &[Bound] = &[
    // An acquire that finds an idle connection, and its release.
    Bound { what: "warm", instructions: 650, allocations: 0.0 },
    // One of those, and an acquire that waits in line until it is handed the connection, and its release.
    Bound { what: "waiting", instructions: 9_100, allocations: 1.0 },
];

/// Operations in the shorter and the longer run; what both cost is no operation's.
const RUNS: [u64; 2] = [1_000, 3_000];

/// Whether this is the architecture for which the bounds were measured.
const JUDGED: bool = cfg!(target_arch = "x86_64");

const BUILD: &str = "build --release --package tenantry-testkit --features guard-command --bin tenantry-guard";

/// The step, and the chore.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    needs::VALGRIND.ensure(loudness)?;
    must(&mut cargo(BUILD), loudness)?;
    let workspace = Workspace::ask()?;
    let (guard, folder) = (workspace.program("release", "tenantry-guard"), workspace.target());
    let allocations = must(&mut program(&guard, "allocations"), loudness)?;
    let mut table = format!("{:10}{:>14}{:>8}{:>14}{:>8}\n", "", "instructions", "bound", "allocations", "bound");
    let mut kept = true;
    for Bound { what, instructions: most, allocations: most_allocations } in BOUNDS {
        let [short, long] = RUNS.map(|times| instructions(&guard, what, times, &folder));
        let each = (long? - short?) / (RUNS[1] - RUNS[0]);
        let allocated = allocations.lines().find_map(|line| line.strip_prefix(what));
        let allocated: f64 = allocated.context("the guard counts allocations")?.trim().parse()?;
        kept &= (each <= *most || !JUDGED) && allocated <= *most_allocations;
        table += &format!("{what:10}{each:>14}{most:>8}{allocated:>14}{most_allocations:>8}\n");
    }
    ensure!(kept, "{table}an operation costs more than its bound in xtask/src/guard.rs");
    print!("{table}{}", if JUDGED { "" } else { "instructions are judged on x86-64 alone\n" });
    Ok(Tally::default())
}

/// What a run of the guard costs in all.
fn instructions(guard: &Path, what: &str, times: u64, folder: &Path) -> Result<u64> {
    let counts = folder.join(format!("guard.{what}.{times}"));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--error-exitcode=1"]).arg(format!("--callgrind-out-file={}", counts.display()));
    must(valgrind.arg(guard).arg(what).arg(times.to_string()), Loudness { verbose: false })?;
    let counts = std::fs::read_to_string(counts)?;
    let total = counts.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")));
    Ok(total.context("callgrind wrote no total")?.trim().parse()?)
}
