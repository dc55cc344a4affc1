//! A folder of SQLite databases for each test that asks for one.

use std::path::Path;

use sqlx::Sqlite;
use tempfile::TempDir;
use tenantry_core::{PoolFactory, Provision, TenantId};
use tenantry_sqlx::{Connection, SqliteFactory};

use super::{PATIENCE, StandIn, tenant};

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

    pub async fn with(directory: TempDir, change: impl FnOnce(SqliteFactory) -> SqliteFactory) -> Self {
        let factory = change(SqliteFactory::new(directory.path()));
        let folder = Self { factory, acme: tenant("acme"), directory };
        folder.factory.create(&folder.acme).await.expect("a new database");
        let mut lease = folder.lease().await;
        sqlx::raw_sql("CREATE TABLE note (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
            .execute(&mut *lease)
            .await
            .expect("a new table");
        folder.factory.close(lease.into_inner(), PATIENCE).await;
        folder
    }

    pub async fn lease(&self) -> StandIn<Connection<Sqlite>> {
        StandIn::new(self.factory.connect(&self.acme).await.expect("the database is there"))
    }

    pub fn files(&self) -> Vec<String> {
        files(&self.directory)
    }
}

pub fn files(directory: &TempDir) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(directory.path())
        .expect("a readable folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

/// How many descriptors this process has whose path begins so: a folder, or a database with all that belongs to it.
pub fn open_files(path: &Path) -> u64 {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let opened = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    let path = path.as_os_str().as_encoded_bytes();
    opened.filter(|target| target.as_os_str().as_encoded_bytes().starts_with(path)).count() as u64
}

/// How many descriptors of exactly this file this process has.
pub fn open_databases(file: &Path) -> u64 {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux");
    descriptors
        .filter(|entry| entry.as_ref().is_ok_and(|e| std::fs::read_link(e.path()).is_ok_and(|to| to == file)))
        .count() as u64
}
