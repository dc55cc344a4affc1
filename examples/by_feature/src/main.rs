//! A service that takes its driver by a feature of its own: `driver` below is the only place that names one.
//!
//! `cargo run --package by_feature` (SQLite), or with `--no-default-features --features postgres` and the `DATABASE_URL` of
//! a server. Where the driver is chosen while the service runs, by its settings or for each tenant, see the example
//! `generic_library`.
#![allow(clippy::print_stdout, reason = "an example talks")]

use std::error::Error;

use tenantry::TenantPools;

#[cfg(feature = "sqlite")]
mod driver {
    pub(crate) use sqlx::Sqlite as Database;
    pub(crate) use tenantry::sqlx::SqliteFactory as Factory;

    /// A folder of files, one for each tenant.
    pub(crate) fn factory(address: &str) -> Result<Factory, sqlx::Error> {
        Ok(Factory::new(address))
    }
}

#[cfg(not(feature = "sqlite"))]
mod driver {
    pub(crate) use sqlx::Postgres as Database;
    pub(crate) use tenantry::sqlx::PostgresFactory as Factory;

    /// A server, one database for each tenant.
    pub(crate) fn factory(address: &str) -> Result<Factory, sqlx::Error> {
        Ok(Factory::new(address.parse()?))
    }
}

/// The rest of the service sees `driver::Factory` and SQL that both databases understand.
async fn visit(pools: &TenantPools<driver::Factory>, tenant: &str) -> Result<i64, Box<dyn Error>> {
    pools.create(tenant).await?;
    let mut lease = pools.acquire(tenant).await?;
    sqlx::query::<driver::Database>("CREATE TABLE IF NOT EXISTS visit (at TEXT NOT NULL)").execute(&mut *lease).await?;
    sqlx::query::<driver::Database>("INSERT INTO visit VALUES (CURRENT_TIMESTAMP)").execute(&mut *lease).await?;
    Ok(sqlx::query_scalar::<driver::Database, i64>("SELECT count(*) FROM visit").fetch_one(&mut *lease).await?)
}

async fn run(address: &str) -> Result<i64, Box<dyn Error>> {
    let pools = TenantPools::builder(driver::factory(address)?).max_connections(10).build()?;
    visit(&pools, "acme").await?;
    let visits = visit(&pools, "acme").await?;
    pools.close().await;
    Ok(visits)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let address = std::env::var("DATABASE_URL").unwrap_or_else(|_| folder.path().display().to_string());
    println!("acme was visited {} times", run(&address).await?);
    Ok(())
}

#[cfg(all(test, feature = "sqlite"))]
mod tests {
    #[tokio::test]
    async fn the_service_runs_with_the_driver_that_was_chosen() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(super::run(folder.path().to_str().unwrap()).await.unwrap(), 2);
    }
}
