//! A second driver for the tests of this folder, and short words.

use std::error::Error;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use tenantry_core::{
    Builder, Capacity, Created, Dropped, EitherFactory, FailureKind, Health, PoolFactory, Provision, ServerCapacity,
    ServerId, TenantId, TenantPools,
};
use tenantry_testkit::{Call, FakeConnection, FakeError, FakeFactory};

/// Another driver for the same servers: its own types, and one count of places with the fake's own. Over a fake of its
/// own it is another driver for other servers.
#[derive(Debug, Clone)]
pub(crate) struct OtherFactory(pub(crate) FakeFactory);

#[derive(Debug)]
pub(crate) struct OtherConnection(FakeConnection);

#[derive(Debug, thiserror::Error)]
#[error("the other driver's own words: {0:?}")]
pub(crate) struct OtherError(FakeError);

impl Deref for OtherConnection {
    type Target = FakeConnection;
    fn deref(&self) -> &FakeConnection {
        &self.0
    }
}

impl DerefMut for OtherConnection {
    fn deref_mut(&mut self) -> &mut FakeConnection {
        &mut self.0
    }
}

impl PoolFactory for OtherFactory {
    type Connection = OtherConnection;
    type Error = OtherError;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.0.server(tenant)
    }

    async fn connect(&self, tenant: &TenantId) -> Result<OtherConnection, OtherError> {
        self.0.connect(tenant).await.map(OtherConnection).map_err(OtherError)
    }

    fn health(&self, connection: &mut OtherConnection) -> Health {
        self.0.health(connection)
    }

    async fn recycle(&self, connection: &mut OtherConnection) -> Result<(), OtherError> {
        self.0.recycle(connection).await.map_err(OtherError)
    }

    async fn close(&self, connection: OtherConnection, within: Duration) {
        self.0.close(connection.0, within).await;
    }

    fn classify(&self, error: &OtherError) -> FailureKind {
        error.0.kind
    }

    fn max_per_tenant(&self) -> Option<u32> {
        self.0.max_per_tenant()
    }
}

impl Capacity for OtherFactory {
    async fn capacity(&self, connection: &mut OtherConnection) -> Result<ServerCapacity, OtherError> {
        self.0.capacity(connection).await.map_err(OtherError)
    }
}

impl Provision for OtherFactory {
    async fn create(&self, tenant: &TenantId) -> Result<Created, OtherError> {
        self.0.create(tenant).await.map_err(OtherError)
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, OtherError> {
        self.0.drop_database(tenant).await.map_err(OtherError)
    }
}

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Lets every task that can run do so. Only under a paused clock, where it takes no time.
pub(crate) async fn settle() {
    tokio::time::sleep(ms(1)).await;
}

/// An error's own text and that of all its sources.
pub(crate) fn chain(error: &dyn Error) -> Vec<String> {
    let mut texts = vec![error.to_string()];
    let mut next = error.source();
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts
}

pub(crate) async fn assert_closes_clean<F: PoolFactory>(pools: &TenantPools<F>, fakes: &[&FakeFactory]) {
    let report = pools.close_within(Duration::from_secs(60)).await;
    assert!(report.is_complete(), "{report:?}");
    for fake in fakes {
        assert_eq!(fake.open().now, 0);
        fake.assert_no_misuse();
    }
}

pub(crate) type Both = EitherFactory<FakeFactory, OtherFactory>;

/// Two drivers that reach the same servers: one fake counts the connections of both.
pub(crate) fn one_server(fake: &FakeFactory) -> Both {
    EitherFactory::new(fake.clone(), OtherFactory(fake.clone()))
}

/// Two drivers that are scripted and watched each for itself.
#[derive(Default)]
pub(crate) struct TwoFakes {
    pub(crate) left: FakeFactory,
    pub(crate) right: FakeFactory,
}

impl TwoFakes {
    pub(crate) fn factory(&self) -> Both {
        EitherFactory::new(self.left.clone(), OtherFactory(self.right.clone()))
    }

    /// Calls that have ended, of the left and of the right driver.
    pub(crate) fn calls(&self, call: Call) -> (u64, u64) {
        (self.left.calls(call).ended, self.right.calls(call).ended)
    }

    pub(crate) fn open(&self) -> (u64, u64) {
        (self.left.open().now, self.right.open().now)
    }
}

/// So many connections in all and for each tenant.
pub(crate) fn manager(factory: Both, budget: u32, per_tenant: u32) -> Builder<Both> {
    TenantPools::builder(factory).max_connections(budget).max_connections_per_tenant(per_tenant).max_connecting(budget)
}
