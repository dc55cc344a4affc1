//! What the tests of this crate share.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test file uses a part of it"
)]

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sqlx::Sqlite;
use tempfile::TempDir;
use tenantry_core::{PoolFactory, Provision, TenantId};
use tenantry_sqlx::{Connection, SqliteFactory};

/// Long enough for anything that works, short enough to see what does not.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Fails the test instead of hanging it.
pub async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("still not done after 20 s")
}

pub fn tenant(name: &str) -> TenantId {
    name.parse().expect("a good name")
}

/// What a lease is to its user: something that derefs to the connection.
#[derive(Debug)]
pub struct StandIn<C>(Box<C>);

impl<C> StandIn<C> {
    pub fn new(connection: C) -> Self {
        Self(Box::new(connection))
    }

    pub fn into_inner(self) -> C {
        *self.0
    }
}

impl<C> Deref for StandIn<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C> DerefMut for StandIn<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0
    }
}

/// A folder with the database of the tenant `acme` in it, which has one table.
pub struct Folder {
    pub factory: SqliteFactory,
    pub acme: TenantId,
    pub directory: TempDir,
}

impl Folder {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary folder");
        Self::with(directory, |factory| factory).await
    }

    pub async fn with(
        directory: TempDir,
        change: impl FnOnce(SqliteFactory) -> SqliteFactory,
    ) -> Self {
        let factory = change(SqliteFactory::new(directory.path()));
        let folder = Self {
            factory,
            acme: tenant("acme"),
            directory,
        };
        folder
            .factory
            .create(&folder.acme)
            .await
            .expect("a new database");
        let mut lease = folder.lease().await;
        sqlx::raw_sql("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
            .execute(&mut *lease)
            .await
            .expect("a new table");
        folder.factory.close(lease.into_inner(), PATIENCE).await;
        folder
    }

    pub async fn lease(&self) -> StandIn<Connection<Sqlite>> {
        StandIn::new(
            self.factory
                .connect(&self.acme)
                .await
                .expect("the database is there"),
        )
    }

    pub fn files(&self) -> Vec<String> {
        files(&self.directory)
    }
}

pub fn files(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory.path())
        .expect("a readable folder")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .into_string()
                .expect("UTF-8")
        })
        .collect();
    names.sort();
    names
}
