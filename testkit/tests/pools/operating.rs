//! What operators do beside draining: remove, warm, pause, change limits.

use std::sync::Mutex;
use std::time::Duration;

use tenantry_core::{AcquireError, Created, LimitScope, Limits, ServerId, TenantLimits, TenantPools};
use tenantry_testkit::{Behavior, Call, FakeFactory};

const SECOND: Duration = Duration::from_secs(1);

fn manager(fake: &FakeFactory, budget: u32) -> TenantPools<FakeFactory> {
    let builder = TenantPools::builder(fake.clone()).max_connections(budget).max_connecting(budget);
    builder.acquire_timeout(SECOND).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_removed_tenant_is_gone_for_its_callers_until_it_is_created_anew() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3);
    let lease = pools.acquire("acme").await.unwrap();
    let removing = tokio::spawn({
        let pools = pools.clone();
        async move { pools.remove("acme", SECOND).await }
    });
    tokio::task::yield_now().await;
    let refused = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(refused, AcquireError::Removed { .. }), "{refused}");
    drop(lease);
    assert!(removing.await.unwrap().is_complete());
    assert_eq!(fake.open().now, 0);
    let connects = fake.calls(Call::Connect).started;
    assert!(pools.acquire("acme").await.is_err());
    assert!(!pools.resume("acme"), "only a drain is resumed");
    assert_eq!(fake.calls(Call::Connect).started, connects, "nobody who is late brings it back");
    assert_eq!(pools.create("acme").await.unwrap(), Created::AlreadyThere);
    drop(pools.acquire("acme").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_was_never_seen_can_be_removed() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3);
    assert!(pools.remove("late", SECOND).await.is_complete());
    assert!(pools.remove("late", SECOND).await.is_complete(), "twice is once");
    assert!(matches!(pools.acquire("late").await, Err(AcquireError::Removed { .. })));
    assert_eq!(fake.calls(Call::Connect).started, 0);
}

#[tokio::test(start_paused = true)]
async fn a_tombstone_lasts_for_its_time() {
    let fake = FakeFactory::new();
    let builder = TenantPools::builder(fake.clone()).max_connections(3).tombstone_ttl(SECOND * 10);
    let pools = builder.build().unwrap();
    assert!(pools.remove("acme", SECOND).await.is_complete());
    tokio::time::sleep(SECOND * 9).await;
    assert!(matches!(pools.acquire("acme").await, Err(AcquireError::Removed { .. })));
    tokio::time::sleep(SECOND * 2).await;
    drop(pools.acquire("acme").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_warm_tenant_has_as_many_idle_connections_as_asked_for() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4);
    pools.warm("acme", 3).await.unwrap();
    assert_eq!(pools.tenant_stats("acme").unwrap().idle, 3);
    pools.warm("acme", 2).await.unwrap();
    assert_eq!(fake.calls(Call::Connect).started, 3, "what is there is enough");
    let error = pools.warm("acme", 9).await.unwrap_err();
    assert!(error.is_limit(), "{error}");
    assert_eq!(pools.stats().in_use, 0, "what it took it gave back");
}

#[tokio::test(start_paused = true)]
async fn a_tenant_is_warm_with_what_is_in_use_and_two_who_warm_it_wait_for_no_other() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4);
    let lease = pools.acquire("acme").await.unwrap();
    pools.warm("acme", 4).await.unwrap();
    assert_eq!(pools.tenant_stats("acme").unwrap().idle, 3);
    pools.evict("acme");
    fake.on(Call::Connect).always(Behavior::after(SECOND / 10));
    let (one, other) = tokio::join!(pools.warm("acme", 4), pools.warm("acme", 4));
    assert!(one.is_ok() && other.is_ok(), "{one:?}, {other:?}");
    assert_eq!(pools.tenant_stats("acme").unwrap().idle, 3);
    assert_eq!(pools.stats().totals.refusals.iter().sum::<u64>(), 0);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_paused_server_keeps_nothing_open_and_its_callers_wait() {
    let fake = FakeFactory::new();
    fake.place("east", ServerId::from("two"));
    let pools = manager(&fake, 4);
    drop(pools.acquire("acme").await.unwrap());
    let lease = pools.acquire("east").await.unwrap();
    pools.pause("");
    pools.pause("");
    fake.ended(Call::Close, 1).await;
    drop(lease);
    drop(pools.acquire("east").await.unwrap());
    let waiting = tokio::spawn(pools.acquire("acme"));
    tokio::task::yield_now().await;
    assert_eq!(pools.stats().waiting, 1);
    assert!(pools.unpause(""));
    assert!(!pools.unpause(""), "once is enough");
    let servers = pools.stats().servers.len();
    assert!(!pools.unpause("nowhere"));
    assert_eq!(pools.stats().servers.len(), servers, "nobody lives there");
    drop(waiting.await.unwrap().unwrap());
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_a_paused_server_too_long_is_told_so() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4);
    pools.pause("");
    match pools.acquire("acme").await.unwrap_err() {
        AcquireError::Limit(limit) => assert_eq!((limit.scope, limit.limit), (LimitScope::Server, 0)),
        other => panic!("{other}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_raised_limit_serves_those_who_wait_and_a_lowered_one_takes_no_lease_away() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1);
    let first = pools.acquire("a").await.unwrap();
    let waiting = tokio::spawn(pools.acquire("b"));
    tokio::task::yield_now().await;
    pools.set_limits(Limits::new().max_connections(2)).unwrap();
    let second = waiting.await.unwrap().unwrap();
    assert_eq!(fake.open().most, 2);

    pools.set_limits(Limits::new().max_connections(1)).unwrap();
    assert_eq!(fake.open().now, 2, "leases stay");
    drop(second);
    fake.ended(Call::Close, 1).await;
    assert_eq!((fake.open().now, pools.stats().idle), (1, 0), "one closed as it came back");
    drop(first);
    assert_eq!(pools.stats().idle, 1, "the other is within the limit");
    fake.reset_high_water();
    drop(pools.acquire("c").await.unwrap());
    assert_eq!(fake.open().most, 1);
}

#[tokio::test(start_paused = true)]
async fn idle_connections_above_a_lowered_limit_close_the_least_recently_used_first() {
    let fake = FakeFactory::new();
    fake.on(Call::Close).always(Behavior::after(SECOND));
    let pools = manager(&fake, 3);
    for tenant in ["a", "b", "c"] {
        drop(pools.acquire(tenant).await.unwrap());
    }
    pools.set_limits(Limits::new().max_connections(1).max_connections_per_tenant(1)).unwrap();
    let idle = |tenant: &str| pools.tenant_stats(tenant).map_or(0, |stats| stats.idle);
    assert_eq!([idle("a"), idle("b"), idle("c")], [0, 0, 1]);
}

#[tokio::test(start_paused = true)]
async fn bad_limits_change_nothing_and_are_all_named() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3);
    let bad = Limits::new()
        .max_connections(0)
        .tenant("system", TenantLimits::new().reserve(9))
        .tenant("", TenantLimits::new());
    let error = pools.set_limits(bad).unwrap_err();
    let named: Vec<&str> = error.problems.iter().map(|problem| problem.setting.as_str()).collect();
    for setting in ["max_connections", "tenant(\"system\").reserve", "tenant"] {
        assert!(named.contains(&setting), "{setting}: {error}");
    }
    assert_eq!(pools.stats().max, 3);
}

/// What is known of tenants has room for a budget and all who wait, and grows with the budget.
#[tokio::test(start_paused = true)]
async fn a_budget_can_be_raised_beside_a_line_of_any_length() {
    let builder = TenantPools::builder(FakeFactory::new()).max_connections(3).max_waiters(1_000_000);
    let pools = builder.build().unwrap();
    pools.set_limits(Limits::new().max_connections(4)).unwrap();
    assert_eq!(pools.stats().max, 4);
}

#[tokio::test(start_paused = true)]
async fn a_reserve_that_is_set_later_is_kept_for_a_tenant_that_nobody_has_asked_for() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2);
    pools.set_limits(Limits::new().tenant("system", TenantLimits::new().reserve(1))).unwrap();
    let _users = pools.acquire("a").await.unwrap();
    let refused = pools.acquire("b").await.unwrap_err();
    assert!(refused.is_limit(), "{refused}");
    drop(pools.acquire("system").await.unwrap());
}

/// The factory is asked in the middle of a change, so that another one can come in between.
#[tokio::test]
async fn of_two_changes_of_limits_at_once_neither_undoes_the_other() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 8);
    let other = Mutex::new(Some(pools.weak()));
    fake.place_with(move |_| {
        let other = other.lock().unwrap().take();
        if let Some(pools) = other {
            pools.set_limits(Limits::new().max_connections(6)).unwrap();
        }
        ServerId::default()
    });
    pools.set_limits(Limits::new().tenant("acme", TenantLimits::new().max(2))).unwrap();
    assert_eq!((pools.stats().max, pools.tenant_stats("acme").unwrap().max), (6, 2));
}
