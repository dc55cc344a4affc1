//! Which side could not connect a moment ago. An exchange closes a good connection of one side before it tries the other,
//! and the ledger knows nothing of it; so a side that cannot connect must not try at every acquire.

use std::collections::HashMap;
use std::time::Duration;

use super::Side;
use crate::error::AcquireError;
use crate::ledger::Time;
use crate::sync::{Arc, Mutex, lock};
use crate::{FailureKind, TenantId};

/// How long a side exchanges nothing for a tenant after a connect that failed. So a side that is broken costs the
/// other at most one connection a second.
const REST: Duration = Duration::from_secs(1);

/// The sides that rest, with the driver's error.
pub(super) struct Rests<E>(Mutex<HashMap<(TenantId, Side), Rest<E>>>);

struct Rest<E> {
    until: Time,
    kind: FailureKind,
    source: Arc<E>,
}

impl<E> Default for Rests<E> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<E> Rests<E> {
    /// The side could not connect. Also forgets those whose rest is over, so that no more are kept than fail in that time.
    pub(super) fn begin(&self, tenant: &TenantId, side: Side, kind: FailureKind, source: Arc<E>, now: Time) {
        let mut rests = lock(&self.0);
        let over: Vec<_> = rests.extract_if(|_, rest| rest.until <= now).collect();
        let before = rests.insert((tenant.clone(), side), Rest { until: now + REST, kind, source });
        drop(rests);
        // A driver's error may run any code when it is dropped.
        drop((over, before));
    }

    /// What an acquire is told while its side rests.
    pub(super) fn refusal(&self, tenant: &TenantId, side: Side, now: Time) -> Option<AcquireError<E>> {
        let rests = lock(&self.0);
        let rest = rests.get(&(tenant.clone(), side)).filter(|rest| rest.until > now)?;
        Some(AcquireError::Unavailable {
            tenant: tenant.clone(),
            kind: rest.kind,
            retry_after: rest.until.saturating_sub(now),
            source: Some(rest.source.clone()),
        })
    }
}
