//! Faults of a real PostgreSQL and of the network before it, each crossed with what a connection is doing: begin with
//! [`Driver`], which you implement for your test, and [`Cross`], which makes the crossings. What a fault does is in
//! `faults/fault.rs`, who must not notice in `faults/bystanders.rs`, a whole crowd at once in `faults/stampede.rs`.

mod bystanders;
mod crossing;
mod fault;
mod gate;
mod stampede;
mod visit;

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tenantry_core::{PoolFactory, ServerId, TenantId};

pub use crate::conformance::Trouble;
pub use crossing::{Cross, Crossing};
pub use fault::{Fault, Moment};
pub use stampede::{Stampede, stampede};

/// A connection of the driver under test.
pub type ConnectionOf<D> = <<D as Driver>::Factory as PoolFactory>::Connection;

/// What the crossings need to know of a driver of PostgreSQL.
pub trait Driver: 'static {
    /// The factory under test.
    type Factory: PoolFactory;

    /// A factory that asks before each connect where a tenant's database is.
    fn factory(logins: Logins) -> Self::Factory;

    /// Runs one statement that leaves nothing behind.
    ///
    /// # Errors
    /// Whatever the driver says.
    ///
    /// # Cancel safety
    /// It is dropped half-way where the user of a connection loses patience.
    fn run(connection: &mut ConnectionOf<Self>, sql: &'static str) -> impl Future<Output = Result<(), Trouble>> + Send;
}

/// Where a tenant's database is: on 127.0.0.1, without TLS, for [`ROLE`] with [`PASSWORD`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Login {
    /// The port.
    pub port: u16,
    /// The database.
    pub database: String,
}

/// Where to log in, by tenant.
#[derive(Clone)]
pub struct Logins(Arc<dyn Fn(&TenantId) -> Login + Send + Sync>);

impl Logins {
    /// Where this tenant's database is.
    #[must_use]
    pub fn of(&self, tenant: &TenantId) -> Login {
        (self.0)(tenant)
    }

    /// The server that it is on.
    #[must_use]
    pub fn server(&self, tenant: &TenantId) -> ServerId {
        ServerId::from(if tenant.as_str().starts_with(FAR) { FAR } else { NEAR })
    }
}

impl fmt::Debug for Logins {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Logins").finish_non_exhaustive()
    }
}

/// The server on which faults happen, and what its other tenants' names begin with.
const NEAR: &str = "near";

/// The server on which nothing happens, and what its tenants' names begin with.
const FAR: &str = "far";

/// The tenant behind the proxy, whom it happens to.
const VICTIM: &str = "victim";

/// Who everybody logs in as: no superuser, for whom a server keeps places.
pub const ROLE: &str = "app";

/// The password of [`ROLE`].
pub const PASSWORD: &str = "mark3r-faults";

/// How passwords are stored, so that a login is no work to speak of for a busy machine.
const CHEAP: &str = "md5";

/// What the next caller meets while a fault lasts. A tenant whose connect failed rests for a moment, by chance for so short a
/// one that the next is tried already; so each of these has two words at least.
pub mod meets {
    /// Nobody answers.
    pub const SILENT: &str = "Timeout(Connecting)|Unavailable(Unreachable)";
    /// One connect was broken.
    pub const BROKEN_ONCE: &str = "served|Unavailable(Unreachable)";
    /// Nobody is there.
    pub const DOWN: &str = "Connect(Unreachable)|Unavailable(Unreachable)";
    /// Nobody is there, and this one may be the first to find its connection dead.
    pub const DOWN_OR_DEAD: &str = "Connect(Unreachable)|Unavailable(Unreachable)|query failed";
    /// The database is gone.
    pub const NO_DATABASE: &str = "Connect(NoSuchTenant)|Unavailable(NoSuchTenant)";
    /// The database is gone, and this one may be the first to find its connection dead.
    pub const NO_DATABASE_OR_DEAD: &str = "Connect(NoSuchTenant)|Unavailable(NoSuchTenant)|query failed";
    /// The password is another one now.
    pub const NOT_LET_IN: &str = "Connect(Auth)|Unavailable(Auth)";
}
