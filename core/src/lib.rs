//! The ledger, the driver trait and the pools of tenantry.
#![cfg_attr(docsrs, feature(doc_cfg))]

// First, as its macro is for all the others.
#[macro_use]
mod seeded;

mod acquire;
mod builder;
mod config;
mod dyn_factory;
mod either;
mod error;
mod factory;
mod lease;
#[doc(hidden)]
pub mod ledger;
mod log;
#[doc(hidden)]
pub mod names;
mod observe;
mod operate;
mod pools;
mod preflight;
mod provision;
#[cfg_attr(tenantry_loom, path = "runtime/model.rs")]
mod runtime;
mod stats;
#[cfg(not(tenantry_loom))]
mod sweep;
mod sync;
mod tasks;
mod tenant;
mod under_lock;
mod walk;

pub use acquire::{AcquireOptions, Priority};
pub use builder::Builder;
#[doc(hidden)]
pub use config::Settings;
pub use config::{Limits, TenantLimits};
pub use dyn_factory::{DynConnection, DynError, DynFactory};
pub use either::{
    EitherConnection, EitherError, EitherFactory, EitherLease, EitherLeft, EitherPools, EitherRight, EitherSide,
};
pub use error::{
    AcquireError, ConfigError, ConfigProblem, Holder, LimitError, LimitScope, Phase, ProvisionError, TryAcquireError,
};
pub use factory::{Created, Dropped, FailureKind, Health, NativePool, PoolFactory, Provision};
pub use lease::{Lease, PoolLease};
pub use names::InvalidName;
#[doc(hidden)]
pub use observe::Attention;
pub use observe::{ConnectOutcome, Event, Observer};
pub use operate::{CloseReport, DrainReport};
pub use pools::TenantPools;
pub use preflight::{
    Capacity, CapacityLimit, DoesNotFit, Preflight, PreflightError, Replicas, ServerCapacity, Shortage,
};
#[cfg(tenantry_loom)]
#[doc(hidden)]
pub use runtime::Tasks;
pub use stats::{CircuitState, CloseReason, Counters, ServerStats, Stats, TenantStats};
#[cfg(not(tenantry_loom))]
pub use sweep::{Sweep, SweepError, SweepProgress, SweepReport};
pub use tenant::{InvalidTenant, ServerId, TenantId};
pub use walk::{TenantCursor, TenantList, TenantPage, TopBy};
