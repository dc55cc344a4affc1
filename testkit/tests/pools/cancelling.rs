//! An acquire that is dropped, at every moment of its life, leaves nothing behind.

use tenantry_core::TryAcquireError;
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;

use crate::support::{assert_nothing_lost, hold, manager, ms, poll_once, secs, settle, soon, warm};

#[tokio::test(start_paused = true)]
async fn an_acquire_that_was_never_polled_never_happened() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    drop(pools.acquire("acme"));
    drop(pools.acquire_pool("acme", 1));
    drop(pools.create("acme"));
    settle().await;
    assert!(fake.events().is_empty());
    assert_eq!((pools.stats().tenants, pools.stats().waiting, pools.stats().open()), (0, 0, 0));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_the_line_gives_its_place_to_those_behind_it() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let (mut first, mut second) = (Box::pin(pools.acquire("acme")), Box::pin(pools.acquire("acme")));
    assert!(poll_once(first.as_mut()).is_pending());
    assert!(poll_once(second.as_mut()).is_pending());
    assert_eq!(pools.stats().waiting, 2);
    drop(first);
    assert_eq!(pools.stats().waiting, 1);
    drop(held);
    drop(second.await.unwrap());
    assert_eq!(pools.stats().waiting, 0);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_while_its_connect_runs_leaves_the_connection_to_the_line() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let gate = fake.hold_connects("acme");
    let mut first = Box::pin(pools.acquire("acme"));
    assert!(poll_once(first.as_mut()).is_pending());
    gate.reached(1).await;
    let second = tokio::spawn(pools.acquire("acme"));
    settle().await;
    drop(first);
    gate.release();
    drop(second.await.unwrap().unwrap());
    assert_eq!((fake.calls(Call::Connect).started, fake.calls(Call::Connect).ended), (1, 1));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_while_its_connect_runs_leaves_an_idle_connection_where_nobody_waits() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let gate = fake.hold_connects("acme");
    let mut only = Box::pin(pools.acquire("acme"));
    assert!(poll_once(only.as_mut()).is_pending());
    gate.reached(1).await;
    drop(only);
    assert_eq!(pools.try_acquire("acme").unwrap_err(), TryAcquireError::NotIdle);
    gate.release();
    settle().await;
    assert_eq!(pools.stats().idle, 1);
    assert!(pools.try_acquire("acme").is_ok());
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn one_that_leaves_while_a_victim_closes_for_it_leaves_the_permit_to_whoever_comes() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    warm(&pools, "victim").await;
    let gate = fake.hold_closes("victim");
    let mut cold = Box::pin(pools.acquire("cold"));
    assert!(poll_once(cold.as_mut()).is_pending());
    gate.reached(1).await;
    drop(cold);
    let other = tokio::spawn(pools.acquire("other"));
    settle().await;
    assert_eq!(fake.open().now, 1);
    gate.release();
    drop(other.await.unwrap().unwrap());
    assert_eq!(fake.calls_of(Call::Connect, "cold").started, 0);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_not_collected_goes_to_the_next_in_line() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let id = held.id();
    let mut granted = Box::pin(pools.acquire("acme"));
    assert!(poll_once(granted.as_mut()).is_pending());
    let next = tokio::spawn(pools.acquire("acme"));
    settle().await;
    drop(held);
    assert_eq!((pools.stats().idle, pools.stats().in_use), (0, 1), "set aside");
    drop(granted);
    assert_eq!(next.await.unwrap().unwrap().id(), id);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_not_collected_goes_to_another_tenant_where_its_own_wants_it_no_more() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let mut granted = Box::pin(pools.acquire("acme"));
    assert!(poll_once(granted.as_mut()).is_pending());
    drop(held);
    let other = tokio::spawn(pools.acquire("other"));
    settle().await;
    drop(granted);
    assert_eq!(other.await.unwrap().unwrap().tenant().as_str(), "other");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_not_collected_is_idle_again_where_nobody_waits() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let gate = fake.hold_connects("acme");
    let mut granted = Box::pin(pools.acquire("acme"));
    assert!(poll_once(granted.as_mut()).is_pending());
    gate.release();
    soon(fake.ended(Call::Connect, 1)).await;
    settle().await;
    assert_eq!(pools.stats().in_use, 1, "granted as soon as it was open");
    drop(granted);
    assert_eq!((pools.stats().idle, pools.stats().in_use), (1, 0));
    assert!(pools.try_acquire("acme").is_ok());
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_was_not_collected_costs_nothing() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).next(Behavior::fails(tenantry_core::FailureKind::Auth));
    let pools = manager(&fake, 1).build().unwrap();
    let mut refused = Box::pin(pools.acquire("acme"));
    assert!(poll_once(refused.as_mut()).is_pending());
    settle().await;
    drop(refused);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn permits_gathered_for_a_pool_lease_are_free_again_when_it_is_dropped() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let held = hold(&pools, ["a", "b"]).await;
    let mut pool = Box::pin(pools.acquire_pool("acme", 3));
    assert!(poll_once(pool.as_mut()).is_pending());
    assert_eq!(pools.stats().pool_leased, 2);
    drop(pool);
    assert_eq!(pools.stats().pool_leased, 0);
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

/// A thousand random lives: asked for, abandoned at a random moment or used, under random delays of the driver.
#[tokio::test(start_paused = true)]
async fn a_thousand_acquires_abandoned_at_random_moments_lose_nothing() {
    for seed in 0..8 {
        let fake = FakeFactory::new();
        fake.on(Call::Connect).always(Behavior::after(ms(3)));
        fake.on(Call::Recycle).always(Behavior::after(ms(2)));
        fake.on(Call::Close).always(Behavior::after(ms(2)));
        let pools = manager(&fake, 5).max_connections_per_tenant(3).validate_after_idle(ms(20)).build().unwrap();
        let mut random = fastrand::Rng::with_seed(seed);
        let mut tasks = JoinSet::new();
        for _ in 0..1_000 {
            let tenant = format!("tenant-{}", random.u32(..9));
            let (patience, hold) = (ms(random.u64(..12)), ms(random.u64(..4)));
            let (fate, acquire) = (random.u32(..10), pools.acquire(&tenant));
            tasks.spawn(async move {
                let Ok(Ok(mut lease)) = tokio::time::timeout(patience, acquire).await else { return };
                let using = lease.use_for(&tenant);
                tokio::time::sleep(hold).await;
                drop(using);
                match fate {
                    0 => lease.discard(),
                    1 => lease.mark_dirty(),
                    2 => lease.set_health(tenantry_core::Health::Lost),
                    _ => {}
                }
            });
            if random.u32(..4) == 0 {
                settle().await;
            }
        }
        tasks.join_all().await;
        assert_eq!(pools.stats().waiting, 0, "seed {seed}");
        assert!(tokio::time::timeout(secs(60), assert_nothing_lost(&pools, &fake)).await.is_ok(), "seed {seed}");
    }
}
