//! What only an observer can tell: the times of connects, waits and uses, and why something was done.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use metrics::{Counter, Histogram, Unit, counter, describe_counter, describe_histogram, histogram};
use metrics_exporter_prometheus::PrometheusHandle;

use super::POOL;
use crate::{ConnectOutcome, Event, FailureKind, LimitScope, Observer};

/// Handles that were looked up once.
pub(super) struct Histograms {
    create: Histogram,
    wait: Histogram,
    usage: Histogram,
    /// By what the failure means.
    failures: [(ConnectOutcome, Counter); 8],
    /// By the limit that left no other room.
    evictions: [Counter; LimitScope::ALL.len()],
}

impl std::fmt::Debug for Histograms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Histograms").finish_non_exhaustive()
    }
}

const FAILURES: [(ConnectOutcome, &str); 8] = [
    (ConnectOutcome::Failed(FailureKind::ServerFull), "server_full"),
    (ConnectOutcome::Failed(FailureKind::NoSuchTenant), "no_such_tenant"),
    (ConnectOutcome::Failed(FailureKind::InvalidName), "invalid_name"),
    (ConnectOutcome::Failed(FailureKind::Auth), "auth"),
    (ConnectOutcome::Failed(FailureKind::Unreachable), "unreachable"),
    (ConnectOutcome::Failed(FailureKind::Other), "other"),
    (ConnectOutcome::TimedOut, "timeout"),
    (ConnectOutcome::Panicked, "panic"),
];

/// The label of a scope.
pub(super) fn scope_name(scope: LimitScope) -> &'static str {
    match scope {
        LimitScope::Tenant => "tenant",
        LimitScope::Server => "server",
        LimitScope::Total => "total",
        LimitScope::Queue => "queue",
        LimitScope::Background => "background",
        _ => "other",
    }
}

impl Histograms {
    pub(super) fn new(pool: &str) -> Self {
        let pool = pool.to_owned();
        let histogram = |name| histogram!(name, POOL => pool.clone());
        describe_histogram!("db.client.connection.create_time", Unit::Seconds, "The time a successful connect took");
        describe_histogram!(
            "db.client.connection.wait_time",
            Unit::Seconds,
            "The time an acquire that was served had waited in line; 0 where it was warm"
        );
        describe_histogram!("db.client.connection.use_time", Unit::Seconds, "The time a lease was out");
        describe_counter!("tenantry.connect_failures", "Connects that failed, by what the failure means");
        describe_counter!("tenantry.evictions", "Idle connections closed to make room, by the limit that was short");
        Self {
            create: histogram("db.client.connection.create_time"),
            wait: histogram("db.client.connection.wait_time"),
            usage: histogram("db.client.connection.use_time"),
            failures: FAILURES.map(|(outcome, kind)| {
                (outcome, counter!("tenantry.connect_failures", POOL => pool.clone(), "kind" => kind))
            }),
            evictions: LimitScope::ALL
                .map(|scope| counter!("tenantry.evictions", POOL => pool.clone(), "limit" => scope_name(scope))),
        }
    }
}

fn seconds(histogram: &Histogram, time: Duration) {
    histogram.record(time.as_secs_f64());
}

impl Observer for Histograms {
    fn on(&self, event: &Event) {
        match event {
            Event::Acquired { waited, .. } => seconds(&self.wait, *waited),
            Event::Released { used, .. } => seconds(&self.usage, *used),
            Event::Connected { took, outcome: ConnectOutcome::Opened, .. } => seconds(&self.create, *took),
            Event::Connected { outcome, .. } => {
                let counter = self.failures.iter().find(|(one, _)| one == outcome);
                counter.into_iter().for_each(|(_, counter)| counter.increment(1));
            }
            Event::Evicted { limit, .. } => {
                let scope = LimitScope::ALL.iter().position(|scope| scope == limit);
                scope.into_iter().for_each(|scope| self.evictions[scope].increment(1));
            }
            _ => {}
        }
    }
}

/// The recorder keeps every sample until somebody asks. Where nobody does it is tidied up all the same.
pub(super) struct WithUpkeep {
    histograms: Arc<Histograms>,
    handle: PrometheusHandle,
    told: AtomicU32,
}

impl WithUpkeep {
    /// Some 100 KB of samples, and a hundred microseconds of work.
    const OFTEN: u32 = 8_192;

    pub(super) fn new(histograms: Arc<Histograms>, handle: PrometheusHandle) -> Self {
        Self { histograms, handle, told: AtomicU32::new(0) }
    }
}

impl Observer for WithUpkeep {
    fn on(&self, event: &Event) {
        self.histograms.on(event);
        if self.told.fetch_add(1, Ordering::Relaxed) % Self::OFTEN == Self::OFTEN - 1 {
            self.handle.run_upkeep();
        }
    }
}
