//! sqlx drivers for tenantry: factories that open, judge, clean and close single connections to tenants' databases.
//!
//! Start with the factory of your database: [`PostgresFactory`], [`SqliteFactory`] or [`MySqlFactory`], each behind the
//! feature of its name. What a lease can do, and what becomes of what was done with it, stands at [`Connection`].
//!
//! ```no_run
//! # #[cfg(feature = "postgres")]
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use sqlx::postgres::PgConnectOptions;
//! use tenantry_core::TenantPools;
//! use tenantry_sqlx::PostgresFactory;
//!
//! let factory = PostgresFactory::new(PgConnectOptions::new().host("db.internal").username("shop"));
//! let pools = TenantPools::builder(factory).max_connections(90).build()?;
//! let mut lease = pools.acquire("acme").await?;
//! let (paid,): (i64,) = sqlx::query_as("SELECT count(*) FROM invoice WHERE paid").fetch_one(&mut *lease).await?;
//! # let _ = paid;
//! # Ok(()) }
//! ```
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(
    not(all(feature = "postgres", feature = "mysql", feature = "sqlite")),
    allow(
        dead_code,
        unused_macros,
        rustdoc::broken_intra_doc_links,
        reason = "each database uses its part of the crate"
    )
)]

mod connection;
mod engine;
mod error;
mod executor;
mod handle;
mod hook;
#[cfg(feature = "mysql")]
mod mysql;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod places;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
mod track;
mod transaction;

pub use connection::Connection;
pub use engine::Engine;
pub use error::{During, Error};
pub use handle::{SqlxFactory, TenantHandle, refused};
#[cfg(feature = "mysql")]
pub use mysql::MySqlFactory;
#[cfg(feature = "postgres")]
pub use postgres::PostgresFactory;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteFactory;
#[doc(inline)]
pub use tenantry_core::InvalidName;
pub use transaction::LeaseTransaction;
