//! Models: every order in which threads can reach the manager's lock, over the real `TenantPools`.
//!
//! Built with `--cfg tenantry_loom` alone (`cargo xtask loom`), which puts loom's mutex and a list of tasks in the place
//! of the standard library's and tokio. After each command of each schedule the whole ledger is recounted; `support.rs`
//! says what is asked at the end. `two.rs` runs two threads without a bound, `three.rs` three with at most three
//! preemptions, as fewer than two were seen to find none of four planted bugs.
#![cfg(tenantry_loom)]
#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]
#![allow(clippy::print_stdout, reason = "how many schedules there were is for whoever asks to see it")]

mod support;
mod three;
mod tiny;
mod two;
