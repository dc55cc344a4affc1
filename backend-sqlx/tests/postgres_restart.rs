//! A restart of the server under 20 idle connections, of which the driver sees nothing until it asks.

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::Executor;
use support::in_time;
use support::postgres::{app, make_databases, server_for_many_logins};
use tenantry_core::{Lease, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::patient;

const CONNECTIONS: usize = 20;
const TENANTS: usize = 4;

type Pools = TenantPools<PostgresFactory>;

fn tenant_of(number: usize) -> String {
    format!("tenant-{}", number % TENANTS)
}

/// So many leases at once, of all tenants.
async fn all(pools: &Pools) -> Vec<Lease<PostgresFactory>> {
    let leases = join_all((0..CONNECTIONS).map(|number| pools.acquire(tenant_of(number))));
    in_time(leases).await.into_iter().map(|lease| lease.expect("no caller hears of it")).collect()
}

async fn works(lease: &mut Lease<PostgresFactory>) -> bool {
    lease.execute("SELECT 1").await.is_ok()
}

/// 20 idle connections, and a restart of their server.
async fn restarted(validate_after_idle: Duration) -> (PrivatePostgres, Pools) {
    let (mut server, options) = server_for_many_logins(app());
    let tenants: Vec<String> = (0..TENANTS).map(tenant_of).collect();
    make_databases(&server, &tenants).await;
    let pools = patient(TenantPools::builder(PostgresFactory::new(options)))
        .max_connections(CONNECTIONS as u32)
        .validate_after_idle(validate_after_idle)
        .build()
        .expect("good settings");
    drop(all(&pools).await);
    assert_eq!(pools.stats().idle, CONNECTIONS as u64);
    server.restart().expect("restarts");
    (server, pools)
}

/// After all is well again: no connection is an old one, and each old one was found out.
async fn replaced(pools: &Pools) {
    let mut leases = all(pools).await;
    for lease in &mut leases {
        assert!(works(lease).await);
    }
    let stats = pools.stats();
    assert_eq!(stats.totals.connects, 2 * CONNECTIONS as u64);
    assert_eq!(stats.totals.closed_broken, CONNECTIONS as u64);
    assert!(stats.servers[0].epoch >= 1, "{stats:?}");
}

#[tokio::test]
async fn after_a_restart_no_caller_has_a_dead_connection_that_was_idle_longer_than_validate_after_idle() {
    // Zero: each was idle for longer than that.
    let (_server, pools) = restarted(Duration::ZERO).await;
    for lease in &mut all(&pools).await {
        assert!(works(lease).await, "a dead connection was handed out");
    }
    replaced(&pools).await;
}

#[tokio::test]
async fn after_a_restart_one_caller_has_a_dead_connection_and_the_others_are_checked_because_of_it() {
    let (_server, pools) = restarted(Duration::from_secs(3600)).await;
    let checked = pools.stats().totals.recycles;
    let mut first = in_time(pools.acquire(tenant_of(0))).await.expect("an idle one, at once");
    assert!(!works(&mut first).await, "nobody has looked yet");
    assert_eq!(pools.stats().totals.recycles, checked);
    drop(first);
    // All that are idle now, of every tenant, at once.
    for lease in &mut all(&pools).await {
        assert!(works(lease).await, "a second dead connection was handed out");
    }
    replaced(&pools).await;
}
