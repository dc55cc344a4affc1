//! A library that leaves the driver to the service: `cargo run --features sqlx-sqlite --example generic_library`.
//!
//! `counters` below is the library. It is generic over [`PoolFactory`] and knows no driver; what it needs of a connection
//! is a small trait of its own. `main` is the service: it uses the library with a driver that it names, and with one that
//! is chosen at run time, where all of its types are the same whatever the tenant's engine.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use tenantry::sqlx::{Connection, SqliteFactory};
use tenantry::{DynConnection, DynFactory, Provision, TenantPools};

/// The library: counters by name, each tenant's in its own database.
#[allow(unreachable_pub, reason = "it stands for a crate")]
mod counters {
    use std::future::Future;

    use tenantry::{AcquireError, PoolFactory, TenantPools};

    /// What the library asks of a connection. A service implements it for its driver's own.
    pub trait Store: Send {
        /// What can go wrong there.
        type Error: Send;

        /// Makes what the counters need, if it is missing.
        fn prepare(&mut self) -> impl Future<Output = Result<(), Self::Error>> + Send;

        /// Adds one to a counter, from 0, and says what it is now.
        fn count(&mut self, name: &str) -> impl Future<Output = Result<i64, Self::Error>> + Send;
    }

    /// Why a tenant was not served.
    #[derive(Debug)]
    pub enum Failure<E, S> {
        /// There was no connection: what a limit, a closed manager or a failed connect means is in here, for any driver.
        NoConnection(AcquireError<E>),
        /// The database did not do it.
        Store(S),
    }

    /// What `Counters<F>` fails with.
    pub type FailureOf<F> = Failure<<F as PoolFactory>::Error, <<F as PoolFactory>::Connection as Store>::Error>;

    /// The counters of all tenants, over any driver whose connections can [`Store`] them.
    pub struct Counters<F: PoolFactory> {
        pools: TenantPools<F>,
    }

    impl<F: PoolFactory<Connection: Store>> Counters<F> {
        /// Over the service's own manager, and so within its budget.
        pub fn new(pools: TenantPools<F>) -> Self {
            Self { pools }
        }

        /// Makes a tenant ready. Its database is there already.
        pub async fn prepare(&self, tenant: &str) -> Result<(), FailureOf<F>> {
            let mut lease = self.pools.acquire(tenant).await.map_err(Failure::NoConnection)?;
            lease.prepare().await.map_err(Failure::Store)
        }

        /// Adds one to a tenant's counter.
        pub async fn count(&self, tenant: &str, name: &str) -> Result<i64, FailureOf<F>> {
            let mut lease = self.pools.acquire(tenant).await.map_err(Failure::NoConnection)?;
            lease.count(name).await.map_err(Failure::Store)
        }
    }

    impl<E, S> std::fmt::Display for Failure<E, S> {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(match self {
                Self::NoConnection(_) => "the counters got no connection",
                Self::Store(_) => "the counters' database failed",
            })
        }
    }

    impl<E: std::error::Error + 'static, S: std::error::Error + 'static> std::error::Error for Failure<E, S> {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            match self {
                Self::NoConnection(error) => Some(error),
                Self::Store(error) => Some(error),
            }
        }
    }
}

/// The service's part, for a driver that it names.
impl counters::Store for Connection<sqlx::Sqlite> {
    type Error = sqlx::Error;

    async fn prepare(&mut self) -> sqlx::Result<()> {
        let table = "CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER NOT NULL)";
        sqlx::query(table).execute(self).await.map(drop)
    }

    async fn count(&mut self, name: &str) -> sqlx::Result<i64> {
        let add =
            "INSERT INTO counters VALUES (?, 1) ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value";
        sqlx::query_scalar(add).bind(name).fetch_one(self).await
    }
}

/// And for one that is chosen at run time: each engine of the service has a branch here.
impl counters::Store for DynConnection {
    type Error = sqlx::Error;

    async fn prepare(&mut self) -> sqlx::Result<()> {
        match self.downcast_mut::<Connection<sqlx::Sqlite>>() {
            Some(sqlite) => sqlite.prepare().await,
            None => Err(unknown_engine()),
        }
    }

    async fn count(&mut self, name: &str) -> sqlx::Result<i64> {
        match self.downcast_mut::<Connection<sqlx::Sqlite>>() {
            Some(sqlite) => sqlite.count(name).await,
            None => Err(unknown_engine()),
        }
    }
}

fn unknown_engine() -> sqlx::Error {
    sqlx::Error::Configuration("no counters on this tenant's engine".into())
}

/// The service's own part of starting, for whichever driver: it makes the tenants, and hands the manager to the library.
async fn count_twice<F>(factory: F, tenants: &[&str]) -> Result<Vec<i64>>
where
    F: Provision<Connection: counters::Store<Error = sqlx::Error>>,
{
    let pools = TenantPools::builder(factory).max_connections(4).build()?;
    let counters = counters::Counters::new(pools.clone());
    let mut values = Vec::new();
    for tenant in tenants {
        pools.create(tenant).await.with_context(|| format!("cannot make {tenant}"))?;
        counters.prepare(tenant).await?;
        counters.count(tenant, "visits").await?;
        values.push(counters.count(tenant, "visits").await?);
    }
    match counters.count("nobody", "visits").await {
        Err(counters::Failure::NoConnection(error)) if error.retry_after().is_none() => {
            println!("as it should: {error}")
        }
        other => bail!("a tenant without a database was answered with {other:?}"),
    }
    pools.close().await;
    Ok(values)
}

/// Each tenant's driver as its name says; a real service looks it up.
fn by_name(first: &Path, second: &Path) -> DynFactory {
    let first = DynFactory::with_provision(SqliteFactory::new(first));
    let second = DynFactory::with_provision(SqliteFactory::new(second));
    DynFactory::route(move |tenant| if tenant.as_str().starts_with("eu-") { &second } else { &first }.clone())
}

async fn run() -> Result<()> {
    let (here, there) = (tempfile::tempdir()?, tempfile::tempdir()?);
    let named = count_twice(SqliteFactory::new(here.path()), &["acme", "globex"]).await?;
    println!("with a driver that is named: {named:?}");
    ensure!(named == [2, 2], "each tenant counts for itself, from 1");
    // acme is where it was, and goes on counting; eu-initech is new, in the other folder.
    let chosen = count_twice(by_name(here.path(), there.path()), &["acme", "eu-initech"]).await?;
    println!("with one for each tenant: {chosen:?}");
    ensure!(chosen == [4, 2], "the same databases, through the same library");
    Ok(())
}

#[tokio::main]
async fn main() -> Result<()> {
    run().await
}

#[tokio::test]
async fn the_library_works_with_a_named_driver_and_with_one_chosen_at_run_time() {
    run().await.unwrap();
}
