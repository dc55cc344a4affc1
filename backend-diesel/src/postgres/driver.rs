//! [`Driver`]: the task that moves a connection's bytes, and whether it has anything left to do.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Wake, Waker};

use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;
use tokio_postgres::Connection;

use super::session::Session;

/// It was woken and has not looked yet.
const WOKEN: u8 = 1;
/// It is at work right now, on some thread.
const AT_WORK: u8 = 2;

/// How often to look whether a step ends that is under way on another thread: about a microsecond, as a step that has
/// delivered an answer has little left to do.
const LOOKS: u32 = 200;

/// The task of one connection. It ends when the server has closed its side; dropping this closes the socket at once.
#[derive(Debug)]
pub(super) struct Driver {
    task: JoinHandle<()>,
    pulse: Arc<Pulse>,
}

impl Driver {
    /// Spawns the task on the current runtime.
    pub(super) fn spawn<S, T>(connection: Connection<S, T>, session: Arc<Session>) -> Self
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
        T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let pulse = Arc::new(Pulse::default());
        let task = tokio::spawn(drive(connection, session, Arc::clone(&pulse)));
        Self { task, pulse }
    }

    /// Whether nothing waits to be written. A question that somebody put and did not wait for is still in a queue for a
    /// moment; putting it there wakes the task, so a task that sleeps has an empty queue.
    pub(super) fn is_quiet(&self) -> bool {
        for _ in 0..LOOKS {
            match self.pulse.state.load(Ordering::SeqCst) {
                0 => return true,
                state if state & WOKEN != 0 => return false,
                _ => std::hint::spin_loop(),
            }
        }
        false
    }

    /// Resolves when the task has ended and its socket is closed.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub(super) async fn ended(&mut self) {
        if !self.task.is_finished() {
            // An error would be that it was aborted, or panicked: its socket is closed as well.
            let _ = (&mut self.task).await;
        }
    }

    /// Closes the socket without a word, and resolves when that is done.
    pub(super) async fn abort(mut self) {
        self.task.abort();
        self.ended().await;
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn drive<S, T>(connection: Connection<S, T>, session: Arc<Session>, pulse: Arc<Pulse>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut connection = pin!(connection);
    let waker = Waker::from(Arc::clone(&pulse));
    let end = poll_fn(|cx| {
        pulse.task.register(cx.waker());
        pulse.state.store(AT_WORK, Ordering::SeqCst);
        let step = connection.as_mut().poll(&mut Context::from_waker(&waker));
        if step.is_ready() {
            // Before the connection goes: whoever waits for an answer learns of the end by that.
            session.lose();
        }
        // Woken meanwhile, it stays so: what woke it may have come too late for this step.
        pulse.state.fetch_and(!AT_WORK, Ordering::SeqCst);
        session.stepped.notify_waiters();
        step.map(drop)
    });
    end.await;
}

/// Notes every wake-up of a task on its way there.
#[derive(Debug, Default)]
struct Pulse {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wake for Pulse {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.state.fetch_or(WOKEN, Ordering::SeqCst);
        self.task.wake();
    }
}

/// Resolves when `done` says yes. It is asked now and after every step of the driver.
pub(super) async fn until(session: &Session, done: impl Fn() -> bool) {
    loop {
        let mut stepped = pin!(session.stepped.notified());
        // Listening before looking, so that no step is missed in between.
        stepped.as_mut().enable();
        if done() {
            return;
        }
        stepped.await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wake_up_during_a_step_outlives_it() {
        let pulse = Arc::new(Pulse::default());
        pulse.state.store(AT_WORK, Ordering::SeqCst);
        Waker::from(Arc::clone(&pulse)).wake();
        pulse.state.fetch_and(!AT_WORK, Ordering::SeqCst);
        assert_eq!(pulse.state.load(Ordering::SeqCst), WOKEN);
    }
}
