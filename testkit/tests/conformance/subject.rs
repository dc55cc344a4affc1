//! A subject over the fake, for any factory that hands out the fake's connections.

use std::collections::HashMap;
use std::fmt;
use std::sync::Mutex;

use tenantry_core::{FailureKind, Health, NativePool, PoolFactory, Provision, ServerId, TenantId};
use tenantry_testkit::conformance::{Limited, NotPossible, PoolSubject, Subject, Trouble};
use tenantry_testkit::fake::FakePooled;
use tenantry_testkit::{Behavior, Call, FakeConnection, FakeFactory, FakePool};

/// What no error may hold.
pub(crate) const SECRET: &str = "hunter2";

/// A connection with the fake's inside.
pub(crate) trait Within {
    fn fake(&mut self) -> &mut FakeConnection;
}

impl Within for FakeConnection {
    fn fake(&mut self) -> &mut FakeConnection {
        self
    }
}

pub(crate) struct Over<F> {
    fake: FakeFactory,
    factory: F,
    wrap: Box<dyn Fn(FakeFactory) -> F>,
    words: Mutex<HashMap<TenantId, Vec<String>>>,
}

impl<F> fmt::Debug for Over<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Over").field("fake", &self.fake).finish_non_exhaustive()
    }
}

/// A fake on which two databases are there.
fn fake() -> FakeFactory {
    let fake = FakeFactory::new();
    fake.set_databases(["acme", "other"]);
    fake
}

impl<F> Over<F> {
    pub(crate) fn new(wrap: impl Fn(FakeFactory) -> F + 'static) -> Self {
        let fake = fake();
        Self { factory: wrap(fake.clone()), fake, wrap: Box::new(wrap), words: Mutex::default() }
    }

    pub(crate) fn fake(&self) -> &FakeFactory {
        &self.fake
    }

    /// A factory like the one under test, over a fake whose connects all fail.
    fn failing(&self, kind: FailureKind) -> F {
        let fake = fake();
        fake.on(Call::Connect).always(Behavior::fails(kind));
        (self.wrap)(fake)
    }
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant")
}

impl<F> Subject for Over<F>
where
    F: PoolFactory<Connection: Within> + Provision + NativePool<Pool = FakePool>,
{
    type Factory = F;

    fn factory(&self) -> &F {
        &self.factory
    }

    fn tenants(&self) -> [TenantId; 2] {
        [tenant("acme"), tenant("other")]
    }

    fn missing_tenant(&self) -> TenantId {
        tenant("missing")
    }

    fn secrets(&self) -> Vec<String> {
        vec![SECRET.to_owned()]
    }

    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
        Ok(self.fake.open_of(tenant).now)
    }

    async fn ask(&self, connection: &mut F::Connection) -> Result<(), Trouble> {
        Ok(connection.fake().query().await?)
    }

    async fn keep(&self, connection: &mut F::Connection, word: &str) -> Result<(), Trouble> {
        let database = connection.fake().tenant().clone();
        self.words.lock().unwrap().entry(database).or_default().push(word.to_owned());
        Ok(())
    }

    async fn words(&self, connection: &mut F::Connection) -> Result<Vec<String>, Trouble> {
        let words = self.words.lock().unwrap();
        Ok(words.get(connection.fake().tenant()).cloned().unwrap_or_default())
    }

    fn ways_to_leave(&self) -> Vec<&'static str> {
        vec!["a transaction", "a setting"]
    }

    async fn leave(&self, connection: &mut F::Connection, way: &'static str) -> Result<(), Trouble> {
        connection.fake().leave_behind(way);
        Ok(())
    }

    async fn left(&self, connection: &mut F::Connection) -> Result<Vec<String>, Trouble> {
        let connection = connection.fake();
        let mut left = connection.left_behind();
        if left.is_empty() && self.fake.health(connection) == Health::Dirty {
            left.push("an answer that nobody has read".to_owned());
        }
        Ok(left)
    }

    async fn interruptible(&self, connection: &mut F::Connection) -> Result<(), Trouble> {
        self.fake.on(Call::Query).next(Behavior::hangs());
        Ok(connection.fake().query().await?)
    }

    async fn kill(&self, connection: &mut F::Connection) -> Result<(), NotPossible> {
        connection.fake().cut();
        Ok(())
    }

    async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
        let closes = self.fake.on(Call::Close);
        if silent {
            closes.always(Behavior::hangs())
        } else {
            closes.reset()
        };
        Ok(())
    }

    fn with_wrong_password(&self) -> Result<F, NotPossible> {
        Ok(self.failing(FailureKind::Auth))
    }

    fn with_unreachable_server(&self) -> Result<F, NotPossible> {
        Ok(self.failing(FailureKind::Unreachable))
    }

    fn with_limited_server(&self) -> Result<Limited<F>, NotPossible> {
        let (fake, limit) = (fake(), 2);
        fake.set_server_limit(&ServerId::default(), Some(limit.into()));
        Ok(Limited { factory: (self.wrap)(fake), tenant: tenant("acme"), limit })
    }
}

impl<F> PoolSubject for Over<F>
where
    F: PoolFactory<Connection: Within> + Provision + NativePool<Pool = FakePool>,
{
    type Pooled = FakePooled;

    async fn take(&self, pool: &FakePool) -> Result<FakePooled, Trouble> {
        Ok(pool.get().await?)
    }
}
