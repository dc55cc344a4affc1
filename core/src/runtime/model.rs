//! The other `Runtime`: the one of the models (`testkit/tests/loom`), which replaces `runtime.rs` under `tenantry_loom`.
//!
//! Tasks stand in a list until a thread of the model runs one with [`Tasks::run_one`], so that the model checker decides
//! when, and between which commands of whom. Time stands still until [`Tasks::pass`] moves it. Neither is what is being
//! checked: the list's own lock is the standard library's and is never held while anything else runs, so that it adds no
//! schedules of its own.

use std::collections::{HashMap, VecDeque};
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;

use crate::ledger::Time;

type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The tasks of one manager, and its time.
#[derive(Clone, Default)]
pub struct Tasks(Arc<Mutex<List>>);

#[derive(Default)]
struct List {
    /// None while it is being polled.
    tasks: HashMap<u64, Option<Task>>,
    /// Those to be polled, in the order in which they were woken.
    ready: VecDeque<u64>,
    spawned: u64,
    now: Time,
    sleepers: Vec<(Time, Waker)>,
    gone: bool,
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
    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Polls the task that has been ready for longest. False where none is.
    #[must_use]
    pub fn run_one(&self) -> bool {
        let next = {
            let mut list = self.list();
            // One that is woken while another thread polls it stays ready for later.
            let at = list.ready.iter().position(|number| matches!(list.tasks.get(number), Some(Some(_))));
            let number = at.and_then(|at| list.ready.remove(at));
            number.and_then(|number| Some((number, list.tasks.get_mut(&number)?.take()?)))
        };
        let Some((number, mut task)) = next else { return false };
        let waker = Waker::from(Arc::new(WakeTask { tasks: self.clone(), number }));
        let poll = task.as_mut().poll(&mut Context::from_waker(&waker));
        let mut list = self.list();
        match poll {
            Poll::Pending if !list.gone => drop(list.tasks.insert(number, Some(task))),
            _ => {
                list.tasks.remove(&number);
                list.ready.retain(|&ready| ready != number);
                // Not under the lock: what it holds answers the ledger.
                drop(list);
                drop(task);
            }
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
            let oldest = {
                let mut list = self.list();
                let oldest = list.tasks.keys().min().copied();
                oldest.and_then(|oldest| list.tasks.remove(&oldest))
            };
            if oldest.is_none() {
                return;
            }
            drop(oldest);
        }
    }
}

/// What the manager sees of it.
pub(crate) struct Runtime {
    tasks: Tasks,
}

impl Runtime {
    /// The builder insists on a runtime; the models have one of their own.
    pub(crate) fn new(_handle: Handle) -> Self {
        Self { tasks: Tasks::default() }
    }

    pub(crate) fn tasks(&self) -> &Tasks {
        &self.tasks
    }

    pub(crate) fn coarse(&self) -> Time {
        self.now()
    }

    pub(crate) fn now(&self) -> Time {
        self.tasks.list().now
    }

    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut list = self.tasks.list();
        if list.gone {
            drop(list);
            return drop(task);
        }
        let number = list.spawned;
        list.spawned += 1;
        list.tasks.insert(number, Some(Box::pin(task)));
        list.ready.push_back(number);
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

    pub(crate) fn is_gone(&self) {}

    pub(crate) async fn sleep(&self, time: Duration) {
        self.within(time, std::future::pending::<()>()).await;
    }
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
