//! A tenant's handle in the place of a `PgPool`, on a real server.

mod support;

use std::time::Duration;

use futures_util::TryStreamExt;
use sqlx::{Connection as _, Executor, Postgres, Row};
use support::postgres::Cluster;
use support::{in_time, polled_once, tenant};
use tenantry_core::{AcquireError, AcquireOptions, FailureKind, LimitScope, TenantPools};
use tenantry_sqlx::{PostgresFactory, TenantHandle, refused};
use tenantry_testkit::servers::patient;

/// Fails inside of a transaction.
const OUTSIDE: &str = "VACUUM note";

/// A manager with one connection, so that what is not given back is missed at once.
struct Shop {
    cluster: Cluster,
    pools: TenantPools<PostgresFactory>,
    acme: TenantHandle<PostgresFactory>,
}

impl Shop {
    async fn new() -> Self {
        let cluster = Cluster::new().await;
        let pools = patient(TenantPools::builder(cluster.factory.clone()))
            .max_connections(1)
            .validate_after_idle(Duration::from_secs(3600))
            .build()
            .expect("good settings");
        let acme = TenantHandle::new(&pools, cluster.acme.clone());
        Self { cluster, pools, acme }
    }

    async fn notes(&self) -> Vec<String> {
        let all = sqlx::query_scalar("SELECT text FROM note ORDER BY id").fetch_all(&self.acme);
        in_time(all).await.expect("the notes")
    }

    /// How often a connection was opened and cleaned so far.
    fn opened_and_recycled(&self) -> (u64, u64) {
        let totals = self.pools.stats().totals;
        (totals.connects, totals.recycles)
    }
}

async fn note<'e>(executor: impl Executor<'e, Database = Postgres>, text: &str) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT INTO note (text) VALUES ($1)").bind(text).execute(executor).await.map(drop)
}

#[tokio::test]
async fn what_is_written_for_a_pool_runs_on_a_handle_in_a_spawned_task() {
    let shop = Shop::new().await;
    let acme = shop.acme.clone();
    let task = tokio::spawn(async move {
        note(&acme, "one").await?;
        let (id,): (i32,) = sqlx::query_as("SELECT id FROM note WHERE text = $1").bind("one").fetch_one(&acme).await?;
        let missing = sqlx::query("SELECT 1 FROM note WHERE id = $1").bind(id + 1).fetch_optional(&acme).await?;
        let statement = (&acme).prepare(sqlx::SqlSafeStr::into_sql_str("SELECT 7")).await?;
        let seven: i32 = sqlx::Statement::query(&statement).fetch_one(&acme).await?.get(0);
        let numbers = sqlx::query_scalar::<_, i32>("SELECT * FROM generate_series(1, 5)").fetch(&acme);
        Ok::<_, sqlx::Error>((missing.is_none(), seven, numbers.try_collect::<Vec<_>>().await?))
    });
    assert_eq!(in_time(task).await.unwrap().unwrap(), (true, 7, vec![1, 2, 3, 4, 5]));
    assert_eq!(shop.notes().await, ["one"]);
    // All of it on one connection, given back clean each time.
    assert_eq!(shop.opened_and_recycled(), (1, 0));
}

#[tokio::test]
async fn a_stream_keeps_its_lease_until_it_is_dropped() {
    let shop = Shop::new().await;
    let mut rows = sqlx::query("SELECT * FROM generate_series(1, 100000)").fetch(&shop.acme);
    in_time(rows.try_next()).await.unwrap().expect("a first row");
    assert_eq!(shop.pools.stats().in_use, 1);
    drop(rows);
    assert_eq!(shop.notes().await, [""; 0]);
    assert_eq!(shop.opened_and_recycled(), (1, 1), "the rest of the rows was cleaned away");
}

#[tokio::test]
async fn a_transaction_holds_its_lease_and_ends_as_it_was_told() {
    let shop = Shop::new().await;
    let mut kept = in_time(shop.acme.begin()).await.unwrap();
    note(&mut *kept, "kept").await.unwrap();
    let mut savepoint = kept.begin().await.unwrap();
    note(&mut *savepoint, "taken back").await.unwrap();
    savepoint.rollback().await.unwrap();
    assert_eq!(shop.pools.stats().in_use, 1);
    kept.commit().await.unwrap();

    let mut told = in_time(shop.acme.begin_with("BEGIN ISOLATION LEVEL SERIALIZABLE")).await.unwrap();
    note(&mut *told, "rolled back").await.unwrap();
    told.rollback().await.unwrap();
    assert_eq!(shop.opened_and_recycled(), (1, 0), "an end that was awaited leaves nothing");

    let mut dropped = in_time(shop.acme.begin()).await.unwrap();
    note(&mut *dropped, "dropped").await.unwrap();
    drop(dropped);
    assert_eq!(shop.notes().await, ["kept"]);
    assert_eq!(shop.opened_and_recycled(), (1, 1), "its connection was rolled back, not thrown away");
}

#[tokio::test]
async fn a_begin_or_commit_that_was_cancelled_leaves_no_transaction_to_the_next_user() {
    let shop = Shop::new().await;
    // A server may answer within the one poll, so more than one is tried.
    let (mut begins, mut commits) = (0, 0);
    for _ in 0..20 {
        in_time((&shop.acme).execute(OUTSIDE)).await.expect("no transaction is open");
        shop.notes().await; // what is idle now is clean: the poll reaches the BEGIN
        begins += u32::from(polled_once(shop.acme.begin()));
        in_time((&shop.acme).execute(OUTSIDE)).await.expect("no transaction is open");

        let mut transaction = in_time(shop.acme.begin()).await.unwrap();
        note(&mut *transaction, "unknown").await.unwrap();
        commits += u32::from(polled_once(transaction.commit()));
    }
    in_time((&shop.acme).execute(OUTSIDE)).await.expect("no transaction is open");
    assert!(begins > 0 && commits > 0, "{begins} begins and {commits} commits were cancelled");
    assert_eq!(shop.pools.stats().open(), 1);
}

#[tokio::test]
async fn a_refusal_arrives_whole_inside_the_error_of_sqlx() {
    let shop = Shop::new().await;
    let lease = in_time(shop.acme.acquire()).await.unwrap();
    let hasty = shop.acme.clone().with_options(AcquireOptions::new().timeout(Duration::ZERO));
    let error = in_time(note(&hasty, "never")).await.unwrap_err();
    let Some(AcquireError::Limit(limit)) = refused(&error) else { panic!("{error:?}") };
    assert_eq!((limit.scope, limit.limit, limit.held_by_caller), (LimitScope::Tenant, 1, 0));
    assert!(limit.retry_after.is_some());
    drop(lease);

    let nobody = TenantHandle::new(&shop.pools, tenant("nobody"));
    let error = in_time(nobody.begin()).await.unwrap_err();
    assert!(
        matches!(refused(&error), Some(AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. })),
        "{error:?}"
    );

    // An error of the query is what it always was.
    let error = in_time((&shop.acme).execute("SELECT 1 / 0")).await.unwrap_err();
    assert!(refused(&error).is_none());
    assert_eq!(error.as_database_error().and_then(|error| error.code()).as_deref(), Some("22012"));

    shop.pools.close().await;
    assert!(matches!(note(&shop.acme, "late").await, Err(sqlx::Error::PoolClosed)));
    assert_eq!(shop.cluster.server.run("acme", "SELECT count(*) FROM note").await.map(drop).ok(), Some(()));
}
