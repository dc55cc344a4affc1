//! What is logged for a request says whose it is.

use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::get as on_get;
use tenantry::http::{TenantConnection, TenantLayer, TenantSource, Tenants};
use tenantry_testkit::FakeFactory;

use crate::{ask, pools};

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
async fn what_a_handler_logs_has_its_tenant_and_the_source_is_asked_once() {
    async fn talk(connection: TenantConnection<FakeFactory>) -> String {
        tokio::task::yield_now().await;
        tracing::info!("asked");
        connection.tenant().to_string()
    }
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);

    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let source = TenantSource::resolver(move |head| {
        count.fetch_add(1, Relaxed);
        let name = head.headers["x-tenant"].to_str().unwrap().to_owned();
        async { Ok(name) }
    });
    let tenants = Tenants::new(pools(&FakeFactory::new(), |builder| builder), source.clone());
    let service = Router::new().route("/", on_get(talk)).layer(TenantLayer::new(source)).with_state(tenants);

    for tenant in ["acme", "zeta"] {
        let request = Request::get("/").header("x-tenant", tenant).body(Body::empty()).unwrap();
        assert_eq!(ask(&service, request).await.body, tenant);
    }
    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let asked_lines: Vec<&str> = log.lines().filter(|line| line.ends_with("asked")).collect();
    assert_eq!(asked_lines.len(), 2, "{log}");
    assert!(asked_lines[0].contains("tenant_request{tenant=acme}"), "{log}");
    assert!(asked_lines[1].contains("tenant_request{tenant=zeta}"), "{log}");
    assert_eq!(asked.load(Relaxed), 2, "the extractor takes what the layer found");
}

#[tokio::test]
async fn a_layer_with_another_source_decides_nothing() {
    async fn name(connection: TenantConnection<FakeFactory>) -> String {
        connection.tenant().to_string()
    }
    let tenants = Tenants::new(pools(&FakeFactory::new(), |builder| builder), TenantSource::path("tenant"));
    let service = Router::new()
        .route("/{tenant}", on_get(name))
        .layer(TenantLayer::new(TenantSource::header("x-tenant")))
        .with_state(tenants);
    let request = Request::get("/acme").header("x-tenant", "evil").body(Body::empty()).unwrap();
    assert_eq!(ask(&service, request).await.body, "acme");
}
