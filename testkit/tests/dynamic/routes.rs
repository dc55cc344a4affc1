//! A driver for each tenant: `DynFactory::route`, over two fakes, and over two drivers that share one.

use std::sync::{Arc, Mutex};

use tenantry_core::{Created, DynFactory, FailureKind, ProvisionError, ServerId, TenantPools};
use tenantry_testkit::{Behavior, Call, FakeConnection, FakeError, FakeFactory};
use tokio::task::JoinSet;

use crate::support::{OtherConnection, OtherFactory, assert_closes_clean, ms, settle};

/// Two servers of different kinds, and a route that sends tenants whose name begins with "other" to the second.
struct Two {
    fake: FakeFactory,
    other: FakeFactory,
}

impl Two {
    fn new() -> Self {
        let (fake, other) = (FakeFactory::new(), FakeFactory::new());
        fake.place_with(|_| ServerId::from("first"));
        other.place_with(|_| ServerId::from("second"));
        Self { fake, other }
    }

    fn route(&self) -> DynFactory {
        let first = DynFactory::with_provision(self.fake.clone());
        let second = DynFactory::new(OtherFactory(self.other.clone()));
        DynFactory::route(move |tenant| if tenant.as_str().starts_with("other") { &second } else { &first }.clone())
    }

    fn pools(&self) -> TenantPools<DynFactory> {
        TenantPools::builder(self.route()).max_connections(4).build().unwrap()
    }

    fn calls(&self, call: Call) -> (u64, u64) {
        (self.fake.calls(call).ended, self.other.calls(call).ended)
    }
}

#[tokio::test(start_paused = true)]
async fn each_tenant_has_the_driver_and_the_server_of_its_route() {
    let two = Two::new();
    let pools = two.pools();
    let mut acme = pools.acquire("acme").await.unwrap();
    let mut other = pools.acquire("other-1").await.unwrap();
    assert!(acme.downcast_mut::<FakeConnection>().is_some() && acme.downcast_mut::<OtherConnection>().is_none());
    assert!(other.downcast_mut::<OtherConnection>().is_some() && other.downcast_mut::<FakeConnection>().is_none());
    assert_eq!(pools.tenant_stats("acme").unwrap().server, ServerId::from("first"));
    assert_eq!(pools.tenant_stats("other-1").unwrap().server, ServerId::from("second"));
    assert_eq!((two.fake.open().now, two.other.open().now), (1, 1));

    acme.mark_dirty();
    other.mark_dirty();
    drop((acme, other));
    settle().await;
    assert_eq!(two.calls(Call::Recycle), (1, 1));
    pools.evict("other-1");
    settle().await;
    assert_eq!(two.calls(Call::Close), (0, 1));
    assert_closes_clean(&pools, &[&two.fake, &two.other]).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_is_classified_by_the_driver_it_is_from() {
    let two = Two::new();
    let pools = two.pools();
    two.fake.on(Call::Connect).next(Behavior::fails(FailureKind::Auth));
    two.other.on(Call::Connect).next(Behavior::fails(FailureKind::Unreachable));
    let (acme, other) = (pools.acquire("acme").await.unwrap_err(), pools.acquire("other-1").await.unwrap_err());
    assert!(format!("{acme:?}").contains("Auth"), "{acme:?}");
    assert!(format!("{other:?}").contains("Unreachable"), "{other:?}");
}

#[tokio::test(start_paused = true)]
async fn databases_are_made_by_the_tenants_own_driver() {
    let two = Two::new();
    let pools = two.pools();
    assert_eq!(pools.create("acme").await.unwrap(), Created::AlreadyThere);
    let error = pools.create("other-1").await.unwrap_err();
    assert!(matches!(error, ProvisionError::Failed { kind: FailureKind::Other, .. }), "{error:?}");
    let ProvisionError::Failed { source, .. } = error else { unreachable!() };
    assert!(!source.is::<FakeError>());
}

#[tokio::test(start_paused = true)]
async fn a_route_leaves_the_cap_of_a_tenant_to_the_builder() {
    let two = Two::new();
    two.fake.set_max_per_tenant(Some(1));
    let pools = TenantPools::builder(two.route()).max_connections(8).build().unwrap();
    drop(pools.acquire("acme").await.unwrap());
    assert_eq!(pools.tenant_stats("acme").unwrap().max, 5);
}

#[tokio::test(start_paused = true)]
async fn a_route_may_lead_to_a_route() {
    let two = Two::new();
    let inner = two.route();
    let pools = TenantPools::builder(DynFactory::route(move |_| inner.clone())).max_connections(4).build().unwrap();
    for _ in 0..2 {
        let lease = pools.acquire("other-1").await.unwrap();
        assert!(lease.is::<OtherConnection>());
    }
    assert_eq!(two.calls(Call::Connect), (0, 1));
}

/// A route that can be changed while the manager runs.
#[derive(Clone)]
struct Signpost(Arc<Mutex<DynFactory>>);

impl Signpost {
    fn to(factory: &DynFactory) -> Self {
        Self(Arc::new(Mutex::new(factory.clone())))
    }

    fn turn_to(&self, factory: &DynFactory) {
        *self.0.lock().unwrap() = factory.clone();
    }

    fn pools(&self) -> TenantPools<DynFactory> {
        let signpost = self.0.clone();
        let route = DynFactory::route(move |_| signpost.lock().unwrap().clone());
        TenantPools::builder(route).max_connections(4).build().unwrap()
    }
}

fn id_of(connection: &tenantry_core::DynConnection) -> u64 {
    connection.downcast_ref::<FakeConnection>().unwrap().id()
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_of_a_factory_that_the_route_left_is_closed_and_not_handed_out() {
    let (before, after) = (FakeFactory::new(), FakeFactory::new());
    let (old, new) = (DynFactory::new(before.clone()), DynFactory::new(after.clone()));
    let signpost = Signpost::to(&old);
    let pools = signpost.pools();
    drop((pools.acquire("acme").await.unwrap(), pools.acquire("acme").await.unwrap()));
    signpost.turn_to(&new);

    let lease = pools.acquire("acme").await.unwrap();
    lease.downcast_ref::<FakeConnection>().unwrap().use_for("acme");
    settle().await;
    assert_eq!((before.open().now, after.open().now), (0, 1), "and both that were idle are closed");
    assert_eq!(before.calls(Call::Close).ended, 2, "in order, by the driver that opened them");
    drop(lease);
    assert!(pools.try_acquire("acme").is_ok(), "the new one is kept");
    assert_closes_clean(&pools, &[&before, &after]).await;
}

#[tokio::test(start_paused = true)]
async fn one_in_use_while_the_route_changes_is_closed_when_it_comes_back() {
    let (before, after) = (FakeFactory::new(), FakeFactory::new());
    let (old, new) = (DynFactory::new(before.clone()), DynFactory::new(after.clone()));
    let signpost = Signpost::to(&old);
    let pools = signpost.pools();
    let mut lease = pools.acquire("acme").await.unwrap();
    signpost.turn_to(&new);
    lease.downcast_mut::<FakeConnection>().unwrap().query().await.unwrap();
    drop(lease);
    settle().await;
    assert_eq!((before.calls(Call::Close).ended, before.open().now), (1, 0));
    signpost.turn_to(&old);
    drop(pools.acquire("acme").await.unwrap());
    assert_eq!(before.calls(Call::Connect).ended, 2);
    assert_closes_clean(&pools, &[&before, &after]).await;
}

#[tokio::test(start_paused = true)]
async fn a_route_that_makes_a_factory_at_each_call_keeps_its_tenants_warm() {
    let fake = FakeFactory::new();
    let made = fake.clone();
    let route = DynFactory::route(move |_| DynFactory::new(made.clone()));
    let pools = TenantPools::builder(route).max_connections(4).build().unwrap();
    let first = id_of(&pools.acquire("acme").await.unwrap());
    let again = id_of(&pools.acquire("acme").await.unwrap());
    assert_eq!((first, again, fake.calls(Call::Connect).ended), (1, 1, 1));

    fake.place("acme", ServerId::from("elsewhere"));
    assert_ne!(id_of(&pools.acquire("acme").await.unwrap()), 1, "its server shows that the tenant moved");
}

#[tokio::test(start_paused = true)]
async fn a_route_that_makes_a_factory_of_another_type_mixes_nothing() {
    let fake = FakeFactory::new();
    let (made, switch) = (fake.clone(), Arc::new(Mutex::new(false)));
    let switched = switch.clone();
    let route = DynFactory::route(move |_| {
        if *switched.lock().unwrap() {
            DynFactory::new(OtherFactory(made.clone()))
        } else {
            DynFactory::new(made.clone())
        }
    });
    let pools = TenantPools::builder(route).max_connections(4).build().unwrap();
    drop(pools.acquire("acme").await.unwrap());
    *switch.lock().unwrap() = true;
    assert!(pools.acquire("acme").await.unwrap().is::<OtherConnection>());
    assert_closes_clean(&pools, &[&fake]).await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_moves_to_another_server_by_drain_and_resume() {
    let two = Two::new();
    let (old, new) = (DynFactory::new(two.fake.clone()), DynFactory::new(OtherFactory(two.other.clone())));
    let signpost = Signpost::to(&old);
    let pools = signpost.pools();
    drop(pools.acquire("acme").await.unwrap());
    assert!(pools.drain("acme", ms(100)).await.is_complete());
    signpost.turn_to(&new);
    assert!(pools.resume("acme"));
    assert!(pools.acquire("acme").await.unwrap().is::<OtherConnection>());
    assert_eq!(pools.tenant_stats("acme").unwrap().server, ServerId::from("second"));
    assert_eq!((two.fake.open().now, two.other.open().now), (0, 1));
    assert_closes_clean(&pools, &[&two.fake, &two.other]).await;
}

/// Two drivers to one server that lets in as many connections as the budget allows, and not one more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_drivers_never_pass_one_budget() {
    const BUDGET: u32 = 5;
    let fake = FakeFactory::new();
    fake.set_server_limit(&ServerId::default(), Some(BUDGET.into()));
    let (one, other) = (DynFactory::new(fake.clone()), DynFactory::new(OtherFactory(fake.clone())));
    let route = DynFactory::route(move |tenant| if tenant.as_str() < "tenant-5" { &one } else { &other }.clone());
    let pools = TenantPools::builder(route).max_connections(BUDGET).max_connecting(BUDGET).build().unwrap();
    let mut tasks = JoinSet::new();
    for number in 0..20_usize {
        let pools = pools.clone();
        tasks.spawn(async move {
            for round in 0..50 {
                let tenant = format!("tenant-{}", (number * 7 + round) % 10);
                let mut lease = pools.acquire(&tenant).await.unwrap();
                assert_eq!(lease.is::<OtherConnection>(), *tenant >= *"tenant-5");
                if let Some(other) = lease.downcast_mut::<OtherConnection>() {
                    other.use_for(&tenant);
                } else {
                    lease.downcast_mut::<FakeConnection>().unwrap().use_for(&tenant);
                }
                if round % 5 == 0 {
                    lease.mark_dirty();
                }
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(task) = tasks.join_next().await {
        task.unwrap();
    }
    assert_eq!(fake.open().most, BUDGET.into());
    assert_eq!(pools.stats().totals.server_full, 0);
    assert_closes_clean(&pools, &[&fake]).await;
}
