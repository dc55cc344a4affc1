//! Settings from the environment and a file: [`Config`] (feature `env`).
//!
//! ```
//! use tenantry::config::Config;
//!
//! # fn f() -> Result<(), Box<dyn std::error::Error>> {
//! let config = Config::load("DB")?; // DB_MAX_CONNECTIONS, DB_HOST, ..; nothing is opened before all of it is good
//! for name in &config.unknown {
//!     eprintln!("{name} is none of tenantry's settings");
//! }
//! # Ok(()) }
//! ```
//!
//! [`Config::load`] reads the variables that begin with a prefix of your choice and an underscore; [`Loader`] reads a file
//! as well, which the environment overrides. Everything is checked before anything is opened, alone and against each other, and
//! [`SettingsError`] names all that is wrong at once: the variable, the value, the bounds. Then [`Config::builder`] makes the
//! [`Builder`](crate::Builder) for any driver, and with a driver's feature there is the driver itself:
#![cfg_attr(feature = "sqlx-postgres", doc = "[`Config::sqlx_postgres`],")]
#![cfg_attr(feature = "sqlx-mysql", doc = "[`Config::sqlx_mysql`],")]
#![cfg_attr(feature = "diesel-postgres", doc = "[`Config::diesel_postgres`],")]
#![cfg_attr(feature = "diesel-mysql", doc = "[`Config::diesel_mysql`],")]
//! each without a connection string, so that a password needs no escaping and is quoted by no error. SQLite has neither host
//! nor user: give its factory the folder, as `config.builder(SqliteFactory::new(folder))`, and `DB_MAX_CONNECTIONS_PER_DB=1`.
//!
//! # The variables
//! Under the prefix `DB`. What the table calls the builder's has its bounds, its default and the reason for it at the method of
//! [`Builder`](crate::Builder) with the same name. In a file, the keys are the names without the prefix, in small letters, at
//! the top level.
//!
#![doc = include_str!("config/variables.md")]
//!
//! Numbers are digits only. Times have units: `10m`, `1h 30m`, `500ms`. An empty variable counts as one that is not set.
//! Text that is not UTF-8 is refused.
//!
//! # Names that are not in the table
//! A key of the file is a problem. In the environment other programs may use the same prefix (`DB_DUMP_DIR`; Kubernetes
//! makes `DB_PORT_5432_TCP` for a service called `db`), so an unknown variable is only a problem where it is one or two
//! letters away from one of the table, as `DB_MAX_CONECTIONS` is; the others are listed in [`Config::unknown`], to be logged.
//! A prefix that is yours alone can be stricter: [`Loader::strict`].
//!
//! # Secrets
//! The password is in no `Debug`, no error and no serialization. A value that might hold it (of any variable: with an `@`, as
//! in a URL, or with the password in it) is not quoted either.

mod check;
mod drivers;
mod error;
mod load;
mod values;
mod variables;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::{Builder, PoolFactory, TenantLimits, TenantPools};

pub use error::{SettingsError, SettingsProblem};
pub use load::Loader;
pub use secrecy;

/// All settings of a service with a database per tenant. [`Config::load`] checks them; one that was changed in code, or read by
/// other means (it is a plain serde type), is checked by [`check`](Self::check), and in part by [`Builder::build`].
///
/// Where a field is None, the builder's default holds, or the driver's. What each counts stands in the
/// [table](crate::config#the-variables).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the table says what each is")]
pub struct Config {
    #[serde(deserialize_with = "values::number::deserialize")]
    pub max_connections: u32,
    #[serde(deserialize_with = "values::number::deserialize")]
    pub max_connections_per_db: u32,
    #[serde(with = "values::time")]
    pub connection_max_lifetime: Duration,
    #[serde(with = "values::time")]
    pub connection_max_idle_time: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system_tenant: Option<String>,
    #[serde(deserialize_with = "values::maybe_number::deserialize", skip_serializing_if = "Option::is_none")]
    pub system_max_connections: Option<u32>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub acquire_timeout: Option<Duration>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub connect_timeout: Option<Duration>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub recycle_timeout: Option<Duration>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub close_timeout: Option<Duration>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub validate_after_idle: Option<Duration>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub handover_bound: Option<Duration>,
    #[serde(deserialize_with = "values::maybe_number::deserialize", skip_serializing_if = "Option::is_none")]
    pub max_waiters: Option<u32>,
    #[serde(deserialize_with = "values::maybe_number::deserialize", skip_serializing_if = "Option::is_none")]
    pub max_waiters_per_tenant: Option<u32>,
    #[serde(deserialize_with = "values::maybe_number::deserialize", skip_serializing_if = "Option::is_none")]
    pub max_connecting: Option<u32>,
    #[serde(deserialize_with = "values::maybe_number::deserialize", skip_serializing_if = "Option::is_none")]
    pub background_share: Option<u32>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub background_steals_after: Option<Duration>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub lease_warn_after: Option<Duration>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub forget_after: Option<Duration>,
    #[serde(deserialize_with = "values::maybe_number::deserialize", skip_serializing_if = "Option::is_none")]
    pub max_known_tenants: Option<u32>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub tombstone_ttl: Option<Duration>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tenants: BTreeMap<String, LimitsOfTenant>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub servers: BTreeMap<String, u32>,
    pub host: String,
    #[serde(deserialize_with = "values::maybe_number::deserialize", skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing)]
    pub password: Option<SecretString>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    pub sslmode: SslMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sslrootcert: Option<PathBuf>,
    pub prefix: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance_database: Option<String>,
    #[serde(with = "values::maybe_time", skip_serializing_if = "Option::is_none")]
    pub statement_timeout: Option<Duration>,
    /// Variables under the prefix that are not in the table and look like no mistake: those of other programs, probably.
    #[serde(skip)]
    pub unknown: Vec<String>,
}

/// One tenant's own limits, as [`TenantLimits`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct LimitsOfTenant {
    /// As [`TenantLimits::max`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<u32>,
    /// As [`TenantLimits::reserve`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reserve: Option<u32>,
    /// As [`TenantLimits::weight`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// How a connection is encrypted, in PostgreSQL's words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SslMode {
    /// Never.
    Disable,
    /// Only if the server insists.
    Allow,
    /// If the server can.
    #[default]
    Prefer,
    /// Always, with whoever answers.
    Require,
    /// Always, and the server's certificate has to be signed by one that is trusted.
    VerifyCa,
    /// The same, and it has to be the host's own.
    VerifyFull,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_connections: 100,
            max_connections_per_db: 3,
            connection_max_lifetime: Duration::from_secs(10 * 60),
            connection_max_idle_time: Duration::from_secs(5 * 60),
            system_tenant: None,
            system_max_connections: None,
            acquire_timeout: None,
            connect_timeout: None,
            recycle_timeout: None,
            close_timeout: None,
            validate_after_idle: None,
            handover_bound: None,
            max_waiters: None,
            max_waiters_per_tenant: None,
            max_connecting: None,
            background_share: None,
            background_steals_after: None,
            lease_warn_after: None,
            forget_after: None,
            max_known_tenants: None,
            tombstone_ttl: None,
            tenants: BTreeMap::new(),
            servers: BTreeMap::new(),
            host: "localhost".to_owned(),
            port: None,
            user: None,
            password: None,
            password_file: None,
            sslmode: SslMode::default(),
            sslrootcert: None,
            prefix: String::new(),
            maintenance_database: None,
            statement_timeout: None,
            unknown: Vec::new(),
        }
    }
}

/// Gives a builder's methods those of the values that are set.
macro_rules! set {
    ($builder:ident, $($method:ident: $value:expr),+ $(,)?) => {
        $(let $builder = match $value { Some(value) => $builder.$method(value), None => $builder };)+
    };
}

impl Config {
    /// The variables of the environment that begin with `prefix` and an underscore.
    ///
    /// # Errors
    /// [`SettingsError`] names everything that is wrong.
    pub fn load(prefix: &str) -> Result<Self, SettingsError> {
        Loader::new(prefix).load()
    }

    /// The same with a file, or other options.
    pub fn loader(prefix: &str) -> Loader {
        Loader::new(prefix)
    }

    /// A builder with these settings, for any driver. `build()` still checks: what the driver says of servers is known only
    /// there.
    pub fn builder<F: PoolFactory>(&self, factory: F) -> Builder<F> {
        self.apply(TenantPools::builder(factory))
    }

    /// Gives these settings to a builder that has others already; later calls override them.
    pub fn apply<F: PoolFactory>(&self, builder: Builder<F>) -> Builder<F> {
        let builder = builder
            .max_connections(self.max_connections)
            .max_connections_per_tenant(self.max_connections_per_db)
            .max_lifetime(self.connection_max_lifetime)
            .idle_timeout(self.connection_max_idle_time);
        set!(builder,
            acquire_timeout: self.acquire_timeout,
            connect_timeout: self.connect_timeout,
            recycle_timeout: self.recycle_timeout,
            close_timeout: self.close_timeout,
            validate_after_idle: self.validate_after_idle,
            handover_bound: self.handover_bound,
            max_waiters: self.max_waiters,
            max_waiters_per_tenant: self.max_waiters_per_tenant,
            max_connecting: self.max_connecting,
            background_share: self.background_share,
            background_steals_after: self.background_steals_after,
            lease_warn_after: self.lease_warn_after,
            forget_after: self.forget_after,
            max_known_tenants: self.max_known_tenants,
            tombstone_ttl: self.tombstone_ttl,
        );
        let with_servers =
            self.servers.iter().fold(builder, |builder, (server, max)| builder.max_connections_on(&**server, *max));
        let with_tenants = self.tenants.iter().fold(with_servers, |builder, (tenant, limits)| {
            let one = TenantLimits::new();
            set!(one, max: limits.max, reserve: limits.reserve, weight: limits.weight);
            builder.tenant(tenant, one)
        });
        match (&self.system_tenant, self.system_max_connections) {
            (Some(tenant), Some(max)) => with_tenants.tenant(tenant, TenantLimits::new().max(max).reserve(max)),
            (Some(tenant), None) => with_tenants.system_database(tenant),
            (None, _) => with_tenants,
        }
    }

    /// The name of a tenant's database: the prefix and the tenant's name, so that different tenants have different ones.
    #[must_use]
    pub fn database_name(&self, tenant: &str) -> String {
        format!("{}{tenant}", self.prefix)
    }
}
