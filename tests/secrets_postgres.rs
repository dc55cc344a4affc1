//! A password that is a marker appears in nothing that a service shows or writes, whatever goes wrong: errors and their causes,
//! `Debug`, statistics as JSON, metrics, log lines and spans at the most talkative level.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::error::Error;
use std::fmt::{Debug, Write as _};
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::PgConnectOptions;
use tenantry::metrics::Prometheus;
use tenantry::sqlx::PostgresFactory;
use tenantry::{AcquireOptions, Event, Observer, TenantPage, TenantPools, TopBy};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::{Role, patient};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::FmtSpan;

const MARKERS: [&str; 2] = ["mark3r-right", "mark3r-wrong"];

/// Everything that was shown or written.
#[derive(Clone, Default)]
struct Shown(Arc<Mutex<String>>);

impl Shown {
    fn show(&self, text: &str) {
        let mut shown = self.0.lock().unwrap();
        shown.push_str(text);
        shown.push('\n');
    }

    fn debug(&self, value: &impl Debug) {
        self.show(&format!("{value:?}\n{value:#?}"));
    }

    fn json(&self, value: &impl serde::Serialize) {
        self.show(&serde_json::to_string(value).unwrap());
    }

    /// The error, and all that caused it.
    fn error(&self, error: &(dyn Error + 'static)) {
        let (mut told, mut cause) = (String::new(), Some(error));
        while let Some(error) = cause {
            writeln!(told, "{error}\n{error:?}\n{error:#?}").unwrap();
            cause = error.source();
        }
        self.show(&told);
    }
}

impl io::Write for Shown {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Shown {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

impl Observer for Shown {
    fn on(&self, event: &Event) {
        self.debug(event);
    }
}

struct Service {
    pools: TenantPools<PostgresFactory>,
    prometheus: Prometheus,
    shown: Shown,
}

impl Service {
    fn new(options: PgConnectOptions, shown: &Shown) -> Self {
        let prometheus = Prometheus::new("secrets").top_tenants(10, TopBy::Connects);
        let factory = PostgresFactory::new(options);
        let builder = patient(TenantPools::builder(factory)).max_connections(2);
        let builder = builder.observer(prometheus.observer()).observer(shown.clone());
        shown.debug(&builder);
        shown.debug(&prometheus);
        Self { pools: builder.build().unwrap(), prometheus, shown: shown.clone() }
    }

    /// Whatever comes of it, and everything that can be asked for then.
    async fn acquire(&self, tenant: &str) {
        let options = AcquireOptions::new().timeout(Duration::from_secs(3));
        match self.pools.acquire_with(tenant, options).await {
            Ok(mut lease) => {
                self.shown.debug(&lease);
                let error = lease.execute("SELECT no_such_column").await.unwrap_err();
                self.shown.error(&error);
            }
            Err(error) => self.shown.error(&error),
        }
        self.look().await;
    }

    async fn look(&self) {
        let Self { pools, prometheus, shown } = self;
        shown.debug(pools);
        shown.debug(&pools.stats());
        shown.json(&pools.stats());
        let page = pools.tenants(TenantPage::new()).await;
        shown.debug(&page);
        shown.json(&page);
        shown.show(&prometheus.render(pools).await);
    }
}

#[tokio::test]
async fn a_password_appears_nowhere_whatever_goes_wrong() {
    let [right, wrong] = MARKERS;
    let role = Role::new("app", right).create_databases().connection_limit(1);
    let mut server = PrivatePostgres::builder().role(role).start().expect("a server");
    let options = PgConnectOptions::new_without_pgpass().host(server.host()).port(server.port()).username("app");
    let options = options.password(right).database("postgres");
    let shown = Shown::default();
    let subscriber = tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(shown.clone());
    let _guard = tracing::subscriber::set_default(subscriber.with_span_events(FmtSpan::FULL).finish());

    let service = Service::new(options.clone(), &shown);
    for _ in 0..2 {
        match service.pools.create("acme").await {
            Ok(created) => shown.debug(&created),
            Err(error) => shown.error(&error),
        }
    }
    service.acquire("acme").await;
    service.acquire("no_such_database").await;
    service.acquire(&"long".repeat(30)).await;
    // The role has one connection, and the budget two: the server says that it is full.
    let held = service.pools.acquire("acme").await.expect("it is there");
    service.acquire("acme").await;
    // Cut off by the server, while it is out.
    server.stop_immediate().expect("it stops");
    let mut held = held;
    shown.error(&held.execute("SELECT 1").await.unwrap_err());
    drop(held);
    service.acquire("acme").await;
    service.acquire("other").await;
    server.start().expect("it starts");

    let strangers = Service::new(options.clone().password(wrong), &shown);
    strangers.acquire("acme").await;
    strangers.acquire("acme").await;
    if let Err(error) = strangers.pools.create("more").await {
        shown.error(&error);
    }
    for service in [&service, &strangers] {
        shown.debug(&service.pools.close_within(Duration::from_secs(5)).await);
        service.acquire("acme").await;
    }

    let shown = shown.0.lock().unwrap();
    for told in [
        "Auth",
        "Unreachable",
        "NoSuchTenant",
        "ServerFull",
        "tenantry_connects_total",
        "\"servers\":",
        "tenantry.connect",
    ] {
        assert!(shown.contains(told), "the run has not shown {told}");
    }
    for marker in MARKERS {
        let at = shown.find(marker);
        assert_eq!(at, None, "{:?}", at.map(|at| &shown[at.saturating_sub(300)..(at + 100).min(shown.len())]));
    }
}
