//! tenantry in a service on axum: extractors for a request's tenant, refusals as problem documents, and a layer for spans.
//!
//! Say once where a request names its tenant, put that into the router's state, and ask for a connection in a handler:
//!
//! ```
//! use axum::{Router, routing::get};
//! use tenantry::http::{Problem, TenantConnection, TenantLayer, TenantSource, Tenants};
//! use tenantry::{PoolFactory, TenantPools};
//!
//! async fn notes<F: PoolFactory>(connection: TenantConnection<F>) -> Result<String, Problem> {
//!     // `&mut *connection` is what the driver works with.
//!     Ok(format!("the notes of {}", connection.tenant()))
//! }
//!
//! fn app<F: PoolFactory>(pools: TenantPools<F>) -> Router {
//!     let source = TenantSource::path("tenant"); // or a header, a subdomain, or a function of yours
//!     Router::new()
//!         .route("/{tenant}/notes", get(notes::<F>))
//!         .layer(TenantLayer::new(source.clone()))
//!         .with_state(Tenants::new(pools, source))
//! }
//! ```
//!
//! Where the state holds more than that, a `FromRef` hands [`Tenants`] out:
//!
//! ```
//! # use axum::extract::FromRef;
//! # use tenantry::{PoolFactory, http::Tenants};
//! struct App<F: PoolFactory> {
//!     tenants: Tenants<F>,
//!     title: String,
//! }
//!
//! impl<F: PoolFactory> FromRef<App<F>> for Tenants<F> {
//!     fn from_ref(app: &App<F>) -> Self {
//!         app.tenants.clone()
//!     }
//! }
//! ```
#![doc = include_str!("http/problems.md")]

pub mod admin;
mod extract;
mod layer;
mod problem;
mod source;

pub use extract::{Tenant, TenantConnection, Tenants};
pub use layer::{TenantLayer, TenantService};
pub use problem::Problem;
pub use source::TenantSource;
