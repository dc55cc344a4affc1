//! What is seen of a use of a SQLite connection, and that nothing of it reaches the next user.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "tests")]

#[path = "support/sqlite.rs"]
mod support;

use std::sync::mpsc;
use std::time::Duration;

use diesel::connection::{InstrumentationEvent, SimpleConnection as _};
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};
use support::{Folder, LONG, notes, number, texts};
use tenantry_core::{Health, PoolFactory as _, TenantPools};
use tenantry_diesel::SqliteConnection;

diesel::define_sql_function!(
    /// A function that a user registers.
    fn twice(x: Integer) -> Integer
);

#[tokio::test]
async fn plain_statements_and_whole_transactions_leave_a_connection_clean() {
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    assert_eq!(folder.factory.health(&mut connection), Health::Clean, "a new one");
    assert_eq!(notes(&mut connection).await, 0);
    let insert = diesel::sql_query("INSERT INTO note VALUES (?)").bind::<Text, _>("; ATTACH 'a' AS b");
    insert.execute(&mut connection).await.expect("inserts");
    assert_eq!(folder.factory.health(&mut connection), Health::Clean);
    let done: Result<(), diesel::result::Error> = connection
        .transaction(async |connection| {
            connection.batch_execute("INSERT INTO note VALUES ('one')").await?;
            let nested: Result<(), diesel::result::Error> = connection
                .transaction(async |connection| {
                    connection.batch_execute("INSERT INTO note VALUES ('two')").await?;
                    Err(diesel::result::Error::RollbackTransaction)
                })
                .await;
            nested.expect_err("rolled back");
            Ok(())
        })
        .await;
    done.expect("commits");
    assert_eq!(folder.factory.health(&mut connection), Health::Clean);
    connection.batch_execute("nonsense").await.expect_err("no statement");
    let error = connection.batch_execute("INSERT INTO note VALUES (NULL)").await;
    error.expect_err("not null");
    folder.recycle(&mut connection).await;
    assert_eq!(notes(&mut connection).await, 2);
}

#[tokio::test]
async fn whatever_is_left_is_gone_for_the_next_user() {
    let folder = Folder::new().await;
    let attach = format!("ATTACH '{}' AS other", folder.directory.path().join("other").display());
    for left in [
        "BEGIN",
        "SAVEPOINT a",
        "-- hidden\n /* well */ begin immediate",
        "PRAGMA foreign_keys = OFF",
        "PRAGMA query_only = ON",
        "CREATE TEMP TABLE scratch (id)",
        "CREATE TEMP VIEW seen AS SELECT 1",
        "BEGIN; INSERT INTO note VALUES ('a'); COMMIT; PRAGMA foreign_keys = OFF",
        "SELECT 1; BEGIN",
        &attach,
    ] {
        let mut connection = folder.connect().await;
        connection.batch_execute(left).await.expect(left);
        folder.recycle(&mut connection).await;
        assert_eq!(number(&mut connection, "SELECT foreign_keys FROM pragma_foreign_keys").await, 1, "{left}");
        assert_eq!(number(&mut connection, "SELECT count(*) FROM temp.sqlite_schema").await, 0, "{left}");
        let databases = texts(&mut connection, "SELECT name AS value FROM pragma_database_list").await;
        assert!(!databases.contains(&"other".to_owned()), "{left}");
        connection.batch_execute("BEGIN IMMEDIATE").await.expect("no transaction is open, and it may write");
        folder.recycle(&mut connection).await;
        folder.factory.close(connection, LONG).await;
    }
}

#[tokio::test]
async fn a_commit_that_fails_leaves_its_transaction_open() {
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    connection
        .batch_execute("CREATE TABLE p (id PRIMARY KEY); CREATE TABLE c (p REFERENCES p DEFERRABLE INITIALLY DEFERRED)")
        .await
        .expect("tables");
    folder.recycle(&mut connection).await;
    connection.batch_execute("BEGIN").await.expect("begins");
    connection.batch_execute("INSERT INTO c VALUES (1)").await.expect("checked later");
    connection.batch_execute("COMMIT").await.expect_err("checked now");
    folder.recycle(&mut connection).await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM c").await, 0);
}

/// Holds the connection's thread until told, and leaves something then.
fn hold(connection: &mut SqliteConnection) -> (impl Future<Output = ()> + use<>, mpsc::Sender<()>) {
    let (go_on, told) = mpsc::channel::<()>();
    let work = connection.spawn_blocking(move |raw| {
        let _ = told.recv();
        raw.batch_execute("PRAGMA foreign_keys = OFF")?;
        raw.batch_execute("BEGIN")
    });
    (async move { work.await.expect("begins") }, go_on)
}

#[tokio::test]
async fn work_that_nobody_waits_for_any_more_keeps_nobody_and_reaches_nobody() {
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    let (work, go_on) = hold(&mut connection);
    // On a runtime of one thread, where diesel-async's own would panic.
    tokio::time::timeout(Duration::from_millis(1), work).await.expect_err("it waits");
    assert_eq!(folder.factory.health(&mut connection), Health::Dirty, "without waiting for it");

    let mut recycle = Box::pin(folder.factory.recycle(&mut connection));
    tokio::time::timeout(Duration::from_millis(1), &mut recycle).await.expect_err("nor does it clean too early");
    go_on.send(()).expect("it listens");
    recycle.await.expect("recycles");
    assert_eq!(folder.factory.health(&mut connection), Health::Clean);
    assert_eq!(number(&mut connection, "SELECT foreign_keys FROM pragma_foreign_keys").await, 1);
    connection.batch_execute("BEGIN").await.expect("none is open");
}

#[tokio::test]
async fn a_close_waits_for_work_under_way_at_most_until_its_bound() {
    let folder = Folder::new().await;
    let file = folder.factory.file(&folder.acme).expect("a name");
    let mut connection = folder.connect().await;
    let (work, go_on) = hold(&mut connection);
    drop(work);
    folder.factory.close(connection, Duration::from_millis(1)).await;
    assert_eq!(support::open_databases(&file), 1, "its thread still has it");
    go_on.send(()).expect("it listens");
    while support::open_databases(&file) > 0 {
        tokio::task::yield_now().await;
    }

    let mut connection = folder.connect().await;
    let (work, go_on) = hold(&mut connection);
    drop(work);
    let close = folder.factory.close(connection, LONG);
    go_on.send(()).expect("it listens");
    close.await;
    assert_eq!(support::open_databases(&file), 0);
}

#[tokio::test]
async fn work_that_is_no_statement_is_undone() {
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    connection.spawn_blocking(|raw| twice_utils::register_impl(raw, |x: i32| 2 * x)).await.expect("registers");
    let ask = diesel::select(twice(21));
    assert_eq!(ask.get_result::<i32>(&mut connection).await, Ok(42));
    folder.recycle(&mut connection).await;
    let ask = diesel::select(twice(21));
    ask.get_result::<i32>(&mut connection).await.expect_err("no such function");
}

#[tokio::test]
async fn where_nobody_reads_along_everything_is_dirty() {
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    connection.set_instrumentation(|_: InstrumentationEvent<'_>| {});
    notes(&mut connection).await;
    folder.recycle(&mut connection).await;
    notes(&mut connection).await;
    assert_eq!(folder.factory.health(&mut connection), Health::Clean, "somebody reads along again");
}

#[tokio::test]
async fn work_that_panics_is_undone() {
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    let work = connection.spawn_blocking(|raw| {
        diesel::RunQueryDsl::execute(diesel::sql_query("SELECT 1"), raw)?;
        twice_utils::register_impl(raw, |x: i32| 2 * x)?;
        if raw.batch_execute("SELECT 1").is_ok() {
            panic!("a user's");
        }
        Ok(())
    });
    work.await.expect_err("it panics");
    folder.recycle(&mut connection).await;
    let ask = diesel::select(twice(21));
    ask.get_result::<i32>(&mut connection).await.expect_err("no such function");
}

#[tokio::test]
async fn the_users_default_instrumentation_is_told_everything() {
    static TOLD: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
    let tell = || -> Option<Box<dyn diesel::connection::Instrumentation>> {
        Some(Box::new(|event: InstrumentationEvent<'_>| {
            if let InstrumentationEvent::StartQuery { query, .. } = event {
                TOLD.lock().expect("no panic").push(query.to_string());
            }
        }))
    };
    diesel::connection::set_default_instrumentation(tell).expect("sets");
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    notes(&mut connection).await;
    assert_eq!(folder.factory.health(&mut connection), Health::Clean);
    let told = TOLD.lock().expect("no panic");
    assert!(told.iter().any(|query| query.contains("count(*) FROM note")), "{told:?}");
}

#[tokio::test]
async fn a_lease_is_a_connection_of_diesel_in_a_task_as_well() {
    let folder = Folder::new().await;
    let pools = TenantPools::builder(folder.factory.clone()).max_connections(2).build().expect("settings");
    let mut lease = pools.acquire("acme").await.expect("a lease");
    let task = tokio::spawn(async move {
        let plain: Result<i64, diesel::result::Error> = lease
            .transaction(async |lease| {
                lease.batch_execute("INSERT INTO note VALUES ('one')").await?;
                Ok(1)
            })
            .await;
        assert_eq!(plain, Ok(1));
        let immediate: Result<i64, diesel::result::Error> = lease
            .immediate_transaction(async |connection| {
                connection.batch_execute("INSERT INTO note VALUES ('two')").await?;
                Ok(notes(connection).await)
            })
            .await;
        assert_eq!(immediate, Ok(2));
        let refused: Result<(), diesel::result::Error> = lease
            .immediate_transaction(async |connection| {
                connection.batch_execute("INSERT INTO note VALUES ('three')").await?;
                Err(diesel::result::Error::RollbackTransaction)
            })
            .await;
        refused.expect_err("rolled back");
        notes(&mut lease).await
    });
    assert_eq!(task.await.expect("no panic"), 2);
    pools.close().await;
    assert_eq!(folder.files(), ["acme.db"]);
}
