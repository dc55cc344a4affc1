//! Waiting: in what order, for how long, and what the one is told who waited in vain.

use std::sync::{Arc, Mutex};

use tenantry_core::{AcquireError, FailureKind, LimitError, LimitScope, Phase, ServerId};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::support::{
    assert_about, assert_nothing_lost, hold, hold_many, limit, manager, ms, poll_once, secs, settle, soon, warm, within,
};

fn holders(error: &LimitError) -> Vec<(&str, u32)> {
    error.holders.iter().map(|holder| (holder.tenant.as_str(), holder.connections)).collect()
}

#[tokio::test(start_paused = true)]
async fn within_a_tenant_who_asks_first_is_served_first() {
    for cap in [1, 3] {
        let fake = FakeFactory::new();
        fake.on(Call::Connect).always(Behavior::after(ms(5)));
        let pools = manager(&fake, 10).max_connections_per_tenant(cap).acquire_timeout(secs(60)).build().unwrap();
        let served = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        for number in 0..20 {
            let (acquire, served) = (pools.acquire("acme"), served.clone());
            tasks.spawn(async move {
                let _lease = acquire.await.unwrap();
                served.lock().unwrap().push(number);
                tokio::time::sleep(ms(10)).await;
            });
            settle().await;
        }
        tasks.join_all().await;
        assert_eq!(*served.lock().unwrap(), (0..20).collect::<Vec<_>>(), "cap {cap}");
        assert_nothing_lost(&pools, &fake).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_comer_does_not_overtake_those_who_wait_though_a_connection_is_there() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).max_connections_per_tenant(1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let waiting = tokio::spawn(pools.acquire("acme"));
    settle().await;
    drop(held);
    // Granted, not collected: the late comer sees no idle connection.
    assert!(pools.try_acquire("acme").is_err());
    drop(waiting.await.unwrap().unwrap());
    assert!(pools.try_acquire("acme").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_line_names_the_tenants_own_cap_where_that_was_short() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 10).max_connections_per_tenant(2).build().unwrap();
    let held = hold(&pools, ["acme", "acme", "other", "other"]).await;
    let start = Instant::now();
    let error = limit(pools.acquire_with("acme", within(ms(300))).await);
    assert_about(start.elapsed(), ms(300));
    assert_about(error.waited, ms(300));
    assert_eq!((error.scope, error.limit, error.open, error.waiting), (LimitScope::Tenant, 2, 2, 1));
    assert_eq!((error.tenant.as_str(), error.held_by_caller), ("acme", 0));
    assert_eq!(holders(&error), [("acme", 2)]);
    assert_eq!(error.retry_after, Some(secs(5)), "nothing came back yet: acquire_timeout");
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_line_names_the_servers_cap_where_that_was_short() {
    let fake = FakeFactory::new();
    fake.place_with(|tenant| ServerId::from(tenant.as_str().split('-').next().unwrap_or_default()));
    let pools = manager(&fake, 10).max_connections_on("east", 3).build().unwrap();
    let held = hold(&pools, ["east-a", "east-a", "east-b", "west-a"]).await;
    let error = limit(pools.acquire_with("east-c", within(ms(300))).await);
    assert_eq!((error.scope, error.limit, error.open, error.waiting), (LimitScope::Server, 3, 3, 1));
    assert!(error.to_string().contains("the server of tenant \"east-c\" is at its limit of 3"), "{error}");
    drop(pools.acquire_with("west-c", within(ms(1))).await.unwrap());
    assert!(fake.open_on(&ServerId::from("east")).most <= 3);
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_line_names_the_budget_where_that_was_short_and_its_largest_holders() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 10).build().unwrap();
    let held = hold(&pools, ["a", "b", "b", "c", "c", "c", "d", "e", "f", "c"]).await;
    let waits = tokio::spawn(pools.acquire("g"));
    settle().await;
    let error = limit(pools.acquire_with("h", within(ms(300))).await);
    assert_eq!((error.scope, error.limit, error.open, error.waiting), (LimitScope::Total, 10, 10, 2));
    assert_eq!(holders(&error)[..2], [("c", 4), ("b", 2)]);
    assert_eq!(error.holders.len(), 5);
    drop(held);
    drop(waits.await.unwrap().unwrap());
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn the_hint_for_a_retry_follows_the_pace_at_which_connections_come_back() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let keep = tokio::spawn({
        let pools = pools.clone();
        async move {
            let mut tasks = JoinSet::new();
            for slot in 0..4_u64 {
                let pools = pools.clone();
                tasks.spawn(async move {
                    tokio::time::sleep(ms(50 * slot)).await;
                    loop {
                        let lease = pools.acquire(format!("busy-{slot}")).await.unwrap();
                        tokio::time::sleep(ms(200)).await;
                        drop(lease);
                    }
                });
            }
            tasks.join_all().await;
        }
    });
    tokio::time::sleep(secs(10)).await;
    // One comes back every 50 ms.
    let full = hold_many(&pools, "other", 4).await;
    keep.abort();
    let error = limit(pools.acquire_with("late", within(ms(1))).await);
    let retry_after = error.retry_after.unwrap();
    assert!(retry_after >= ms(10) && retry_after <= ms(250), "{retry_after:?}");
    drop(full);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_while_connecting_says_so_and_the_open_goes_on_and_serves_the_next() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let gate = fake.hold_connects("acme");
    let start = Instant::now();
    match pools.acquire_with("acme", within(ms(100))).await.unwrap_err() {
        AcquireError::Timeout { tenant, phase, waited, .. } => {
            assert_eq!((tenant.as_str(), phase), ("acme", Phase::Connecting));
            assert_about(waited, ms(100));
        }
        other => panic!("{other}"),
    }
    assert_about(start.elapsed(), ms(100));
    assert_eq!(fake.open().now, 1);
    gate.release();
    let lease = pools.acquire("acme").await.unwrap();
    assert_eq!(fake.calls(Call::Connect).started, 1);
    drop(lease);
    assert_eq!(pools.stats().totals.timeouts, 1);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_deadline_while_a_connection_is_validated_says_so() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).validate_after_idle(ms(0)).build().unwrap();
    warm(&pools, "acme").await;
    let gate = fake.hold_recycles("acme");
    match pools.acquire_with("acme", within(ms(100))).await.unwrap_err() {
        AcquireError::Timeout { phase: Phase::Recycling, waited, .. } => assert_about(waited, ms(100)),
        other => panic!("{other}"),
    }
    gate.release();
    drop(pools.acquire("acme").await.unwrap());
    assert_eq!(fake.calls(Call::Connect).started, 1);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_line_refuses_at_once_the_tenants_and_the_total_one() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).max_waiters(5).max_waiters_per_tenant(3).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let mut waiting = JoinSet::new();
    let mut wait = |tenant: &str| drop(waiting.spawn(pools.acquire(tenant)));
    (0..3).for_each(|_| wait("acme"));
    settle().await;
    let start = Instant::now();
    let error = limit(pools.acquire("acme").await);
    assert_eq!((error.scope, error.limit, error.waited), (LimitScope::Queue, 3, ms(0)));
    assert!(error.to_string().contains("no place in line"), "{error}");
    (0..2).for_each(|_| wait("other"));
    settle().await;
    let error = limit(pools.acquire("third").await);
    assert_eq!((error.scope, error.limit, error.waiting), (LimitScope::Queue, 5, 5));
    assert!(error.retry_after.is_some());
    assert!(start.elapsed() < ms(5));
    assert_eq!(pools.stats().totals.refused(LimitScope::Queue), 2);
    drop(held);
    while let Some(served) = waiting.join_next().await {
        drop(served.unwrap().unwrap());
    }
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waits_for_itself_is_told_how_many_it_holds() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 10).max_connections_per_tenant(2).build().unwrap();
    let nested = pools.clone();
    let error = tokio::spawn(async move {
        let _outer = hold(&nested, ["acme", "acme"]).await;
        limit(nested.acquire_with("acme", within(ms(100))).await)
    });
    let error = error.await.unwrap();
    assert_eq!((error.scope, error.held_by_caller), (LimitScope::Tenant, 2));
    assert!(error.to_string().contains("this task holds 2 already: pass the lease down"), "{error}");

    let held = tokio::spawn({
        let pools = pools.clone();
        async move { hold(&pools, ["acme", "acme"]).await }
    });
    let held = held.await.unwrap();
    let innocent = tokio::spawn(pools.acquire_with("acme", within(ms(100))));
    assert_eq!(limit(innocent.await.unwrap()).held_by_caller, 0, "others hold them");
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_timeout_of_zero_takes_what_is_there_or_is_refused_at_once() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(ms(5)));
    let pools = manager(&fake, 1).build().unwrap();
    let start = Instant::now();
    let error = pools.acquire_with("acme", within(ms(0))).await.unwrap_err();
    assert!(matches!(error, AcquireError::Timeout { phase: Phase::Connecting, .. }), "{error}");
    assert!(start.elapsed() <= ms(2));
    soon(fake.ended(Call::Connect, 1)).await;
    settle().await;
    let lease = pools.acquire_with("acme", within(ms(0))).await.unwrap();
    let error = limit(pools.acquire_with("other", within(ms(0))).await);
    assert_eq!(error.scope, LimitScope::Total);
    drop(lease);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn of_those_who_wait_for_a_failed_connect_one_gets_its_error_and_the_others_are_told_when() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).next(Behavior::fails(FailureKind::Auth).delayed(ms(5)));
    let pools = manager(&fake, 10).max_connecting(2).build().unwrap();
    let mut tasks = JoinSet::new();
    (0..5).for_each(|_| drop(tasks.spawn(pools.acquire("acme"))));
    let (mut failed, mut unavailable) = (0, 0);
    while let Some(refused) = tasks.join_next().await {
        match refused.unwrap().unwrap_err() {
            AcquireError::Connect { kind: FailureKind::Auth, source, .. } => {
                assert_eq!(source.kind, FailureKind::Auth);
                failed += 1;
            }
            AcquireError::Unavailable { kind: FailureKind::Auth, retry_after, source, .. } => {
                assert!(retry_after >= ms(1) && source.is_some());
                unavailable += 1;
            }
            other => panic!("{other}"),
        }
    }
    assert_eq!((failed, unavailable), (1, 4));
    assert_nothing_lost(&pools, &fake).await;
}

/// The server allows less than the budget: everybody keeps their place, and is served as permits come back.
#[tokio::test(start_paused = true)]
async fn a_server_that_says_full_costs_nobody_their_place() {
    let fake = FakeFactory::new();
    fake.set_server_limit(&ServerId::default(), Some(3));
    let pools = manager(&fake, 8).acquire_timeout(secs(120)).build().unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..8 {
        let acquire = pools.acquire(format!("tenant-{number}"));
        tasks.spawn(async move {
            let _lease = acquire.await.unwrap();
            tokio::time::sleep(ms(50)).await;
        });
    }
    assert_eq!(tasks.join_all().await.len(), 8);
    let stats = pools.stats();
    assert!(stats.totals.server_full > 0);
    assert!(stats.servers[0].effective_max < 8, "{stats:?}");
}

#[tokio::test(start_paused = true)]
async fn a_waiter_that_was_polled_by_one_task_is_woken_in_the_next() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    let mut moving = Box::pin(pools.acquire("acme"));
    assert!(poll_once(moving.as_mut()).is_pending());
    let there = tokio::spawn(moving);
    settle().await;
    drop(held);
    drop(soon(there).await.unwrap().unwrap());
    assert_nothing_lost(&pools, &fake).await;
}
