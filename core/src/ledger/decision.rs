//! What the ledger answers: decisions for those who ask, and actions for the one who drives it.

use std::sync::Arc;
use std::task::Waker;

use smallvec::SmallVec;

use super::refusal::Refusal;
use super::{PermitKey, WaiterKey};
use crate::{Event, TenantId};

/// A connection that is handed out, with its permit.
#[derive(Debug)]
#[must_use]
pub struct Held<C> {
    /// The permit, in use.
    pub permit: PermitKey,
    /// The connection.
    pub connection: C,
}

/// The answer to an acquire.
#[derive(Debug)]
#[must_use]
pub enum Decision<C, E> {
    /// An idle connection.
    Take(Held<C>),
    /// Nothing at once. [`Ledger::poll`](super::Ledger::poll) says what came of it.
    Wait(WaiterKey),
    /// No.
    Refuse(Refusal<E>),
    /// The tenant is not known: [`Ledger::admit`](super::Ledger::admit) it and ask again.
    Unknown,
}

/// The answer to a `try_acquire`.
#[derive(Debug)]
#[must_use]
pub enum TryDecision<C> {
    /// An idle connection.
    Take(Held<C>),
    /// None that could be handed out at once.
    NotIdle,
    /// The tenant is being drained.
    Draining,
    /// The tenant was removed.
    Removed,
    /// The manager is closed.
    Closed,
}

/// What is to be done outside the lock.
#[derive(Debug)]
#[must_use]
pub enum Action<C, E> {
    /// Connect, then answer [`Ledger::opened`](super::Ledger::opened) or [`Ledger::open_failed`](super::Ledger::open_failed).
    Open {
        /// The permit for it, opening.
        permit: PermitKey,
        /// Whose database.
        tenant: TenantId,
    },
    /// Recycle, then answer [`Ledger::recycled`](super::Ledger::recycled) or [`Ledger::recycle_failed`](super::Ledger::recycle_failed).
    Recycle {
        /// Its permit, in use.
        permit: PermitKey,
        /// What to recycle.
        connection: C,
    },
    /// Close, then answer [`Ledger::closed`](super::Ledger::closed).
    Close {
        /// Its permit, closing.
        permit: PermitKey,
        /// What to close.
        connection: C,
    },
    /// Wake a waiter or a watcher: it has an answer.
    Wake(Waker),
    /// Drop it; its `Drop` may be anybody's code.
    DropWaker(Waker),
    /// Drop it; its `Drop` may be anybody's code.
    DropError(Arc<E>),
    /// Tell those who want to know.
    Tell(Box<Event>),
}

/// The actions of one command; up to two of them need no allocation.
pub type Actions<C, E> = SmallVec<[Action<C, E>; 2]>;
