//! The primitives that a model checker replaces. Everything shared between threads goes through here.
//!
//! `Arc` stays the standard library's in a model as well: methods on `&Arc<Self>` take no other. What an own `Arc` would
//! show, a manager that is never dropped, the models see by their factory's `Drop`.

#[cfg(not(tenantry_loom))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};

#[cfg(tenantry_loom)]
pub(crate) use loom::sync::{Mutex, MutexGuard};

pub(crate) use std::sync::Arc;

use std::sync::PoisonError;

/// Locks. A panic under the lock is a broken assertion of ours; the ledger's own recount is the judge of its state, not
/// the poison flag, and a lease's `Drop` must not panic for it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
