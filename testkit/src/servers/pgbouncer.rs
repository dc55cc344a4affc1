//! A PgBouncer of the test's own before a private PostgreSQL: [`PrivatePgBouncer`].

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::account::Account;
use super::place::{HOST, PORTS_TRIED, folder, free_port};
use super::postgres::PrivatePostgres;
use super::supervisor::{Signals, Supervised};

/// What it writes when it can be connected to.
const READY: &str = "process up";

const START_WITHIN: Duration = Duration::from_secs(60);

/// Its own orderly end waits for every client.
const SIGNALS: Signals = Signals { fast: "TERM", immediate: "TERM" };

/// Where the program is.
const FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"];

/// Why there is no PgBouncer. A test that needs one fails with it; it never skips.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PgBouncerError {
    /// It is not on this machine.
    #[error("PgBouncer is neither in PATH nor in the usual places; install it: package `pgbouncer` everywhere")]
    NotInstalled,
    /// A file or a process could not be had.
    #[error("cannot make what PgBouncer needs")]
    Setup(#[from] io::Error),
    /// It did not come up.
    #[error("PgBouncer did not start; it wrote:\n{log}")]
    #[non_exhaustive]
    DidNotStart {
        /// What it wrote.
        log: String,
    },
}

/// When a server's connection is taken from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client leaves.
    Session,
    /// After each transaction.
    Transaction,
}

/// A PgBouncer in a temporary folder on a free port, before a [`PrivatePostgres`], which must outlive it. Dropping it stops it.
pub struct PrivatePgBouncer {
    // Before `_folder`, as its end comes first.
    running: Supervised,
    _folder: TempDir,
    port: u16,
}

impl PrivatePgBouncer {
    /// Starts one that knows the superuser of `server` and these other roles, by name and password. `settings` are lines
    /// of its configuration (`max_user_connections`); later ones win over those made here.
    ///
    /// # Errors
    /// [`PgBouncerError`] when it is not installed or does not start.
    pub fn start(
        server: &PrivatePostgres,
        mode: PoolMode,
        roles: &[(&str, &str)],
        settings: &[(&str, &str)],
    ) -> Result<Self, PgBouncerError> {
        let program = find().ok_or(PgBouncerError::NotInstalled)?;
        let mut tried = 1;
        loop {
            let folder = folder("tenantry-pgbouncer-", "log")?;
            let account = Account::pick(folder.path(), "postgres")?;
            account.own(folder.path())?;
            let port = free_port()?;
            let write = |name: &str, text: &str| {
                let path = folder.path().join(name);
                fs::write(&path, text)?;
                account.own(&path).map(|()| path)
            };
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let own = [(server.superuser(), server.password())];
            let users = own.iter().chain(roles).map(|(name, word)| format!("{} {}\n", quoted(name), quoted(word)));
            let users = write("users", &users.collect::<String>())?;
            let ini = write("ini", &configuration(server, mode, port, &users, settings))?;
            let words = [program.as_path(), &ini].map(|path| path.to_string_lossy().into_owned());
            let shell = account.command("/bin/sh");
            let running = Supervised::start(shell, folder.path(), &folder.path().join("log"), SIGNALS, &words)?;
            if running.wait_for(READY, START_WITHIN) {
                return Ok(Self { running, _folder: folder, port });
            }
            let log = running.log();
            if tried == PORTS_TRIED || !log.contains("in use") {
                return Err(PgBouncerError::DidNotStart { log });
            }
            tried += 1;
        }
    }

    /// The address that it listens on.
    #[must_use]
    pub fn host(&self) -> &'static str {
        HOST
    }

    /// Its port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// What it wrote.
    #[must_use]
    pub fn log(&self) -> String {
        self.running.log()
    }
}

impl fmt::Debug for PrivatePgBouncer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivatePgBouncer").field("port", &self.port).finish_non_exhaustive()
    }
}

fn configuration(
    server: &PrivatePostgres,
    mode: PoolMode,
    port: u16,
    users: &Path,
    settings: &[(&str, &str)],
) -> String {
    let mode = match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
    };
    let mut text = format!(
        "[databases]\n* = host={} port={}\n[pgbouncer]\nlisten_addr = {HOST}\nlisten_port = {port}\n\
         unix_socket_dir =\nauth_type = scram-sha-256\nauth_file = {}\npool_mode = {mode}\n",
        server.host(),
        server.port(),
        users.display(),
    );
    for (name, value) in settings {
        text.push_str(&format!("{name} = {value}\n"));
    }
    text
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).chain(FOLDERS.map(PathBuf::from));
    in_path.map(|folder| folder.join("pgbouncer")).find(|program| program.is_file())
}
