//! The PostgreSQL driver under `TenantPools`: what reaches the server, and what reaches the next user.

mod support;

use std::time::Duration;

use sqlx::Executor;
use support::postgres::{Cluster, options};
use support::{PATIENCE, in_time, polled_once};
use tenantry_core::{Created, Dropped, Lease, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::servers::{Role, patient};
use tenantry_testkit::{PrivatePostgres, Sampler};

fn one_connection(factory: PostgresFactory) -> TenantPools<PostgresFactory> {
    patient(TenantPools::builder(factory))
        .max_connections(1)
        .validate_after_idle(Duration::from_secs(3600))
        .build()
        .expect("good settings")
}

async fn acme(pools: &TenantPools<PostgresFactory>) -> Lease<PostgresFactory> {
    in_time(pools.acquire("acme")).await.expect("a lease")
}

async fn text(lease: &mut Lease<PostgresFactory>, sql: &'static str) -> String {
    sqlx::query_scalar(sql).fetch_one(&mut **lease).await.expect(sql)
}

#[tokio::test]
async fn a_factory_may_recycle_after_every_transaction() {
    let cluster = Cluster::with(|factory| factory.recycle_after_transactions(true)).await;
    let pools = one_connection(cluster.factory.clone());
    let mut lease = acme(&pools).await;
    let mut transaction = lease.begin().await.unwrap();
    transaction.execute("SELECT pg_advisory_lock(1)").await.unwrap();
    transaction.commit().await.unwrap();
    drop(lease);
    let held = "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory'";
    assert_eq!(text(&mut acme(&pools).await, held).await, "0");
}

#[tokio::test]
async fn the_server_never_refuses_a_connection_that_the_budget_allows() {
    const BUDGET: u32 = 3;
    let server = PrivatePostgres::builder()
        .role(Role::new("app", "app").connection_limit(BUDGET).create_databases())
        .start()
        .unwrap();
    let factory = PostgresFactory::new(options(&server).username("app").password("app"));
    let pools =
        patient(TenantPools::builder(factory)).max_connections(BUDGET).max_connections_per_tenant(2).build().unwrap();
    let tenants: Vec<String> = (0..6).map(|n| format!("tenant-{n}")).collect();
    for tenant in &tenants {
        assert_eq!(in_time(pools.create(tenant)).await.unwrap(), Created::New);
    }
    let sampler = Sampler::start(&server, Duration::from_millis(1)).await.unwrap();
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            let (pools, tenants) = (pools.clone(), tenants.clone());
            tokio::spawn(async move {
                for round in 0..10 {
                    let mut lease = in_time(pools.acquire(&tenants[(task * 7 + round * 5) % 6])).await.unwrap();
                    // One in four is left in the middle of something.
                    if (task + round) % 4 == 0 {
                        polled_once(lease.execute("SELECT pg_sleep(0.01)"));
                    } else {
                        lease.execute("SELECT 1").await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let seen = sampler.stop().await.unwrap();
    assert!(seen.samples > 10, "{seen:?}");
    assert!(seen.most_of_role["app"] <= u64::from(BUDGET), "{seen:?}");
    for tenant in &tenants {
        // Connections that are still being cleaned are in use.
        assert!(in_time(pools.drain(tenant, PATIENCE)).await.is_complete());
        assert_eq!(in_time(pools.drop_database(tenant)).await.unwrap(), Dropped::Gone);
    }
    in_time(pools.close()).await;
    server.until(|sample| sample.of_role("app") == 0).await.unwrap();
}

#[tokio::test]
async fn a_pool_lease_is_a_pool_of_sqlxs_own() {
    let cluster = Cluster::new().await;
    let pools = patient(TenantPools::builder(cluster.factory.clone()))
        .max_connections(4)
        .max_connections_per_tenant(3)
        .build()
        .unwrap();
    let lease = in_time(pools.acquire_pool("acme", 2)).await.unwrap();
    let pool: &sqlx::PgPool = &lease;
    sqlx::query("INSERT INTO note (text) VALUES ('a')").execute(pool).await.unwrap();
    assert_eq!(pool.options().get_max_connections(), 2);
    in_time(lease.close()).await;
    in_time(pools.close()).await;
    cluster.server.until(|sample| sample.in_database("acme") == 0).await.unwrap();
}
