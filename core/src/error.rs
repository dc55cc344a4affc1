//! What can go wrong for a caller, one type per operation. Every message says which limit or which phase, and what to
//! do; none repeats its source's text, and none can hold a secret, because nothing here ever sees one.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[cfg(feature = "serde")]
use crate::stats::serial;
use crate::{FailureKind, InvalidTenant, TenantId};

/// Which limit was short. A refusal names the narrowest one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum LimitScope {
    /// The tenant's own cap (`max_connections_per_tenant`, or its own `TenantLimits`).
    Tenant = 0,
    /// The cap of the tenant's server (`max_connections_on`), or what a server that said "full" takes at present.
    Server = 1,
    /// The total budget (`max_connections`).
    Total = 2,
    /// The number of waiters (`max_waiters`, `max_waiters_per_tenant`).
    Queue = 3,
    /// What background work may hold (`background_share`).
    Background = 4,
}

impl LimitScope {
    /// Every scope, the narrowest first.
    pub const ALL: [Self; 5] = [Self::Tenant, Self::Server, Self::Total, Self::Queue, Self::Background];
}

/// What an acquire waited for when its time was over, where no limit was short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Phase {
    /// A connection was being opened for it: for longer than `connect_timeout`, or it goes on and serves the next caller. Or
    /// none could begin before others had ended (`max_connecting`, a probe after a failure).
    Connecting,
    /// A connection was being cleaned or validated for it.
    Recycling,
}

/// Who holds connections, as named in a [`LimitError`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Holder {
    /// The tenant.
    pub tenant: TenantId,
    /// Its permits in all states.
    pub connections: u32,
}

/// A limit was short: at once (a full line, or more asked for than a cap allows), or until the deadline.
#[derive(Debug, Clone)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct LimitError {
    /// Who asked.
    pub tenant: TenantId,
    /// The narrowest limit that was short.
    pub scope: LimitScope,
    /// Its value, in connections (for [`LimitScope::Queue`]: in waiters).
    pub limit: u32,
    /// The connections that count against it.
    pub open: u32,
    /// How many acquires wait for it, this one included where it had a place in the line.
    pub waiting: u32,
    /// How long this one waited. Zero where it was refused at once.
    #[cfg_attr(feature = "serde", serde(rename = "waited_seconds", with = "serial::seconds"))]
    pub waited: Duration,
    /// When a retry may well be served: the place in line times the average time between connections coming back, at least
    /// two such times after what the last one refused there was told, between 1 ms and 60 s; `acquire_timeout` where nothing
    /// came back yet. None where no retry can succeed.
    #[cfg_attr(feature = "serde", serde(rename = "retry_after_seconds", with = "serial::maybe_seconds"))]
    pub retry_after: Option<Duration>,
    /// When it was refused.
    #[cfg_attr(feature = "serde", serde(rename = "at_unix_seconds", with = "serial::unix"))]
    pub at: SystemTime,
    /// The largest holders, at most five, the largest first, at most 10 ms old; for [`LimitScope::Tenant`] the tenant
    /// alone.
    pub holders: Vec<Holder>,
    /// How many connections the asking task holds itself. Above zero the cure is to pass the lease down instead of
    /// acquiring again: such a task waits for itself. Not counted for [`LimitScope::Queue`], where it is 0.
    pub held_by_caller: u32,
}

impl LimitError {
    /// A pool of no connections was asked for.
    pub(crate) fn nothing_asked(tenant: TenantId, at: SystemTime) -> Self {
        Self {
            tenant,
            scope: LimitScope::Tenant,
            limit: 0,
            open: 0,
            waiting: 0,
            waited: Duration::ZERO,
            retry_after: None,
            at,
            holders: Vec::new(),
            held_by_caller: 0,
        }
    }
}

impl fmt::Display for LimitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenant, limit, open, waiting, .. } = self;
        match self.scope {
            LimitScope::Tenant => write!(f, "tenant {tenant:?} is at its limit of {limit} connections ({open} open)")?,
            LimitScope::Server => {
                write!(f, "the server of tenant {tenant:?} is at its limit of {limit} connections ({open} open)")?
            }
            LimitScope::Total => {
                write!(f, "no connection for tenant {tenant:?}: the budget of {limit} is in use ({open} open)")?
            }
            LimitScope::Queue => write!(f, "no place in line for tenant {tenant:?}: at most {limit} may wait")?,
            LimitScope::Background => {
                write!(f, "background work for tenant {tenant:?} is at its limit of {limit} connections ({open} open)")?
            }
        }
        if self.scope != LimitScope::Queue {
            write!(f, ", {waiting} waiting")?;
        }
        if !self.waited.is_zero() {
            write!(f, "; waited {:?}", self.waited)?;
        }
        if self.held_by_caller > 0 {
            write!(
                f,
                "; this task holds {} already: pass the lease down instead of acquiring again",
                self.held_by_caller
            )?;
        }
        match self.retry_after {
            Some(after) => write!(f, "; retry after {after:?}"),
            None => f.write_str("; no retry can succeed, ask for less"),
        }
    }
}

impl Error for LimitError {}

/// Why an acquire failed. `E` is the factory's error.
#[derive(Debug)]
#[non_exhaustive]
pub enum AcquireError<E> {
    /// The name is no tenant's. The caller's mistake; do not retry.
    InvalidTenant(InvalidTenant),
    /// A limit was short. Retry after [`LimitError::retry_after`], or answer 503.
    Limit(LimitError),
    /// No connection in time, although no limit was short.
    #[non_exhaustive]
    Timeout {
        /// Who asked.
        tenant: TenantId,
        /// What took so long.
        phase: Phase,
        /// How long this acquire took in all.
        waited: Duration,
    },
    /// The connect made for this acquire failed.
    #[non_exhaustive]
    Connect {
        /// Who asked.
        tenant: TenantId,
        /// What the failure means.
        kind: FailureKind,
        /// The driver's own error.
        source: Arc<E>,
    },
    /// The tenant's connects fail, and this one was not tried.
    #[non_exhaustive]
    Unavailable {
        /// Who asked.
        tenant: TenantId,
        /// What the last failure means.
        kind: FailureKind,
        /// The time to the next try.
        retry_after: Duration,
        /// The last failure; None where a connect panicked or never ended.
        source: Option<Arc<E>>,
    },
    /// The tenant is being drained.
    #[non_exhaustive]
    Draining {
        /// Who asked.
        tenant: TenantId,
    },
    /// The tenant was removed.
    #[non_exhaustive]
    Removed {
        /// Who asked.
        tenant: TenantId,
    },
    /// The manager is closed. No retry will help.
    Closed,
}

impl<E> From<InvalidTenant> for AcquireError<E> {
    fn from(invalid: InvalidTenant) -> Self {
        Self::InvalidTenant(invalid)
    }
}

impl<E> AcquireError<E> {
    /// When a retry makes sense; None where it does not, or nobody knows.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Limit(limit) => limit.retry_after,
            Self::Unavailable { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }

    /// Whether a limit was short.
    #[must_use]
    pub fn is_limit(&self) -> bool {
        matches!(self, Self::Limit(_))
    }

    /// Who asked; None where the name was no tenant's, or the manager is closed.
    #[must_use]
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Limit(limit) => Some(&limit.tenant),
            Self::Timeout { tenant, .. }
            | Self::Connect { tenant, .. }
            | Self::Unavailable { tenant, .. }
            | Self::Draining { tenant }
            | Self::Removed { tenant } => Some(tenant),
            Self::InvalidTenant(_) | Self::Closed => None,
        }
    }
}

fn meaning(kind: FailureKind) -> &'static str {
    match kind {
        FailureKind::ServerFull => "the server has no place for another connection",
        FailureKind::NoSuchTenant => "its database does not exist; create it first",
        FailureKind::InvalidName => "its name cannot name a database of this driver",
        FailureKind::Auth => "the server refused the credentials",
        FailureKind::Unreachable => "the server could not be reached",
        FailureKind::Other => "the connect failed",
    }
}

impl<E> fmt::Display for AcquireError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Their own texts: `source` skips them for the same reason.
            Self::InvalidTenant(invalid) => fmt::Display::fmt(invalid, f),
            Self::Limit(_) => f.write_str("a connection limit was reached"),
            Self::Timeout { tenant, phase: Phase::Connecting, waited } => {
                write!(f, "no connection for tenant {tenant:?}: connecting was not done after {waited:?}")
            }
            Self::Timeout { tenant, phase: Phase::Recycling, waited } => {
                write!(f, "no connection for tenant {tenant:?}: validating one was not done after {waited:?}")
            }
            Self::Connect { tenant, kind, .. } => {
                write!(f, "no connection for tenant {tenant:?}: {}", meaning(*kind))
            }
            Self::Unavailable { tenant, kind, retry_after, .. } => {
                write!(f, "tenant {tenant:?} is unavailable: {}; retry after {retry_after:?}", meaning(*kind))
            }
            Self::Draining { tenant } => write!(f, "tenant {tenant:?} is being drained"),
            Self::Removed { tenant } => write!(f, "tenant {tenant:?} was removed"),
            Self::Closed => f.write_str("the connection manager is closed"),
        }
    }
}

// By hand: the derive would give `Arc<E>` as the source, which no caller can downcast to `E`.
impl<E: Error + 'static> Error for AcquireError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Limit(limit) => Some(limit),
            Self::Connect { source, .. } => Some(&**source),
            Self::Unavailable { source, .. } => source.as_deref().map(|source| source as _),
            _ => None,
        }
    }
}

/// Why a tenant's database was not made or dropped.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProvisionError<E> {
    /// There was no permit for it; nothing was tried.
    Permit(AcquireError<E>),
    /// The driver failed.
    #[non_exhaustive]
    Failed {
        /// Whose database.
        tenant: TenantId,
        /// What the failure means.
        kind: FailureKind,
        /// The driver's own error.
        source: Arc<E>,
    },
    /// The driver panicked, or took longer than a minute. Whether the database was made or dropped is not known.
    #[non_exhaustive]
    Unfinished {
        /// Whose database.
        tenant: TenantId,
    },
}

impl<E> ProvisionError<E> {
    pub(crate) fn invalid(invalid: InvalidTenant) -> Self {
        Self::Permit(AcquireError::InvalidTenant(invalid))
    }
}

impl<E> fmt::Display for ProvisionError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Its own text: `source` skips it for the same reason.
            Self::Permit(error) => fmt::Display::fmt(error, f),
            Self::Failed { tenant, .. } => write!(f, "the database of tenant {tenant:?} could not be made or dropped"),
            Self::Unfinished { tenant } => {
                write!(f, "making or dropping the database of tenant {tenant:?} did not end; look whether it is there")
            }
        }
    }
}

impl<E: Error + 'static> Error for ProvisionError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Permit(error) => error.source(),
            Self::Failed { source, .. } => Some(&**source),
            Self::Unfinished { .. } => None,
        }
    }
}

/// Why a `try_acquire` gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TryAcquireError {
    /// The tenant has no idle connection that could be handed out at once. `acquire` would wait or open one.
    #[error("the tenant has no idle connection")]
    NotIdle,
    /// The name is no tenant's.
    #[error(transparent)]
    InvalidTenant(#[from] InvalidTenant),
    /// The tenant is being drained.
    #[error("the tenant is being drained")]
    Draining,
    /// The tenant was removed.
    #[error("the tenant was removed")]
    Removed,
    /// The manager is closed.
    #[error("the connection manager is closed")]
    Closed,
}

/// A setting that `build()` refused.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConfigProblem {
    /// The builder method, with its arguments where they tell which.
    pub setting: String,
    /// What was given.
    pub value: String,
    /// What is allowed, and why where that is not plain.
    pub expected: String,
}

/// Every setting that `build()` refused, at once.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct ConfigError {
    /// At least one.
    pub problems: Vec<ConfigProblem>,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bad settings")?;
        for (index, problem) in self.problems.iter().enumerate() {
            let ConfigProblem { setting, value, expected } = problem;
            write!(f, "{} {setting} is {value}: {expected}", if index == 0 { ":" } else { ";" })?;
        }
        Ok(())
    }
}

impl Error for ConfigError {}
