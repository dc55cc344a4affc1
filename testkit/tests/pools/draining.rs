//! Drain, resume and evict, against a connection in each state that it can be in.

use std::future::Future;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};

use tenantry_core::{AcquireError, ServerId, TryAcquireError};
use tenantry_testkit::{Call, FakeFactory, Gate};
use tokio::time::Instant;

use crate::support::{
    assert_about, assert_closes_clean, assert_nothing_lost, hold, manager, ms, poll_once, secs, settle, soon, warm,
    within,
};

#[tokio::test(start_paused = true)]
async fn a_drain_closes_what_is_idle_and_refuses_until_the_resume() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    drop(hold(&pools, ["acme", "acme", "other"]).await);
    let report = pools.drain("acme", secs(1)).await;
    assert!(report.is_complete());
    assert_eq!((fake.open_of("acme").now, fake.open_of("other").now), (0, 1));
    let error = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(error, AcquireError::Draining { .. }), "{error}");
    assert_eq!(error.tenant().unwrap().as_str(), "acme");
    assert_eq!(pools.try_acquire("acme").unwrap_err(), TryAcquireError::Draining);
    assert!(matches!(pools.acquire_pool("acme", 1).await, Err(AcquireError::Draining { .. })));
    assert!(pools.tenant_stats("acme").unwrap().draining);
    warm(&pools, "other").await;
    assert!(pools.resume("acme"));
    warm(&pools, "acme").await;
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_leases_and_closes_them_when_they_come_back() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let mut leases = hold(&pools, ["acme", "acme"]).await;
    let start = Instant::now();
    let report = pools.drain("acme", ms(250)).await;
    assert_about(start.elapsed(), ms(250));
    assert_eq!((report.in_use, report.opening, report.closing, report.pool_leased), (2, 0, 0, 0));
    assert!(leases.iter().all(|lease| lease.handle().is_open()));
    leases[0].query().await.unwrap();
    let drain = tokio::spawn({
        let pools = pools.clone();
        async move { pools.drain("acme", secs(60)).await }
    });
    settle().await;
    drop(leases.pop());
    settle().await;
    assert!(!drain.is_finished());
    drop(leases);
    assert!(soon(drain).await.unwrap().is_complete());
    assert_eq!((fake.open().now, fake.calls(Call::Close).started), (0, 2));
    pools.resume("acme");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_answers_those_who_wait_at_once_also_for_their_connect() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).max_connections_per_tenant(1).build().unwrap();
    let gate = fake.hold_connects("opening");
    let held = pools.acquire("full").await.unwrap();
    let waiting = [tokio::spawn(pools.acquire("opening")), tokio::spawn(pools.acquire("full"))];
    gate.reached(1).await;
    settle().await;
    let start = Instant::now();
    let (opening, full) = (pools.drain("opening", ms(0)).await, pools.drain("full", ms(0)).await);
    assert_eq!((opening.opening, full.in_use), (1, 1));
    for waiting in waiting {
        assert!(matches!(waiting.await.unwrap(), Err(AcquireError::Draining { .. })));
    }
    assert!(start.elapsed() < ms(10));
    gate.release();
    assert!(pools.drain("opening", secs(1)).await.is_complete());
    assert_eq!(fake.calls_of(Call::Close, "opening").ended, 1, "what was opened meanwhile is closed");
    drop(held);
    pools.resume("opening");
    pools.resume("full");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_takes_back_what_was_granted_and_not_collected() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let mut granted = Box::pin(pools.acquire("acme"));
    assert!(poll_once(granted.as_mut()).is_pending());
    drop(held);
    assert!(pools.drain("acme", secs(1)).await.is_complete());
    assert!(matches!(granted.await, Err(AcquireError::Draining { .. })));
    assert_eq!(fake.open().now, 0);
    pools.resume("acme");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_closes_what_is_being_cleaned_when_that_is_done_and_waits_for_what_closes() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let (recycles, closes) = (fake.hold_recycles("acme"), fake.hold_closes("acme"));
    let mut leases = hold(&pools, ["acme", "acme"]).await;
    leases[0].mark_dirty();
    leases.pop().unwrap().discard();
    drop(leases);
    recycles.reached(1).await;
    closes.reached(1).await;
    let report = pools.drain("acme", ms(50)).await;
    assert_eq!((report.in_use, report.closing), (1, 1), "{report:?}");
    recycles.release();
    settle().await;
    closes.reached(2).await;
    closes.release();
    assert!(pools.drain("acme", secs(1)).await.is_complete());
    assert_eq!(fake.open().now, 0);
    pools.resume("acme");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_pool_leases_and_refuses_one_that_is_being_gathered() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let lease = pools.acquire_pool("acme", 3).await.unwrap();
    let gathering = tokio::spawn(pools.acquire_pool("acme", 2));
    settle().await;
    let report = pools.drain("acme", ms(50)).await;
    assert_eq!(report.pool_leased, 3);
    assert!(matches!(gathering.await.unwrap(), Err(AcquireError::Draining { .. })));
    drop(lease.get().await.unwrap());
    drop(lease);
    assert!(pools.drain("acme", secs(1)).await.is_complete());
    pools.resume("acme");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_drain_frees_its_permits_for_others_who_wait() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let held = hold(&pools, ["acme", "acme"]).await;
    let other = tokio::spawn(pools.acquire("other"));
    settle().await;
    pools.drain("acme", ms(0)).await;
    drop(held);
    drop(other.await.unwrap().unwrap());
    pools.resume("acme");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_drain_leaves_the_tenant_draining() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    let mut drain = Box::pin(pools.drain("acme", secs(60)));
    assert!(poll_once(drain.as_mut()).is_pending());
    drop(drain);
    assert!(matches!(pools.acquire("acme").await, Err(AcquireError::Draining { .. })));
    drop(lease);
    settle().await;
    assert_eq!(fake.open().now, 0);
    assert!(pools.resume("acme"));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_dropped_drain_or_close_keeps_no_waker() {
    struct Nobody;
    impl Wake for Nobody {
        fn wake(self: Arc<Self>) {}
    }
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    let nobody = Arc::new(Nobody);
    let waker = Waker::from(nobody.clone());
    assert!(Box::pin(pools.drain("acme", secs(60))).as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert!(Box::pin(pools.close()).as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    drop(waker);
    assert_eq!(Arc::strong_count(&nobody), 1);
    drop(lease);
    assert_closes_clean(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_was_never_seen_can_be_drained_before_it_comes() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    assert!(pools.drain("early", secs(1)).await.is_complete());
    assert!(matches!(pools.acquire("early").await, Err(AcquireError::Draining { .. })));
    tokio::time::sleep(secs(2 * 60 * 60)).await;
    assert!(matches!(pools.acquire("early").await, Err(AcquireError::Draining { .. })), "and is not forgotten");
    assert!(pools.resume("early"));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn drains_and_resumes_may_be_repeated() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    assert!(!pools.resume("acme"), "it is not known");
    warm(&pools, "acme").await;
    assert!(!pools.resume("acme"), "it does not drain");
    for _ in 0..3 {
        assert!(pools.drain("acme", secs(1)).await.is_complete());
    }
    assert!(pools.resume("acme"));
    assert!(!pools.resume("acme"));
    assert_nothing_lost(&pools, &fake).await;
}

/// How a tenant moves: drained here, its data copied, resumed there.
#[tokio::test(start_paused = true)]
async fn a_resume_asks_the_factory_anew_which_server_it_is() {
    let (fake, east, west) = (FakeFactory::new(), ServerId::from("east"), ServerId::from("west"));
    fake.place("acme", east.clone());
    let pools = manager(&fake, 4).max_connections_on("west", 1).build().unwrap();
    let late = pools.acquire("acme").await.unwrap();
    assert_eq!((pools.tenant_stats("acme").unwrap().server, late.server()), (east.clone(), &east));
    pools.drain("acme", ms(10)).await;
    fake.place("acme", west.clone());
    assert!(pools.resume("acme"));
    let moved = pools.acquire("acme").await.unwrap();
    assert_eq!((pools.tenant_stats("acme").unwrap().server, moved.server()), (west.clone(), &west));
    assert_eq!((fake.open_on(&east).now, fake.open_on(&west).now), (1, 1));
    drop(late);
    soon(fake.ended(Call::Close, 1)).await;
    assert_eq!(fake.open_on(&east).now, 0, "what was opened on the old server is not kept");
    assert!(pools.acquire_with("acme", within(ms(1))).await.unwrap_err().is_limit());
    drop(moved);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn an_evict_closes_the_idle_ones_and_leaves_those_in_every_other_state() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).max_connections_per_tenant(10).build().unwrap();
    let mut leases = hold(&pools, ["acme"; 6]).await;
    let (connects, closes, recycles) =
        (fake.hold_connects("acme"), fake.hold_closes("acme"), fake.hold_recycles("acme"));
    let mut opening = Box::pin(pools.acquire("acme"));
    assert!(poll_once(opening.as_mut()).is_pending());
    connects.reached(1).await;
    drop(opening);
    leases.pop().unwrap().discard();
    closes.reached(1).await;
    let mut dirty = leases.pop().unwrap();
    dirty.mark_dirty();
    drop(dirty);
    recycles.reached(1).await;
    let mut granted = Box::pin(pools.acquire("acme"));
    assert!(poll_once(granted.as_mut()).is_pending());
    let busy = leases.pop().unwrap();
    drop(leases);
    let stats = pools.tenant_stats("acme").unwrap();
    assert_eq!((stats.opening, stats.idle, stats.in_use, stats.closing), (1, 2, 3, 1));

    assert_eq!(pools.evict("acme"), 2);
    let stats = pools.tenant_stats("acme").unwrap();
    assert_eq!((stats.opening, stats.idle, stats.in_use, stats.closing), (1, 0, 3, 3));
    assert_eq!(pools.stats().totals.closed_evict, 2);
    assert_eq!((pools.evict("acme"), pools.evict("nobody")), (0, 0));
    assert!(busy.handle().is_open());
    drop(granted.await.unwrap().use_for("acme"));

    [connects, closes, recycles].iter().for_each(Gate::release);
    drop(busy);
    settle().await;
    assert_eq!((fake.open_of("acme").now, pools.tenant_stats("acme").unwrap().idle), (4, 4));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn an_evict_makes_room_so_that_nobody_needs_a_victim() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    drop(hold(&pools, ["acme", "acme"]).await);
    assert_eq!(pools.evict("acme"), 2);
    soon(fake.ended(Call::Close, 2)).await;
    drop(hold(&pools, ["a", "b"]).await);
    assert_eq!(pools.stats().totals.evictions, 0);
    assert_nothing_lost(&pools, &fake).await;
}
