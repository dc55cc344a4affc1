//! A folder of SQLite databases for each test that asks for one, and short words for what tests ask of a connection.

#![allow(dead_code, unreachable_pub, reason = "each file of tests uses its own part")]

use std::path::Path;
use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{RunQueryDsl as _, SimpleAsyncConnection as _};
use tempfile::TempDir;
use tenantry_core::{Health, PoolFactory as _, Provision as _, TenantId};
use tenantry_diesel::{SqliteConnection, SqliteFactory};

pub const LONG: Duration = Duration::from_secs(60);

pub fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant")
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
        let factory = SqliteFactory::new(directory.path());
        let folder = Self { factory, acme: tenant("acme"), directory };
        folder.factory.create(&folder.acme).await.expect("a new database");
        let mut connection = folder.connect().await;
        connection.batch_execute("CREATE TABLE note (text TEXT NOT NULL)").await.expect("a new table");
        folder.factory.close(connection, LONG).await;
        folder
    }

    pub async fn connect(&self) -> SqliteConnection {
        self.factory.connect(&self.acme).await.expect("the database is there")
    }

    /// Recycles a connection that is dirty, and checks that it is clean then.
    pub async fn recycle(&self, connection: &mut SqliteConnection) {
        assert_eq!(self.factory.health(connection), Health::Dirty);
        self.factory.recycle(connection).await.expect("recycles");
        assert_eq!(self.factory.health(connection), Health::Clean);
    }

    pub fn files(&self) -> Vec<String> {
        files(&self.directory)
    }
}

pub fn files(directory: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path()).expect("a readable folder");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8"));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// How many descriptors this process has of files whose path begins so.
pub fn open_files(path: &Path) -> u64 {
    let path = path.as_os_str().as_encoded_bytes();
    descriptors(|target| target.as_os_str().as_encoded_bytes().starts_with(path))
}

/// How many descriptors of exactly this file this process has.
pub fn open_databases(file: &Path) -> u64 {
    descriptors(|target| target == file)
}

fn descriptors(wanted: impl Fn(&Path) -> bool) -> u64 {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| wanted(target)).count() as u64
}

#[derive(QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

/// The texts that a query gives as `value`.
pub async fn texts(connection: &mut SqliteConnection, query: &str) -> Vec<String> {
    let rows: Vec<TextRow> = diesel::sql_query(query).load(connection).await.expect("an answer");
    rows.into_iter().map(|row| row.value).collect()
}

/// The one number that an expression gives.
pub async fn number(connection: &mut SqliteConnection, expression: &str) -> i64 {
    let query = diesel::sql_query(format!("SELECT CAST(({expression}) AS INTEGER) AS value"));
    query.get_result::<NumberRow>(connection).await.expect("an answer").value
}

pub async fn notes(connection: &mut SqliteConnection) -> i64 {
    number(connection, "SELECT count(*) FROM note").await
}
