//! [`Observer`]: the seam for histograms and logs. The ledger notes what happens where somebody wants to know; it is told after
//! the lock is released, by the one whose command it was.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use crate::stats::CloseReason;
use crate::{FailureKind, Health, LimitScope, Phase, ServerId, TenantId};

/// Is told what happens in a manager: [`Builder::observer`](crate::Builder::observer).
///
/// It is called outside of the lock, by whichever task or thread did what it tells of, one that drops a lease among them: it
/// must not block, and had better be quick. Events of one task are told in their order; those of several may overtake each other.
/// One that panics is caught, and costs nobody anything but the panic's message.
///
/// With an observer each acquire and each release looks at the clock, and allocates for what it tells; without one nothing of
/// this costs anything.
pub trait Observer: Send + Sync + 'static {
    /// Something happened.
    fn on(&self, event: &Event);
}

impl<T: Observer + ?Sized> Observer for std::sync::Arc<T> {
    fn on(&self, event: &Event) {
        (**self).on(event);
    }
}

/// What came of a connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectOutcome {
    /// A connection.
    Opened,
    /// An error of the driver's.
    Failed(FailureKind),
    /// Nothing within `connect_timeout`.
    TimedOut,
    /// A panic, or the end of the runtime.
    Panicked,
}

/// Something that happened. Pool leases take part in what concerns permits (evictions, refusals) and in nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Event {
    /// An acquire got its connection.
    #[non_exhaustive]
    Acquired {
        /// Whose.
        tenant: TenantId,
        /// The time in line; zero where it was served at once.
        waited: Duration,
    },
    /// A limit was short.
    #[non_exhaustive]
    Refused {
        /// Who asked.
        tenant: TenantId,
        /// Which one.
        scope: LimitScope,
        /// The time in line.
        waited: Duration,
    },
    /// No connection in time, although no limit was short.
    #[non_exhaustive]
    TimedOut {
        /// Who asked.
        tenant: TenantId,
        /// What took so long.
        phase: Phase,
        /// The time in line.
        waited: Duration,
    },
    /// A lease came back.
    #[non_exhaustive]
    Released {
        /// Whose.
        tenant: TenantId,
        /// The time it was out.
        used: Duration,
        /// In which state its connection was.
        health: Health,
    },
    /// A connect came to its end.
    #[non_exhaustive]
    Connected {
        /// For whom.
        tenant: TenantId,
        /// Where.
        server: ServerId,
        /// The time it took.
        took: Duration,
        /// What came of it.
        outcome: ConnectOutcome,
    },
    /// An idle connection is closed to make room: for another tenant, a pool lease of its own one, or background work.
    #[non_exhaustive]
    Evicted {
        /// Who made room.
        tenant: TenantId,
        /// On which server.
        server: ServerId,
        /// For whom; None for work beside the tenants' own connections (`create`, `drop_database`).
        for_whom: Option<TenantId>,
        /// The limit that left no other room.
        limit: LimitScope,
    },
    /// A connection is closed for any other reason.
    #[non_exhaustive]
    Closed {
        /// Whose.
        tenant: TenantId,
        /// On which server.
        server: ServerId,
        /// Why.
        reason: CloseReason,
    },
    /// A server said that it is full.
    #[non_exhaustive]
    ServerFull {
        /// Which one.
        server: ServerId,
        /// To whom.
        tenant: TenantId,
    },
    /// A tenant's connect failed, and the next has to wait. Its callers are told at once until then.
    #[non_exhaustive]
    CircuitOpened {
        /// Whose.
        tenant: TenantId,
        /// What the failure means.
        kind: FailureKind,
        /// How many in a row it is.
        failures: u32,
        /// The time until the next may be tried.
        retry_after: Duration,
    },
    /// A tenant whose connects failed has a connection again, or was made anew.
    #[non_exhaustive]
    CircuitClosed {
        /// Whose.
        tenant: TenantId,
    },
}

/// How much of what happens somebody wants to know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
#[doc(hidden)]
pub enum Attention {
    /// Nothing.
    #[default]
    None,
    /// What goes wrong or is closed: not what a warm acquire does.
    Rare,
    /// All of it.
    All,
}

/// Those who want to know.
#[derive(Default)]
pub(crate) struct Observers(Vec<Box<dyn Observer>>);

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0.len(), f)
    }
}

impl Observers {
    pub(crate) fn add(&mut self, observer: impl Observer) {
        self.0.push(Box::new(observer));
    }

    pub(crate) fn attention(&self) -> Attention {
        if self.0.is_empty() { Attention::None } else { Attention::All }
    }

    /// Never under the lock.
    pub(crate) fn tell(&self, event: &Event) {
        for observer in &self.0 {
            // Its panic is its own: who is told of may be in the middle of dropping a lease.
            drop(catch_unwind(AssertUnwindSafe(|| observer.on(event))));
        }
    }
}
