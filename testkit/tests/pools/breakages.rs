//! What a cleaning that meets a dead server means to others, and a database that is dropped while it is used.

use std::time::Duration;

use tenantry_core::{AcquireError, Dropped, FailureKind, Health, TenantPools};
use tenantry_testkit::{Behavior, Call, FakeFactory};

#[tokio::test(start_paused = true)]
async fn a_cleaning_that_cannot_reach_the_server_casts_doubt_on_the_others() {
    let fake = FakeFactory::new();
    let pools = TenantPools::builder(fake.clone()).max_connections(5).build().unwrap();
    drop(pools.acquire("other").await.unwrap());
    let dirty = pools.acquire("acme").await.unwrap();
    dirty.set_health(Health::Dirty);
    fake.on_tenant(Call::Recycle, "acme").next(Behavior::fails(FailureKind::Unreachable));
    drop(dirty);
    fake.ended(Call::Close, 1).await;
    assert_eq!(pools.stats().servers[0].epoch, 1);
    drop(pools.acquire("other").await.unwrap());
    assert_eq!(fake.calls_of(Call::Recycle, "other").started, 1, "asked before it is handed out");
    fake.assert_no_misuse();
}

#[tokio::test(start_paused = true)]
async fn a_cleaning_that_nobody_answers_casts_doubt_on_the_others() {
    let fake = FakeFactory::new();
    let recycle_timeout = Duration::from_millis(50);
    let pools = TenantPools::builder(fake.clone()).max_connections(5).recycle_timeout(recycle_timeout).build().unwrap();
    let dirty = pools.acquire("acme").await.unwrap();
    dirty.set_health(Health::Dirty);
    fake.on_tenant(Call::Recycle, "acme").next(Behavior::hangs());
    drop(pools.acquire("other").await.unwrap());
    drop(dirty);
    fake.ended(Call::Close, 1).await;
    assert_eq!(pools.stats().servers[0].epoch, 1);
    drop(pools.acquire("other").await.unwrap());
    assert_eq!(fake.calls_of(Call::Recycle, "other").started, 1, "asked before it is handed out");
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_casts_doubt_on_the_others_though_its_user_discards_it() {
    let fake = FakeFactory::new();
    let pools = TenantPools::builder(fake.clone()).max_connections(5).build().unwrap();
    drop(pools.acquire("other").await.unwrap());
    let lost = pools.acquire("acme").await.unwrap();
    lost.set_health(Health::Lost);
    lost.discard();
    assert_eq!(pools.stats().servers[0].epoch, 1);
    drop(pools.acquire("other").await.unwrap());
    assert_eq!(fake.calls_of(Call::Recycle, "other").started, 1, "asked before it is handed out");
}

#[tokio::test(start_paused = true)]
async fn a_cleaning_that_fails_otherwise_says_nothing_of_the_others() {
    let fake = FakeFactory::new();
    let pools = TenantPools::builder(fake.clone()).max_connections(5).build().unwrap();
    let dirty = pools.acquire("acme").await.unwrap();
    dirty.set_health(Health::Dirty);
    fake.on_tenant(Call::Recycle, "acme").next(Behavior::fails(FailureKind::Other));
    drop(dirty);
    fake.ended(Call::Close, 1).await;
    assert_eq!(pools.stats().servers[0].epoch, 0);
}

#[tokio::test(start_paused = true)]
async fn a_database_is_dropped_when_nobody_holds_it_and_its_callers_are_told_meanwhile() {
    let fake = FakeFactory::new();
    let pools = TenantPools::builder(fake.clone()).max_connections(5).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    let dropping = tokio::spawn(pools.drop_database("acme"));
    tokio::task::yield_now().await;
    let refused = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(refused, AcquireError::Draining { .. }), "{refused}");
    drop(lease);
    assert_eq!(dropping.await.unwrap().unwrap(), Dropped::Gone);
    assert_eq!(fake.open_of("acme").now, 0);
    let gone = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(gone, AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. }), "{gone}");
}

#[tokio::test(start_paused = true)]
async fn a_drop_whose_caller_goes_away_leaves_the_tenant_in_use() {
    let fake = FakeFactory::new();
    let pools = TenantPools::builder(fake.clone()).max_connections(5).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    let dropping = tokio::time::timeout(Duration::from_millis(10), pools.drop_database("acme")).await;
    assert!(dropping.is_err(), "it waits for the lease");
    drop(lease);
    drop(pools.acquire("acme").await.unwrap());
}
