//! A driver that panics, hangs or breaks its word costs no permit, and nobody but those who asked for it.

use tenantry_core::{AcquireError, FailureKind, Phase};
use tenantry_testkit::{Behavior, Call, Event, FakeFactory};
use tokio::time::Instant;

use crate::support::{
    assert_about, assert_nothing_lost, hold, hold_many, limit, manager, ms, secs, settle, soon, warm, within,
};

/// What bb8 0.9 does: one panicking connect loses its place for ever.
#[tokio::test(start_paused = true)]
async fn a_connect_that_panics_loses_no_permit_and_is_said_to_be_unavailable() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    fake.on(Call::Connect).next(Behavior::panics().delayed(ms(5)));
    match pools.acquire("acme").await.unwrap_err() {
        AcquireError::Unavailable { tenant, kind: FailureKind::Other, retry_after, source: None, .. } => {
            assert_eq!(tenant.as_str(), "acme");
            tokio::time::sleep(retry_after).await;
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((pools.stats().open(), fake.open().now), (0, 0));
    drop(pools.acquire("acme").await.unwrap());
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn panicking_connects_of_one_tenant_leave_the_others_alone() {
    let fake = FakeFactory::new();
    fake.on_tenant(Call::Connect, "mad").always(Behavior::panics());
    let pools = manager(&fake, 2).build().unwrap();
    for round in 0..50 {
        assert!(pools.acquire("mad").await.is_err());
        warm(&pools, &format!("sane-{}", round % 3)).await;
        tokio::time::sleep(ms(40)).await;
    }
    assert!(fake.calls_of(Call::Connect, "mad").started > 1, "it was probed again");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_recycle_that_panics_loses_no_permit_and_its_connection_is_closed_in_order() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    fake.on(Call::Recycle).next(Behavior::panics());
    let mut lease = pools.acquire("acme").await.unwrap();
    let first = lease.handle();
    lease.mark_dirty();
    drop(lease);
    let again = pools.acquire("acme").await.unwrap();
    assert_ne!(again.id(), first.id());
    assert!(!first.is_open());
    assert_eq!(pools.stats().totals.closed_broken, 1);
    let dropped = fake.events().into_iter().find(|event| matches!(event, Event::Dropped { .. }));
    assert_eq!(dropped, None, "there is a runtime, so the permit is held until the server let go");
    assert_eq!(fake.calls(Call::Close).started, 1);
    drop(again);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_recycle_that_panics_fails_no_caller_for_whom_it_validated() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).validate_after_idle(ms(0)).build().unwrap();
    warm(&pools, "acme").await;
    fake.on(Call::Recycle).next(Behavior::panics());
    drop(pools.acquire("acme").await.unwrap());
    assert_eq!(fake.calls(Call::Connect).started, 2);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_that_panics_frees_its_permit_for_the_one_it_was_closed_for() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    fake.on(Call::Close).next_few(5, Behavior::panics());
    for tenant in ["a", "b", "c", "d", "e"] {
        warm(&pools, tenant).await;
    }
    assert_eq!(fake.open().now, 1);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_health_question_that_panics_counts_as_broken_at_release_and_at_hand_out() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    lease.panic_when_asked();
    drop(lease);
    soon(fake.ended(Call::Close, 1)).await;

    let lease = pools.acquire("acme").await.unwrap();
    let (second, broken) = (lease.id(), lease.handle());
    drop(lease);
    broken.set_health(tenantry_core::Health::Broken);
    let third = pools.acquire("acme").await.unwrap();
    assert_ne!(third.id(), second);
    assert_eq!(pools.stats().totals.closed_broken, 2);
    drop(third);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn opening_and_closing_a_pool_that_panics_frees_all_of_its_permits() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    fake.on(Call::OpenPool).next(Behavior::panics());
    let error = pools.acquire_pool("acme", 3).await.unwrap_err();
    assert!(matches!(error, AcquireError::Unavailable { source: None, .. }), "{error}");
    assert_eq!((pools.stats().open(), fake.open().now), (0, 0));
    fake.on(Call::ClosePool).next(Behavior::panics());
    pools.acquire_pool("acme", 4).await.unwrap().close().await;
    assert_eq!(pools.stats().open(), 0);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_hangs_is_bounded_by_connect_timeout() {
    let fake = FakeFactory::new();
    fake.on_tenant(Call::Connect, "dark").always(Behavior::hangs());
    let pools = manager(&fake, 2).connect_timeout(ms(700)).acquire_timeout(secs(60)).build().unwrap();
    let start = Instant::now();
    match pools.acquire("dark").await.unwrap_err() {
        AcquireError::Timeout { phase: Phase::Connecting, waited, .. } => assert_about(waited, ms(700)),
        other => panic!("{other:?}"),
    }
    assert_about(start.elapsed(), ms(700));
    assert_eq!((fake.open().now, pools.stats().open()), (0, 0));
    assert!(fake.events().iter().any(|event| matches!(event, Event::ConnectAbandoned { .. })));
    let error = pools.acquire("dark").await.unwrap_err();
    assert!(matches!(error, AcquireError::Unavailable { kind: FailureKind::Unreachable, source: None, .. }), "{error}");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_recycle_that_hangs_is_bounded_by_recycle_timeout_and_closed_instead() {
    let fake = FakeFactory::new();
    fake.on(Call::Recycle).next(Behavior::hangs());
    let pools = manager(&fake, 1).recycle_timeout(ms(300)).build().unwrap();
    let mut lease = pools.acquire("acme").await.unwrap();
    lease.mark_dirty();
    drop(lease);
    let start = Instant::now();
    drop(pools.acquire("acme").await.unwrap());
    assert_about(start.elapsed(), ms(300));
    assert_eq!((fake.calls(Call::Close).ended, fake.calls(Call::Connect).started), (1, 2));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_close_that_hangs_ends_at_close_timeout_where_the_driver_keeps_its_word() {
    let fake = FakeFactory::new();
    fake.on(Call::Close).next(Behavior::hangs());
    let pools = manager(&fake, 1).close_timeout(ms(400)).build().unwrap();
    pools.acquire("acme").await.unwrap().discard();
    let start = Instant::now();
    drop(pools.acquire("other").await.unwrap());
    assert_about(start.elapsed(), ms(400));
    assert!(fake.events().iter().any(|event| matches!(event, Event::ClosedAtTheBound { .. })));
    assert_nothing_lost(&pools, &fake).await;
}

/// The permit stays taken as long as the socket may: the budget is hard, also against the driver.
#[tokio::test(start_paused = true)]
async fn a_close_that_never_ends_is_overdue_keeps_its_permit_and_others_are_served_by_another_victim() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3).close_timeout(secs(1)).build().unwrap();
    for tenant in ["stuck", "b", "c"] {
        warm(&pools, tenant).await;
    }
    let gate = fake.hold_closes("stuck");
    let start = Instant::now();
    let lease = pools.acquire("cold").await.unwrap();
    assert!(start.elapsed() < ms(500), "it did not wait for the stuck one: {:?}", start.elapsed());
    assert_eq!(fake.calls_of(Call::Close, "b").ended, 1);
    assert_eq!(pools.stats().overdue, 0);
    tokio::time::sleep(secs(2)).await;
    let stats = pools.stats();
    assert_eq!((stats.closing, stats.overdue, stats.open()), (1, 1, 3));
    assert_eq!(fake.open().now, 3);

    let others = hold(&pools, ["d"]).await;
    let error = limit(pools.acquire_with("e", within(ms(200))).await);
    assert_eq!((error.limit, error.open), (3, 3));
    gate.release();
    soon(fake.ended(Call::Close, 3)).await;
    drop(pools.acquire("e").await.unwrap());
    assert_eq!(pools.stats().overdue, 0);
    drop((lease, others));
    assert_nothing_lost(&pools, &fake).await;
}

/// Everything at once, at random; whatever the driver does, the permits add up.
#[tokio::test(start_paused = true)]
async fn a_driver_that_does_everything_wrong_loses_no_permit() {
    for seed in 0..10 {
        let fake = FakeFactory::new();
        let mut random = fastrand::Rng::with_seed(seed);
        for call in [Call::Connect, Call::Recycle, Call::Close] {
            for _ in 0..60 {
                let behavior = match random.u32(..5) {
                    0 => Behavior::fails(FailureKind::Unreachable),
                    1 => Behavior::panics(),
                    2 => Behavior::hangs(),
                    3 => Behavior::after(ms(random.u64(..50))),
                    _ => Behavior::instant(),
                };
                fake.on(call).next(behavior.delayed(ms(random.u64(..3))));
            }
        }
        let pools = manager(&fake, 4)
            .connect_timeout(ms(50))
            .recycle_timeout(ms(50))
            .close_timeout(ms(50))
            .validate_after_idle(ms(5))
            .build()
            .unwrap();
        for _ in 0..400 {
            let tenant = format!("tenant-{}", random.u32(..8));
            if let Ok(mut lease) = pools.acquire_with(&tenant, within(ms(random.u64(..60)))).await {
                drop(lease.use_for(&tenant));
                if random.bool() {
                    lease.mark_dirty();
                }
            }
            if random.u32(..5) == 0 {
                settle().await;
            }
        }
        for call in [Call::Connect, Call::Recycle, Call::Close] {
            fake.on(call).reset();
        }
        tokio::time::sleep(secs(60)).await;
        assert!(fake.open().most <= 4, "seed {seed}");
        let stats = pools.stats();
        assert_eq!((stats.opening, stats.in_use, stats.closing, stats.waiting), (0, 0, 0, 0), "seed {seed}");
        assert_eq!(stats.open(), fake.open().now, "seed {seed}");
        drop(hold_many(&pools, "sane", 4).await);
        assert_nothing_lost(&pools, &fake).await;
    }
}
