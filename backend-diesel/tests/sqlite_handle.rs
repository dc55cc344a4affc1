//! For code that was written against a pool of diesel-async's: a tenant's handle, and a pool lease.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "tests")]

#[path = "support/sqlite.rs"]
mod support;

use std::time::Duration;

use diesel::QueryResult;
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};
use support::{Folder, notes, tenant};
use tenantry_core::{
    AcquireError, AcquireOptions, FailureKind, Health, PoolFactory as _, Replicas, ServerCapacity, TenantPools,
};
use tenantry_diesel::{SqliteFactory, TenantHandle, refused};

struct Service {
    folder: Folder,
    pools: TenantPools<SqliteFactory>,
    acme: TenantHandle<SqliteFactory>,
}

impl Service {
    async fn new() -> Self {
        let folder = Folder::new().await;
        let pools = TenantPools::builder(folder.factory.clone()).max_connections(1).build().expect("settings");
        let acme = TenantHandle::new(&pools, folder.acme.clone());
        Self { folder, pools, acme }
    }
}

/// Code as it is written against a pool: it names neither leases nor tenants.
async fn add(pool: &TenantHandle<SqliteFactory>, text: &str) -> QueryResult<usize> {
    let mut connection = pool.get().await?;
    let insert = diesel::sql_query("INSERT INTO note VALUES (?)").bind::<diesel::sql_types::Text, _>(text);
    insert.execute(&mut connection).await
}

async fn count(pool: &TenantHandle<SqliteFactory>) -> i64 {
    notes(&mut pool.get().await.expect("a connection")).await
}

#[tokio::test]
async fn code_for_a_pool_takes_a_handle_also_in_tasks() {
    let service = Service::new().await;
    let tasks: Vec<_> = (0..4)
        .map(|_| {
            let acme = service.acme.clone();
            tokio::spawn(async move {
                add(&acme, "plain").await?;
                acme.transaction(async |connection| {
                    connection.batch_execute("INSERT INTO note VALUES ('one')").await?;
                    connection.transaction(async |connection| connection.batch_execute("SELECT 1").await).await?;
                    connection.batch_execute("INSERT INTO note VALUES ('two')").await
                })
                .await
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no panic").expect("committed");
    }
    assert_eq!(count(&service.acme).await, 12);
    assert_eq!(service.acme.tenant(), &service.folder.acme);
    assert_eq!(service.pools.stats().in_use, 0, "it keeps none");
    service.pools.close().await;
    assert_eq!(service.folder.files(), ["acme.db"]);
}

#[tokio::test]
async fn a_transaction_that_fails_is_rolled_back_and_says_why() {
    #[derive(Debug, PartialEq)]
    enum Own {
        TooMany,
        Diesel(String),
    }
    impl From<diesel::result::Error> for Own {
        fn from(error: diesel::result::Error) -> Self {
            Self::Diesel(error.to_string())
        }
    }
    let service = Service::new().await;
    let failed = service
        .acme
        .transaction(async |connection| {
            connection.batch_execute("INSERT INTO note VALUES ('gone')").await?;
            Err::<(), _>(Own::TooMany)
        })
        .await;
    assert_eq!(failed, Err(Own::TooMany));
    assert_eq!(count(&service.acme).await, 0);
    let mut lease = service.acme.acquire().await.expect("a lease");
    assert_eq!(service.folder.factory.health(&mut lease), Health::Clean, "nothing was left to clean");
}

#[tokio::test]
async fn a_transaction_that_is_dropped_half_way_reaches_nobody() {
    let service = Service::new().await;
    let half_way = service.acme.transaction(async |connection| {
        connection.batch_execute("INSERT INTO note VALUES ('gone')").await?;
        std::future::pending::<QueryResult<()>>().await
    });
    tokio::time::timeout(Duration::from_millis(50), half_way).await.expect_err("it waits");
    assert_eq!(count(&service.acme).await, 0);
    add(&service.acme, "kept").await.expect("none is open");
    assert_eq!(count(&service.acme).await, 1);
}

#[tokio::test]
async fn a_refusal_arrives_whole_inside_of_diesels_error() {
    let service = Service::new().await;
    let held = service.acme.get().await.expect("the only one");
    let hasty = service.acme.clone().with_options(AcquireOptions::new().timeout(Duration::from_millis(1)));
    let error = add(&hasty, "never").await.expect_err("the budget is spent");
    let refusal = refused(&error).expect("it was the acquire");
    assert!(refusal.is_limit() && refusal.retry_after().is_some(), "{refusal:?}");
    drop(held);

    let stranger = TenantHandle::new(&service.pools, tenant("stranger"));
    let error = stranger.transaction(async |_| QueryResult::Ok(())).await.expect_err("no such tenant");
    let kind = refused(&error).expect("it was the acquire");
    assert!(matches!(kind, AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. }), "{kind:?}");

    let mut connection = service.acme.get().await.expect("a connection");
    let error = connection.batch_execute("nonsense").await.expect_err("no statement");
    assert!(refused(&error).is_none());
    drop(connection);
    service.pools.close().await;
    let error = service.acme.get().await.expect_err("closed");
    assert!(matches!(refused(&error), Some(AcquireError::Closed)));
}

#[tokio::test]
async fn a_pool_keeps_what_is_clean_and_its_close_frees_the_file() {
    let service = Service::new().await;
    let lease = service.pools.acquire_pool("acme", 1).await.expect("a pool");
    assert_eq!(lease.status().max_size, 1);
    for left in ["BEGIN", "CREATE TEMP TABLE scratch (id)", "INSERT INTO note VALUES ('kept')"] {
        let mut connection = lease.get().await.expect("a connection");
        connection.batch_execute(left).await.expect(left);
        drop(connection);
        let mut connection = lease.get().await.expect("the one before is closed");
        connection.batch_execute("BEGIN").await.expect("none is open");
        let scratch = "SELECT count(*) FROM temp.sqlite_schema";
        assert_eq!(support::number(&mut connection, scratch).await, 0, "{left}");
        assert_eq!(support::open_databases(&service.folder.factory.file(&service.folder.acme).expect("a name")), 1);
    }
    // Work that its user left is waited for.
    let mut connection = lease.get().await.expect("a connection");
    let (go_on, told) = std::sync::mpsc::channel::<()>();
    drop(connection.spawn_blocking(move |_| QueryResult::Ok(told.recv().is_ok())));
    drop(connection);
    let closing = tokio::spawn(lease.close());
    tokio::task::yield_now().await;
    assert!(!closing.is_finished());
    go_on.send(()).expect("it listens");
    closing.await.expect("no panic");
    assert_eq!(support::open_files(service.folder.directory.path()), 0);
    assert_eq!(count(&service.acme).await, 1, "the permit came back");
}

#[tokio::test]
async fn a_preflight_finds_no_limit_as_there_is_no_server() {
    let service = Service::new().await;
    let preflight = service.pools.preflight(&service.folder.acme).await.expect("an answer");
    assert_eq!((preflight.capacity, preflight.budget), (ServerCapacity::default(), 1));
    preflight.fits(Replicas { running: 1_000, surge: 1_000 }).expect("it fits");
}
