//! A PostgreSQL server of the test's own: [`PrivatePostgres`]. Its process is in `supervisor.rs`.

mod encryption;
mod initdb;
mod installation;
#[cfg(test)]
mod tests;
mod trouble;

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

use super::account::Account;
use super::certificate::Certificate;
use super::place::{HOST, PORTS_TRIED, encoded, folder, free_port};
use super::supervisor::{self, Signals, Stop, Supervised};
use super::template::Failed;
use initdb::SUPERUSER;
use installation::Installation;

pub use trouble::Strangers;

/// What a server writes when it can be connected to.
const READY: &str = "database system is ready to accept connections";

/// How long a start may take; generous, as a machine that runs tests is busy.
const START_WITHIN: Duration = Duration::from_secs(60);

/// SIGINT is its fast shutdown, SIGQUIT its immediate one.
const SIGNALS: Signals = Signals { fast: "INT", immediate: "QUIT" };

/// Why there is no server. A test that needs one fails with it; it never skips.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PostgresError {
    /// PostgreSQL's server programs are not on this machine.
    #[error(
        "PostgreSQL's server programs (initdb, postgres, pg_ctl) are not in {searched}; install them: package \
         `postgresql` on Debian and in Homebrew, `postgresql-server` on Fedora"
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
    /// The server runs, and refused a statement.
    #[error("the server refused a statement")]
    Sql(#[from] tokio_postgres::Error),
}

impl PostgresError {
    fn setup(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Setup { doing, source }
    }
}

impl From<Failed> for PostgresError {
    fn from(Failed { doing, source }: Failed) -> Self {
        Self::Setup { doing, source }
    }
}

/// A role to make when the server starts: it may log in, and nothing else unless it is told.
///
/// A login is a SCRAM exchange, which costs the client thousands of hashes, 40 ms without optimisation. Where a test
/// logs in again and again, the server's setting `password_encryption = md5` makes it cheap.
#[derive(Clone)]
pub struct Role {
    name: String,
    password: String,
    connection_limit: Option<u32>,
    create_databases: bool,
}

impl Role {
    /// A role without a limit of its own.
    pub fn new(name: impl Into<String>, password: impl Into<String>) -> Self {
        Self { name: name.into(), password: password.into(), connection_limit: None, create_databases: false }
    }

    /// `CONNECTION LIMIT`: how many connections it may have at once. Past it the server answers with SQLSTATE 53300.
    #[must_use]
    pub fn connection_limit(mut self, limit: u32) -> Self {
        self.connection_limit = Some(limit);
        self
    }

    /// `CREATEDB`: it may create databases.
    #[must_use]
    pub fn create_databases(mut self) -> Self {
        self.create_databases = true;
        self
    }

    fn statement(&self) -> String {
        let limit = self.connection_limit.map(|limit| format!(" CONNECTION LIMIT {limit}")).unwrap_or_default();
        let create = if self.create_databases { " CREATEDB" } else { "" };
        let (name, password) = (identifier(&self.name), literal(&self.password));
        format!("CREATE ROLE {name} LOGIN{create}{limit} PASSWORD {password}")
    }
}

impl fmt::Debug for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Role").field("name", &self.name).field("limit", &self.connection_limit).finish_non_exhaustive()
    }
}

/// What a server is to be like: see [`PrivatePostgres::builder`].
#[derive(Debug, Clone)]
pub struct PostgresBuilder {
    settings: Vec<(String, String)>,
    roles: Vec<Role>,
    certificate: Option<Certificate>,
}

impl PostgresBuilder {
    /// The server's `max_connections`; 100 by default. PostgreSQL keeps 3 of them for superusers
    /// (`superuser_reserved_connections`).
    #[must_use]
    pub fn max_connections(self, max: u32) -> Self {
        self.setting("max_connections", &max.to_string())
    }

    /// Any setting of `postgresql.conf`. A later one wins.
    #[must_use]
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A role to make.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.roles.push(role);
        self
    }

    /// Makes the server, starts it and waits until it can be connected to. Blocks for some tenths of a second; the
    /// first one on a machine takes a second longer.
    ///
    /// # Errors
    /// [`PostgresError`] when PostgreSQL is not installed, does not start, or refuses a setting or a role.
    pub fn start(self) -> Result<PrivatePostgres, PostgresError> {
        let mut server = PrivatePostgres::prepare(self.settings)?;
        server.own_certificate(self.certificate.as_ref())?;
        server.start_first()?;
        server.make_roles(&self.roles)?;
        Ok(server)
    }
}

/// A PostgreSQL server of the test's own, in a temporary folder, on a free port of 127.0.0.1 and on a Unix socket.
///
/// Dropping it stops the server at once and removes the folder; so does the end of the process, in whatever way.
/// It is fast rather than safe: `fsync` is off, so what was committed outlives a crash of the server and not one of the
/// machine. A test that is root runs it as the user `postgres`, else `nobody`.
/// Its folder is in memory where Linux has some gigabytes of that for files (`/dev/shm`) and `TMPDIR` is not set.
/// One archive of about 30 MB stays in the system's folder for temporary files, from which the next one starts.
///
/// ```no_run
/// # #[tokio::main] async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use tenantry_testkit::PrivatePostgres;
/// use tenantry_testkit::servers::Role;
///
/// let server = PrivatePostgres::builder().max_connections(20).role(Role::new("app", "secret").connection_limit(5)).start()?;
/// server.run("postgres", "CREATE DATABASE acme").await?;
/// println!("{}", server.url_for("app", "secret", "acme"));
/// # Ok(()) }
/// ```
pub struct PrivatePostgres {
    installation: Installation,
    account: Account,
    // Before `folder`, as its end comes first.
    running: Option<Supervised>,
    folder: TempDir,
    settings: Vec<(String, String)>,
    port: u16,
    password: String,
    /// Its processes are stopped where they are.
    frozen: bool,
}

impl PrivatePostgres {
    /// A server with PostgreSQL's own settings but for speed.
    #[must_use]
    pub fn builder() -> PostgresBuilder {
        let settings = [
            ("fsync", "off"),
            ("full_page_writes", "off"),
            ("shared_buffers", "16MB"),
            ("max_wal_senders", "0"),
            ("wal_level", "minimal"),
            ("autovacuum", "off"),
            ("logging_collector", "off"),
            ("log_destination", "stderr"),
            ("log_line_prefix", "%m [%p] %q%u@%d "),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        PostgresBuilder { settings, roles: Vec::new(), certificate: None }
    }

    /// [`builder`](Self::builder) and [`start`](PostgresBuilder::start) in one.
    ///
    /// # Errors
    /// As there.
    pub fn new() -> Result<Self, PostgresError> {
        Self::builder().start()
    }

    fn prepare(settings: Vec<(String, String)>) -> Result<Self, PostgresError> {
        let setup = PostgresError::setup("make the server's folder");
        let not_installed = || PostgresError::NotInstalled { searched: Installation::places() };
        let installation = Installation::find().ok_or_else(not_installed)?;
        let folder = folder("tenantry-pg-", ".s.PGSQL.65535.lock").map_err(&setup)?;
        let account = Account::pick(folder.path(), "postgres");
        let account = account.map_err(PostgresError::setup("find a user to run the server"))?;
        account.own(folder.path()).map_err(&setup)?;
        let (port, password) = (0, String::new());
        Ok(Self { installation, account, running: None, folder, settings, port, password, frozen: false })
    }

    /// The first start, which makes the data and looks for a free port.
    fn start_first(&mut self) -> Result<(), PostgresError> {
        self.password = initdb::unpack(self.folder.path(), &self.installation, self.account)?;
        let mut tried = 1;
        loop {
            self.port = free_port().map_err(PostgresError::setup("find a free port"))?;
            match self.start() {
                Err(PostgresError::DidNotStart { log }) if tried < PORTS_TRIED && log.contains("could not bind") => {
                    tried += 1;
                }
                answer => return answer,
            }
        }
    }

    /// Starts the server after a stop, on the same port with the same data; nothing if it runs. Blocks until it can be
    /// connected to.
    ///
    /// # Errors
    /// [`PostgresError::DidNotStart`] with what the server wrote.
    pub fn start(&mut self) -> Result<(), PostgresError> {
        if self.running.is_some() {
            return Ok(());
        }
        let folder = self.folder.path();
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let mut words = vec![path(&self.installation.program("postgres")), "-D".into(), path(&folder.join("data"))];
        let (socket, port) = (path(folder), self.port.to_string());
        let own = [("listen_addresses", HOST), ("port", &port), ("unix_socket_directories", &socket)];
        let given = self.settings.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in given.chain(own) {
            words.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        let shell = self.account.command("/bin/sh");
        let log = self.log_file();
        let started = Supervised::start_until(shell, folder, &log, SIGNALS, &words, READY, START_WITHIN)?;
        self.running = Some(started.map_err(|log| PostgresError::DidNotStart { log })?);
        Ok(())
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    /// Stops the server as a crash would: every connection breaks, nothing is written. Blocks until its last process
    /// is gone; nothing if it is stopped.
    ///
    /// # Errors
    /// [`PostgresError::Setup`] when the system does not let it be stopped.
    pub fn stop_immediate(&mut self) -> Result<(), PostgresError> {
        self.stop_by(Stop::Immediate)
    }

    /// Stops the server in order: sessions are ended with SQLSTATE 57P01, transactions rolled back. Blocks until its
    /// last process is gone; nothing if it is stopped.
    ///
    /// # Errors
    /// [`PostgresError::Setup`] when the system does not let it be stopped.
    pub fn stop(&mut self) -> Result<(), PostgresError> {
        self.stop_by(Stop::Fast)
    }

    fn stop_by(&mut self, how: Stop) -> Result<(), PostgresError> {
        self.thaw()?;
        let stopped = self.running.take().map_or(Ok(()), |running| running.stop(how));
        stopped.map_err(PostgresError::setup("stop the server"))
    }

    /// [`stop`](Self::stop), then [`start`](Self::start).
    ///
    /// # Errors
    /// As there.
    pub fn restart(&mut self) -> Result<(), PostgresError> {
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

    /// The folder with its Unix socket, which drivers take as a host.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        self.folder.path()
    }

    /// The superuser's name.
    #[must_use]
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// The superuser's password.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// What the server has written since it was made, over all of its runs. What it writes about a statement is there
    /// before its answer is.
    #[must_use]
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&supervisor::read(&self.log_file())).into_owned()
    }

    /// A connection string for the superuser, with its password in it.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        self.url_for(SUPERUSER, &self.password, database)
    }

    /// A connection string for somebody else.
    #[must_use]
    pub fn url_for(&self, role: &str, password: &str, database: &str) -> String {
        let (role, password, database) = (encoded(role), encoded(password), encoded(database));
        format!("postgres://{role}:{password}@{}:{}/{database}", self.host(), self.port)
    }

    /// What the superuser connects with.
    #[must_use]
    pub fn config(&self, database: &str) -> Config {
        let mut config = Config::new();
        config.host(self.host()).port(self.port).user(SUPERUSER).password(&self.password).dbname(database);
        config
    }

    /// Runs statements as the superuser, on a connection of their own.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] with what the server said.
    ///
    /// # Cancel safety
    /// A statement that is dropped half-way may still be carried out.
    pub async fn run(&self, database: &str, statements: &str) -> Result<(), PostgresError> {
        let (client, connection) = connect(&self.config(database)).await?;
        let ran = client.batch_execute(statements).await;
        drop(client);
        // It ends with the client; only its own error, if any, is of interest, and that is in `ran` too.
        let _ = connection.await;
        Ok(ran?)
    }

    /// Works outside and inside of a runtime alike, so it needs a thread for one of its own.
    fn make_roles(&self, roles: &[Role]) -> Result<(), PostgresError> {
        if roles.is_empty() {
            return Ok(());
        }
        let statements: Vec<_> = roles.iter().map(Role::statement).collect();
        let make = || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(PostgresError::setup("start a runtime"))?;
            runtime.block_on(self.run(SUPERUSER, &statements.join(";")))
        };
        let made = std::thread::scope(|scope| scope.spawn(make).join());
        made.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        // What is frozen does not hear that it is to end, until the postmaster loses its patience after 5 s.
        let _ = self.thaw();
    }
}

impl fmt::Debug for PrivatePostgres {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let running = self.running.is_some();
        f.debug_struct("PrivatePostgres").field("port", &self.port).field("running", &running).finish_non_exhaustive()
    }
}

pub(crate) type Connecting = tokio::task::JoinHandle<Result<(), tokio_postgres::Error>>;

/// A client, and the task that drives it.
pub(crate) async fn connect(config: &Config) -> Result<(Client, Connecting), tokio_postgres::Error> {
    let (client, connection) = config.connect(NoTls).await?;
    Ok((client, tokio::spawn(connection)))
}

fn identifier(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}
