//! [`EitherFactory`]: two drivers for the same tenants, under one budget, each with its own types. The typed handles are in
//! `either/views.rs`, how one of them gets a connection in `either/search.rs`, how a connect learns for whom it is in
//! `either/asks.rs`, what is remembered of a side that fails in `either/rests.rs`. Drivers that are chosen for each tenant,
//! at run time, are in `dyn_factory.rs`.

mod asks;
mod rests;
mod search;
mod views;

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::factory::{Created, Dropped, FailureKind, Health, PoolFactory, Provision};
use crate::preflight::{Capacity, ServerCapacity};
use crate::{ServerId, TenantId};

use self::asks::Asks;
use self::rests::Rests;

pub use self::views::{EitherLease, EitherLeft, EitherPools, EitherRight, EitherSide};

/// Two drivers for the same tenants: say diesel for the old half of a service, and sqlx for the new. One ledger counts
/// the connections of both, so that every cap, the tenant's own among them, holds for the two together.
///
/// [`left()`](crate::TenantPools::left) and [`right()`](crate::TenantPools::right) of the manager are handles whose leases are
/// connections of the one driver or of the other. Any tenant may be used through both, at the same time.
///
/// ```
/// use tenantry_core::{ConfigError, EitherFactory, PoolFactory, TenantPools};
///
/// async fn both(old: impl PoolFactory, new: impl PoolFactory) -> Result<(), Box<dyn std::error::Error>> {
///     let pools = TenantPools::builder(EitherFactory::new(old, new)).max_connections(40).build()?;
///     let (old, new) = (pools.left(), pools.right());
///     let lease = old.acquire("acme").await?; // a connection of the old driver
///     let other = new.acquire("acme").await?; // one of the new, out of the same 40
///     Ok(())
/// }
/// ```
///
/// # What it costs
/// A warm tenant is served as with one driver. A tenant whose idle connections are all of the other kind gets one more if
/// there is room for it, as any cold acquire. At its cap, or with the whole budget in use, one of them is *exchanged*:
/// closed, and then one of the wanted kind opened under the same permit, which takes as long as a cold acquire. So give a
/// tenant that is used through both views at least two connections; with one, each change of sides is an exchange. And
/// where callers of both sides stand in one tenant's line, what comes back is often of the kind that the next in line
/// cannot use; so a tenant that is always at its cap is better served by one driver. The ledger sees an exchange as a
/// lease: it is in no counter of connects.
///
/// # What the two share
/// * Server: both drivers have to reach the same one, and the left one names it.
/// * Failures: a tenant has one circuit. While the connects of one driver fail, the other opens nothing for that tenant
///   either; what is idle is handed out. A driver that cannot connect costs the other at most one idle connection of the
///   tenant a second.
/// * The default cap of a tenant: the lower one of what the two drivers find sensible.
/// * Databases: the left driver makes and drops them, where it can ([`Provision`]).
/// * Limits of the server: a preflight of a [view](EitherPools::preflight) asks as that driver, whose login may have a
///   limit of its own; one of the manager itself asks as whichever driver has a connection there, as a rule the left one.
///
/// What is asked of the manager itself, and not of a view, concerns both: drains, statistics, limits, the close.
/// [`TenantPools::acquire`](crate::TenantPools::acquire) gives a connection of whichever kind is there ([`EitherConnection`]),
/// and opens left ones. There is no `NativePool` of the two; where a driver's own pool is needed, give it a manager of
/// its own and a part of the budget.
pub struct EitherFactory<A: PoolFactory, B: PoolFactory> {
    left: A,
    right: B,
    asks: Asks,
    rests: Rests<EitherError<A::Error, B::Error>>,
}

/// Which driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Side {
    Left,
    Right,
}

impl<A: PoolFactory, B: PoolFactory> EitherFactory<A, B> {
    /// Two drivers for the same tenants.
    #[must_use]
    pub fn new(left: A, right: B) -> Self {
        Self { left, right, asks: Asks::default(), rests: Rests::default() }
    }

    async fn open(
        &self,
        side: Side,
        tenant: &TenantId,
    ) -> Result<EitherConnection<A::Connection, B::Connection>, EitherError<A::Error, B::Error>> {
        match side {
            Side::Left => self.left.connect(tenant).await.map(Held::Left).map_err(EitherError::Left),
            Side::Right => self.right.connect(tenant).await.map(Held::Right).map_err(EitherError::Right),
        }
        .map(EitherConnection)
    }
}

impl<A: PoolFactory, B: PoolFactory> PoolFactory for EitherFactory<A, B> {
    type Connection = EitherConnection<A::Connection, B::Connection>;
    type Error = EitherError<A::Error, B::Error>;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.left.server(tenant)
    }

    async fn connect(&self, tenant: &TenantId) -> Result<Self::Connection, Self::Error> {
        let opening = self.asks.begin(tenant);
        let connection = self.open(opening.side(), tenant).await?;
        opening.succeeded();
        Ok(connection)
    }

    fn health(&self, connection: &mut Self::Connection) -> Health {
        match &mut connection.0 {
            Held::Left(connection) => self.left.health(connection),
            Held::Right(connection) => self.right.health(connection),
            Held::Nothing => Health::Broken,
        }
    }

    async fn recycle(&self, connection: &mut Self::Connection) -> Result<(), Self::Error> {
        match &mut connection.0 {
            Held::Left(connection) => self.left.recycle(connection).await.map_err(EitherError::Left),
            Held::Right(connection) => self.right.recycle(connection).await.map_err(EitherError::Right),
            // Broken, and never recycled.
            Held::Nothing => Ok(()),
        }
    }

    async fn close(&self, connection: Self::Connection, within: Duration) {
        match connection.0 {
            Held::Left(connection) => self.left.close(connection, within).await,
            Held::Right(connection) => self.right.close(connection, within).await,
            Held::Nothing => {}
        }
    }

    fn classify(&self, error: &Self::Error) -> FailureKind {
        match error {
            EitherError::Left(error) => self.left.classify(error),
            EitherError::Right(error) => self.right.classify(error),
        }
    }

    fn max_per_tenant(&self) -> Option<u32> {
        [self.left.max_per_tenant(), self.right.max_per_tenant()].into_iter().flatten().min()
    }
}

/// By the left driver.
impl<A: Provision, B: PoolFactory> Provision for EitherFactory<A, B> {
    async fn create(&self, tenant: &TenantId) -> Result<Created, Self::Error> {
        self.left.create(tenant).await.map_err(EitherError::Left)
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, Self::Error> {
        self.left.drop_database(tenant).await.map_err(EitherError::Left)
    }
}

/// By the driver whose connection it is.
impl<A: Capacity, B: Capacity> Capacity for EitherFactory<A, B> {
    async fn capacity(&self, connection: &mut Self::Connection) -> Result<ServerCapacity, Self::Error> {
        match &mut connection.0 {
            Held::Left(connection) => self.left.capacity(connection).await.map_err(EitherError::Left),
            Held::Right(connection) => self.right.capacity(connection).await.map_err(EitherError::Right),
            // In no lease that anybody has.
            Held::Nothing => Ok(ServerCapacity::default()),
        }
    }
}

impl<A: PoolFactory + fmt::Debug, B: PoolFactory + fmt::Debug> fmt::Debug for EitherFactory<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EitherFactory").field("left", &self.left).field("right", &self.right).finish_non_exhaustive()
    }
}

/// A connection of the left driver or of the right one: what a lease has that was acquired through no view.
pub struct EitherConnection<L, R>(Held<L, R>);

enum Held<L, R> {
    Left(L),
    Right(R),
    /// It was closed, and there is no other yet: an exchange is under way, or failed.
    Nothing,
}

impl<L, R> EitherConnection<L, R> {
    const NOTHING: Self = Self(Held::Nothing);

    fn side(&self) -> Option<Side> {
        match self.0 {
            Held::Left(_) => Some(Side::Left),
            Held::Right(_) => Some(Side::Right),
            Held::Nothing => None,
        }
    }

    /// The left driver's own connection, if it is one.
    #[must_use]
    pub fn left(&self) -> Option<&L> {
        if let Held::Left(connection) = &self.0 { Some(connection) } else { None }
    }

    /// The left driver's own connection to work with, if it is one.
    #[must_use]
    pub fn left_mut(&mut self) -> Option<&mut L> {
        if let Held::Left(connection) = &mut self.0 { Some(connection) } else { None }
    }

    /// The right driver's own connection, if it is one.
    #[must_use]
    pub fn right(&self) -> Option<&R> {
        if let Held::Right(connection) = &self.0 { Some(connection) } else { None }
    }

    /// The right driver's own connection to work with, if it is one.
    #[must_use]
    pub fn right_mut(&mut self) -> Option<&mut R> {
        if let Held::Right(connection) = &mut self.0 { Some(connection) } else { None }
    }
}

impl<L, R> fmt::Debug for EitherConnection<L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EitherConnection").field(&self.side()).finish()
    }
}

/// An error of the left driver or of the right one. Its text says of which; the driver's own error is its `source`, whose
/// text it does not repeat.
#[derive(Debug)]
pub enum EitherError<L, R> {
    /// The left driver's own.
    Left(L),
    /// The right driver's own.
    Right(R),
}

impl<L, R> fmt::Display for EitherError<L, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Left(_) => "the left driver failed",
            Self::Right(_) => "the right driver failed",
        })
    }
}

impl<L: Error + 'static, R: Error + 'static> Error for EitherError<L, R> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Left(error) => Some(error),
            Self::Right(error) => Some(error),
        }
    }
}
