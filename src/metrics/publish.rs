//! Gauges and counters from [`Stats`]: nothing is counted a second time, they are set to what the ledger has counted.

use metrics::{Label, counter, describe_counter, describe_gauge, gauge};

use super::observer::scope_name;
use super::{Naming, POOL};
use crate::{LimitScope, ServerStats, Stats, TenantStats};

impl Naming {
    /// Prometheus keeps the ending `_count` for histograms, and its linter minds.
    fn connections(self) -> &'static str {
        match self {
            Self::OpenTelemetry => "db.client.connection.count",
            Self::Prometheus => "db.client.connections",
        }
    }
}

pub(super) fn describe(naming: Naming) {
    for (name, what) in [
        (naming.connections(), "Connections that are idle, and used in any other way"),
        ("db.client.connection.max", "The budget"),
        ("db.client.connection.pending_requests", "Acquires in line"),
        ("tenantry.connections", "Permits that are taken, by state"),
        ("tenantry.overdue_closes", "Closes past close_timeout, which still hold their permits"),
        ("tenantry.background_connections", "Permits that background work holds"),
        ("tenantry.background_share", "The most permits that background work may hold"),
        ("tenantry.tenants", "Tenants known"),
        ("tenantry.tenants_unavailable", "Tenants whose last connect failed although their database exists"),
        ("tenantry.closed", "1 once close was called, else 0"),
        ("tenantry.server_connections", "Permits that are taken on a server, by state"),
        ("tenantry.server_max", "The cap of a server"),
        ("tenantry.server_effective_max", "What a server takes at present: less than its cap after it said it is full"),
        ("tenantry.server_pending_requests", "Acquires in the lines of a server's tenants"),
        ("tenantry.server_paused", "1 while a server is paused, else 0"),
        ("tenantry.server_full", "1 while a server takes no more than it has proved to take, else 0"),
    ] {
        describe_gauge!(name, what);
    }
    for (name, what) in [
        ("db.client.connection.timeouts", "Acquires that had no connection at their deadline"),
        ("tenantry.connects", "Connects that succeeded"),
        ("tenantry.warm_hits", "Acquires served by an idle connection at once"),
        ("tenantry.waits", "Acquires that waited in line"),
        ("tenantry.hand_overs", "Connections that went straight to a waiter of their tenant"),
        ("tenantry.recycles", "Connections cleaned or validated"),
        ("tenantry.closes", "Connections closed, by reason; those closed to make room are evictions"),
        ("tenantry.refusals", "Acquires refused for a limit, by scope"),
        ("tenantry.refused_unavailable", "Acquires refused as their tenant's connects fail"),
        ("tenantry.server_connects", "Connects to a server that succeeded"),
        ("tenantry.server_connect_failures", "Connects to a server that failed"),
        ("tenantry.server_said_full", "Times that a server said it is full"),
        ("tenantry.server_breakages", "Times that a server's connections were found lost"),
    ] {
        describe_counter!(name, what);
    }
}

pub(super) fn describe_tenants() {
    describe_gauge!("tenantry.tenant_connections", "Connections of one of the top tenants, idle and used");
    describe_gauge!("tenantry.tenant_max", "The cap of one of the top tenants");
    describe_gauge!("tenantry.tenant_pending_requests", "Acquires in the line of one of the top tenants");
    describe_counter!("tenantry.tenant_waits", "Acquires of one of the top tenants that waited in line");
    describe_counter!("tenantry.tenant_refusals", "Acquires of one of the top tenants refused for a limit");
    describe_counter!("tenantry.tenant_evictions", "Idle connections of one of the top tenants closed to make room");
}

/// The labels of one series.
fn labels(pool: &str, others: &[(&'static str, &str)]) -> Vec<Label> {
    let pool = Label::new(POOL, pool.to_owned());
    std::iter::once(pool).chain(others.iter().map(|&(name, value)| Label::new(name, value.to_owned()))).collect()
}

fn number(value: bool) -> u64 {
    u64::from(value)
}

const STATE: &str = "db.client.connection.state";

pub(super) fn all(pool: &str, naming: Naming, stats: &Stats) {
    let gauge = |name: &'static str, others: &[(&'static str, &str)], value: u64| {
        gauge!(name, labels(pool, others)).set(value as f64);
    };
    gauge(naming.connections(), &[(STATE, "idle")], stats.idle);
    gauge(naming.connections(), &[(STATE, "used")], stats.open() - stats.idle);
    gauge("db.client.connection.max", &[], stats.max);
    gauge("db.client.connection.pending_requests", &[], stats.waiting);
    let states = [
        ("opening", stats.opening),
        ("idle", stats.idle),
        ("in_use", stats.in_use),
        ("closing", stats.closing),
        ("pool_leased", stats.pool_leased),
    ];
    for (state, value) in states {
        gauge("tenantry.connections", &[("state", state)], value);
    }
    gauge("tenantry.overdue_closes", &[], stats.overdue);
    gauge("tenantry.background_connections", &[], stats.background);
    gauge("tenantry.background_share", &[], stats.background_share);
    gauge("tenantry.tenants", &[], stats.tenants);
    gauge("tenantry.tenants_unavailable", &[], stats.unavailable);
    gauge("tenantry.closed", &[], number(stats.closed));
    totals(pool, stats);
    for one in &stats.servers {
        server(pool, one);
    }
}

fn totals(pool: &str, stats: &Stats) {
    let counter = |name: &'static str, others: &[(&'static str, &str)], value: u64| {
        counter!(name, labels(pool, others)).absolute(value);
    };
    let totals = &stats.totals;
    // A full line refuses at once; the others are refused at their deadlines, where their asking made sense.
    let at_deadline = LimitScope::ALL.into_iter().filter(|&scope| scope != LimitScope::Queue);
    let late: u64 = at_deadline.map(|scope| totals.refused(scope)).sum();
    counter("db.client.connection.timeouts", &[], totals.timeouts + late);
    counter("tenantry.connects", &[], totals.connects);
    counter("tenantry.warm_hits", &[], totals.warm_hits);
    counter("tenantry.waits", &[], totals.waits);
    counter("tenantry.hand_overs", &[], totals.hand_overs);
    counter("tenantry.recycles", &[], totals.recycles);
    let closes = [
        ("evict", totals.closed_evict),
        ("idle", totals.closed_idle),
        ("lifetime", totals.closed_lifetime),
        ("broken", totals.closed_broken),
        ("ended", totals.closed_ended),
    ];
    for (reason, value) in closes {
        counter("tenantry.closes", &[("reason", reason)], value);
    }
    for scope in LimitScope::ALL {
        counter("tenantry.refusals", &[("scope", scope_name(scope))], totals.refused(scope));
    }
    counter("tenantry.refused_unavailable", &[], totals.unavailable);
}

fn server(pool: &str, stats: &ServerStats) {
    let name = stats.server.as_str();
    let gauge = |metric: &'static str, value: u64| {
        gauge!(metric, labels(pool, &[("server", name)])).set(value as f64);
    };
    let counter = |metric: &'static str, value: u64| {
        counter!(metric, labels(pool, &[("server", name)])).absolute(value);
    };
    let states = [
        ("opening", stats.opening),
        ("idle", stats.idle),
        ("in_use", stats.in_use),
        ("closing", stats.closing),
        ("pool_leased", stats.pool_leased),
    ];
    for (state, value) in states {
        gauge!("tenantry.server_connections", labels(pool, &[("server", name), ("state", state)])).set(value as f64);
    }
    gauge("tenantry.server_max", stats.max);
    gauge("tenantry.server_effective_max", stats.effective_max);
    gauge("tenantry.server_pending_requests", stats.waiting);
    gauge("tenantry.server_paused", number(stats.paused));
    gauge("tenantry.server_full", number(stats.full.is_some()));
    counter("tenantry.server_connects", stats.connects);
    counter("tenantry.server_connect_failures", stats.connect_failures);
    counter("tenantry.server_said_full", stats.server_full);
    counter("tenantry.server_breakages", stats.epoch);
}

pub(super) fn tenants(pool: &str, tenants: &[TenantStats]) {
    for stats in tenants {
        let name = stats.tenant.as_str();
        let gauge = |metric: &'static str, others: &[(&'static str, &str)], value: u64| {
            let others: Vec<_> = std::iter::once(("tenant", name)).chain(others.iter().copied()).collect();
            gauge!(metric, labels(pool, &others)).set(value as f64);
        };
        let counter = |metric: &'static str, value: u64| {
            counter!(metric, labels(pool, &[("tenant", name)])).absolute(value);
        };
        gauge("tenantry.tenant_connections", &[("state", "idle")], stats.idle);
        gauge("tenantry.tenant_connections", &[("state", "used")], stats.open() - stats.idle);
        gauge("tenantry.tenant_max", &[], stats.max);
        gauge("tenantry.tenant_pending_requests", &[], stats.waiting);
        counter("tenantry.tenant_waits", stats.totals.waits);
        counter("tenantry.tenant_refusals", stats.totals.refusals.iter().sum());
        counter("tenantry.tenant_evictions", stats.totals.evictions);
    }
}
