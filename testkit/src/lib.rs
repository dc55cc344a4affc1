//! Fakes and suites for code that uses tenantry: start with [`FakeFactory`], a driver that lives in memory.
#![doc = include_str!("../README.md")]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod conformance;
pub mod fake;
#[cfg(all(unix, feature = "postgres", feature = "proxy"))]
pub mod faults;
pub mod load;
#[cfg(feature = "proxy")]
pub mod proxy;
#[cfg(all(unix, any(feature = "mariadb", feature = "postgres")))]
pub mod servers;
#[cfg(feature = "sim")]
pub mod sim;

pub use fake::{Behavior, Call, Event, FakeConnection, FakeError, FakeFactory, FakePool, Gate};
#[cfg(feature = "proxy")]
pub use proxy::{Direction, Flow, Proxy};
#[cfg(all(unix, feature = "mariadb"))]
pub use servers::{MariaDbError, PrivateMariaDb};
#[cfg(all(unix, feature = "postgres"))]
pub use servers::{PostgresError, PrivatePostgres, Sampler};
