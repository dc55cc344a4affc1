//! What one would write: a map of `PgPool`s that closes the one that was used longest ago before it opens another, so that all
//! of them together never hold more than so many connections.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use parking_lot::Mutex;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{name, select};

struct Entry {
    pool: PgPool,
    used: u64,
    place: OwnedSemaphorePermit,
}

#[derive(Default)]
struct Table {
    pools: HashMap<usize, Entry>,
    clock: u64,
}

pub struct LruPools {
    options: PgConnectOptions,
    /// Connections of one pool.
    pub each: u32,
    table: Mutex<Table>,
    /// As many as there may be pools.
    places: Arc<Semaphore>,
    connects: Arc<AtomicU64>,
}

impl LruPools {
    pub fn new(options: PgConnectOptions, budget: u32, each: u32) -> Arc<Self> {
        let places = Arc::new(Semaphore::new((budget / each) as usize));
        Arc::new(Self { options, each, table: Mutex::default(), places, connects: Arc::default() })
    }

    pub fn connects(&self) -> u64 {
        self.connects.load(Ordering::Relaxed)
    }

    pub async fn request(&self, tenant: usize) -> Result<()> {
        loop {
            match self.pool(tenant).await.acquire().await {
                Ok(mut connection) => return select(&mut connection).await,
                // It was evicted meanwhile.
                Err(sqlx::Error::PoolClosed) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn known(&self, tenant: usize) -> Option<PgPool> {
        let table = &mut *self.table.lock();
        table.clock += 1;
        let entry = table.pools.get_mut(&tenant)?;
        entry.used = table.clock;
        Some(entry.pool.clone())
    }

    async fn pool(&self, tenant: usize) -> PgPool {
        loop {
            if let Some(pool) = self.known(tenant) {
                return pool;
            }
            if let Ok(place) = self.places.clone().try_acquire_owned() {
                return self.add(tenant, place);
            }
            let Some(oldest) = self.remove_oldest() else {
                // All are being closed; each will be another tenant's in a moment, which may be evicted in its turn.
                tokio::time::sleep(Duration::from_millis(1)).await;
                continue;
            };
            oldest.pool.close().await;
            // Its connections are closed: its place is for this one.
            return self.known(tenant).unwrap_or_else(|| self.add(tenant, oldest.place));
        }
    }

    fn remove_oldest(&self) -> Option<Entry> {
        let table = &mut *self.table.lock();
        let oldest = table.pools.iter().min_by_key(|(_, entry)| entry.used).map(|(&tenant, _)| tenant)?;
        table.pools.remove(&oldest)
    }

    fn add(&self, tenant: usize, place: OwnedSemaphorePermit) -> PgPool {
        let connects = self.connects.clone();
        let options = PgPoolOptions::new().max_connections(self.each).test_before_acquire(false);
        let options = options.after_connect(move |_, _| {
            connects.fetch_add(1, Ordering::Relaxed);
            Box::pin(async { Ok(()) })
        });
        let table = &mut *self.table.lock();
        table.clock += 1;
        let used = table.clock;
        let new =
            || Entry { pool: options.connect_lazy_with(self.options.clone().database(&name(tenant))), used, place };
        table.pools.entry(tenant).or_insert_with(new).pool.clone()
    }
}
