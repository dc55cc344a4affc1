//! Leases on the driver's own pool: n permits, reserved as a whole and held until the last connection is closed.

use tenantry_core::{AcquireError, FailureKind, LimitScope, Phase, ServerId, TenantLimits};
use tenantry_testkit::{Behavior, Call, Event, FakeFactory};
use tokio::time::{Instant, sleep};

use crate::support::{
    assert_about, assert_nothing_lost, hold, hold_many, limit, manager, ms, poll_once, secs, settle, soon, warm, within,
};

#[tokio::test(start_paused = true)]
async fn a_pool_lease_holds_exactly_its_permits_from_before_the_open_until_after_the_close() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 10).build().unwrap();
    let (opens, closes) = (fake.on(Call::OpenPool).hold(), fake.on(Call::ClosePool).hold());
    let asked = tokio::spawn(pools.acquire_pool("acme", 4));
    opens.reached(1).await;
    assert_eq!((pools.stats().pool_leased, pools.stats().open(), fake.open().now), (4, 4, 4));
    opens.release();
    let lease = asked.await.unwrap().unwrap();
    assert_eq!((lease.tenant().as_str(), lease.max_connections(), lease.max()), ("acme", 4, 4));
    assert_eq!((pools.tenant_stats("acme").unwrap().pool_leased, fake.open_of("acme").now), (4, 4));
    drop(lease.get().await.unwrap());

    let closing = tokio::spawn(lease.close());
    closes.reached(1).await;
    assert_eq!((pools.stats().pool_leased, pools.stats().closing, fake.open().now), (0, 4, 4));
    assert!(!closing.is_finished());
    closes.release();
    closing.await.unwrap();
    assert_eq!((pools.stats().open(), fake.open().now), (0, 0));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn pool_leases_and_connections_share_one_budget() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 6).build().unwrap();
    let pool = pools.acquire_pool("a", 4).await.unwrap();
    let held = hold(&pools, ["b", "c"]).await;
    assert_eq!(fake.open().now, 6);
    let error = limit(pools.acquire_with("d", within(ms(10))).await);
    assert_eq!((error.scope, error.open), (LimitScope::Total, 6));
    let error = limit(pools.acquire_pool_with("d", 2, within(ms(10))).await);
    assert_eq!((error.scope, error.open), (LimitScope::Total, 6));
    let waiting = tokio::spawn(pools.acquire("d"));
    drop(pool);
    drop(waiting.await.unwrap().unwrap());
    drop(held);
    assert_eq!(fake.open().most, 6);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_lease_gathers_permits_as_they_come_back_and_evicts_the_idle() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 5).build().unwrap();
    for tenant in ["idle-1", "idle-2"] {
        warm(&pools, tenant).await;
    }
    let mut held = hold(&pools, ["a", "b", "c"]).await;
    let asked = tokio::spawn(pools.acquire_pool("acme", 4));
    settle().await;
    assert_eq!((pools.stats().pool_leased, pools.stats().idle), (2, 0));
    held.pop();
    settle().await;
    assert!(!asked.is_finished());
    held.pop();
    let pool = asked.await.unwrap().unwrap();
    assert_eq!(fake.open().now, 5);
    drop((pool, held));
    settle().await;
    assert_nothing_lost(&pools, &fake).await;
}

/// Two half-filled ones would block each other for ever.
#[tokio::test(start_paused = true)]
async fn two_pool_leases_that_together_need_more_than_there_is_are_served_one_after_the_other() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 5).acquire_timeout(secs(60)).build().unwrap();
    let held = hold_many(&pools, "held", 5).await;
    let asked = [tokio::spawn(pools.acquire_pool("a", 4)), tokio::spawn(pools.acquire_pool("b", 4))];
    settle().await;
    for lease in held {
        drop(lease);
        settle().await;
    }
    let [a, b] = asked;
    let (served, other) = tokio::select! {
        served = a => (served, b),
    };
    let lease = served.unwrap().unwrap();
    settle().await;
    assert!(!other.is_finished());
    lease.close().await;
    other.await.unwrap().unwrap().close().await;
    assert!(fake.open().most <= 5);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_above_a_cap_or_of_nothing_is_refused_at_once_and_no_retry_is_advised() {
    let fake = FakeFactory::new();
    fake.place("east", ServerId::from("east"));
    let pools = manager(&fake, 10)
        .max_connections_on("east", 4)
        .tenant("east", TenantLimits::new().max(8))
        .tenant("large", TenantLimits::new().max(10))
        .build()
        .unwrap();
    let start = Instant::now();
    for (tenant, max, scope, cap) in [
        ("acme", 6, LimitScope::Tenant, 5),
        ("acme", u32::MAX, LimitScope::Tenant, 5),
        ("east", 5, LimitScope::Server, 4),
        ("large", 11, LimitScope::Tenant, 10),
        ("acme", 0, LimitScope::Tenant, 0),
    ] {
        let error = limit(pools.acquire_pool(tenant, max).await);
        assert_eq!((error.scope, error.limit, error.retry_after), (scope, cap, None), "{tenant} {max}");
        assert!(error.to_string().contains("no retry can succeed"), "{error}");
    }
    assert_eq!(start.elapsed(), ms(0));
    assert!(fake.events().is_empty());
    pools.acquire_pool("large", 10).await.unwrap().close().await;
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_outlives_the_lease_keeps_the_permits_and_shows_as_overdue() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).close_timeout(secs(1)).build().unwrap();
    let lease = pools.acquire_pool("acme", 3).await.unwrap();
    let clone = (*lease).clone();
    let connection = clone.get().await.unwrap();
    drop(lease);
    settle().await;
    let stats = pools.stats();
    assert_eq!((stats.pool_leased, stats.closing, stats.overdue, fake.open().now), (0, 3, 0, 3));
    tokio::time::sleep(secs(3)).await;
    assert_eq!((pools.stats().closing, pools.stats().overdue, fake.open().now), (3, 3, 3));
    let others = hold_many(&pools, "other", 1).await;
    assert!(pools.acquire_with("another", within(ms(10))).await.unwrap_err().is_limit());
    let report = pools.drain("acme", ms(1)).await;
    assert_eq!(report.closing, 3);
    drop(connection);
    soon(fake.ended(Call::ClosePool, 1)).await;
    settle().await;
    assert_eq!((pools.stats().closing, pools.stats().overdue), (0, 0));
    drop((clone, others));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_while_the_pool_opens_closes_it_once_it_is_open() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let gate = fake.on(Call::OpenPool).hold();
    let mut asked = Box::pin(pools.acquire_pool("acme", 3));
    assert!(poll_once(asked.as_mut()).is_pending());
    gate.reached(1).await;
    drop(asked);
    assert_eq!((pools.stats().open(), fake.open().now), (3, 3), "the permits stay with the open");
    gate.release();
    soon(fake.ended(Call::ClosePool, 1)).await;
    settle().await;
    assert_eq!((pools.stats().open(), fake.open().now), (0, 0));
    assert!(fake.events().iter().any(|event| matches!(event, Event::PoolClosed { .. })));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_cancel_when_the_pool_is_open_and_not_collected_closes_it() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let mut asked = Box::pin(pools.acquire_pool("acme", 3));
    assert!(poll_once(asked.as_mut()).is_pending());
    soon(fake.ended(Call::OpenPool, 1)).await;
    settle().await;
    drop(asked);
    soon(fake.ended(Call::ClosePool, 1)).await;
    settle().await;
    assert_eq!((pools.stats().open(), fake.open().now), (0, 0));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_that_cannot_be_opened_frees_its_permits_and_says_why() {
    let fake = FakeFactory::new();
    fake.on(Call::OpenPool).next(Behavior::fails(FailureKind::Auth));
    let pools = manager(&fake, 4).connect_timeout(ms(300)).build().unwrap();
    let error = pools.acquire_pool("acme", 4).await.unwrap_err();
    assert!(matches!(error, AcquireError::Connect { kind: FailureKind::Auth, .. }), "{error}");
    assert_eq!(pools.stats().open(), 0);
    fake.on(Call::OpenPool).next(Behavior::hangs());
    let error = pools.acquire_pool("acme", 4).await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { phase: Phase::Connecting, .. }), "{error}");
    assert_eq!((pools.stats().open(), fake.open().now), (0, 0));
    assert_nothing_lost(&pools, &fake).await;
}

/// "How long this acquire may take in all", also where the time goes into the opening.
#[tokio::test(start_paused = true)]
async fn the_timeout_of_a_pool_lease_covers_its_opening() {
    let fake = FakeFactory::new();
    fake.on(Call::OpenPool).always(Behavior::after(secs(3)));
    let pools = manager(&fake, 4).build().unwrap();
    let start = Instant::now();
    let error = pools.acquire_pool_with("acme", 2, within(ms(200))).await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { phase: Phase::Connecting, .. }), "{error}");
    assert_about(start.elapsed(), ms(200));
    fake.ended(Call::ClosePool, 1).await;
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_lease_waits_in_its_tenants_line_like_everybody() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).max_connections_per_tenant(2).build().unwrap();
    let held = hold(&pools, ["acme", "acme"]).await;
    let pool = tokio::spawn(pools.acquire_pool("acme", 2));
    settle().await;
    let behind = tokio::spawn(pools.acquire("acme"));
    settle().await;
    drop(held);
    let lease = pool.await.unwrap().unwrap();
    settle().await;
    assert!(!behind.is_finished());
    assert_eq!(fake.open_of("acme").now, 2);
    lease.close().await;
    drop(behind.await.unwrap().unwrap());
    assert!(fake.open_of("acme").most <= 2);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_pool_lease_outlives_its_manager() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let lease = pools.acquire_pool("acme", 2).await.unwrap();
    drop(pools);
    settle().await;
    drop(lease.get().await.unwrap());
    drop(lease);
    soon(fake.ended(Call::ClosePool, 1)).await;
    assert_eq!(fake.open().now, 0);
}

#[test]
fn a_pool_lease_dropped_after_its_runtime_drops_its_pool() {
    let fake = FakeFactory::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let pools = manager(&fake, 4).runtime(runtime.handle().clone()).build().unwrap();
    let lease = runtime.block_on(pools.acquire_pool("acme", 2)).unwrap();
    drop(runtime);
    drop(lease);
    assert_eq!((fake.open().now, pools.stats().open()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_pool_lease_has_one_deadline_for_its_permits_and_its_opening() {
    let fake = FakeFactory::new();
    fake.on(Call::OpenPool).always(Behavior::after(ms(80)));
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("other").await.unwrap();
    let start = Instant::now();
    let pool = tokio::spawn(pools.acquire_pool_with("acme", 1, within(ms(100))));
    sleep(ms(60)).await;
    drop(held);
    let error = pool.await.unwrap().unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { phase: Phase::Connecting, .. }), "{error}");
    assert_about(start.elapsed(), ms(100));
    settle().await;
    assert_nothing_lost(&pools, &fake).await;
}
