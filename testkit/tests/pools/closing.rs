//! Closing the manager: what it waits for, what it reports, and what goes on without it.

use tenantry_core::{AcquireError, ProvisionError};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{
    assert_about, assert_closes_clean, assert_nothing_lost, hold, hold_many, manager, ms, poll_once, secs, settle,
    soon, warm,
};

#[tokio::test(start_paused = true)]
async fn close_resolves_when_the_last_connection_is_closed() {
    let fake = FakeFactory::new();
    fake.on(Call::Close).always(Behavior::after(ms(30)));
    let pools = manager(&fake, 4).build().unwrap();
    warm(&pools, "idle").await;
    let lease = pools.acquire("busy").await.unwrap();
    let closing = tokio::spawn({
        let pools = pools.clone();
        async move { pools.close().await }
    });
    tokio::time::sleep(secs(100)).await;
    assert!(!closing.is_finished(), "a lease is out, and it waits as long as it takes");
    assert_eq!(fake.open().now, 1, "the idle one is closed");
    let start = Instant::now();
    drop(lease);
    soon(closing).await.unwrap();
    assert_about(start.elapsed(), ms(30));
    assert_eq!(fake.open().now, 0);
}

#[tokio::test(start_paused = true)]
async fn close_within_reports_what_is_left_in_every_state_and_the_rest_ends_by_itself() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).close_timeout(ms(200)).build().unwrap();
    let leases = hold(&pools, ["busy", "busy", "busy"]).await;
    let pool = pools.acquire_pool("pool", 4).await.unwrap();
    warm(&pools, "stuck").await;
    warm(&pools, "idle").await;
    let (opening, closing) = (fake.hold_connects("opening"), fake.hold_closes("stuck"));
    let waiting = tokio::spawn(pools.acquire("opening"));
    opening.reached(1).await;

    let start = Instant::now();
    let report = pools.close_within(secs(1)).await;
    assert_about(start.elapsed(), secs(1));
    assert_eq!((report.in_use, report.opening, report.pool_leased), (3, 1, 4), "{report:?}");
    assert_eq!((report.closing, report.overdue), (1, 1), "{report:?}");
    assert!(!report.is_complete());
    assert!(matches!(waiting.await.unwrap(), Err(AcquireError::Closed)));

    opening.release();
    closing.release();
    drop((leases, pool));
    assert_closes_clean(&pools, &fake).await;
    assert_eq!(fake.calls(Call::Close).started, 6, "the late connection too");
}

#[tokio::test(start_paused = true)]
async fn close_within_no_time_closes_all_the_same() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    warm(&pools, "idle").await;
    let lease = pools.acquire("busy").await.unwrap();
    let report = pools.close_within(ms(0)).await;
    assert_eq!(report.in_use, 1);
    assert!(matches!(pools.acquire("busy").await, Err(AcquireError::Closed)));
    drop(lease);
    assert_closes_clean(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_close_future_only_ends_the_waiting() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let lease = pools.acquire("busy").await.unwrap();
    let mut close = Box::pin(pools.close());
    assert!(poll_once(close.as_mut()).is_pending());
    drop(close);
    assert!(pools.stats().closed);
    drop(lease);
    settle().await;
    assert_eq!((fake.open().now, pools.stats().open()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_closes_and_no_earlier_one_does() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3).build().unwrap();
    let clone = pools.clone();
    warm(&pools, "a").await;
    drop(pools);
    settle().await;
    warm(&clone, "b").await;
    assert_eq!(fake.open().now, 2, "the other clone keeps it open");
    drop(clone);
    soon(fake.ended(Call::Close, 2)).await;
    assert_eq!(fake.open().now, 0);
}

#[tokio::test(start_paused = true)]
async fn a_weak_handle_keeps_nothing_open_and_reads_on() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let weak = pools.weak();
    warm(&weak, "idle").await;
    let lease = weak.acquire("busy").await.unwrap();
    drop(weak.clone());
    assert!(!weak.stats().closed);
    drop(pools);
    assert!(matches!(weak.acquire("idle").await, Err(AcquireError::Closed)));
    assert_eq!((weak.stats().closed, weak.stats().in_use), (true, 1));
    drop(lease);
    assert_closes_clean(&weak, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_pending_acquire_does_not_keep_the_manager_open() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let (waiting, unpolled) = (tokio::spawn(pools.acquire("acme")), pools.acquire("acme"));
    let (pool, create) = (tokio::spawn(pools.acquire_pool("acme", 1)), tokio::spawn(pools.create("new")));
    settle().await;
    drop(pools);
    assert!(matches!(waiting.await.unwrap(), Err(AcquireError::Closed)));
    assert!(matches!(unpolled.await, Err(AcquireError::Closed)));
    assert!(matches!(pool.await.unwrap(), Err(AcquireError::Closed)));
    assert!(matches!(create.await.unwrap(), Err(ProvisionError::Permit(AcquireError::Closed))));
    drop(held);
    settle().await;
    assert_eq!(fake.open().now, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_outlives_the_manager_and_is_closed_in_order_when_it_comes_back() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let mut lease = pools.acquire("acme").await.unwrap();
    drop(pools);
    settle().await;
    lease.query().await.unwrap();
    assert!(lease.handle().is_open());
    drop(lease);
    soon(fake.ended(Call::Close, 1)).await;
    assert_eq!(fake.open().now, 0);
    fake.assert_no_misuse();
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_opened_or_cleaned_during_a_close_is_closed_when_that_is_done() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let (connects, recycles) = (fake.hold_connects("opening"), fake.hold_recycles("dirty"));
    let opening = tokio::spawn(pools.acquire("opening"));
    let mut dirty = pools.acquire("dirty").await.unwrap();
    dirty.mark_dirty();
    drop(dirty);
    connects.reached(1).await;
    recycles.reached(1).await;
    let report = pools.close_within(ms(10)).await;
    assert_eq!((report.opening, report.in_use), (1, 1));
    assert!(matches!(opening.await.unwrap(), Err(AcquireError::Closed)));
    connects.release();
    recycles.release();
    assert_closes_clean(&pools, &fake).await;
    assert_eq!(fake.calls(Call::Close).started, 2);
}

#[tokio::test(start_paused = true)]
async fn a_grant_that_was_not_collected_at_the_close_is_taken_back() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let mut granted = Box::pin(pools.acquire("acme"));
    assert!(poll_once(granted.as_mut()).is_pending());
    drop(held);
    assert!(pools.close_within(secs(1)).await.is_complete());
    assert!(matches!(granted.await, Err(AcquireError::Closed)));
    assert_eq!(fake.calls(Call::Close).started, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_closes_at_once_all_resolve_and_close_each_connection_once() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).build().unwrap();
    drop(hold_many(&pools, "idle", 10).await);
    let leases = hold_many(&pools, "busy", 10).await;
    let mut tasks = JoinSet::new();
    for number in 0..10 {
        let pools = pools.clone();
        tasks.spawn(async move {
            if number % 2 == 0 {
                pools.close().await;
            } else {
                assert!(pools.close_within(secs(60)).await.is_complete());
            }
        });
    }
    tasks.spawn(async move { drop(leases) });
    while let Some(ended) = tasks.join_next().await {
        ended.unwrap();
    }
    assert_eq!((fake.open().now, fake.calls(Call::Close).started, fake.calls(Call::Connect).started), (0, 20, 20));
    pools.close().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_close_every_way_in_says_closed() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    warm(&pools, "acme").await;
    soon(pools.close()).await;
    drop(fake.take_events());
    assert!(matches!(pools.acquire("acme").await, Err(AcquireError::Closed)));
    assert!(matches!(pools.acquire_pool("acme", 1).await, Err(AcquireError::Closed)));
    assert!(matches!(pools.create("acme").await, Err(ProvisionError::Permit(AcquireError::Closed))));
    assert!(matches!(pools.drop_database("acme").await, Err(ProvisionError::Permit(AcquireError::Closed))));
    assert_eq!(pools.evict("acme"), 0);
    assert!(pools.drain("acme", secs(1)).await.is_complete());
    assert!(pools.resume("acme"));
    assert!(matches!(pools.acquire("acme").await, Err(AcquireError::Closed)));
    assert!(fake.take_events().is_empty());
}

/// The shutdown of a service under load: nobody is served a closed connection, everybody gets an answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_close_under_load_answers_everybody_and_leaves_nothing_open() {
    for seed in 0..10_u64 {
        let fake = FakeFactory::new();
        let pools = manager(&fake, 5).build().unwrap();
        let mut tasks = JoinSet::new();
        for task in 0..40 {
            let pools = pools.clone();
            tasks.spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed * 1_000 + task);
                loop {
                    let tenant = format!("tenant-{}", random.u32(..12));
                    match pools.acquire(&tenant).await {
                        Ok(lease) => {
                            let _use = lease.use_for(&tenant);
                            tokio::task::yield_now().await;
                        }
                        Err(AcquireError::Closed) => return,
                        Err(other) => panic!("{other}"),
                    }
                }
            });
        }
        fake.reached(Call::Connect, 20).await;
        pools.close().await;
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
        assert_eq!(fake.open().now, 0, "seed {seed}");
        fake.assert_no_misuse();
    }
}

#[tokio::test(start_paused = true)]
async fn a_manager_that_is_not_used_can_be_closed_and_dropped() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    assert!(pools.close_within(ms(0)).await.is_complete());
    drop(pools);
    let pools = manager(&fake, 2).build().unwrap();
    assert_nothing_lost(&pools, &fake).await;
}
