//! Pools of diesel-async's own kind, for code that insists on one.

use std::sync::Arc;

use diesel_async::AsyncPgConnection;
use diesel_async::pooled_connection::deadpool::Pool;
use tenantry_core::{NativePool, TenantId};

use super::PostgresFactory;
use super::connection::Link;
use crate::error::{During, Error};
use crate::pool::{CountedPool, Place};

impl NativePool for PostgresFactory {
    type Pool = CountedPool<Pool<AsyncPgConnection>>;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<Self::Pool, Error> {
        let (factory, whose) = (Arc::new(self.clone()), tenant.clone());
        let connect = move |place| {
            let (factory, tenant) = (Arc::clone(&factory), whose.clone());
            async move { factory.connect_for_pool(&tenant, place).await }
        };
        CountedPool::open(self, tenant, max, connect, |manager| Pool::builder(manager).max_size(max as usize).build())
            .await
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
