//! Each refusal and its document.

use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse;
use axum::routing::get as on_get;
use tenantry::http::{Problem, TenantConnection, TenantSource, Tenants};
use tenantry::{AcquireError, AcquireOptions, FailureKind, LimitError, TenantPools};
use tenantry_testkit::{Behavior, Call, FakeError, FakeFactory};

use crate::{Answer, get, pools};

async fn tenant(connection: TenantConnection<FakeFactory>) -> String {
    connection.tenant().to_string()
}

/// A service that is full of what must never be seen: the fake's errors have a text, and these tenants a secret in theirs.
fn service(pools: &TenantPools<FakeFactory>) -> Router {
    let tenants = Tenants::new(pools.clone(), TenantSource::path("tenant"));
    Router::new().route("/{tenant}", on_get(tenant)).with_state(tenants)
}

#[track_caller]
fn assert_is(answer: &Answer, status: u16, name: &str, retry_after: Option<&str>) {
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, name), "{}", answer.body);
    assert_eq!(answer.header("retry-after"), retry_after, "{}", answer.body);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    let texts = ["fake", "Fake", "connect to", "holder", "hunter2"];
    assert!(!texts.iter().any(|text| answer.body.contains(text)), "the driver's text is in it: {}", answer.body);
}

#[tokio::test(start_paused = true)]
async fn each_failed_connect_has_its_status() {
    let cases = [
        (FailureKind::NoSuchTenant, 404, "tenant-unknown", None),
        (FailureKind::InvalidName, 400, "tenant-invalid", None),
        (FailureKind::Auth, 502, "refused", None),
        (FailureKind::Unreachable, 503, "unavailable", Some("1")),
        (FailureKind::Other, 503, "unavailable", Some("1")),
    ];
    for (kind, status, name, retry_after) in cases {
        let fake = FakeFactory::new();
        fake.on(Call::Connect).always(Behavior::fails(kind));
        let pools = pools(&fake, |builder| builder);
        let service = service(&pools);
        // The second is told what is remembered of the first.
        for _ in 0..2 {
            assert_is(&get(&service, "/hunter2").await, status, name, retry_after);
        }
        assert_eq!(fake.calls(Call::Connect).started, 1, "{kind:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_short_limit_is_503_with_whole_seconds_to_wait() {
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder.max_connections_per_tenant(2));
    let tenants = Tenants::new(pools.clone(), TenantSource::path("tenant"))
        .options(AcquireOptions::new().timeout(Duration::from_millis(50)));
    let service = Router::new().route("/{tenant}", on_get(tenant)).with_state(tenants);
    let held = [pools.acquire("hunter2").await.unwrap(), pools.acquire("hunter2").await.unwrap()];

    let refused = get(&service, "/b").await;
    // Nothing has come back yet, so the wait is the manager's `acquire_timeout`.
    assert_is(&refused, 503, "limit", Some("5"));
    assert_eq!(refused.json()["scope"], "total");
    assert_eq!(get(&service, "/hunter2").await.json()["scope"], "tenant");

    drop(held);
    assert_eq!(get(&service, "/b").await.body, "b");
}

#[tokio::test(start_paused = true)]
async fn a_connect_that_takes_too_long_is_503() {
    let fake = FakeFactory::new();
    let _gate = fake.hold_connects("a");
    let pools = pools(&fake, |builder| builder.acquire_timeout(Duration::from_millis(20)));
    assert_is(&get(&service(&pools), "/a").await, 503, "timeout", Some("1"));
}

#[tokio::test(start_paused = true)]
async fn what_operators_do_has_statuses_of_its_own() {
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder);
    let service = service(&pools);
    assert_eq!(get(&service, "/a").await.body, "a");
    pools.drain("a", Duration::from_secs(1)).await;
    assert_is(&get(&service, "/a").await, 503, "tenant-draining", Some("1"));
    pools.resume("a");
    assert_eq!(get(&service, "/a").await.body, "a");
    pools.remove("a", Duration::from_secs(1)).await;
    assert_is(&get(&service, "/a").await, 410, "tenant-removed", None);
    pools.close().await;
    assert_is(&get(&service, "/b").await, 503, "closed", Some("1"));
}

#[tokio::test(start_paused = true)]
async fn a_bad_name_is_400_and_reaches_no_driver() {
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder);
    let service = service(&pools);
    assert_is(&get(&service, "/a%00b").await, 400, "tenant-invalid", None);
    assert_is(&get(&service, &format!("/{}", "a".repeat(256))).await, 400, "tenant-invalid", None);
    assert_is(&get(&service, "/%ff").await, 400, "tenant-missing", None);
    assert_eq!(fake.calls(Call::Connect).started, 0);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_found_under_whatever_it_was_wrapped_in() {
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder.acquire_timeout(Duration::from_millis(1)));
    let _held = [pools.acquire("a").await.unwrap(), pools.acquire("a").await.unwrap()];
    let refused = pools.acquire("b").await.unwrap_err();
    let direct = Problem::from(&refused);

    let wrapped = anyhow::Error::new(refused).context("reading notes").context("serving a page");
    let limit = wrapped.chain().find_map(|error| error.downcast_ref::<LimitError>());
    assert_eq!(limit.unwrap().limit, 2, "its type is kept");
    assert_eq!(Problem::in_chain::<FakeError>(wrapped.as_ref()), Some(direct.clone()));
    assert_eq!(
        Problem::in_chain::<std::fmt::Error>(wrapped.as_ref()),
        Some(direct),
        "a limit is found without the factory's error"
    );

    let closed = anyhow::Error::new(AcquireError::<FakeError>::Closed).context("reading notes");
    assert_eq!(Problem::in_chain::<FakeError>(closed.as_ref()).unwrap().status(), 503);
    assert_eq!(Problem::in_chain::<FakeError>(anyhow::anyhow!("something else").as_ref()), None);

    // As a driver's error carries it that has a place for an I/O error only.
    let inside = anyhow::Error::new(std::io::Error::other(AcquireError::<FakeError>::Closed)).context("reading notes");
    assert_eq!(Problem::in_chain::<FakeError>(inside.as_ref()).unwrap().status(), 503);
}

#[test]
fn a_wait_is_told_in_whole_seconds_rounded_up_and_at_least_one() {
    let waits = [(0, 1), (1, 1), (999, 1), (1_000, 1), (1_001, 2), (59_999, 60)];
    for (milliseconds, seconds) in waits {
        let problem = Problem::new(axum::http::StatusCode::SERVICE_UNAVAILABLE, "about:blank", "Later");
        let response = problem.retry_after(Duration::from_millis(milliseconds)).into_response();
        assert_eq!(response.headers()["retry-after"], seconds.to_string());
    }
}

#[test]
fn what_else_went_wrong_is_not_for_clients() {
    let problem = Problem::internal("password=hunter2");
    assert!(!format!("{problem} {problem:?}").contains("hunter2"));
    assert_eq!(problem.status(), 500);
}
