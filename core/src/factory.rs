//! What a driver does for tenantry: [`PoolFactory`], and [`NativePool`] and [`Provision`] for those that can more.
//!
//! A factory makes, judges, cleans and closes *single* connections. It counts nothing and keeps nothing: the
//! connections, their order, the budget and the queue belong to the ledger (`ledger.rs`).

use std::future::Future;
use std::time::Duration;

use crate::{ServerId, TenantId};

/// What a connection is fit for, as far as that can be known without a round trip. The worse is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Health {
    /// The next user may have it as it is.
    Clean,
    /// Something may be left on it (an open transaction, session state): [`PoolFactory::recycle`] it first.
    Dirty,
    /// It cannot be used again, for a reason of its own (a protocol left half-way). Close it.
    Broken,
    /// The server or the network ended it. Close it, and suspect the others of its server (their epoch is over).
    Lost,
}

/// What a driver's error means to the one who decides whether to try again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum FailureKind {
    /// The server has no place for another connection (SQLSTATE 53300; MySQL 1040, 1203, 1226).
    ServerFull,
    /// The tenant's database does not exist. tenantry never creates one on acquire.
    NoSuchTenant,
    /// The driver cannot use this name for a database. No retry will help.
    InvalidName,
    /// The server refused the credentials.
    Auth,
    /// The server could not be reached, or ended the connection.
    Unreachable,
    /// Anything else.
    Other,
}

/// What every driver can do. See `tenantry-testkit` for a suite that checks an implementation.
///
/// All futures are spawned or awaited by tenantry on its own runtime, never while its lock is held. `connect` and `recycle`
/// are dropped half-way at their timeouts, and each of them may be when the runtime shuts down.
///
/// A factory must not keep a second count of connections, nor wait for room: tenantry asks for a connection only
/// when it already holds the permit for it.
pub trait PoolFactory: Send + Sync + 'static {
    /// One physical connection to one database. Dropping it must close its socket or file, if not at once then soon.
    type Connection: Send + 'static;
    /// Whatever can go wrong. Its `Display` and `Debug` must hold no secret.
    type Error: std::error::Error + Send + Sync + 'static;

    /// The server that `tenant` lives on. Asked when a tenant is first seen and when it is resumed, never under
    /// tenantry's lock; it must answer without blocking.
    fn server(&self, tenant: &TenantId) -> ServerId {
        let _ = tenant;
        ServerId::default()
    }

    /// Opens one connection to the tenant's database. Bounded from outside by `connect_timeout`.
    ///
    /// It never creates a database: a missing one is an error of [`FailureKind::NoSuchTenant`].
    fn connect(&self, tenant: &TenantId) -> impl Future<Output = Result<Self::Connection, Self::Error>> + Send;

    /// Judges a connection without a round trip; asked when one comes back and again before one is handed out.
    /// A panic counts as [`Health::Broken`].
    fn health(&self, connection: &mut Self::Connection) -> Health;

    /// Makes a [`Health::Dirty`] connection fit for the next user, and proves that the server still answers: an idle
    /// connection that is under suspicion is recycled before it is handed out. At an error the connection is closed; one of
    /// [`FailureKind::Unreachable`] casts suspicion on the others of its server, as [`Health::Lost`] does.
    /// Bounded from outside by `recycle_timeout`.
    fn recycle(&self, connection: &mut Self::Connection) -> impl Future<Output = Result<(), Self::Error>> + Send;

    /// Closes a connection and resolves when the server has let go of it, as well as the driver can know.
    /// After `within` it must drop the socket and resolve; the permit is held until it does.
    fn close(&self, connection: Self::Connection, within: Duration) -> impl Future<Output = ()> + Send;

    /// What an error of [`connect`](Self::connect) or [`recycle`](Self::recycle) means.
    fn classify(&self, error: &Self::Error) -> FailureKind;

    /// The most connections that make sense for one tenant with this engine (SQLite: 1). The builder's word wins.
    fn max_per_tenant(&self) -> Option<u32> {
        None
    }
}

/// A driver that can also open its own kind of pool, for code that insists on one.
pub trait NativePool: PoolFactory {
    /// The driver's pool, a handle that is cheap to clone.
    type Pool: Clone + Send + Sync + 'static;

    /// Opens a pool that never holds more than `max` connections.
    fn open_pool(&self, tenant: &TenantId, max: u32) -> impl Future<Output = Result<Self::Pool, Self::Error>> + Send;

    /// Closes the pool and resolves when its last connection is closed, however long a clone of it stays in use.
    /// tenantry keeps the permits until then, and reports the pool as overdue after `close_timeout`.
    fn close_pool(&self, pool: Self::Pool) -> impl Future<Output = ()> + Send;
}

/// What [`Provision::create`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Created {
    /// The database is new.
    New,
    /// It was there before; nothing was changed.
    AlreadyThere,
}

/// What [`Provision::drop_database`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
pub enum Dropped {
    /// The database was there and is gone.
    Gone,
    /// There was none.
    WasAbsent,
}

/// A driver that can make and drop a tenant's database. Never a side effect of an acquire.
pub trait Provision: PoolFactory {
    /// Makes the tenant's database if it is missing.
    fn create(&self, tenant: &TenantId) -> impl Future<Output = Result<Created, Self::Error>> + Send;

    /// Drops the tenant's database if it is there.
    fn drop_database(&self, tenant: &TenantId) -> impl Future<Output = Result<Dropped, Self::Error>> + Send;
}
