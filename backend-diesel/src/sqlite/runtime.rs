//! [`SqliteRuntime`]: where a connection's work is done, and what is known of it ([`State`]).

use std::cell::Cell;
use std::error::Error as StdError;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use diesel_async::sync_connection_wrapper::SpawnBlocking;
use futures_core::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::Notify;

thread_local! {
    /// Whether the work under way on this thread has asked SQLite anything that was seen.
    static SEEN: Cell<bool> = const { Cell::new(false) };
}

/// What was seen of a connection's use.
#[derive(Debug, Default)]
pub(super) struct State {
    /// Work that was begun and is not done, whether or not anybody waits for it.
    under_way: AtomicU32,
    /// Told after each.
    done: Notify,
    /// A transaction may be open.
    open: AtomicBool,
    /// More than a transaction may have been left.
    marked: AtomicBool,
}

impl State {
    /// To be called by whoever sees a question to SQLite, on the thread where it is put.
    pub(super) fn saw_a_question(&self) {
        SEEN.set(true);
    }

    pub(super) fn mark(&self) {
        self.marked.store(true, Ordering::SeqCst);
    }

    pub(super) fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::SeqCst);
    }

    pub(super) fn unmark(&self) {
        self.marked.store(false, Ordering::SeqCst);
        self.open.store(false, Ordering::SeqCst);
    }

    pub(super) fn is_marked(&self) -> bool {
        self.marked.load(Ordering::SeqCst)
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn is_at_work(&self) -> bool {
        self.under_way.load(Ordering::SeqCst) > 0
    }

    /// Resolves when nothing is under way.
    pub(super) async fn settled(&self) {
        loop {
            let mut done = pin!(self.done.notified());
            // Listening before looking, so that no end is missed in between.
            done.as_mut().enable();
            if !self.is_at_work() {
                return;
            }
            done.await;
        }
    }
}

/// One piece of work, until it is done or thrown away.
struct UnderWay(Arc<State>);

impl UnderWay {
    fn begin(state: &Arc<State>) -> Self {
        state.under_way.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(state))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.mark();
        }
        self.0.under_way.fetch_sub(1, Ordering::SeqCst);
        self.0.done.notify_waiters();
    }
}

/// Does the work of a [`SqliteConnection`](crate::SqliteConnection) on tokio's threads for what blocks.
///
/// Unlike diesel-async's own, it goes on with work that nobody waits for any more without keeping the thread of
/// whoever has left, which on a runtime of one thread is a panic; and it knows when all of it is done.
pub struct SqliteRuntime {
    handle: Option<Handle>,
    state: Arc<State>,
}

impl SqliteRuntime {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { handle: Handle::try_current().ok(), state }
    }
}

impl SpawnBlocking for SqliteRuntime {
    fn spawn_blocking<'a, R>(
        &mut self,
        task: impl FnOnce() -> R + Send + 'static,
    ) -> BoxFuture<'a, Result<R, Box<dyn StdError + Send + Sync + 'static>>>
    where
        R: Send + 'static,
    {
        let Some(handle) = &self.handle else {
            return Box::pin(async { Err("a connection that was made outside of a runtime".into()) });
        };
        let under_way = UnderWay::begin(&self.state);
        let work = handle.spawn_blocking(move || {
            SEEN.set(false);
            let result = task();
            if !SEEN.get() {
                // Something else than a question (a function, a collation, a handler), or nobody looks any more.
                under_way.0.mark();
            }
            drop(under_way);
            result
        });
        Box::pin(async move { Ok(work.await?) })
    }

    fn get_runtime() -> Self {
        Self::new(Arc::default())
    }
}

impl fmt::Debug for SqliteRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteRuntime").field("state", &self.state).finish_non_exhaustive()
    }
}
