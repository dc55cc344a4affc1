//! Making and dropping databases: apart from acquires, and inside the budget.

use std::error::Error;

use tenantry_core::{AcquireError, Created, Dropped, FailureKind, LimitScope, ProvisionError, ServerId};
use tenantry_testkit::{Behavior, Call, FakeError, FakeFactory};
use tokio::task::JoinSet;

use crate::support::{assert_nothing_lost, hold, hold_many, manager, ms, poll_once, secs, settle, soon, warm};

fn empty_server() -> FakeFactory {
    let fake = FakeFactory::new();
    fake.set_databases::<&str>([]);
    fake
}

#[tokio::test(start_paused = true)]
async fn a_database_is_made_once_and_then_there() {
    let fake = empty_server();
    let pools = manager(&fake, 2).idle_timeout(secs(1)).forget_after(secs(10)).build().unwrap();
    assert_eq!(pools.create("acme").await.unwrap(), Created::New);
    assert_eq!(pools.create("acme").await.unwrap(), Created::AlreadyThere);
    assert!(fake.has_database("acme"));
    warm(&pools, "acme").await;
    assert_eq!(pools.stats().tenants, 1, "the work beside it is no tenant");
    tokio::time::sleep(secs(20)).await;
    assert_eq!(pools.stats().tenants, 0, "both are forgotten");
}

#[tokio::test(start_paused = true)]
async fn after_no_such_tenant_and_a_create_an_acquire_works_at_once() {
    let fake = empty_server();
    let pools = manager(&fake, 2).build().unwrap();
    for _ in 0..5 {
        assert!(pools.acquire("acme").await.is_err());
    }
    pools.create("acme").await.unwrap();
    drop(pools.acquire("acme").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_create_needs_one_permit_and_none_of_the_tenants() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3).max_connections_per_tenant(1).build().unwrap();
    let gate = fake.on(Call::Create).hold();
    let held = pools.acquire("acme").await.unwrap();
    let create = tokio::spawn(pools.create("acme"));
    gate.reached(1).await;
    assert_eq!((pools.stats().open(), fake.open().now), (2, 2), "beside the tenant's only one");
    let stats = pools.tenant_stats("acme").unwrap();
    assert_eq!((stats.in_use, stats.pool_leased, stats.opening), (1, 0, 0));
    gate.release();
    create.await.unwrap().unwrap();
    assert_eq!(pools.stats().open(), 1);
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_create_evicts_an_idle_connection_or_waits_or_is_told_what_was_short() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).acquire_timeout(ms(300)).build().unwrap();
    drop(hold(&pools, ["a", "b"]).await);
    pools.create("new-1").await.unwrap();
    assert_eq!((fake.calls_of(Call::Close, "a").ended, fake.open().most), (1, 2));

    let held = hold(&pools, ["a", "b"]).await;
    match pools.create("new-2").await.unwrap_err() {
        ProvisionError::Permit(AcquireError::Limit(limit)) => {
            assert_eq!((limit.scope, limit.open, limit.tenant.as_str()), (LimitScope::Total, 2, "new-2"));
            assert!(limit.retry_after.is_some());
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(fake.calls_of(Call::Create, "new-2").started, 0);
    let waiting = tokio::spawn(pools.create("new-3"));
    settle().await;
    drop(held);
    assert_eq!(waiting.await.unwrap().unwrap(), Created::AlreadyThere);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_create_counts_against_its_tenants_server() {
    let (fake, east) = (empty_server(), ServerId::from("east"));
    fake.place_with(|_| ServerId::from("east"));
    let pools = manager(&fake, 10).max_connections_on("east", 1).build().unwrap();
    let creates: Vec<_> = (0..25).map(|number| tokio::spawn(pools.create(format!("tenant-{number}")))).collect();
    for create in creates {
        assert_eq!(create.await.unwrap().unwrap(), Created::New);
    }
    assert_eq!(fake.open_on(&east).most, 1);
    assert_nothing_lost_after(&pools, &fake).await;
}

/// The audit asks for tenants that this server does not have.
async fn assert_nothing_lost_after(pools: &crate::support::Pools, fake: &FakeFactory) {
    assert_eq!((pools.stats().open(), fake.open().now), (0, 0));
    assert!(pools.close_within(secs(1)).await.is_complete());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_five_creators_of_one_tenant_make_one_database() {
    let fake = empty_server();
    let pools = manager(&fake, 8).build().unwrap();
    let mut tasks = JoinSet::new();
    (0..25).for_each(|_| drop(tasks.spawn(pools.create("acme"))));
    let created = tasks.join_all().await;
    let new = created.into_iter().filter(|created| matches!(created, Ok(Created::New))).count();
    assert_eq!(new, 1);
    assert!(fake.open().most <= 8);
}

#[tokio::test(start_paused = true)]
async fn once_there_is_a_permit_a_create_goes_on_without_its_caller() {
    let fake = empty_server();
    let pools = manager(&fake, 1).build().unwrap();
    let gate = fake.on(Call::Create).hold();
    let mut create = Box::pin(pools.create("acme"));
    assert!(poll_once(create.as_mut()).is_pending());
    gate.reached(1).await;
    drop(create);
    assert_eq!(pools.stats().open(), 1);
    gate.release();
    soon(fake.ended(Call::Create, 1)).await;
    settle().await;
    assert!(fake.has_database("acme"));
    assert_eq!(pools.stats().open(), 0);
    warm(&pools, "acme").await;
}

/// It was asked for in vain, the create's caller went away, and the create went on: the tenant is there all the same.
#[tokio::test(start_paused = true)]
async fn a_create_without_its_caller_ends_the_tenants_backoff_too() {
    let fake = empty_server();
    let pools = manager(&fake, 1).build().unwrap();
    for _ in 0..20 {
        let error = pools.acquire("acme").await.unwrap_err();
        if let (AcquireError::Connect { .. }, 8..) = (&error, fake.calls(Call::Connect).started) {
            break;
        }
        tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
    }
    let gate = fake.on(Call::Create).hold();
    let mut create = Box::pin(pools.create("acme"));
    assert!(poll_once(create.as_mut()).is_pending());
    gate.reached(1).await;
    drop(create);
    gate.release();
    soon(fake.ended(Call::Create, 1)).await;
    settle().await;
    drop(pools.acquire("acme").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_create_that_fails_panics_or_hangs_frees_its_permit_and_says_so() {
    let fake = empty_server();
    let pools = manager(&fake, 1).build().unwrap();
    fake.on(Call::Create).next(Behavior::fails(FailureKind::Auth));
    let error = pools.create("acme").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Failed { kind: FailureKind::Auth, .. }), "{error:?}");
    let source = error.source().unwrap().downcast_ref::<FakeError>().unwrap();
    assert_eq!((source.kind, source.call), (FailureKind::Auth, Call::Create));
    for behavior in [Behavior::panics(), Behavior::hangs()] {
        fake.on(Call::Create).next(behavior);
        let error = pools.create("acme").await.unwrap_err();
        assert!(matches!(error, ProvisionError::Unfinished { .. }), "{error:?}");
        assert!(error.to_string().contains("look whether it is there"), "{error}");
        assert_eq!((pools.stats().open(), fake.open().now), (0, 0));
    }
    assert_eq!(pools.create("acme").await.unwrap(), Created::New);
}

#[tokio::test(start_paused = true)]
async fn a_drop_closes_what_is_idle_first_and_leaves_what_is_in_use() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    drop(hold(&pools, ["acme", "acme"]).await);
    assert_eq!(pools.drop_database("acme").await.unwrap(), Dropped::Gone);
    assert_eq!(fake.open_of("acme").now, 0);
    assert!(!fake.has_database("acme"));
    assert_eq!(pools.drop_database("acme").await.unwrap(), Dropped::WasAbsent);
    let error = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(error, AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. }), "{error}");

    let busy = pools.acquire("busy").await.unwrap();
    assert_eq!(pools.drop_database("busy").await.unwrap(), Dropped::Gone);
    assert!(busy.handle().is_open(), "the server may cut it, tenantry does not close it under its user");
    drop(busy);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn while_its_database_is_dropped_a_tenant_drains_whether_it_was_known_before_or_not() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    drop(pools.acquire("known").await.unwrap());
    for tenant in ["known", "unknown"] {
        let gate = fake.on_tenant(Call::DropDatabase, tenant).hold();
        let dropping = tokio::spawn(pools.drop_database(tenant));
        gate.reached(1).await;
        let refused = pools.acquire(tenant).await.unwrap_err();
        assert!(matches!(refused, AcquireError::Draining { .. }), "{tenant}: {refused}");
        gate.release();
        assert_eq!(dropping.await.unwrap().unwrap(), Dropped::Gone);
        let missing = pools.acquire(tenant).await.unwrap_err();
        assert!(matches!(missing, AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. }), "{missing}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_drained_before_its_database_was_dropped_drains_on() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    pools.drain("acme", secs(1)).await;
    assert_eq!(pools.drop_database("acme").await.unwrap(), Dropped::Gone);
    let refused = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(refused, AcquireError::Draining { .. }), "{refused}");
    pools.remove("acme", secs(1)).await;
    assert_eq!(pools.drop_database("acme").await.unwrap(), Dropped::WasAbsent);
    assert!(pools.tenant_stats("acme").unwrap().removed);
}

#[tokio::test(start_paused = true)]
async fn what_an_operator_says_while_a_database_is_dropped_stands_after_it() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    for tenant in ["drained", "resumed", "removed"] {
        let gate = fake.on_tenant(Call::DropDatabase, tenant).hold();
        let dropping = tokio::spawn(pools.drop_database(tenant));
        gate.reached(1).await;
        match tenant {
            "drained" => assert!(pools.drain(tenant, secs(1)).await.is_complete()),
            "resumed" => assert!(pools.resume(tenant)),
            _ => assert!(pools.remove(tenant, secs(1)).await.is_complete()),
        }
        gate.release();
        assert_eq!(dropping.await.unwrap().unwrap(), Dropped::Gone);
        let refused = pools.acquire(tenant).await.unwrap_err();
        match (tenant, &refused) {
            ("drained", AcquireError::Draining { .. }) | ("removed", AcquireError::Removed { .. }) => {}
            ("resumed", AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. }) => {}
            _ => panic!("{tenant}: {refused}"),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_tenant_drains_until_the_last_of_two_drops_of_its_database_ended() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    fake.on(Call::DropDatabase).next(Behavior::after(ms(100))).next(Behavior::after(ms(300)));
    let (first, second) = (tokio::spawn(pools.drop_database("acme")), tokio::spawn(pools.drop_database("acme")));
    first.await.unwrap().unwrap();
    let refused = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(refused, AcquireError::Draining { .. }), "{refused}");
    second.await.unwrap().unwrap();
    let missing = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(missing, AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. }), "{missing}");
}

/// A database dropped from outside: its warm connections are dead, the next acquire says that there is none.
#[tokio::test(start_paused = true)]
async fn a_database_dropped_from_outside_fails_as_no_such_tenant_once_its_connections_are_found_dead() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    let idle = warm(&pools, "acme").await;
    fake.set_databases(["other"]);
    idle.mark_lost();
    let error = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(error, AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. }), "{error}");
    assert_eq!(fake.open().now, 0);
}

#[tokio::test(start_paused = true)]
async fn no_tenants_name_leads_into_the_line_for_creates() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).acquire_timeout(ms(50)).build().unwrap();
    let held = hold_many(&pools, "held", 1).await;
    let gate = fake.on(Call::Create).hold();
    let create = tokio::spawn(pools.create("new"));
    gate.reached(1).await;
    let error = pools.acquire("late").await.unwrap_err();
    let AcquireError::Limit(limit) = &error else { panic!("{error:?}") };
    for holder in &limit.holders {
        let name = holder.tenant.as_str();
        assert!(!name.chars().any(char::is_control), "a holder is named {name:?}");
    }
    gate.release();
    create.await.unwrap().unwrap();
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}
