//! Threads, panics and runtimes: a lease may be dropped anywhere, an acquire polled anywhere, and a runtime may go away.

use std::convert::Infallible;
use std::future::{IntoFuture, pending};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use tenantry_core::{AcquireError, FailureKind, Health, LimitScope, PoolFactory, SweepError, TenantId, TenantPools};
use tenantry_testkit::{Behavior, Call, Event, FakeFactory};
use tokio::runtime::{Builder, Runtime};

use crate::support::{assert_nothing_lost, block_on, hold, limit, manager, ms, secs, settle, soon, within};

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap()
}

#[test]
fn a_runtime_without_timers_is_refused_by_name() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let error = manager(&FakeFactory::new(), 3).runtime(runtime.handle().clone()).build().unwrap_err();
    assert_eq!(error.to_string(), "bad settings: runtime is \"without timers\": call enable_time on its builder");
}

#[tokio::test(start_paused = true)]
async fn a_lease_dropped_on_a_plain_thread_goes_back_as_what_it_is() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3).build().unwrap();
    let leases = hold(&pools, ["clean", "dirty", "broken"]).await;
    leases[1].leave_behind("a session setting");
    leases[2].set_health(Health::Broken);
    thread::spawn(move || drop(leases)).join().unwrap();
    soon(fake.ended(Call::Recycle, 1)).await;
    soon(fake.ended(Call::Close, 1)).await;
    settle().await;
    assert_eq!((pools.stats().idle, pools.stats().open()), (2, 2));
    assert!(pools.try_acquire("dirty").unwrap().left_behind().is_empty());
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_dropped_by_a_panic_goes_back() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 3).build().unwrap();
    let leases = hold(&pools, ["clean", "dirty", "broken"]).await;
    leases[1].set_health(Health::Dirty);
    leases[2].set_health(Health::Broken);
    let ended = thread::spawn(move || {
        let _leases = leases;
        panic!("as a handler would");
    });
    assert!(ended.join().is_err());
    let lease = pools.acquire("clean").await.unwrap();
    let ended = tokio::spawn(async move {
        let _lease = lease;
        panic!("as a task would");
    });
    assert!(ended.await.unwrap_err().is_panic());
    soon(fake.ended(Call::Close, 1)).await;
    settle().await;
    assert_eq!((pools.stats().idle, pools.stats().open()), (2, 2));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_during_a_panic_is_not_made_by_a_lease() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    lease.panic_when_asked();
    // A second panic while unwinding would abort the process.
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _lease = lease;
        panic!("first");
    }));
    assert!(unwound.is_err());
    soon(fake.ended(Call::Close, 1)).await;
    assert_nothing_lost(&pools, &fake).await;
}

/// What is not clean would need a task, and none can run: the connection is dropped in place, the permit is free.
#[test]
fn a_lease_dropped_after_its_runtime_is_dropped_in_place() {
    for health in [Health::Dirty, Health::Broken, Health::Lost] {
        let (fake, runtime) = (FakeFactory::new(), runtime());
        let pools = manager(&fake, 2).runtime(runtime.handle().clone()).build().unwrap();
        let lease = runtime.block_on(pools.acquire("acme")).unwrap();
        drop(runtime);
        lease.set_health(health);
        drop(lease);
        assert_eq!((fake.open().now, pools.stats().open()), (0, 0), "{health:?}");
        let events = fake.events();
        assert!(matches!(events.last(), Some(Event::Dropped { .. })), "{events:?}");
    }
}

/// A connection of a driver that is not at its best without a runtime.
struct Touchy;

impl Drop for Touchy {
    fn drop(&mut self) {
        panic!("dropped without a runtime");
    }
}

struct TouchyFactory(Health);

impl PoolFactory for TouchyFactory {
    type Connection = Touchy;
    type Error = Infallible;

    async fn connect(&self, _: &TenantId) -> Result<Touchy, Infallible> {
        Ok(Touchy)
    }

    fn health(&self, _: &mut Touchy) -> Health {
        self.0
    }

    async fn recycle(&self, _: &mut Touchy) -> Result<(), Infallible> {
        Ok(())
    }

    async fn close(&self, connection: Touchy, _: Duration) {
        drop(connection);
    }

    fn classify(&self, error: &Infallible) -> FailureKind {
        match *error {}
    }
}

#[test]
fn a_connection_whose_drop_panics_without_its_runtime_frees_its_permit() {
    for health in [Health::Clean, Health::Dirty, Health::Broken] {
        let runtime = runtime();
        let builder = TenantPools::builder(TouchyFactory(health)).max_connections(2);
        let pools = builder.runtime(runtime.handle().clone()).build().unwrap();
        let lease = runtime.block_on(pools.acquire("acme")).unwrap();
        drop(runtime);
        drop(lease);
        assert_eq!(pools.stats().open(), 0, "{health:?}");
        block_on(pools.close());
    }
}

#[test]
fn a_clean_lease_dropped_after_its_runtime_and_its_manager_is_dropped_in_place() {
    let (fake, runtime) = (FakeFactory::new(), runtime());
    let pools = manager(&fake, 2).runtime(runtime.handle().clone()).build().unwrap();
    let leases = runtime.block_on(hold(&pools, ["a", "b"]));
    drop(pools);
    drop(runtime);
    drop(leases);
    assert_eq!(fake.open().now, 0);
}

/// Nobody could close it later: a clean connection must not be kept either.
#[test]
fn a_clean_lease_dropped_after_its_runtime_leaves_no_connection_open() {
    let (fake, runtime) = (FakeFactory::new(), runtime());
    let pools = manager(&fake, 2).runtime(runtime.handle().clone()).build().unwrap();
    let lease = runtime.block_on(pools.acquire("acme")).unwrap();
    drop(runtime);
    drop(lease);
    assert_eq!((fake.open().now, pools.stats().open()), (0, 0));
}

#[test]
fn what_is_idle_when_the_runtime_goes_away_is_dropped_with_the_last_handle_at_the_latest() {
    let (fake, runtime) = (FakeFactory::new(), runtime());
    let pools = manager(&fake, 2).runtime(runtime.handle().clone()).build().unwrap();
    drop(runtime.block_on(hold(&pools, ["a", "b"])));
    drop(runtime);
    drop(pools);
    assert_eq!(fake.open().now, 0);
}

#[test]
fn connects_recycles_and_closes_that_die_with_their_runtime_free_their_permits() {
    let (fake, runtime) = (FakeFactory::new(), runtime());
    let pools = manager(&fake, 9).runtime(runtime.handle().clone()).build().unwrap();
    let gates = (fake.hold_connects("opening"), fake.hold_recycles("dirty"), fake.hold_closes("broken"));
    let asked = runtime.spawn(pools.acquire("opening"));
    runtime.block_on(async {
        let leases = hold(&pools, ["dirty", "broken"]).await;
        leases[0].set_health(Health::Dirty);
        leases[1].set_health(Health::Broken);
        drop(leases);
        (gates.0.reached(1).await, gates.1.reached(1).await, gates.2.reached(1).await)
    });
    assert_eq!(fake.open().now, 3);
    drop(runtime);
    assert_eq!((fake.open().now, pools.stats().open(), pools.stats().waiting), (0, 0, 0));
    assert!(block_on(asked).unwrap_err().is_cancelled());
}

#[test]
fn an_acquire_on_one_runtime_is_told_when_the_managers_own_goes_away() {
    let (fake, own, other) = (FakeFactory::new(), runtime(), runtime());
    let pools = manager(&fake, 1).runtime(own.handle().clone()).build().unwrap();
    let held = own.block_on(pools.acquire("acme")).unwrap();
    let waiting = other.spawn(pools.acquire("acme"));
    other.block_on(async {
        while pools.stats().waiting == 0 {
            tokio::task::yield_now().await;
        }
    });
    drop(own);
    let answer = other.block_on(waiting).expect("an answer and no panic");
    assert!(matches!(answer, Err(AcquireError::Closed)), "{answer:?}");
    drop(held);
    assert_eq!(fake.open().now, 0);
}

/// Whichever of its tasks is dropped first, which is another one from turn to turn.
#[test]
fn acquires_whose_connects_die_with_the_managers_runtime_are_told_that_it_is_closed() {
    for connects in 1..=16 {
        let (fake, own, other) = (FakeFactory::new(), runtime(), runtime());
        fake.on(Call::Connect).always(Behavior::hangs());
        let pools = manager(&fake, 16).max_connecting(16).runtime(own.handle().clone()).build().unwrap();
        let waiting: Vec<_> = (0..connects).map(|n| other.spawn(pools.acquire(format!("tenant-{n}")))).collect();
        own.block_on(fake.connects_reached(connects));
        drop(own);
        for answer in waiting {
            let answer = other.block_on(answer).expect("an answer and no panic");
            assert!(matches!(answer, Err(AcquireError::Closed)), "{answer:?}");
        }
    }
}

#[test]
fn after_its_runtime_is_gone_a_manager_answers_and_never_panics() {
    let (fake, own, other) = (FakeFactory::new(), runtime(), runtime());
    let pools = manager(&fake, 1).runtime(own.handle().clone()).build().unwrap();
    let held = own.block_on(pools.acquire("acme")).unwrap();
    drop(own);
    other.block_on(async {
        assert!(pools.acquire_with("acme", within(ms(10))).await.is_err());
        assert!(pools.acquire_with("other", within(ms(10))).await.is_err());
        assert!(pools.acquire_pool("acme", 1).await.is_err());
        assert!(pools.create("acme").await.is_err());
        drop(pools.stats());
        pools.evict("acme");
        let drained = pools.drain("acme", ms(10)).await;
        assert_eq!(drained.in_use, 1);
        assert_eq!(pools.close_within(ms(10)).await.in_use, 1);
    });
    drop(held);
    assert_eq!((fake.open().now, pools.stats().open()), (0, 0));
}

/// Polled by a thread that knows no runtime: cold, warm, waiting, refused.
#[test]
fn an_acquire_can_be_polled_outside_of_every_runtime() {
    let (fake, runtime) = (FakeFactory::new(), runtime());
    fake.on(Call::Connect).always(Behavior::after(ms(2)));
    let pools = manager(&fake, 2).runtime(runtime.handle().clone()).build().unwrap();
    let cold = block_on(pools.acquire("a")).unwrap();
    let other = block_on(pools.acquire("b")).unwrap();
    let error = limit(block_on(pools.acquire_with("c", within(ms(5)))));
    assert_eq!((error.scope, error.held_by_caller), (LimitScope::Total, 0));
    drop(cold);
    let warm = block_on(pools.acquire("a")).unwrap();
    assert_eq!(fake.calls(Call::Connect).started, 2);

    let waiting = pools.acquire("a");
    let served = thread::spawn(move || block_on(waiting).map(drop));
    while pools.stats().waiting == 0 {
        thread::yield_now();
    }
    drop(other);
    drop(warm);
    served.join().unwrap().unwrap();

    let pool = block_on(pools.acquire_pool("p", 2)).unwrap();
    block_on(pool.close());
    assert!(block_on(pools.drain("a", secs(5))).is_complete());
    assert!(matches!(block_on(pools.acquire("a")), Err(AcquireError::Draining { .. })));
    block_on(pools.close());
    assert_eq!(fake.open().now, 0);
}

#[test]
fn a_sweep_whose_runtime_goes_away_ends_and_calls_the_manager_closed() {
    let (runtime, fake) = (runtime(), FakeFactory::new());
    let pools = manager(&fake, 2).runtime(runtime.handle().clone()).build().unwrap();
    let (begun, begins) = channel();
    let sweep = pools.for_each_tenant(["a"], 1, move |lease| {
        let begun = begun.clone();
        async move {
            begun.send(()).unwrap();
            pending::<()>().await;
            drop(lease);
            Ok::<(), Infallible>(())
        }
    });
    let sweeping = thread::spawn(move || block_on(sweep.into_future()));
    begins.recv().unwrap();
    drop(runtime);
    let report = sweeping.join().unwrap();
    assert!(matches!(report.failed[..], [(_, SweepError::Acquire(AcquireError::Closed))]), "{report:?}");
}
