//! Between tenants: shares, reserves, and the number of connects at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use tenantry_core::{ServerId, TenantLimits};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{
    assert_closes_clean, assert_nothing_lost, hold, hold_many, limit, manager, ms, secs, settle, soon, within,
};

/// One tenant with 64 tasks against 63 with one: a plain queue gives the noisy one half of everything.
#[tokio::test(start_paused = true)]
async fn a_greedy_tenant_gets_its_share_and_no_more() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(ms(3)));
    fake.on(Call::Close).always(Behavior::after(ms(1)));
    let pools = manager(&fake, 8).acquire_timeout(secs(600)).build().unwrap();
    let served = Arc::new(Mutex::new(HashMap::<String, u32>::new()));
    let mut tasks = JoinSet::new();
    let names = (0..64).map(|_| "noisy".to_string()).chain((0..63).map(|number| format!("quiet-{number}")));
    for name in names {
        let (pools, served) = (pools.clone(), served.clone());
        tasks.spawn(async move {
            loop {
                let lease = pools.acquire(&name).await.unwrap();
                sleep(ms(10)).await;
                drop(lease);
                *served.lock().unwrap().entry(name.clone()).or_default() += 1;
            }
        });
    }
    sleep(secs(8)).await;
    tasks.shutdown().await;
    let served = std::mem::take(&mut *served.lock().unwrap());
    let all: u32 = served.values().sum();
    let noisy = served["noisy"];
    assert!(noisy * 100 <= all * 10, "{noisy} of {all}");
    let least = (0..63).map(|number| served.get(&format!("quiet-{number}")).copied().unwrap_or(0)).min().unwrap();
    assert!(least * 64 * 2 >= all - noisy, "the least served got {least} of {all}");
    assert!(fake.open().most <= 8);
    assert_nothing_lost(&pools, &fake).await;
}

/// Ticks are far apart here: while somebody waits, each release looks at the clock.
#[tokio::test(start_paused = true)]
async fn how_long_others_are_passed_over_is_measured_by_the_clock_and_not_by_ticks() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).handover_bound(ms(20)).validate_after_idle(secs(60)).build().unwrap();
    let held = pools.acquire("greedy").await.unwrap();
    let (same, other) = (tokio::spawn(pools.acquire("greedy")), tokio::spawn(pools.acquire("other")));
    settle().await;
    sleep(ms(30)).await;
    drop(held);
    drop(soon(other).await.unwrap().unwrap());
    drop(same.await.unwrap().unwrap());
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_reserve_can_be_had_at_once_however_full_it_is_and_nobody_else_gets_it() {
    let fake = FakeFactory::new();
    let limits = TenantLimits::new().max(4).reserve(2);
    let pools = manager(&fake, 6).tenant("system", limits).build().unwrap();
    let others = hold_many(&pools, "other", 4).await;
    let error = limit(pools.acquire_with("late", within(ms(50))).await);
    assert_eq!((error.limit, error.open), (6, 4), "the rest is reserved");
    let start = Instant::now();
    let system = hold(&pools, ["system", "system"]).await;
    assert!(start.elapsed() < ms(5));
    assert!(pools.acquire_with("system", within(ms(50))).await.unwrap_err().is_limit());
    drop(system);
    let error = limit(pools.acquire_with("late", within(ms(50))).await);
    assert_eq!(error.open, 6, "and its idle ones are nobody's victims");
    drop(others);
    assert_closes_clean(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn no_more_connects_run_at_once_than_a_server_is_to_bear_and_one_tenant_uses_half_of_them() {
    let (fake, east) = (FakeFactory::new(), ServerId::from("east"));
    fake.place_with(|tenant| ServerId::from(if tenant.as_str().starts_with("east") { "east" } else { "west" }));
    fake.on(Call::Connect).always(Behavior::after(ms(5)));
    let pools = manager(&fake, 40).max_connections_per_tenant(20).max_connecting(4).build().unwrap();
    let acquires: Vec<_> = (0..20).map(|_| tokio::spawn(pools.acquire("east-greedy"))).collect();
    settle().await;
    assert_eq!(fake.calls_on(Call::Connect, &east).running(), 2);
    let more: Vec<_> = (0..10).map(|number| tokio::spawn(pools.acquire(format!("east-{number}")))).collect();
    let west: Vec<_> = (0..10).map(|number| tokio::spawn(pools.acquire(format!("west-{number}")))).collect();
    let mut leases = Vec::new();
    for acquire in acquires.into_iter().chain(more).chain(west) {
        leases.push(acquire.await.unwrap().unwrap());
    }
    assert_eq!(fake.calls_of(Call::Connect, "east-greedy").most_at_once, 2);
    assert_eq!(fake.calls_on(Call::Connect, &east).most_at_once, 4);
    assert_eq!(fake.calls(Call::Connect).most_at_once, 8, "each server for itself");
    drop(leases);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_servers_cap_and_a_tenants_own_cap_hold_under_load() {
    let (fake, east) = (FakeFactory::new(), ServerId::from("east"));
    fake.place_with(|tenant| ServerId::from(if tenant.as_str().starts_with("east") { "east" } else { "west" }));
    fake.on(Call::Connect).always(Behavior::after(ms(3)));
    fake.on(Call::Close).always(Behavior::after(ms(2)));
    let pools = manager(&fake, 12)
        .max_connections_on("east", 5)
        .max_connections_per_tenant(4)
        .tenant("east-0", TenantLimits::new().max(1))
        .acquire_timeout(secs(600))
        .build()
        .unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..60_u64 {
        let pools = pools.clone();
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(task);
            for _ in 0..30 {
                let side = if random.bool() { "east" } else { "west" };
                let tenant = format!("{side}-{}", random.u32(..6));
                let lease = pools.acquire(&tenant).await.unwrap();
                let _use = lease.use_for(&tenant);
                sleep(ms(random.u64(..8))).await;
            }
        });
    }
    tasks.join_all().await;
    assert!(fake.open().most <= 12 && fake.open_on(&east).most <= 5 && fake.open_of("east-0").most <= 1);
    assert!((1..6).all(|number| fake.open_of(format!("east-{number}")).most <= 4));
    assert_nothing_lost(&pools, &fake).await;
}
