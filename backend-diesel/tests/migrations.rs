//! diesel's migrations on a lease, by diesel-async's harness.
#![cfg(all(feature = "mysql", feature = "postgres", feature = "sqlite"))]
#![allow(missing_docs, reason = "tests")]

#[path = "support/mysql.rs"]
mod mysql_support;
#[path = "support/mod.rs"]
mod postgres_support;
#[path = "support/sqlite.rs"]
mod sqlite_support;

use diesel_async::{AsyncMigrationHarness, RunQueryDsl as _};
use diesel_migrations::{FileBasedMigrations, MigrationHarness as _};
use tempfile::TempDir;
use tenantry_core::TenantPools;
use tenantry_testkit::servers::patient;

/// Two migrations, in files as `diesel migration generate` makes them.
fn migrations() -> (TempDir, FileBasedMigrations) {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, up) in [
        ("2026-01-01-000000_invoices", "CREATE TABLE invoice (id INTEGER PRIMARY KEY, cents INTEGER NOT NULL);"),
        ("2026-01-02-000000_first", "INSERT INTO invoice (id, cents) VALUES (1, 700);"),
    ] {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).expect("a folder");
        std::fs::write(place.join("up.sql"), up).expect("a file");
        std::fs::write(place.join("down.sql"), "DROP TABLE invoice;").expect("a file");
    }
    let found = FileBasedMigrations::from_path(folder.path()).expect("migrations");
    (folder, found)
}

/// Runs them on a lease, twice, and finds what they made on the next one. A macro, as the harness's bounds cannot be said
/// for any driver in fewer words than this.
macro_rules! migrate {
    ($factory:expr) => {{
        let pools = patient(TenantPools::builder($factory)).max_connections(1).build().expect("settings");
        let (_folder, found) = migrations();
        for expected in [2, 0] {
            let mut harness = AsyncMigrationHarness::new(pools.acquire("acme").await.expect("a lease"));
            assert_eq!(harness.run_pending_migrations(found.clone()).expect("good migrations").len(), expected);
        }
        let mut lease = pools.acquire("acme").await.expect("the connection came back");
        let changed = diesel::sql_query("UPDATE invoice SET cents = 800 WHERE cents = 700");
        assert_eq!(changed.execute(&mut lease).await.expect("a table"), 1);
        drop(lease);
        pools.close().await;
    }};
}

#[tokio::test(flavor = "multi_thread")]
async fn a_postgres_lease_is_migrated_and_comes_back() {
    let server = postgres_support::Cluster::new().await;
    migrate!(server.factory.clone());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mariadb_lease_is_migrated_and_comes_back() {
    let server = mysql_support::Server::new().await;
    migrate!(server.factory.clone());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sqlite_lease_is_migrated_and_comes_back() {
    let server = sqlite_support::Folder::new().await;
    migrate!(server.factory.clone());
}
