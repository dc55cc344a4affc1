//! The ledger, the driver trait and the pools of tenantry.

mod factory;
mod tenant;

pub use factory::{Created, Dropped, FailureKind, Health, NativePool, PoolFactory, Provision};
pub use tenant::{InvalidTenant, ServerId, TenantId};
