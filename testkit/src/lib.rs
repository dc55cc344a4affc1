//! Fakes and suites for code that uses tenantry: start with [`FakeFactory`], a driver that lives in memory.
#![doc = include_str!("../README.md")]

pub mod fake;

pub use fake::{Behavior, Call, Event, FakeConnection, FakeError, FakeFactory, FakePool, Gate};
