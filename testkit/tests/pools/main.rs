//! `TenantPools` over a fake that counts for itself: the budget, the waiting, cancelling, closing.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod budget;
mod cancelling;
mod faults;
mod names;
mod review;
mod settings;
mod support;
mod waiting;
