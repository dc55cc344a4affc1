//! The admin router: who gets what, and that nothing secret is in any of it.

mod access;
mod answers;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};
use tenantry::TenantPools;
use tenantry::http::admin::{self, Authorization, Role};
use tenantry_testkit::FakeFactory;

use crate::{Answer, ask};

const ADMIN: &str = "an-admin-of-the-test";
const READER: &str = "a-reader-of-the-test";

/// A tenant whose name would tell that names are told.
const TENANT: &str = "acme-of-the-test";

fn router(pools: &TenantPools<FakeFactory>) -> Router {
    admin::router(pools, Authorization::tokens([(Role::Admin, ADMIN), (Role::Read, READER)]).unwrap())
}

/// A request that its route can serve, if it is sent with the route's verb.
fn request(method: Method, path: &str, token: Option<&str>) -> Request<Body> {
    let query = if path == "/api/tenant" { format!("?name={TENANT}") } else { String::new() };
    let mut request = Request::builder().method(method).uri(format!("{path}{query}"));
    if let Some(token) = token {
        request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
    }
    let body = json!({ "tenant": TENANT }).to_string();
    request.header(header::CONTENT_TYPE, "application/json").body(Body::from(body)).unwrap()
}

async fn get(router: &Router, uri: &str, token: &str) -> Answer {
    let request = Request::get(uri).header(header::AUTHORIZATION, format!("Bearer {token}"));
    ask(router, request.body(Body::empty()).unwrap()).await
}

async fn post(router: &Router, path: &str, body: Value) -> Answer {
    let request = Request::post(path)
        .header(header::AUTHORIZATION, format!("Bearer {ADMIN}"))
        .header(header::CONTENT_TYPE, "application/json; charset=utf-8");
    ask(router, request.body(Body::from(body.to_string())).unwrap()).await
}
