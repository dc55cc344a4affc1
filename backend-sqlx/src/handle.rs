//! [`TenantHandle`]: one tenant's database for code that was written against a pool. Each use takes a lease and gives it
//! back; `transaction.rs` is what [`begin`](TenantHandle::begin) gives.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use async_stream::stream;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use sqlx::{Describe, Execute, Executor, SqlSafeStr, SqlStr};
use tenantry_core::{AcquireError, AcquireOptions, Lease, PoolFactory, TenantId, TenantPools};

use crate::connection::Connection;
use crate::engine::{Engine, Step};
use crate::error::Error;
use crate::transaction::LeaseTransaction;

/// A factory whose connections are those of this crate: what [`TenantHandle`] needs. Implement it for a factory of your
/// own that wraps one of these.
pub trait SqlxFactory: PoolFactory<Connection = Connection<Self::Database>, Error = Error> {
    /// The database.
    type Database: Engine;
}

/// One tenant's database, used like a [`Pool`](sqlx::Pool): `&handle` is an [`Executor`], and there are
/// [`begin`](Self::begin) and [`acquire`](Self::acquire). Cheap to clone; it holds no connection of its own.
///
/// ```
/// # #[cfg(feature = "postgres")]
/// # async fn f(pools: &tenantry_core::TenantPools<tenantry_sqlx::PostgresFactory>) -> Result<(), Box<dyn std::error::Error>> {
/// use tenantry_sqlx::TenantHandle;
///
/// let acme = TenantHandle::new(pools, "acme".parse()?);
/// let (paid,): (i64,) = sqlx::query_as("SELECT count(*) FROM invoice WHERE paid").fetch_one(&acme).await?;
///
/// let mut transaction = acme.begin().await?;
/// sqlx::query("UPDATE invoice SET paid = true").execute(&mut *transaction).await?;
/// transaction.commit().await?;
/// # let _ = paid;
/// # Ok(()) }
/// ```
///
/// # What differs from a pool
///
/// - Each query takes a lease and gives it back when its stream or future ends or is dropped. Several in a row are
///   cheaper, and on one session, with one [`acquire`](Self::acquire).
/// - Errors have to be sqlx's. A closed manager is [`sqlx::Error::PoolClosed`]; every other reason for which there was
///   no lease arrives whole, inside [`sqlx::Error::Io`], where [`refused`] finds it.
/// - It is no [`Acquire`](sqlx::Acquire), whose `begin` can only hold sqlx's own pool's connections. Functions over
///   `A: Acquire` take `&mut lease`.
/// - A task that runs a query on the handle while it holds a transaction of the same tenant needs two connections.
pub struct TenantHandle<F: SqlxFactory> {
    pools: TenantPools<F>,
    tenant: TenantId,
    options: AcquireOptions,
}

impl<F: SqlxFactory> TenantHandle<F> {
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

    /// Takes a lease and opens a transaction on it.
    ///
    /// # Errors
    /// Those of the acquire, as sqlx's (see above), and whatever the database or the network says to `BEGIN`.
    ///
    /// # Cancel safety
    /// The lease goes back, and is recycled if the `BEGIN` may have been sent.
    pub async fn begin(&self) -> Result<LeaseTransaction<F>, sqlx::Error> {
        LeaseTransaction::begin(self.lease().await?, None).await
    }

    /// The same by a statement such as `BEGIN ISOLATION LEVEL SERIALIZABLE`.
    ///
    /// # Errors
    /// As [`begin`](Self::begin), and `BeginFailed` when the statement opens no transaction.
    ///
    /// # Cancel safety
    /// As [`begin`](Self::begin).
    pub async fn begin_with(&self, statement: impl SqlSafeStr) -> Result<LeaseTransaction<F>, sqlx::Error> {
        let statement = statement.into_sql_str();
        LeaseTransaction::begin(self.lease().await?, Some(statement)).await
    }

    async fn lease(&self) -> Result<Lease<F>, sqlx::Error> {
        self.acquire().await.map_err(into_sqlx)
    }
}

impl<F: SqlxFactory> Clone for TenantHandle<F> {
    fn clone(&self) -> Self {
        Self { pools: self.pools.clone(), tenant: self.tenant.clone(), options: self.options }
    }
}

impl<F: SqlxFactory> fmt::Debug for TenantHandle<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantHandle").field("tenant", &self.tenant).finish_non_exhaustive()
    }
}

impl<'p, F: SqlxFactory> Executor<'p> for &'p TenantHandle<F> {
    type Database = F::Database;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step<F::Database>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, F::Database>,
    {
        Box::pin(stream! {
            match self.lease().await {
                Ok(mut lease) => {
                    let mut steps = (&mut *lease).fetch_many(query);
                    while let Some(step) = steps.next().await {
                        yield step;
                    }
                }
                Err(error) => yield Err(error),
            }
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxFuture<'e, Result<Option<<F::Database as sqlx::Database>::Row>, sqlx::Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, F::Database>,
    {
        Box::pin(async move { (&mut *self.lease().await?).fetch_optional(query).await })
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [<F::Database as sqlx::Database>::TypeInfo],
    ) -> BoxFuture<'e, Result<<F::Database as sqlx::Database>::Statement, sqlx::Error>>
    where
        'p: 'e,
    {
        Box::pin(async move { (&mut *self.lease().await?).prepare_with(sql, parameters).await })
    }

    // See the one of `Connection`.
    #[doc(hidden)]
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<F::Database>, sqlx::Error>>
    where
        'p: 'e,
    {
        Box::pin(async move { (&mut *self.lease().await?).describe(sql).await })
    }
}

/// Why there was no lease, as an error of sqlx's.
fn into_sqlx(error: AcquireError<Error>) -> sqlx::Error {
    match error {
        AcquireError::Closed => sqlx::Error::PoolClosed,
        other => sqlx::Error::Io(io::Error::other(other)),
    }
}

/// The acquire that failed, if that is why a use of a [`TenantHandle`] did: with its limit, its `retry_after` and its
/// source. `None` for an error of the query itself, and for [`sqlx::Error::PoolClosed`].
///
/// ```
/// # fn f(error: &sqlx::Error) {
/// if let Some(retry_after) = tenantry_sqlx::refused(error).and_then(|refused| refused.retry_after()) {
///     println!("try again in {retry_after:?}");
/// }
/// # }
/// ```
#[must_use]
pub fn refused(error: &sqlx::Error) -> Option<&AcquireError<Error>> {
    let inner: &(dyn StdError + 'static) = match error {
        sqlx::Error::Io(error) => error.get_ref()?,
        _ => return None,
    };
    inner.downcast_ref()
}
