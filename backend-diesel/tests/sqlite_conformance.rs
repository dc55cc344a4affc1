//! The SQLite factory keeps the contract of `PoolFactory` and `Provision`, by the suite that any driver can run.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "tests")]

#[path = "support/sqlite.rs"]
mod support;

use diesel::sql_types::Text;
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};
use support::{Folder, number, open_databases, tenant, texts};
use tenantry_core::{NativePool, Provision as _, TenantId};
use tenantry_diesel::{Pooled, SqliteConnection, SqliteFactory};
use tenantry_testkit::conformance::{Limited, NotPossible, PoolSubject, Subject, Suite, Trouble};

const NO_SERVER: NotPossible = NotPossible("a file has no server");

struct Files(Folder);

impl Subject for Files {
    type Factory = SqliteFactory;

    fn factory(&self) -> &SqliteFactory {
        &self.0.factory
    }

    fn tenants(&self) -> [TenantId; 2] {
        [self.0.acme.clone(), tenant("other")]
    }

    fn missing_tenant(&self) -> TenantId {
        tenant("missing")
    }

    fn secrets(&self) -> Vec<String> {
        Vec::new()
    }

    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
        // The log and its index are two more of the same connection.
        Ok(open_databases(&self.0.factory.file(tenant)?))
    }

    async fn ask(&self, connection: &mut SqliteConnection) -> Result<(), Trouble> {
        number(connection, "SELECT count(*) FROM sqlite_schema").await;
        Ok(())
    }

    async fn keep(&self, connection: &mut SqliteConnection, word: &str) -> Result<(), Trouble> {
        connection.batch_execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        let insert = diesel::sql_query("INSERT INTO word VALUES (?)").bind::<Text, _>(word);
        insert.execute(connection).await?;
        Ok(())
    }

    async fn words(&self, connection: &mut SqliteConnection) -> Result<Vec<String>, Trouble> {
        connection.batch_execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        Ok(texts(connection, "SELECT word AS value FROM word").await)
    }

    fn ways_to_leave(&self) -> Vec<&'static str> {
        vec!["BEGIN", "BEGIN; CREATE TABLE scratch (id)", "PRAGMA foreign_keys = OFF", "CREATE TEMP TABLE scratch (id)"]
    }

    async fn leave(&self, connection: &mut SqliteConnection, way: &'static str) -> Result<(), Trouble> {
        Ok(connection.batch_execute(way).await?)
    }

    async fn left(&self, connection: &mut SqliteConnection) -> Result<Vec<String>, Trouble> {
        let mut left = texts(
            connection,
            "SELECT name AS value FROM temp.sqlite_schema
                UNION ALL SELECT name FROM sqlite_schema WHERE name = 'scratch'
                UNION ALL SELECT 'foreign keys are off' FROM pragma_foreign_keys WHERE foreign_keys = 0",
        )
        .await;
        match connection.batch_execute("BEGIN").await {
            Ok(()) => connection.batch_execute("ROLLBACK").await?,
            Err(_) => left.push("a transaction".to_owned()),
        }
        Ok(left)
    }

    async fn interruptible(&self, connection: &mut SqliteConnection) -> Result<(), Trouble> {
        let done: Result<(), diesel::result::Error> = connection
            .transaction(async |connection| {
                connection.batch_execute("CREATE TABLE scratch (id)").await?;
                Err(diesel::result::Error::RollbackTransaction)
            })
            .await;
        done.expect_err("rolled back");
        connection.batch_execute("BEGIN; ROLLBACK").await?;
        Ok(())
    }

    async fn kill(&self, _: &mut SqliteConnection) -> Result<(), NotPossible> {
        Err(NO_SERVER)
    }

    async fn silence(&self, _: bool) -> Result<(), NotPossible> {
        Err(NO_SERVER)
    }

    fn with_wrong_password(&self) -> Result<SqliteFactory, NotPossible> {
        Err(NO_SERVER)
    }

    fn with_unreachable_server(&self) -> Result<SqliteFactory, NotPossible> {
        Ok(SqliteFactory::new(self.0.directory.path().join("not-mounted")))
    }

    fn with_limited_server(&self) -> Result<Limited<SqliteFactory>, NotPossible> {
        Err(NO_SERVER)
    }
}

impl PoolSubject for Files {
    type Pooled = Object<Pooled<SqliteFactory>>;

    async fn take(&self, pool: &<SqliteFactory as NativePool>::Pool) -> Result<Self::Pooled, Trouble> {
        Ok(pool.get().await?)
    }
}

#[tokio::test]
async fn the_factory_keeps_the_contract() {
    let folder = Folder::new().await;
    folder.factory.create(&tenant("other")).await.expect("a database");
    let report = Suite::of(&Files(folder)).provision().native_pool().run().await;
    println!("conformance: diesel, SQLite: {}", report.summary());
    report.assert_passed();
    let without_a_server = [
        "a_killed_connection_is_lost",
        "a_close_ends_within_its_time_when_the_server_is_silent",
        "a_wrong_password_is_auth",
        "a_full_server_is_server_full_at_once_and_a_close_makes_room",
    ];
    assert_eq!(report.not_made(), without_a_server, "{report}");
}
