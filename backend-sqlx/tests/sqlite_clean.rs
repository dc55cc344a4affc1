//! What a user of a SQLite connection can do to it, and what becomes of it: the table in the docs of `Connection`, row
//! by row.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::StreamExt;
use sqlx::{Acquire, AssertSqlSafe, Connection as _, Executor, Row, Sqlite};
use support::sqlite::Folder;
use support::{PATIENCE, StandIn, in_time, polled_once};
use tenantry_core::{FailureKind, Health, PoolFactory};
use tenantry_sqlx::{Connection, Error};

type Lease = StandIn<Connection<Sqlite>>;

fn health(folder: &Folder, lease: &mut Lease) -> Health {
    folder.factory.health(&mut *lease)
}

async fn count(lease: &mut Lease) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM note").fetch_one(&mut **lease).await.expect("a count")
}

/// Recycles, and shows that the connection is then clean, outside of a transaction and of use.
async fn recycled(folder: &Folder, lease: &mut Lease) {
    in_time(folder.factory.recycle(&mut *lease)).await.expect("it can be cleaned");
    assert_eq!(health(folder, lease), Health::Clean);
    let transaction = lease.begin().await.expect("no transaction is open");
    transaction.rollback().await.expect("it is ours");
    assert_eq!(health(folder, lease), Health::Clean);
}

#[tokio::test]
async fn plain_statements_run_to_their_end_leave_a_connection_clean() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    assert_eq!(health(&folder, &mut lease), Health::Clean);

    sqlx::query("INSERT INTO note (text) VALUES ($1), ($2)").bind("a").bind("b").execute(&mut *lease).await.unwrap();
    sqlx::query("UPDATE note SET text = 'c' WHERE id = 1").execute(&mut *lease).await.unwrap();
    sqlx::query("DELETE FROM note WHERE id = 2").execute(&mut *lease).await.unwrap();
    sqlx::raw_sql("INSERT INTO note (text) VALUES ('d');").execute(&mut *lease).await.unwrap();
    assert_eq!(count(&mut lease).await, 2);
    let mut rows = sqlx::query("WITH a AS (SELECT id FROM note) SELECT id FROM a").fetch(&mut *lease);
    while let Some(row) = rows.next().await {
        row.unwrap();
    }
    drop(rows);
    assert!(sqlx::query("VALUES (1)").fetch_optional(&mut *lease).await.unwrap().is_some());
    lease.prepare("SELECT 1".into_sql()).await.unwrap();
    lease.ping().await.unwrap();
    assert_eq!(health(&folder, &mut lease), Health::Clean);
}

trait IntoSql {
    fn into_sql(self) -> sqlx::SqlStr;
}

impl IntoSql for &'static str {
    fn into_sql(self) -> sqlx::SqlStr {
        sqlx::SqlSafeStr::into_sql_str(self)
    }
}

#[tokio::test]
async fn an_error_of_the_database_leaves_a_connection_clean() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    sqlx::query("SELECT * FROM nowhere").execute(&mut *lease).await.unwrap_err();
    sqlx::query("INSERT INTO note (id, text) VALUES (1, NULL)").execute(&mut *lease).await.unwrap_err();
    sqlx::query("SELECT 1 WHERE false").fetch_one(&mut *lease).await.unwrap_err();
    assert_eq!(health(&folder, &mut lease), Health::Clean);
}

#[tokio::test]
async fn a_resolved_transaction_leaves_a_connection_clean() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    let mut transaction = lease.begin().await.unwrap();
    sqlx::query("INSERT INTO note (text) VALUES ('a')").execute(&mut *transaction).await.unwrap();
    let mut savepoint = transaction.begin().await.unwrap();
    sqlx::query("INSERT INTO note (text) VALUES ('b')").execute(&mut *savepoint).await.unwrap();
    savepoint.rollback().await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(health(&folder, &mut lease), Health::Clean);
    assert_eq!(count(&mut lease).await, 1);

    let transaction = lease.begin_with("BEGIN IMMEDIATE").await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(health(&folder, &mut lease), Health::Clean);
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_before_the_next_user() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    let mut transaction = lease.begin().await.unwrap();
    sqlx::query("INSERT INTO note (text) VALUES ('lost')").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    // The driver's thread may have rolled back already, and then it is clean indeed.
    recycled(&folder, &mut lease).await;
    assert_eq!(count(&mut lease).await, 0);
}

#[tokio::test]
async fn a_cancelled_begin_never_reaches_the_next_user() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    // The driver's thread may be quick enough to answer the first poll; then there was nothing to cancel.
    let mut cancelled = false;
    for _ in 0..1_000 {
        cancelled = polled_once(lease.begin());
        if cancelled {
            break;
        }
        recycled(&folder, &mut lease).await;
    }
    assert!(cancelled);
    assert_eq!(health(&folder, &mut lease), Health::Dirty);
    recycled(&folder, &mut lease).await;
}

#[tokio::test]
async fn a_future_never_polled_leaves_nothing() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    drop(lease.begin());
    drop(sqlx::query("SELECT 1").execute(&mut *lease));
    drop(sqlx::query("SELECT 1").fetch(&mut *lease));
    assert_eq!(health(&folder, &mut lease), Health::Clean);
}

#[tokio::test]
async fn a_raw_begin_never_reaches_the_next_user() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    for begin in ["BEGIN", "/* a */ begin immediate", "SAVEPOINT a", "SELECT 1; BEGIN", "-- a\nBEGIN"] {
        lease.execute(begin).await.unwrap();
        assert_eq!(health(&folder, &mut lease), Health::Dirty, "{begin}");
        sqlx::query("INSERT INTO note (text) VALUES ('lost')").execute(&mut *lease).await.unwrap();
        recycled(&folder, &mut lease).await;
        assert_eq!(count(&mut lease).await, 0, "{begin}");
    }
}

#[tokio::test]
async fn a_stream_dropped_half_way_is_recycled() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    let mut rows = sqlx::query("SELECT 1 UNION ALL SELECT 2 UNION ALL SELECT 3").fetch(&mut *lease);
    rows.next().await.unwrap().unwrap();
    drop(rows);
    assert_eq!(health(&folder, &mut lease), Health::Dirty);
    recycled(&folder, &mut lease).await;
}

const ENDLESS: &str = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT count(*) FROM a";

async fn start_an_endless_query(lease: &mut Lease) {
    assert!(polled_once(sqlx::query(ENDLESS).fetch_one(&mut **lease)));
}

#[tokio::test]
async fn a_cancelled_query_is_stopped_and_not_waited_for() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    start_an_endless_query(&mut lease).await;
    assert_eq!(health(&folder, &mut lease), Health::Dirty);
    recycled(&folder, &mut lease).await;
    let long = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a LIMIT 100000) SELECT count(*) FROM a";
    let rows: i64 = sqlx::query_scalar(long).fetch_one(&mut *lease).await.expect("the next query is not stopped");
    assert_eq!(rows, 100_000);
}

#[tokio::test]
async fn closing_stops_a_cancelled_query_and_frees_the_file() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    start_an_endless_query(&mut lease).await;
    in_time(folder.factory.close(lease.into_inner(), PATIENCE)).await;
    assert_eq!(folder.files(), ["acme.db"], "the last close removes the log");
}

#[tokio::test]
async fn the_drivers_own_connection_is_recycled_after_use() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    let raw: &mut sqlx::SqliteConnection = &mut lease;
    sqlx::query("SELECT 1").execute(raw).await.unwrap();
    assert_eq!(health(&folder, &mut lease), Health::Dirty);
    recycled(&folder, &mut lease).await;

    let raw = (&mut *lease).acquire().await.unwrap();
    sqlx::query("SELECT 1").execute(raw).await.unwrap();
    assert_eq!(health(&folder, &mut lease), Health::Dirty);
    recycled(&folder, &mut lease).await;
    assert!(!lease.is_in_transaction(), "looking through a shared reference is no use");
    assert_eq!(health(&folder, &mut lease), Health::Clean);
}

#[tokio::test]
async fn settings_and_temporary_objects_never_reach_the_next_user() {
    let folder = Folder::new().await;
    let other = folder.directory.path().join("other.db");
    std::fs::write(&other, "").unwrap();
    let attach = format!("ATTACH DATABASE '{}' AS \"the other\"", other.display());
    let mut lease = folder.lease().await;
    let before = state(&mut lease).await;
    for change in [
        "PRAGMA foreign_keys = OFF",
        "PRAGMA query_only = ON",
        "PRAGMA cache_size = 7",
        "PRAGMA busy_timeout = 1",
        "PRAGMA case_sensitive_like = ON",
        "PRAGMA wal_autocheckpoint = 7",
        "PRAGMA mmap_size = 65536",
        "PRAGMA synchronous = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA locking_mode = EXCLUSIVE; SELECT count(*) FROM note",
        "CREATE TEMP TABLE note (id INTEGER PRIMARY KEY, text UNIQUE)",
        "CREATE TEMP TABLE \"a b\" (id INTEGER); CREATE TEMP VIEW v AS SELECT 1; CREATE INDEX temp.i ON \"a b\" (id);
            CREATE TEMP TRIGGER t AFTER INSERT ON note BEGIN SELECT 1; END",
        &attach,
    ] {
        sqlx::raw_sql(AssertSqlSafe(change)).execute(&mut *lease).await.unwrap();
        assert_eq!(health(&folder, &mut lease), Health::Dirty, "{change}");
        assert_ne!(state(&mut lease).await, before, "{change}: the test has to see it");
        recycled(&folder, &mut lease).await;
        assert_eq!(state(&mut lease).await, before, "{change}");
    }
}

/// All of a connection that the test changes, as one text.
async fn state(lease: &mut Lease) -> String {
    let mut state: String = sqlx::query_scalar(
        "SELECT concat_ws(' ', (SELECT foreign_keys FROM pragma_foreign_keys), (SELECT query_only FROM pragma_query_only),
            (SELECT cache_size FROM pragma_cache_size), (SELECT timeout FROM pragma_busy_timeout), 'a' LIKE 'A',
            (SELECT synchronous FROM pragma_synchronous), (SELECT journal_mode FROM pragma_journal_mode),
            (SELECT locking_mode FROM pragma_locking_mode), (SELECT count(*) FROM temp.sqlite_master),
            (SELECT count(*) FROM pragma_database_list WHERE name <> 'temp'))",
    )
    .fetch_one(&mut **lease)
    .await
    .expect("a text");
    for row in sqlx::raw_sql("PRAGMA mmap_size; PRAGMA wal_autocheckpoint").fetch_all(&mut **lease).await.expect("two")
    {
        state += &format!(" {}", row.get::<i64, _>(0));
    }
    state
}

#[tokio::test]
async fn what_cannot_be_undone_is_closed() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    lease.lock_handle().await.unwrap().create_collation("mine", |a, b| b.cmp(a)).unwrap();
    assert_eq!(health(&folder, &mut lease), Health::Dirty);
    let error = folder.factory.recycle(&mut lease).await.unwrap_err();
    assert!(matches!(error, Error::LeftBehind { .. }), "{error:?}");
    assert_eq!(folder.factory.classify(&error), FailureKind::Other);
    in_time(folder.factory.close(lease.into_inner(), PATIENCE)).await;
}

#[tokio::test]
async fn statements_that_leave_no_state_are_kept_after_a_look() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    for statement in [
        "CREATE TABLE other (id INTEGER PRIMARY KEY)",
        "CREATE INDEX by_text ON note (text)",
        "DROP TABLE other",
        "ANALYZE",
        "VACUUM",
        "PRAGMA table_info(note)",
        "PRAGMA user_version = 3",
        "CREATE TEMP TABLE a (id INTEGER); DROP TABLE a",
    ] {
        sqlx::raw_sql(statement).execute(&mut *lease).await.unwrap();
        assert_eq!(health(&folder, &mut lease), Health::Dirty, "{statement}");
        recycled(&folder, &mut lease).await;
    }
}

#[tokio::test]
async fn a_forgotten_transaction_is_closed() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    std::mem::forget(lease.begin().await.unwrap());
    assert_eq!(health(&folder, &mut lease), Health::Dirty);
    folder.factory.recycle(&mut lease).await.expect_err("sqlx counts it for ever");
}

#[tokio::test]
async fn what_the_hook_sets_is_part_of_a_clean_connection() {
    let runs = Arc::new(AtomicU32::new(0));
    let seen = runs.clone();
    let folder = Folder::with(tempfile::tempdir().unwrap(), move |factory| {
        factory.after_connect(move |raw, tenant| {
            seen.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                assert_eq!(tenant.as_str(), "acme");
                sqlx::raw_sql("PRAGMA cache_size = 123; CREATE TEMP TABLE scratch (id INTEGER)").execute(raw).await?;
                Ok(())
            })
        })
    })
    .await;
    let before = runs.load(Ordering::Relaxed);
    let mut lease = folder.lease().await;
    assert_eq!(runs.load(Ordering::Relaxed), before + 1);
    sqlx::raw_sql("ANALYZE").execute(&mut *lease).await.unwrap();
    recycled(&folder, &mut lease).await;
    let size = sqlx::query("SELECT cache_size FROM pragma_cache_size").fetch_one(&mut *lease).await.unwrap();
    assert_eq!(size.get::<i64, _>(0), 123);
    assert_eq!(runs.load(Ordering::Relaxed), before + 1);
}

#[tokio::test]
async fn a_recycle_notices_that_the_database_was_dropped() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    std::fs::remove_file(folder.directory.path().join("acme.db")).unwrap();
    let error = folder.factory.recycle(&mut lease).await.unwrap_err();
    assert_eq!(folder.factory.classify(&error), FailureKind::NoSuchTenant);
}

#[tokio::test]
async fn migrations_run_once_and_are_recycled_after() {
    static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("tests/migrations");
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    for _ in 0..2 {
        lease.migrate(&MIGRATOR).await.unwrap();
        assert_eq!(health(&folder, &mut lease), Health::Dirty);
        recycled(&folder, &mut lease).await;
    }
    sqlx::query("INSERT INTO invoice (paid) VALUES (true)").execute(&mut *lease).await.unwrap();
}
