//! Pools of diesel-async's own kind, for code that insists on one.

use std::sync::Arc;

use diesel_async::pooled_connection::AsyncDieselConnectionManager;
use diesel_async::pooled_connection::deadpool::Pool;
use tenantry_core::{NativePool, PoolFactory as _, TenantId};

use super::SqliteFactory;
use crate::error::Error;
use crate::pool::{CLOSE_WITHIN, CountedPool, Places};
use crate::pooled::Pooled;

impl NativePool for SqliteFactory {
    type Pool = CountedPool<Pool<Pooled<Self>>>;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<Self::Pool, Error> {
        // One connection first, for an error that says what is wrong: the pool's is a text.
        let first = self.connect(tenant).await?;
        self.close(first, CLOSE_WITHIN).await;

        let places = Places::new(max);
        let config = places.manager(Pooled::connector(Arc::new(self.clone()), tenant.clone()));
        let manager = AsyncDieselConnectionManager::new_with_config("", config);
        let pool = Pool::builder(manager).max_size(max as usize).build().map_err(Error::resolver)?;
        Ok(CountedPool::new(pool, places))
    }

    async fn close_pool(&self, pool: Self::Pool) {
        pool.close();
        pool.closed().await;
    }
}
