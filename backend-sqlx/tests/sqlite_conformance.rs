//! The contract of a driver, proved for SQLite by the suite of tenantry's testkit.

mod support;

use sqlx::sqlite::SqlitePool;
use sqlx::{Executor, Sqlite};
use support::sqlite::{Folder, open_databases};
use support::tenant;
use tenantry_core::{Provision, TenantId};
use tenantry_sqlx::{Connection, SqliteFactory};
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
        let file = self.0.factory.file(tenant)?;
        // The log and its index are two more of the same connection.
        Ok(open_databases(&file))
    }

    async fn ask(&self, connection: &mut Connection<Sqlite>) -> Result<(), Trouble> {
        sqlx::query("SELECT count(*) FROM sqlite_schema").execute(connection).await?;
        Ok(())
    }

    async fn keep(&self, connection: &mut Connection<Sqlite>, word: &str) -> Result<(), Trouble> {
        connection.execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        sqlx::query("INSERT INTO word VALUES (?)").bind(word).execute(connection).await?;
        Ok(())
    }

    async fn words(&self, connection: &mut Connection<Sqlite>) -> Result<Vec<String>, Trouble> {
        connection.execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        Ok(sqlx::query_scalar("SELECT word FROM word").fetch_all(connection).await?)
    }

    fn ways_to_leave(&self) -> Vec<&'static str> {
        vec!["BEGIN", "BEGIN; CREATE TABLE scratch (id)", "PRAGMA foreign_keys = OFF", "CREATE TEMP TABLE scratch (id)"]
    }

    async fn leave(&self, connection: &mut Connection<Sqlite>, way: &'static str) -> Result<(), Trouble> {
        connection.execute(way).await?;
        Ok(())
    }

    async fn left(&self, connection: &mut Connection<Sqlite>) -> Result<Vec<String>, Trouble> {
        let mut left: Vec<String> = sqlx::query_scalar(
            "SELECT name FROM temp.sqlite_schema
                UNION ALL SELECT name FROM sqlite_schema WHERE name = 'scratch'
                UNION ALL SELECT 'foreign keys are off' FROM pragma_foreign_keys WHERE foreign_keys = 0",
        )
        .fetch_all(&mut *connection)
        .await?;
        match connection.begin().await {
            Ok(transaction) => transaction.rollback().await?,
            Err(_) => left.push("a transaction".to_owned()),
        }
        Ok(left)
    }

    async fn interruptible(&self, connection: &mut Connection<Sqlite>) -> Result<(), Trouble> {
        let mut transaction = connection.begin().await?;
        transaction.execute("CREATE TABLE scratch (id)").await?;
        transaction.rollback().await?;
        connection.execute("BEGIN; ROLLBACK").await?;
        Ok(())
    }

    async fn kill(&self, _: &mut Connection<Sqlite>) -> Result<(), NotPossible> {
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
    type Pooled = sqlx::pool::PoolConnection<Sqlite>;

    async fn take(&self, pool: &SqlitePool) -> Result<Self::Pooled, Trouble> {
        Ok(pool.acquire().await?)
    }
}

#[tokio::test]
async fn the_driver_keeps_its_contract() {
    let folder = Folder::new().await;
    folder.factory.create(&tenant("other")).await.unwrap();
    let report = Suite::of(&Files(folder)).provision().native_pool().run().await;
    println!("conformance: sqlx, SQLite: {}", report.summary());
    report.assert_passed();
    let without_a_server = [
        "a_killed_connection_is_lost",
        "a_close_ends_within_its_time_when_the_server_is_silent",
        "a_wrong_password_is_auth",
        "a_full_server_is_server_full_at_once_and_a_close_makes_room",
    ];
    assert_eq!(report.not_made(), without_a_server, "{report}");
}
