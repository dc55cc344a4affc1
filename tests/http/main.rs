//! `tenantry::http` against a driver in memory: no socket, no server.
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

mod admin;
mod extractors;
mod problems;
mod secrets;
mod spans;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, Response, StatusCode};
use serde_json::Value;
use tenantry::{Builder, TenantPools};
use tenantry_testkit::FakeFactory;
use tower::ServiceExt;

/// An answer, read to its end.
struct Answer {
    status: StatusCode,
    head: Response<()>,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.headers().get(name).map(|value| value.to_str().unwrap())
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    /// The name of its problem, once it is seen to be a good one.
    #[track_caller]
    fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.body);
        let json = self.json();
        assert_eq!(json["status"], self.status.as_u16());
        assert!(!json["title"].as_str().unwrap().is_empty());
        let (_, name) = json["type"].as_str().unwrap().rsplit_once('#').unwrap();
        assert_eq!(
            json["retry_after"].as_u64().map(|seconds| seconds.to_string()).as_deref(),
            self.header("retry-after")
        );
        name.to_owned()
    }
}

async fn ask(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (head, body) = response.into_parts();
    let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
    Answer { status: head.status, head: Response::from_parts(head, ()), body }
}

async fn get(router: &Router, uri: &str) -> Answer {
    ask(router, Request::get(uri).body(Body::empty()).unwrap()).await
}

fn pools(
    fake: &FakeFactory,
    set: impl FnOnce(Builder<FakeFactory>) -> Builder<FakeFactory>,
) -> TenantPools<FakeFactory> {
    set(TenantPools::builder(fake.clone()).max_connections(2)).build().unwrap()
}
