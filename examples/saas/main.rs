//! A small service with one SQLite database for each tenant, its clients, and a witness of the budget, in one command:
//! `cargo xtask demo`, or `cargo run --release --features axum,metrics,sqlx-sqlite --example saas`.
//!
//! Read `service.rs` for how a handler uses tenantry, `tenants.rs` for how databases are made, and `shutdown.rs` for the
//! order in which it stops. `load.rs`, `witness.rs` and `report.rs` are the
//! demonstration around it. All but this file, `database.rs` and `witness.rs` are those of `saas_postgres` as well.
//!
//! Exit status: 0 when all is well, 1 when something was lost or the budget was passed, 2 when it could not run.
#![allow(clippy::print_stdout, reason = "a demonstration talks")]

mod database;
mod demonstration;
mod load;
mod report;
mod service;
mod shutdown;
mod tenants;
mod witness;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    demonstration::demonstrate().await
}
