//! The one place where tokio, the clock and chance come in: tasks, timers, the time.

use std::future::{Future, poll_fn};
use std::hash::{Hash, Hasher};
use std::panic::catch_unwind;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;

use crate::ledger::{Moment, Time};
use crate::sync::AtomicU64;

/// A tokio runtime, and the time since the manager was built.
pub(crate) struct Runtime {
    handle: Handle,
    start: Instant,
    /// Nanoseconds since `start`, as of the last look at the clock. The warm path reads this and no clock (rule 16).
    coarse: AtomicU64,
    /// The runtime was shut down: its timers panic when polled, and its tasks never run.
    gone: AtomicBool,
    stirred: Notify,
}

impl Runtime {
    pub(crate) fn new(handle: Handle) -> Self {
        let start = {
            let _entered = handle.enter();
            Instant::now()
        };
        Self { handle, start, coarse: AtomicU64::new(0), gone: AtomicBool::new(false), stirred: Notify::new() }
    }

    /// The time as of the last tick or slow path: at most one maintenance period old.
    #[inline]
    pub(crate) fn coarse(&self) -> Moment {
        Moment::at(self.coarse.load(Ordering::Relaxed))
    }

    /// The time, from the clock.
    pub(crate) fn now(&self) -> Time {
        let now = self.start.elapsed();
        self.coarse.fetch_max(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        now
    }

    /// Starts a task. Where the runtime is gone the future is dropped here and now.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        drop(self.handle.spawn(task));
    }

    /// Starts a task of a set, which dies with the set.
    pub(crate) fn spawn_in<R: Send + 'static>(
        &self,
        set: &mut JoinSet<R>,
        task: impl Future<Output = R> + Send + 'static,
    ) -> Id {
        set.spawn_on(task, &self.handle).id()
    }

    /// `future`, or None once `time` has passed, or the runtime is gone. May be made and polled outside a runtime.
    pub(crate) async fn within<R>(&self, time: Duration, future: impl Future<Output = R>) -> Option<R> {
        let sleep = {
            let _entered = self.handle.enter();
            tokio::time::sleep(time)
        };
        let (mut sleep, mut future) = (pin!(sleep), pin!(future));
        poll_fn(|context| {
            if let Poll::Ready(result) = future.as_mut().poll(context) {
                return Poll::Ready(Some(result));
            }
            if self.gone.load(Ordering::Acquire) {
                return Poll::Ready(None);
            }
            sleep.as_mut().poll(context).map(|()| None)
        })
        .await
    }

    /// Something begins: time matters again.
    pub(crate) fn stir(&self) {
        self.stirred.notify_one();
    }

    pub(crate) async fn sleep_until_stirred(&self, time: Duration) {
        self.within(time, self.stirred.notified()).await;
    }

    /// No timer may be polled any more.
    pub(crate) fn is_gone(&self) {
        self.gone.store(true, Ordering::Release);
    }

    pub(crate) async fn sleep(&self, time: Duration) {
        self.within(time, std::future::pending::<()>()).await;
    }
}

/// Whether the runtime has a time driver. There is no other way to ask than to try, which panics where it has none.
pub(crate) fn has_timers(handle: &Handle) -> bool {
    let _entered = handle.enter();
    catch_unwind(|| drop(tokio::time::sleep(Duration::ZERO))).is_ok()
}

/// A number for the present task, 0 outside of one. Only ever compared.
#[inline]
pub(crate) fn current_task() -> u64 {
    struct Number(u64);
    impl Hasher for Number {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for &byte in bytes {
                self.0 = self.0.rotate_left(8) ^ u64::from(byte);
            }
        }
        fn write_u64(&mut self, number: u64) {
            self.0 = number;
        }
    }
    tokio::task::try_id().map_or(0, |id| {
        let mut number = Number(0);
        id.hash(&mut number);
        number.finish()
    })
}

/// The time of day, for errors that people read.
#[allow(clippy::disallowed_methods, reason = "this is where it comes in")]
pub(crate) fn time_of_day() -> SystemTime {
    SystemTime::now()
}

/// Chance, for jitter.
pub(crate) fn random() -> u64 {
    fastrand::u64(..)
}
