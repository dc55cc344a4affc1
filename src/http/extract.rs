//! What handlers ask for: [`TenantConnection`], or a [`Tenant`] to acquire from later.

use std::fmt;
use std::ops::{Deref, DerefMut};

use axum::extract::{FromRef, FromRequestParts};
use axum::http::request::Parts;

use crate::http::{Problem, TenantSource};
use crate::{AcquireError, AcquireOptions, Lease, PoolFactory, TenantId, TenantPools};

/// The pools, and where a request names its tenant: what the router's state holds, or hands out through `FromRef`. Cheap to
/// clone.
///
/// It keeps the manager open as any other handle does. Close it when the server has stopped, by
/// [`close_within`](TenantPools::close_within).
pub struct Tenants<F: PoolFactory> {
    pools: TenantPools<F>,
    source: TenantSource,
    options: AcquireOptions,
}

impl<F: PoolFactory> Tenants<F> {
    /// Requests of the tenants that `source` finds, served from `pools`.
    #[must_use]
    pub fn new(pools: TenantPools<F>, source: TenantSource) -> Self {
        Self { pools, source, options: AcquireOptions::new() }
    }

    /// How the extractors acquire. Default: within the manager's `acquire_timeout`, in the foreground.
    #[must_use]
    pub fn options(mut self, options: AcquireOptions) -> Self {
        self.options = options;
        self
    }

    /// The pools.
    #[must_use]
    pub fn pools(&self) -> &TenantPools<F> {
        &self.pools
    }

    async fn tenant(self, head: &mut Parts) -> Result<Tenant<F>, Problem> {
        let id = self.source.tenant(head).await?;
        Ok(Tenant { id, pools: self.pools, options: self.options })
    }
}

impl<F: PoolFactory> Clone for Tenants<F> {
    fn clone(&self) -> Self {
        Self { pools: self.pools.clone(), source: self.source.clone(), options: self.options }
    }
}

impl<F: PoolFactory> fmt::Debug for Tenants<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tenants").field("pools", &self.pools).field("source", &self.source).finish_non_exhaustive()
    }
}

/// Extracts the request's tenant, without a connection yet.
///
/// For handlers that have something to do before they need one: a handler with a body above all, which axum reads after the
/// other arguments. With a [`TenantConnection`] beside it the connection would be held while a slow client sends; acquire
/// when the body is there.
pub struct Tenant<F: PoolFactory> {
    id: TenantId,
    pools: TenantPools<F>,
    options: AcquireOptions,
}

impl<F: PoolFactory> Tenant<F> {
    /// Which one.
    #[must_use]
    pub fn id(&self) -> &TenantId {
        &self.id
    }

    /// The pools, for whatever else is to be done with the tenant.
    #[must_use]
    pub fn pools(&self) -> &TenantPools<F> {
        &self.pools
    }

    /// A connection to its database, with the options of [`Tenants`].
    ///
    /// # Errors
    /// As [`TenantPools::acquire`]. `?` makes a [`Problem`] of it.
    ///
    /// # Cancel safety
    /// As [`TenantPools::acquire`].
    pub async fn acquire(&self) -> Result<Lease<F>, AcquireError<F::Error>> {
        self.pools.acquire_with(&self.id, self.options).await
    }
}

impl<F: PoolFactory> fmt::Debug for Tenant<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tenant").field(&self.id).finish()
    }
}

impl<F, S> FromRequestParts<S> for Tenant<F>
where
    F: PoolFactory,
    S: Send + Sync,
    Tenants<F>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Problem> {
        Tenants::<F>::from_ref(state).tenant(head).await
    }
}

/// Extracts a connection to the database of the request's tenant. It goes back when this is dropped, at the latest with the
/// handler's future.
///
/// It derefs to the driver's connection, so `&mut *connection` is what the driver works with; the lease is its one field.
/// A request without a tenant, or for which there is no connection, is answered with a [`Problem`].
///
/// In a handler that takes a body, take a [`Tenant`] instead.
pub struct TenantConnection<F: PoolFactory>(pub Lease<F>);

impl<F: PoolFactory> TenantConnection<F> {
    /// Whose connection it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        self.0.tenant()
    }

    /// As [`Lease::mark_dirty`].
    pub fn mark_dirty(&mut self) {
        self.0.mark_dirty();
    }
}

impl<F: PoolFactory> Deref for TenantConnection<F> {
    type Target = F::Connection;

    fn deref(&self) -> &F::Connection {
        &self.0
    }
}

impl<F: PoolFactory> DerefMut for TenantConnection<F> {
    fn deref_mut(&mut self) -> &mut F::Connection {
        &mut self.0
    }
}

impl<F: PoolFactory> fmt::Debug for TenantConnection<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TenantConnection").field(&self.0).finish()
    }
}

impl<F, S> FromRequestParts<S> for TenantConnection<F>
where
    F: PoolFactory,
    S: Send + Sync,
    Tenants<F>: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(head: &mut Parts, state: &S) -> Result<Self, Problem> {
        let tenant = Tenants::<F>::from_ref(state).tenant(head).await?;
        Ok(Self(tenant.acquire().await?))
    }
}
