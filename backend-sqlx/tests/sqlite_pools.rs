//! The SQLite driver under `TenantPools`.

mod support;

use sqlx::Executor;
use support::{in_time, polled_once};
use tenantry_core::{AcquireError, Created, Dropped, FailureKind, Lease, Replicas, ServerCapacity, TenantPools};
use tenantry_sqlx::SqliteFactory;

fn pools(directory: &tempfile::TempDir, max: u32) -> TenantPools<SqliteFactory> {
    TenantPools::builder(SqliteFactory::new(directory.path())).max_connections(max).build().expect("good settings")
}

async fn lease(pools: &TenantPools<SqliteFactory>, tenant: &str) -> Lease<SqliteFactory> {
    in_time(pools.acquire(tenant)).await.expect("a lease")
}

#[tokio::test]
async fn many_tenants_share_few_files() {
    static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("tests/migrations");
    let directory = tempfile::tempdir().unwrap();
    let pools = pools(&directory, 3);
    for n in 0..10 {
        let tenant = format!("tenant-{n}");
        let error = in_time(pools.acquire(&tenant)).await.unwrap_err();
        let AcquireError::Connect { kind, .. } = error else { panic!("{error:?}") };
        assert_eq!(kind, FailureKind::NoSuchTenant);
        assert_eq!(in_time(pools.create(&tenant)).await.unwrap(), Created::New);
        let mut lease = lease(&pools, &tenant).await;
        tokio::spawn(async move { lease.migrate(&MIGRATOR).await }).await.unwrap().unwrap();
    }
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let pools = pools.clone();
            tokio::spawn(async move {
                for round in 0..10 {
                    let mut lease = lease(&pools, &format!("tenant-{}", (task + round) % 10)).await;
                    let mut transaction = lease.begin().await.unwrap();
                    sqlx::query("INSERT INTO invoice (paid) VALUES (true)").execute(&mut *transaction).await.unwrap();
                    transaction.commit().await.unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    for n in 0..10 {
        let tenant = format!("tenant-{n}");
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM invoice")
            .fetch_one(&mut *lease(&pools, &tenant).await)
            .await
            .unwrap();
        assert_eq!(count, 20);
    }
    assert!(pools.stats().open() <= 3);
    assert_eq!(in_time(pools.drop_database("tenant-0")).await.unwrap(), Dropped::Gone);
    in_time(pools.close()).await;
    let left = support::sqlite::files(&directory);
    assert_eq!(left.len(), 9, "no log is left beside a closed database: {left:?}");
}

#[tokio::test]
async fn what_one_user_leaves_never_reaches_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let pools = pools(&directory, 1);
    in_time(pools.create("acme")).await.unwrap();
    let mut first = lease(&pools, "acme").await;
    first.execute("CREATE TABLE note (id INTEGER PRIMARY KEY)").await.unwrap();
    drop(first);

    for round in 0..6 {
        let mut lease = lease(&pools, "acme").await;
        match round {
            0 => drop(polled_once(lease.begin())),
            1 => {
                let mut transaction = lease.begin().await.unwrap();
                transaction.execute("INSERT INTO note DEFAULT VALUES").await.unwrap();
            }
            2 => drop(lease.execute("BEGIN; INSERT INTO note DEFAULT VALUES").await.unwrap()),
            3 => drop(lease.execute("PRAGMA foreign_keys = OFF").await.unwrap()),
            4 => drop(lease.execute("CREATE TEMP TABLE note (id INTEGER)").await.unwrap()),
            _ => {
                let endless = "WITH RECURSIVE a(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM a) SELECT count(*) FROM a";
                assert!(polled_once(lease.execute(endless)));
            }
        }
        drop(lease);
        let mut next = in_time(pools.acquire("acme")).await.unwrap();
        let state: String = sqlx::query_scalar(
            "SELECT concat((SELECT foreign_keys FROM pragma_foreign_keys), (SELECT count(*) FROM temp.sqlite_master),
                (SELECT count(*) FROM note))",
        )
        .fetch_one(&mut *next)
        .await
        .unwrap();
        assert_eq!(state, "100", "round {round}");
        next.begin().await.expect("no transaction is open").rollback().await.unwrap();
    }
}

#[tokio::test]
async fn a_preflight_finds_no_limit_as_there_is_no_server() {
    let directory = tempfile::tempdir().unwrap();
    let pools = pools(&directory, 3);
    in_time(pools.create("acme")).await.unwrap();
    let preflight = in_time(pools.preflight("acme")).await.unwrap();
    assert_eq!((preflight.capacity, preflight.budget), (ServerCapacity::default(), 3));
    let many = Replicas { running: 1_000, surge: 1_000 };
    assert_eq!((preflight.fits(many), preflight.largest_budget(many)), (Ok(()), None));
}
