//! Metrics of a manager, under [OpenTelemetry's names for connection pools][names] and some of tenantry's own, through the
//! facade crate [`metrics`](::metrics): feature `metrics`.
//!
//! [`Prometheus`] is all that a scrape needs; the admin router renders it:
//!
//! ```
//! # use tenantry_testkit::FakeFactory;
//! use tenantry::{TenantPools, metrics::Prometheus};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let factory = FakeFactory::new();
//! let prometheus = Prometheus::new("tenants");
//! let pools = TenantPools::builder(factory).max_connections(32).observer(prometheus.observer()).build()?;
//! drop(pools.acquire("acme").await?);
//!
//! let text = prometheus.render(&pools).await; // sent as Prometheus::CONTENT_TYPE
//! assert!(text.contains("db_client_connection_create_time_seconds_count"));
//! # Ok(())
//! # }
//! ```
//!
//! A service that has a recorder of its own (OpenTelemetry, StatsD, another Prometheus) makes [`Metrics`] instead, once the
//! recorder is installed, and calls [`Metrics::publish`] from time to time, such as every 10 s.
//!
//! # What is published
//!
//! Everything has the label `db.client.connection.pool.name`, the name that you give. What has a server's label has one series
//! for each server; nothing has a tenant's, unless [`Prometheus::top_tenants`] asks for it, and then at most as many as it says.
//!
#![doc = include_str!("metrics/names.md")]
//!
//! [names]: https://opentelemetry.io/docs/specs/semconv/database/database-metrics/

mod observer;
mod publish;

use std::sync::Arc;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{Observer, PoolFactory, Stats, TenantPools, TenantStats, TopBy};

use self::observer::Histograms;

/// The label of every metric: which manager it is of.
const POOL: &str = "db.client.connection.pool.name";

/// Upper ends of the histograms' buckets, in seconds: a warm acquire, a connect, a wait, a deadline.
const BUCKETS: [f64; 13] = [0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0];

/// Whether names are for Prometheus, which keeps the ending `_count` for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Naming {
    OpenTelemetry,
    Prometheus,
}

/// Publishes to the recorder that was current when it was made: the installed one, as a rule.
#[derive(Debug, Clone)]
pub struct Metrics {
    pool: Arc<str>,
    naming: Naming,
    histograms: Arc<Histograms>,
}

impl Metrics {
    /// Metrics of the manager of that name, which must be unique in this process. Made before a recorder is installed they go
    /// nowhere.
    #[must_use]
    pub fn new(pool: impl AsRef<str>) -> Self {
        Self::named(pool.as_ref(), Naming::OpenTelemetry)
    }

    fn named(pool: &str, naming: Naming) -> Self {
        publish::describe(naming);
        Self { pool: pool.into(), naming, histograms: Arc::new(Histograms::new(pool)) }
    }

    /// Feeds the histograms, and what is counted by reason: give it to [`Builder::observer`](crate::Builder::observer).
    #[must_use]
    pub fn observer(&self) -> impl Observer + use<> {
        self.histograms.clone()
    }

    /// Sets gauges and counters to what the statistics say, in the recorder that is current here.
    pub fn publish(&self, stats: &Stats) {
        publish::all(&self.pool, self.naming, stats);
    }

    /// The same of some tenants, each with a label of its own. For the few that [`TenantPools::top_tenants`] finds: a recorder
    /// keeps the series of every tenant that ever was among them, so that what it holds grows with their number.
    pub fn publish_tenants(&self, tenants: &[TenantStats]) {
        publish::tenants(&self.pool, tenants);
    }
}

/// Everything in the text format of Prometheus, from a recorder of its own: no other has to be installed, and none is disturbed.
///
/// Cheap to clone; all clones are the same.
#[derive(Clone)]
pub struct Prometheus {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    metrics: Metrics,
    top: Option<(usize, TopBy)>,
}

impl std::fmt::Debug for Prometheus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prometheus").field("pool", &self.metrics.pool).field("top", &self.top).finish_non_exhaustive()
    }
}

fn recorder() -> PrometheusRecorder {
    let builder = PrometheusBuilder::new().with_recommended_naming(true);
    match builder.set_buckets(&BUCKETS) {
        Ok(builder) => builder.build_recorder(),
        Err(error) => unreachable!("there are buckets: {error}"),
    }
}

impl Prometheus {
    /// What [`render`](Self::render) gives, as a `Content-Type`.
    pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

    /// Metrics of the manager of that name.
    #[must_use]
    pub fn new(pool: impl AsRef<str>) -> Self {
        let recorder = recorder();
        let handle = recorder.handle();
        let metrics = ::metrics::with_local_recorder(&recorder, || Metrics::named(pool.as_ref(), Naming::Prometheus));
        Self { recorder: Arc::new(recorder), handle, metrics, top: None }
    }

    /// Adds the `most` tenants (at most 1,000) with the most of something, each with a label of its own. Default: no tenant is
    /// named. Who is not among them any more at the next scrape is not in it either; what Prometheus keeps grows with all that
    /// ever were.
    #[must_use]
    pub fn top_tenants(mut self, most: usize, by: TopBy) -> Self {
        self.top = Some((most, by)).filter(|&(most, _)| most > 0);
        self
    }

    /// Feeds the histograms, and what is counted by reason: give it to [`Builder::observer`](crate::Builder::observer).
    #[must_use]
    pub fn observer(&self) -> impl Observer + use<> {
        observer::WithUpkeep::new(self.metrics.histograms.clone(), self.handle.clone())
    }

    /// Everything, as of now.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn render<F: PoolFactory>(&self, pools: &TenantPools<F>) -> String {
        let top = match self.top {
            Some((most, by)) => pools.top_tenants(most, by).await,
            None => Vec::new(),
        };
        self.render_stats(&pools.stats(), &top)
    }

    /// The same, of statistics that somebody has taken. The tenants are those to be named, whatever
    /// [`top_tenants`](Self::top_tenants) says.
    #[must_use]
    pub fn render_stats(&self, stats: &Stats, tenants: &[TenantStats]) -> String {
        ::metrics::with_local_recorder(&*self.recorder, || self.metrics.publish(stats));
        let mut text = self.handle.render();
        if !tenants.is_empty() {
            // A recorder for this one text, as one that lives on would keep each tenant that ever was among them.
            let recorder = recorder();
            ::metrics::with_local_recorder(&recorder, || {
                publish::describe_tenants();
                self.metrics.publish_tenants(tenants);
            });
            text += &recorder.handle().render();
        }
        text
    }
}
