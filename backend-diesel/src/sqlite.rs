//! [`SqliteFactory`]: one SQLite file per tenant in one folder. How a connection is judged and cleaned stands in
//! `sqlite/connection.rs`, how files are named in the core's `names.rs`.

mod connection;
mod open;
mod pool;
mod provision;
mod runtime;
mod watch;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use diesel::QueryResult;
use tenantry_core::names::{encoded_file_stem, file_stem};
use tenantry_core::{Capacity, FailureKind, Health, PoolFactory, ServerCapacity, TenantId};

use crate::error::Error;

pub use connection::SqliteConnection;
pub use runtime::SqliteRuntime;

use open::Opener;

/// Opens one SQLite file per tenant: `<tenant>.db` in one folder. They are the files of the same tenants that the factory of
/// `tenantry-sqlx` opens, so a service may use both (see `EitherFactory` in tenantry).
///
/// # Names
/// The file's name is the tenant's: `a-z`, `0-9`, `-`, `_`, and inside of it `.` and a space; at most 244 bytes.
/// Everything else is [`Error::InvalidName`], so that no two tenants share a file on any file system, and none leaves the
/// folder. Keys with upper case or other characters need [`encoded_names`](Self::encoded_names).
///
/// # Settings of a connection
/// Write-ahead log, foreign keys on, a busy timeout of 5 s; [`after_connect`](Self::after_connect) changes them. A file is
/// never made by connecting.
///
/// # Between two users
/// A connection that is not clean (see [`SqliteConnection`]) is recycled: an open transaction is rolled back, and where more than
/// that may have been left, the file is closed and opened anew, which takes about as long. SQLite works on a thread of its
/// own and diesel cannot interrupt it there: a statement that nobody waits for any more is waited for.
///
/// # How many per tenant
/// One, unless the builder says otherwise: SQLite has one writer at a time anyway, and with several connections to
/// one file, closing some of them keeps their descriptors open until the last is closed.
///
/// # The library
/// SQLite is built into the program (`libsqlite3-sys` with `bundled`). There is one in a program: `tenantry-sqlx` has the same.
///
/// ```
/// use diesel::connection::SimpleConnection;
/// use tenantry_diesel::SqliteFactory;
///
/// let factory = SqliteFactory::new("/var/lib/shop/tenants")
///     .after_connect(|connection, _tenant| connection.batch_execute("PRAGMA cache_size = -8000"));
/// ```
#[derive(Clone)]
pub struct SqliteFactory {
    opener: Opener,
    encoded_names: bool,
}

impl SqliteFactory {
    /// A factory for the files in `directory`. Touches no file: `create` makes the folder when it is missing, and a
    /// connect to a folder that does not exist fails as [`FailureKind::Unreachable`].
    #[must_use]
    pub fn new(directory: impl AsRef<Path>) -> Self {
        let directory = directory.as_ref();
        // An absolute path does not move with the working directory.
        let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
        Self { opener: Opener { directory: directory.into(), after_connect: None }, encoded_names: false }
    }

    /// Takes any tenant's name, and writes what is not allowed in a file's name as `%` and two hexadecimal digits: `Acme`
    /// is then `%41cme.db`. Default: off. Names that are allowed anyway keep their files.
    #[must_use]
    pub fn encoded_names(mut self, on: bool) -> Self {
        self.encoded_names = on;
        self
    }

    /// Runs on each new connection before anyone has it: for `PRAGMA`s, functions and collations. What it sets is what later
    /// users find. It runs on a thread that may block. An error of it closes the connection.
    #[must_use]
    pub fn after_connect<H>(mut self, hook: H) -> Self
    where
        H: Fn(&mut diesel::SqliteConnection, &TenantId) -> QueryResult<()> + Send + Sync + 'static,
    {
        self.opener.after_connect = Some(Arc::new(hook));
        self
    }

    /// The tenant's file, whether or not it exists.
    ///
    /// # Errors
    /// [`Error::InvalidName`].
    pub fn file(&self, tenant: &TenantId) -> Result<PathBuf, Error> {
        let stem = if self.encoded_names { encoded_file_stem(tenant.as_str()) } else { file_stem(tenant.as_str()) }?;
        Ok(self.opener.directory.join(format!("{stem}.db")))
    }
}

impl fmt::Debug for SqliteFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteFactory")
            .field("directory", &self.opener.directory)
            .field("encoded_names", &self.encoded_names)
            .field("after_connect", &self.opener.after_connect.is_some())
            .finish()
    }
}

impl PoolFactory for SqliteFactory {
    type Connection = SqliteConnection;
    type Error = Error;

    async fn connect(&self, tenant: &TenantId) -> Result<SqliteConnection, Error> {
        SqliteConnection::open(self.opener.clone(), self.file(tenant)?, tenant.clone()).await
    }

    fn health(&self, connection: &mut SqliteConnection) -> Health {
        connection.health()
    }

    async fn recycle(&self, connection: &mut SqliteConnection) -> Result<(), Error> {
        connection.recycle().await
    }

    async fn close(&self, connection: SqliteConnection, within: Duration) {
        // Past `within` the connection is dropped: its thread then closes the file once it is done.
        let _ = tokio::time::timeout(within, connection.close()).await;
    }

    fn classify(&self, error: &Error) -> FailureKind {
        match error {
            Error::InvalidName(_) => FailureKind::InvalidName,
            Error::NoSuchTenant => FailureKind::NoSuchTenant,
            Error::File { .. } | Error::Lost | Error::SetUp(diesel::ConnectionError::BadConnection(_)) => {
                FailureKind::Unreachable
            }
            _ => FailureKind::Other,
        }
    }

    fn max_per_tenant(&self) -> Option<u32> {
        Some(1)
    }
}

/// There is no server, and so no limit: every budget fits. What the operating system allows of open files is not looked at.
impl Capacity for SqliteFactory {
    async fn capacity(&self, _: &mut SqliteConnection) -> Result<ServerCapacity, Error> {
        Ok(ServerCapacity::default())
    }
}
