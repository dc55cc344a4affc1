//! Drivers that are chosen at run time, and two drivers under one budget: `DynFactory` and `EitherFactory` over fakes.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod drivers;
mod exchanges;
mod preflights;
mod routes;
mod support;
mod views;
