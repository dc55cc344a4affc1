//! Every setting at and beyond its bounds, alone and with every other one.

use std::time::Duration;

use tenantry_core::{Builder, ConfigError, ServerId, TenantLimits, TenantPools};
use tenantry_testkit::FakeFactory;

use crate::support::{manager, ms, secs};

const BUDGET: u32 = 20;
const DAY: Duration = secs(24 * 60 * 60);
const YEAR: Duration = secs(365 * 24 * 60 * 60);

type Change = fn(Builder<FakeFactory>) -> Builder<FakeFactory>;

/// One change to a builder with a budget of [`BUDGET`], and the setting that it makes bad.
const BAD: &[(&str, Change)] = &[
    ("max_connections", |b| b.max_connections(0)),
    ("max_connections", |b| b.max_connections(262_144)),
    ("max_connections_per_tenant", |b| b.max_connections_per_tenant(0)),
    ("max_connections_per_tenant", |b| b.max_connections_per_tenant(300_000)),
    ("max_connections_on(\"east\")", |b| b.max_connections_on("east", 0)),
    ("max_connections_on(\"east\")", |b| b.max_connections_on("east", 300_000)),
    ("max_waiters", |b| b.max_waiters(1_000_001).max_known_tenants(2_000_000)),
    ("max_waiters_per_tenant", |b| b.max_waiters_per_tenant(1_000_002)),
    ("max_connecting", |b| b.max_connecting(0)),
    ("max_connecting", |b| b.max_connecting(300_000)),
    ("acquire_timeout", |b| b.acquire_timeout(ms(0))),
    ("acquire_timeout", |b| b.acquire_timeout(DAY + ms(1))),
    ("connect_timeout", |b| b.connect_timeout(ms(0))),
    ("connect_timeout", |b| b.connect_timeout(DAY + ms(1))),
    ("idle_timeout", |b| b.idle_timeout(ms(0))),
    ("idle_timeout", |b| b.idle_timeout(YEAR + ms(1))),
    ("max_lifetime", |b| b.max_lifetime(ms(0))),
    ("max_lifetime", |b| b.max_lifetime(YEAR + ms(1))),
    ("close_timeout", |b| b.close_timeout(ms(0))),
    ("close_timeout", |b| b.close_timeout(DAY + ms(1))),
    ("recycle_timeout", |b| b.recycle_timeout(ms(0))),
    ("recycle_timeout", |b| b.recycle_timeout(DAY + ms(1))),
    ("validate_after_idle", |b| b.validate_after_idle(YEAR + ms(1))),
    ("handover_bound", |b| b.handover_bound(DAY + ms(1))),
    ("forget_after", |b| b.forget_after(ms(0))),
    ("forget_after", |b| b.forget_after(YEAR + ms(1))),
    ("max_known_tenants", |b| b.max_known_tenants(0)),
    ("tombstone_ttl", |b| b.tombstone_ttl(ms(0))),
    ("tombstone_ttl", |b| b.tombstone_ttl(YEAR + ms(1))),
    ("lease_warn_after", |b| b.lease_warn_after(ms(0))),
    ("lease_warn_after", |b| b.lease_warn_after(YEAR + ms(1))),
    ("tenant(\"system\").max", |b| b.tenant("system", TenantLimits::new().max(0))),
    ("tenant(\"system\").max", |b| b.tenant("system", TenantLimits::new().max(300_000))),
    ("tenant(\"system\").reserve", |b| b.tenant("system", TenantLimits::new().max(2).reserve(3))),
    ("tenant(\"system\").weight", |b| b.tenant("system", TenantLimits::new().weight(0))),
    ("tenant(\"system\").weight", |b| b.tenant("system", TenantLimits::new().weight(1_001))),
    ("tenant", |b| b.tenant("", TenantLimits::new())),
    ("tenant", |b| b.tenant("two\nlines", TenantLimits::new())),
];

fn good() -> Builder<FakeFactory> {
    TenantPools::builder(FakeFactory::new()).max_connections(BUDGET)
}

#[track_caller]
fn refused(builder: Builder<FakeFactory>) -> ConfigError {
    match builder.build() {
        Ok(_) => panic!("it was built"),
        Err(error) => error,
    }
}

fn names(error: &ConfigError) -> Vec<&str> {
    error.problems.iter().map(|problem| problem.setting.as_str()).collect()
}

#[tokio::test(start_paused = true)]
async fn each_setting_out_of_bounds_is_refused_by_its_name_with_what_to_do() {
    for (setting, change) in BAD {
        let error = refused(change(good()));
        assert!(names(&error).contains(setting), "{setting}: {error}");
        for problem in &error.problems {
            assert!(!problem.value.is_empty() && !problem.expected.is_empty(), "{problem:?}");
            for part in [&problem.setting, &problem.value, &problem.expected] {
                assert!(error.to_string().contains(part.as_str()), "{error}");
            }
        }
    }
}

/// The user is not told about a setting that was never touched.
#[tokio::test(start_paused = true)]
async fn one_bad_setting_is_one_problem() {
    for (setting, change) in BAD {
        assert_eq!(names(&refused(change(good()))), [*setting]);
    }
}

#[tokio::test(start_paused = true)]
async fn two_bad_settings_are_named_at_once() {
    for (index, (one, bad)) in BAD.iter().enumerate() {
        for (two, bad_too) in &BAD[index + 1..] {
            if one.split('.').next() == two.split('.').next() {
                continue;
            }
            let error = refused(bad_too(bad(good())));
            assert!(names(&error).contains(one) && names(&error).contains(two), "{one} and {two}: {error}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn all_bad_settings_are_named_at_once() {
    let builder = BAD.iter().fold(good(), |builder, (_, bad)| bad(builder));
    let error = refused(builder);
    for (setting, _) in BAD {
        let later_made_good = *setting == "tenant(\"system\").max" || *setting == "tenant(\"system\").reserve";
        assert!(later_made_good || names(&error).contains(setting), "{setting}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_required() {
    let error = refused(TenantPools::builder(FakeFactory::new()));
    assert_eq!(names(&error), ["max_connections"]);
    assert!(error.to_string().contains("required"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_budget_hides_no_other_bad_setting() {
    for (setting, bad) in BAD.iter().filter(|(setting, _)| *setting != "max_connections") {
        let error = refused(bad(TenantPools::builder(FakeFactory::new())));
        assert!(names(&error).contains(&"max_connections"), "{error}");
        assert!(names(&error).contains(setting), "{setting}: {error}");
    }
}

#[test]
fn a_missing_runtime_is_one_problem_among_the_others() {
    let error = refused(good());
    assert_eq!(names(&error), ["runtime"]);
    assert!(error.to_string().contains("tokio runtime"), "{error}");
    let error = refused(good().acquire_timeout(ms(0)).max_connecting(0));
    assert_eq!(names(&error), ["acquire_timeout", "max_connecting", "runtime"]);
}

#[test]
fn a_runtime_that_is_given_makes_build_work_outside_of_one() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let pools = good().runtime(runtime.handle().clone()).build().unwrap();
    let lease = runtime.block_on(pools.acquire("acme")).unwrap();
    assert_eq!(lease.tenant().as_str(), "acme");
}

/// The cross checks: each value is fine by itself.
#[tokio::test(start_paused = true)]
async fn settings_that_contradict_each_other_are_refused() {
    let fake = FakeFactory::new();
    fake.place("system", ServerId::from("east"));
    fake.place("billing", ServerId::from("east"));
    let base = || TenantPools::builder(fake.clone()).max_connections(10);
    let reserve = |connections| TenantLimits::new().max(10).reserve(connections);
    let cases: Vec<(&str, &str, Builder<FakeFactory>)> = vec![
        ("a tenant's cap above the budget", "max_connections_per_tenant", base().max_connections_per_tenant(11)),
        ("one tenant's cap above it", "tenant(\"acme\").max", base().tenant("acme", TenantLimits::new().max(11))),
        ("a server's cap above it", "max_connections_on(\"east\")", base().max_connections_on("east", 11)),
        ("more connects than connections", "max_connecting", base().max_connecting(11)),
        ("a reserve above the tenant's cap", "tenant(\"acme\").reserve", {
            base().max_connections_per_tenant(3).tenant("acme", TenantLimits::new().reserve(4))
        }),
        ("reserves above the budget", "tenant(..).reserve", {
            base().tenant("acme", reserve(6)).tenant("system", reserve(5))
        }),
        ("reserves above their server's cap", "tenant(..).reserve", {
            base().max_connections_on("east", 6).tenant("system", reserve(4)).tenant("billing", reserve(3))
        }),
        ("a tenant's line above the whole line", "max_waiters_per_tenant", {
            base().max_waiters(10).max_waiters_per_tenant(11)
        }),
        ("fewer known tenants than may be busy", "max_known_tenants", {
            base().max_waiters(1_000).max_known_tenants(1_009)
        }),
    ];
    for (what, setting, builder) in cases {
        let error = refused(builder);
        assert_eq!(names(&error), [setting], "{what}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn reserves_up_to_their_limits_are_fine() {
    let fake = FakeFactory::new();
    fake.place("system", ServerId::from("east"));
    let reserve = |connections| TenantLimits::new().max(10).reserve(connections);
    let built = TenantPools::builder(fake.clone())
        .max_connections(10)
        .max_connections_on("east", 6)
        .tenant("system", reserve(6))
        .tenant("acme", reserve(4))
        .build();
    assert!(built.is_ok());
}

#[tokio::test(start_paused = true)]
async fn each_setting_at_its_bounds_is_taken() {
    let good_ones: &[Change] = &[
        |b| b.max_connections(1),
        |b| b.max_connections(262_143).max_known_tenants(300_000),
        |b| b.max_connections_per_tenant(1),
        |b| b.max_connections_per_tenant(BUDGET),
        |b| b.max_connections_on("east", 1).max_connections_on("west", BUDGET),
        |b| b.max_waiters(1_000_000).max_known_tenants(1_000_020),
        |b| b.max_waiters(1_000).max_waiters_per_tenant(1_000),
        |b| b.max_connecting(1),
        |b| b.acquire_timeout(ms(1)).connect_timeout(ms(1)).close_timeout(ms(1)).recycle_timeout(ms(1)),
        |b| b.acquire_timeout(DAY).connect_timeout(DAY).close_timeout(DAY).recycle_timeout(DAY),
        |b| b.idle_timeout(ms(1)).max_lifetime(ms(1)).lease_warn_after(ms(1)),
        |b| b.idle_timeout(YEAR).max_lifetime(YEAR).lease_warn_after(YEAR),
        |b| b.validate_after_idle(ms(0)).handover_bound(ms(0)),
        |b| b.validate_after_idle(YEAR).handover_bound(DAY),
        |b| b.forget_after(ms(1)).tombstone_ttl(ms(1)),
        |b| b.forget_after(YEAR).tombstone_ttl(YEAR),
        |b| b.max_known_tenants(u32::MAX),
        |b| b.tenant("system", TenantLimits::new().max(BUDGET).reserve(BUDGET).weight(1_000)),
    ];
    for (index, change) in good_ones.iter().enumerate() {
        let pools = change(good()).build().unwrap_or_else(|error| panic!("number {index}: {error}"));
        let tenant = if index + 1 == good_ones.len() { "system" } else { "acme" };
        assert!(pools.acquire(tenant).await.is_ok(), "number {index}");
    }
}

/// Zero where it makes no sense: a manager of which nobody may wait could not open anything, as a cold acquire waits
/// for its connect.
#[tokio::test(start_paused = true)]
async fn where_nobody_may_wait_a_cold_acquire_is_still_served() {
    for builder in [good().max_waiters(0).max_waiters_per_tenant(0), good().max_waiters_per_tenant(0)] {
        match builder.build() {
            Ok(pools) => assert!(pools.acquire("acme").await.is_ok(), "it can be built, so it must be of use"),
            Err(error) => assert!(names(&error).iter().all(|name| name.starts_with("max_waiters")), "{error}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_drivers_word_is_the_default_for_a_tenants_cap_and_the_builders_word_wins() {
    let fake = FakeFactory::new();
    let cap = async |builder: Builder<FakeFactory>| {
        let pools = builder.build().unwrap();
        drop(pools.acquire("acme").await.unwrap());
        pools.tenant_stats("acme").unwrap().max
    };
    assert_eq!(cap(manager(&fake, 20)).await, 5);
    assert_eq!(cap(manager(&fake, 3)).await, 3, "never above the budget by default");
    fake.set_max_per_tenant(Some(1));
    assert_eq!(cap(manager(&fake, 20)).await, 1);
    assert_eq!(cap(manager(&fake, 20).max_connections_per_tenant(4)).await, 4);
    fake.set_max_per_tenant(Some(50));
    assert_eq!(cap(manager(&fake, 20)).await, 20);
}
