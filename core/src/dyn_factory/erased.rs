//! What [`DynFactory`](super::DynFactory) needs of a driver, as object-safe traits. They stay private: a public trait
//! with a `connect` that every factory implements would make `factory.connect(..)` ambiguous wherever both are in scope.
//!
//! A connection keeps the driver that opened it ([`OpenedBy`]), so that no other can ever judge, clean or close it: there
//! is no downcast on the way that could fail.

use std::any::{Any, TypeId, type_name};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use super::{DynError, NotChosen};
use crate::factory::{Created, Dropped, Health, PoolFactory, Provision};
use crate::preflight::{Capacity, ServerCapacity};
use crate::{ServerId, TenantId};

#[async_trait]
pub(super) trait Driver: Send + Sync {
    fn name(&self) -> &'static str;
    fn driver_type(&self) -> TypeId;
    fn server(&self, tenant: &TenantId) -> ServerId;
    fn max_per_tenant(&self) -> Option<u32>;
    async fn connect(self: Arc<Self>, tenant: &TenantId) -> Result<Box<dyn Opened>, DynError>;
    async fn create(&self, tenant: &TenantId) -> Result<Created, DynError>;
    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, DynError>;
}

#[async_trait]
pub(super) trait Opened: Send {
    fn opener(&self) -> &dyn Driver;
    fn connection(&self) -> &dyn Any;
    fn connection_mut(&mut self) -> &mut dyn Any;
    fn health(&mut self) -> Health;
    async fn recycle(&mut self) -> Result<(), DynError>;
    async fn capacity(&mut self) -> Result<ServerCapacity, DynError>;
    async fn close(self: Box<Self>, within: Duration);
}

pub(super) struct Wrapped<F: PoolFactory> {
    factory: F,
    databases: Option<Databases<F>>,
    /// What only a [`Capacity`] can do.
    ask: Option<Ask<F>>,
}

type Answer<'a, F, R> = Pin<Box<dyn Future<Output = Result<R, <F as PoolFactory>::Error>> + Send + 'a>>;
type MakeOrDrop<F, R> = for<'a> fn(&'a F, &'a TenantId) -> Answer<'a, F, R>;
type Ask<F> = for<'a> fn(&'a F, &'a mut <F as PoolFactory>::Connection) -> Answer<'a, F, ServerCapacity>;

/// What only a [`Provision`] can do.
struct Databases<F: PoolFactory> {
    create: MakeOrDrop<F, Created>,
    drop: MakeOrDrop<F, Dropped>,
}

impl<F: PoolFactory> Wrapped<F> {
    pub(super) fn new(factory: F) -> Self {
        Self { factory, databases: None, ask: None }
    }

    pub(super) fn provision(mut self) -> Self
    where
        F: Provision,
    {
        self.databases = Some(Databases {
            create: |factory: &F, tenant| Box::pin(factory.create(tenant)),
            drop: |factory: &F, tenant| Box::pin(factory.drop_database(tenant)),
        });
        self
    }

    pub(super) fn capacity(mut self) -> Self
    where
        F: Capacity,
    {
        self.ask = Some(|factory: &F, connection| Box::pin(factory.capacity(connection)));
        self
    }

    fn databases(&self) -> Result<&Databases<F>, DynError> {
        self.databases.as_ref().ok_or_else(|| DynError::not_chosen::<F>(NotChosen::Provision))
    }

    fn error(&self, error: F::Error) -> DynError {
        DynError::of(&self.factory, error)
    }
}

#[async_trait]
impl<F: PoolFactory> Driver for Wrapped<F> {
    fn name(&self) -> &'static str {
        type_name::<F>()
    }

    fn driver_type(&self) -> TypeId {
        TypeId::of::<F>()
    }

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.factory.server(tenant)
    }

    fn max_per_tenant(&self) -> Option<u32> {
        self.factory.max_per_tenant()
    }

    async fn connect(self: Arc<Self>, tenant: &TenantId) -> Result<Box<dyn Opened>, DynError> {
        let connection = self.factory.connect(tenant).await.map_err(|error| self.error(error))?;
        Ok(Box::new(OpenedBy { connection, driver: self }))
    }

    async fn create(&self, tenant: &TenantId) -> Result<Created, DynError> {
        (self.databases()?.create)(&self.factory, tenant).await.map_err(|error| self.error(error))
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, DynError> {
        (self.databases()?.drop)(&self.factory, tenant).await.map_err(|error| self.error(error))
    }
}

struct OpenedBy<F: PoolFactory> {
    connection: F::Connection,
    driver: Arc<Wrapped<F>>,
}

#[async_trait]
impl<F: PoolFactory> Opened for OpenedBy<F> {
    fn opener(&self) -> &dyn Driver {
        &*self.driver
    }

    fn connection(&self) -> &dyn Any {
        &self.connection
    }

    fn connection_mut(&mut self) -> &mut dyn Any {
        &mut self.connection
    }

    fn health(&mut self) -> Health {
        self.driver.factory.health(&mut self.connection)
    }

    async fn recycle(&mut self) -> Result<(), DynError> {
        let Self { connection, driver } = self;
        driver.factory.recycle(connection).await.map_err(|error| driver.error(error))
    }

    async fn capacity(&mut self) -> Result<ServerCapacity, DynError> {
        let Self { connection, driver } = self;
        let ask = driver.ask.ok_or_else(|| DynError::not_chosen::<F>(NotChosen::Capacity))?;
        ask(&driver.factory, connection).await.map_err(|error| driver.error(error))
    }

    async fn close(self: Box<Self>, within: Duration) {
        let Self { connection, driver } = *self;
        driver.factory.close(connection, within).await;
    }
}
