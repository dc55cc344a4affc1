//! Prometheus' own judge: what is published passes its linter, the rules are rules, and their tests pass.
//! `cargo xtask test --all` runs these, and sees to it that `promtool` is there.

use std::io::Write;
use std::process::{Command, Stdio};

use tenantry::TopBy;
use tenantry::metrics::Prometheus;

use crate::eventful;

#[track_caller]
fn promtool(arguments: &[&str], input: &str) {
    let mut command = Command::new("promtool");
    command.args(arguments).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/ops"));
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut promtool = command.expect("promtool is there (Debian: prometheus)");
    promtool.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = promtool.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
}

#[tokio::test(start_paused = true)]
#[ignore = "needs promtool"]
async fn promtool_accepts_what_is_published() {
    let (_pools, text) = eventful(&Prometheus::new("main").top_tenants(3, TopBy::Connects)).await;
    promtool(&["check", "metrics"], &text);
}

#[test]
#[ignore = "needs promtool"]
fn promtool_accepts_the_alerts_and_their_tests() {
    promtool(&["check", "rules", "alerts.yml"], "");
    promtool(&["test", "rules", "alerts_test.yml"], "");
}
