//! What the models share: a manager over a tiny driver, threads that run its tasks, and what must hold at the end.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tenantry_core::{AcquireError, Builder, Lease, Stats, Tasks, TenantPools};

use crate::tiny::{Seen, Tiny};

pub(crate) type Pools = TenantPools<Tiny>;
pub(crate) type TinyLease = Lease<Tiny>;
pub(crate) type Acquired = Result<TinyLease, AcquireError<std::convert::Infallible>>;
pub(crate) type Acquiring = Pin<Box<dyn Future<Output = Acquired> + Send>>;
pub(crate) type Actor = Box<dyn FnOnce() + Send>;

/// Two threads, in every order.
pub(crate) fn two_threads(model: impl Fn() + Send + Sync + 'static) {
    explore(None, model);
}

/// Three threads, in every order with at most three preemptions.
pub(crate) fn three_threads(model: impl Fn() + Send + Sync + 'static) {
    explore(Some(3), model);
}

fn explore(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    runtime();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(preemptions);
    builder.max_branches = 10_000;
    let schedules = Arc::new(AtomicUsize::new(0));
    let counted = schedules.clone();
    builder.check(move || {
        counted.fetch_add(1, Ordering::Relaxed);
        model();
    });
    println!("{} schedules", schedules.load(Ordering::Relaxed));
}

/// For the builder, which insists on one. Nothing runs on it.
fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| tokio::runtime::Builder::new_current_thread().build().unwrap())
}

/// A manager, and what is needed to judge it.
pub(crate) struct World {
    pub(crate) pools: Pools,
    pub(crate) tasks: Tasks,
    pub(crate) seen: Seen,
}

impl World {
    pub(crate) fn new(budget: u32) -> Self {
        Self::with(budget, false, |builder| builder)
    }

    /// Connects and closes take two polls.
    pub(crate) fn slow(budget: u32) -> Self {
        Self::with(budget, true, |builder| builder)
    }

    pub(crate) fn with(budget: u32, slow: bool, set: impl FnOnce(Builder<Tiny>) -> Builder<Tiny>) -> Self {
        let seen = Seen::with_cap(budget);
        let builder = TenantPools::builder(Tiny { seen: seen.clone(), slow });
        let builder = builder.runtime(runtime().handle().clone()).max_connections(budget).max_connecting(budget);
        let pools = set(builder).build().unwrap();
        let tasks = pools.tasks();
        run_all(&tasks);
        Self { pools, tasks, seen }
    }

    /// A lease on a new connection, or on an idle one.
    pub(crate) fn lease(&self, tenant: &str) -> TinyLease {
        block_on(&self.tasks, self.pools.acquire(tenant)).unwrap()
    }

    /// Leaves the tenant with an idle connection.
    pub(crate) fn warm(&self, tenant: &str) {
        drop(self.lease(tenant));
    }

    pub(crate) fn acquiring(&self, tenant: &str) -> Acquiring {
        Box::pin(self.pools.acquire(tenant))
    }

    /// A thread's work: an acquire to its end.
    pub(crate) fn acquire(&self, tenant: &'static str) -> Actor {
        let (pools, tasks) = (self.pools.clone(), self.tasks.clone());
        Box::new(move || drop(block_on(&tasks, pools.acquire(tenant)).unwrap()))
    }

    /// A thread's work with the manager and its tasks.
    pub(crate) fn actor(&self, work: impl FnOnce(Pools, Tasks) + Send + 'static) -> Actor {
        let (pools, tasks) = (self.pools.clone(), self.tasks.clone());
        Box::new(move || work(pools, tasks))
    }

    /// The same, for work that does not begin at the ledger: whenever a thread may look at it, this one may begin.
    pub(crate) fn later(&self, work: impl FnOnce(Pools, Tasks) + Send + 'static) -> Actor {
        self.actor(|pools, tasks| {
            pools.check();
            work(pools, tasks);
        })
    }

    /// Runs each on a thread of its own, the last one on this. Whatever a thread left to do is done by somebody.
    pub(crate) fn race<const N: usize>(&self, actors: [Actor; N]) {
        let mut actors: Vec<Actor> = actors.into();
        let mine = actors.pop();
        let threads: Vec<_> = actors
            .into_iter()
            .map(|actor| {
                let tasks = self.tasks.clone();
                loom::thread::spawn(move || {
                    actor();
                    run_all(&tasks);
                })
            })
            .collect();
        if let Some(mine) = mine {
            mine();
        }
        run_all(&self.tasks);
        for thread in threads {
            thread.join().unwrap();
        }
    }

    /// Nothing is under way any more, and what is idle is what is open.
    pub(crate) fn at_rest(&self) -> Stats {
        run_all(&self.tasks);
        self.pools.check();
        let stats = self.pools.stats();
        let busy = [stats.opening, stats.in_use, stats.closing, stats.pool_leased, stats.waiting, stats.overdue];
        assert_eq!(busy, [0; 6], "{stats:?}");
        assert_eq!(stats.idle, u64::from(self.seen.open()), "a connection is open that nobody knows");
        stats
    }

    /// The end of a model: at rest, every permit can still be had, then everything closes and nothing is left.
    pub(crate) fn end(self) {
        if !self.at_rest().closed {
            let budget = self.pools.stats().max;
            let all: Vec<TinyLease> = (0..budget).map(|number| self.lease(&format!("end-{number}"))).collect();
            drop(all);
        }
        self.end_closed();
    }

    pub(crate) fn end_closed(self) {
        block_on(&self.tasks, self.pools.close());
        let stats = self.at_rest();
        assert_eq!((stats.idle, stats.closed), (0, true));
        assert_eq!(self.seen.dropped(), 0, "a connection was dropped and never closed");
        // The maintenance task sees the end at its next look.
        self.tasks.pass(Duration::from_secs(1));
        run_all(&self.tasks);
        self.gone();
    }

    pub(crate) fn gone(self) {
        let Self { pools, tasks, seen } = self;
        drop(pools);
        assert_gone(&tasks, &seen);
    }
}

/// No task, no connection and nothing of the manager is left.
pub(crate) fn assert_gone(tasks: &Tasks, seen: &Seen) {
    assert_eq!(tasks.count(), 0, "a task goes on");
    assert_eq!(seen.open(), 0, "a connection is open");
    assert!(seen.is_last(), "the manager was never dropped");
}

/// Runs tasks while there is one.
pub(crate) fn run_all(tasks: &Tasks) {
    while tasks.run_one() {}
}

/// Wakes one thread. loom forgets an `unpark` when a mutex that its thread is about to lock is released meanwhile, so
/// the word is kept here.
struct Bell {
    thread: loom::thread::Thread,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.store(true, Ordering::SeqCst);
        self.thread.unpark();
    }
}

impl Bell {
    fn new() -> Arc<Self> {
        Arc::new(Self { thread: loom::thread::current(), rung: AtomicBool::new(false) })
    }

    fn wait(&self) {
        while !self.rung.swap(false, Ordering::SeqCst) {
            loom::thread::park();
        }
    }
}

/// Drives a future on this thread, and the manager's tasks while it waits.
pub(crate) fn block_on<R>(tasks: &Tasks, future: impl Future<Output = R>) -> R {
    let bell = Bell::new();
    let waker = Waker::from(bell.clone());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(result) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return result;
        }
        run_all(tasks);
        bell.wait();
    }
}

/// Polls once, with a waker that nobody hears.
pub(crate) fn poll_once<R>(future: Pin<&mut (impl Future<Output = R> + ?Sized)>) -> Poll<R> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
