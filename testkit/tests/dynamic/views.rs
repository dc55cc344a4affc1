//! Two drivers for the same tenants: `EitherFactory` and its typed views. What happens where a connection of the other
//! kind has to make room is in `exchanges.rs`.

use std::error::Error;

use tenantry_core::{
    AcquireError, AcquireOptions, Created, Dropped, EitherError, EitherLease, EitherLeft, EitherPools, EitherRight,
    FailureKind, Health, LimitScope, PoolFactory, Provision, ServerId, TryAcquireError,
};
use tenantry_testkit::{Behavior, Call, FakeConnection, FakeError, FakeFactory};
use tokio::task::JoinSet;

use crate::support::{
    Both, OtherConnection, OtherError, OtherFactory, TwoFakes, assert_closes_clean, chain, manager, ms, one_server,
    settle,
};

#[tokio::test(start_paused = true)]
async fn each_view_leases_connections_of_its_own_driver() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    let mut left = pools.left().acquire("acme").await.unwrap();
    let mut right = pools.right().acquire("acme").await.unwrap();
    let _: &mut FakeConnection = &mut left;
    let _: &mut OtherConnection = &mut right;
    left.query().await.unwrap();
    assert_eq!((left.tenant().as_str(), right.tenant().as_str()), ("acme", "acme"));
    assert_eq!((two.open(), two.calls(Call::Connect)), ((1, 1), (1, 1)), "both at once, and none opened in vain");
    assert_eq!(pools.tenant_stats("acme").unwrap().in_use, 2, "and both the tenant's");
    drop((left, right));
    assert_closes_clean(&pools, &[&two.left, &two.right]).await;
}

#[tokio::test(start_paused = true)]
async fn a_cold_view_opens_its_own_kind_at_once() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 8, 8).build().unwrap();
    for number in 0..4 {
        drop(pools.right().acquire(format!("tenant-{number}")).await.unwrap());
    }
    assert_eq!(two.calls(Call::Connect), (0, 4));
    let gate = (two.left.on(Call::Connect).hold(), two.right.on(Call::Connect).hold());
    let (left, right) = (pools.left(), pools.right());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { drop(left.acquire("acme").await.unwrap()) });
    tasks.spawn(async move { drop(right.acquire("acme").await.unwrap()) });
    gate.0.reached(1).await;
    gate.1.reached(1).await;
    drop(gate);
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
}

/// The half of a request that uses the one driver, and then the half that uses the other.
async fn one_request(pools: &tenantry_core::TenantPools<Both>, tenant: &str) {
    drop(pools.left().acquire(tenant).await.unwrap().use_for(tenant));
    drop(pools.right().acquire(tenant).await.unwrap().use_for(tenant));
}

#[tokio::test(start_paused = true)]
async fn a_tenant_used_through_both_views_keeps_one_of_each_warm() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    for _ in 0..10 {
        one_request(&pools, "acme").await;
    }
    assert_eq!((two.calls(Call::Connect), two.calls(Call::Close)), ((1, 1), (0, 0)));
    assert_closes_clean(&pools, &[&two.left, &two.right]).await;
}

#[tokio::test(start_paused = true)]
async fn that_holds_for_one_that_is_used_seldom_as_well() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 4).validate_after_idle(ms(500)).build().unwrap();
    for _ in 0..10 {
        one_request(&pools, "acme").await;
        tokio::time::sleep(ms(2_000)).await;
    }
    assert_eq!((two.calls(Call::Connect), two.calls(Call::Close)), ((1, 1), (0, 0)));
    let (left, right) = two.calls(Call::Recycle);
    assert!(left >= 9 && right >= 9, "each is validated before it is handed out: {left}, {right}");
}

#[tokio::test(start_paused = true)]
async fn that_holds_when_other_tenants_fill_the_budget() {
    let fake = FakeFactory::new();
    let pools = manager(one_server(&fake), 6, 3).build().unwrap();
    for number in 0..6 {
        drop(pools.left().acquire(format!("tenant-{number}")).await.unwrap());
    }
    assert_eq!(pools.stats().idle, 6);
    for _ in 0..10 {
        one_request(&pools, "acme").await;
    }
    assert_eq!(fake.calls_of(Call::Connect, "acme").ended, 2);
    assert_eq!((fake.open().now, fake.open().most), (6, 6), "in the place of two others");
    assert_closes_clean(&pools, &[&fake]).await;
}

#[tokio::test(start_paused = true)]
async fn what_the_own_driver_says_of_a_connection_decides() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    let (mut left, right) = (pools.left().acquire("acme").await.unwrap(), pools.right().acquire("acme").await.unwrap());
    left.mark_dirty();
    right.set_health(Health::Dirty);
    drop((left, right));
    settle().await;
    assert_eq!(two.calls(Call::Recycle), (1, 1));
    let (left, right) = (pools.left().acquire("acme").await.unwrap(), pools.right().acquire("acme").await.unwrap());
    left.discard();
    right.set_health(Health::Broken);
    drop(right);
    settle().await;
    assert_eq!((two.calls(Call::Close), two.open()), ((1, 1), (0, 0)));
    assert_closes_clean(&pools, &[&two.left, &two.right]).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_says_which_driver_and_keeps_its_own() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    two.right.on(Call::Connect).next(Behavior::fails(FailureKind::Auth));
    let error = pools.right().acquire("acme").await.unwrap_err();
    let AcquireError::Connect { kind: FailureKind::Auth, source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(**source, EitherError::Right(OtherError { .. })), "{source:?}");
    let either = error.source().unwrap().downcast_ref::<EitherError<FakeError, OtherError>>().unwrap();
    assert!(either.source().unwrap().is::<OtherError>());
    let texts = chain(&error);
    assert_eq!((texts.len(), texts[1].as_str()), (3, "the right driver failed"));
    for (at, text) in texts.iter().enumerate() {
        assert!(texts[..at].iter().all(|before| !before.contains(text.as_str())), "repeated: {texts:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_tenants_circuit_is_one() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    drop(pools.left().acquire("acme").await.unwrap());
    two.right.on(Call::Connect).always(Behavior::fails(FailureKind::Auth));
    assert!(pools.right().acquire("acme").await.is_err());
    let idle = pools.left().acquire("acme").await.expect("what is idle is handed out");
    let error = pools.left().acquire("acme").await.unwrap_err();
    assert!(matches!(error, AcquireError::Unavailable { kind: FailureKind::Auth, .. }), "{error:?}");
    drop(idle);
}

#[tokio::test(start_paused = true)]
async fn try_acquire_takes_an_idle_one_of_its_own_kind_or_none() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    let (left, right) = (pools.left(), pools.right());
    drop(left.acquire("acme").await.unwrap());
    assert_eq!(right.try_acquire("acme").unwrap_err(), TryAcquireError::NotIdle);
    drop(right.acquire("acme").await.unwrap());
    let held = left.try_acquire("acme").expect("behind a newer one of the other kind");
    assert_eq!(left.try_acquire("acme").unwrap_err(), TryAcquireError::NotIdle);
    assert_eq!(pools.stats().idle, 1, "the other kind went back");
    drop((held, right.try_acquire("acme").unwrap()));
    assert_closes_clean(&pools, &[&two.left, &two.right]).await;
}

#[tokio::test(start_paused = true)]
async fn through_no_view_the_connection_is_of_whichever_kind_is_there() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    let mut lease = pools.acquire("cold").await.unwrap();
    assert!(lease.left_mut().is_some() && lease.right().is_none() && lease.right_mut().is_none());
    drop((lease, pools.right().acquire("acme").await.unwrap()));
    let lease = pools.acquire("acme").await.unwrap();
    assert!(lease.right().is_some() && lease.left().is_none());
    assert_eq!(format!("{:?}", *lease), "EitherConnection(Some(Right))");
}

#[tokio::test(start_paused = true)]
async fn operators_reach_both_kinds() {
    let two = TwoFakes::default();
    two.left.place("acme", ServerId::from("east"));
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    one_request(&pools, "acme").await;
    let stats = pools.tenant_stats("acme").unwrap();
    assert_eq!((stats.idle, stats.server), (2, ServerId::from("east")), "the left driver names the server");
    assert_eq!(pools.evict("acme"), 2);
    settle().await;
    assert_eq!(two.calls(Call::Close), (1, 1));
    one_request(&pools, "acme").await;
    assert!(pools.drain("acme", ms(100)).await.is_complete());
    assert_eq!(two.open(), (0, 0));
    assert!(matches!(pools.right().acquire("acme").await, Err(AcquireError::Draining { .. })));
}

#[tokio::test(start_paused = true)]
async fn the_left_driver_makes_and_drops_databases() {
    let two = TwoFakes::default();
    two.left.set_databases::<&str>([]);
    let pools = manager(two.factory(), 4, 4).build().unwrap();
    assert_eq!(pools.create("acme").await.unwrap(), Created::New);
    one_request(&pools, "acme").await;
    assert_eq!(pools.drop_database("acme").await.unwrap(), Dropped::Gone);
    assert_eq!((two.open(), two.calls(Call::DropDatabase)), ((0, 0), (1, 0)), "both kinds were closed before");
}

#[tokio::test]
async fn the_default_cap_is_the_lower_of_what_the_drivers_find_sensible() {
    let two = TwoFakes::default();
    assert_eq!(two.factory().max_per_tenant(), None);
    two.right.set_max_per_tenant(Some(3));
    assert_eq!(two.factory().max_per_tenant(), Some(3));
    two.left.set_max_per_tenant(Some(2));
    assert_eq!(two.factory().max_per_tenant(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_limit_as_with_one_driver() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 4, 2).build().unwrap();
    let held = (pools.left().acquire("acme").await.unwrap(), pools.right().acquire("acme").await.unwrap());
    let options = AcquireOptions::new().timeout(ms(30));
    let error = pools.left().acquire_with("acme", options).await.unwrap_err();
    let AcquireError::Limit(limit) = &error else { panic!("{error:?}") };
    assert_eq!((limit.scope, limit.limit, limit.open), (LimitScope::Tenant, 2, 2));
    assert!(matches!(pools.right().acquire("").await, Err(AcquireError::InvalidTenant(_))));
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_view_does_not_keep_the_manager_open() {
    let two = TwoFakes::default();
    let pools = manager(two.factory(), 1, 1).build().unwrap();
    let held = pools.left().acquire("acme").await.unwrap();
    let waiting = tokio::spawn(pools.right().acquire("acme"));
    settle().await;
    drop(pools);
    assert!(matches!(waiting.await.unwrap(), Err(AcquireError::Closed)));
    drop(held);
    settle().await;
    assert_eq!(two.open(), (0, 0));
}

/// What services do with the types: name them, put them into tasks, and be generic over the drivers.
#[test]
fn the_types_can_be_named_cloned_and_shown() {
    struct Service {
        _old: EitherPools<EitherLeft, FakeFactory, OtherFactory>,
        _new: EitherPools<EitherRight, FakeFactory, OtherFactory>,
    }
    fn is_ready<T: Clone + Send + Sync + std::fmt::Debug>() {}
    fn is_send<T: Send + std::fmt::Debug>() {}
    fn is_factory<F: PoolFactory + Provision + std::fmt::Debug>() {}
    is_ready::<EitherPools<EitherLeft, FakeFactory, OtherFactory>>();
    is_send::<EitherLease<EitherRight, FakeFactory, OtherFactory>>();
    is_send::<Service>();
    is_factory::<Both>();
    impl std::fmt::Debug for Service {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Service")
        }
    }
}
