//! The review's findings, each as the behaviour that makes it impossible.

use tenantry_core::{AcquireError, FailureKind, Health, LimitScope, TryAcquireError};
use tenantry_testkit::{Behavior, Call, Event, FakeFactory};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use crate::support::{assert_nothing_lost, hold, hold_many, limit, manager, ms, secs, settle, soon, warm, within};

/// Review, finding 1: a pool closed between the look-up and the use.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_lease_is_closed_under_its_user_by_evict_drain_or_close() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 6).max_connections_per_tenant(2).build().unwrap();
    let mut tasks = JoinSet::new();
    for user in 0..12_u64 {
        let pools = pools.clone();
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(user);
            for _ in 0..200 {
                let tenant = format!("tenant-{}", random.u32(..5));
                match pools.acquire(&tenant).await {
                    Ok(lease) => {
                        let _use = lease.use_for(&tenant);
                        tokio::task::yield_now().await;
                    }
                    Err(AcquireError::Draining { .. } | AcquireError::Closed) => tokio::task::yield_now().await,
                    Err(other) => panic!("{other}"),
                }
            }
        });
    }
    let (operator, mut random) = (pools.clone(), fastrand::Rng::with_seed(99));
    tasks.spawn(async move {
        for _ in 0..300 {
            let tenant = format!("tenant-{}", random.u32(..5));
            operator.evict(&tenant);
            if random.bool() {
                operator.drain(&tenant, ms(0)).await;
                tokio::task::yield_now().await;
                operator.resume(&tenant);
            }
            tokio::task::yield_now().await;
        }
        operator.close_within(ms(0)).await;
    });
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    pools.close().await;
    fake.assert_no_misuse();
    assert_eq!(fake.open().now, 0);
    assert!(fake.open().most <= 6);
}

/// Review, finding 2 (which misreads Go; what it fears must be impossible all the same).
#[tokio::test(start_paused = true)]
async fn an_admission_closes_one_idle_connection_and_no_more() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 5).build().unwrap();
    for tenant in ["a", "b", "c", "d", "e"] {
        warm(&pools, tenant).await;
    }
    let _cold = pools.acquire("cold").await.unwrap();
    assert_eq!(fake.calls(Call::Close).started, 1);
    assert_eq!(pools.stats().totals.evictions, 1);
    assert_eq!(pools.stats().idle, 4);
}

/// Review, finding 3: the request is gone, its connect goes on and is lost.
#[tokio::test(start_paused = true)]
async fn a_connect_whose_caller_went_away_serves_the_next_one() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let gate = fake.hold_connects("acme");
    let request = tokio::spawn(pools.acquire("acme"));
    gate.reached(1).await;
    request.abort();
    assert!(request.await.unwrap_err().is_cancelled());
    assert_eq!((fake.open().now, pools.stats().opening), (1, 1), "the permit stays with the connect");
    gate.release();
    let lease = pools.acquire("acme").await.unwrap();
    assert_eq!(fake.calls(Call::Connect).started, 1);
    drop(lease);
    assert_nothing_lost(&pools, &fake).await;
}

/// Review, finding 4: any idle pool was closed, not the least recently used one.
#[tokio::test(start_paused = true)]
async fn victims_are_taken_in_the_exact_order_of_their_last_use() {
    const TENANTS: usize = 8;
    for seed in 0..20 {
        let fake = FakeFactory::new();
        let pools = manager(&fake, TENANTS as u32).build().unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut by_use: Vec<String> = (0..TENANTS).map(|number| format!("tenant-{number}")).collect();
        for tenant in &by_use {
            warm(&pools, tenant).await;
        }
        for _ in 0..50 {
            let touched = by_use.remove(random.usize(..TENANTS));
            warm(&pools, &touched).await;
            by_use.push(touched);
        }
        assert_eq!(fake.calls(Call::Connect).started, TENANTS as u64);
        let _cold = hold_many(&pools, "cold", TENANTS as u32).await;
        let closed: Vec<String> = fake
            .events()
            .into_iter()
            .filter_map(|event| match event {
                Event::CloseStarted { tenant, .. } => Some(tenant.to_string()),
                _ => None,
            })
            .collect();
        assert_eq!(closed, by_use, "seed {seed}");
    }
}

/// Review, finding 5: a pool that broke after its first ping was handed out for ever.
#[tokio::test(start_paused = true)]
async fn a_connection_that_broke_in_use_is_closed_and_never_handed_out_again() {
    for health in [Health::Broken, Health::Lost] {
        let fake = FakeFactory::new();
        let pools = manager(&fake, 2).build().unwrap();
        let lease = pools.acquire("acme").await.unwrap();
        let first = lease.handle();
        lease.set_health(health);
        drop(lease);
        let again = pools.acquire("acme").await.unwrap();
        assert_ne!(again.id(), first.id());
        soon(fake.ended(Call::Close, 1)).await;
        assert!(!first.is_open());
        assert_eq!(pools.stats().totals.closed_broken, 1);
    }
}

/// Review, finding 5.
#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_died_meanwhile_is_replaced_before_the_caller_sees_it() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3).build().unwrap();
    let idle = warm(&pools, "acme").await;
    idle.mark_lost();
    assert_eq!(pools.try_acquire("acme").unwrap_err(), TryAcquireError::NotIdle);
    let idle = warm(&pools, "acme").await;
    idle.mark_lost();
    let mut lease = pools.acquire("acme").await.unwrap();
    lease.query().await.unwrap();
    assert_eq!(fake.calls(Call::Connect).started, 3);
    drop(lease);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_that_is_dirty_meanwhile_is_cleaned_before_its_next_user() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    for cleaned in 1..=2 {
        warm(&pools, "acme").await.set_health(Health::Dirty);
        if cleaned == 1 {
            assert_eq!(pools.try_acquire("acme").unwrap_err(), TryAcquireError::NotIdle);
        }
        let lease = pools.acquire("acme").await.unwrap();
        assert_eq!((fake.calls(Call::Recycle).ended, fake.calls(Call::Connect).started), (cleaned, 1));
        drop(lease);
    }
    assert_nothing_lost(&pools, &fake).await;
}

/// Review, finding 5: a failure after the creation made a tenant unusable until a restart.
#[tokio::test(start_paused = true)]
async fn a_tenant_whose_connects_failed_is_served_once_they_work() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    fake.on(Call::Connect).next_few(3, Behavior::fails(FailureKind::Unreachable));
    let mut failures = 0;
    let lease = loop {
        match pools.acquire("acme").await {
            Ok(lease) => break lease,
            Err(AcquireError::Connect { kind, .. }) => {
                assert_eq!(kind, FailureKind::Unreachable);
                failures += 1;
            }
            Err(error @ AcquireError::Unavailable { .. }) => {
                tokio::time::sleep(error.retry_after().unwrap()).await;
            }
            Err(other) => panic!("{other}"),
        }
    };
    assert_eq!(failures, 3);
    drop(lease);
    assert_nothing_lost(&pools, &fake).await;
}

/// Review, finding 6: no waits, no closes by reason, no saturation in the statistics.
#[tokio::test(start_paused = true)]
async fn the_statistics_tell_waits_closes_by_reason_and_how_full_it_is() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).idle_timeout(secs(10)).max_lifetime(secs(100)).build().unwrap();
    let held = hold(&pools, ["a", "b", "c", "d"]).await;
    assert!((pools.stats().saturation() - 1.0).abs() < f64::EPSILON);
    let waiting = tokio::spawn(pools.acquire_with("e", within(secs(4))));
    tokio::time::sleep(secs(2)).await;
    let stats = pools.stats();
    assert_eq!((stats.max, stats.open(), stats.in_use, stats.waiting), (4, 4, 4, 1));
    drop(held);
    drop(waiting.await.unwrap().unwrap());
    let stats = pools.stats();
    assert_eq!((stats.in_use, stats.waiting, stats.totals.evictions), (0, 0, 1));
    assert_eq!((stats.idle, stats.closing), (4, 0));
    assert!(stats.saturation().abs() < f64::EPSILON, "{stats:?}");
    assert_eq!(stats.totals.waits, 5, "four for their connects, one for a permit");
    assert!(stats.totals.waited >= secs(2) && stats.totals.waited < secs(3), "{:?}", stats.totals.waited);
    assert_eq!(stats.totals.connects, 5);
    tokio::time::sleep(secs(11)).await;
    assert_eq!((pools.stats().totals.closed_idle, pools.stats().open()), (4, 0));
    let tenant = pools.tenant_stats("e").unwrap();
    assert_eq!((tenant.totals.waits, tenant.totals.connects, tenant.idle), (1, 1, 0));
}

/// Review, finding 12: bad settings came out after side effects.
#[tokio::test(start_paused = true)]
async fn bad_settings_are_refused_before_anything_is_started() {
    let fake = FakeFactory::new();
    let tasks = Handle::current().metrics().num_alive_tasks();
    let refused = manager(&fake, 0).acquire_timeout(ms(0)).build();
    assert!(refused.is_err());
    settle().await;
    assert_eq!(Handle::current().metrics().num_alive_tasks(), tasks);
    assert!(fake.events().is_empty());
}

/// Review, finding 13: an admission asked for a whole pool's worth, and a tenth of the budget lay idle.
#[tokio::test(start_paused = true)]
async fn a_cold_tenant_needs_one_permit_and_the_whole_budget_is_usable() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 7).max_connections_per_tenant(5).build().unwrap();
    let mut held = hold(&pools, ["a", "a", "a", "a", "a", "b"]).await;
    held.extend(hold(&pools, ["cold"]).await);
    assert_eq!(fake.open().now, 7);
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

/// Review, finding 14: nothing to see in a limit error, and nobody counts them.
#[tokio::test(start_paused = true)]
async fn a_limit_error_says_when_to_come_back_and_every_refusal_is_counted() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let held = hold(&pools, ["a", "b"]).await;
    for count in 1..=3 {
        let error = limit(pools.acquire_with("c", within(ms(50))).await);
        assert!(error.at > std::time::SystemTime::UNIX_EPOCH);
        let retry_after = error.retry_after.unwrap();
        assert!(retry_after >= ms(1) && retry_after <= secs(60), "{retry_after:?}");
        assert_eq!(pools.stats().totals.refused(LimitScope::Total), count);
        assert_eq!(pools.tenant_stats("c").unwrap().totals.refused(LimitScope::Total), count);
    }
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}
