//! The service of the example `saas` with a PostgreSQL database for each tenant, and the server as the witness of the
//! budget: `cargo xtask demo --postgres`, which starts a server for it.
//!
//! `DATABASE_URL` names a role that may create databases. The tenants' databases stay there, so it should be a server
//! that goes with the demonstration. The service and the load are in `../saas`; what differs is in `database.rs`.
//!
//! Exit status: 0 when all is well, 1 when something was lost or the budget was passed, 2 when it could not run.
#![allow(clippy::print_stdout, reason = "a demonstration talks")]

mod database;
#[path = "../saas/demonstration.rs"]
mod demonstration;
#[path = "../saas/load.rs"]
mod load;
#[path = "../saas/report.rs"]
mod report;
#[path = "../saas/service.rs"]
mod service;
#[path = "../saas/shutdown.rs"]
mod shutdown;
#[path = "../saas/tenants.rs"]
mod tenants;
mod witness;

#[tokio::main]
async fn main() -> std::process::ExitCode {
    demonstration::demonstrate().await
}
