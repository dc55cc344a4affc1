//! What the tests of this folder share: a builder that is in nobody's way, short words for waiting, and the final
//! audit. Every claim about connections is read from the fake, never from the manager alone.

use std::fmt::Debug;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use tenantry_core::{AcquireError, AcquireOptions, Builder, Lease, LimitError, TenantPools};
use tenantry_testkit::FakeFactory;
use tenantry_testkit::fake::FakeHandle;

pub(crate) type Pools = TenantPools<FakeFactory>;
pub(crate) type FakeLease = Lease<FakeFactory>;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn within(time: Duration) -> AcquireOptions {
    AcquireOptions::new().timeout(time)
}

/// A budget, and as many connects at once as it allows.
pub(crate) fn manager(fake: &FakeFactory, budget: u32) -> Builder<FakeFactory> {
    TenantPools::builder(fake.clone()).max_connections(budget).max_connecting(budget)
}

/// Leaves the tenant with an idle connection, the newest of all.
pub(crate) async fn warm(pools: &Pools, tenant: &str) -> FakeHandle {
    let lease = pools.acquire(tenant).await.unwrap();
    assert_eq!(lease.tenant().as_str(), tenant);
    lease.handle()
}

/// One lease for each name.
pub(crate) async fn hold<'a>(pools: &Pools, tenants: impl IntoIterator<Item = &'a str>) -> Vec<FakeLease> {
    let mut leases = Vec::new();
    for tenant in tenants {
        leases.push(pools.acquire(tenant).await.unwrap());
    }
    leases
}

/// A lease on each of so many tenants, `{prefix}-0` and on.
pub(crate) async fn hold_many(pools: &Pools, prefix: &str, count: u32) -> Vec<FakeLease> {
    let mut leases = Vec::new();
    for number in 0..count {
        leases.push(pools.acquire(format!("{prefix}-{number}")).await.unwrap());
    }
    leases
}

/// Lets every task that can run do so. Only under a paused clock, where it takes no time.
pub(crate) async fn settle() {
    tokio::time::sleep(ms(1)).await;
}

/// What must come of itself, and not because something idle grew old or a deadline passed. Only under a paused clock.
pub(crate) async fn soon<R>(future: impl Future<Output = R>) -> R {
    tokio::time::timeout(ms(50), future).await.expect("it did not happen of itself")
}

/// Polls once, with a waker that nobody hears.
pub(crate) fn poll_once<R>(future: Pin<&mut (impl Future<Output = R> + ?Sized)>) -> Poll<R> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Drives a future on this thread, outside of every runtime.
pub(crate) fn block_on<R>(future: impl Future<Output = R>) -> R {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// The limit error that must have come of an acquire.
#[track_caller]
pub(crate) fn limit<L, E: Debug>(result: Result<L, AcquireError<E>>) -> LimitError {
    match result {
        Ok(_) => panic!("it was served"),
        Err(AcquireError::Limit(limit)) => limit,
        Err(other) => panic!("refused, but not for a limit: {other:?}"),
    }
}

/// A deadline is kept to tokio's millisecond.
#[track_caller]
pub(crate) fn assert_about(actual: Duration, expected: Duration) {
    assert!(actual >= expected && actual <= expected + ms(2), "{actual:?} instead of {expected:?}");
}

/// No permit is lost: the whole budget can be held at once, by as many tenants. Then no connection is left open.
///
/// Only for managers without reserves, and with nothing out.
pub(crate) async fn assert_nothing_lost(pools: &Pools, fake: &FakeFactory) {
    let budget = pools.stats().max;
    let leases = hold_many(pools, "audit", u32::try_from(budget).unwrap()).await;
    assert_eq!(fake.open().now, budget, "every permit stands for one connection");
    assert!(fake.open().most <= budget, "{} places of {budget}", fake.open().most);
    drop(leases);
    assert_closes_clean(pools, fake).await;
}

pub(crate) async fn assert_closes_clean(pools: &Pools, fake: &FakeFactory) {
    let report = pools.close_within(secs(60)).await;
    assert!(report.is_complete(), "{report:?}");
    assert_eq!(fake.open().now, 0);
    fake.assert_no_misuse();
}
