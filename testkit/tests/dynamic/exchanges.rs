//! Where a view finds connections of the other kind and no room: one of them is closed, and one of the right kind opened
//! under the same permit. However that goes, no cap is passed and no permit lost.

use std::time::Duration;

use tenantry_core::{
    AcquireError, AcquireOptions, EitherError, FailureKind, Phase, ServerId, TenantLimits, TenantPools,
};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;

use crate::support::{Both, TwoFakes, assert_closes_clean, manager, ms, one_server, settle};

/// A tenant may have one connection; it has one of the left kind, idle.
async fn narrow(two: &TwoFakes) -> TenantPools<Both> {
    let pools = manager(two.factory(), 4, 1).build().unwrap();
    drop(pools.left().acquire("acme").await.unwrap());
    assert_eq!(two.open(), (1, 0));
    pools
}

/// Every permit of the tenant can be had again.
async fn assert_nothing_lost(pools: &TenantPools<Both>, two: &TwoFakes) {
    let leases = (pools.left().acquire("audit-1").await.unwrap(), pools.right().acquire("audit-2").await.unwrap());
    let more = (pools.right().acquire("acme").await.unwrap(), pools.left().acquire("audit-3").await.unwrap());
    assert_eq!(two.open(), (2, 2), "every permit stands for one connection");
    drop((leases, more));
    assert_closes_clean(pools, &[&two.left, &two.right]).await;
}

#[tokio::test(start_paused = true)]
async fn with_one_connection_each_change_of_sides_is_an_exchange() {
    let fake = FakeFactory::new();
    let pools = manager(one_server(&fake), 4, 1).build().unwrap();
    for _ in 0..3 {
        pools.left().acquire("acme").await.unwrap().use_for("acme");
        pools.right().acquire("acme").await.unwrap().use_for("acme");
    }
    assert_eq!((fake.calls(Call::Connect).ended, fake.calls(Call::Close).ended), (6, 5));
    assert_eq!(fake.open_of("acme").most, 1, "closed before the other is opened");
    assert_closes_clean(&pools, &[&fake]).await;
}

#[tokio::test(start_paused = true)]
async fn one_who_waits_at_the_cap_is_served_by_what_comes_back_first() {
    let fake = FakeFactory::new();
    let pools = manager(one_server(&fake), 4, 2).build().unwrap();
    let (one, two) = (pools.left().acquire("acme").await.unwrap(), pools.left().acquire("acme").await.unwrap());
    let waiting = tokio::spawn(pools.right().acquire("acme"));
    settle().await;
    drop(one);
    drop(waiting.await.unwrap().unwrap());
    assert_eq!((fake.open_of("acme").now, fake.open_of("acme").most), (2, 2));
    drop(two);
    assert_closes_clean(&pools, &[&fake]).await;
}

#[tokio::test(start_paused = true)]
async fn a_hand_over_of_the_right_kind_is_taken_as_it_is() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 1, 1).build().unwrap();
    let held = pools.right().acquire("acme").await.unwrap();
    let waiting = tokio::spawn(pools.right().acquire("acme"));
    settle().await;
    drop(held);
    drop(waiting.await.unwrap().unwrap());
    assert_eq!((two.calls(Call::Connect), two.calls(Call::Close)), ((0, 1), (0, 0)));
}

#[tokio::test(start_paused = true)]
async fn in_a_crowd_a_tenant_exchanges_what_it_has_and_waits_for_no_more() {
    let fake = FakeFactory::new();
    let pools = manager(one_server(&fake), 3, 3).handover_bound(Duration::from_secs(60)).build().unwrap();
    let _busy = (pools.left().acquire("busy").await.unwrap(), pools.left().acquire("busy").await.unwrap());
    let acme = pools.left().acquire("acme").await.unwrap();
    let right = tokio::spawn(pools.right().acquire("acme"));
    let mut crowd = JoinSet::new();
    for number in 0..3 {
        crowd.spawn(pools.left().acquire(format!("cold-{number}")));
    }
    settle().await;
    let start = tokio::time::Instant::now();
    drop(acme);
    let right = right.await.unwrap().unwrap();
    assert!(start.elapsed() < ms(5), "served by what its tenant had, after {:?}", start.elapsed());
    assert_eq!((fake.open_of("acme").most, fake.open().most), (1, 3));
    drop(right);
    while let Some(lease) = crowd.join_next().await {
        drop(lease.unwrap().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn of_several_idle_ones_the_others_go_back_at_once() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 2).build().unwrap();
    drop((pools.left().acquire("acme").await.unwrap(), pools.left().acquire("acme").await.unwrap()));
    let gate = two.left.hold_closes("acme");
    let right = tokio::spawn(pools.right().acquire("acme"));
    gate.reached(1).await;
    assert!(pools.left().try_acquire("acme").is_ok(), "one is being exchanged, the other is there");
    gate.release();
    drop(right.await.unwrap().unwrap());
    assert_eq!(two.open(), (1, 1));
    assert_closes_clean(&pools, &[&two.left, &two.right]).await;
}

#[tokio::test(start_paused = true)]
async fn room_that_is_not_to_be_had_is_not_waited_for_long() {
    let two = TwoFakes::default();
    let kept = TenantLimits::new().reserve(1);
    let pools = manager(two.factory(), 2, 2).tenant("system", kept).build().unwrap();
    drop((pools.left().acquire("system").await.unwrap(), pools.left().acquire("acme").await.unwrap()));
    let start = tokio::time::Instant::now();
    drop(pools.right().acquire("acme").await.unwrap());
    assert!((ms(20)..ms(30)).contains(&start.elapsed()), "{:?}", start.elapsed());
    assert_eq!(two.open(), (1, 1), "what is reserved stays, and its own was exchanged");
    assert_closes_clean(&pools, &[&two.left, &two.right]).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_exchange_gives_its_permit_back_and_its_side_rests() {
    let two = TwoFakes::default();
    let pools = narrow(&two).await;
    two.right.on(Call::Connect).always(Behavior::fails(FailureKind::Auth));
    let error = pools.right().acquire("acme").await.unwrap_err();
    let AcquireError::Connect { kind: FailureKind::Auth, source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**source, EitherError::Right(_)));
    settle().await;
    assert_eq!((two.open(), pools.stats().open()), ((0, 0), 0));

    drop(pools.left().acquire("acme").await.unwrap());
    for _ in 0..5 {
        let error = pools.right().acquire("acme").await.unwrap_err();
        let AcquireError::Unavailable { kind: FailureKind::Auth, source: Some(_), retry_after, .. } = error else {
            panic!("{error:?}")
        };
        assert!(retry_after <= Duration::from_secs(1));
    }
    assert_eq!((two.open(), two.calls(Call::Connect)), ((1, 0), (2, 1)), "the left one stays, and nothing is tried");
    two.right.on(Call::Connect).reset();
    tokio::time::sleep(ms(1_000)).await;
    drop(pools.right().acquire("acme").await.unwrap());
    assert_nothing_lost(&pools, &two).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_full_at_an_exchange_is_waited_for() {
    let two = TwoFakes::default();
    let pools = narrow(&two).await;
    two.right.on(Call::Connect).next_few(2, Behavior::fails(FailureKind::ServerFull));
    drop(pools.right().acquire("acme").await.unwrap());
    assert_eq!(two.calls(Call::Connect), (1, 3));
    assert_nothing_lost(&pools, &two).await;
}

#[tokio::test(start_paused = true)]
async fn an_acquire_that_is_dropped_leaves_its_exchange_to_end() {
    let two = TwoFakes::default();
    let pools = narrow(&two).await;
    let gate = two.left.hold_closes("acme");
    let task = tokio::spawn(pools.right().acquire("acme"));
    gate.reached(1).await;
    task.abort();
    assert!(task.await.unwrap_err().is_cancelled());
    assert_eq!((two.open(), pools.stats().open()), ((1, 0), 1), "its permit is held until the close has ended");
    gate.release();
    settle().await;
    assert_eq!((two.open(), pools.stats().idle), ((0, 1), 1));
    assert!(pools.right().try_acquire("acme").is_ok(), "and the next finds it");
    assert_nothing_lost(&pools, &two).await;
}

#[tokio::test(start_paused = true)]
async fn an_exchange_that_takes_too_long_is_a_timeout_and_serves_the_next() {
    let two = TwoFakes::default();
    let pools = narrow(&two).await;
    two.right.on(Call::Connect).next(Behavior::after(ms(300)));
    let options = AcquireOptions::new().timeout(ms(100));
    let error = pools.right().acquire_with("acme", options).await.unwrap_err();
    assert!(
        matches!(error, AcquireError::Timeout { phase: Phase::Connecting, waited, .. } if waited >= ms(100)),
        "{error:?}"
    );
    drop(pools.right().acquire("acme").await.unwrap());
    assert_eq!(two.calls(Call::Connect), (1, 1));
    assert_nothing_lost(&pools, &two).await;
}

#[tokio::test(start_paused = true)]
async fn without_time_nothing_is_exchanged() {
    let two = TwoFakes::default();
    let pools = narrow(&two).await;
    let error = pools.right().acquire_with("acme", AcquireOptions::new().timeout(Duration::ZERO)).await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { .. }), "{error:?}");
    settle().await;
    assert!(pools.left().try_acquire("acme").is_ok());
    assert_eq!(two.calls(Call::Close), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_connect_past_its_time_ends_the_exchange() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 1).connect_timeout(ms(200)).build().unwrap();
    drop(pools.left().acquire("acme").await.unwrap());
    two.right.on(Call::Connect).next(Behavior::hangs());
    let error = pools.right().acquire("acme").await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { phase: Phase::Connecting, .. }), "{error:?}");
    assert_nothing_lost(&pools, &two).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_either_driver_loses_no_permit() {
    for panics_at in [Call::Close, Call::Connect] {
        let two = TwoFakes::default();
        let pools = narrow(&two).await;
        let driver = if panics_at == Call::Close { &two.left } else { &two.right };
        driver.on(panics_at).next(Behavior::panics());
        let error = pools.right().acquire("acme").await.unwrap_err();
        assert!(matches!(error, AcquireError::Unavailable { kind: FailureKind::Other, source: None, .. }), "{error:?}");
        settle().await;
        assert_eq!((two.open(), pools.stats().open()), ((0, 0), 0));
        assert_nothing_lost(&pools, &two).await;
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_opened_for_a_tenant_that_is_drained_nor_after_a_close() {
    for closes in [false, true] {
        let two = TwoFakes::default();
        let pools = narrow(&two).await;
        let gate = two.left.hold_closes("acme");
        let waiting = tokio::spawn(pools.right().acquire("acme"));
        gate.reached(1).await;
        let ending = pools.clone();
        let end = tokio::spawn(async move {
            if closes {
                ending.close().await
            } else {
                assert!(ending.drain("acme", Duration::from_secs(5)).await.is_complete())
            }
        });
        settle().await;
        gate.release();
        let error = waiting.await.unwrap().unwrap_err();
        let as_expected =
            if closes { matches!(error, AcquireError::Closed) } else { matches!(error, AcquireError::Draining { .. }) };
        assert!(as_expected, "{error:?}");
        end.await.unwrap();
        assert_eq!((two.open(), two.calls(Call::Connect)), ((0, 0), (1, 0)));
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_opened_while_the_manager_closed_is_closed_and_not_handed_out() {
    let two = TwoFakes::default();
    let pools = narrow(&two).await;
    let gate = two.right.hold_connects("acme");
    let waiting = tokio::spawn(pools.right().acquire("acme"));
    gate.reached(1).await;
    let closing = pools.clone();
    let close = tokio::spawn(async move { closing.close().await });
    settle().await;
    gate.release();
    assert!(matches!(waiting.await.unwrap(), Err(AcquireError::Closed)));
    close.await.unwrap();
    assert_eq!((two.open(), two.calls(Call::Close)), ((0, 0), (1, 1)));
}

#[tokio::test(start_paused = true)]
async fn on_a_paused_server_nothing_is_exchanged_before_the_pause_ends() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 1).build().unwrap();
    let held = pools.left().acquire("acme").await.unwrap();
    let waiting = tokio::spawn(pools.right().acquire("acme"));
    settle().await;
    let gate = two.left.hold_closes("acme");
    drop(held);
    gate.reached(1).await;
    pools.pause("");
    gate.release();
    settle().await;
    assert_eq!((two.open(), two.calls(Call::Connect)), ((0, 0), (1, 0)));
    assert!(pools.unpause(ServerId::default()));
    drop(waiting.await.unwrap().unwrap());
    assert_nothing_lost(&pools, &two).await;
}

#[test]
fn a_runtime_that_goes_away_during_an_exchange_leaves_nothing_open() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    let two = TwoFakes::default();
    let own = runtime();
    let pools = own.block_on(narrow(&two));
    let gate = two.left.hold_closes("acme");
    let other = runtime();
    let waiting = other.spawn(pools.right().acquire("acme"));
    other.block_on(settle());
    own.block_on(gate.reached(1));
    drop(own);
    assert!(matches!(other.block_on(waiting).unwrap(), Err(AcquireError::Closed)), "one on another runtime is told");
    assert_eq!((two.open(), pools.stats().open()), ((0, 0), 0));
    gate.release();
    let after = runtime().block_on(pools.right().acquire("acme"));
    assert!(matches!(after, Err(AcquireError::Closed)), "{after:?}");
}

/// One server that lets in as many as the budget allows, tenants at their caps, and everybody on both sides.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_two_drivers_pass_no_cap() {
    const BUDGET: u32 = 6;
    const PER_TENANT: u32 = 2;
    let fake = FakeFactory::new();
    fake.set_server_limit(&ServerId::default(), Some(BUDGET.into()));
    let pools =
        manager(one_server(&fake), BUDGET, PER_TENANT).acquire_timeout(Duration::from_secs(60)).build().unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..24_usize {
        let pools = pools.clone();
        tasks.spawn(async move {
            for round in 0..60 {
                let tenant = format!("tenant-{}", (number + round * 5) % 7);
                if (number + round) % 2 == 0 {
                    let mut lease = pools.left().acquire(&tenant).await.unwrap();
                    let using = lease.use_for(&tenant);
                    tokio::task::yield_now().await;
                    drop(using);
                    if round % 7 == 0 {
                        lease.mark_dirty();
                    }
                } else {
                    let lease = pools.right().acquire(&tenant).await.unwrap();
                    let using = lease.use_for(&tenant);
                    tokio::task::yield_now().await;
                    drop(using);
                    if round % 11 == 0 {
                        lease.discard();
                    }
                }
                if round % 13 == 0 {
                    // Somebody who does not wait.
                    let options = AcquireOptions::new().timeout(Duration::from_micros(50));
                    drop(pools.left().acquire_with(&tenant, options).await);
                }
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert!(fake.open().most <= BUDGET.into(), "{:?}", fake.open());
    for number in 0..7 {
        let places = fake.open_of(format!("tenant-{number}"));
        assert!(places.most <= PER_TENANT.into(), "tenant-{number}: {places:?}");
    }
    assert_eq!(pools.stats().totals.server_full, 0);
    assert_closes_clean(&pools, &[&fake]).await;
}
