//! [`DynFactory`]: the driver as a value, chosen at run time, and for each tenant if need be. Two drivers whose types are
//! kept are in `either.rs`; the object-safe traits behind this one in `dyn_factory/erased.rs`.

mod erased;

use std::any::type_name;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::factory::{Created, Dropped, FailureKind, Health, PoolFactory, Provision};
use crate::preflight::{Capacity, ServerCapacity};
use crate::{ServerId, TenantId};

use self::erased::{Driver, Opened, Wrapped};

type Route = dyn Fn(&TenantId) -> DynFactory + Send + Sync;

/// Any driver, chosen at run time: all have the same type, and so have their connections ([`DynConnection`]) and errors
/// ([`DynError`]). Cloning it gives another handle on the same driver.
///
/// It costs an allocation and a virtual call at each connect, recycle and close, and a virtual call at each lease.
///
/// There is no `NativePool` of it: a driver's own pool is of use only where its type is known.
///
/// ```
/// use tenantry_core::{ConfigError, DynFactory, PoolFactory, TenantPools};
///
/// fn pools(old: impl PoolFactory, new: impl PoolFactory) -> Result<TenantPools<DynFactory>, ConfigError> {
///     let (old, new) = (DynFactory::new(old), DynFactory::new(new));
///     let route = DynFactory::route(move |tenant| {
///         if tenant.as_str().starts_with("legacy-") { old.clone() } else { new.clone() }
///     });
///     TenantPools::builder(route).max_connections(40).build()
/// }
/// ```
#[derive(Clone)]
pub struct DynFactory(Choice);

#[derive(Clone)]
enum Choice {
    Driver(Arc<dyn Driver>),
    Route(Arc<Route>),
}

impl DynFactory {
    /// A driver that was chosen at run time. Making and dropping databases through it fails, and so does a preflight; see
    /// [`with_provision`](Self::with_provision) and [`with_capacity`](Self::with_capacity).
    #[must_use]
    pub fn new(factory: impl PoolFactory) -> Self {
        Self(Choice::Driver(Arc::new(Wrapped::new(factory))))
    }

    /// The same for a driver that can make and drop databases: [`TenantPools::create`](crate::TenantPools::create) and
    /// [`drop_database`](crate::TenantPools::drop_database) work as with the driver itself.
    #[must_use]
    pub fn with_provision(factory: impl Provision) -> Self {
        Self(Choice::Driver(Arc::new(Wrapped::new(factory).provision())))
    }

    /// The same for a driver whose server can be asked for its limits: [`TenantPools::preflight`](crate::TenantPools::preflight)
    /// works as with the driver itself.
    #[must_use]
    pub fn with_capacity(factory: impl Capacity) -> Self {
        Self(Choice::Driver(Arc::new(Wrapped::new(factory).capacity())))
    }

    /// The same for a driver that can do both, as all drivers of tenantry's own can.
    #[must_use]
    pub fn with_provision_and_capacity(factory: impl Provision + Capacity) -> Self {
        Self(Choice::Driver(Arc::new(Wrapped::new(factory).provision().capacity())))
    }

    /// A driver for each tenant. `route` is asked whenever a tenant becomes known, for every connect, and twice for every
    /// lease; it must answer at once and not panic.
    ///
    /// Give clones of factories that were made beforehand. Then nothing idle outlives a change of its tenant's route: a
    /// connection that was opened by a factory which the route no longer names is closed, by the factory that opened it,
    /// instead of being handed out; what was in use or being opened at the change is closed when it comes back. Where
    /// `route` makes a factory at each call there is nothing to compare but the driver's type and the tenant's server, and a
    /// [`drain`](crate::TenantPools::drain) has to come before a change that neither shows.
    ///
    /// Move a tenant to another server by a drain, the change, and a [`resume`](crate::TenantPools::resume): only then
    /// does it count there, as with any driver.
    ///
    /// No tenant is known when the default for `max_connections_per_tenant` is asked for, so it is the builder's and
    /// not an engine's. Give tenants on SQLite their 1 yourself, with [`Builder::tenant`](crate::Builder::tenant) or for all.
    #[must_use]
    pub fn route(route: impl Fn(&TenantId) -> Self + Send + Sync + 'static) -> Self {
        Self(Choice::Route(Arc::new(route)))
    }

    /// The tenant's driver at present.
    fn driver(&self, tenant: &TenantId) -> Arc<dyn Driver> {
        let mut choice = self.0.clone();
        loop {
            match choice {
                Choice::Driver(driver) => return driver,
                Choice::Route(route) => choice = route(tenant).0,
            }
        }
    }

    /// Whether a connection is still one of those that its tenant is to have.
    fn is_routed_to(&self, connection: &DynConnection) -> bool {
        if let Choice::Driver(_) = self.0 {
            return true;
        }
        let DynConnection { opened, tenant, server } = connection;
        let (opener, driver) = (opened.opener(), self.driver(tenant));
        if std::ptr::addr_eq(opener, Arc::as_ptr(&driver)) {
            return true;
        }
        // Nobody else has it: it was made to answer this question.
        let made_anew = Arc::strong_count(&driver) == 1;
        made_anew && opener.driver_type() == driver.driver_type() && *server == driver.server(tenant)
    }
}

impl PoolFactory for DynFactory {
    type Connection = DynConnection;
    type Error = DynError;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.driver(tenant).server(tenant)
    }

    async fn connect(&self, tenant: &TenantId) -> Result<DynConnection, DynError> {
        let driver = self.driver(tenant);
        let server = driver.server(tenant);
        Ok(DynConnection { opened: driver.connect(tenant).await?, tenant: tenant.clone(), server })
    }

    fn health(&self, connection: &mut DynConnection) -> Health {
        if self.is_routed_to(connection) { connection.opened.health() } else { Health::Broken }
    }

    async fn recycle(&self, connection: &mut DynConnection) -> Result<(), DynError> {
        connection.opened.recycle().await
    }

    async fn close(&self, connection: DynConnection, within: Duration) {
        connection.opened.close(within).await;
    }

    fn classify(&self, error: &DynError) -> FailureKind {
        error.kind
    }

    fn max_per_tenant(&self) -> Option<u32> {
        match &self.0 {
            Choice::Driver(driver) => driver.max_per_tenant(),
            Choice::Route(_) => None,
        }
    }
}

/// Fails, with [`FailureKind::Other`], where the tenant's driver was not given [`with_provision`](DynFactory::with_provision).
impl Provision for DynFactory {
    async fn create(&self, tenant: &TenantId) -> Result<Created, DynError> {
        self.driver(tenant).create(tenant).await
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, DynError> {
        self.driver(tenant).drop_database(tenant).await
    }
}

/// Asks with the driver that opened the connection. Fails, with [`FailureKind::Other`], where that one was not given
/// [`with_capacity`](DynFactory::with_capacity).
impl Capacity for DynFactory {
    async fn capacity(&self, connection: &mut DynConnection) -> Result<ServerCapacity, DynError> {
        connection.opened.capacity().await
    }
}

impl fmt::Debug for DynFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Choice::Driver(driver) => f.debug_tuple("DynFactory").field(&driver.name()).finish(),
            Choice::Route(_) => f.write_str("DynFactory(a route)"),
        }
    }
}

/// A connection of some driver. [`downcast_mut`](Self::downcast_mut) gives the driver's own, on a lease as well:
///
/// ```
/// # use tenantry_core::{DynFactory, Lease};
/// # struct PgConnection;
/// # fn example(mut lease: Lease<DynFactory>) {
/// if let Some(connection) = lease.downcast_mut::<PgConnection>() {
///     // .. a PostgreSQL tenant
/// }
/// # }
/// ```
pub struct DynConnection {
    opened: Box<dyn Opened>,
    tenant: TenantId,
    /// Where the tenant lived when this was opened.
    server: ServerId,
}

impl DynConnection {
    /// Whether this is a `C`.
    #[must_use]
    pub fn is<C: 'static>(&self) -> bool {
        self.downcast_ref::<C>().is_some()
    }

    /// The driver's own connection, if it is a `C`.
    #[must_use]
    pub fn downcast_ref<C: 'static>(&self) -> Option<&C> {
        self.opened.connection().downcast_ref()
    }

    /// The driver's own connection to work with, if it is a `C`.
    #[must_use]
    pub fn downcast_mut<C: 'static>(&mut self) -> Option<&mut C> {
        self.opened.connection_mut().downcast_mut()
    }
}

impl fmt::Debug for DynConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynConnection")
            .field("driver", &self.opened.opener().name())
            .field("tenant", &self.tenant)
            .finish_non_exhaustive()
    }
}

/// An error of some driver. Its text says which driver; the driver's own error is its `source`, whose text it does not
/// repeat, and [`downcast_ref`](Self::downcast_ref) gives that with its type.
#[derive(Debug)]
pub struct DynError {
    kind: FailureKind,
    driver: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl DynError {
    fn of<F: PoolFactory>(factory: &F, error: F::Error) -> Self {
        Self { kind: factory.classify(&error), driver: type_name::<F>(), source: Box::new(error) }
    }

    fn not_chosen<F: PoolFactory>(lacks: NotChosen) -> Self {
        Self { kind: FailureKind::Other, driver: type_name::<F>(), source: Box::new(lacks) }
    }

    /// Whether the driver's own error is an `E`.
    #[must_use]
    pub fn is<E: Error + 'static>(&self) -> bool {
        self.source.is::<E>()
    }

    /// The driver's own error, if it is an `E`.
    #[must_use]
    pub fn downcast_ref<E: Error + 'static>(&self) -> Option<&E> {
        self.source.downcast_ref()
    }
}

impl fmt::Display for DynError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the driver {} failed", self.driver)
    }
}

impl Error for DynError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}

#[derive(Debug, thiserror::Error)]
enum NotChosen {
    #[error("it was not chosen as one that makes and drops databases; use `DynFactory::with_provision`")]
    Provision,
    #[error("it was not chosen as one whose server tells its limits; use `DynFactory::with_capacity`")]
    Capacity,
}
