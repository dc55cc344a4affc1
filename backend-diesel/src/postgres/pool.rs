//! Pools of diesel-async's own kind, for code that insists on one.

use std::sync::Arc;

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use tenantry_core::{NativePool, PoolFactory as _, TenantId};

use super::PostgresFactory;
use super::connection::Link;
use crate::error::{During, Error};
use crate::pool::{CLOSE_WITHIN, CountedPool, Place, Places};

impl NativePool for PostgresFactory {
    type Pool = CountedPool<Pool<AsyncPgConnection>>;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<Self::Pool, Error> {
        // One connection first, for an error that says what is wrong: the pool's is a text.
        let first = self.connect(tenant).await?;
        self.close(first, CLOSE_WITHIN).await;

        let places = Places::new(max);
        let (factory, tenant) = (Arc::new(self.clone()), tenant.clone());
        let config = places.manager(move |place| {
            let (factory, tenant) = (Arc::clone(&factory), tenant.clone());
            async move { factory.connect_for_pool(&tenant, place).await }
        });
        // Where to connect to is asked each time; a URL would have a password in it.
        let manager = AsyncDieselConnectionManager::new_with_config("", config);
        let pool = Pool::builder(manager).max_size(max as usize).build().map_err(Error::resolver)?;
        Ok(CountedPool::new(pool, places))
    }

    async fn close_pool(&self, pool: Self::Pool) {
        pool.close();
        pool.closed().await;
    }
}

impl PostgresFactory {
    async fn connect_for_pool(&self, tenant: &TenantId, place: Place) -> Result<AsyncPgConnection, Error> {
        let config = self.config(tenant).await?;
        let (client, link) = Link::open(&config, self.tls.as_ref(), During::Connect).await?;
        let connected = AsyncPgConnection::try_from(client).await.map_err(Error::SetUp);
        // The pool lets go of a connection by dropping it, upon which the link says goodbye and ends with the server's end.
        tokio::spawn(async move {
            link.ended().await;
            drop(place);
        });
        connected
    }
}
