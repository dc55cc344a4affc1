//! [`CountedPool`]: diesel-async's own kind of pool, with its connections counted until they are closed.
//! Those of this crate's own connections are in `pooled.rs`.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use diesel::ConnectionError;
use diesel_async::AsyncConnection;
use diesel_async::pooled_connection::deadpool::BuildError;
use diesel_async::pooled_connection::{AsyncDieselConnectionManager, ManagerConfig, PoolableConnection};
use tenantry_core::{PoolFactory, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::Error;

/// How long the closing of a connection that a pool lets go of may take.
pub(crate) const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A deadpool pool of diesel-async (`P`, to which it derefs), as `acquire_pool` gives. Cheap to clone.
///
/// By itself, such a pool forgets a connection when it lets go of it. Here a connection keeps its place until the server
/// has closed it: the pool never has more than asked for, at the server neither, and its close ends with its last connection.
/// A connection that replaces one that was just dropped waits for that.
///
/// It is the driver's pool, and does what that does: it asks `SELECT 1` before it hands a connection out, and cleans nothing,
/// unlike tenantry's own leases.
#[derive(Clone)]
pub struct CountedPool<P> {
    pool: P,
    places: Places,
}

impl<P> CountedPool<P> {
    /// A pool of at most `max` connections, which `connect` makes (as in [`Places::manager`]). `build` knows which kind
    /// they are, upon which diesel-async insists.
    pub(crate) async fn open<F, C, Connect, Fut>(
        factory: &F,
        tenant: &TenantId,
        max: u32,
        connect: Connect,
        build: impl FnOnce(AsyncDieselConnectionManager<C>) -> Result<P, BuildError> + Send,
    ) -> Result<Self, Error>
    where
        F: PoolFactory<Error = Error>,
        C: PoolableConnection + 'static,
        Connect: Fn(Place) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, Error>> + Send + 'static,
    {
        // One connection first, for an error that says what is wrong: the pool's is a text.
        let first = factory.connect(tenant).await?;
        factory.close(first, CLOSE_WITHIN).await;

        let places = Places::new(max);
        // Where to connect to is asked each time; a URL would have a password in it.
        let manager = AsyncDieselConnectionManager::new_with_config("", places.manager(connect));
        Ok(Self { pool: build(manager).map_err(Error::resolver)?, places })
    }

    /// Resolves when every connection is closed. The pool has to be closed before, so that it takes none back.
    pub(crate) async fn closed(&self) {
        // Never an error: it is closed by the one who had them all.
        let _all = self.places.free.acquire_many(self.places.max).await;
        self.places.free.close();
    }
}

impl<P> Deref for CountedPool<P> {
    type Target = P;

    fn deref(&self) -> &P {
        &self.pool
    }
}

impl<P> fmt::Debug for CountedPool<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountedPool").field("max", &self.places.max).finish_non_exhaustive()
    }
}

/// The places of one pool's connections.
#[derive(Clone)]
struct Places {
    free: Arc<Semaphore>,
    max: u32,
}

/// One of them, to be kept until its connection is closed.
#[derive(Debug)]
pub(crate) struct Place(#[expect(dead_code, reason = "its drop is what it is for")] OwnedSemaphorePermit);

impl Places {
    fn new(max: u32) -> Self {
        Self { free: Arc::new(Semaphore::new(max as usize)), max }
    }

    /// What a manager connects with. `connect` runs in a task of its own, so that nobody who leaves half-way leaves a
    /// connection without its place.
    fn manager<C, Connect, Fut>(&self, connect: Connect) -> ManagerConfig<C>
    where
        C: AsyncConnection + Send + 'static,
        Connect: Fn(Place) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<C, Error>> + Send + 'static,
    {
        let free = Arc::clone(&self.free);
        let connect = Arc::new(connect);
        let mut config = ManagerConfig::default();
        config.custom_setup = Box::new(move |_| {
            let (free, connect) = (Arc::clone(&free), Arc::clone(&connect));
            Box::pin(async move {
                let place = free.acquire_owned().await.map_err(|_| bad("the pool is closed"))?;
                let connected = tokio::spawn(async move { connect(Place(place)).await }).await;
                connected.map_err(|_| bad("the runtime is shutting down"))?.map_err(|error| bad(&text(&error)))
            })
        });
        config
    }
}

fn bad(why: &str) -> ConnectionError {
    ConnectionError::BadConnection(why.to_owned())
}

/// The error's text and that of its causes, as diesel's error has room for a text alone.
fn text(error: &Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
