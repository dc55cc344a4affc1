//! `cargo xtask seeded`: switches on one planted bug after the other (`core/src/seeded.rs`) and expects a suite to notice.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::loom;
use crate::run::{Loudness, cargo, must};
use crate::tally::Tally;
use crate::test::now;

/// The name of each bug in `seeded!`, and what is wrong while it is on.
const FAULTS: &[(&str, &str)] = &[
    ("EvictedAfterLookUp", "an idle connection is looked up under one lock and leased under the next"),
    ("CancelledGrantSwallowed", "an acquire that is dropped keeps the connection that it had been granted"),
    ("StaleWaker", "a waiter that is polled again keeps the waker of its first poll"),
    ("WakerInASecondPlace", "a waker is stored under a second lock, after the first was let go"),
    ("ActsUnderTheLock", "wakers are woken, and tasks started, under the lock"),
    ("PermitFreedBeforeTheCloseEnds", "a permit is free when its connection begins to close"),
    ("PermitTakenAfterTheConnect", "a connect needs no permit until it has succeeded"),
    ("PanickedConnectKeepsItsPermit", "a connect that panics keeps its permit"),
    ("LruByCreation", "the victim is what was opened first, not what was used last"),
    ("OneMoreUnderPoolLeases", "a pool lease may pass the cap by one"),
    ("TwoPoolLeasesGather", "two pool leases may each hold half of what they need"),
    ("PromiseNotGivenBack", "a promised permit stays with a line that cannot use it any more"),
    ("HandOverIgnoresTheBound", "a connection goes from hand to hand within its tenant for ever"),
    ("BackgroundPassesItsShare", "background work takes as many permits as are free"),
    ("BorrowingRefreshes", "a connection that background work borrows counts as used by those it serves"),
    ("GenerationIgnored", "a key of what is gone names what took its place"),
    ("ClosedKeepsIdle", "a connection that comes back after `close` is kept"),
    ("DirtyIsClean", "a connection with something left on it goes to the next user as it is"),
    ("BrokenIsHandedOut", "a connection that broke while it was idle is handed out"),
    ("EpochStays", "nobody suspects the other connections of a server that was seen to break"),
    ("CircuitNeverRests", "a tenant whose connects fail is tried again at once"),
];

/// Tests that may notice, as one program.
struct Suite {
    name: &'static str,
    /// The test target.
    target: &'static str,
    /// Only the tests with this in their path.
    only: &'static str,
}

/// In the order in which each fault meets them: the fastest first, and none after the one that notices.
const SUITES: &[Suite] = &[
    Suite { name: "ledger", target: "tenantry_core", only: "ledger::" },
    Suite { name: "pools", target: "pools", only: "" },
    Suite { name: "loom", target: "loom", only: "" },
];

pub(crate) const FLAGS: &str = "--cfg tenantry_seeded";
pub(crate) const FOLDER: &str = "seeded";

/// Two builds for all faults: loom's models run on no runtime but their own, and no other test runs on theirs.
const BUILDS: &[(&str, &str, &str)] = &[
    ("--package tenantry-core --package tenantry-testkit --lib --test pools", FOLDER, FLAGS),
    ("--package tenantry-testkit --test loom", loom::FOLDER, loom::FLAGS),
];

/// A suite hangs in which no test ends for so many times the longest that one took without a fault, within these bounds.
const PATIENCE: u32 = 10;
const PATIENCE_LEAST: Duration = Duration::from_secs(5);
const PATIENCE_MOST: Duration = Duration::from_secs(30);

/// Runs all of it: the suites without a fault, which must pass, then with each, which none must survive.
pub(crate) fn step(loudness: Loudness) -> Result<Tally> {
    let mut programs = build(loudness)?;
    let names: Vec<&str> = SUITES.iter().map(|suite| suite.name).collect();
    let mut table = format!("in this order, to the first that notices: {}\n", names.join(", "));
    let mut longest = Duration::ZERO;
    for suite in SUITES {
        let (noticed, silence) = programs.run(suite, None)?;
        if let Some(noticed) = noticed {
            bail!("{} fails without a fault: {noticed}", suite.name);
        }
        longest = longest.max(silence);
    }
    programs.patience = (longest * PATIENCE).clamp(PATIENCE_LEAST, PATIENCE_MOST);
    let mut survivors = Vec::new();
    for &(fault, wrong) in FAULTS {
        let caught = programs.first_to_notice(fault)?;
        if caught.is_none() {
            survivors.push(fault);
        }
        let by = caught.unwrap_or_else(|| "NOT CAUGHT".to_owned());
        let row = format!("{fault:31}{wrong}\n{:31}{by}\n", "");
        if loudness.verbose {
            print!("{row}");
        }
        table += &row;
    }
    ensure!(survivors.is_empty(), "{table}not caught: {}", survivors.join(", "));
    if !loudness.verbose {
        print!("{table}");
    }
    Ok(Tally::default())
}

struct Programs {
    /// By their targets, with the folder that each is run in.
    tests: BTreeMap<String, (PathBuf, PathBuf)>,
    /// See [`PATIENCE`].
    patience: Duration,
}

fn build(loudness: Loudness) -> Result<Programs> {
    let mut tests = BTreeMap::new();
    for (what, folder, flags) in BUILDS {
        let mut build = cargo(&format!("test --no-run --message-format json-render-diagnostics {what}"));
        let said = must(loom::built_apart(&mut build, folder, flags)?, Loudness { verbose: false })?;
        for line in said.lines().filter(|line| line.starts_with('{')) {
            let artifact: Value = serde_json::from_str(line)?;
            let text = |value: &Value| value.as_str().map(str::to_owned);
            if let (Some(target), Some(program), Some(manifest)) =
                (text(&artifact["target"]["name"]), text(&artifact["executable"]), text(&artifact["manifest_path"]))
            {
                let folder = PathBuf::from(manifest).parent().context("a manifest has a folder")?.to_owned();
                tests.insert(target, (program.into(), folder));
            }
        }
    }
    if loudness.verbose {
        println!("built");
    }
    Ok(Programs { tests, patience: PATIENCE_MOST })
}

impl Programs {
    fn first_to_notice(&self, fault: &str) -> Result<Option<String>> {
        for suite in SUITES {
            if let (Some(noticed), _) = self.run(suite, Some(fault))? {
                return Ok(Some(format!("{}: {noticed}", suite.name)));
            }
        }
        Ok(None)
    }

    /// How a suite fails, at its first test that does, None where all pass; and the longest time in which no test ended.
    fn run(&self, suite: &Suite, fault: Option<&str>) -> Result<(Option<String>, Duration)> {
        let (program, folder) =
            self.tests.get(suite.target).with_context(|| format!("{} was not built", suite.target))?;
        let mut command = Command::new(program);
        command.arg(suite.only).current_dir(folder).env("RUST_BACKTRACE", "0").env_remove("TENANTRY_FAULT");
        command.envs(fault.map(|fault| ("TENANTRY_FAULT", fault)));
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
        let (line, lines) = channel();
        let stdout = child.stdout.take().context("it is piped")?;
        let reader =
            thread::spawn(move || BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|l| line.send(l)));
        let (noticed, silence) = watch(&lines, self.patience);
        if noticed.is_some() {
            // It may have ended by itself.
            drop(child.kill());
        }
        drop(lines);
        let status = child.wait()?;
        drop(reader.join());
        // A panic in a destructor ends it with no word about the test.
        Ok((noticed.or_else(|| (!status.success()).then(|| status.to_string())), silence))
    }
}

/// Reads the lines of a test program until one says that a test failed, or nothing more is said; and how long it was silent.
fn watch(lines: &Receiver<String>, patience: Duration) -> (Option<String>, Duration) {
    let mut silence = Duration::ZERO;
    loop {
        let start = now();
        let line = lines.recv_timeout(patience);
        silence = silence.max(start.elapsed());
        let noticed = match line {
            Ok(line) => {
                let failed = line.strip_prefix("test ").and_then(|line| line.strip_suffix(" ... FAILED"));
                let Some(test) = failed else { continue };
                Some(test.to_owned())
            }
            Err(RecvTimeoutError::Timeout) => Some(format!("hangs: no test ended for {patience:.0?}")),
            Err(RecvTimeoutError::Disconnected) => None,
        };
        return (noticed, silence);
    }
}
