//! PostgreSQL: where the databases are, who counts them, and how one is opened behind tenantry's back.

use anyhow::{Context, Result};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions, migrate::Migrator};
use tenantry::sqlx::PostgresFactory;

pub(crate) use crate::witness::{Seen, Witness};

pub(crate) type Factory = PostgresFactory;

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("examples/saas_postgres/migrations");

/// How many tenants and connections unless the user says otherwise.
pub(crate) const TENANTS: u32 = 100;
pub(crate) const BUDGET: u32 = 20;

/// What the witness counts, and where it looks.
pub(crate) const COUNTED: &str = "sessions on the server";
pub(crate) const LOOKED_AT: &str = "pg_stat_activity";

/// The server.
pub(crate) struct Place(PgConnectOptions);

impl Place {
    pub(crate) fn new() -> Result<Self> {
        let url =
            std::env::var("DATABASE_URL").context("DATABASE_URL names no server: cargo xtask demo --postgres does")?;
        // The reason would show the URL's parts.
        Ok(Self(url.parse().ok().context("DATABASE_URL is no URL of a PostgreSQL server")?))
    }

    pub(crate) fn factory(&self) -> Factory {
        PostgresFactory::new(self.0.clone())
    }

    pub(crate) async fn witness(&self) -> Result<Option<Witness>> {
        Witness::start(self.0.connect().await?).map(Some)
    }

    /// Opens a connection that tenantry knows nothing of.
    pub(crate) async fn connect_outside(&self) -> Result<PgConnection> {
        Ok(self.0.connect().await?)
    }
}
