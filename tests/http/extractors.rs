//! Where a request's tenant is found, and how long its connection is held.

use std::convert::Infallible;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::FromRef;
use axum::http::{Request, StatusCode};
use axum::routing::{get as on_get, put};
use tenantry::http::{Problem, Tenant, TenantConnection, TenantSource, Tenants};
use tenantry_testkit::FakeFactory;
use tokio::sync::mpsc;

use crate::{Answer, ask, get, pools};

async fn name(connection: TenantConnection<FakeFactory>) -> String {
    connection.tenant().to_string()
}

fn service(source: TenantSource) -> Router {
    let tenants = Tenants::new(pools(&FakeFactory::new(), |builder| builder), source);
    Router::new().route("/", on_get(name)).with_state(tenants)
}

async fn with(service: &Router, headers: &[(&str, &[u8])]) -> Answer {
    let mut request = Request::get("/");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    ask(service, request.body(Body::empty()).unwrap()).await
}

#[tokio::test]
async fn a_header_names_the_tenant_if_there_is_exactly_one() {
    let service = service(TenantSource::header("x-tenant"));
    assert_eq!(with(&service, &[("x-tenant", b"acme")]).await.body, "acme");
    assert_eq!(with(&service, &[("x-tenant", "fällt".as_bytes())]).await.body, "fällt");
    assert_eq!(with(&service, &[]).await.problem(), "tenant-missing");
    assert_eq!(with(&service, &[("x-tenant", b"acme"), ("x-tenant", b"evil")]).await.problem(), "tenant-missing");
    assert_eq!(with(&service, &[("x-tenant", b"\xff")]).await.problem(), "tenant-missing");
    assert_eq!(with(&service, &[("x-tenant", b"")]).await.problem(), "tenant-invalid");
}

#[tokio::test]
async fn one_label_before_the_domain_names_the_tenant() {
    let service = service(TenantSource::subdomain("Example.com"));
    for host in ["acme.example.com", "ACME.example.com:8080", "acme.example.com."] {
        assert_eq!(with(&service, &[("host", host.as_bytes())]).await.body, "acme", "{host}");
    }
    let not =
        ["example.com", ".example.com", "a.b.example.com", "acmeexample.com", "acme.example.com.evil.org", "[::1]:80"];
    for host in not {
        assert_eq!(with(&service, &[("host", host.as_bytes())]).await.problem(), "tenant-missing", "{host}");
    }
    assert_eq!(with(&service, &[]).await.problem(), "tenant-missing");
    assert_eq!(get(&service, "http://acme.example.com/").await.body, "acme", "as HTTP/2 says it");
}

#[tokio::test]
async fn a_resolver_of_the_callers_own_may_wait_and_may_refuse() {
    let service = service(TenantSource::resolver(|head| {
        let session = head.headers.get("session").map(|session| session.as_bytes() == b"good");
        async move {
            tokio::task::yield_now().await;
            match session {
                Some(true) => Ok("acme"),
                _ => Err(Problem::new(StatusCode::UNAUTHORIZED, "about:blank", "Log in first")),
            }
        }
    }));
    assert_eq!(with(&service, &[("session", b"good")]).await.body, "acme");
    assert_eq!(with(&service, &[("session", b"bad")]).await.status, 401);
}

#[tokio::test]
async fn a_route_without_the_parameter_is_the_services_mistake() {
    assert_eq!(get(&service(TenantSource::path("tenant")), "/").await.problem(), "internal");
}

/// A service's own state, with more in it than tenants.
#[derive(Clone)]
struct App {
    tenants: Tenants<FakeFactory>,
    greeting: &'static str,
}

impl FromRef<App> for Tenants<FakeFactory> {
    fn from_ref(app: &App) -> Self {
        app.tenants.clone()
    }
}

#[tokio::test]
async fn the_state_may_hold_more_than_tenants() {
    async fn greet(
        axum::extract::State(app): axum::extract::State<App>,
        connection: TenantConnection<FakeFactory>,
    ) -> String {
        format!("{} {}", app.greeting, connection.tenant())
    }
    let tenants = Tenants::new(pools(&FakeFactory::new(), |builder| builder), TenantSource::path("tenant"));
    let service = Router::new().route("/{tenant}", on_get(greet)).with_state(App { tenants, greeting: "hello" });
    assert_eq!(get(&service, "/acme").await.body, "hello acme");
}

#[tokio::test]
async fn a_tenant_holds_no_connection_while_its_body_arrives() {
    async fn write(tenant: Tenant<FakeFactory>, body: Bytes) -> Result<String, Problem> {
        let lease = tenant.acquire().await?;
        Ok(format!("{} of {}", body.len(), lease.tenant()))
    }
    let fake = FakeFactory::new();
    let pools = pools(&fake, |builder| builder);
    let tenants = Tenants::new(pools.clone(), TenantSource::path("tenant"));
    let service = Router::new().route("/{tenant}", put(write)).with_state(tenants);

    let (send, mut parts) = mpsc::channel::<Bytes>(1);
    let body = Body::from_stream(futures_util::stream::poll_fn(move |context| {
        parts.poll_recv(context).map(|part| part.map(Ok::<_, Infallible>))
    }));
    let answer = tokio::spawn(async move { ask(&service, Request::put("/acme").body(body).unwrap()).await });
    send.send(Bytes::from_static(b"12345")).await.unwrap();
    // The second has room once the handler's extractors have taken the first.
    send.send(Bytes::from_static(b"67890")).await.unwrap();
    assert_eq!(pools.stats().open(), 0);
    drop(send);
    assert_eq!(answer.await.unwrap().body, "10 of acme");
    assert_eq!(pools.stats().idle, 1, "it went back when the handler ended");
}
