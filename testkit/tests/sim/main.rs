//! What tenantry promises about sharing a crowded server, shown with the real ledger under virtual time. No test reads a
//! clock, and each gives the same numbers every time; `--nocapture` shows them. `support.rs` has what they share.

#![allow(clippy::print_stdout, reason = "each test shows what it measured")]

mod fairness;
mod isolation;
mod itself;
mod recovery;
mod refusals;
mod support;
mod weights;
