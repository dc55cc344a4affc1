//! Pools of diesel-async's own kind, for code that insists on one.

use diesel_async::pooled_connection::deadpool::Pool;
use tenantry_core::{NativePool, TenantId};

use super::SqliteFactory;
use crate::error::Error;
use crate::pool::CountedPool;
use crate::pooled::Pooled;

impl NativePool for SqliteFactory {
    type Pool = CountedPool<Pool<Pooled<Self>>>;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<Self::Pool, Error> {
        CountedPool::open(self, tenant, max, Pooled::connector(self, tenant), |manager| {
            Pool::builder(manager).max_size(max as usize).build()
        })
        .await
    }

    async fn close_pool(&self, pool: Self::Pool) {
        pool.close();
        pool.closed().await;
    }
}
