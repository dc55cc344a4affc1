//! The primitives that a model checker replaces. Everything shared between threads goes through here.
//!
//! The lock is parking_lot's: whoever finds it taken spins and yields before it sleeps, which for sections as short as the
//! ledger's costs two threads two thirds of what the standard library's does.
//!
//! `Arc` stays the standard library's in a model as well: methods on `&Arc<Self>` take no other. What an own `Arc` would
//! show, a manager that is never dropped, the models see by their factory's `Drop`.

#[cfg(not(tenantry_loom))]
pub(crate) use {
    parking_lot::{Mutex, MutexGuard},
    std::sync::atomic::AtomicU64,
};

#[cfg(tenantry_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

pub(crate) use std::sync::Arc;

/// Locks. A panic under the lock is a broken assertion of ours; the ledger's own recount is the judge of its state, no
/// flag, and a lease's `Drop` must not panic for it.
#[inline]
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    let guard = mutex.lock();
    #[cfg(tenantry_loom)]
    let guard = guard.unwrap_or_else(std::sync::PoisonError::into_inner);
    guard
}
