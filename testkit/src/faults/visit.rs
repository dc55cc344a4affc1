//! [`visit`]: what a user does, with what came of it in a word.

use std::time::Duration;

use tenantry_core::{AcquireError, Lease, PoolFactory, TenantPools};
use tokio::time::timeout;

use super::Driver;

/// An acquire that has no answer by then hangs: each has its own, much shorter deadline.
const HANGS: Duration = Duration::from_secs(30);

/// A query that was answered.
pub(super) const SERVED: &str = "served";
/// A query that ended in an error.
pub(super) const FAILED: &str = "query failed";
/// A query that had no answer.
pub(super) const GAVE_UP: &str = "gave up";
/// An acquire that had no answer, which must not be.
pub(super) const HANGING: &str = "HANGS";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    /// One of the words above, or the error of the acquire.
    pub(super) word: String,
    /// When to come again.
    pub(super) retry_after: Option<Duration>,
}

impl From<&str> for Outcome {
    fn from(word: &str) -> Self {
        Self { word: word.to_owned(), retry_after: None }
    }
}

impl<E> From<AcquireError<E>> for Outcome {
    fn from(error: AcquireError<E>) -> Self {
        let word = match &error {
            AcquireError::InvalidTenant(_) => "InvalidTenant".to_owned(),
            AcquireError::Limit(limit) => format!("Limit({:?})", limit.scope),
            AcquireError::Timeout { phase, .. } => format!("Timeout({phase:?})"),
            AcquireError::Connect { kind, .. } => format!("Connect({kind:?})"),
            AcquireError::Unavailable { kind, .. } => format!("Unavailable({kind:?})"),
            AcquireError::Draining { .. } => "Draining".to_owned(),
            AcquireError::Removed { .. } => "Removed".to_owned(),
            AcquireError::Closed => "Closed".to_owned(),
            _ => "an error of a new kind".to_owned(),
        };
        Self { word, retry_after: error.retry_after() }
    }
}

/// An acquire that says so when it hangs.
pub(super) async fn acquire<F: PoolFactory>(pools: &TenantPools<F>, tenant: &str) -> Result<Lease<F>, Outcome> {
    match timeout(HANGS, pools.acquire(tenant)).await {
        Ok(acquired) => acquired.map_err(Outcome::from),
        Err(_) => Err(HANGING.into()),
    }
}

/// Acquires and asks something short, and waits that long for an answer.
pub(super) async fn visit<D: Driver>(pools: &TenantPools<D::Factory>, tenant: &str, patience: Duration) -> Outcome {
    let mut lease = match acquire(pools, tenant).await {
        Ok(lease) => lease,
        Err(outcome) => return outcome,
    };
    match timeout(patience, D::run(&mut lease, "SELECT 1")).await {
        Ok(Ok(())) => SERVED.into(),
        Ok(Err(_)) => FAILED.into(),
        Err(_) => GAVE_UP.into(),
    }
}
