//! Servers of a test's own: [`PrivatePostgres`], and [`Sampler`], which watches what the server counts.
//!
//! A server lives in a temporary folder and ends with the value that stands for it, when the test panics and when
//! its process is killed, too. A server that cannot be had is an error and so a failing test; nothing is skipped.

mod account;
mod postgres;
mod sampler;
mod supervisor;

#[cfg(feature = "proxy")]
pub(crate) use postgres::connect;
pub use postgres::{PostgresBuilder, PostgresError, PrivatePostgres, Role, Strangers};
pub use sampler::{Sample, Sampler, Seen};
