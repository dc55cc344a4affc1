//! [`Pooled`]: this crate's own connections in a pool of diesel-async's, for the drivers whose connections are closed by more
//! than a drop.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use diesel_async::AsyncConnection;
use diesel_async::pooled_connection::PoolableConnection;
use futures_core::future::BoxFuture;
use tenantry_core::{Health, PoolFactory, TenantId};
use tokio::runtime::Handle;

use crate::error::Error;
use crate::pool::{CLOSE_WITHIN, Place};

/// A connection of this crate's in a pool of diesel-async's: it derefs to one, and is closed when it is dropped.
pub struct Pooled<F: PoolFactory> {
    /// Both until the drop.
    held: Option<(F::Connection, Place)>,
    factory: Arc<F>,
    runtime: Handle,
}

impl<F: PoolFactory<Error = Error> + Clone> Pooled<F> {
    /// What [`CountedPool::open`](crate::CountedPool::open) connects with.
    pub(crate) fn connector(
        factory: &F,
        tenant: &TenantId,
    ) -> impl Fn(Place) -> BoxFuture<'static, Result<Self, Error>> + Send + Sync + use<F> {
        let (factory, tenant) = (Arc::new(factory.clone()), tenant.clone());
        move |place| {
            let (factory, tenant) = (Arc::clone(&factory), tenant.clone());
            Box::pin(async move {
                let held = Some((factory.connect(&tenant).await?, place));
                Ok(Self { held, factory, runtime: Handle::current() })
            })
        }
    }
}

impl<F: PoolFactory> Deref for Pooled<F> {
    type Target = F::Connection;

    #[expect(clippy::expect_used, reason = "it is taken by the drop alone")]
    fn deref(&self) -> &F::Connection {
        &self.held.as_ref().expect("not dropped").0
    }
}

impl<F: PoolFactory> DerefMut for Pooled<F> {
    #[expect(clippy::expect_used, reason = "it is taken by the drop alone")]
    fn deref_mut(&mut self) -> &mut F::Connection {
        &mut self.held.as_mut().expect("not dropped").0
    }
}

impl<F: PoolFactory<Connection: AsyncConnection>> PoolableConnection for Pooled<F> {
    /// A pool cleans nothing, so it keeps what is clean only.
    fn is_broken(&mut self) -> bool {
        let factory = Arc::clone(&self.factory);
        factory.health(self) != Health::Clean
    }
}

impl<F: PoolFactory> Drop for Pooled<F> {
    fn drop(&mut self) {
        if let Some((connection, place)) = self.held.take() {
            let factory = Arc::clone(&self.factory);
            self.runtime.spawn(async move {
                factory.close(connection, CLOSE_WITHIN).await;
                drop(place);
            });
        }
    }
}
