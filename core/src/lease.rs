//! [`Lease`] and [`PoolLease`]: what a caller holds, and how it comes back.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::{AssertUnwindSafe, catch_unwind};

use crate::TenantId;
use crate::factory::{Health, NativePool, PoolFactory};
use crate::ledger::{Held, PermitKey};
use crate::pools::Shared;
use crate::sync::Arc;
use crate::tasks::close_pool;

/// A connection and what is known of it: whose it is and which permit it has, which never change, and what its lease says.
pub(crate) struct Slot<F: PoolFactory> {
    pub(crate) connection: F::Connection,
    pub(crate) tenant: TenantId,
    permit: PermitKey,
    /// What its lease says of it: it is at least as bad as this, whatever the driver finds.
    verdict: Health,
}

impl<F: PoolFactory> Slot<F> {
    pub(crate) fn new(connection: F::Connection, tenant: TenantId, permit: PermitKey) -> Self {
        Self { connection, tenant, permit, verdict: Health::Clean }
    }
}

/// A connection to one tenant's database, for as long as this guard lives. Dropping it gives the connection back: at once,
/// without a round trip, where the driver finds it clean; otherwise a task cleans or closes it.
///
/// It may be dropped on any thread, inside or outside a runtime, while panicking, and after the manager is closed or gone.
///
/// While a task holds a lease it should not acquire again for the same tenant: with all of the tenant's connections held by
/// tasks that do, each waits for the others until its deadline. Pass the lease down.
#[must_use = "a lease that is dropped gives its connection back"]
pub struct Lease<F: PoolFactory> {
    shared: Arc<Shared<F>>,
    /// None only while it is being given back.
    slot: Option<Box<Slot<F>>>,
}

impl<F: PoolFactory> Lease<F> {
    #[inline]
    pub(crate) fn new(shared: Arc<Shared<F>>, held: Held<Box<Slot<F>>>) -> Self {
        debug_assert_eq!(held.permit, held.connection.permit);
        Self { shared, slot: Some(held.connection) }
    }

    /// A lease on a connection that was idle, if it still looks well: its socket may have been closed meanwhile. One that
    /// does not goes back as what it is, and the caller asks again.
    #[inline]
    pub(crate) fn checked(shared: Arc<Shared<F>>, mut held: Held<Box<Slot<F>>>) -> Result<Self, Arc<Shared<F>>> {
        if judge(&shared.factory, &mut held.connection) == Health::Clean || seeded!(BrokenIsHandedOut) {
            return Ok(Self::new(shared, held));
        }
        drop(Self::new(shared.clone(), held));
        Err(shared)
    }

    /// Whose connection it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.slot().tenant
    }

    /// Says that something is left on the connection which the driver cannot see, such as a session setting made by a
    /// function. It is recycled before anyone else gets it.
    pub fn mark_dirty(&mut self) {
        self.slot_mut().verdict = Health::Dirty;
    }

    /// Closes the connection instead of giving it back.
    pub fn discard(mut self) {
        self.slot_mut().verdict = Health::Broken;
    }

    fn slot(&self) -> &Slot<F> {
        match &self.slot {
            Some(slot) => slot,
            None => unreachable!("only `drop` takes the connection"),
        }
    }

    fn slot_mut(&mut self) -> &mut Slot<F> {
        match &mut self.slot {
            Some(slot) => slot,
            None => unreachable!("only `drop` takes the connection"),
        }
    }
}

/// The driver's judgement; a panic counts as broken.
#[inline]
fn judge<F: PoolFactory>(factory: &F, slot: &mut Slot<F>) -> Health {
    catch_unwind(AssertUnwindSafe(|| factory.health(&mut slot.connection))).unwrap_or(Health::Broken)
}

impl<F: PoolFactory> Drop for Lease<F> {
    fn drop(&mut self) {
        if let Some(mut slot) = self.slot.take() {
            let verdict = std::mem::replace(&mut slot.verdict, Health::Clean);
            let health = judge(&self.shared.factory, &mut slot).max(verdict);
            self.shared.with(|ledger, now| ledger.release(slot.permit, slot, health, now));
        }
    }
}

impl<F: PoolFactory> Deref for Lease<F> {
    type Target = F::Connection;

    #[inline]
    fn deref(&self) -> &F::Connection {
        &self.slot().connection
    }
}

impl<F: PoolFactory> DerefMut for Lease<F> {
    #[inline]
    fn deref_mut(&mut self) -> &mut F::Connection {
        &mut self.slot_mut().connection
    }
}

impl<F: PoolFactory> fmt::Debug for Lease<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("tenant", self.tenant()).finish_non_exhaustive()
    }
}

/// Permits that were set aside together. Dropping them makes them free.
#[must_use]
pub(crate) struct PoolPermits<F: PoolFactory> {
    pub(crate) shared: Arc<Shared<F>>,
    permits: Vec<PermitKey>,
}

impl<F: PoolFactory> PoolPermits<F> {
    pub(crate) fn new(shared: &Arc<Shared<F>>, permits: Vec<PermitKey>) -> Self {
        Self { shared: shared.clone(), permits }
    }

    pub(crate) fn count(&self) -> u32 {
        u32::try_from(self.permits.len()).unwrap_or(u32::MAX)
    }

    /// The pool they belong to begins to close.
    pub(crate) fn closing(&self) {
        self.shared.with_now(|ledger, now| ledger.closing_pool(&self.permits, now));
    }
}

impl<F: PoolFactory> Drop for PoolPermits<F> {
    fn drop(&mut self) {
        self.shared.with_now(|ledger, now| ledger.free_pool(&self.permits, now));
    }
}

/// The driver's own pool for one tenant, with its connections reserved in the budget.
///
/// Dropping it closes the pool in a task; [`close`](Self::close) waits for that. Its permits come back when its last
/// connection is closed: a clone of the pool that outlives the lease keeps them, which `Stats` shows as closing, and as
/// overdue after `close_timeout`.
#[must_use = "a pool lease that is dropped closes its pool"]
pub struct PoolLease<F: NativePool> {
    tenant: TenantId,
    /// None only while it is being dropped.
    open: Option<(F::Pool, PoolPermits<F>)>,
}

impl<F: NativePool> PoolLease<F> {
    pub(crate) fn new(tenant: TenantId, pool: F::Pool, permits: PoolPermits<F>) -> Self {
        Self { tenant, open: Some((pool, permits)) }
    }

    /// Whose pool it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.tenant
    }

    /// How many connections it may have.
    #[must_use]
    pub fn max_connections(&self) -> u32 {
        self.open.as_ref().map_or(0, |(_, permits)| permits.count())
    }

    /// Closes the pool and resolves when its last connection is closed, however long that takes.
    ///
    /// # Cancel safety
    /// Dropping the future only ends the waiting; the close goes on in a task.
    pub async fn close(mut self) {
        if let Some((pool, permits)) = self.open.take() {
            close_pool(pool, permits).await;
        }
    }
}

impl<F: NativePool> Drop for PoolLease<F> {
    fn drop(&mut self) {
        if let Some((pool, permits)) = self.open.take() {
            drop(close_pool(pool, permits));
        }
    }
}

impl<F: NativePool> Deref for PoolLease<F> {
    type Target = F::Pool;

    fn deref(&self) -> &F::Pool {
        match &self.open {
            Some((pool, _)) => pool,
            None => unreachable!("only `close` and `drop` take the pool"),
        }
    }
}

impl<F: NativePool> fmt::Debug for PoolLease<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PoolLease")
            .field("tenant", &self.tenant)
            .field("max_connections", &self.max_connections())
            .finish_non_exhaustive()
    }
}
