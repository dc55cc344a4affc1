//! SQLite: where the databases are, who counts them, and how one is opened behind tenantry's back.

use anyhow::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions, migrate::Migrator};
use tempfile::TempDir;
use tenantry::sqlx::SqliteFactory;

pub(crate) use crate::witness::{Seen, Witness};

pub(crate) type Factory = SqliteFactory;

pub(crate) static MIGRATIONS: Migrator = sqlx::migrate!("examples/saas/migrations");

/// How many tenants and connections unless the user says otherwise.
pub(crate) const TENANTS: u32 = 500;
pub(crate) const BUDGET: u32 = 32;

/// What the witness counts, and where it looks.
pub(crate) const COUNTED: &str = "database files open";
pub(crate) const LOOKED_AT: &str = "/proc/self/fd";

/// A folder for the databases, which goes with this.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("tenantry-saas-").tempdir()?))
    }

    pub(crate) fn factory(&self) -> Factory {
        SqliteFactory::new(self.0.path())
    }

    /// `None` where the operating system shows nothing to count.
    pub(crate) async fn witness(&self) -> Result<Option<Witness>> {
        Witness::start(self.0.path())
    }

    /// Opens a database that tenantry knows nothing of.
    pub(crate) async fn connect_outside(&self) -> Result<SqliteConnection> {
        let outside = SqliteConnectOptions::new().filename(self.0.path().join("outside.db")).create_if_missing(true);
        Ok(outside.connect().await?)
    }
}
