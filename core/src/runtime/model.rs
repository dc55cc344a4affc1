//! The other `Runtime`: the one of the models (`testkit/tests/loom`), which replaces `runtime.rs` under `tenantry_loom`.
//!
//! Tasks stand in a list until a thread of the model runs one with [`Tasks::run_one`], so that the model checker decides
//! when, and between which commands of whom. Time stands still until [`Tasks::pass`] moves it.
//!
//! The list is kept under a lock of the standard library, which is no point at which a model's threads can be exchanged:
//! what they race for is the ledger. Only to take a task is such a point, as a thread may be slow to do it.

use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Mutex as StdMutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;

use crate::ledger::{Moment, Time};
use crate::sync::{Arc, Mutex, lock};

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks of one manager, and its time.
#[derive(Clone)]
pub struct Tasks {
    list: Arc<StdMutex<List>>,
    turn: Arc<Mutex<()>>,
}

#[derive(Default)]
struct List {
    /// None while it is being polled.
    tasks: BTreeMap<u64, Option<Task>>,
    /// Those to be polled, in the order in which they were woken.
    ready: VecDeque<u64>,
    spawned: u64,
    gone: bool,
    now: Time,
    sleepers: Vec<(Time, Waker)>,
}

struct WakeTask {
    tasks: Tasks,
    number: u64,
}

impl Wake for WakeTask {
    fn wake(self: Arc<Self>) {
        let mut list = self.tasks.list();
        if list.tasks.contains_key(&self.number) && !list.ready.contains(&self.number) {
            list.ready.push_back(self.number);
        }
    }
}

impl Tasks {
    fn new() -> Self {
        Self { list: Arc::default(), turn: Arc::new(Mutex::new(())) }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the task that has been ready for longest. False where none is.
    #[must_use]
    pub fn run_one(&self) -> bool {
        if self.list().ready.is_empty() {
            return false;
        }
        drop(lock(&self.turn));
        let next = {
            let mut list = self.list();
            // One that is woken while another thread polls it stays ready for later.
            let at = list.ready.iter().position(|number| matches!(list.tasks.get(number), Some(Some(_))));
            let number = at.and_then(|at| list.ready.remove(at));
            number.and_then(|number| Some((number, list.tasks.get_mut(&number)?.take()?)))
        };
        let Some((number, mut task)) = next else { return false };
        let waker = Waker::from(Arc::new(WakeTask { tasks: self.clone(), number }));
        let pending = task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending();
        let mut list = self.list();
        if pending && !list.gone {
            list.tasks.insert(number, Some(task));
        } else {
            list.tasks.remove(&number);
            list.ready.retain(|&ready| ready != number);
            // What it holds may answer the ledger when it is dropped.
            drop(list);
            drop(task);
        }
        true
    }

    /// Tasks that have not ended.
    #[must_use]
    pub fn count(&self) -> usize {
        self.list().tasks.len()
    }

    /// Lets time pass, and wakes who slept for no longer.
    pub fn pass(&self, time: Duration) {
        let due: Vec<Waker> = {
            let mut list = self.list();
            list.now += time;
            let now = list.now;
            list.sleepers.extract_if(.., |(at, _)| *at <= now).map(|(_, waker)| waker).collect()
        };
        due.into_iter().for_each(Waker::wake);
    }

    /// The runtime goes away: every task is dropped where it stands, the oldest first.
    pub fn shut_down(&self) {
        self.list().gone = true;
        loop {
            let oldest = self.list().tasks.pop_first();
            if oldest.is_none() {
                return;
            }
        }
    }
}

/// What the manager sees of it.
pub(crate) struct Runtime {
    tasks: Tasks,
}

impl Runtime {
    /// The builder insists on a runtime of tokio; what runs here is the model's.
    pub(crate) fn new(_handle: Handle) -> Self {
        Self { tasks: Tasks::new() }
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(crate) fn coarse(&self) -> Moment {
        self.now().into()
    }

    pub(crate) fn now(&self) -> Time {
        self.tasks.list().now
    }

    /// Where the runtime is gone the future is dropped here and now.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let task: Task = Box::pin(task);
        let mut list = self.tasks.list();
        if !list.gone {
            let number = list.spawned;
            list.spawned += 1;
            list.tasks.insert(number, Some(task));
            list.ready.push_back(number);
        } else {
            drop(list);
            drop(task);
        }
    }

    pub(crate) async fn within<R>(&self, time: Duration, future: impl Future<Output = R>) -> Option<R> {
        let end = self.now().saturating_add(time);
        let mut future = pin!(future);
        poll_fn(|context| {
            if let Poll::Ready(result) = future.as_mut().poll(context) {
                return Poll::Ready(Some(result));
            }
            let mut list = self.tasks.list();
            if end <= list.now {
                return Poll::Ready(None);
            }
            if !list.sleepers.iter().any(|(at, sleeper)| *at == end && sleeper.will_wake(context.waker())) {
                list.sleepers.push((end, context.waker().clone()));
            }
            Poll::Pending
        })
        .await
    }

    /// The models let time pass when they mean to; nothing has to be stirred.
    pub(crate) fn stir(&self) {}

    pub(crate) async fn sleep_until_stirred(&self, time: Duration) {
        self.sleep(time).await;
    }

    /// There are no timers that could panic.
    pub(crate) fn is_gone(&self) {}

    pub(crate) async fn sleep(&self, time: Duration) {
        self.within(time, std::future::pending::<()>()).await;
    }
}

/// A model's time needs none.
pub(crate) fn has_timers(_: &Handle) -> bool {
    true
}

/// The models' threads are no tasks.
pub(crate) fn current_task() -> u64 {
    0
}

/// Only for errors that people read.
#[allow(clippy::disallowed_methods, reason = "nothing is decided by it")]
pub(crate) fn time_of_day() -> SystemTime {
    SystemTime::now()
}

/// A schedule must run the same way twice.
pub(crate) fn random() -> u64 {
    0
}
