//! Preflights of drivers that are chosen at run time, and of two under one budget: each is asked for itself.

use std::error::Error;
use std::time::Duration;

use tenantry_core::{
    Capacity, Created, DynError, DynFactory, EitherFactory, FailureKind, Health, PoolFactory, PreflightError, Replicas,
    ServerCapacity, ServerId, TenantId, TenantPools,
};
use tenantry_testkit::{Behavior, Call, FakeConnection, FakeError, FakeFactory};

use crate::support::{OtherFactory, assert_closes_clean, chain};

fn login(limit: u32) -> ServerCapacity {
    let mut capacity = ServerCapacity::default();
    capacity.login_limit = Some(limit);
    capacity
}

fn limited(limit: u32) -> FakeFactory {
    let fake = FakeFactory::new();
    fake.set_capacity(login(limit));
    fake
}

/// A driver whose server may fail to answer.
#[derive(Clone)]
struct Mute(FakeFactory);

impl PoolFactory for Mute {
    type Connection = FakeConnection;
    type Error = FakeError;

    async fn connect(&self, tenant: &TenantId) -> Result<FakeConnection, FakeError> {
        self.0.connect(tenant).await
    }

    fn health(&self, connection: &mut FakeConnection) -> Health {
        self.0.health(connection)
    }

    async fn recycle(&self, connection: &mut FakeConnection) -> Result<(), FakeError> {
        self.0.recycle(connection).await
    }

    async fn close(&self, connection: FakeConnection, within: Duration) {
        self.0.close(connection, within).await;
    }

    fn classify(&self, error: &FakeError) -> FailureKind {
        error.kind
    }
}

impl Capacity for Mute {
    async fn capacity(&self, connection: &mut FakeConnection) -> Result<ServerCapacity, FakeError> {
        connection.query().await.map(|()| ServerCapacity::default())
    }
}

#[tokio::test(start_paused = true)]
async fn a_route_asks_the_driver_of_the_tenant_about_the_server_of_the_tenant() {
    let (first, second) = (limited(30), limited(8));
    first.place_with(|_| ServerId::from("first"));
    second.place_with(|_| ServerId::from("second"));
    let (one, two) =
        (DynFactory::with_capacity(first.clone()), DynFactory::with_provision_and_capacity(second.clone()));
    let route = DynFactory::route(move |tenant| if tenant.as_str().starts_with("two") { &two } else { &one }.clone());
    let pools = TenantPools::builder(route).max_connections(20).max_connections_on("second", 10).build().unwrap();

    let asked = pools.preflight("one-a").await.unwrap();
    assert_eq!((asked.server.as_str(), asked.capacity, asked.budget), ("first", login(30), 20));
    asked.fits(Replicas::default()).unwrap();
    let asked = pools.preflight("two-a").await.unwrap();
    assert_eq!((asked.server.as_str(), asked.capacity, asked.budget), ("second", login(8), 10));
    let error = asked.fits(Replicas { running: 1, surge: 1 }).unwrap_err();
    assert!(error.to_string().contains("one process and 1 more") && error.to_string().contains("at most 4"), "{error}");
    assert_eq!(pools.create("two-b").await.unwrap(), Created::AlreadyThere, "it was given for both");
    assert_closes_clean(&pools, &[&first, &second]).await;
}

#[tokio::test(start_paused = true)]
async fn a_driver_that_was_not_given_for_it_says_what_to_do_and_one_that_fails_says_so() {
    for factory in [DynFactory::new(limited(1)), DynFactory::with_provision(limited(1))] {
        let pools = TenantPools::builder(factory).max_connections(2).build().unwrap();
        let error = pools.preflight("acme").await.unwrap_err();
        assert!(matches!(error, PreflightError::Failed { kind: FailureKind::Other, .. }), "{error:?}");
        assert!(chain(&error).last().unwrap().contains("with_capacity"), "{:#?}", chain(&error));
    }
    let fake = FakeFactory::new();
    fake.on(Call::Query).always(Behavior::fails(FailureKind::Auth));
    let pools = TenantPools::builder(DynFactory::with_capacity(Mute(fake))).max_connections(2);
    let error = pools.build().unwrap().preflight("acme").await.unwrap_err();
    assert!(matches!(error, PreflightError::Failed { kind: FailureKind::Auth, .. }), "{error:?}");
    let dynamic = error.source().unwrap().downcast_ref::<DynError>().unwrap();
    assert!(dynamic.is::<FakeError>());
}

#[tokio::test(start_paused = true)]
async fn of_two_drivers_each_is_asked_with_its_own_login() {
    let (left, right) = (limited(40), limited(6));
    let both = EitherFactory::new(left.clone(), OtherFactory(right.clone()));
    let pools = TenantPools::builder(both).max_connections(8).build().unwrap();
    let asked = pools.right().preflight("acme").await.unwrap();
    assert_eq!((asked.capacity, asked.budget), (login(6), 8));
    assert!(asked.fits(Replicas::default()).is_err(), "the right one's login is the narrower");
    let asked = pools.left().preflight("acme").await.unwrap();
    assert_eq!(asked.capacity, login(40));
    asked.fits(Replicas { running: 4, surge: 1 }).unwrap();
    let manager = pools.preflight("another").await.unwrap();
    assert_eq!(manager.capacity, login(40), "where there is none yet, a left one is opened");
    assert_closes_clean(&pools, &[&left, &right]).await;
}
