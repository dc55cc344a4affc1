//! One driver behind `DynFactory`: everything reaches it, and what it gives can be had with its own types.

use std::error::Error;
use std::time::Duration;

use tenantry_core::{
    AcquireError, Created, Dropped, DynConnection, DynError, DynFactory, FailureKind, Health, PoolFactory, Provision,
    ProvisionError, ServerId, TenantId, TenantPools,
};
use tenantry_testkit::{Behavior, Call, FakeConnection, FakeError, FakeFactory};

use crate::support::{OtherConnection, OtherError, OtherFactory, assert_closes_clean, chain, ms, settle};

fn pools(fake: &FakeFactory) -> TenantPools<DynFactory> {
    TenantPools::builder(DynFactory::new(fake.clone())).max_connections(4).build().unwrap()
}

/// Compiles only while each of these names one method: with every public name in scope, on a driver, on the dynamic one
/// and on a type parameter.
#[tokio::test]
async fn a_drivers_methods_are_not_ambiguous() {
    #[allow(unused_imports, reason = "whatever is public is in scope")]
    use tenantry_core::*;

    async fn all_of_it<F: PoolFactory>(factory: F, tenant: &TenantId) {
        let mut connection = factory.connect(tenant).await.unwrap();
        assert_eq!(factory.health(&mut connection), Health::Clean);
        factory.recycle(&mut connection).await.unwrap();
        factory.close(connection, Duration::from_secs(1)).await;
        assert_eq!((factory.server(tenant), factory.max_per_tenant()), (ServerId::default(), None));
    }

    let (fake, tenant) = (FakeFactory::new(), TenantId::new("acme").unwrap());
    let connection: FakeConnection = fake.connect(&tenant).await.unwrap();
    fake.close(connection, Duration::from_secs(1)).await;
    let dynamic = DynFactory::new(fake.clone());
    let connection: DynConnection = dynamic.connect(&tenant).await.unwrap();
    dynamic.close(connection, Duration::from_secs(1)).await;
    all_of_it(fake.clone(), &tenant).await;
    all_of_it(dynamic, &tenant).await;
    assert_eq!(fake.open().now, 0);
}

#[tokio::test(start_paused = true)]
async fn a_lease_gives_the_drivers_own_connection_and_no_others() {
    let fake = FakeFactory::new();
    let pools = pools(&fake);
    let mut lease = pools.acquire("acme").await.unwrap();
    assert!(lease.is::<FakeConnection>() && !lease.is::<OtherConnection>());
    assert!(lease.downcast_mut::<OtherConnection>().is_none());
    lease.downcast_mut::<FakeConnection>().unwrap().query().await.unwrap();
    assert_eq!(lease.downcast_ref::<FakeConnection>().unwrap().tenant().as_str(), "acme");
    drop(lease);
    assert_eq!(fake.calls(Call::Query).ended, 1);
    assert_closes_clean(&pools, &[&fake]).await;
}

#[tokio::test(start_paused = true)]
async fn a_warm_connection_is_used_again() {
    let fake = FakeFactory::new();
    let pools = pools(&fake);
    for _ in 0..3 {
        drop(pools.acquire("acme").await.unwrap());
    }
    assert_eq!((fake.calls(Call::Connect).ended, fake.calls(Call::Recycle).ended), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn what_the_driver_says_of_a_connection_decides() {
    let fake = FakeFactory::new();
    let pools = pools(&fake);
    let leave = async |health: Health| {
        let lease = pools.acquire("acme").await.unwrap();
        lease.downcast_ref::<FakeConnection>().unwrap().set_health(health);
        drop(lease);
        settle().await;
        (fake.calls(Call::Recycle).ended, fake.calls(Call::Close).ended)
    };
    assert_eq!(leave(Health::Clean).await, (0, 0));
    assert_eq!(leave(Health::Dirty).await, (1, 0));
    assert_eq!(leave(Health::Broken).await, (1, 1));
    assert_eq!(pools.stats().servers[0].epoch, 0);
    assert_eq!(leave(Health::Lost).await, (1, 2));
    assert_eq!(pools.stats().servers[0].epoch, 1, "and its server is under suspicion");

    let lease = pools.acquire("acme").await.unwrap();
    lease.downcast_ref::<FakeConnection>().unwrap().panic_when_asked();
    drop(lease);
    settle().await;
    assert_eq!(fake.calls(Call::Close).ended, 3, "a panic counts as broken");
    assert_closes_clean(&pools, &[&fake]).await;
}

#[tokio::test(start_paused = true)]
async fn an_error_keeps_the_drivers_own_and_repeats_no_text() {
    let fake = FakeFactory::new();
    let pools = TenantPools::builder(DynFactory::new(OtherFactory(fake.clone()))).max_connections(4).build().unwrap();
    fake.on(Call::Connect).next(Behavior::fails(FailureKind::Auth));
    let error = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(error, AcquireError::Connect { kind: FailureKind::Auth, .. }), "{error:?}");

    let dynamic = error.source().unwrap().downcast_ref::<DynError>().unwrap();
    assert!(dynamic.is::<OtherError>() && !dynamic.is::<FakeError>());
    assert!(dynamic.downcast_ref::<FakeError>().is_none());
    let own = dynamic.downcast_ref::<OtherError>().unwrap();
    assert!(std::ptr::eq(own, dynamic.source().unwrap().downcast_ref::<OtherError>().unwrap()));

    let texts = chain(&error);
    assert_eq!(texts.len(), 3, "{texts:#?}");
    assert!(texts[1].contains("OtherFactory"), "it says which driver: {}", texts[1]);
    for (at, text) in texts.iter().enumerate() {
        assert!(texts[..at].iter().all(|before| !before.contains(text.as_str())), "repeated: {texts:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_recycle_closes_the_connection() {
    let fake = FakeFactory::new();
    let pools = pools(&fake);
    fake.on(Call::Recycle).next(Behavior::fails(FailureKind::Other));
    let mut lease = pools.acquire("acme").await.unwrap();
    lease.mark_dirty();
    drop(lease);
    settle().await;
    assert_eq!((fake.calls(Call::Close).ended, fake.open().now), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn its_server_and_its_limit_are_the_drivers() {
    let fake = FakeFactory::new();
    fake.place("acme", ServerId::from("east"));
    fake.set_max_per_tenant(Some(2));
    let pools = pools(&fake);
    let lease = pools.acquire("acme").await.unwrap();
    let stats = pools.tenant_stats("acme").unwrap();
    assert_eq!((stats.server, stats.max), (ServerId::from("east"), 2));
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_close_is_given_its_time_and_keeps_its_permit() {
    let fake = FakeFactory::new();
    let pools = pools(&fake);
    let gate = fake.hold_closes("acme");
    pools.acquire("acme").await.unwrap().discard();
    gate.reached(1).await;
    assert_eq!((pools.stats().closing, fake.open().now), (1, 1));
    gate.release();
    assert_closes_clean(&pools, &[&fake]).await;

    let pools = TenantPools::builder(DynFactory::new(fake.clone())).max_connections(4).close_timeout(ms(70));
    let pools = pools.build().unwrap();
    fake.on(Call::Close).always(Behavior::hangs());
    drop(pools.acquire("acme").await.unwrap());
    let start = tokio::time::Instant::now();
    pools.close().await;
    assert!((ms(70)..ms(75)).contains(&start.elapsed()), "it was told {:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn databases_are_made_and_dropped_where_the_driver_was_given_for_it() {
    let fake = FakeFactory::new();
    fake.set_databases::<&str>([]);
    let pools = TenantPools::builder(DynFactory::with_provision(fake.clone())).max_connections(4).build().unwrap();
    assert_eq!(pools.create("acme").await.unwrap(), Created::New);
    drop(pools.acquire("acme").await.unwrap());
    assert_eq!(pools.drop_database("acme").await.unwrap(), Dropped::Gone);
    fake.on(Call::Create).next(Behavior::fails(FailureKind::Auth));
    let error = pools.create("acme").await.unwrap_err();
    let ProvisionError::Failed { kind: FailureKind::Auth, source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.downcast_ref::<FakeError>().unwrap().call, Call::Create);
    assert_closes_clean(&pools, &[&fake]).await;
}

#[tokio::test(start_paused = true)]
async fn without_that_a_create_fails_and_says_what_to_do() {
    let fake = FakeFactory::new();
    let pools = pools(&fake);
    for error in [pools.create("acme").await.unwrap_err(), pools.drop_database("acme").await.unwrap_err()] {
        let ProvisionError::Failed { kind: FailureKind::Other, .. } = &error else { panic!("{error:?}") };
        assert!(chain(&error).last().unwrap().contains("with_provision"), "{:#?}", chain(&error));
    }
    assert_eq!((fake.calls(Call::Create).started, fake.calls(Call::DropDatabase).started), (0, 0));
    assert_eq!(pools.stats().open(), 0, "no permit stays behind");
}

/// What a service with one dynamic driver needs of the types.
#[test]
fn it_can_be_shared_cloned_and_shown() {
    fn is_factory<F: PoolFactory + Provision + Clone + std::fmt::Debug>(_: &F) {}
    fn is_send<T: Send + std::fmt::Debug>() {}
    let factory = DynFactory::new(FakeFactory::new());
    is_factory(&factory);
    is_send::<DynConnection>();
    is_send::<DynError>();
    assert!(format!("{factory:?}").contains("FakeFactory"));
    assert_eq!(format!("{:?}", DynFactory::route(move |_| factory.clone())), "DynFactory(a route)");
}

#[tokio::test]
async fn a_connections_debug_names_the_driver_and_the_tenant() {
    let tenant = TenantId::new("acme").unwrap();
    let connection = DynFactory::new(FakeFactory::new()).connect(&tenant).await.unwrap();
    let shown = format!("{connection:?}");
    assert!(shown.contains("FakeFactory") && shown.contains("acme"), "{shown}");
}
