//! [`Connection`]: the driver's connection and what its users left on it. Queries go through `executor.rs`; what the
//! marks mean stands in `track.rs`.

use std::fmt;
use std::future::Future;
use std::ops::{Deref, DerefMut};

use futures_core::future::BoxFuture;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Connection as _, SqlSafeStr, SqlStr, Transaction};
use sqlx_core::transaction::TransactionManager;
use tenantry_core::{Health, TenantId};

use crate::engine::{Engine, ending_of};
use crate::executor::tracked;
use crate::track::{Ending, Running, Track};

/// One connection to one tenant's database, which knows what its user did with it: what a lease of tenantry hands out.
///
/// `&mut Connection` is a sqlx [`Executor`](sqlx::Executor) and [`Acquire`](sqlx::Acquire), so queries are written as
/// with any other connection:
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # async fn f(lease: &mut tenantry_sqlx::Connection<sqlx::Sqlite>) -> Result<(), sqlx::Error> {
/// sqlx::query("UPDATE invoice SET paid = true WHERE id = $1").bind(7).execute(&mut *lease).await?;
///
/// let mut transaction = lease.begin().await?;
/// sqlx::query("INSERT INTO audit (what) VALUES ('paid')").execute(&mut *transaction).await?;
/// transaction.commit().await?;
/// # Ok(()) }
/// ```
///
/// # What the next user gets
///
/// A connection goes back as it is, without a round trip, only when nothing can be left on it. Otherwise it is
/// recycled first (see the factory), or closed.
///
/// | what was done | what becomes of it |
/// |---|---|
/// | one `select`, `insert`, `update`, `delete`, `with` or `values`, run to its end | given on |
/// | the same, ended by an error of the database | given on |
/// | [`begin`](Self::begin), then `commit` or `rollback` | given on |
/// | any other statement, or several in one text | recycled |
/// | a query that names a function that changes the session, see below | recycled |
/// | a query, a stream or a `begin` dropped before its end | recycled |
/// | a transaction dropped without `commit` | recycled |
/// | the driver's connection taken out with `&mut **lease` or [`acquire`](sqlx::Acquire::acquire) | recycled |
/// | [`migrate`](Self::migrate) | recycled |
/// | a transaction forgotten (`mem::forget`) | closed |
/// | an I/O, protocol or TLS error, or the server ending the session | closed |
///
/// MySQL has no way to reset a session through sqlx, so there "recycled" is "closed", but for a dropped transaction.
///
/// Functions known by name, wherever in the text they stand, are for PostgreSQL `set_config`, `pg_advisory_lock*` and
/// `pg_try_advisory_lock*` (those with `xact` in their names end with their transaction, and do not count), and the
/// view `pg_settings`, whose update sets; for MySQL `get_lock`; for SQLite `load_extension`.
///
/// **Not seen** is what happens inside a transaction, and inside functions of your own: `SET` without `LOCAL`, a
/// session-wide advisory lock or a temporary table in a transaction that is committed. Call `mark_dirty()` on the lease
/// after it, or have the factory recycle after every transaction (`recycle_after_transactions`).
pub struct Connection<DB: Engine> {
    raw: DB::Connection,
    track: Track,
    state: DB::State,
    tenant: TenantId,
    /// Whether a transaction leaves it dirty, however it ends.
    recycle_transactions: bool,
}

impl<DB: Engine> Connection<DB> {
    pub(crate) fn new(raw: DB::Connection, state: DB::State, tenant: TenantId, recycle_transactions: bool) -> Self {
        Self { raw, track: Track::default(), state, tenant, recycle_transactions }
    }

    /// The tenant whose database this is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Opens a transaction; inside of one there is `Transaction::begin`, which sets a savepoint.
    ///
    /// # Errors
    /// Whatever the database or the network says. The connection is recycled or closed before anyone else has it.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it unknown whether the transaction was opened. The connection is recycled before
    /// anyone else has it; its present user should not go on with it.
    pub fn begin(&mut self) -> impl Future<Output = Result<Transaction<'_, DB>, sqlx::Error>> + Send {
        begun::<DB, _>(&self.track, self.recycle_transactions, self.raw.begin())
    }

    /// Opens a transaction by a statement such as `BEGIN ISOLATION LEVEL SERIALIZABLE`.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and `BeginFailed` when the statement opens no transaction.
    ///
    /// # Cancel safety
    /// As [`begin`](Self::begin).
    pub fn begin_with(
        &mut self,
        statement: impl SqlSafeStr,
    ) -> impl Future<Output = Result<Transaction<'_, DB>, sqlx::Error>> + Send {
        begun::<DB, _>(&self.track, self.recycle_transactions, self.raw.begin_with(statement.into_sql_str()))
    }

    /// Runs the migrations that this database does not have yet, as [`Migrator::run`] does, whose own future cannot be
    /// spawned. A migration may leave anything on the session, so the connection is recycled afterwards.
    ///
    /// # Errors
    /// [`MigrateError`], as from [`Migrator::run`].
    ///
    /// # Cancel safety
    /// A migration under way is rolled back, if it is of the kind that runs in a transaction and the database can roll
    /// back what it does.
    pub fn migrate<'a>(&'a mut self, migrator: &'a Migrator) -> BoxFuture<'a, Result<(), MigrateError>> {
        let Self { raw, track, .. } = self;
        Box::pin(async move {
            let mut running = Running::new(track);
            running.start();
            track.mark_dirty();
            let result = DB::migrate(raw, migrator).await;
            running.end(match &result {
                Err(MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _)) => ending_of::<DB>(error),
                _ => Ending::Clean,
            });
            result
        })
    }

    /// Asks the server for an answer: one round trip.
    ///
    /// # Errors
    /// When there is none.
    ///
    /// # Cancel safety
    /// Dropping the future leaves an answer unread; the connection is recycled before anyone else has it.
    pub fn ping(&mut self) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        tracked::<DB, _>(&self.track, self.raw.ping())
    }

    /// Opens a transaction that nothing borrows, for `transaction.rs`.
    pub(crate) fn open_transaction(
        &mut self,
        statement: Option<SqlStr>,
    ) -> impl Future<Output = Result<(), sqlx::Error>> + Send {
        let begin = DB::TransactionManager::begin(&mut self.raw, statement);
        begun::<DB, _>(&self.track, self.recycle_transactions, begin)
    }

    /// What the connection is fit for, without a round trip.
    pub(crate) fn health(&self) -> Health {
        match self.track.health(DB::ABANDONED, DB::CHANGED) {
            verdict @ (Health::Lost | Health::Broken) => verdict,
            _ if self.raw.is_in_transaction() => DB::OPEN_TRANSACTION,
            // The ROLLBACK of a dropped transaction is written, but not sent, until the next use.
            Health::Clean if self.raw.should_flush() => Health::Dirty,
            verdict => verdict,
        }
    }

    /// The driver's connection without a mark, for the factory.
    pub(crate) fn parts(&mut self) -> (&mut DB::Connection, &Track) {
        (&mut self.raw, &self.track)
    }

    pub(crate) fn state(&self) -> &DB::State {
        &self.state
    }

    pub(crate) fn into_raw(self) -> DB::Connection {
        self.raw
    }
}

/// Runs a `begin` of the driver's. Until it resolves nobody knows whether there is a transaction, the driver included:
/// its depth says 0 and its buffer is empty, while the server may be inside of one.
async fn begun<DB: Engine, T>(
    track: &Track,
    recycle: bool,
    begin: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let mut running = Running::new(track);
    running.start();
    let result = begin.await;
    if recycle || result.is_err() {
        track.mark_dirty();
    }
    running.end(result.as_ref().map_or_else(ending_of::<DB>, |_| Ending::Clean));
    result
}

impl<DB: Engine> Deref for Connection<DB> {
    type Target = DB::Connection;

    fn deref(&self) -> &DB::Connection {
        &self.raw
    }
}

/// The way to the driver's own connection, for code that takes `&mut PgConnection`: pass `&mut **lease`. What is done
/// through it is not seen, so the connection is recycled afterwards.
impl<DB: Engine> DerefMut for Connection<DB> {
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.track.mark_dirty();
        &mut self.raw
    }
}

impl<DB: Engine> fmt::Debug for Connection<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("database", &DB::NAME)
            .field("tenant", &self.tenant)
            .field("health", &self.health())
            .finish_non_exhaustive()
    }
}
