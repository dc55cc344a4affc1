//! [`SqliteConnection`]: diesel's connection on a thread that may block, with what is known of its use.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::path::PathBuf;
use std::sync::Arc;

use diesel::connection::{AnsiTransactionManager, SimpleConnection as _};
use diesel::{Connection as _, QueryResult};
use diesel_async::sync_connection_wrapper::{SyncConnectionWrapper, SyncTransactionManagerWrapper};
use diesel_async::{AsyncConnection as _, TransactionManager as _};
use tenantry_core::{Health, TenantId};

use super::open::{Opener, is_there};
use super::runtime::{SqliteRuntime, State};
use crate::error::{During, Error};

type Inner = SyncConnectionWrapper<diesel::SqliteConnection, SqliteRuntime>;
type Transactions = SyncTransactionManagerWrapper<AnsiTransactionManager>;

/// A connection to one tenant's file: a [`SyncConnectionWrapper`], to which it derefs, so that everything of diesel-async works
/// on a lease of it.
///
/// # What is seen of its use
/// Each statement is read along by diesel's instrumentation. So an open transaction (of `transaction()` or of SQL text),
/// work that is still under way after its future was dropped, and statements that may leave something on the connection
/// (`PRAGMA`, `ATTACH`, `CREATE`, several in one text, ...) make it [`Health::Dirty`]: it is cleaned before the next user has
/// it. So does whatever is done in `spawn_blocking` without a statement, and everything after `set_instrumentation`, since
/// nobody reads along then. Set an instrumentation for all connections instead (diesel's `set_default_instrumentation`): that
/// one is told everything.
///
/// Not seen is what is done beside statements in one `spawn_blocking`, such as the registration of a function. Say it with the
/// lease's `mark_dirty()`, or do it in the factory's [`after_connect`](crate::SqliteFactory::after_connect).
pub struct SqliteConnection {
    inner: Inner,
    state: Arc<State>,
    opener: Opener,
    file: PathBuf,
    tenant: TenantId,
}

impl Deref for SqliteConnection {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.inner
    }
}

impl DerefMut for SqliteConnection {
    fn deref_mut(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl fmt::Debug for SqliteConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteConnection").field("state", &self.state).finish_non_exhaustive()
    }
}

impl SqliteConnection {
    pub(super) async fn open(opener: Opener, file: PathBuf, tenant: TenantId) -> Result<Self, Error> {
        let work = move || {
            let state = Arc::default();
            let connection = opener.open(&file, &tenant, &state)?;
            Ok::<_, Error>((connection, state, opener, file, tenant))
        };
        let opened = tokio::task::spawn_blocking(work).await.map_err(|_| Error::Lost)?;
        let (connection, state, opener, file, tenant) = opened?;
        let inner = SyncConnectionWrapper::with_runtime(connection, SqliteRuntime::new(Arc::clone(&state)));
        Ok(Self { inner, state, opener, file, tenant })
    }

    /// Runs `work` in a transaction that may write from its beginning (`BEGIN IMMEDIATE`), so that it waits for other writers
    /// before it has read anything, and never has to be begun again for their sake. `transaction()` begins to write
    /// with its first statement that does.
    ///
    /// # Errors
    /// Those of `work`, upon which the transaction is rolled back; those of its begin and its end; and an error where there
    /// is one open already.
    ///
    /// # Cancel safety
    /// A future that is dropped half-way leaves the transaction open. Whoever has the lease then meets it; it is rolled back
    /// before the next user has the connection.
    pub async fn immediate_transaction<R, E, W>(&mut self, work: W) -> Result<R, E>
    where
        W: AsyncFnOnce(&mut Self) -> Result<R, E>,
        E: From<diesel::result::Error>,
    {
        let begin =
            self.inner.spawn_blocking(|raw| AnsiTransactionManager::begin_transaction_sql(raw, "BEGIN IMMEDIATE"));
        begin.await?;
        match work(self).await {
            Ok(done) => {
                Transactions::commit_transaction(&mut self.inner).await?;
                Ok(done)
            }
            Err(error) => {
                Transactions::rollback_transaction(&mut self.inner).await?;
                Err(error)
            }
        }
    }

    pub(super) fn health(&mut self) -> Health {
        // Work that is under way has a hand on the connection, so this is first.
        if self.state.is_at_work() || self.state.is_marked() || self.state.is_open() {
            return Health::Dirty;
        }
        match Transactions::transaction_manager_status_mut(&mut self.inner).transaction_depth() {
            Ok(None) => Health::Clean,
            _ => Health::Dirty,
        }
    }

    /// Makes it fit for its next user, or fails, upon which it is closed.
    pub(super) async fn recycle(&mut self) -> Result<(), Error> {
        self.state.settled().await;
        if self.state.is_marked() {
            return self.open_anew().await;
        }
        self.inner.spawn_blocking(roll_back).await.map_err(Error::Recycle)?;
        match is_there(&self.file).await {
            Ok(true) => {}
            Ok(false) => return Err(Error::NoSuchTenant),
            Err(source) => return Err(Error::File { during: During::Recycle, source }),
        }
        *self.inner.transaction_state() = AnsiTransactionManager::default();
        self.state.unmark();
        Ok(())
    }

    /// Closes the file and opens it again.
    async fn open_anew(&mut self) -> Result<(), Error> {
        let (opener, file, tenant, state) =
            (self.opener.clone(), self.file.clone(), self.tenant.clone(), Arc::clone(&self.state));
        let work = move |raw: &mut diesel::SqliteConnection| {
            // Closed before it is opened: of two connections to a file, the first keeps its descriptor until both are gone.
            let nowhere = diesel::SqliteConnection::establish(":memory:").map_err(Error::SetUp);
            let opened = nowhere.and_then(|nowhere| {
                *raw = nowhere;
                opener.open(&file, &tenant, &state)
            });
            Ok(opened.map(|opened| *raw = opened))
        };
        self.inner.spawn_blocking(work).await.map_err(Error::Recycle)??;
        // No statement was seen in this work.
        self.state.unmark();
        Ok(())
    }

    /// Closes the file, and resolves when it is closed.
    pub(super) async fn close(self) {
        self.state.settled().await;
        let inner = self.inner;
        // An error would be that there is no runtime left, and then it was dropped all the same.
        let _ = tokio::task::spawn_blocking(move || drop(inner)).await;
    }
}

/// Ends whatever transaction there is. `BEGIN` fails inside of one, and proves by succeeding that there was none.
fn roll_back(raw: &mut diesel::SqliteConnection) -> QueryResult<()> {
    match raw.batch_execute("BEGIN; ROLLBACK") {
        Err(_) => raw.batch_execute("ROLLBACK"),
        Ok(()) => Ok(()),
    }
}
