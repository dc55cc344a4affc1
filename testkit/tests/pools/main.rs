//! `TenantPools` over a fake that counts for itself: the budget, the waiting, cancelling, closing.

#![allow(missing_docs, reason = "tests")]

mod budget;
