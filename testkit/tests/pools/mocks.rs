//! What is called, how often and in which order, over a mock: opened once, closed exactly once, never under a lease.

use std::cell::Cell;
use std::future::ready;
use std::panic;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use mockall::predicate::{always, eq, function};
use mockall::{Sequence, mock};
use tenantry_core::{FailureKind, Health, PoolFactory, ServerId, TenantId, TenantPools};
use tokio::time::sleep;

use crate::support::{ms, secs};

/// Connection number so and so.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Numbered(u64);

#[derive(Debug, thiserror::Error)]
#[error("the mock refuses")]
pub(crate) struct Refused;

mock! {
    Driver {}

    impl PoolFactory for Driver {
        type Connection = Numbered;
        type Error = Refused;

        fn server(&self, tenant: &TenantId) -> ServerId;
        fn connect(&self, tenant: &TenantId) -> impl Future<Output = Result<Numbered, Refused>> + Send;
        fn health(&self, connection: &mut Numbered) -> Health;
        fn recycle(&self, connection: &mut Numbered) -> impl Future<Output = Result<(), Refused>> + Send;
        fn close(&self, connection: Numbered, within: Duration) -> impl Future<Output = ()> + Send;
        fn classify(&self, error: &Refused) -> FailureKind;
        fn max_per_tenant(&self) -> Option<u32>;
    }
}

thread_local! {
    /// Panics on this thread, where a test's whole runtime lives.
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// A mock that nothing is expected of yet. A call that it does not expect panics in a task of the manager's, where it
/// would be lost; so panics are counted.
fn bare() -> MockDriver {
    static COUNTING: Once = Once::new();
    COUNTING.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    PANICS.set(0);
    MockDriver::new()
}

/// A mock of which only the calls that the test is about are left to say.
fn driver() -> MockDriver {
    let mut driver = bare();
    driver.expect_max_per_tenant().return_const(None);
    driver.expect_server().returning(|_| ServerId::default());
    driver
}

/// The mock checks that nothing is missing when it is dropped, which must happen in the test itself to fail it.
async fn verify(pools: TenantPools<MockDriver>) {
    verify_with(pools, 0).await;
}

async fn verify_with(pools: TenantPools<MockDriver>, panics: u32) {
    pools.close().await;
    // The manager's own task ends with its next tick and lets go of the factory.
    sleep(secs(5)).await;
    assert_eq!(PANICS.get(), panics, "a call that was not expected");
    drop(pools);
}

fn numbered() -> impl FnMut(&TenantId) -> std::pin::Pin<Box<dyn Future<Output = Result<Numbered, Refused>> + Send>> {
    let mut number = 0;
    move |_| {
        number += 1;
        Box::pin(ready(Ok(Numbered(number))))
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_opened_once_and_closed_exactly_once() {
    let mut driver = driver();
    driver.expect_health().return_const(Health::Clean);
    driver.expect_connect().times(1).returning(numbered());
    driver.expect_recycle().never();
    driver.expect_close().with(eq(Numbered(1)), always()).times(1).returning(|_, _| Box::pin(ready(())));
    let pools = TenantPools::builder(driver).max_connections(5).build().unwrap();
    for _ in 0..100 {
        drop(pools.acquire("acme").await.unwrap());
    }
    verify(pools).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_called_before_the_first_acquire_but_the_default_cap() {
    let mut driver = bare();
    driver.expect_max_per_tenant().times(1).return_const(None);
    driver.expect_server().never();
    driver.expect_connect().never();
    driver.expect_close().never();
    let pools = TenantPools::builder(driver).max_connections(5).build().unwrap();
    drop(pools.acquire("never polled"));
    assert!(pools.try_acquire("acme").is_err());
    assert_eq!(pools.evict("acme"), 0);
    verify(pools).await;
}

#[tokio::test(start_paused = true)]
async fn the_server_is_asked_at_first_sight_and_at_resume_and_never_again() {
    let mut driver = bare();
    driver.expect_max_per_tenant().return_const(None);
    driver.expect_server().times(2).returning(|_| ServerId::default());
    driver.expect_health().return_const(Health::Clean);
    driver.expect_connect().times(2).returning(numbered());
    driver.expect_close().times(2).returning(|_, _| Box::pin(ready(())));
    let pools = TenantPools::builder(driver).max_connections(5).build().unwrap();
    for _ in 0..10 {
        drop(pools.acquire("acme").await.unwrap());
    }
    assert!(pools.drain("acme", secs(1)).await.is_complete());
    assert!(pools.resume("acme"));
    for _ in 0..10 {
        drop(pools.acquire("acme").await.unwrap());
    }
    verify(pools).await;
}

#[tokio::test(start_paused = true)]
async fn health_is_asked_once_at_release_and_once_at_hand_out() {
    let mut driver = driver();
    // Opened and released: one. Handed out and released, three times: six.
    driver.expect_health().times(7).return_const(Health::Clean);
    driver.expect_connect().times(1).returning(numbered());
    driver.expect_close().times(1).returning(|_, _| Box::pin(ready(())));
    let pools = TenantPools::builder(driver).max_connections(5).build().unwrap();
    for _ in 0..4 {
        drop(pools.acquire("acme").await.unwrap());
    }
    verify(pools).await;
}

#[tokio::test(start_paused = true)]
async fn a_victim_is_closed_before_the_cold_tenant_is_connected() {
    let mut driver = driver();
    let mut order = Sequence::new();
    let tenant = |name: &'static str| function(move |tenant: &TenantId| tenant.as_str() == name);
    driver.expect_health().return_const(Health::Clean);
    let connect = |number| move |_: &TenantId| Box::pin(ready(Ok(Numbered(number)))) as _;
    driver.expect_connect().with(tenant("a")).times(1).in_sequence(&mut order).returning(connect(1));
    driver.expect_connect().with(tenant("b")).times(1).in_sequence(&mut order).returning(connect(2));
    driver
        .expect_close()
        .with(eq(Numbered(1)), always())
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _| Box::pin(sleep(ms(20))));
    driver.expect_connect().with(tenant("c")).times(1).in_sequence(&mut order).returning(connect(3));
    driver.expect_close().times(2).in_sequence(&mut order).returning(|_, _| Box::pin(ready(())));
    let pools = TenantPools::builder(driver).max_connections(2).build().unwrap();
    for name in ["a", "b", "c"] {
        drop(pools.acquire(name).await.unwrap());
    }
    verify(pools).await;
}

#[tokio::test(start_paused = true)]
async fn nothing_closes_a_connection_while_its_lease_is_out() {
    let out = Arc::new(AtomicBool::new(true));
    let mut driver = driver();
    driver.expect_health().return_const(Health::Clean);
    driver.expect_connect().times(6).returning(numbered());
    let lease_is_out = out.clone();
    driver
        .expect_close()
        .withf(move |connection, _| !(connection.0 == 1 && lease_is_out.load(Ordering::SeqCst)))
        .times(6)
        .returning(|_, _| Box::pin(ready(())));
    let pools =
        TenantPools::builder(driver).max_connections(2).idle_timeout(secs(1)).max_lifetime(secs(10)).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    assert_eq!(lease.0, 1);
    for cold in 0..5 {
        drop(pools.acquire(format!("cold-{cold}")).await.unwrap());
    }
    pools.evict("acme");
    sleep(secs(60)).await;
    pools.drain("acme", ms(10)).await;
    assert!(!pools.close_within(ms(10)).await.is_complete());
    out.store(false, Ordering::SeqCst);
    drop(lease);
    verify(pools).await;
}

#[tokio::test(start_paused = true)]
async fn a_dirty_connection_is_recycled_once_and_a_failed_recycle_closes_it() {
    let mut driver = driver();
    driver.expect_health().return_const(Health::Clean);
    driver.expect_connect().times(2).returning(numbered());
    driver.expect_classify().times(1).returning(|_| FailureKind::Other);
    let mut recycles = 0;
    driver.expect_recycle().times(2).returning(move |connection| {
        recycles += 1;
        assert_eq!(connection.0, 1);
        Box::pin(ready(if recycles == 1 { Ok(()) } else { Err(Refused) }))
    });
    driver.expect_close().times(2).returning(|_, _| Box::pin(ready(())));
    let pools = TenantPools::builder(driver).max_connections(1).build().unwrap();
    for expected in [1, 1, 2] {
        let mut lease = pools.acquire("acme").await.unwrap();
        assert_eq!(lease.0, expected);
        if expected == 1 {
            lease.mark_dirty();
        }
    }
    verify(pools).await;
}

#[tokio::test(start_paused = true)]
async fn the_driver_is_told_close_timeout() {
    let mut driver = driver();
    driver.expect_health().return_const(Health::Clean);
    driver.expect_connect().returning(numbered());
    driver.expect_close().with(always(), eq(ms(1_234))).times(1).returning(|_, _| Box::pin(ready(())));
    let pools = TenantPools::builder(driver).max_connections(1).close_timeout(ms(1_234)).build().unwrap();
    pools.acquire("acme").await.unwrap().discard();
    verify(pools).await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_connect_is_classified_once_and_nothing_is_closed_for_it() {
    let mut driver = driver();
    driver.expect_connect().times(1).returning(|_| Box::pin(ready(Err(Refused))));
    driver.expect_classify().times(1).return_const(FailureKind::Auth);
    driver.expect_close().never();
    let pools = TenantPools::builder(driver).max_connections(1).build().unwrap();
    assert!(pools.acquire("acme").await.is_err());
    verify(pools).await;
}

/// Also a `classify` that panics, as anybody's code may.
#[tokio::test(start_paused = true)]
async fn a_classify_that_panics_loses_no_permit() {
    let calls = Arc::new(AtomicU64::new(0));
    let mut driver = driver();
    driver.expect_health().return_const(Health::Clean);
    let connects = calls.clone();
    driver.expect_connect().returning(move |_| {
        let first = connects.fetch_add(1, Ordering::SeqCst) == 0;
        Box::pin(ready(if first { Err(Refused) } else { Ok(Numbered(1)) }))
    });
    driver.expect_classify().times(1).returning(|_| panic!("as anybody's code may"));
    driver.expect_close().times(1).returning(|_, _| Box::pin(ready(())));
    let pools = TenantPools::builder(driver).max_connections(1).build().unwrap();
    let error = pools.acquire("acme").await.unwrap_err();
    sleep(error.retry_after().unwrap()).await;
    drop(pools.acquire("acme").await.unwrap());
    verify_with(pools, 1).await;
}
