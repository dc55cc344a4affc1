//! The manager behind the router, whatever its driver.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::http::Problem;
#[cfg(feature = "metrics")]
use crate::metrics::Prometheus;
use crate::{DrainReport, PoolFactory, Stats, TenantId, TenantList, TenantPage, TenantPools, TenantStats, TopBy};

pub(super) type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`TenantPools`] without its type.
pub(super) trait Manager: Send + Sync {
    fn stats(&self) -> Stats;
    fn tenant(&self, tenant: &str) -> Option<TenantStats>;
    fn tenants(&self, page: TenantPage) -> Later<'_, TenantList>;
    fn top(&self, most: usize, by: TopBy) -> Later<'_, Vec<TenantStats>>;
    fn drain(&self, tenant: TenantId, within: Duration) -> Later<'_, DrainReport>;
    fn resume(&self, tenant: &TenantId) -> bool;
    fn evict(&self, tenant: &TenantId) -> u32;
    fn warm(&self, tenant: TenantId, connections: u32) -> Later<'_, Result<(), Problem>>;
    /// With the tenants that the metrics are to name.
    #[cfg(feature = "metrics")]
    fn metrics<'a>(&'a self, prometheus: &'a Prometheus) -> Later<'a, String>;
}

impl<F: PoolFactory> Manager for TenantPools<F> {
    fn stats(&self) -> Stats {
        self.stats()
    }

    fn tenant(&self, tenant: &str) -> Option<TenantStats> {
        self.tenant_stats(tenant)
    }

    fn tenants(&self, page: TenantPage) -> Later<'_, TenantList> {
        Box::pin(self.tenants(page))
    }

    fn top(&self, most: usize, by: TopBy) -> Later<'_, Vec<TenantStats>> {
        Box::pin(self.top_tenants(most, by))
    }

    fn drain(&self, tenant: TenantId, within: Duration) -> Later<'_, DrainReport> {
        Box::pin(self.drain(tenant, within))
    }

    fn resume(&self, tenant: &TenantId) -> bool {
        self.resume(tenant)
    }

    fn evict(&self, tenant: &TenantId) -> u32 {
        self.evict(tenant)
    }

    fn warm(&self, tenant: TenantId, connections: u32) -> Later<'_, Result<(), Problem>> {
        Box::pin(async move { Ok(self.warm(tenant, connections).await?) })
    }

    #[cfg(feature = "metrics")]
    fn metrics<'a>(&'a self, prometheus: &'a Prometheus) -> Later<'a, String> {
        Box::pin(prometheus.render(self))
    }
}
