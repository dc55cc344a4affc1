//! What a user of a PostgreSQL connection can do to it, and what becomes of it: the table in the docs of `Connection`,
//! row by row, on a private server.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::StreamExt;
use sqlx::{Acquire, Connection as _, Executor, Postgres, SqlSafeStr};
use support::postgres::Cluster;
use support::{PATIENCE, StandIn, in_time, polled_once};
use tenantry_core::{FailureKind, Health, PoolFactory};
use tenantry_sqlx::Connection;

type Lease = StandIn<Connection<Postgres>>;

fn health(cluster: &Cluster, lease: &mut Lease) -> Health {
    cluster.factory.health(&mut *lease)
}

async fn scalar<T>(lease: &mut Lease, sql: &'static str) -> T
where
    T: for<'r> sqlx::Decode<'r, Postgres> + sqlx::Type<Postgres> + Send + Unpin + 'static,
{
    sqlx::query_scalar(sql).fetch_one(&mut **lease).await.expect(sql)
}

/// Recycles, and shows that the session is then outside of a transaction and of use.
async fn recycled(cluster: &Cluster, lease: &mut Lease) {
    in_time(cluster.factory.recycle(&mut *lease)).await.expect("it can be cleaned");
    assert_eq!(health(cluster, lease), Health::Clean);
    // It stands still inside of a transaction.
    let now = "SELECT now()::text";
    assert_ne!(scalar::<String>(lease, now).await, scalar::<String>(lease, now).await, "no transaction is open");
    assert_eq!(health(cluster, lease), Health::Clean);
}

#[tokio::test]
async fn plain_statements_and_resolved_transactions_leave_a_connection_clean() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    assert_eq!(health(&cluster, &mut lease), Health::Clean);
    sqlx::query("INSERT INTO note (text) VALUES ($1), ($2)").bind("a").bind("b;").execute(&mut *lease).await.unwrap();
    sqlx::query("UPDATE note SET text = 'c;d' WHERE id = 1").execute(&mut *lease).await.unwrap();
    sqlx::raw_sql("DELETE FROM note WHERE id = 2;").execute(&mut *lease).await.unwrap();
    let mut rows = sqlx::query("WITH a AS (SELECT id FROM note) SELECT id FROM a").fetch(&mut *lease);
    while let Some(row) = rows.next().await {
        row.unwrap();
    }
    drop(rows);
    sqlx::query("SELECT pg_advisory_xact_lock(1)").execute(&mut *lease).await.unwrap();
    lease.prepare("SELECT 1".into_sql_str()).await.unwrap();
    lease.ping().await.unwrap();
    assert_eq!(health(&cluster, &mut lease), Health::Clean);

    let mut transaction = lease.begin().await.unwrap();
    let mut savepoint = transaction.begin().await.unwrap();
    sqlx::query("INSERT INTO note (text) VALUES ('a')").execute(&mut *savepoint).await.unwrap();
    savepoint.rollback().await.unwrap();
    transaction.commit().await.unwrap();
    let transaction = lease.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE").await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(health(&cluster, &mut lease), Health::Clean);
}

#[tokio::test]
async fn an_error_of_the_database_leaves_a_connection_clean() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    sqlx::query("SELECT * FROM nowhere").execute(&mut *lease).await.unwrap_err();
    sqlx::raw_sql("SELECT * FROM nowhere").execute(&mut *lease).await.unwrap_err();
    let mut rows = sqlx::query("SELECT 1 / (2 - a) FROM generate_series(1, 3) a").fetch(&mut *lease);
    assert!(rows.next().await.unwrap().is_ok());
    assert!(rows.next().await.unwrap().is_err());
    drop(rows);
    assert_eq!(health(&cluster, &mut lease), Health::Clean);
    assert_eq!(scalar::<i32>(&mut lease, "SELECT 7").await, 7);
}

#[tokio::test]
async fn a_cancelled_begin_never_reaches_the_next_user() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    // One poll sends BEGIN and finds no answer yet, unless the server was very quick.
    let mut cancelled = false;
    for _ in 0..1_000 {
        cancelled = polled_once(lease.begin());
        if cancelled {
            break;
        }
        recycled(&cluster, &mut lease).await;
    }
    assert!(cancelled);
    assert!(!lease.is_in_transaction(), "sqlx does not know of it");
    assert!(!lease.should_flush(), "and has nothing left to send");
    assert_eq!(health(&cluster, &mut lease), Health::Dirty);
    recycled(&cluster, &mut lease).await;
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_before_the_next_user() {
    let cluster = Cluster::new().await;
    let slow_commit = "CREATE TABLE slow (id SERIAL);
        CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql
            AS 'BEGIN PERFORM pg_sleep(0.1); RETURN NULL; END';
        CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON slow DEFERRABLE INITIALLY DEFERRED
            FOR EACH ROW EXECUTE FUNCTION slow()";
    cluster.server.run("acme", slow_commit).await.unwrap();
    let mut lease = cluster.lease().await;
    let mut transaction = lease.begin().await.unwrap();
    sqlx::query("INSERT INTO note (text) VALUES ('lost')").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    assert_eq!(health(&cluster, &mut lease), Health::Dirty);
    recycled(&cluster, &mut lease).await;

    let mut transaction = lease.begin().await.unwrap();
    sqlx::query("SELECT * FROM nowhere").execute(&mut *transaction).await.unwrap_err();
    drop(transaction);
    assert_eq!(health(&cluster, &mut lease), Health::Dirty);
    recycled(&cluster, &mut lease).await;

    let mut transaction = lease.begin().await.unwrap();
    sqlx::query("INSERT INTO slow DEFAULT VALUES").execute(&mut *transaction).await.unwrap();
    assert!(polled_once(transaction.commit()));
    assert_eq!(health(&cluster, &mut lease), Health::Dirty, "a cancelled commit");
    recycled(&cluster, &mut lease).await;
    assert_eq!(scalar::<i64>(&mut lease, "SELECT count(*) FROM note").await, 0);
}

#[tokio::test]
async fn a_raw_begin_never_reaches_the_next_user() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    for begin in ["BEGIN", "/* a /* b */ */ begin", "SELECT 1; BEGIN", "START TRANSACTION", "BEGIN; SELECT 1 / 0"] {
        let _ = lease.execute(begin).await;
        assert_eq!(health(&cluster, &mut lease), Health::Dirty, "{begin}");
        recycled(&cluster, &mut lease).await;
    }
}

#[tokio::test]
async fn a_query_or_stream_dropped_half_way_is_recycled() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    let mut rows = sqlx::query("SELECT generate_series(1, 100000)").fetch(&mut *lease);
    rows.next().await.unwrap().unwrap();
    drop(rows);
    assert_eq!(health(&cluster, &mut lease), Health::Dirty);
    recycled(&cluster, &mut lease).await;

    // It is cancelled while it runs, and fails later.
    assert!(polled_once(sqlx::raw_sql("SELECT 1 / length(pg_sleep(0.1)::text)").execute(&mut *lease)));
    assert_eq!(health(&cluster, &mut lease), Health::Dirty);
    recycled(&cluster, &mut lease).await;
}

#[tokio::test]
async fn a_future_never_polled_leaves_nothing() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    drop(lease.begin());
    drop(sqlx::query("SELECT 1").execute(&mut *lease));
    drop(sqlx::query("SELECT 1").fetch(&mut *lease));
    assert_eq!(health(&cluster, &mut lease), Health::Clean);
}

#[tokio::test]
async fn an_advisory_lock_never_reaches_the_next_user() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    for lock in [
        "SELECT pg_advisory_lock(1)",
        "SELECT pg_catalog.Pg_Advisory_Lock_Shared(1)",
        "WITH a AS (SELECT pg_try_advisory_lock(1)) SELECT * FROM a",
        "INSERT INTO note (text) SELECT pg_try_advisory_lock_shared(1)::text",
    ] {
        sqlx::query(lock).execute(&mut *lease).await.unwrap();
        assert_eq!(health(&cluster, &mut lease), Health::Dirty, "{lock}");
        recycled(&cluster, &mut lease).await;
        let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'";
        assert_eq!(scalar::<i64>(&mut lease, held).await, 0, "{lock}");
    }
}

#[tokio::test]
async fn settings_roles_and_temporary_tables_never_reach_the_next_user() {
    let cluster = Cluster::new().await;
    cluster.server.run("acme", "CREATE ROLE other").await.unwrap();
    let mut lease = cluster.lease().await;
    let before: String = state(&mut lease).await;
    assert_eq!(health(&cluster, &mut lease), Health::Clean);
    for change in [
        "SET search_path = elsewhere",
        "SET ROLE other",
        "SET SESSION AUTHORIZATION other",
        "SET application_name = 'x'",
        "SET default_transaction_read_only = on",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
        "SELECT set_config('search_path', 'elsewhere', false)",
        "UPDATE pg_settings SET setting = 'elsewhere' WHERE name = 'search_path'",
        "CREATE TEMP TABLE note (id int)",
        "SELECT 1 AS a INTO TEMP scratch",
        "LISTEN news",
        "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        "PREPARE mine AS SELECT 1",
    ] {
        sqlx::raw_sql(change).execute(&mut *lease).await.expect(change);
        assert_eq!(health(&cluster, &mut lease), Health::Dirty, "{change}");
        let changed = state(&mut lease).await;
        assert_ne!(changed, before, "{change}: the test has to see it");
        recycled(&cluster, &mut lease).await;
        assert_eq!(state(&mut lease).await, before, "{change}");
    }
}

/// All of a session that the test changes, as one text. Never fails, whatever the session is like.
async fn state(lease: &mut Lease) -> String {
    scalar(
        lease,
        "SELECT concat_ws(' | ', current_user, session_user, current_setting('search_path'),
            current_setting('role'), current_setting('application_name'),
            current_setting('default_transaction_read_only'),
            (SELECT count(*) FROM pg_catalog.pg_class WHERE relpersistence = 't' AND relkind = 'r'),
            (SELECT count(*) FROM pg_catalog.pg_listening_channels()),
            (SELECT count(*) FROM pg_catalog.pg_cursors WHERE is_holdable),
            (SELECT count(*) FROM pg_catalog.pg_prepared_statements WHERE from_sql))",
    )
    .await
}

#[tokio::test]
async fn sqlxs_prepared_statements_outlive_a_recycle_and_are_forgotten_with_the_servers() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    assert_eq!(scalar::<i32>(&mut lease, "SELECT 40 + 2").await, 42);
    let kept = lease.cached_statements_size();
    assert_eq!(kept, 1);
    in_time(cluster.factory.recycle(&mut lease)).await.unwrap();
    assert_eq!(lease.cached_statements_size(), kept);

    for gone in ["DEALLOCATE ALL", "DISCARD ALL"] {
        sqlx::raw_sql(gone).execute(&mut *lease).await.unwrap();
        in_time(cluster.factory.recycle(&mut lease)).await.unwrap();
        assert_eq!(scalar::<i32>(&mut lease, "SELECT 40 + 2").await, 42, "{gone}");
    }
}

#[tokio::test]
async fn the_drivers_own_connection_and_migrations_are_recycled_after_use() {
    static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("tests/migrations");
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    let raw: &mut sqlx::PgConnection = &mut lease;
    raw.ping().await.unwrap();
    assert_eq!(health(&cluster, &mut lease), Health::Dirty);
    recycled(&cluster, &mut lease).await;

    (&mut *lease).acquire().await.unwrap();
    assert_eq!(health(&cluster, &mut lease), Health::Dirty);
    recycled(&cluster, &mut lease).await;

    lease.migrate(&MIGRATOR).await.unwrap();
    assert_eq!(health(&cluster, &mut lease), Health::Dirty);
    recycled(&cluster, &mut lease).await;
}

#[tokio::test]
async fn a_forgotten_transaction_is_broken() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    std::mem::forget(lease.begin().await.unwrap());
    assert_eq!(health(&cluster, &mut lease), Health::Broken);
    in_time(cluster.factory.close(lease.into_inner(), PATIENCE)).await;
    cluster.server.until(|sample| sample.in_database("acme") == 0).await.unwrap();
}

#[tokio::test]
async fn a_session_that_the_server_ended_is_lost() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    let end = "SELECT pg_terminate_backend(pg_backend_pid())";
    let error = sqlx::query(end).execute(&mut *lease).await.unwrap_err();
    assert!(error.as_database_error().is_some(), "{error:?}");
    assert_eq!(health(&cluster, &mut lease), Health::Lost);

    let mut lease = cluster.lease().await;
    let pid: i32 = scalar(&mut lease, "SELECT pg_backend_pid()").await;
    cluster.server.run("postgres", &format!("SELECT pg_terminate_backend({pid}, 60000)")).await.unwrap();
    assert_eq!(health(&cluster, &mut lease), Health::Clean, "nothing shows it before the next use");
    let error = in_time(cluster.factory.recycle(&mut lease)).await.unwrap_err();
    assert_eq!(cluster.factory.classify(&error), FailureKind::Unreachable);
    sqlx::query("SELECT 1").execute(&mut *lease).await.unwrap_err();
    assert_eq!(health(&cluster, &mut lease), Health::Lost);
    in_time(cluster.factory.close(lease.into_inner(), PATIENCE)).await;
}

#[tokio::test]
async fn a_crash_of_the_server_is_lost() {
    let mut cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    cluster.server.stop_immediate().unwrap();
    sqlx::query("SELECT 1").execute(&mut *lease).await.unwrap_err();
    assert_eq!(health(&cluster, &mut lease), Health::Lost);
    let error = cluster.factory.connect(&cluster.acme).await.unwrap_err();
    assert_eq!(cluster.factory.classify(&error), FailureKind::Unreachable);
}

#[tokio::test]
async fn the_hook_runs_again_after_each_recycle() {
    let runs = Arc::new(AtomicU32::new(0));
    let seen = runs.clone();
    let cluster = Cluster::with(move |factory| {
        factory.after_connect(move |raw, tenant| {
            seen.fetch_add(1, Ordering::Relaxed);
            Box::pin(async move {
                assert_eq!(tenant.as_str(), "acme");
                sqlx::raw_sql("SET work_mem = '123kB'").execute(raw).await.map(drop)
            })
        })
    })
    .await;
    let mut lease = cluster.lease().await;
    let work_mem = "SELECT current_setting('work_mem')";
    assert_eq!(scalar::<String>(&mut lease, work_mem).await, "123kB");
    assert_eq!(health(&cluster, &mut lease), Health::Clean);
    sqlx::raw_sql("SET work_mem = '64kB'").execute(&mut *lease).await.unwrap();
    recycled(&cluster, &mut lease).await;
    assert_eq!(scalar::<String>(&mut lease, work_mem).await, "123kB");
    assert_eq!(runs.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_recycle_writes_no_warning_to_the_servers_log() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    for _ in 0..3 {
        recycled(&cluster, &mut lease).await;
    }
    let log = cluster.server.log();
    assert!(!log.contains("WARNING"), "{log}");
}
