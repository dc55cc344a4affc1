//! The ledger, the driver trait and the pools of tenantry.

mod config;
mod error;
mod factory;
#[doc(hidden)]
pub mod ledger;
mod stats;
mod tenant;

#[doc(hidden)]
pub use config::Settings;
pub use config::TenantLimits;
pub use error::{
    AcquireError, ConfigError, ConfigProblem, Holder, LimitError, LimitScope, Phase,
    TryAcquireError,
};
pub use factory::{Created, Dropped, FailureKind, Health, NativePool, PoolFactory, Provision};
pub use stats::{Counters, ServerStats, Stats, TenantCounters, TenantStats};
pub use tenant::{InvalidTenant, ServerId, TenantId};
