//! The faults that the reviewed manager still had a year later, each as the behaviour that makes it impossible.

use std::error::Error;

use tenantry_core::{AcquireError, LimitError, LimitScope, TryAcquireError};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{
    assert_about, assert_closes_clean, assert_nothing_lost, hold_many, limit, manager, ms, secs, settle, soon, warm,
    within,
};

/// Fault B2: the health check needed a connection of the pool, so a saturated one looked dead and was closed.
#[tokio::test(start_paused = true)]
async fn a_saturated_tenant_is_not_taken_for_dead_while_others_ask_for_it() {
    let fake = FakeFactory::new();
    fake.on(Call::Query).always(Behavior::after(secs(2)));
    let pools = manager(&fake, 20).max_connections_per_tenant(3).build().unwrap();
    let mut slow = JoinSet::new();
    for _ in 0..5 {
        let acquire = pools.acquire("acme");
        slow.spawn(async move {
            let mut lease = acquire.await.unwrap();
            let _use = lease.handle().use_it();
            lease.query().await.unwrap();
        });
    }
    settle().await;
    let mut refused = 0;
    for _ in 0..20 {
        match pools.acquire_with("acme", within(ms(40))).await {
            Ok(_) => {}
            Err(error) => {
                assert!(error.is_limit(), "{error}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
    slow.join_all().await;
    assert_eq!((fake.calls(Call::Connect).started, fake.calls(Call::Close).started), (3, 0));
    assert_nothing_lost(&pools, &fake).await;
}

/// Fault B4: the limit error was built from an unlocked map, which crashed exactly at the limit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_acquires_at_the_limit_get_an_error_that_adds_up() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).build().unwrap();
    let held = hold_many(&pools, "holder", 20).await;
    let mut tasks = JoinSet::new();
    for task in 0..200 {
        // Zero: refused as soon as it is asked, so that all of them build their errors at once.
        tasks.spawn(pools.acquire_with(format!("late-{}", task % 50), within(ms(0))));
    }
    while let Some(refused) = tasks.join_next().await {
        let LimitError { scope, limit, open, holders, .. } = limit(refused.unwrap());
        assert_eq!((scope, limit, open), (LimitScope::Total, 20, 20));
        assert_eq!(holders.len(), 5);
        assert!(holders.iter().all(|holder| holder.connections == 1));
    }
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

/// Fault B5: after an eviction nobody looked again whether the tenant had appeared meanwhile; one of two pools leaked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_acquires_that_race_with_evictions_leave_no_connection_uncounted() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3).max_connections_per_tenant(1).build().unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..50_u64 {
        let pools = pools.clone();
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(task);
            for _ in 0..40 {
                let tenant = format!("tenant-{}", random.u32(..6));
                let lease = pools.acquire(&tenant).await.unwrap();
                let _use = lease.use_for(&tenant);
                pools.evict(&tenant);
                tokio::task::yield_now().await;
            }
        });
    }
    tasks.join_all().await;
    for tenant in 0..6 {
        assert!(fake.open_of(format!("tenant-{tenant}")).most <= 1);
    }
    let connects = fake.calls(Call::Connect).started;
    fake.until(|fake| fake.calls(Call::Close).running() == 0).await;
    assert_eq!(connects - fake.calls(Call::Close).ended, fake.open().now, "each is open or was closed");
    assert_nothing_lost(&pools, &fake).await;
}

/// Fault B6: connecting and creating ran under the global lock, without a timeout.
#[tokio::test(start_paused = true)]
async fn one_unreachable_tenant_stops_neither_others_nor_the_statistics_nor_the_shutdown() {
    let fake = FakeFactory::new();
    fake.on_tenant(Call::Connect, "dark").always(Behavior::hangs());
    fake.on_tenant(Call::Create, "dark").always(Behavior::hangs());
    let pools = manager(&fake, 8).build().unwrap();
    let asked: Vec<_> = (0..4).map(|_| tokio::spawn(pools.acquire("dark"))).collect();
    let create = tokio::spawn(pools.create("dark"));
    settle().await;
    assert!(fake.calls_of(Call::Connect, "dark").running() >= 1 && fake.calls(Call::Create).running() == 1);

    let start = Instant::now();
    for round in 0..100 {
        warm(&pools, &format!("bright-{}", round % 10)).await;
    }
    assert_eq!(pools.stats().waiting, 4);
    assert_eq!(start.elapsed(), ms(0), "nobody waited for the dark one");

    let report = pools.close_within(ms(100)).await;
    assert!(report.opening >= 1 && !report.is_complete(), "{report:?}");
    for asked in asked {
        assert!(matches!(asked.await.unwrap(), Err(AcquireError::Closed)));
    }
    // Bounded by connect_timeout, and for a create by a minute.
    assert!(create.await.unwrap().is_err());
    assert_closes_clean(&pools, &fake).await;
}

/// Fault B8: refusals although idle pools existed, each of which killed one more pool.
#[tokio::test(start_paused = true)]
async fn nobody_is_refused_while_a_connection_is_idle_and_each_admission_takes_one() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 10).build().unwrap();
    for tenant in ["a", "b"] {
        let five: Vec<_> = (0..5).map(|_| pools.acquire(tenant)).collect();
        let mut leases = Vec::new();
        for acquire in five {
            leases.push(acquire.await.unwrap());
        }
    }
    assert_eq!(pools.stats().idle, 10);
    let mut held = Vec::new();
    for cold in 0..10 {
        held.push(pools.acquire_with(format!("cold-{cold}"), within(ms(1))).await.unwrap());
        assert_eq!(pools.stats().totals.evictions, cold + 1);
    }
    assert_eq!(pools.stats().totals.refusals, [0; 5]);
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

/// Fault B9: a pool that was taken and not used yet counted as idle, and was closed under its user.
#[tokio::test(start_paused = true)]
async fn a_lease_that_was_taken_and_not_used_yet_is_no_victim_and_never_too_old() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).idle_timeout(secs(1)).max_lifetime(secs(2)).build().unwrap();
    let unused = pools.acquire("patient").await.unwrap();
    for cold in 0..20 {
        warm(&pools, &format!("cold-{cold}")).await;
    }
    pools.evict("patient");
    tokio::time::sleep(secs(10)).await;
    assert!(unused.handle().is_open());
    assert_eq!(fake.calls_of(Call::Close, "patient").started, 0);
    drop(unused);
    assert_nothing_lost(&pools, &fake).await;
}

/// Fault B12: a close did not stop acquires.
#[tokio::test(start_paused = true)]
async fn after_a_close_nothing_is_handed_out_or_opened() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    warm(&pools, "acme").await;
    soon(pools.close()).await;
    assert!(matches!(pools.acquire("acme").await, Err(AcquireError::Closed)));
    assert!(matches!(pools.acquire("new").await, Err(AcquireError::Closed)));
    assert_eq!(pools.try_acquire("acme").unwrap_err(), TryAcquireError::Closed);
    settle().await;
    assert_eq!((fake.calls(Call::Connect).started, fake.open().now), (1, 0));
    assert!(pools.stats().closed);
}

/// Fault B12: a pool without connections was never removed.
#[tokio::test(start_paused = true)]
async fn a_tenant_without_connections_is_forgotten() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).forget_after(secs(60)).build().unwrap();
    for round in 0..100 {
        warm(&pools, &format!("tenant-{round}")).await;
    }
    assert_eq!(pools.stats().tenants, 100);
    tokio::time::sleep(secs(70)).await;
    assert_eq!(pools.stats().tenants, 2, "those that still have a connection");
    tokio::time::sleep(secs(6 * 60)).await;
    assert_eq!(pools.stats().tenants, 0);
    assert!(pools.tenant_stats("tenant-99").is_none());
}

/// Fault B13: a round trip for each acquire.
#[tokio::test(start_paused = true)]
async fn a_thousand_warm_acquires_make_no_call_to_the_driver() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let first = warm(&pools, "acme").await.id();
    drop(fake.take_events());
    for _ in 0..1_000 {
        assert_eq!(warm(&pools, "acme").await.id(), first);
    }
    settle().await;
    assert!(fake.take_events().is_empty());
    let calls = [Call::Connect, Call::Recycle, Call::Close, Call::Query].map(|call| fake.calls(call).started);
    assert_eq!(calls, [1, 0, 0, 0]);
    assert_eq!(pools.stats().totals.warm_hits, 1_000);
}

/// Fault B14: a process-wide singleton, and replicas of which each believes that it has the whole budget.
#[tokio::test(start_paused = true)]
async fn two_managers_in_one_process_share_nothing() {
    let fake = FakeFactory::new();
    let (one, two) = (manager(&fake, 2).build().unwrap(), manager(&fake, 3).build().unwrap());
    let held = hold_many(&one, "tenant", 2).await;
    assert_eq!(limit(one.acquire_with("tenant-2", within(ms(1))).await).limit, 2);
    let also_held = hold_many(&two, "tenant", 3).await;
    assert_eq!(fake.open().now, 5, "each keeps its own budget, and the server sees their sum");
    assert!(held.iter().all(|lease| also_held.iter().all(|other| lease.id() != other.id())));

    one.evict("tenant-0");
    assert!(!one.drain("tenant-1", ms(0)).await.is_complete());
    drop(also_held);
    assert_eq!(two.try_acquire("tenant-1").unwrap().tenant().as_str(), "tenant-1", "it drains in the other one only");
    drop(held);
    soon(one.close()).await;
    assert_eq!(one.stats().open(), 0);
    assert_eq!((two.stats().idle, two.stats().closed), (3, false));
    fake.reset_high_water();
    assert_nothing_lost(&two, &fake).await;
}

/// Fault B16: no wait was bounded unless the caller's context was, and the error had no hint and was lost by wrapping.
#[tokio::test(start_paused = true)]
async fn every_wait_is_bounded_and_its_error_can_be_found_under_any_wrapping() {
    #[derive(Debug, thiserror::Error)]
    #[error("the page could not be rendered")]
    struct Page(#[source] Box<dyn Error + Send + Sync>);

    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("a").await.unwrap();
    let start = Instant::now();
    let error = pools.acquire("b").await.unwrap_err();
    assert_about(start.elapsed(), secs(5));
    assert!(error.is_limit());
    assert!(error.retry_after().is_some());

    let page = Page(error.into());
    let mut cause: Option<&(dyn Error + 'static)> = Some(&page);
    let mut found = None;
    while let Some(error) = cause {
        found = found.or(error.downcast_ref::<LimitError>());
        cause = error.source();
    }
    assert_eq!(found.unwrap().tenant.as_str(), "b");
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}
