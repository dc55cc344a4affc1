//! What one user leaves on a connection, and what the next one has of it, as the server itself sees both: one test for
//! each way to leave something. What the driver thinks of it stands in `postgres_clean.rs`.

mod support;

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use sqlx::postgres::PgConnection;
use sqlx::{Connection as _, Executor};
use support::postgres::{Cluster, options};
use support::{in_time, polled_once};
use tenantry_core::{Lease, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::servers::{Sample, patient};

/// All that anyone but its user can see of a session, and of what outlives one.
const LEFT: &str = "
    SELECT state FROM pg_stat_activity WHERE pid = $1 AND state <> 'idle'
    UNION ALL SELECT 'transaction' FROM pg_stat_activity WHERE pid = $1 AND xact_start IS NOT NULL
    UNION ALL SELECT 'setting' FROM pg_stat_activity WHERE pid = $1 AND application_name <> 'tenantry/acme'
    UNION ALL SELECT 'lock ' || locktype FROM pg_locks WHERE pid = $1
    UNION ALL SELECT 'prepared transaction ' || gid FROM pg_prepared_xacts
    UNION ALL SELECT 'temporary table ' || relname FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'";

/// One connection for one user after another, and someone who watches.
struct Scene {
    pools: TenantPools<PostgresFactory>,
    watcher: PgConnection,
    cluster: Cluster,
}

impl Scene {
    async fn new() -> Self {
        let cluster = Cluster::new().await;
        let pools = patient(TenantPools::builder(cluster.factory.clone()))
            .max_connections(1)
            .validate_after_idle(Duration::from_secs(3600))
            .build()
            .expect("good settings");
        let watcher = PgConnection::connect_with(&options(&cluster.server).database("acme")).await.expect("watches");
        Self { pools, watcher, cluster }
    }

    /// A connection and the server's word for it.
    async fn user(&self) -> (Lease<PostgresFactory>, i32) {
        let mut lease = in_time(self.pools.acquire("acme")).await.expect("a lease");
        let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut *lease).await.expect("a number");
        (lease, pid)
    }

    async fn left(&mut self, pid: i32) -> Vec<String> {
        sqlx::query_scalar(LEFT).bind(pid).fetch_all(&mut self.watcher).await.expect("an answer")
    }

    /// Waits until the server shows that one of these is there; a test that cannot see it shows nothing.
    async fn seen(&mut self, pid: i32, any: &[&str]) {
        in_time(async { while !self.left(pid).await.iter().any(|left| any.contains(&left.as_str())) {} }).await;
    }

    /// Lets go, and shows that the next user has nothing of it. True if they have the same connection.
    async fn passed_on(&mut self, lease: Lease<PostgresFactory>, pid: i32) -> bool {
        drop(lease);
        let next = in_time(self.pools.acquire("acme")).await.expect("a lease");
        assert_eq!(self.left(pid).await, [""; 0], "when the next user has a connection");
        drop(next);
        let (mut next, next_pid) = self.user().await;
        assert_eq!(self.left(next_pid).await, [""; 0], "when the next user has asked something");
        let path: String = sqlx::query_scalar("SHOW search_path").fetch_one(&mut *next).await.expect("a path");
        assert_eq!(path, "\"$user\", public");
        let notes: i64 =
            sqlx::query_scalar("SELECT count(*) FROM public.note").fetch_one(&mut *next).await.expect("a number");
        assert_eq!(notes, 0, "nothing was committed");
        drop(next);
        // What it was replaced by is the one connection there is.
        let app = |sample: &Sample| sample.in_database("acme") == 2;
        in_time(self.cluster.server.until(app)).await.expect("the watcher's and one more");
        next_pid == pid
    }

    /// One statement that leaves something which the server can see.
    async fn statement_leaves(sql: &'static str, what: &str) {
        let mut scene = Self::new().await;
        let (mut lease, pid) = scene.user().await;
        lease.execute(sql).await.expect(sql);
        scene.seen(pid, &[what]).await;
        assert!(scene.passed_on(lease, pid).await, "it was cleaned, not replaced");
    }
}

#[tokio::test]
async fn a_cancelled_query_never_reaches_the_next_user() {
    let mut scene = Scene::new().await;
    let (mut lease, pid) = scene.user().await;
    let sql = "SELECT pg_sleep(0.2); SET application_name = 'late'; SELECT pg_advisory_lock(7)";
    assert!(polled_once(lease.execute(sql)));
    // A watcher that was slow finds what comes after the sleep.
    scene.seen(pid, &["active", "setting"]).await;
    assert!(scene.passed_on(lease, pid).await);
}

#[tokio::test]
async fn a_stream_dropped_early_never_reaches_the_next_user() {
    let mut scene = Scene::new().await;
    let (mut lease, pid) = scene.user().await;
    let mut rows = sqlx::query("SELECT repeat('x', 1000) FROM generate_series(1, 100000)").fetch(&mut *lease);
    rows.next().await.expect("a row").expect("a row");
    drop(rows);
    // Its answer is more than the sockets' buffers hold.
    scene.seen(pid, &["active"]).await;
    assert!(scene.passed_on(lease, pid).await);
}

#[tokio::test]
async fn a_cancelled_begin_never_reaches_the_next_user() {
    let mut scene = Scene::new().await;
    let (mut lease, pid) = scene.user().await;
    {
        let mut begin = std::pin::pin!(lease.begin());
        // Sent, and dropped before the answer is read, which may be there already.
        poll_fn(|context| {
            let _ = begin.as_mut().poll(context);
            Poll::Ready(())
        })
        .await;
    }
    scene.seen(pid, &["idle in transaction"]).await;
    assert!(scene.passed_on(lease, pid).await);
}

#[tokio::test]
async fn a_dropped_transaction_never_reaches_the_next_user() {
    let mut scene = Scene::new().await;
    let (mut lease, pid) = scene.user().await;
    let mut transaction = lease.begin().await.expect("begins");
    transaction.execute("INSERT INTO note (text) VALUES ('lost')").await.expect("a row");
    drop(transaction);
    scene.seen(pid, &["lock relation"]).await;
    assert!(scene.passed_on(lease, pid).await);
}

#[tokio::test]
async fn a_forgotten_transaction_never_reaches_the_next_user() {
    let mut scene = Scene::new().await;
    let (mut lease, pid) = scene.user().await;
    let mut transaction = lease.begin().await.expect("begins");
    transaction.execute("INSERT INTO note (text) VALUES ('lost')").await.expect("a row");
    std::mem::forget(transaction);
    scene.seen(pid, &["lock relation"]).await;
    assert!(!scene.passed_on(lease, pid).await, "sqlx cannot end it, so the connection is replaced");
}

#[tokio::test]
async fn a_raw_begin_never_reaches_the_next_user() {
    Scene::statement_leaves("BEGIN", "idle in transaction").await;
}

#[tokio::test]
async fn a_begin_behind_a_comment_never_reaches_the_next_user() {
    Scene::statement_leaves("/* SELECT /* nested */ */ -- and\n begin", "idle in transaction").await;
}

#[tokio::test]
async fn a_begin_as_the_second_statement_never_reaches_the_next_user() {
    Scene::statement_leaves("SELECT 1; BEGIN", "idle in transaction").await;
}

#[tokio::test]
async fn a_failed_transaction_never_reaches_the_next_user() {
    let mut scene = Scene::new().await;
    let (mut lease, pid) = scene.user().await;
    lease.execute("BEGIN; SELECT 1 / 0").await.expect_err("it cannot be divided");
    scene.seen(pid, &["idle in transaction (aborted)"]).await;
    assert!(scene.passed_on(lease, pid).await);
}

#[tokio::test]
async fn a_session_setting_never_reaches_the_next_user() {
    Scene::statement_leaves("SET search_path = elsewhere; SET application_name = 'other'", "setting").await;
}

#[tokio::test]
async fn a_temporary_table_never_reaches_the_next_user() {
    let made = "CREATE TEMPORARY TABLE note (id INT); INSERT INTO note VALUES (1)";
    Scene::statement_leaves(made, "temporary table note").await;
}

#[tokio::test]
async fn an_advisory_lock_never_reaches_the_next_user() {
    Scene::statement_leaves("SELECT pg_advisory_lock(7)", "lock advisory").await;
}

/// Inside of a transaction nobody looks; the user says so.
#[tokio::test]
async fn what_a_user_marks_dirty_never_reaches_the_next_user() {
    let mut scene = Scene::new().await;
    let (mut lease, pid) = scene.user().await;
    let mut transaction = lease.begin().await.expect("begins");
    transaction.execute("SELECT pg_advisory_lock(7)").await.expect("a lock");
    transaction.commit().await.expect("commits");
    lease.mark_dirty();
    scene.seen(pid, &["lock advisory"]).await;
    assert!(scene.passed_on(lease, pid).await);
}
