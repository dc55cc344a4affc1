//! Servers of a test's own: `PrivatePostgres`, with `Sampler`, which watches what it counts, and
//! `PrivateMariaDb`.
//!
//! A server lives in a temporary folder and ends with the value that stands for it, when the test panics and when
//! its process is killed, too. A server that cannot be had is an error and so a failing test; nothing is skipped.

mod account;
mod certificate;
#[cfg(feature = "mariadb")]
mod mariadb;
#[cfg(feature = "postgres")]
mod pgbouncer;
mod place;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "postgres")]
mod sampler;
mod supervisor;
mod template;

use std::time::Duration;

use tenantry_core::{Builder, PoolFactory};

#[cfg(feature = "tls")]
pub use certificate::Authority;
pub use certificate::Certificate;
#[cfg(feature = "mariadb")]
pub use mariadb::{MariaDbBuilder, MariaDbError, PrivateMariaDb, User};
#[cfg(feature = "postgres")]
pub use pgbouncer::{PgBouncerError, PoolMode, PrivatePgBouncer};
#[cfg(feature = "postgres")]
pub(crate) use postgres::connect;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresBuilder, PostgresError, PrivatePostgres, Role, Strangers};
#[cfg(feature = "postgres")]
pub(crate) use sampler::Watcher;
#[cfg(feature = "postgres")]
pub use sampler::{Sample, Sampler, Seen};

/// Gives pools on a real server a minute for whatever they do with it (acquire, connect, recycle, close), so that a busy machine
/// is not taken for a fault. What a test is about is set afterwards.
///
/// ```no_run
/// use std::time::Duration;
/// use tenantry_core::{ConfigError, PoolFactory, TenantPools};
/// use tenantry_testkit::servers::patient;
///
/// fn pools<F: PoolFactory>(factory: F) -> Result<TenantPools<F>, ConfigError> {
///     patient(TenantPools::builder(factory)).max_connections(4).connect_timeout(Duration::from_secs(1)).build()
/// }
/// ```
pub fn patient<F: PoolFactory>(builder: Builder<F>) -> Builder<F> {
    const MINUTE: Duration = Duration::from_secs(60);
    builder.acquire_timeout(MINUTE).connect_timeout(MINUTE).recycle_timeout(MINUTE).close_timeout(MINUTE)
}
