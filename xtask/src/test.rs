//! `cargo xtask test` and `cargo xtask quick`: the tables of steps, and what runs them. A new check is a new line in
//! `STEPS` and a function beside the others; a new server is an entry in `needs.rs`.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use clap::builder::PossibleValuesParser;

use crate::needs::{self, SERVERS};
use crate::run::{Loudness, cargo, must, root, tells_no_password, works};
use crate::tally::Tally;
use crate::workspace::Workspace;
use crate::{bench, demo, features, guard, loom, model, mutants, seeded, sim};

/// One thing that must pass.
struct Step {
    name: &'static str,
    /// Only with `--all`.
    long: bool,
    run: fn(&Args) -> Result<Tally>,
}

/// In the order in which they run: what fails soonest first.
const STEPS: &[Step] = &[
    Step { name: "fmt", long: false, run: |args| plain("fmt --all --check", args) },
    Step { name: "clippy", long: false, run: |args| plain(CLIPPY, args) },
    Step { name: "features", long: false, run: |args| features::step(args.loudness) },
    Step { name: "tests", long: false, run: tests },
    Step { name: "doctests", long: false, run: |args| counted("test --workspace --all-features --doc", args) },
    Step { name: "docs", long: false, run: docs },
    Step { name: "loom", long: false, run: |args| loom::step(args.loudness) },
    Step { name: "model", long: false, run: |args| model::step(args.loudness) },
    Step { name: "seeded", long: false, run: |args| seeded::step(args.loudness) },
    Step { name: "guard", long: false, run: |args| guard::step(args.loudness) },
    Step { name: "sim", long: false, run: |args| sim::step(args.loudness) },
    Step { name: "demo", long: false, run: |args| demo::step(args.loudness) },
    Step { name: "promtool", long: true, run: promtool },
    Step { name: "bench", long: true, run: |args| bench::step(args.loudness) },
    Step { name: "demo-postgres", long: true, run: |args| demo::postgres_step(args.loudness) },
    Step { name: "demo-long", long: true, run: |args| demo::long_step(args.loudness) },
    Step { name: "page-chromium", long: true, run: page_chromium },
    Step { name: "actix", long: true, run: actix },
    Step { name: "mutants", long: true, run: |args| mutants::step(args.loudness) },
    Step { name: "sim-long", long: true, run: |args| sim::long_step(args.loudness) },
];

/// What a contributor runs after each change: under a minute when warm.
const QUICK: &[Step] = &[
    Step { name: "fmt", long: false, run: |args| plain("fmt --all --check", args) },
    Step { name: "clippy", long: false, run: |args| plain(QUICK_CLIPPY, args) },
    Step {
        name: "tests",
        long: false,
        run: |args| {
            run_tests("--package tenantry-core --package tenantry-testkit --features tenantry-testkit/sim", args)
        },
    },
];

const CLIPPY: &str = "clippy --workspace --all-targets --all-features -- -D warnings";
const QUICK_CLIPPY: &str = "clippy --package tenantry-core --package tenantry-testkit --all-targets -- -D warnings";

/// What to run, and how loudly.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leaves out a step or a server, and says so in the last line; may be given more than once
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = PossibleValuesParser::new(names()))]
    without: Vec<String>,
    /// Runs this step alone, and says so in the last line; may be given more than once
    #[arg(long, value_name = "STEP", value_delimiter = ',', value_parser = PossibleValuesParser::new(steps()))]
    only: Vec<String>,
    /// Runs the long steps as well
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    loudness: Loudness,
}

/// What can be left out.
fn names() -> impl Iterator<Item = &'static str> {
    SERVERS.iter().map(|server| server.name).chain(steps())
}

fn steps() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.name)
}

impl Args {
    fn without(&self, name: &str) -> bool {
        self.without.iter().any(|left_out| left_out == name)
    }

    fn wants(&self, step: &Step) -> bool {
        let asked_for =
            if self.only.is_empty() { self.all || !step.long } else { self.only.iter().any(|only| only == step.name) };
        let server = SERVERS.iter().find(|server| step.name.ends_with(server.name));
        asked_for && !self.without(step.name) && !server.is_some_and(|server| self.without(server.name))
    }

    /// What the last line says of the steps that did not run.
    fn left_out(&self) -> String {
        let said = |word: &str, names: &[String]| match names {
            [] => String::new(),
            names => format!(", {word} {}", names.join(", ")),
        };
        said("only", &self.only) + &said("without", &self.without)
    }
}

/// Runs everything that must pass.
pub(crate) fn test(args: &Args) -> Result<ExitCode> {
    for server in SERVERS.iter().filter(|server| !args.without(server.name)) {
        server.ensure(args.loudness)?;
    }
    run(STEPS.iter().filter(|step| args.wants(step)), args)
}

/// Runs what follows each change.
pub(crate) fn quick(loudness: &Loudness) -> Result<ExitCode> {
    let args = Args { without: Vec::new(), only: Vec::new(), all: false, loudness: *loudness };
    run(QUICK.iter(), &args)
}

/// Runs one step of the table as a chore of its own.
pub(crate) fn one(name: &str, loudness: &Loudness) -> Result<ExitCode> {
    let args = Args { without: Vec::new(), only: vec![name.to_owned()], all: false, loudness: *loudness };
    run(STEPS.iter().filter(|step| args.wants(step)), &args)
}

/// Runs the steps to the last one, whatever fails, so that one run names everything that is wrong.
fn run<'a>(steps: impl Iterator<Item = &'a Step>, args: &Args) -> Result<ExitCode> {
    needs::ensure_component("rustfmt", "fmt", args.loudness)?;
    needs::ensure_component("clippy", "clippy", args.loudness)?;
    let start = now();
    let mut tally = Tally::default();
    let mut failed = Vec::new();
    for step in steps {
        match timed(step, args) {
            Ok(counted) => tally += counted,
            Err(error) => {
                println!("{error:#}\n");
                failed.push(step.name);
            }
        }
    }
    println!();
    if !tally.is_empty() {
        println!("tests: {tally}");
    }
    let verdict = if failed.is_empty() { "passed".to_owned() } else { format!("FAILED: {}", failed.join(", ")) };
    println!("{verdict} in {}{}", time(start.elapsed()), args.left_out());
    Ok(if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One step and its line.
fn timed(step: &Step, args: &Args) -> Result<Tally> {
    let start = now();
    if args.loudness.verbose {
        println!("\n=== {}", step.name);
    } else if std::io::stdout().is_terminal() {
        print!("..      {}\r", step.name);
        std::io::stdout().flush()?;
    }
    let result = (step.run)(args);
    let mark = if result.is_ok() { "ok" } else { "FAILED" };
    let counted = result.as_ref().ok().filter(|tally| !tally.is_empty()).map(|tally| format!("  {tally}"));
    println!("{mark:8}{:10}{:>12}{}", step.name, time(start.elapsed()), counted.unwrap_or_default());
    result
}

fn time(taken: Duration) -> String {
    let seconds = taken.as_secs();
    if seconds < 60 {
        format!("{:.1} s", taken.as_secs_f32())
    } else {
        format!("{} min {} s", seconds / 60, seconds % 60)
    }
}

#[expect(clippy::disallowed_methods, reason = "how long steps and tests take; nothing of the product is decided by it")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// A cargo command that only has to end well.
fn plain(arguments: &str, args: &Args) -> Result<Tally> {
    must(&mut cargo(arguments), args.loudness)?;
    Ok(Tally::default())
}

/// A cargo command that runs tests.
fn counted(arguments: &str, args: &Args) -> Result<Tally> {
    must(&mut cargo(arguments), args.loudness).map(|said| Tally::read(&said))
}

/// All tests but the doctests.
fn tests(args: &Args) -> Result<Tally> {
    run_tests("--workspace --all-features", args)
}

/// A server that is left out takes with it the test targets with its name in theirs, so that they need not even be
/// built, and the tests of other targets with its name in their path.
fn run_tests(packages: &str, args: &Args) -> Result<Tally> {
    let left_out: Vec<_> = SERVERS.iter().filter(|server| args.without(server.name)).collect();
    let skip: String = left_out.iter().map(|server| format!(" --skip {}", server.name)).collect();
    let workspace = Workspace::ask()?;
    let targets = workspace.test_targets();
    let kept = targets.iter().filter(|target| !left_out.iter().any(|server| server.is_started_by(target)));
    let kept: String = kept.map(|target| format!(" --test {target}")).collect();
    let targets = if left_out.is_empty() { "--tests".to_owned() } else { format!("--lib --bins{kept}") };
    let tests = format!("--no-fail-fast {packages} {targets} --{skip}");
    let tally = if works("cargo", "nextest --version") {
        // What the tests that pass print is in here alone, wherever the target folder is.
        let report = root().join("target/nextest/default/junit.xml");
        let tally = counted(&format!("nextest run {tests}"), args)?;
        let printed = std::fs::read(&report).with_context(|| report.display().to_string())?;
        tells_no_password(&String::from_utf8_lossy(&printed))?;
        tally
    } else {
        counted(&format!("test {tests} --show-output"), args)?
    };
    ensure!(!tally.is_empty(), "not one test ran");
    Ok(tally)
}

/// What is marked as long among the tests of the admin page.
fn page_chromium(args: &Args) -> Result<Tally> {
    counted("test --package tenantry-browser --test browser -- --ignored", args)
}

/// What Prometheus' own tool says of the metrics and the alerts.
fn promtool(args: &Args) -> Result<Tally> {
    needs::PROMTOOL.ensure(args.loudness)?;
    let tally = counted("test --workspace --all-features --test metrics -- --ignored promtool", args)?;
    ensure!(!tally.is_empty(), "not one test ran");
    Ok(tally)
}

/// The example on actix-web, a workspace of its own: as large a dependency as all others together.
fn actix(args: &Args) -> Result<Tally> {
    plain("fmt --check --manifest-path examples/actix/Cargo.toml", args)?;
    let mut test = cargo("test --manifest-path examples/actix/Cargo.toml --target-dir");
    must(test.arg(Workspace::ask()?.target().join("actix")), args.loudness).map(|said| Tally::read(&said))
}

/// The documentation, where a broken link is an error.
fn docs(args: &Args) -> Result<Tally> {
    let mut doc = cargo("doc --workspace --all-features --no-deps");
    must(doc.env("RUSTDOCFLAGS", "-D warnings"), args.loudness)?;
    Ok(Tally::default())
}
