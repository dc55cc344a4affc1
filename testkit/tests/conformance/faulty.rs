//! A factory over the fake that breaks the contract in one way.

use std::fmt;
use std::mem;
use std::time::Duration;

use tenantry_core::{Created, Dropped, FailureKind, Health, NativePool, PoolFactory, Provision, TenantId};
use tenantry_testkit::{FakeConnection, FakeError, FakeFactory, FakePool};
use tokio::sync::oneshot;

use crate::subject::{SECRET, Within};

/// What it does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    AlwaysClean,
    AlwaysDirty,
    AlwaysGone,
    AlwaysNew,
    ClosesEarly,
    ClosesForEver,
    ConnectsOn,
    ConnectsTwice,
    CreateLeaks,
    CreatesOnConnect,
    CutsNames,
    EverythingIsOther,
    FoldsNames,
    KeepsTheDropped,
    LeaksOnClose,
    LostIsBroken,
    Panics,
    PoolClosesEarly,
    PoolForAnyone,
    PoolIsLarger,
    RecycleBreaks,
    RecyclesNothing,
    SharesADatabase,
    StartsDirty,
    TellsSecrets,
    WaitsForRoom,
}

#[derive(Debug, Clone)]
pub(crate) struct Faulty {
    fake: FakeFactory,
    fault: Fault,
}

impl Faulty {
    pub(crate) fn new(fake: FakeFactory, fault: Fault) -> Self {
        Self { fake, fault }
    }

    fn is(&self, fault: Fault) -> bool {
        self.fault == fault
    }

    /// The tenant whose database it takes for that of `tenant`.
    fn database(&self, tenant: &TenantId) -> TenantId {
        let name = match self.fault {
            Fault::SharesADatabase if self.fake.has_database(tenant) => "acme".to_owned(),
            Fault::CutsNames => tenant.as_str().trim_end().to_owned(),
            Fault::FoldsNames => tenant.as_str().to_lowercase(),
            _ => return tenant.clone(),
        };
        name.parse().unwrap_or_else(|_| tenant.clone())
    }

    fn error(&self, error: FakeError) -> FaultyError {
        FaultyError { error, tells: self.is(Fault::TellsSecrets) }
    }
}

pub(crate) struct FaultyConnection {
    inner: Option<FakeConnection>,
    outlives: bool,
}

impl Within for FaultyConnection {
    fn fake(&mut self) -> &mut FakeConnection {
        self.inner.as_mut().expect("only close and drop take it")
    }
}

impl Drop for FaultyConnection {
    fn drop(&mut self) {
        let inner = self.inner.take();
        if self.outlives {
            mem::forget(inner);
        }
    }
}

#[derive(Clone)]
pub(crate) struct FaultyError {
    error: FakeError,
    tells: bool,
}

impl fmt::Display for FaultyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = if self.tells { SECRET } else { "" };
        write!(f, "{} {secret}", self.error)
    }
}

impl fmt::Debug for FaultyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.error, f)
    }
}

impl std::error::Error for FaultyError {}

impl PoolFactory for Faulty {
    type Connection = FaultyConnection;
    type Error = FaultyError;

    async fn connect(&self, tenant: &TenantId) -> Result<FaultyConnection, FaultyError> {
        let tenant = self.database(tenant);
        if self.is(Fault::CreatesOnConnect) {
            self.fake.create(&tenant).await.map_err(|error| self.error(error))?;
        }
        if self.is(Fault::ConnectsTwice) {
            mem::forget(self.fake.connect(&tenant).await);
        }
        let mut connected = if self.is(Fault::ConnectsOn) {
            connect_on(&self.fake, &tenant).await
        } else {
            self.fake.connect(&tenant).await
        };
        while self.is(Fault::WaitsForRoom) && matches!(&connected, Err(error) if error.kind == FailureKind::ServerFull)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
            connected = self.fake.connect(&tenant).await;
        }
        let connection = connected.map_err(|error| self.error(error))?;
        if self.is(Fault::StartsDirty) {
            connection.set_health(Health::Dirty);
        }
        Ok(FaultyConnection { inner: Some(connection), outlives: self.is(Fault::KeepsTheDropped) })
    }

    fn health(&self, connection: &mut FaultyConnection) -> Health {
        let health = self.fake.health(connection.fake());
        match (self.fault, health) {
            (Fault::AlwaysClean, _) => Health::Clean,
            (Fault::AlwaysDirty, Health::Clean) => Health::Dirty,
            (Fault::LostIsBroken, Health::Lost) => Health::Broken,
            (Fault::Panics, Health::Lost) => panic!("as a driver's own mistake does"),
            _ => health,
        }
    }

    async fn recycle(&self, connection: &mut FaultyConnection) -> Result<(), FaultyError> {
        match self.fault {
            Fault::RecyclesNothing => return Ok(()),
            Fault::RecycleBreaks => connection.fake().set_health(Health::Broken),
            _ => self.fake.recycle(connection.fake()).await.map_err(|error| self.error(error))?,
        }
        Ok(())
    }

    async fn close(&self, mut connection: FaultyConnection, within: Duration) {
        let Some(inner) = connection.inner.take() else { return };
        match self.fault {
            Fault::LeaksOnClose => mem::forget(inner),
            Fault::ClosesForEver => self.fake.close(inner, Duration::MAX).await,
            Fault::ClosesEarly => {
                let fake = self.fake.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                    fake.close(inner, within).await;
                });
            }
            _ => self.fake.close(inner, within).await,
        }
    }

    fn classify(&self, error: &FaultyError) -> FailureKind {
        if self.is(Fault::EverythingIsOther) { FailureKind::Other } else { error.error.kind }
    }
}

/// Connects in a task that nobody stops when the caller is gone.
async fn connect_on(fake: &FakeFactory, tenant: &TenantId) -> Result<FakeConnection, FakeError> {
    let (answer, connected) = oneshot::channel();
    let (fake, tenant) = (fake.clone(), tenant.clone());
    tokio::spawn(async move { mem::forget(answer.send(fake.connect(&tenant).await)) });
    connected.await.expect("the task answers")
}

impl Provision for Faulty {
    async fn create(&self, tenant: &TenantId) -> Result<Created, FaultyError> {
        let tenant = self.database(tenant);
        let created = self.fake.create(&tenant).await.map_err(|error| self.error(error))?;
        if self.is(Fault::CreateLeaks) {
            mem::forget(self.fake.connect(&tenant).await);
        }
        Ok(if self.is(Fault::AlwaysNew) { Created::New } else { created })
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, FaultyError> {
        let tenant = self.database(tenant);
        let dropped = self.fake.drop_database(&tenant).await.map_err(|error| self.error(error))?;
        Ok(if self.is(Fault::AlwaysGone) { Dropped::Gone } else { dropped })
    }
}

impl NativePool for Faulty {
    type Pool = FakePool;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<FakePool, FaultyError> {
        let anyone = self.is(Fault::PoolForAnyone) && !self.fake.has_database(tenant);
        let tenant = if anyone { "acme".parse().expect("a tenant") } else { tenant.clone() };
        let max = if self.is(Fault::PoolIsLarger) { max + 1 } else { max };
        self.fake.open_pool(&tenant, max).await.map_err(|error| self.error(error))
    }

    async fn close_pool(&self, pool: FakePool) {
        if self.is(Fault::PoolClosesEarly) {
            let fake = self.fake.clone();
            tokio::spawn(async move { fake.close_pool(pool).await });
            return;
        }
        self.fake.close_pool(pool).await;
    }
}
