#![cfg_attr(feature = "sqlx-sqlite", doc = include_str!("../README.md"))]
#![cfg_attr(not(feature = "sqlx-sqlite"), doc = "One hard connection budget over one database per tenant.")]
#![cfg_attr(not(feature = "sqlx-sqlite"), doc = "")]
#![cfg_attr(
    not(feature = "sqlx-sqlite"),
    doc = "The full front page is built with the feature `sqlx-sqlite`, which its example needs."
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use tenantry_core::*;

#[cfg(feature = "env")]
pub mod config;
#[cfg(feature = "metrics")]
pub mod metrics;

/// Drivers on sqlx: PostgreSQL, MySQL, SQLite, each by a feature.
#[cfg(any(feature = "sqlx-postgres", feature = "sqlx-mysql", feature = "sqlx-sqlite"))]
pub use tenantry_sqlx as sqlx;

/// Drivers on diesel-async, each by a feature.
#[cfg(any(feature = "diesel-postgres", feature = "diesel-mysql", feature = "diesel-sqlite"))]
pub use tenantry_diesel as diesel;

#[cfg(feature = "axum")]
pub mod http;
