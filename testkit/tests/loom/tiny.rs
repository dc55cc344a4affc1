//! A driver of the least size, that counts from outside what is open.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use tenantry_core::{FailureKind, Health, NativePool, PoolFactory, TenantId};

/// What there is of connections. Not a lock of the model's: it is held for nothing else, and adds no schedules.
#[derive(Clone, Default)]
pub(crate) struct Seen(Arc<Mutex<Places>>);

#[derive(Default)]
struct Places {
    cap: u32,
    connects: u32,
    open: BTreeSet<u32>,
    in_pools: u32,
    dropped: u32,
}

impl Seen {
    pub(crate) fn with_cap(cap: u32) -> Self {
        Self(Arc::new(Mutex::new(Places { cap, ..Places::default() })))
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.lock().unwrap()
    }

    pub(crate) fn open(&self) -> u32 {
        self.places().open()
    }

    pub(crate) fn connects(&self) -> u32 {
        self.places().connects
    }

    /// Connections that were dropped and never closed.
    pub(crate) fn dropped(&self) -> u32 {
        self.places().dropped
    }

    /// Whether nobody else looks any more: the factory and its connections are gone.
    pub(crate) fn is_last(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }
}

impl Places {
    fn open(&self) -> u32 {
        u32::try_from(self.open.len()).unwrap() + self.in_pools
    }

    fn check(&self) {
        assert!(self.open() <= self.cap, "{} connections of {}", self.open(), self.cap);
    }
}

pub(crate) struct Tiny {
    pub(crate) seen: Seen,
    /// A connect takes two polls, so that any thread may run the second.
    pub(crate) slow: bool,
}

pub(crate) struct Connection {
    id: u32,
    seen: Seen,
    pub(crate) health: Health,
}

impl Connection {
    pub(crate) fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        let mut places = self.seen.places();
        if places.open.remove(&self.id) {
            places.dropped += 1;
        }
    }
}

/// Pending once, and ready to go on.
async fn pause() {
    let mut paused = false;
    poll_fn(|context| {
        if std::mem::replace(&mut paused, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl PoolFactory for Tiny {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self, _tenant: &TenantId) -> Result<Connection, Infallible> {
        let connection = {
            let mut places = self.seen.places();
            places.connects += 1;
            let id = places.connects;
            assert!(places.open.insert(id));
            places.check();
            Connection { id, seen: self.seen.clone(), health: Health::Clean }
        };
        if self.slow {
            pause().await;
        }
        Ok(connection)
    }

    fn health(&self, connection: &mut Connection) -> Health {
        connection.health
    }

    async fn recycle(&self, connection: &mut Connection) -> Result<(), Infallible> {
        connection.health = Health::Clean;
        Ok(())
    }

    async fn close(&self, connection: Connection, _within: Duration) {
        if self.slow {
            pause().await;
        }
        assert!(connection.seen.places().open.remove(&connection.id), "closed twice");
    }

    fn classify(&self, error: &Infallible) -> FailureKind {
        match *error {}
    }
}

impl NativePool for Tiny {
    type Pool = Arc<u32>;

    async fn open_pool(&self, _tenant: &TenantId, max: u32) -> Result<Arc<u32>, Infallible> {
        let mut places = self.seen.places();
        places.in_pools += max;
        places.check();
        Ok(Arc::new(max))
    }

    async fn close_pool(&self, pool: Arc<u32>) {
        self.seen.places().in_pools -= *pool;
    }
}
