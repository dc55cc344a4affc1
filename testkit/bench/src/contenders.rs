//! The ones that are compared: tenantry, what one would write instead, and the floor. Each is used as its documentation
//! says, with a driver that does nothing.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use dashmap::DashMap;
use deadpool::managed::{self, Metrics, RecycleResult};
use tenantry::{FailureKind, Health, Lease, PoolFactory, TenantId, TenantPools};

/// A connection that is none. It is counted where somebody wants to know.
#[derive(Debug)]
pub struct Connection(Option<Arc<Open>>);

/// How many connections are open, and were at most.
#[derive(Debug, Default)]
pub struct Open {
    now: AtomicUsize,
    most: AtomicUsize,
}

impl Open {
    pub fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }
}

impl Connection {
    pub fn open(count: Option<&Arc<Open>>) -> Self {
        if let Some(open) = count {
            let now = open.now.fetch_add(1, Ordering::Relaxed) + 1;
            open.most.fetch_max(now, Ordering::Relaxed);
        }
        Self(count.cloned())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if let Some(open) = &self.0 {
            open.now.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// What a contender is made for.
#[derive(Clone, Default)]
pub struct Size {
    pub tenants: usize,
    /// The budget, or the most pools that a cache keeps.
    pub room: usize,
    /// The most connections of one tenant.
    pub each: usize,
    /// Counts the connections.
    pub open: Option<Arc<Open>>,
}

/// Something that hands out connections to tenants' databases.
pub trait Contender: Clone + Send + Sync + 'static {
    /// As the tables call it.
    const NAME: &'static str;
    type Held: Send;

    /// For so many tenants with room for so many connections, `each` for one tenant.
    fn new(size: &Size) -> Self;

    fn acquire(&self, tenant: &str) -> impl Future<Output = Self::Held> + Send;
}

/// The driver, as each library wants it.
pub struct Nothing(pub Option<Arc<Open>>);

impl PoolFactory for Nothing {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self, _: &TenantId) -> Result<Connection, Infallible> {
        Ok(Connection::open(self.0.as_ref()))
    }

    fn health(&self, _: &mut Connection) -> Health {
        Health::Clean
    }

    async fn recycle(&self, _: &mut Connection) -> Result<(), Infallible> {
        Ok(())
    }

    async fn close(&self, _: Connection, _: Duration) {}

    fn classify(&self, error: &Infallible) -> FailureKind {
        match *error {}
    }
}

impl managed::Manager for Nothing {
    type Type = Connection;
    type Error = Infallible;

    async fn create(&self) -> Result<Connection, Infallible> {
        Ok(Connection::open(self.0.as_ref()))
    }

    async fn recycle(&self, _: &mut Connection, _: &Metrics) -> RecycleResult<Infallible> {
        Ok(())
    }
}

impl bb8::ManageConnection for Nothing {
    type Connection = Connection;
    type Error = Infallible;

    async fn connect(&self) -> Result<Connection, Infallible> {
        Ok(Connection::open(self.0.as_ref()))
    }

    async fn is_valid(&self, _: &mut Connection) -> Result<(), Infallible> {
        Ok(())
    }

    fn has_broken(&self, _: &mut Connection) -> bool {
        false
    }
}

#[derive(Clone)]
pub struct Tenantry(pub TenantPools<Nothing>);

impl Contender for Tenantry {
    const NAME: &'static str = "tenantry";
    type Held = Lease<Nothing>;

    fn new(size: &Size) -> Self {
        let (room, each) = (size.room as u32, size.each.min(size.room) as u32);
        let builder =
            TenantPools::builder(Nothing(size.open.clone())).max_connections(room).max_connections_per_tenant(each);
        let known = size.tenants as u32 + room + 10_000;
        Self(builder.max_connecting(room).max_known_tenants(known).build().expect("good settings"))
    }

    async fn acquire(&self, tenant: &str) -> Lease<Nothing> {
        self.0.acquire(tenant).await.expect("there is room")
    }
}

fn deadpool(size: &Size) -> managed::Pool<Nothing> {
    managed::Pool::builder(Nothing(size.open.clone())).max_size(size.each).build().expect("no timeouts are set")
}

fn bb8(size: &Size) -> bb8::Pool<Nothing> {
    let builder = bb8::Pool::builder().max_size(size.each as u32).test_on_check_out(false);
    builder.build_unchecked(Nothing(size.open.clone()))
}

/// A concurrent map of pools.
#[derive(Clone)]
pub struct DashDeadpool(Arc<DashMap<String, managed::Pool<Nothing>>>, Size);

impl Contender for DashDeadpool {
    const NAME: &'static str = "DashMap + deadpool";
    type Held = managed::Object<Nothing>;

    fn new(size: &Size) -> Self {
        Self(Arc::default(), size.clone())
    }

    async fn acquire(&self, tenant: &str) -> Self::Held {
        // The guard of a shard must not be held across an await.
        let known = self.0.get(tenant).map(|pool| pool.value().clone());
        let pool = known
            .unwrap_or_else(|| self.0.entry(tenant.to_owned()).or_insert_with(|| deadpool(&self.1)).value().clone());
        pool.get().await.expect("it connects")
    }
}

/// A map of pools under a lock.
#[derive(Clone)]
pub struct LockBb8(Arc<RwLock<HashMap<String, bb8::Pool<Nothing>>>>, Size);

impl Contender for LockBb8 {
    const NAME: &'static str = "RwLock<HashMap> + bb8";
    type Held = bb8::PooledConnection<'static, Nothing>;

    fn new(size: &Size) -> Self {
        Self(Arc::default(), size.clone())
    }

    async fn acquire(&self, tenant: &str) -> Self::Held {
        let known = self.0.read().expect("nobody panics with it").get(tenant).cloned();
        let pool = known.unwrap_or_else(|| {
            let mut pools = self.0.write().expect("nobody panics with it");
            pools.entry(tenant.to_owned()).or_insert_with(|| bb8(&self.1)).clone()
        });
        pool.get_owned().await.expect("it connects")
    }
}

/// A cache of pools that forgets those that were used least.
#[derive(Clone)]
pub struct MokaDeadpool(moka::future::Cache<String, managed::Pool<Nothing>>, Size);

impl Contender for MokaDeadpool {
    const NAME: &'static str = "moka + deadpool";
    type Held = managed::Object<Nothing>;

    fn new(size: &Size) -> Self {
        Self(moka::future::Cache::new(size.room.min(size.tenants) as u64), size.clone())
    }

    async fn acquire(&self, tenant: &str) -> Self::Held {
        let pool = self.0.get_with_by_ref(tenant, async { deadpool(&self.1) }).await;
        pool.get().await.expect("it connects")
    }
}

/// One pool, for one tenant.
#[derive(Clone)]
pub struct BareDeadpool(managed::Pool<Nothing>);

impl Contender for BareDeadpool {
    const NAME: &'static str = "deadpool alone";
    type Held = managed::Object<Nothing>;

    fn new(size: &Size) -> Self {
        Self(deadpool(size))
    }

    async fn acquire(&self, _: &str) -> Self::Held {
        self.0.get().await.expect("it connects")
    }
}

/// One pool, for one tenant.
#[derive(Clone)]
pub struct BareBb8(bb8::Pool<Nothing>);

impl Contender for BareBb8 {
    const NAME: &'static str = "bb8 alone";
    type Held = bb8::PooledConnection<'static, Nothing>;

    fn new(size: &Size) -> Self {
        Self(bb8(size))
    }

    async fn acquire(&self, _: &str) -> Self::Held {
        self.0.get_owned().await.expect("it connects")
    }
}
