//! Pool leases: diesel-async's own deadpool pool on a part of the budget, for code that insists on one.
#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "tests")]

mod support;

use std::time::Duration;

use diesel::QueryResult;
use diesel_async::pooled_connection::deadpool::{Object, Pool};
use diesel_async::{AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use support::{Cluster, number, tenant};
use tenantry_core::{AcquireError, FailureKind, NativePool as _, TenantPools};
use tenantry_diesel::{PostgresFactory, TenantHandle};
use tenantry_testkit::servers::{Role, patient};
use tenantry_testkit::{PrivatePostgres, Sampler};

/// Code that was written for a pool of diesel-async's.
async fn one(pool: &Pool<AsyncPgConnection>) -> i32 {
    let mut connection = pool.get().await.expect("a connection");
    diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("1")).get_result(&mut connection).await.expect("one")
}

async fn until(mut done: impl FnMut() -> bool) {
    while !done() {
        tokio::task::yield_now().await;
    }
}

/// A server that lets the role `two` have two connections at once.
async fn limited() -> (Cluster, PostgresFactory) {
    let role = Role::new("two", "mark3r-role").connection_limit(2);
    let server = PrivatePostgres::builder().setting("password_encryption", "md5").role(role).start();
    let cluster = Cluster::on(server.expect("a server")).await;
    let factory = cluster.factory_as("two", "mark3r-role");
    (cluster, factory)
}

#[tokio::test]
async fn a_pool_lease_is_a_pool_of_diesel_asyncs_own() {
    let cluster = Cluster::new().await;
    let pools = patient(TenantPools::builder(cluster.factory.clone())).max_connections(4).max_connections_per_tenant(3);
    let pools = pools.build().expect("settings");
    let lease = pools.acquire_pool("acme", 2).await.expect("a pool");
    assert_eq!(one(&lease).await, 1);
    assert_eq!(lease.status().max_size, 2);
    let kept: Pool<AsyncPgConnection> = Pool::clone(&lease);
    lease.close().await;
    assert!(kept.is_closed());
    assert_eq!(pools.stats().pool_leased, 0);
    pools.close().await;
    assert_eq!(cluster.server.sample().await.expect("a sample").in_database("acme"), 0);
}

/// By itself, a deadpool pool forgets what was taken out of it or dropped, and opens another one at once.
#[tokio::test]
async fn the_server_never_has_more_than_asked_for() {
    let (cluster, factory) = limited().await;
    let sampler = Sampler::start(&cluster.server, Duration::from_millis(1)).await.expect("a sampler");
    let pool = factory.open_pool(&tenant("acme"), 2).await.expect("a pool");
    for _ in 0..25 {
        let tasks: Vec<_> = (0..4)
            .map(|number| {
                let pool = pool.clone();
                tokio::spawn(async move {
                    let mut connection = pool.get().await.expect("the server lets it in");
                    connection.batch_execute("SELECT 1").await.expect("answers");
                    if number % 2 == 0 {
                        drop(Object::take(connection));
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.expect("no panic");
        }
    }
    factory.close_pool(pool).await;
    let seen = sampler.stop().await.expect("samples");
    assert!(seen.most_of_role["two"] <= 2, "{seen:?}");
    assert_eq!(cluster.server.sample().await.expect("a sample").of_role("two"), 0);
    assert!(!cluster.server.log().contains("too many connections for role"));
}

#[tokio::test]
async fn a_close_ends_with_the_last_connection_wherever_it_is() {
    let (cluster, factory) = limited().await;
    let pool = factory.open_pool(&tenant("acme"), 2).await.expect("a pool");
    let lent = pool.get().await.expect("a connection");
    let taken = Object::take(pool.get().await.expect("another"));
    let closing = tokio::spawn({
        let (factory, pool) = (factory.clone(), pool.clone());
        async move { factory.close_pool(pool).await }
    });
    until(|| pool.is_closed()).await;
    drop(lent);
    cluster.server.until(|now| now.of_role("two") == 1).await.expect("one has gone");
    assert!(!closing.is_finished(), "the other has not");
    assert!(pool.get().await.is_err(), "closed");
    drop(taken);
    closing.await.expect("no panic");
    assert_eq!(cluster.server.sample().await.expect("a sample").of_role("two"), 0);
}

#[tokio::test]
async fn a_get_that_is_dropped_half_way_leaves_no_connection_and_no_place_behind() {
    let (cluster, factory) = limited().await;
    let pool = factory.open_pool(&tenant("acme"), 2).await.expect("a pool");
    for wait in 0..40 {
        let half_way = tokio::time::timeout(Duration::from_micros(250 * wait), pool.get()).await;
        drop(half_way.map(|connection| drop(Object::take(connection.expect("a connection")))));
        // At once, while the server may still have the one that nobody waited for.
        let (one, two) = tokio::join!(pool.get(), pool.get());
        for connection in [one, two] {
            drop(Object::take(connection.expect("the server lets it in")));
        }
    }
    factory.close_pool(pool).await;
    assert_eq!(cluster.server.sample().await.expect("a sample").of_role("two"), 0);
}

#[tokio::test]
async fn a_handle_takes_the_place_of_a_pool() {
    let cluster = Cluster::new().await;
    let pools = patient(TenantPools::builder(cluster.factory.clone())).max_connections(1).build().expect("settings");
    let acme = TenantHandle::new(&pools, cluster.acme.clone());
    let task = tokio::spawn(async move {
        acme.transaction(async |connection| connection.batch_execute("CREATE TABLE note (text TEXT)").await).await?;
        let undone: QueryResult<()> = acme
            .transaction(async |connection| {
                connection.batch_execute("INSERT INTO note VALUES ('gone')").await?;
                Err(diesel::result::Error::RollbackTransaction)
            })
            .await;
        undone.expect_err("rolled back");
        QueryResult::Ok(number(&mut *acme.get().await?, "SELECT count(*) FROM note").await)
    });
    assert_eq!(task.await.expect("no panic"), Ok(0));
    pools.close().await;
}

#[tokio::test]
async fn a_pool_that_cannot_be_had_says_why() {
    let cluster = Cluster::new().await;
    let pools = patient(TenantPools::builder(cluster.factory_as("postgres", "p@/# wrong"))).max_connections(4);
    let error = pools.build().expect("settings").acquire_pool("acme", 2).await.expect_err("refused");
    assert!(matches!(&error, AcquireError::Connect { kind: FailureKind::Auth, .. }), "{error:?}");

    // Later on it is the pool who says it, in a text.
    let pool = cluster.factory.open_pool(&tenant("acme"), 2).await.expect("a pool");
    cluster.server.run("postgres", "ALTER ROLE postgres PASSWORD 'another'").await.expect("changes");
    let error = pool.get().await.map(drop).expect_err("refused");
    let text = format!("{error} {error:?}");
    assert!(text.contains("28P01") && !text.contains(cluster.server.password()), "{text}");
}
