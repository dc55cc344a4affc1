//! Runs commands: quietly, keeping what they say for when they fail. The steps in `test.rs` are made of these.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, Result, bail, ensure};

/// How much is said.
#[derive(clap::Args, Clone, Copy)]
pub(crate) struct Loudness {
    /// Shows what the commands say while they run, instead of only what a failed one said
    #[arg(long, short, env = "CI", value_parser = clap::builder::FalseyValueParser::new())]
    pub(crate) verbose: bool,
}

/// The workspace's folder.
pub(crate) fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here)
}

/// A `cargo` command in the workspace, its arguments divided by spaces.
pub(crate) fn cargo(arguments: &str) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    program(cargo, arguments)
}

/// Any command in the workspace, its arguments divided by spaces.
pub(crate) fn program(name: impl AsRef<std::ffi::OsStr>, arguments: &str) -> Command {
    let mut command = Command::new(name);
    command.args(arguments.split_whitespace()).current_dir(root());
    command
}

/// Whether a command can be started and ends well; what it says is not shown.
pub(crate) fn works(name: &str, arguments: &str) -> bool {
    let mut command = program(name, arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// How a command ended, and all it said in the order in which it said it.
pub(crate) struct Outcome {
    /// `None`: ended by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) said: String,
}

/// Runs a command to its end.
pub(crate) fn outcome(command: &mut Command, loudness: Loudness) -> Result<Outcome> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot run {}", line(command)))?;
    let said = Mutex::new(String::new());
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    thread::scope(|scope| {
        scope.spawn(|| collect(stdout, &said, loudness));
        scope.spawn(|| collect(stderr, &said, loudness));
    });
    let code = child.wait()?.code();
    Ok(Outcome { code, said: said.into_inner().unwrap_or_default() })
}

/// In the passwords of tests, and so in nothing that anybody prints. As in `testkit/src/servers/place.rs`.
const MARKER: &str = "mark3r";

/// Runs a command that must end well and tell no password, and returns what it said.
///
/// # Errors
/// The command line, and all it said when that was not shown already.
pub(crate) fn must(command: &mut Command, loudness: Loudness) -> Result<String> {
    let Outcome { code, said } = outcome(command, loudness)?;
    if code == Some(0) {
        return tells_no_password(&said).map(|()| said).with_context(|| format!("$ {}", line(command)));
    }
    let said = if loudness.verbose { "" } else { said.trim_end() };
    bail!("$ {}\n{said}", line(command));
}

/// The passwords that the tests make servers with, and try on them, are in nothing that is printed, logged or reported.
///
/// # Errors
/// The first lines that have one in them.
pub(crate) fn tells_no_password(said: &str) -> Result<()> {
    let told: Vec<&str> = said.lines().filter(|line| line.contains(MARKER)).take(5).collect();
    ensure!(told.is_empty(), "a password was printed:\n{}", told.join("\n"));
    Ok(())
}

/// A command as one would type it.
fn line(command: &Command) -> String {
    let mut words = Vec::new();
    words.extend(command.get_envs().filter_map(|(name, value)| Some(format!("{}={:?}", name.display(), value?))));
    let name = Path::new(command.get_program()).file_name().unwrap_or_default();
    words.push(name.display().to_string());
    words.extend(command.get_args().map(|word| word.display().to_string()));
    words.join(" ")
}

/// Reads lines until the end; bytes that are no text are replaced, since a test may print anything.
fn collect(from: Option<impl Read>, said: &Mutex<String>, loudness: Loudness) {
    let Some(from) = from else { return };
    let mut from = BufReader::new(from);
    let mut bytes = Vec::new();
    while from.read_until(b'\n', &mut bytes).is_ok_and(|n| n > 0) {
        let text = String::from_utf8_lossy(&bytes);
        if loudness.verbose {
            print!("{text}");
        }
        if let Ok(mut said) = said.lock() {
            said.push_str(&text);
        }
        bytes.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_that_prints_a_password_of_the_tests_fails() {
        let quiet = Loudness { verbose: false };
        must(&mut program("echo", "postgres://app:secret@db"), quiet).expect("it tells nothing of ours");
        let told = must(&mut program("echo", &format!("postgres://app:{MARKER}-1@db")), quiet).expect_err("a password");
        assert!(format!("{told:#}").contains("a password was printed"), "{told:#}");
    }
}
