//! [`EitherPools`] and [`EitherLease`]: one side of a manager of two drivers, with that side's types.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use super::search::acquire;
use super::{EitherConnection, EitherFactory, Side};
use crate::acquire::{AcquireOptions, Asked};
use crate::error::{AcquireError, TryAcquireError};
use crate::factory::PoolFactory;
use crate::preflight::{self, Capacity, Preflight, PreflightError};
use crate::{Lease, TenantId, TenantPools};

/// What an acquire on either side can end in. The error of a connect may be the other side's, as the tenant's circuit is
/// shared.
type Failed<A, B> = AcquireError<<EitherFactory<A, B> as PoolFactory>::Error>;

/// The left side of an [`EitherFactory`], as a type.
#[derive(Debug, Clone, Copy)]
pub enum EitherLeft {}

/// The right side of an [`EitherFactory`], as a type.
#[derive(Debug, Clone, Copy)]
pub enum EitherRight {}

/// [`EitherLeft`] or [`EitherRight`]; there is no other. `L` and `R` are the two drivers' connections.
pub trait EitherSide<L, R>: sealed::Pick<L, R, Picked = Self::Connection> {
    /// The connection of this side.
    type Connection: Send + 'static;
}

impl<L: Send + 'static, R: Send + 'static> EitherSide<L, R> for EitherLeft {
    type Connection = L;
}

impl<L: Send + 'static, R: Send + 'static> EitherSide<L, R> for EitherRight {
    type Connection = R;
}

mod sealed {
    use super::{EitherConnection, EitherLeft, EitherRight, Side};

    #[allow(private_interfaces, reason = "nobody outside can name this trait")]
    pub trait Pick<L, R>: 'static {
        type Picked;
        const SIDE: Side;
        fn pick(connection: &EitherConnection<L, R>) -> Option<&Self::Picked>;
        fn pick_mut(connection: &mut EitherConnection<L, R>) -> Option<&mut Self::Picked>;
    }

    #[allow(private_interfaces, reason = "nobody outside can name this trait")]
    impl<L, R> Pick<L, R> for EitherLeft {
        type Picked = L;
        const SIDE: Side = Side::Left;
        fn pick(connection: &EitherConnection<L, R>) -> Option<&L> {
            connection.left()
        }
        fn pick_mut(connection: &mut EitherConnection<L, R>) -> Option<&mut L> {
            connection.left_mut()
        }
    }

    #[allow(private_interfaces, reason = "nobody outside can name this trait")]
    impl<L, R> Pick<L, R> for EitherRight {
        type Picked = R;
        const SIDE: Side = Side::Right;
        fn pick(connection: &EitherConnection<L, R>) -> Option<&R> {
            connection.right()
        }
        fn pick_mut(connection: &mut EitherConnection<L, R>) -> Option<&mut R> {
            connection.right_mut()
        }
    }
}

impl<A: PoolFactory, B: PoolFactory> TenantPools<EitherFactory<A, B>> {
    /// This manager for code that uses the left driver. As cheap as a clone, and as one it keeps the manager open.
    #[must_use]
    pub fn left(&self) -> EitherPools<EitherLeft, A, B> {
        EitherPools { pools: self.clone(), side: PhantomData }
    }

    /// This manager for code that uses the right driver. As cheap as a clone, and as one it keeps the manager open.
    #[must_use]
    pub fn right(&self) -> EitherPools<EitherRight, A, B> {
        EitherPools { pools: self.clone(), side: PhantomData }
    }
}

/// One side of a manager of two drivers: its leases are connections of that driver. Cheap to clone. Made by
/// [`TenantPools::left`] and [`TenantPools::right`].
pub struct EitherPools<S, A: PoolFactory, B: PoolFactory> {
    pools: TenantPools<EitherFactory<A, B>>,
    side: PhantomData<S>,
}

impl<S: EitherSide<A::Connection, B::Connection>, A: PoolFactory, B: PoolFactory> EitherPools<S, A, B> {
    /// A connection of this side to the tenant's database, within `acquire_timeout`. See [`EitherFactory`] for what it
    /// costs where the tenant's idle connections are all of the other side.
    ///
    /// # Errors
    /// As [`TenantPools::acquire`].
    ///
    /// # Cancel safety
    /// As [`TenantPools::acquire`]. An exchange that was begun for it goes on in a task.
    pub fn acquire(
        &self,
        tenant: impl AsRef<str>,
    ) -> impl Future<Output = Result<EitherLease<S, A, B>, Failed<A, B>>> + Send + 'static {
        self.acquire_with(tenant, AcquireOptions::new())
    }

    /// [`acquire`](Self::acquire) with options of its own.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    pub fn acquire_with(
        &self,
        tenant: impl AsRef<str>,
        options: AcquireOptions,
    ) -> impl Future<Output = Result<EitherLease<S, A, B>, Failed<A, B>>> + Send + 'static {
        let shared = self.pools.shared.clone();
        let asked = Asked::new(&shared, tenant.as_ref());
        let acquire = acquire(shared, asked, S::SIDE, options);
        async move { acquire.await.map(EitherLease::new) }
    }

    /// An idle connection of this side now, or not at all; otherwise as [`TenantPools::try_acquire`].
    ///
    /// # Errors
    /// [`TryAcquireError`], [`NotIdle`](TryAcquireError::NotIdle) above all.
    pub fn try_acquire(&self, tenant: impl AsRef<str>) -> Result<EitherLease<S, A, B>, TryAcquireError> {
        let mut aside = Vec::new();
        loop {
            let lease = self.pools.try_acquire(tenant.as_ref())?;
            if lease.side() == Some(S::SIDE) {
                return Ok(EitherLease::new(lease));
            }
            aside.push(lease);
        }
    }

    /// [`TenantPools::preflight`] over a connection of this side, and so with this side's login.
    ///
    /// # Errors
    /// As [`TenantPools::preflight`].
    ///
    /// # Cancel safety
    /// As [`TenantPools::preflight`].
    pub fn preflight(
        &self,
        tenant: impl AsRef<str>,
    ) -> impl Future<Output = Result<Preflight, PreflightError<<EitherFactory<A, B> as PoolFactory>::Error>>> + Send + 'static
    where
        A: Capacity,
        B: Capacity,
    {
        let (shared, acquired) = (self.pools.shared.clone(), self.acquire(tenant));
        async move {
            let EitherLease { lease, .. } = acquired.await.map_err(PreflightError::Acquire)?;
            preflight::ask(&shared, lease).await
        }
    }

    /// The manager of both sides.
    #[must_use]
    pub fn pools(&self) -> &TenantPools<EitherFactory<A, B>> {
        &self.pools
    }
}

impl<S, A: PoolFactory, B: PoolFactory> Clone for EitherPools<S, A, B> {
    fn clone(&self) -> Self {
        Self { pools: self.pools.clone(), side: PhantomData }
    }
}

impl<S, A: PoolFactory, B: PoolFactory> fmt::Debug for EitherPools<S, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("EitherPools").field(&self.pools).finish()
    }
}

/// A lease on a connection of one side. All that holds for a [`Lease`] holds for it.
#[must_use = "a lease that is dropped gives its connection back"]
pub struct EitherLease<S, A: PoolFactory, B: PoolFactory> {
    lease: Lease<EitherFactory<A, B>>,
    side: PhantomData<S>,
}

impl<S: EitherSide<A::Connection, B::Connection>, A: PoolFactory, B: PoolFactory> EitherLease<S, A, B> {
    fn new(lease: Lease<EitherFactory<A, B>>) -> Self {
        debug_assert_eq!(lease.side(), Some(S::SIDE));
        Self { lease, side: PhantomData }
    }
}

impl<S, A: PoolFactory, B: PoolFactory> EitherLease<S, A, B> {
    /// Whose connection it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        self.lease.tenant()
    }

    /// As [`Lease::mark_dirty`].
    pub fn mark_dirty(&mut self) {
        self.lease.mark_dirty();
    }

    /// As [`Lease::discard`].
    pub fn discard(self) {
        self.lease.discard();
    }
}

impl<S: EitherSide<A::Connection, B::Connection>, A: PoolFactory, B: PoolFactory> Deref for EitherLease<S, A, B> {
    type Target = <S as EitherSide<A::Connection, B::Connection>>::Connection;

    #[inline]
    fn deref(&self) -> &Self::Target {
        match S::pick(&self.lease) {
            Some(connection) => connection,
            None => unreachable!("a lease of one side is made of a connection of that side, and keeps it"),
        }
    }
}

impl<S: EitherSide<A::Connection, B::Connection>, A: PoolFactory, B: PoolFactory> DerefMut for EitherLease<S, A, B> {
    #[inline]
    fn deref_mut(&mut self) -> &mut Self::Target {
        match S::pick_mut(&mut self.lease) {
            Some(connection) => connection,
            None => unreachable!("a lease of one side is made of a connection of that side, and keeps it"),
        }
    }
}

impl<S, A: PoolFactory, B: PoolFactory> fmt::Debug for EitherLease<S, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EitherLease").field("tenant", self.tenant()).finish_non_exhaustive()
    }
}
