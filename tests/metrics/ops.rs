//! What the night shift reads is true: every alert has its section in the runbook, and every metric that an alert or the
//! dashboard names is published.

use std::collections::BTreeSet;

use tenantry::TopBy;
use tenantry::metrics::Prometheus;

use crate::eventful;
use crate::text::Text;

const ALERTS: &str = include_str!("../../ops/alerts.yml");
const DASHBOARD: &str = include_str!("../../ops/grafana-dashboard.json");
const RUNBOOK: &str = include_str!("../../docs/runbook.md");

fn alerts() -> Vec<&'static str> {
    ALERTS.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect()
}

#[test]
fn every_alert_has_its_section_and_every_section_its_alert() {
    let sections: Vec<&str> = RUNBOOK.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(sections, alerts(), "in the same order");
    for (alert, section) in alerts().into_iter().zip(RUNBOOK.split("\n## ").skip(1)) {
        for part in ["**What it means.**", "**Look at.**", "**Do.**"] {
            assert!(section.contains(part), "{alert} lacks {part}");
        }
        let link = format!("runbook: docs/runbook.md#{}\n", alert.to_lowercase());
        assert_eq!(ALERTS.matches(&link).count(), 1, "{link}");
    }
    let linked = RUNBOOK.split("](#").skip(1).map(|rest| rest.split_once(')').unwrap().0);
    let headings: Vec<&str> = RUNBOOK.lines().filter(|line| line.starts_with('#')).collect();
    for link in linked {
        let to = |heading: &&&str| heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == link;
        assert!(headings.iter().any(|heading| to(&heading)), "no section {link}");
    }
}

/// Words that look like a metric of ours.
fn named(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    words.filter(|word| ["tenantry_", "db_client_"].iter().any(|prefix| word.starts_with(prefix))).collect()
}

#[tokio::test(start_paused = true)]
async fn every_metric_that_is_named_is_published() {
    let (_pools, text) = eventful(&Prometheus::new("main").top_tenants(3, TopBy::Connects)).await;
    let text = Text::parse(&text);
    let labels: BTreeSet<&str> =
        text.samples.iter().flat_map(|(series, _)| series.labels.keys()).map(String::as_str).collect();
    let names: BTreeSet<&str> = text.samples.iter().map(|(series, _)| series.name.as_str()).collect();
    for (file, content) in [("alerts", ALERTS), ("dashboard", DASHBOARD), ("runbook", RUNBOOK)] {
        for name in named(content) {
            assert!(names.contains(name) || labels.contains(name), "{file}: {name} is not published");
        }
    }
}

/// The labels that the rules match on have values that are published.
#[tokio::test(start_paused = true)]
async fn every_value_that_is_matched_is_published() {
    let (_pools, text) = eventful(&Prometheus::new("main")).await;
    let text = Text::parse(&text);
    let mut matched = 0;
    for (label, values) in ["kind", "db_client_connection_state"].into_iter().flat_map(|label| {
        [format!("{label}=\""), format!("{label}=~\"")].into_iter().flat_map(move |start| {
            ALERTS.split(&start).skip(1).map(move |rest| (label, rest.split_once('"').unwrap().0)).collect::<Vec<_>>()
        })
    }) {
        for value in values.split('|') {
            let has =
                |labels: &std::collections::BTreeMap<String, String>| labels.get(label).is_some_and(|it| it == value);
            assert!(text.samples.iter().any(|(series, _)| has(&series.labels)), "{label}={value}");
            matched += 1;
        }
    }
    assert!(matched >= 6, "{matched}");
}

#[test]
fn the_dashboard_is_whole() {
    let dashboard: serde_json::Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel["datasource"]["uid"] == "${datasource}", "{panel}");
        for target in targets {
            let expr = target["expr"].as_str().unwrap();
            assert_eq!(expr.matches('(').count(), expr.matches(')').count(), "{expr}");
            assert!(expr.contains("$pool") && expr.contains("$instance"), "{expr}");
        }
    }
}
