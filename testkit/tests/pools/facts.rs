//! What the types promise: who may be sent where, who needs no bounds, what errors give and what they never show.

use std::cell::Cell;
use std::error::Error;
use std::fmt::Debug;
use std::future::{Future, ready};
use std::time::Duration;

use tenantry_core::{
    AcquireError, AcquireOptions, Builder, Created, Dropped, FailureKind, Health, Lease, LimitError, NativePool,
    PoolFactory, PoolLease, Provision, ProvisionError, TenantId, TenantPools, TryAcquireError,
};
use tenantry_testkit::{Behavior, Call, FakeError, FakeFactory};
use tokio::task::JoinSet;

use crate::support::{hold, limit, manager, ms, within};

const SECRET: &str = "hunter2";

/// A driver of which nothing is more than it must be: no `Debug`, no `Clone`, a connection that is `Send` only; and
/// everything knows the secret.
struct Plain {
    password: &'static str,
}

struct SendOnly {
    password: Cell<&'static str>,
}

#[derive(Clone)]
struct PlainPool;

#[derive(Debug, thiserror::Error)]
#[error("the driver's own words")]
struct PlainError;

impl PoolFactory for Plain {
    type Connection = SendOnly;
    type Error = PlainError;

    async fn connect(&self, tenant: &TenantId) -> Result<SendOnly, PlainError> {
        if tenant.as_str() == "fails" { Err(PlainError) } else { Ok(SendOnly { password: Cell::new(self.password) }) }
    }

    fn health(&self, _: &mut SendOnly) -> Health {
        Health::Clean
    }

    async fn recycle(&self, _: &mut SendOnly) -> Result<(), PlainError> {
        Ok(())
    }

    async fn close(&self, _: SendOnly, _: Duration) {}

    fn classify(&self, _: &PlainError) -> FailureKind {
        FailureKind::Auth
    }
}

impl NativePool for Plain {
    type Pool = PlainPool;

    fn open_pool(&self, _: &TenantId, _: u32) -> impl Future<Output = Result<PlainPool, PlainError>> + Send {
        ready(Ok(PlainPool))
    }

    async fn close_pool(&self, _: PlainPool) {}
}

impl Provision for Plain {
    async fn create(&self, _: &TenantId) -> Result<Created, PlainError> {
        Err(PlainError)
    }

    async fn drop_database(&self, _: &TenantId) -> Result<Dropped, PlainError> {
        Ok(Dropped::WasAbsent)
    }
}

const fn is_send<T: Send>() {}
const fn is_send_and_sync<T: Send + Sync>() {}
const fn is_debug<T: Debug>() {}
const fn is_error<T: Error + Send + Sync + 'static>() {}

/// Compile-time only: for every driver there may be.
const fn whatever_the_driver<F: PoolFactory + NativePool>() {
    is_send_and_sync::<TenantPools<F>>();
    is_send::<Lease<F>>();
    is_send_and_sync::<PoolLease<F>>();
    is_debug::<TenantPools<F>>();
    is_debug::<Lease<F>>();
    is_debug::<PoolLease<F>>();
    is_debug::<Builder<F>>();
    is_error::<AcquireError<F::Error>>();
    is_error::<ProvisionError<F::Error>>();
    is_error::<LimitError>();
    is_error::<TryAcquireError>();
}

const fn where_the_connection_is_sync<F: PoolFactory>()
where
    F::Connection: Sync,
{
    is_send_and_sync::<Lease<F>>();
}

const _: () = {
    whatever_the_driver::<Plain>();
    whatever_the_driver::<FakeFactory>();
    where_the_connection_is_sync::<FakeFactory>();
};

/// A lease is not more than its connection: `MaybeSync` has one candidate for `f` only where the type is not `Sync`.
#[test]
fn a_lease_is_not_sync_where_its_connection_is_not() {
    trait MaybeSync<Which> {
        fn answers() -> bool {
            true
        }
    }
    struct WhenSync;
    impl<T: ?Sized> MaybeSync<()> for T {}
    impl<T: ?Sized + Sync> MaybeSync<WhenSync> for T {}
    // Were it `Sync`, this would be ambiguous and would not compile.
    assert!(<Lease<Plain> as MaybeSync<_>>::answers());
}

/// Everything that a handler does in a task of its own, with a name that lives shorter than the future.
#[tokio::test(start_paused = true)]
async fn every_future_that_asks_for_something_goes_into_a_task() {
    fn asks<F: NativePool + Provision>(pools: &TenantPools<F>, tasks: &mut JoinSet<()>) {
        let name = String::from("acme");
        let options = AcquireOptions::new().timeout(ms(100));
        let (acquire, with) = (pools.acquire(&name), pools.acquire_with(name.as_str(), options));
        let (pool, pool_with) = (pools.acquire_pool(&name, 1), pools.acquire_pool_with(name.clone(), 1, options));
        let (create, drop_database) = (pools.create(&name), pools.drop_database(&name));
        drop(name);
        tasks.spawn(async move { drop(acquire.await) });
        tasks.spawn(async move { drop(with.await) });
        tasks.spawn(async move { drop(pool.await) });
        tasks.spawn(async move { drop(pool_with.await) });
        tasks.spawn(async move { drop(create.await) });
        tasks.spawn(async move { drop(drop_database.await) });
        let pools = pools.clone();
        tasks.spawn(async move {
            let id: TenantId = "acme".parse().unwrap();
            assert!(!pools.drain(&id, ms(0)).await.is_complete() || pools.resume(&id));
            pools.close_within(ms(1)).await;
            pools.close().await;
        });
    }
    let mut tasks = JoinSet::new();
    asks(&manager(&FakeFactory::new(), 5).build().unwrap(), &mut tasks);
    asks(&TenantPools::builder(Plain { password: SECRET }).max_connections(5).build().unwrap(), &mut tasks);
    assert_eq!(tasks.join_all().await.len(), 14);
}

/// A lease is held across an await in a task, and handed down as what it derefs to.
#[tokio::test(start_paused = true)]
async fn a_lease_is_a_connection_to_whoever_takes_one() {
    async fn work(connection: &mut tenantry_testkit::FakeConnection) -> Result<u64, FakeError> {
        connection.query().await?;
        Ok(connection.id())
    }
    let pools = manager(&FakeFactory::new(), 5).build().unwrap();
    let task = tokio::spawn(async move {
        let mut lease = pools.acquire("acme").await.unwrap();
        work(&mut lease).await
    });
    assert_eq!(task.await.unwrap(), Ok(1));
}

#[tokio::test(start_paused = true)]
async fn the_source_of_an_error_is_the_drivers_own_and_not_a_pointer_to_it() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 5).build().unwrap();
    fake.on(Call::Connect).next(Behavior::fails(FailureKind::Auth));
    let connect = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(connect, AcquireError::Connect { .. }));
    let unavailable = pools.acquire("acme").await.unwrap_err();
    assert!(matches!(unavailable, AcquireError::Unavailable { .. }));
    for error in [connect, unavailable] {
        let boxed: Box<dyn Error + Send + Sync> = error.into();
        let source = boxed.source().unwrap().downcast_ref::<FakeError>().unwrap();
        assert_eq!(source.kind, FailureKind::Auth);
    }
    fake.on(Call::Create).next(Behavior::fails(FailureKind::Auth));
    let failed = pools.create("acme").await.unwrap_err();
    assert!(failed.source().unwrap().downcast_ref::<FakeError>().is_some());
    let held = hold(&pools, ["a", "a", "a", "a", "a"]).await;
    let limit = pools.acquire_with("a", within(ms(1))).await.unwrap_err();
    assert!(limit.source().unwrap().downcast_ref::<LimitError>().is_some());
    drop(held);
}

#[tokio::test(start_paused = true)]
async fn no_message_repeats_the_text_of_its_source() {
    let pools = TenantPools::builder(Plain { password: SECRET }).max_connections(1).build().unwrap();
    let connect: Box<dyn Error> = pools.acquire("fails").await.unwrap_err().into();
    let unavailable: Box<dyn Error> = pools.acquire("fails").await.unwrap_err().into();
    let failed: Box<dyn Error> = pools.create("acme").await.unwrap_err().into();
    let held = pools.acquire("held").await.unwrap();
    let limit: Box<dyn Error> = pools.acquire_with("other", within(ms(1))).await.unwrap_err().into();
    let permit: Box<dyn Error> = pools.create("other").await.unwrap_err().into();
    for error in [connect, unavailable, failed, limit, permit] {
        let source = error.source().unwrap();
        assert!(!error.to_string().contains(&source.to_string()), "{error} / {source}");
    }
    drop(held);
}

/// Nothing of the driver's is printed, so that nothing secret can be.
#[tokio::test(start_paused = true)]
async fn neither_debug_nor_display_shows_what_the_driver_knows() {
    let builder = TenantPools::builder(Plain { password: SECRET }).max_connections(2);
    let mut printed = format!("{builder:?}");
    let pools = builder.build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    assert_eq!(lease.password.get(), SECRET);
    assert!(format!("{lease:?}").contains("acme"));
    let pool = pools.acquire_pool("pool", 1).await.unwrap();
    assert!(format!("{pool:?}").contains("\"pool\", max_connections: 1"));
    assert!(format!("{pools:?}").contains("open: 2"));
    let sweep = pools.for_each_tenant(["acme"], 4, |_| async { Ok::<(), FakeError>(()) });
    assert!(format!("{sweep:?}").contains("tenants: 1, concurrency: 4"));
    printed += &format!("{pools:?} {lease:?} {pool:?} {:?} {:?}", pools.stats(), pools.tenant_stats("acme"));
    let refused = pools.acquire_with("other", within(ms(1))).await;
    printed += &format!("{refused:?}");
    let limit = limit(refused);
    printed += &format!("{limit:?} {limit}");
    drop(lease);
    let failed = pools.acquire("fails").await.unwrap_err();
    printed += &format!("{failed:?} {failed} {:?}", pools.close_within(ms(1)).await);
    assert!(printed.contains("acme") && !printed.contains(SECRET), "{printed}");
}

/// Review, finding 10: wrapped or not, capital or small, with or without context.
#[tokio::test(start_paused = true)]
async fn every_message_names_its_tenant_begins_small_and_ends_without_a_full_stop() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).connect_timeout(ms(20)).build().unwrap();
    let mut errors: Vec<(Box<dyn Error>, bool)> = Vec::new();
    fake.on(Call::Connect).next(Behavior::fails(FailureKind::Unreachable));
    errors.push((pools.acquire("acme").await.unwrap_err().into(), true));
    errors.push((pools.acquire("acme").await.unwrap_err().into(), true));
    fake.on(Call::Connect).next(Behavior::hangs());
    errors.push((pools.acquire("acme-2").await.unwrap_err().into(), true));
    for behavior in [Behavior::fails(FailureKind::Auth), Behavior::panics()] {
        fake.on(Call::Create).next(behavior);
        errors.push((pools.create("acme-3").await.unwrap_err().into(), true));
    }
    let held = pools.acquire("busy").await.unwrap();
    let limit = limit(pools.acquire_with("acme-4", within(ms(1))).await);
    errors.push((limit.into(), true));
    errors.push((pools.acquire_with("acme-4", within(ms(1))).await.unwrap_err().into(), false));
    errors.push((pools.try_acquire("acme").unwrap_err().into(), false));
    errors.push((pools.acquire("").await.unwrap_err().into(), false));
    drop(held);
    pools.drain("acme-5", ms(1)).await;
    errors.push((pools.acquire("acme-5").await.unwrap_err().into(), true));
    pools.close().await;
    errors.push((pools.acquire("acme").await.unwrap_err().into(), false));
    errors.push((manager(&fake, 0).build().unwrap_err().into(), false));
    for (error, names_its_tenant) in errors {
        let text = error.to_string();
        assert!(text.starts_with(char::is_lowercase) && !text.ends_with('.'), "{text}");
        assert!(!names_its_tenant || text.contains("\"acme"), "{text}");
    }
}
