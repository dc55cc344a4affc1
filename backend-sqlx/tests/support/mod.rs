//! What the tests of this crate share.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(feature = "postgres")]
pub mod postgres;
#[cfg(feature = "sqlite")]
pub mod sqlite;
#[cfg(feature = "postgres")]
pub mod subject;

use std::future::Future;
use std::ops::{Deref, DerefMut};
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use tenantry_core::TenantId;

/// Long enough for anything that works, short enough to see what does not.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Fails the test instead of hanging it.
pub async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("still not done after a minute")
}

/// Polls `future` once and drops it; true if it was cancelled by that, and not done.
pub fn polled_once(future: impl Future) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

pub fn tenant(name: &str) -> TenantId {
    name.parse().expect("a good name")
}

/// What a lease is to its user: something that derefs to the connection.
#[derive(Debug)]
pub struct StandIn<C>(Box<C>);

impl<C> StandIn<C> {
    pub fn new(connection: C) -> Self {
        Self(Box::new(connection))
    }

    pub fn into_inner(self) -> C {
        *self.0
    }
}

impl<C> Deref for StandIn<C> {
    type Target = C;

    fn deref(&self) -> &C {
        &self.0
    }
}

impl<C> DerefMut for StandIn<C> {
    fn deref_mut(&mut self) -> &mut C {
        &mut self.0
    }
}
