//! [`SqliteFactory`]: one SQLite file per tenant in one folder. How a connection is cleaned stands in
//! `sqlite/session.rs`, how files are named in the core's `names.rs`.

mod provision;
mod session;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{ConnectOptions, Connection as _, Sqlite};
use tenantry_core::names::{encoded_file_stem, file_stem};
use tenantry_core::{Capacity, FailureKind, Health, NativePool, PoolFactory, ServerCapacity, TenantId};

use crate::connection::Connection;
use crate::engine::{Driver, forward_to_driver};
use crate::error::{During, Error};
use crate::handle::SqlxFactory;
use crate::hook::{Hook, close_pool, pool_options};
use crate::statement::Syntax;
use crate::track::Ending;

use session::Session;

/// Opens one SQLite file per tenant: `<tenant>.db` in one folder.
///
/// # Names
/// The file's name is the tenant's: `a-z`, `0-9`, `-`, `_`, and inside of it `.` and a space; at most 244 bytes.
/// Everything else is [`Error::InvalidName`], so that no two tenants share a file on any file system, and none leaves the
/// folder. Keys with upper case or other characters need [`encoded_names`](Self::encoded_names).
///
/// # Settings of a connection
/// Write-ahead log, foreign keys on, a busy timeout of 5 s, and never `create_if_missing`;
/// [`connect_options`](Self::connect_options) changes all but the last.
///
/// # Between two users
/// A connection that is not clean (see [`Connection`]) is recycled: a statement still running is interrupted, an open
/// transaction is rolled back, and the connection's settings, attached databases, temporary objects and collations are
/// compared with how it was opened. What differs is undone; where that fails, the connection is closed. Handlers and
/// functions set through `lock_handle` cannot be compared: after those, call `discard()` on the lease.
///
/// # How many per tenant
/// One, unless the builder says otherwise: SQLite has one writer at a time anyway, and with several connections to
/// one file, closing some of them keeps their descriptors open until the last is closed.
///
/// ```
/// use tenantry_sqlx::SqliteFactory;
///
/// let factory = SqliteFactory::new("/var/lib/shop/tenants")
///     .connect_options(|options| options.synchronous(sqlx::sqlite::SqliteSynchronous::Normal))
///     .after_connect(|connection, _tenant| {
///         Box::pin(async move {
///             sqlx::raw_sql("PRAGMA cache_size = -8000").execute(connection).await?;
///             Ok(())
///         })
///     });
/// ```
#[derive(Clone)]
pub struct SqliteFactory {
    directory: PathBuf,
    options: SqliteConnectOptions,
    encoded_names: bool,
    recycle_transactions: bool,
    after_connect: Option<Hook<Sqlite>>,
    pool_options: SqlitePoolOptions,
    /// Held while a file is made or dropped; see `provision.rs`.
    provisioning: Arc<tokio::sync::Mutex<()>>,
}

impl SqliteFactory {
    /// A factory for the files in `directory`. Touches no file: `create` makes the folder when it is missing, and a
    /// connect to a folder that does not exist fails as [`FailureKind::Unreachable`].
    #[must_use]
    pub fn new(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        Self {
            // An absolute path neither moves with the working directory nor looks like a `file:` URL to SQLite.
            directory: std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned()),
            options: SqliteConnectOptions::new()
                .journal_mode(SqliteJournalMode::Wal)
                .foreign_keys(true)
                .busy_timeout(Duration::from_secs(5)),
            encoded_names: false,
            recycle_transactions: false,
            after_connect: None,
            pool_options: SqlitePoolOptions::new(),
            provisioning: Arc::default(),
        }
    }

    /// Changes the options that every connection is opened with. `filename` and `create_if_missing` are the factory's
    /// and overwritten.
    #[must_use]
    pub fn connect_options(mut self, change: impl FnOnce(SqliteConnectOptions) -> SqliteConnectOptions) -> Self {
        self.options = change(self.options);
        self
    }

    /// Takes any tenant's name, and writes what is not allowed in a file's name as `%` and two hexadecimal digits: `Acme`
    /// is then `%41cme.db`. Default: off. Names that are allowed anyway keep their files.
    #[must_use]
    pub fn encoded_names(mut self, on: bool) -> Self {
        self.encoded_names = on;
        self
    }

    /// Runs on each new connection, of pools too, before anyone has it: for `PRAGMA`s and the like. What it sets is
    /// what later users find. An error of it closes the connection.
    #[must_use]
    pub fn after_connect<H>(mut self, hook: H) -> Self
    where
        H: for<'c> Fn(&'c mut SqliteConnection, &'c TenantId) -> BoxFuture<'c, Result<(), sqlx::Error>>
            + Send
            + Sync
            + 'static,
    {
        self.after_connect = Some(Arc::new(hook));
        self
    }

    /// Whether a connection is recycled after every transaction, resolved ones too: some 0.1 ms each. For code that may
    /// attach databases, set `PRAGMA`s or make temporary tables inside of transactions, which nobody sees there. Default:
    /// no; such code calls `mark_dirty()` on its lease.
    #[must_use]
    pub fn recycle_after_transactions(mut self, on: bool) -> Self {
        self.recycle_transactions = on;
        self
    }

    /// Changes the options of pools opened by `acquire_pool`. `max_connections` is overwritten there, and
    /// `after_connect` by the factory's hook if there is one.
    #[must_use]
    pub fn pool_options(mut self, change: impl FnOnce(SqlitePoolOptions) -> SqlitePoolOptions) -> Self {
        self.pool_options = change(self.pool_options);
        self
    }

    /// The tenant's file, whether or not it exists.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn file(&self, tenant: &TenantId) -> Result<PathBuf, Error> {
        let stem = if self.encoded_names { encoded_file_stem(tenant.as_str()) } else { file_stem(tenant.as_str()) }?;
        Ok(self.directory.join(format!("{stem}.db")))
    }

    /// Opens one connection of the driver's and runs the hook.
    async fn open(&self, file: &Path, tenant: &TenantId) -> Result<SqliteConnection, Error> {
        let options = self.options.clone().filename(file).create_if_missing(false);
        let mut raw = match options.connect().await {
            Ok(raw) => raw,
            Err(source) => return Err(self.why_not_open(file, source).await),
        };
        if let Some(hook) = &self.after_connect
            && let Err(source) = hook(&mut raw, tenant).await
        {
            let _ = raw.close().await;
            return Err(Error::Sqlx { during: During::AfterConnect, source });
        }
        Ok(raw)
    }

    /// SQLite has one code for all reasons why a file cannot be opened, so the file system is asked.
    async fn why_not_open(&self, file: &Path, source: sqlx::Error) -> Error {
        match tokio::fs::try_exists(file).await {
            Ok(false) => match tokio::fs::metadata(&self.directory).await {
                Ok(_) => Error::NoSuchTenant { source: Some(source) },
                // A folder that is not there (a volume not mounted) is no reason to forget all tenants.
                Err(source) => Error::File { during: During::Connect, source },
            },
            _ => Error::Sqlx { during: During::Connect, source },
        }
    }
}

impl fmt::Debug for SqliteFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the options: a PRAGMA may hold the key of an encrypted database.
        f.debug_struct("SqliteFactory")
            .field("directory", &self.directory)
            .field("encoded_names", &self.encoded_names)
            .field("after_connect", &self.after_connect.is_some())
            .finish_non_exhaustive()
    }
}

impl SqlxFactory for SqliteFactory {
    type Database = Sqlite;
}

impl PoolFactory for SqliteFactory {
    type Connection = Connection<Sqlite>;
    type Error = Error;

    async fn connect(&self, tenant: &TenantId) -> Result<Connection<Sqlite>, Error> {
        let file = self.file(tenant)?;
        let mut raw = self.open(&file, tenant).await?;
        match Session::begin(&mut raw, file).await {
            Ok(session) => Ok(Connection::new(raw, session, tenant.clone(), self.recycle_transactions)),
            Err(source) => {
                let _ = raw.close().await;
                Err(Error::Sqlx { during: During::Connect, source })
            }
        }
    }

    fn health(&self, connection: &mut Connection<Sqlite>) -> Health {
        connection.health()
    }

    async fn recycle(&self, connection: &mut Connection<Sqlite>) -> Result<(), Error> {
        session::recycle(connection).await
    }

    async fn close(&self, connection: Connection<Sqlite>, within: Duration) {
        // Past `within` the connection is dropped: its thread then closes the file once it is done.
        let _ = tokio::time::timeout(within, session::close(connection)).await;
    }

    fn classify(&self, error: &Error) -> FailureKind {
        match error {
            Error::InvalidName(_) => FailureKind::InvalidName,
            Error::NoSuchTenant { .. } => FailureKind::NoSuchTenant,
            Error::File { .. } => FailureKind::Unreachable,
            Error::Sqlx { source: sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed, .. } => FailureKind::Unreachable,
            Error::Sqlx { .. } => match error.code().as_deref().and_then(primary_code) {
                Some(SQLITE_IOERR | SQLITE_CANTOPEN) => FailureKind::Unreachable,
                Some(SQLITE_PERM | SQLITE_AUTH) => FailureKind::Auth,
                _ => FailureKind::Other,
            },
            Error::LeftBehind { .. } | Error::Resolver(_) => FailureKind::Other,
        }
    }

    fn max_per_tenant(&self) -> Option<u32> {
        Some(1)
    }
}

/// There is no server, and so no limit: every budget fits. What the operating system allows of open files is not looked at.
impl Capacity for SqliteFactory {
    async fn capacity(&self, _: &mut Connection<Sqlite>) -> Result<ServerCapacity, Error> {
        Ok(ServerCapacity::default())
    }
}

impl NativePool for SqliteFactory {
    type Pool = SqlitePool;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<SqlitePool, Error> {
        let file = self.file(tenant)?;
        // One connection first, for an error that says what is wrong: the pool would try again for half a minute.
        let first = self.open(&file, tenant).await?;
        let _ = first.close().await;

        let options = pool_options(self.pool_options.clone(), max, self.after_connect.clone(), tenant);
        Ok(options.connect_lazy_with(self.options.clone().filename(file).create_if_missing(false)))
    }

    async fn close_pool(&self, pool: SqlitePool) {
        close_pool(&pool).await;
    }
}

const SQLITE_PERM: i32 = 3;
const SQLITE_NOMEM: i32 = 7;
const SQLITE_IOERR: i32 = 10;
const SQLITE_CORRUPT: i32 = 11;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_AUTH: i32 = 23;
const SQLITE_NOTADB: i32 = 26;
const SQLITE_READONLY_DBMOVED: i32 = 8 | 4 << 8;

/// sqlx gives the extended result code; its low byte is the primary one.
fn primary_code(code: &str) -> Option<i32> {
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

impl Driver for Sqlite {
    type State = Session;

    const SYNTAX: Syntax = Syntax::SQLITE;

    const ABANDONED: Health = Health::Dirty;
    const CHANGED: Health = Health::Dirty;
    const OPEN_TRANSACTION: Health = Health::Dirty;

    fn ending(error: &dyn sqlx::error::DatabaseError) -> Ending {
        let code = error.code().and_then(|code| code.parse::<i32>().ok()).unwrap_or_default();
        match code & 0xff {
            // The file or the memory failed, or the file was moved: this connection is not to be trusted. Never
            // `Lost`, since one tenant's file says nothing about another's.
            SQLITE_NOMEM | SQLITE_IOERR | SQLITE_CORRUPT | SQLITE_CANTOPEN | SQLITE_NOTADB => Ending::Broken,
            _ if code == SQLITE_READONLY_DBMOVED => Ending::Broken,
            _ => Ending::Clean,
        }
    }

    forward_to_driver!(Sqlite, SqliteConnection);
}
