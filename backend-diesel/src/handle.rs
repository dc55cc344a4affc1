//! [`TenantHandle`]: one tenant's database for code that was written against a pool.

use std::fmt;
use std::future::Future;

use diesel_async::{AsyncConnection, TransactionManager as _};
use tenantry_core::{AcquireError, AcquireOptions, Lease, PoolFactory, TenantId, TenantPools};

use crate::error::Error;

/// A factory whose connections are diesel-async's: what [`TenantHandle`] needs. Every such factory with this crate's [`Error`]
/// is one.
pub trait DieselFactory: PoolFactory<Connection: AsyncConnection, Error = Error> {}

impl<F: PoolFactory<Connection: AsyncConnection, Error = Error>> DieselFactory for F {}

/// One tenant's database, used like a pool of diesel-async's: [`get`](Self::get) gives a connection that goes back when it is
/// dropped. Cheap to clone; it holds no connection of its own.
///
/// ```
/// # #[cfg(feature = "sqlite")]
/// # async fn f(pools: &tenantry_core::TenantPools<tenantry_diesel::SqliteFactory>) -> Result<(), Box<dyn std::error::Error>> {
/// use diesel::sql_query;
/// use diesel_async::RunQueryDsl;
/// use tenantry_diesel::TenantHandle;
///
/// let acme = TenantHandle::new(pools, "acme".parse()?);
/// let mut connection = acme.get().await?;
/// sql_query("DELETE FROM note WHERE old").execute(&mut connection).await?;
/// drop(connection);
///
/// acme.transaction(async |connection| {
///     sql_query("INSERT INTO note (text) VALUES ('one')").execute(connection).await?;
///     sql_query("INSERT INTO note (text) VALUES ('two')").execute(connection).await
/// })
/// .await?;
/// # Ok(()) }
/// ```
///
/// # What differs from a pool
///
/// - Where there is no lease, the error has to be diesel's. It arrives whole, inside
///   [`QueryBuilderError`](diesel::result::Error::QueryBuilderError), where [`refused`] finds it.
/// - It is no connection itself, no more than a pool is: diesel-async writes a query down on the connection that it runs
///   on, so there is nothing that could be handed to a lease later.
/// - A task that asks for a second connection of the same tenant while it holds one needs two.
pub struct TenantHandle<F: DieselFactory> {
    pools: TenantPools<F>,
    tenant: TenantId,
    options: AcquireOptions,
}

impl<F: DieselFactory> TenantHandle<F> {
    /// A handle on this tenant's database. Nothing is opened or asked yet.
    #[must_use]
    pub fn new(pools: &TenantPools<F>, tenant: TenantId) -> Self {
        Self { pools: pools.clone(), tenant, options: AcquireOptions::new() }
    }

    /// The same with another deadline or priority for each of its acquires.
    #[must_use]
    pub fn with_options(mut self, options: AcquireOptions) -> Self {
        self.options = options;
        self
    }

    /// Whose database it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// Takes a lease, as [`TenantPools::acquire`] does.
    ///
    /// # Errors
    /// Those of [`TenantPools::acquire`].
    ///
    /// # Cancel safety
    /// As [`TenantPools::acquire`].
    pub fn acquire(&self) -> impl Future<Output = Result<Lease<F>, AcquireError<Error>>> + Send + 'static {
        self.pools.acquire_with(&self.tenant, self.options)
    }

    /// Takes a lease, as a pool's `get` does.
    ///
    /// # Errors
    /// Those of [`TenantPools::acquire`], as diesel's (see above).
    ///
    /// # Cancel safety
    /// As [`TenantPools::acquire`].
    pub async fn get(&self) -> Result<Lease<F>, diesel::result::Error> {
        self.acquire().await.map_err(|error| diesel::result::Error::QueryBuilderError(Box::new(error)))
    }

    /// Takes a lease and runs `work` in a transaction on it, which is committed if it returns `Ok`, else rolled back.
    ///
    /// # Errors
    /// Those of [`get`](Self::get), those of `work`, and what the database or the network says to the begin or the end.
    ///
    /// # Cancel safety
    /// The lease goes back, and what was begun is rolled back before the next user has the connection.
    pub async fn transaction<R, E, W>(&self, work: W) -> Result<R, E>
    where
        W: AsyncFnOnce(&mut Lease<F>) -> Result<R, E>,
        E: From<diesel::result::Error>,
    {
        // Not by diesel's own `transaction`, whose bounds on a closure have no public name.
        type Manager<F> = <Lease<F> as AsyncConnection>::TransactionManager;
        let mut lease = self.get().await?;
        Manager::<F>::begin_transaction(&mut lease).await?;
        match work(&mut lease).await {
            Ok(done) => {
                Manager::<F>::commit_transaction(&mut lease).await?;
                Ok(done)
            }
            Err(error) => match Manager::<F>::rollback_transaction(&mut lease).await {
                // A transaction that is broken is so because of what `work` says.
                Ok(()) | Err(diesel::result::Error::BrokenTransactionManager) => Err(error),
                Err(rollback) => Err(rollback.into()),
            },
        }
    }
}

impl<F: DieselFactory> Clone for TenantHandle<F> {
    fn clone(&self) -> Self {
        Self { pools: self.pools.clone(), tenant: self.tenant.clone(), options: self.options }
    }
}

impl<F: DieselFactory> fmt::Debug for TenantHandle<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantHandle").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

/// The acquire that failed, if that is why a use of a [`TenantHandle`] did: with its limit, its `retry_after` and its
/// source. `None` for an error of the query itself.
///
/// ```
/// # fn f(error: &diesel::result::Error) {
/// if let Some(retry_after) = tenantry_diesel::refused(error).and_then(|refused| refused.retry_after()) {
///     println!("try again in {retry_after:?}");
/// }
/// # }
/// ```
#[must_use]
pub fn refused(error: &diesel::result::Error) -> Option<&AcquireError<Error>> {
    match error {
        diesel::result::Error::QueryBuilderError(error) => error.downcast_ref(),
        _ => None,
    }
}
