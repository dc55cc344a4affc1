//! `TenantPools` over a fake that counts for itself: the budget, the waiting, cancelling, closing.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod aging;
mod background;
mod breakages;
mod budget;
mod cancelling;
mod closing;
mod draining;
mod facts;
mod faults;
mod matrix;
mod mocks;
mod names;
mod native_pools;
mod observing;
mod operating;
mod panics;
mod preflight;
mod provision;
mod review;
mod runtimes;
mod settings;
mod sharing;
mod statistics;
mod support;
mod system;
mod waiting;
mod warnings;
mod wide;
