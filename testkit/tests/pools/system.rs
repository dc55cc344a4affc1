//! The service's own database beside its tenants': inside the budget, and served whatever the tenants do.

use tenantry_core::{TenantLimits, TenantPools};
use tenantry_testkit::FakeFactory;
use tokio::time::Instant;

use crate::support::{assert_closes_clean, hold, hold_many, limit, manager, ms, within};

/// What `TenantPools` makes of a budget: the system database's maximum, found by asking for more.
async fn own(budget: u32) -> u64 {
    let pools = manager(&FakeFactory::new(), budget).system_database("system").build().unwrap();
    let stats = pools.tenant_stats("system").expect("known from the start");
    assert_eq!(stats.totals.connects, 0, "nothing is opened for it before it asks");
    stats.max
}

#[tokio::test(start_paused = true)]
async fn the_system_database_has_a_tenth_of_the_budget_at_least_five_at_most_twenty_and_never_more_than_half() {
    for (budget, expected) in [
        (20, 5),
        (50, 5),
        (59, 5),
        (60, 6),
        (100, 10),
        (199, 19),
        (200, 20),
        (1_000, 20),
        (10_000, 20),
        (9, 4),
        (2, 1),
        (1, 1),
    ] {
        assert_eq!(own(budget).await, expected, "of {budget}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_tenants_have_filled_still_serves_the_system_database_at_once_and_counts_it() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 30).max_connections_per_tenant(3).system_database("system").build().unwrap();
    let tenants = hold_many(&pools, "tenant", 25).await;
    let refused = limit(pools.acquire_with("late", within(ms(50))).await);
    assert_eq!((refused.limit, refused.open), (30, 25), "five are the system database's");

    let start = Instant::now();
    let system = hold(&pools, ["system"; 5]).await;
    assert!(start.elapsed() < ms(5), "it waited for nobody");
    assert_eq!((fake.open().now, pools.stats().open()), (30, 30), "inside the budget");
    let sixth = limit(pools.acquire_with("system", within(ms(50))).await);
    assert_eq!((sixth.limit, sixth.open), (5, 5), "and no more than that");

    drop((tenants, system));
    assert!(fake.open().most <= 30);
    assert_closes_clean(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn tenants_never_evict_what_the_system_database_left_idle() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).max_connections_per_tenant(3).system_database("system").build().unwrap();
    drop(hold(&pools, ["system"; 5]).await);
    // More tenants than places, one after the other and all at once; theirs are closed, its are not.
    for round in 0..5 {
        drop(hold_many(&pools, &format!("round-{round}"), 15).await);
    }
    let busy = hold_many(&pools, "busy", 15).await;
    assert!(pools.stats().totals.evictions >= 60);
    let system = pools.tenant_stats("system").unwrap().totals;
    assert_eq!((fake.open_of("system").now, system.connects, system.evictions), (5, 5, 0));
    let start = Instant::now();
    drop(hold(&pools, ["system"; 5]).await);
    assert!(start.elapsed() < ms(1), "warm");
    drop(busy);
    assert_closes_clean(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn limits_of_its_own_win_and_a_bad_name_is_a_problem() {
    let fake = FakeFactory::new();
    let limits = TenantLimits::new().max(7).reserve(2);
    let pools = manager(&fake, 100).tenant("system", limits).system_database("system").build().unwrap();
    assert_eq!(pools.tenant_stats("system").unwrap().max, 7);
    let later = manager(&fake, 100).system_database("system").tenant("system", limits).build().unwrap();
    assert_eq!(later.tenant_stats("system").unwrap().max, 7, "whichever comes first");
    let error = TenantPools::builder(fake.clone()).max_connections(100).system_database("").build().unwrap_err();
    assert_eq!(error.problems.len(), 1, "{error}");
    assert_eq!(error.problems[0].setting, "tenant");
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_cap_is_below_the_reserve_is_named_before_anything_is_opened() {
    let fake = FakeFactory::new();
    let builder = manager(&fake, 100).max_connections_on(tenantry_core::ServerId::default(), 9);
    let error = builder.system_database("system").check().unwrap_err();
    assert!(error.problems.iter().any(|problem| problem.setting == "tenant(..).reserve"), "{error}");
}
