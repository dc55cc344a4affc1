//! A MariaDB server of the test's own: [`PrivateMariaDb`]. Its process is in `supervisor.rs`, its users in `user.rs`.

mod installation;
#[cfg(test)]
mod tests;
mod user;

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;

use super::account::Account;
use super::certificate::{CHAIN_FILE, Certificate, KEY_FILE};
use super::place::{self, HOST, PORTS_TRIED, encoded, folder, free_port};
use super::supervisor::{self, Signals, Stop, Supervised};
use super::template::{Failed, Template, run, write_secret};
use installation::Installation;
pub use user::User;

/// What a server writes when it can be connected to.
const READY: &str = "ready for connections.";

/// What it writes when somebody else has its port.
const PORT_TAKEN: &str = "Bind on TCP/IP port";

/// How long a start may take; generous, as a machine that runs tests is busy.
const START_WITHIN: Duration = Duration::from_secs(60);

/// SIGTERM is its shutdown in order; it knows none without order, so a crash is SIGKILL.
const SIGNALS: Signals = Signals { fast: "TERM", immediate: "KILL" };

/// The user that may do everything.
const ROOT: &str = "root";

/// Changes whenever the arguments of `mariadb-install-db` do.
const LAYOUT: u32 = 1;

/// What both the installation and every start are told: small, and fast rather than safe. A commit is written to the file
/// and not flushed, so it outlives a crash of the server.
const ALWAYS: [&str; 8] = [
    "--skip-name-resolve",
    "--innodb-log-file-size=4M",
    "--innodb-autoextend-increment=1",
    "--innodb-buffer-pool-size=16M",
    "--innodb-temp-data-file-path=ibtmp1:1M:autoextend",
    "--innodb-doublewrite=OFF",
    "--innodb-flush-method=nosync",
    "--innodb-flush-log-at-trx-commit=2",
];

/// Why there is no server. A test that needs one fails with it; it never skips.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MariaDbError {
    /// MariaDB's server programs are not on this machine.
    #[error(
        "MariaDB's server programs (mariadbd, mariadb-install-db) are not in {searched}; install them: package \
         `mariadb-server` on Debian and Fedora, `mariadb` in Homebrew"
    )]
    #[non_exhaustive]
    NotInstalled {
        /// Where they were looked for.
        searched: String,
    },
    /// A file or a process could not be had.
    #[error("cannot {doing}")]
    #[non_exhaustive]
    Setup {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The server did not come up.
    #[error("the server did not start within {START_WITHIN:?}; it wrote:\n{log}")]
    #[non_exhaustive]
    DidNotStart {
        /// What it wrote.
        log: String,
    },
    /// The server came up, and refused a user.
    #[error("the server refused a user; it wrote:\n{log}")]
    #[non_exhaustive]
    RefusedUser {
        /// What it wrote.
        log: String,
    },
}

impl MariaDbError {
    fn setup(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Setup { doing, source }
    }
}

impl From<Failed> for MariaDbError {
    fn from(Failed { doing, source }: Failed) -> Self {
        Self::Setup { doing, source }
    }
}

/// What a server is to be like: see [`PrivateMariaDb::builder`].
#[derive(Debug, Clone, Default)]
pub struct MariaDbBuilder {
    settings: Vec<(String, String)>,
    users: Vec<User>,
    certificate: Option<Certificate>,
}

impl MariaDbBuilder {
    /// The server's `max_connections`; 151 by default, at least 10 (the server takes less for 10). There is one more
    /// for users who may do everything.
    #[must_use]
    pub fn max_connections(self, max: u32) -> Self {
        self.setting("max_connections", &max.to_string())
    }

    /// Any option of `mariadbd`, without the dashes. A later one wins.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A user to make.
    #[must_use]
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// Has it speak TLS with whoever asks for it, with this certificate. By default it does not.
    #[must_use]
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        self
    }

    /// Makes the server, starts it and waits until it can be connected to. Blocks for some tenths of a second; the
    /// first one on a machine takes some seconds longer.
    ///
    /// # Errors
    /// [`MariaDbError`] when MariaDB is not installed, does not start, or refuses a setting or a user.
    pub fn start(self) -> Result<PrivateMariaDb, MariaDbError> {
        let mut server = PrivateMariaDb::prepare(self.settings)?;
        if let Some(certificate) = &self.certificate {
            let written = certificate.write(server.folder.path(), server.account);
            written.map_err(MariaDbError::setup("write the server's certificate"))?;
            server.speaks_tls = true;
        }
        server.start_first(&self.users)?;
        Ok(server)
    }
}

/// A MariaDB server of the test's own, in a temporary folder, on a free port of 127.0.0.1 and on a Unix socket. It
/// speaks MySQL's protocol; it has no TLS unless told, no anonymous user and no database but the server's own.
///
/// Dropping it stops the server at once and removes the folder; so does the end of the process, in whatever way.
/// It is fast rather than safe: it never waits for the disk. A test that is root runs it as the user `mysql`, else
/// `nobody`. One archive of about 20 MB stays in the system's folder for temporary files, from which the next one
/// starts.
///
/// ```no_run
/// use tenantry_testkit::PrivateMariaDb;
/// use tenantry_testkit::servers::User;
///
/// let user = User::new("app", "secret").owns("acme").max_user_connections(5);
/// let server = PrivateMariaDb::builder().max_connections(20).user(user).start()?;
/// println!("{}", server.url("")); // as root: CREATE DATABASE acme
/// println!("{}", server.url_for("app", "secret", "acme"));
/// # Ok::<_, tenantry_testkit::MariaDbError>(())
/// ```
pub struct PrivateMariaDb {
    installation: Installation,
    account: Account,
    // Before `folder`, as its end comes first.
    running: Option<Supervised>,
    folder: TempDir,
    settings: Vec<(String, String)>,
    port: u16,
    password: String,
    speaks_tls: bool,
}

impl PrivateMariaDb {
    /// A server with MariaDB's own settings but for speed.
    #[must_use]
    pub fn builder() -> MariaDbBuilder {
        MariaDbBuilder::default()
    }

    /// [`builder`](Self::builder) and [`start`](MariaDbBuilder::start) in one.
    ///
    /// # Errors
    /// As there.
    pub fn new() -> Result<Self, MariaDbError> {
        Self::builder().start()
    }

    fn prepare(settings: Vec<(String, String)>) -> Result<Self, MariaDbError> {
        let setup = MariaDbError::setup("make the server's folder");
        let not_installed = || MariaDbError::NotInstalled { searched: Installation::places() };
        let installation = Installation::find().ok_or_else(not_installed)?;
        let folder = folder("tenantry-maria-", "socket").map_err(&setup)?;
        let account = Account::pick(folder.path(), "mysql");
        let account = account.map_err(MariaDbError::setup("find a user to run the server"))?;
        account.own(folder.path()).map_err(&setup)?;
        let password = place::password();
        Ok(Self { installation, account, running: None, folder, settings, port: 0, password, speaks_tls: false })
    }

    /// The first start, which makes the data and the users, and looks for a free port.
    fn start_first(&mut self, users: &[User]) -> Result<(), MariaDbError> {
        let template = Template::of(&self.installation.server, LAYOUT, self.account, &["data"])?;
        template.unpack(self.folder.path(), |empty| self.install(empty))?;
        let setup = MariaDbError::setup("tell the server its users");
        let (statements, made) = (self.folder.path().join("users.sql"), self.folder.path().join("users"));
        let text = user::statements(ROOT, &self.password, users, &made);
        write_secret(&statements, &text, self.account).map_err(&setup)?;
        let mut tried = 1;
        loop {
            self.port = free_port().map_err(MariaDbError::setup("find a free port"))?;
            match self.start_with(Some(&statements)) {
                Err(MariaDbError::DidNotStart { log }) if tried < PORTS_TRIED && log.contains(PORT_TAKEN) => {
                    tried += 1;
                }
                answer => break answer?,
            }
        }
        fs::remove_file(statements).map_err(setup)?;
        // The server starts whatever becomes of those statements; the last of them writes a file.
        if made.exists() { Ok(()) } else { Err(MariaDbError::RefusedUser { log: self.log() }) }
    }

    /// Makes an empty server's `data`.
    fn install(&self, folder: &Path) -> Result<(), Failed> {
        let mut install = self.account.command(&self.installation.install);
        install.arg("--no-defaults").arg(option("basedir", &self.installation.base));
        install.arg(option("datadir", &folder.join("data")));
        install.args(["--auth-root-authentication-method=normal", "--skip-test-db"]).args(ALWAYS);
        run(install, "run mariadb-install-db")
    }

    /// Starts the server after a stop, on the same port with the same data; nothing if it runs. Blocks until it can be
    /// connected to.
    ///
    /// # Errors
    /// [`MariaDbError::DidNotStart`] with what the server wrote.
    pub fn start(&mut self) -> Result<(), MariaDbError> {
        self.start_with(None)
    }

    fn start_with(&mut self, statements: Option<&Path>) -> Result<(), MariaDbError> {
        if self.running.is_some() {
            return Ok(());
        }
        let folder = self.folder.path();
        let mut words = vec![self.installation.server.to_string_lossy().into_owned(), "--no-defaults".to_owned()];
        words.extend(ALWAYS.map(str::to_owned));
        words.push("--performance-schema=OFF".to_owned());
        words.extend(match self.speaks_tls {
            true => vec![option("ssl-cert", &folder.join(CHAIN_FILE)), option("ssl-key", &folder.join(KEY_FILE))],
            false => vec!["--skip-ssl".to_owned()],
        });
        words.extend(self.settings.iter().map(|(name, value)| format!("--{name}={value}")));
        words.extend([option("basedir", &self.installation.base), option("datadir", &folder.join("data"))]);
        words.extend([option("tmpdir", folder), option("socket", &self.socket())]);
        words.extend([format!("--bind-address={HOST}"), format!("--port={}", self.port)]);
        words.extend(statements.map(|file| option("init-file", file)));
        let shell = self.account.command("/bin/sh");
        let log = self.log_file();
        let started = Supervised::start_until(shell, folder, &log, SIGNALS, &words, READY, START_WITHIN)?;
        self.running = Some(started.map_err(|log| MariaDbError::DidNotStart { log })?);
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Kills the server: every connection breaks, nothing is written. Blocks until it is gone; nothing if it is stopped.
    ///
    /// # Errors
    /// [`MariaDbError::Setup`] when the system does not let it be stopped.
    pub fn stop_immediate(&mut self) -> Result<(), MariaDbError> {
        self.stop_by(Stop::Immediate)
    }

    /// Stops the server in order: sessions are ended, transactions rolled back. Blocks until it is gone; nothing if it
    /// is stopped.
    ///
    /// # Errors
    /// [`MariaDbError::Setup`] when the system does not let it be stopped.
    pub fn stop(&mut self) -> Result<(), MariaDbError> {
        self.stop_by(Stop::Fast)
    }

    fn stop_by(&mut self, how: Stop) -> Result<(), MariaDbError> {
        let stopped = self.running.take().map_or(Ok(()), |running| running.stop(how));
        stopped.map_err(MariaDbError::setup("stop the server"))
    }

    /// [`stop`](Self::stop), then [`start`](Self::start).
    ///
    /// # Errors
    /// As there.
    pub fn restart(&mut self) -> Result<(), MariaDbError> {
        self.stop()?;
        self.start()
    }

    /// The address that it listens on for TCP.
    #[must_use]
    pub fn host(&self) -> &'static str {
        HOST
    }

    /// The port that it listens on; it stays the same over a restart.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its Unix socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("socket")
    }

    /// The name of the user that may do everything.
    #[must_use]
    pub fn superuser(&self) -> &str {
        ROOT
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// What the server has written since it was made, over all of its runs.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&supervisor::read(&self.log_file())).into_owned()
    }

    /// A connection string for the superuser, with its password in it; the database may be empty.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_for(ROOT, &self.password, database)
    }

    /// A connection string for somebody else.
    #[must_use]
    pub fn url_for(&self, user: &str, password: &str, database: &str) -> String {
        let (user, password, database) = (encoded(user), encoded(password), encoded(database));
        format!("mysql://{user}:{password}@{}:{}/{database}", self.host(), self.port)
    }
}

impl fmt::Debug for PrivateMariaDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.is_some();
        f.debug_struct("PrivateMariaDb").field("port", &self.port).field("running", &running).finish_non_exhaustive()
    }
}

fn option(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}
