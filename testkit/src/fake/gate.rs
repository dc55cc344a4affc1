//! [`Gate`]: holds a fake's calls back until the test lets them through.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

/// Nobody who waits for a call means one that comes later than this.
const PATIENCE: Duration = Duration::from_secs(60 * 60);

/// Holds calls back until the test says so. Dropping it releases it, so that a failing test does not hang.
///
/// Made by [`FakeFactory::hold_connects`](super::FakeFactory::hold_connects) and [`Script::hold`](super::Script::hold),
/// or by hand for [`Behavior::behind`](super::Behavior::behind).
#[derive(Debug)]
pub struct Gate {
    barrier: Arc<Barrier>,
}

impl Gate {
    /// A gate that is shut.
    #[must_use]
    pub fn new() -> Self {
        let barrier = Barrier { passes: Semaphore::new(0), waiting: watch::Sender::new(0) };
        Self { barrier: Arc::new(barrier) }
    }

    /// Lets every call through, those that wait and those that will come.
    pub fn release(&self) {
        self.barrier.passes.close();
    }

    /// Lets one call through: the one that has waited longest, or else the next to come.
    pub fn release_one(&self) {
        self.barrier.passes.add_permits(1);
    }

    /// How many calls stand at the gate now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        *self.barrier.waiting.borrow()
    }

    /// Resolves when at least `count` calls stand at the gate.
    ///
    /// # Panics
    /// When they do not come within an hour of tokio's clock; where that is paused, a test that waits in vain fails at once.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn reached(&self, count: usize) {
        let mut waiting = self.barrier.waiting.subscribe();
        // The sender lives as long as `self`, so this ends with the count and never with an error.
        let reached = async { drop(waiting.wait_for(|now| *now >= count).await) };
        come(reached, || format!("{} of {count} calls stand at the gate", self.waiting())).await;
    }

    pub(super) fn barrier(&self) -> Arc<Barrier> {
        Arc::clone(&self.barrier)
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.release();
    }
}

/// The part of a gate that the calls hold. A closed semaphore is an open gate.
#[derive(Debug)]
pub(super) struct Barrier {
    passes: Semaphore,
    waiting: watch::Sender<usize>,
}

impl Barrier {
    pub(super) fn is_open(&self) -> bool {
        self.passes.is_closed()
    }

    pub(super) async fn pass(&self) {
        struct Standing<'a>(&'a watch::Sender<usize>);
        impl Drop for Standing<'_> {
            fn drop(&mut self) {
                self.0.send_modify(|waiting| *waiting -= 1);
            }
        }

        if let Ok(permit) = self.passes.try_acquire() {
            return permit.forget();
        }
        self.waiting.send_modify(|waiting| *waiting += 1);
        let _standing = Standing(&self.waiting);
        if let Ok(permit) = self.passes.acquire().await {
            permit.forget();
        }
    }
}

/// Waits for calls that the test is sure of.
pub(super) async fn come(calls: impl Future<Output = ()>, what_came: impl FnOnce() -> String) {
    if Handle::try_current().is_err() {
        return calls.await;
    }
    if timeout(PATIENCE, calls).await.is_err() {
        panic!("waited in vain: {}", what_came());
    }
}
