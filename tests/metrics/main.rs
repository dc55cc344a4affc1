//! What is published: every name of the table, under load and in trouble, in text that a parser takes.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod ops;
mod promtool;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenantry::metrics::Prometheus;
use tenantry::{AcquireOptions, FailureKind, TenantPools, TopBy};
use tenantry_testkit::{Behavior, Call, FakeFactory};

use self::text::Text;

/// A manager to which everything has happened that is published, and what it publishes.
async fn eventful(prometheus: &Prometheus) -> (TenantPools<FakeFactory>, String) {
    let fake = FakeFactory::new();
    let builder = TenantPools::builder(fake.clone()).max_connections(2).observer(prometheus.observer());
    let pools = builder.build().unwrap();
    let held = pools.acquire("a").await.unwrap();
    drop(pools.acquire("b").await.unwrap());
    drop(pools.acquire("b").await.unwrap());
    drop(pools.acquire("c").await.unwrap());
    let held_too = pools.acquire("c").await.unwrap();
    let short = AcquireOptions::new().timeout(Duration::from_millis(5));
    assert!(pools.acquire_with("d", short).await.is_err());
    drop((held, held_too));
    fake.on_tenant(Call::Connect, "bad").next(Behavior::fails(FailureKind::Auth));
    assert!(pools.acquire("bad").await.is_err());
    let text = prometheus.render(&pools).await;
    (pools, text)
}

#[tokio::test(start_paused = true)]
async fn what_happened_is_published() {
    let (_pools, text) = eventful(&Prometheus::new("main")).await;
    let text = Text::parse(&text);
    let value = |name: &str, labels: &[(&str, &str)]| text.value(name, labels);
    assert_eq!(value("db_client_connection_max", &[("db_client_connection_pool_name", "main")]), 2.0);
    assert_eq!(value("tenantry_connects_total", &[]), 3.0);
    assert_eq!(value("tenantry_warm_hits_total", &[]), 2.0);
    assert_eq!(value("tenantry_evictions_total", &[("limit", "total")]), 2.0);
    assert_eq!(value("tenantry_refusals_total", &[("scope", "total")]), 1.0);
    assert_eq!(value("tenantry_connect_failures_total", &[("kind", "auth")]), 1.0);
    assert_eq!(value("tenantry_tenants_unavailable", &[]), 1.0);
    assert_eq!(value("db_client_connection_timeouts_total", &[]), 1.0);
    assert_eq!(value("tenantry_server_connects_total", &[("server", "")]), 3.0);
    for (histogram, count) in [("create", 3.0), ("wait", 5.0), ("use", 5.0)] {
        assert_eq!(value(&format!("db_client_connection_{histogram}_time_seconds_count"), &[]), count, "{histogram}");
    }
    let states = ["idle", "used"].map(|state| value("db_client_connections", &[("db_client_connection_state", state)]));
    assert!(states.iter().sum::<f64>() <= 2.0, "{states:?}");
}

/// The table of the documentation names all that is published, and nothing else.
#[tokio::test(start_paused = true)]
async fn the_table_names_what_is_published() {
    let (_pools, text) = eventful(&Prometheus::new("main").top_tenants(3, TopBy::Connects)).await;
    let published: BTreeSet<String> = Text::parse(&text).kinds.into_keys().collect();
    let table = include_str!("../../src/metrics/names.md");
    let rows = table.lines().filter_map(|line| line.strip_prefix("| `"));
    let named: BTreeMap<String, &str> = rows
        .flat_map(|row| {
            let (names, rest) = row.split_once(" | ").unwrap();
            let kind = rest.split_once(" |").unwrap().0;
            names.split(", ").map(move |name| (prometheus_name(name.trim_matches('`'), kind), row))
        })
        .collect();
    assert_eq!(published, named.into_keys().collect());
}

fn prometheus_name(name: &str, kind: &str) -> String {
    if name == "db.client.connection.count" {
        return "db_client_connections".to_owned();
    }
    let ending = match kind {
        "counter" => "_total",
        "histogram, s" => "_seconds",
        _ => "",
    };
    name.replace('.', "_") + ending
}

#[tokio::test(start_paused = true)]
async fn no_tenant_is_a_label_unless_asked_for_and_then_at_most_as_many() {
    let prometheus = Prometheus::new("main");
    let (pools, text) = eventful(&prometheus).await;
    assert!(!text.contains("tenant=\""), "{text}");
    let some = prometheus.top_tenants(2, TopBy::Connects);
    let tenants = async || {
        let text = Text::parse(&some.render(&pools).await);
        text.samples.into_iter().filter_map(|(series, _)| series.labels.get("tenant").cloned()).collect()
    };
    let first: BTreeSet<String> = tenants().await;
    assert_eq!(first.len(), 2);
    for tenant in ["x", "y"] {
        for _ in 0..3 {
            pools.acquire(tenant).await.unwrap().discard();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    assert_eq!(tenants().await, BTreeSet::from(["x".to_owned(), "y".to_owned()]), "those of before are gone");
}

/// Names that users choose, with everything that would break a line.
#[tokio::test(start_paused = true)]
async fn a_name_cannot_break_the_text() {
    let prometheus = Prometheus::new("a \"pool\" \\ of\nmine").top_tenants(5, TopBy::InUse);
    let pools = TenantPools::builder(FakeFactory::new()).max_connections(2);
    let pools = pools.observer(prometheus.observer()).build().unwrap();
    let _lease = pools.acquire("ten\"ant\\{x=\"y\"} 1").await.unwrap();
    let text = Text::parse(&prometheus.render(&pools).await);
    let tenant = &[("tenant", "ten\"ant\\{x=\"y\"} 1"), ("state", "used")];
    assert_eq!(text.value("tenantry_tenant_connections", tenant), 1.0);
    let pool = &[("db_client_connection_pool_name", "a \"pool\" \\ of\nmine")];
    assert_eq!(text.value("db_client_connection_max", pool), 2.0);
}

/// More than the recorder is tidied up after: nothing of them is lost by that.
#[tokio::test(start_paused = true)]
async fn samples_that_nobody_has_asked_for_are_counted_all_the_same() {
    let prometheus = Prometheus::new("main");
    let pools = TenantPools::builder(FakeFactory::new()).max_connections(2);
    let pools = pools.observer(prometheus.observer()).build().unwrap();
    for _ in 0..20_000 {
        drop(pools.acquire("acme").await.unwrap());
    }
    let text = Text::parse(&prometheus.render(&pools).await);
    assert_eq!(text.value("db_client_connection_wait_time_seconds_count", &[]), 20_000.0);
    assert_eq!(text.value("tenantry_warm_hits_total", &[]), 19_999.0);
}

/// A recorder of the service's own gets OpenTelemetry's names.
#[tokio::test(start_paused = true)]
async fn another_recorder_gets_the_names_as_they_are() {
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let metrics = metrics::with_local_recorder(&recorder, || tenantry::metrics::Metrics::new("main"));
    let pools =
        TenantPools::builder(FakeFactory::new()).max_connections(2).observer(metrics.observer()).build().unwrap();
    drop(pools.acquire("acme").await.unwrap());
    metrics::with_local_recorder(&recorder, || metrics.publish(&pools.stats()));
    let text = recorder.handle().render();
    for name in ["db_client_connection_count{", "db_client_connection_wait_time_count{", "tenantry_warm_hits{"] {
        assert!(text.contains(name), "{name}\n{text}");
    }
}
