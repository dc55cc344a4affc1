//! sqlx drivers for tenantry: factories that open, judge, clean and close single connections to tenants' databases.
//!
//! Start with the factory of your database, [`SqliteFactory`]; what a lease can do is [`Connection`].

#![cfg_attr(
    not(any(feature = "postgres", feature = "mysql", feature = "sqlite")),
    allow(dead_code, unused_macros, reason = "without a database there is nobody to use most of it")
)]

mod connection;
mod engine;
mod error;
mod executor;
mod hook;
#[cfg(feature = "mysql")]
mod mysql;
mod names;
#[cfg(any(feature = "postgres", feature = "mysql"))]
mod places;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod statement;
mod track;

pub use connection::Connection;
pub use engine::Engine;
pub use error::{During, Error};
#[cfg(feature = "mysql")]
pub use mysql::MySqlFactory;
pub use names::InvalidName;
#[cfg(feature = "postgres")]
pub use postgres::PostgresFactory;
#[cfg(feature = "sqlite")]
pub use sqlite::SqliteFactory;
