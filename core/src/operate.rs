//! What operators do with a running manager: drain, remove, resume, evict, warm, pause, change limits, close. Each may be
//! called again and again, beside each other and beside acquires. What they mean is in `ledger/lifecycle.rs`.

use std::time::Duration;

use crate::config::{Limits, Problems};
use crate::error::{AcquireError, ConfigError};
use crate::factory::PoolFactory;
use crate::pools::TenantPools;
use crate::stats::TenantStats;
use crate::{ServerId, TenantId};

/// What a drain left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct DrainReport {
    /// Leases still out at the deadline, or connections being cleaned. Each closes when it comes back.
    pub in_use: u64,
    /// Connects still under way at the deadline.
    pub opening: u64,
    /// Closes still under way at the deadline.
    pub closing: u64,
    /// Permits still held by pool leases at the deadline.
    pub pool_leased: u64,
}

impl DrainReport {
    const EMPTY: Self = Self { in_use: 0, opening: 0, closing: 0, pool_leased: 0 };

    /// Whether the tenant holds no connection any more.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.in_use + self.opening + self.closing + self.pool_leased == 0
    }
}

/// What a close left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CloseReport {
    /// Leases still out at the deadline, or connections being cleaned. Each closes when it comes back.
    pub in_use: u64,
    /// Connects still under way at the deadline. Each closes when it is done.
    pub opening: u64,
    /// Closes still under way at the deadline.
    pub closing: u64,
    /// Of those, the ones past `close_timeout`.
    pub overdue: u64,
    /// Permits still held by pool leases at the deadline.
    pub pool_leased: u64,
}

impl CloseReport {
    /// Whether no connection is left.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.in_use + self.opening + self.closing + self.pool_leased == 0
    }
}

impl<F: PoolFactory> TenantPools<F> {
    /// Closes the tenant's idle connections and says how many. What is in use is left alone. A name that is no tenant's
    /// has none.
    pub fn evict(&self, tenant: impl AsRef<str>) -> u32 {
        self.shared.with_now(|ledger, now| ledger.evict(tenant.as_ref(), now))
    }

    /// Lets the tenant's connections drain away, and says how many: the idle close now, those in use when they come back. New
    /// ones are opened with what the factory says by then, so this is what follows a changed password or connect option. A
    /// connect that is under way is not among them.
    pub fn renew(&self, tenant: impl AsRef<str>) -> u32 {
        self.shared.with_now(|ledger, now| ledger.renew(Some(tenant.as_ref()), now))
    }

    /// [`renew`](Self::renew) for every tenant at once. What comes back cold is bounded by
    /// [`max_connecting`](crate::Builder::max_connecting).
    pub fn renew_all(&self) -> u32 {
        self.shared.with_now(|ledger, now| ledger.renew(None, now))
    }

    /// Ends the use of a tenant, until [`resume`](Self::resume): acquires get [`AcquireError::Draining`], those in line at
    /// once; idle connections close now and the others when they come back. Resolves when the tenant holds no connection,
    /// or after `within`, with what is left. Draining a tenant that drains only waits; one that drains for a
    /// [`drop_database`](Self::drop_database) goes on draining after it. A name that is no tenant's has nothing to drain.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the tenant draining.
    pub async fn drain(&self, tenant: impl AsRef<str>, within: Duration) -> DrainReport {
        let Ok(tenant) = TenantId::new(tenant) else { return DrainReport::EMPTY };
        while !self.shared.with_now(|ledger, now| ledger.drain(tenant.as_str(), now)) {
            self.shared.admit(&tenant);
        }
        self.left_after(&tenant, within).await
    }

    /// Ends the use of a tenant for good: as [`drain`](Self::drain), and its callers get [`AcquireError::Removed`] for
    /// `tombstone_ttl`, so that nobody who is late brings it back. Its database is left alone; see
    /// [`drop_database`](Self::drop_database). [`create`](Self::create) makes it a tenant again.
    ///
    /// # Cancel safety
    /// Dropping the future leaves the tenant removed.
    pub async fn remove(&self, tenant: impl AsRef<str>, within: Duration) -> DrainReport {
        let Ok(tenant) = TenantId::new(tenant) else { return DrainReport::EMPTY };
        while !self.shared.with_now(|ledger, now| ledger.remove(tenant.as_str(), now)) {
            self.shared.admit(&tenant);
        }
        self.left_after(&tenant, within).await
    }

    /// What the tenant holds once it holds nothing, or after `within`.
    async fn left_after(&self, tenant: &TenantId, within: Duration) -> DrainReport {
        self.shared.runtime.within(within, self.shared.empty(Some(tenant.as_str()))).await;
        let left = self.tenant_stats(tenant);
        let of = |count: fn(&TenantStats) -> u64| left.as_ref().map_or(0, count);
        DrainReport {
            in_use: of(|stats| stats.in_use),
            opening: of(|stats| stats.opening),
            closing: of(|stats| stats.closing),
            pool_leased: of(|stats| stats.pool_leased),
        }
    }

    /// Ends a drain. The factory is asked anew which server the tenant lives on. True where the tenant was draining.
    pub fn resume(&self, tenant: impl AsRef<str>) -> bool {
        let Ok(tenant) = TenantId::new(tenant) else { return false };
        let server = self.shared.factory.server(&tenant);
        self.shared.with_now(|ledger, now| ledger.resume(tenant.as_str(), &server, now))
    }

    /// Opens connections ahead, until the tenant has `connections`, those in use among them. They are acquired one after the
    /// other, each within `acquire_timeout`, and given back together, so that every limit holds and nobody is passed over;
    /// others may be closed to make room, as by any acquire.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire); more than the tenant may have is an [`AcquireError::Limit`], after that time. What was
    /// opened before stays open.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire). What was opened before stays open.
    pub async fn warm(&self, tenant: impl AsRef<str>, connections: u32) -> Result<(), AcquireError<F::Error>> {
        let tenant = TenantId::new(tenant)?;
        let mut leases = Vec::new();
        // What others hold counts: whoever waited for that while holding the rest could wait for another who does the same.
        while self.tenant_stats(&tenant).map_or(0, |stats| stats.in_use) < u64::from(connections) {
            leases.push(self.acquire(&tenant).await?);
        }
        Ok(())
    }

    /// Opens nothing on a server any more and keeps nothing open: idle connections close now, the others when they come
    /// back. Acquires wait in line, within their deadlines, until [`unpause`](Self::unpause); a refusal names the server, with
    /// a limit of 0. Pausing a server that is paused changes nothing.
    pub fn pause(&self, server: impl Into<ServerId>) {
        let server = server.into();
        self.shared.with_now(|ledger, now| ledger.pause(&server, now));
    }

    /// Ends a pause: those in line are served. True where the server was paused.
    pub fn unpause(&self, server: impl Into<ServerId>) -> bool {
        let server = server.into();
        self.shared.with_now(|ledger, now| ledger.unpause(&server, now))
    }

    /// Changes limits while the manager runs. A raised one holds at once. Under a lowered one idle connections close at once
    /// and the others as they come back; nothing above it is opened. `max_connecting` and `background_share`, where you set
    /// them, go down with the budget and do not come up with it again; `max_known_tenants` goes up with it where all who may
    /// hold or wait would not be known; what [`system_database`](crate::Builder::system_database) made of the first budget
    /// stays. Two calls at once are as one after the other.
    ///
    /// # Errors
    /// [`ConfigError`] names every limit that is out of bounds, alone or against another; then none is changed.
    pub fn set_limits(&self, limits: Limits) -> Result<(), ConfigError> {
        loop {
            let before = self.shared.with(|ledger, _| ledger.settings().clone());
            let (mut settings, mut problems) = (before.clone(), Problems::default());
            limits.apply(&mut settings, &mut problems);
            settings.check(&mut problems, |tenant| self.shared.factory.server(tenant));
            // A larger budget needs a larger table; nobody sets that while it runs.
            let least_known = settings.max_connections.saturating_add(settings.max_waiters);
            settings.max_known_tenants = settings.max_known_tenants.max(least_known);
            problems.into_result()?;
            for tenant in settings.tenants.keys() {
                self.shared.admit(tenant);
            }
            // The factory was asked outside of the lock: what another call changed meanwhile must not be undone.
            let changed = self.shared.with_now(|ledger, now| {
                let changes = *ledger.settings() == before;
                if changes {
                    ledger.set_limits(settings, now);
                }
                changes
            });
            if changed {
                return Ok(());
            }
        }
    }

    /// Closes everything, and resolves when the last connection is closed: nothing opens any more, every waiting acquire
    /// gets [`AcquireError::Closed`], idle connections close now and the others when they come back.
    ///
    /// It waits for leases as long as it takes; [`close_within`](Self::close_within) does not.
    ///
    /// # Cancel safety
    /// Dropping the future only ends the waiting.
    pub async fn close(&self) {
        self.shared.with_now(|ledger, now| ledger.close(now));
        self.shared.empty(None).await;
    }

    /// [`close`](Self::close) that waits for at most `within`, and reports what was left then.
    ///
    /// # Cancel safety
    /// Dropping the future only ends the waiting.
    pub async fn close_within(&self, within: Duration) -> CloseReport {
        // Begun before the first look at the time, so that no time at all closes as well.
        self.shared.runtime.within(within, self.close()).await;
        let left = self.stats();
        CloseReport {
            in_use: left.in_use,
            opening: left.opening,
            closing: left.closing,
            overdue: left.overdue,
            pool_leased: left.pool_leased,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_complete_when_nothing_is_left_in_any_state() {
        assert!(DrainReport::EMPTY.is_complete());
        for left in [
            DrainReport { in_use: 1, ..DrainReport::EMPTY },
            DrainReport { opening: 1, ..DrainReport::EMPTY },
            DrainReport { closing: 1, ..DrainReport::EMPTY },
            DrainReport { pool_leased: 1, ..DrainReport::EMPTY },
        ] {
            assert!(!left.is_complete(), "{left:?}");
        }
        let none = CloseReport { in_use: 0, opening: 0, closing: 0, overdue: 0, pool_leased: 0 };
        assert!(none.is_complete());
        for left in [
            CloseReport { in_use: 1, ..none },
            CloseReport { opening: 1, ..none },
            CloseReport { closing: 1, ..none },
            CloseReport { pool_leased: 1, ..none },
        ] {
            assert!(!left.is_complete(), "{left:?}");
        }
    }
}
