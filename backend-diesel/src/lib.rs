//! diesel-async drivers for tenantry: factories that open, judge, clean and close single connections to tenants' databases.
//!
//! Start with the factory of your database: `PostgresFactory` (feature `postgres`), `MySqlFactory` (feature `mysql`, for
//! MariaDB as well) or `SqliteFactory` (feature `sqlite`).
#![cfg_attr(docsrs, feature(doc_cfg))]

mod error;
mod handle;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
mod pool;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
mod pooled;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;

pub use error::{During, Error};
pub use handle::{DieselFactory, TenantHandle, refused};
#[cfg(feature = "mysql")]
pub use mysql::{MySqlConnection, MySqlFactory, MySqlField, MySqlRow};
#[cfg(feature = "mysql")]
pub use mysql_async;
#[cfg(any(feature = "mysql", feature = "postgres", feature = "sqlite"))]
pub use pool::CountedPool;
#[cfg(any(feature = "mysql", feature = "sqlite"))]
pub use pooled::Pooled;
#[cfg(all(feature = "postgres", feature = "tls-rustls"))]
pub use postgres::Tls;
#[cfg(feature = "postgres")]
pub use postgres::{PostgresConnection, PostgresFactory};
#[cfg(all(any(feature = "mysql", feature = "postgres"), feature = "tls-rustls"))]
pub use rustls;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteConnection, SqliteFactory, SqliteRuntime};
#[doc(inline)]
pub use tenantry_core::InvalidName;
#[cfg(feature = "postgres")]
pub use tokio_postgres;
