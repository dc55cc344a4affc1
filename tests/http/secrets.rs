//! A real driver's options hold a password. No answer, log line or `Debug` of a service has it, nor the user or the host.
#![cfg(feature = "sqlx-postgres")]

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, header};
use axum::routing::get as on_get;
use sqlx::postgres::PgConnectOptions;
use tenantry::TenantPools;
use tenantry::http::admin::{self, Authorization, Role, routes};
use tenantry::http::{TenantConnection, TenantLayer, TenantSource, Tenants};
use tenantry::sqlx::PostgresFactory;

use crate::ask;

const MARKERS: [&str; 3] = ["mark3r-password", "marker_user", "marker-host"];
const TOKEN: &str = "marker-token-of-the-test";

async fn serve(_: TenantConnection<PostgresFactory>) {}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_marker_password_is_in_no_answer_of_any_route_and_in_no_log_line() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone());
    let _guard = tracing::subscriber::set_default(subscriber.finish());

    let [password, user, host] = MARKERS;
    // A name that resolves nowhere: the driver's error is of the kind that likes to name it.
    let options =
        PgConnectOptions::new_without_pgpass().host(&format!("{host}.invalid")).username(user).password(password);
    let pools = TenantPools::builder(PostgresFactory::new(options))
        .max_connections(4)
        .acquire_timeout(Duration::from_secs(20))
        .connect_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    let source = TenantSource::path("tenant");
    let admin: Router = admin::router(&pools, Authorization::tokens([(Role::Admin, TOKEN)]).unwrap());
    let app = Router::new()
        .route("/{tenant}/notes", on_get(serve))
        .layer(TenantLayer::new(source.clone()))
        .with_state(Tenants::new(pools.clone(), source.clone()))
        .nest_service("/admin", admin);

    let mut said = format!("{pools:?} {source:?}");
    let mut answers = vec![ask(&app, Request::get("/acme/notes").body(Body::empty()).unwrap()).await];
    assert_eq!((answers[0].status.as_u16(), answers[0].problem().as_str()), (503, "unavailable"));
    for route in routes() {
        let query = if route.path() == "/api/tenant" { "?name=acme" } else { "" };
        let request = Request::builder()
            .method(if route.writes() { Method::POST } else { Method::GET })
            .uri(format!("/admin{}{query}", route.path().trim_end_matches('/')))
            .header(header::AUTHORIZATION, format!("Bearer {TOKEN}"))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Body::from(r#"{"tenant":"acme"}"#))
            .unwrap();
        answers.push(ask(&app, request).await);
        assert!(![401, 403, 404, 405].contains(&answers.last().unwrap().status.as_u16()), "{route:?}");
    }
    for answer in &answers {
        said += &format!("{:?} {}", answer.head.headers(), answer.body);
    }
    said += &String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(said.contains("acme"));
    for marker in MARKERS.iter().chain([&TOKEN]) {
        assert!(!said.contains(marker), "{marker} is in: {said}");
    }
}
