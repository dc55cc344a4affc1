//! Which connections a PostgreSQL factory calls clean, and what is left on one that it has recycled.
#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "tests")]

mod support;

use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use diesel::sql_types::Integer;
use diesel::{ExpressionMethods as _, IntoSql as _, QueryDsl as _, SelectableHelper as _};
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use support::{Cluster, number, pid, plain_query, text};
use tenantry_core::{Health, PoolFactory as _};
use tenantry_testkit::PrivatePostgres;

/// Polls a future once and drops it, as a timeout does.
fn poll_once<T>(future: impl Future<Output = T>) -> bool {
    matches!(pin!(future).poll(&mut Context::from_waker(Waker::noop())), Poll::Ready(_))
}

#[tokio::test]
async fn a_query_that_diesel_keeps_leaves_a_connection_clean() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    for _ in 0..3 {
        plain_query(&mut connection).await;
        assert_eq!(cluster.factory.health(&mut connection), Health::Clean);
    }
}

#[tokio::test]
async fn a_transaction_leaves_a_connection_clean_when_it_ends_in_either_way() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    connection.batch_execute("CREATE TABLE t (n INT)").await.expect("runs");
    cluster.recycle(&mut connection).await;
    for keep in [true, false] {
        let answer: Result<(), diesel::result::Error> = connection
            .transaction(async |connection| {
                connection.batch_execute("INSERT INTO t VALUES (1)").await?;
                if keep { Ok(()) } else { Err(diesel::result::Error::RollbackTransaction) }
            })
            .await;
        assert_eq!(answer.is_ok(), keep);
        assert_eq!(cluster.factory.health(&mut connection), Health::Clean);
    }
    assert_eq!(number(&mut connection, "SELECT count(*) FROM t").await, 1);
}

#[tokio::test]
async fn a_failed_statement_leaves_a_connection_clean() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    connection.batch_execute("SELECT 1 / 0").await.expect_err("fails");
    // The error may be here before the end of the answer, without which nothing is known.
    while cluster.factory.health(&mut connection) != Health::Clean {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_open_transaction_is_rolled_back_however_it_was_begun() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    connection.batch_execute("CREATE TABLE t (n INT)").await.expect("runs");
    cluster.recycle(&mut connection).await;

    connection.batch_execute("BEGIN; INSERT INTO t VALUES (1)").await.expect("runs");
    cluster.recycle(&mut connection).await;
    connection.begin_test_transaction().await.expect("begins");
    connection.batch_execute("INSERT INTO t VALUES (2)").await.expect("runs");
    cluster.recycle(&mut connection).await;
    connection.batch_execute("BEGIN").await.expect("runs");
    connection.batch_execute("SELECT 1 / 0").await.expect_err("fails");
    cluster.recycle(&mut connection).await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM t").await, 0);

    // diesel's own account of transactions is right as well.
    let answer: Result<(), diesel::result::Error> = connection.transaction(async |_| Ok(())).await;
    answer.expect("the next user can have one");
    assert!(!cluster.server.log().contains("WARNING"), "{}", cluster.server.log());
}

async fn a_cancelled_begin_is_seen(rounds: u32) {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    let mut watcher = cluster.connect().await;
    let pid = pid(&mut connection).await;
    plain_query(&mut connection).await;
    let mut cancelled = 0;
    for _ in 0..rounds {
        // With the connection's task on another thread the answer may be there at once; then it has begun.
        cancelled += u32::from(!poll_once(connection.batch_execute("BEGIN")));
        assert_ne!(cluster.factory.health(&mut connection), Health::Clean);
        cluster.factory.recycle(&mut connection).await.expect("recycles");
        plain_query(&mut connection).await;
        let state = format!("SELECT state FROM pg_stat_activity WHERE pid = {pid}");
        assert_eq!(text(&mut watcher, &state).await, "idle");
    }
    assert!(cancelled > rounds / 2, "{cancelled} of {rounds} were put and not waited for");
}

#[tokio::test]
async fn a_cancelled_begin_never_reaches_the_next_user() {
    a_cancelled_begin_is_seen(20).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancelled_begin_never_reaches_the_next_user_on_another_thread() {
    a_cancelled_begin_is_seen(500).await;
}

#[tokio::test]
async fn a_transaction_dropped_half_way_at_any_step_never_reaches_the_next_user() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    connection.batch_execute("CREATE TABLE t (n INT)").await.expect("runs");
    cluster.recycle(&mut connection).await;
    for steps in 0..40 {
        let before = number(&mut connection, "SELECT count(*) FROM t").await;
        let finished = {
            let mut transaction = pin!(
                connection
                    .transaction(async |connection| { connection.batch_execute("INSERT INTO t VALUES (1)").await })
            );
            let mut finished = false;
            for _ in 0..steps {
                let once = std::future::poll_fn(|cx| Poll::Ready(transaction.as_mut().poll(cx).is_ready()));
                finished = finished || once.await;
                if finished {
                    break;
                }
                tokio::task::yield_now().await;
            }
            finished
        };
        if cluster.factory.health(&mut connection) != Health::Clean {
            cluster.recycle(&mut connection).await;
        }
        let answer: Result<(), diesel::result::Error> = connection.transaction(async |_| Ok(())).await;
        answer.expect("the next user has a whole connection");
        let after = number(&mut connection, "SELECT count(*) FROM t").await;
        assert!(after == before || after == before + 1, "whole or not at all");
        assert!(!finished || after == before + 1);
    }
}

#[tokio::test]
async fn nothing_of_a_session_survives_a_recycle_but_prepared_statements() {
    let server = PrivatePostgres::builder().setting("max_prepared_transactions", "1").start().expect("a server");
    let cluster = Cluster::on(server).await;
    cluster.server.run("postgres", "CREATE ROLE guest").await.expect("a role");
    let mut connection = cluster.connect().await;
    let mut other = cluster.connect().await;
    let pid = pid(&mut connection).await;
    let leave = [
        "SET search_path TO pg_catalog",
        "SET TIME ZONE 'Asia/Tokyo'",
        "SET ROLE guest",
        "CREATE TEMPORARY TABLE left_behind (n INT)",
        "LISTEN news",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "PREPARE mine AS SELECT 1",
    ];
    for statement in leave {
        connection.batch_execute(statement).await.expect(statement);
        assert_eq!(cluster.factory.health(&mut connection), Health::Dirty, "{statement}");
        cluster.recycle(&mut connection).await;
    }
    // This is what a user marks, as no tag tells.
    connection.batch_execute("SELECT pg_advisory_lock(7)").await.expect("locks");
    cluster.factory.recycle(&mut connection).await.expect("recycles");

    assert_eq!(text(&mut connection, "SELECT current_setting('search_path')").await, r#""$user", public"#);
    assert_eq!(text(&mut connection, "SELECT current_setting('TimeZone')").await, "UTC");
    assert_eq!(text(&mut connection, "SELECT current_user").await, cluster.server.superuser());
    assert_eq!(number(&mut connection, "SELECT count(*) FROM pg_class WHERE relname = 'left_behind'").await, 0);
    assert_eq!(number(&mut connection, "SELECT count(*) FROM pg_listening_channels()").await, 0);
    assert_eq!(number(&mut connection, "SELECT count(*) FROM pg_cursors WHERE name = 'c'").await, 0);
    assert_eq!(
        number(&mut other, &format!("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = {pid}")).await,
        0
    );
    assert_eq!(number(&mut connection, "SELECT count(*) FROM pg_prepared_statements WHERE name = 'mine'").await, 1);
}

#[tokio::test]
async fn statements_that_diesel_has_prepared_work_after_a_recycle() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    let ask = async |connection: &mut AsyncPgConnection| {
        let sum = diesel::select(1.into_sql::<Integer>() + 2.into_sql::<Integer>());
        sum.get_result::<i32>(connection).await
    };
    assert_eq!(ask(&mut connection).await, Ok(3));
    connection.batch_execute("SET search_path TO public").await.expect("runs");
    cluster.recycle(&mut connection).await;
    assert_eq!(ask(&mut connection).await, Ok(3));
    assert_eq!(cluster.factory.health(&mut connection), Health::Clean);
}

#[tokio::test]
async fn text_queries_settle_without_being_cleaned() {
    let server = PrivatePostgres::builder().setting("log_statement", "all").start().expect("a server");
    let cluster = Cluster::on(server).await;
    let mut connection = cluster.connect().await;
    // diesel does not keep statements of text, and says goodbye to each one without waiting.
    assert_eq!(number(&mut connection, "1").await, 1);
    if cluster.factory.health(&mut connection) == Health::Dirty {
        cluster.factory.recycle(&mut connection).await.expect("settles");
    }
    assert_eq!(cluster.factory.health(&mut connection), Health::Clean);
    assert!(!cluster.server.log().contains("DISCARD"), "{}", cluster.server.log());
    // A clean one that is only suspected of being dead is asked.
    cluster.factory.recycle(&mut connection).await.expect("is alive");
    assert!(cluster.server.log().contains("DISCARD"));
}

#[tokio::test]
async fn an_answer_that_nobody_read_to_its_end_is_not_clean() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    let many = diesel::dsl::sql::<Integer>("generate_series(1, 1000000)");
    let stream = diesel::select(many).load_stream::<i32>(&mut *connection).await.expect("begins");
    assert_eq!(cluster.factory.health(&mut connection), Health::Dirty);
    drop(stream);
    cluster.recycle(&mut connection).await;
    plain_query(&mut connection).await;
}

#[tokio::test]
async fn a_query_that_was_dropped_half_way_is_cancelled_by_the_recycle() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    for _ in 0..10 {
        let slow = connection.batch_execute("SELECT pg_sleep(3600)");
        assert!(tokio::time::timeout(Duration::from_millis(5), slow).await.is_err());
        cluster.recycle(&mut connection).await;
        plain_query(&mut connection).await;
    }
    assert!(cluster.server.log().contains("canceling statement due to user request"));
}

diesel::table! {
    note (id) {
        id -> Integer,
        text -> Text,
    }
}

#[derive(diesel::Queryable, diesel::Selectable)]
#[diesel(table_name = note)]
struct Note {
    id: i32,
    text: String,
}

#[tokio::test]
async fn ordinary_diesel_code_works_and_leaves_a_connection_clean() {
    let cluster = Cluster::new().await;
    cluster.server.run("acme", "CREATE TABLE note (id INT PRIMARY KEY, text TEXT NOT NULL)").await.expect("a table");
    let mut connection = cluster.connect().await;
    let values = (note::id.eq(1), note::text.eq("hello"));
    diesel::insert_into(note::table).values(values).execute(&mut connection).await.expect("inserts");
    let notes = note::table.select(Note::as_select()).filter(note::text.eq("hello"));
    let notes: Vec<Note> = notes.load(&mut connection).await.expect("loads");
    assert_eq!(notes.iter().map(|note| (note.id, note.text.as_str())).collect::<Vec<_>>(), [(1, "hello")]);
    diesel::delete(note::table).execute(&mut connection).await.expect("deletes");
    assert_eq!(cluster.factory.health(&mut connection), Health::Clean);
}
