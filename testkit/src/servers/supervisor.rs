//! Runs one server process and makes sure that it ends when the test does: [`Supervised`].
//!
//! Between the test and the server stands a shell that waits for a word on its standard input. The kernel closes
//! that pipe however the test's process ends, killed included, so the server never outlives it.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::template::Failed;

/// Arguments: the server's folder, the file for what it writes, the signals that stop it in order and at once, then the
/// server and its arguments. Only the server keeps standard output, so that its end can be seen there. An end of input
/// (the test is over) stops the server at once and removes the folder; a word only stops the server. One that is frozen
/// is let go on, as it would not hear.
const SCRIPT: &str = r#"
trap '' INT TERM HUP
folder=$1; log=$2; fast=$3; immediate=$4; shift 4
"$@" 2>>"$log" &
server=$!
exec >/dev/null 2>&1
read -r word
case $word in
    fast) kill -$fast $server ;;
    *) kill -$immediate $server ;;
esac
kill -CONT $server
wait $server
[ -n "$word" ] || rm -rf "$folder"
"#;

/// How often a file is looked at, where nothing tells that it was written.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How to stop a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stop {
    /// Ends every session and shuts down in order.
    Fast,
    /// Drops everything, as a crash would.
    Immediate,
}

/// The names of the signals by which a server is stopped.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signals {
    pub(super) fast: &'static str,
    pub(super) immediate: &'static str,
}

/// A server that runs. Dropping it stops it at once and removes its folder.
#[derive(Debug)]
pub(super) struct Supervised {
    shell: Child,
    reader: Option<JoinHandle<()>>,
    end: Arc<End>,
    log: PathBuf,
    /// How long the log was before this run.
    log_before: usize,
}

/// Whether the last of a server's processes is gone.
#[derive(Debug, Default)]
struct End {
    reached: Mutex<bool>,
    changed: Condvar,
}

impl End {
    fn lock(&self) -> MutexGuard<'_, bool> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self) {
        *self.lock() = true;
        self.changed.notify_all();
    }

    /// True when it was reached within that time.
    fn wait(&self, within: Duration) -> bool {
        let answer = self.changed.wait_timeout_while(self.lock(), within, |reached| !*reached);
        *answer.unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Supervised {
    /// Starts `server`, whose files are in `folder`, and which writes to its standard error, which is added to `log`.
    ///
    /// `shell` is a command that runs `/bin/sh` as the right user.
    pub(super) fn start(
        mut shell: Command,
        folder: &Path,
        log: &Path,
        signals: Signals,
        server: &[String],
    ) -> io::Result<Self> {
        shell.arg("-c").arg(SCRIPT).arg("supervisor").arg(folder).arg(log);
        shell.args([signals.fast, signals.immediate]).args(server);
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        // Ctrl-C at the terminal is for whom the server is there for, not for the server.
        shell.process_group(0);
        let log_before = read(log).len();
        let mut shell = shell.spawn()?;
        let end = Arc::new(End::default());
        let reader = shell.stdout.take().map(|mut stdout| {
            let end = Arc::clone(&end);
            std::thread::spawn(move || {
                // The server writes nothing there: this returns when nobody holds it any more.
                let _ = stdout.read_to_end(&mut Vec::new());
                end.reach();
            })
        });
        Ok(Self { shell, reader, end, log: log.to_path_buf(), log_before })
    }

    /// [`start`](Self::start), and waits until the server writes `ready`. One that does not within that time is stopped, and
    /// what it wrote is the inner error.
    pub(super) fn start_until(
        shell: Command,
        folder: &Path,
        log: &Path,
        signals: Signals,
        server: &[String],
        ready: &str,
        within: Duration,
    ) -> Result<Result<Self, String>, Failed> {
        let started = Self::start(shell, folder, log, signals, server).map_err(Failed::to("start the server"))?;
        if started.wait_for(ready, within) {
            return Ok(Ok(started));
        }
        let log = started.log();
        // Stopped by word, as the folder is still needed.
        started.stop(Stop::Immediate).map_err(Failed::to("stop a server that did not start"))?;
        Ok(Err(log))
    }

    /// What this run wrote.
    pub(super) fn log(&self) -> String {
        let bytes = read(&self.log);
        String::from_utf8_lossy(bytes.get(self.log_before..).unwrap_or_default()).into_owned()
    }

    /// Waits for this run to write `sentence`. False when the server ended or the time is over.
    pub(super) fn wait_for(&self, sentence: &str, within: Duration) -> bool {
        let looks = within.as_millis() / LOOK_EVERY.as_millis();
        for _ in 0..looks {
            let ended = self.end.wait(LOOK_EVERY);
            if self.log().contains(sentence) {
                return true;
            }
            if ended {
                return false;
            }
        }
        false
    }

    /// Stops the server, keeps its folder, and returns when the last of its processes is gone.
    pub(super) fn stop(mut self, how: Stop) -> io::Result<()> {
        let word: &[u8] = match how {
            Stop::Fast => b"fast\n",
            Stop::Immediate => b"immediate\n",
        };
        if let Some(stdin) = &mut self.shell.stdin {
            stdin.write_all(word)?;
        }
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        // `wait` closes the pipe first. Neither can be helped where it fails: the test is over.
        let _ = self.shell.wait();
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        self.finish();
    }
}

/// A log that is not there yet is empty.
pub(super) fn read(log: &Path) -> Vec<u8> {
    fs::read(log).unwrap_or_default()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    const SIGNALS: Signals = Signals { fast: "INT", immediate: "QUIT" };
    const LONG: Duration = Duration::from_secs(60);

    /// A server that says when it is ready and which signal ended it.
    fn server() -> Vec<String> {
        let script = "end() { echo $1 >&2; kill $!; exit; }; trap 'end fast' INT; trap 'end immediate' QUIT; \
                      tail -f /dev/null & echo ready >&2; wait";
        // A shell cannot trap a signal that it was started to ignore, as background jobs are; `env` resets them.
        let words = ["env", "--default-signal", "sh", "-c", script];
        words.map(str::to_owned).to_vec()
    }

    fn start(folder: &Path, log: &Path, server: &[String]) -> Result<Supervised, String> {
        let shell = Command::new("/bin/sh");
        Supervised::start_until(shell, folder, log, SIGNALS, server, "ready", LONG).expect("a shell")
    }

    fn start_ready(folder: &Path, log: &Path) -> Supervised {
        start(folder, log, &server()).expect("ready")
    }

    #[test]
    fn a_word_stops_the_server_and_keeps_the_folder_and_the_end_removes_it() {
        let (folder, outside) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let log = outside.path().join("log");
        let written = || String::from_utf8(read(&log)).expect("text");
        start_ready(folder.path(), &log).stop(Stop::Fast).expect("stops");
        assert_eq!(written(), "ready\nfast\n");
        let second = start_ready(folder.path(), &log);
        assert_eq!(second.log(), "ready\n", "its own run only");
        second.stop(Stop::Immediate).expect("stops");
        assert!(folder.path().exists());
        drop(start_ready(folder.path(), &log));
        assert_eq!(written(), "ready\nfast\nready\nimmediate\nready\nimmediate\n");
        assert!(!folder.path().exists());
    }

    #[test]
    fn a_server_that_ends_at_once_is_not_waited_for_and_keeps_the_folder() {
        let folder = tempfile::tempdir().expect("a folder");
        let words = ["sh", "-c", "echo cannot >&2"].map(str::to_owned);
        let log = start(folder.path(), &folder.path().join("log"), &words).expect_err("it ended");
        assert_eq!(log, "cannot\n");
        assert!(folder.path().exists());
    }
}
