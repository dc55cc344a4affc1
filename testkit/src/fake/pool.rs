//! [`FakePool`]: what the fake gives where a driver would give its own pool.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use tenantry_core::{FailureKind, TenantId};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::connection::FakeError;
use super::script::Call;
use super::shared::Place;
use super::witness::{Event, Owner};

/// A pool that lives in memory. All of its places count as open from the start of its opening until the end of its
/// closing, or until its last handle is dropped.
#[derive(Clone)]
pub struct FakePool {
    inner: Arc<Inner>,
}

struct Inner {
    owner: Owner,
    max: u32,
    slots: Arc<Semaphore>,
    place: Mutex<Option<Place>>,
}

impl FakePool {
    pub(super) fn new(place: Place, max: u32) -> Self {
        let slots = Arc::new(Semaphore::new(usize::try_from(max).unwrap_or(Semaphore::MAX_PERMITS)));
        let inner = Inner { owner: place.owner.clone(), max, slots, place: Mutex::new(Some(place)) };
        Self { inner: Arc::new(inner) }
    }

    /// Its number, from 1; no other connection or pool of the same fake has it.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.inner.owner.id
    }

    /// The tenant it was opened for.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.inner.owner.tenant
    }

    /// The most connections it may hold.
    #[must_use]
    pub fn max(&self) -> u32 {
        self.inner.max
    }

    /// Takes one of the pool's connections, waiting for one to come back if all are out.
    ///
    /// # Errors
    /// [`FailureKind::Other`] once the closing of the pool has begun.
    ///
    /// # Cancel safety
    /// Dropping the future takes nothing.
    pub async fn get(&self) -> Result<FakePooled, FakeError> {
        let slot = Arc::clone(&self.inner.slots).acquire_owned().await;
        let closed = FakeError { kind: FailureKind::Other, call: Call::OpenPool };
        Ok(FakePooled { _slot: slot.map_err(|_| closed)?, pool: Arc::clone(&self.inner) })
    }

    pub(super) fn owner(&self) -> &Owner {
        &self.inner.owner
    }

    /// Waits until every connection is back, then lets nobody take one.
    ///
    /// Takes every slot that there is before closing the semaphore, as a closed one no longer says who is out.
    pub(super) async fn drain(&self) {
        // Only a closed semaphore refuses: then somebody else has drained it.
        if let Ok(all) = self.inner.slots.acquire_many(self.inner.max).await {
            all.forget();
        }
        self.inner.slots.close();
    }

    /// Stops counting its places.
    pub(super) fn end(&self) {
        let place = self.inner.place.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(place);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let place = self.place.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(place) = place {
            let Owner { tenant, id, .. } = self.owner.clone();
            let shared = Arc::clone(&place.shared);
            drop(place);
            shared.log(Event::PoolDropped { tenant, id });
        }
    }
}

impl fmt::Debug for FakePool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tenant, id, max) = (self.tenant(), self.id(), self.max());
        f.debug_struct("FakePool").field("tenant", tenant).field("id", &id).field("max", &max).finish_non_exhaustive()
    }
}

/// One connection out of a [`FakePool`]; dropping it gives it back.
pub struct FakePooled {
    _slot: OwnedSemaphorePermit,
    pool: Arc<Inner>,
}

impl fmt::Debug for FakePooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakePooled").field("pool", &self.pool.owner.id).finish_non_exhaustive()
    }
}
