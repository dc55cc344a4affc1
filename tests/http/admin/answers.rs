//! What the routes say and do.

use axum::body::Body;
use axum::http::{Request, StatusCode, header};
use serde_json::json;
use tenantry::{FailureKind, ServerId};
use tenantry_testkit::{Behavior, Call, FakeFactory};

use super::{ADMIN, READER, TENANT, get, post, router};
use crate::{ask, pools};

#[tokio::test(start_paused = true)]
async fn statistics_tell_totals_and_servers() {
    let fake = FakeFactory::new();
    fake.place(TENANT, ServerId::from("east"));
    let pools = pools(&fake, |builder| builder);
    let _lease = pools.acquire(TENANT).await.unwrap();
    let stats = get(&router(&pools), "/api/stats", READER).await.json();
    assert_eq!((&stats["available"], &stats["role"]), (&true.into(), &"read".into()));
    assert_eq!((&stats["max"], &stats["in_use"], &stats["open"]), (&2.into(), &1.into(), &1.into()));
    assert_eq!((&stats["saturation"], &stats["totals"]["connects"]), (&0.5.into(), &1.into()));
    assert_eq!((&stats["servers"][0]["server"], &stats["servers"][0]["in_use"]), (&"east".into(), &1.into()));
    pools.close_within(std::time::Duration::ZERO).await;
    let stats = get(&router(&pools), "/api/stats", ADMIN).await.json();
    assert_eq!((&stats["available"], &stats["role"], &stats["in_use"]), (&false.into(), &"admin".into(), &1.into()));
}

#[tokio::test]
async fn tenants_are_listed_in_pages_found_by_text_and_ranked() {
    let pools = pools(&FakeFactory::new(), |builder| builder);
    for number in 0..7 {
        drop(pools.acquire(format!("tenant {number} <b>&é")).await.unwrap());
    }
    let admin = router(&pools);
    let (mut names, mut after) = (Vec::new(), String::new());
    loop {
        let page = get(&admin, &format!("/api/tenants?limit=3{after}"), ADMIN).await.json();
        let tenants = page["tenants"].as_array().unwrap();
        assert!(tenants.len() <= 3);
        names.extend(tenants.iter().map(|tenant| tenant["tenant"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    names.sort();
    assert_eq!(names, (0..7).map(|number| format!("tenant {number} <b>&é")).collect::<Vec<_>>());

    let found = get(&admin, "/api/tenants?containing=4%20%3Cb%3E%26%C3%A9", ADMIN).await.json();
    assert_eq!((found["tenants"].as_array().unwrap().len(), &found["next"]), (1, &json!(null)));
    let one = get(&admin, "/api/tenant?name=tenant+4%20%3Cb%3E%26%C3%A9", ADMIN).await.json();
    assert_eq!((&one["totals"]["connects"], &one["idle"]), (&1.into(), &0.into()));
    assert_eq!(get(&admin, "/api/tenant?name=nobody", ADMIN).await.status, 404);
    assert_eq!(get(&admin, "/api/tenant?name=", ADMIN).await.status, 400);

    let _lease = pools.acquire("busy").await.unwrap();
    let top = get(&admin, "/api/top?limit=2", ADMIN).await.json();
    assert_eq!((&top["tenants"][0]["tenant"], top["tenants"].as_array().unwrap().len()), (&"busy".into(), 1));
    assert_eq!(get(&admin, "/api/top?by=evictions", ADMIN).await.json()["tenants"].as_array().unwrap().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn an_admin_drains_resumes_evicts_and_warms() {
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder);
    let admin = router(&pools);
    let warmed = post(&admin, "/api/warm", json!({ "tenant": TENANT, "connections": 2 })).await;
    assert_eq!((warmed.status.as_u16(), fake.open_of(TENANT).now), (200, 2));
    assert_eq!(post(&admin, "/api/evict", json!({ "tenant": TENANT })).await.json()["closed"], 2);

    let lease = pools.acquire(TENANT).await.unwrap();
    let left = post(&admin, "/api/drain", json!({ "tenant": TENANT, "within_seconds": 0 })).await.json();
    assert_eq!((&left["complete"], &left["in_use"]), (&false.into(), &1.into()));
    drop(lease);
    let drained = post(&admin, "/api/drain", json!({ "tenant": TENANT })).await.json();
    assert_eq!(drained["complete"], true);
    assert!(pools.acquire(TENANT).await.is_err());
    let refused = post(&admin, "/api/warm", json!({ "tenant": TENANT })).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (503, "tenant-draining"));

    assert_eq!(post(&admin, "/api/resume", json!({ "tenant": TENANT })).await.json()["resumed"], true);
    assert_eq!(post(&admin, "/api/resume", json!({ "tenant": TENANT })).await.json()["resumed"], false);
    assert!(pools.acquire(TENANT).await.is_ok());

    fake.on_tenant(Call::Connect, "gone").always(Behavior::fails(FailureKind::NoSuchTenant));
    assert_eq!(post(&admin, "/api/warm", json!({ "tenant": "gone" })).await.problem(), "tenant-unknown");
    let gone = get(&admin, "/api/tenant?name=gone", ADMIN).await.json();
    assert_eq!((&gone["circuit"]["state"], &gone["circuit"]["kind"]), (&"open".into(), &"no_such_tenant".into()));
}

#[tokio::test]
async fn what_is_sent_is_bounded_and_read_strictly() {
    let pools = pools(&FakeFactory::new(), |builder| builder);
    let admin = router(&pools);
    let bad = ["limit=0", "limit=201", "limit=-1", "limit=x", "after=x", "unknown=1", "limit=1&limit=2"];
    for query in bad {
        assert_eq!(get(&admin, &format!("/api/tenants?{query}"), ADMIN).await.status, 400, "{query}");
    }
    assert_eq!(get(&admin, "/api/top?by=password", ADMIN).await.status, 400);
    let bodies = [
        json!({ "tenant": "" }),
        json!({ "tenant": "a\u{0}b" }),
        json!({ "tenant": "a", "unknown": 1 }),
        json!({ "tenant": ["a"] }),
        json!(null),
        json!({ "tenant": "a", "within_seconds": 61 }),
        json!({ "tenant": "a", "within_seconds": -1 }),
    ];
    for body in bodies {
        assert_eq!(post(&admin, "/api/drain", body.clone()).await.status, 400, "{body}");
    }
    assert_eq!(post(&admin, "/api/warm", json!({ "tenant": "a", "connections": 101 })).await.status, 400);
    let large = json!({ "tenant": "a".repeat(5_000) });
    assert_eq!(post(&admin, "/api/drain", large).await.status, StatusCode::PAYLOAD_TOO_LARGE);
    for kind in ["text/plain", "application/x-www-form-urlencoded", ""] {
        let request = Request::post("/api/drain")
            .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
            .header(header::CONTENT_TYPE, kind)
            .body(Body::from(json!({ "tenant": "a" }).to_string()))
            .unwrap();
        assert_eq!(ask(&admin, request).await.status, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{kind}");
    }
    assert_eq!(pools.stats().tenants, 0, "none of it was done");
}

#[cfg(feature = "metrics")]
#[tokio::test]
async fn metrics_name_tenants_to_admins_only() {
    use tenantry::TopBy;
    use tenantry::http::admin::{self, Authorization, Role};
    use tenantry::metrics::Prometheus;

    let prometheus = Prometheus::new("of-the-test").top_tenants(5, TopBy::Connects);
    let pools = pools(&FakeFactory::new(), |builder| builder.observer(prometheus.observer()));
    let tokens = || Authorization::tokens([(Role::Admin, ADMIN), (Role::Read, READER)]).unwrap();
    let admin: axum::Router = admin::router_with_metrics(&pools, tokens(), prometheus);
    drop(pools.acquire(TENANT).await.unwrap());
    for (token, named) in [(READER, false), (ADMIN, true)] {
        let metrics = get(&admin, "/metrics", token).await;
        assert_eq!(metrics.header("content-type"), Some(Prometheus::CONTENT_TYPE));
        assert!(metrics.body.contains("of-the-test"), "{}", metrics.body);
        assert!(metrics.body.contains("db_client_connection_create_time_seconds_count"), "{}", metrics.body);
        assert_eq!(metrics.body.contains(TENANT), named, "{token}: {}", metrics.body);
    }
    let without: axum::Router = admin::router(&pools, tokens());
    assert!(get(&without, "/metrics", READER).await.body.contains("db_client_connection_max"));
}
