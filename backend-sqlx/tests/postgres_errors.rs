//! What a caller is told when a tenant's database cannot be had, and what nobody is told: passwords.

mod support;

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sqlx::Executor;
use sqlx::postgres::PgConnectOptions;
use support::in_time;
use support::postgres::{Cluster, app, options, server_for_many_logins};
use tenantry_core::{AcquireError, AcquireOptions, Created, Dropped, FailureKind, Phase, ProvisionError, TenantPools};
use tenantry_sqlx::{Error, PostgresFactory};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::proxy::{Flow, Proxy};
use tenantry_testkit::servers::{Role, patient};

type Pools = TenantPools<PostgresFactory>;

/// Every character that means something in a URL, a connection string, SQL or a format, and words to search for.
const PASSWORD: &str = "p@/#%:?' \"\\$&=+;{}()<>|*~`^!,ü mark3r-one";
const WRONG_PASSWORD: &str = "@/#%:?' mark3r-two";

fn pools(options: PgConnectOptions) -> Pools {
    patient(TenantPools::builder(PostgresFactory::new(options))).max_connections(2).build().expect("good settings")
}

async fn refused(pools: &Pools, tenant: &str) -> AcquireError<Error> {
    in_time(pools.acquire(tenant)).await.expect_err("it cannot be had")
}

/// The text and the `Debug` of an error and of all that caused it.
fn told(error: &(dyn StdError + 'static)) -> String {
    let mut told = String::new();
    let mut cause = Some(error);
    while let Some(error) = cause {
        told += &format!("{error}\n{error:?}\n{error:#?}\n");
        cause = error.source();
    }
    told
}

fn is_connect(error: &AcquireError<Error>, expected: FailureKind) -> bool {
    matches!(error, AcquireError::Connect { kind, .. } if *kind == expected)
}

#[tokio::test]
async fn a_wrong_password_is_told_as_such() {
    let cluster = Cluster::new().await;
    let pools = pools(options(&cluster.server).password(WRONG_PASSWORD));
    let error = refused(&pools, "acme").await;
    assert!(is_connect(&error, FailureKind::Auth), "{error:?}");
    let again = refused(&pools, "acme").await;
    assert!(matches!(again, AcquireError::Unavailable { kind: FailureKind::Auth, .. }), "at once: {again:?}");
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_as_such() {
    let mut cluster = Cluster::new().await;
    cluster.server.stop_immediate().expect("stops");
    let error = refused(&pools(options(&cluster.server)), "acme").await;
    assert!(is_connect(&error, FailureKind::Unreachable), "{error:?}");
}

#[tokio::test]
async fn a_server_that_does_not_answer_is_told_at_the_deadline() {
    let cluster = Cluster::new().await;
    let host: std::net::IpAddr = cluster.server.host().parse().expect("an address");
    let proxy = Proxy::start((host, cluster.server.port()).into()).await.expect("a proxy");
    proxy.set_flows(Flow::BlackHole);
    let through = options(&cluster.server).port(proxy.address().port());
    let pools = patient(TenantPools::builder(PostgresFactory::new(through)))
        .max_connections(2)
        .connect_timeout(Duration::from_secs(1))
        .build()
        .expect("good settings");
    // The caller's own deadline is first, then the connect's.
    for timeout in [Duration::from_millis(50), Duration::from_secs(3600)] {
        let acquire = pools.acquire_with("acme", AcquireOptions::new().timeout(timeout));
        let error = in_time(acquire).await.expect_err("nobody answers");
        assert!(matches!(error, AcquireError::Timeout { phase: Phase::Connecting, .. }), "{error:?}");
    }
    proxy.set_flows(Flow::Pass);
}

/// Fault B10: an acquire made the database, for strangers and for deleted tenants too.
#[tokio::test]
async fn an_unknown_database_is_told_as_such_and_an_acquire_never_makes_one() {
    let cluster = Cluster::new().await;
    let pools = pools(options(&cluster.server));
    let error = refused(&pools, "stranger").await;
    assert!(is_connect(&error, FailureKind::NoSuchTenant), "{error:?}");
    let error = in_time(pools.acquire_pool("another stranger", 2)).await.expect_err("nor does a pool lease");
    assert!(is_connect(&error, FailureKind::NoSuchTenant), "{error:?}");

    drop(in_time(pools.acquire("acme")).await.expect("it is there"));
    assert_eq!(in_time(pools.drop_database("acme")).await.expect("drops"), Dropped::Gone);
    let error = refused(&pools, "acme").await;
    assert!(is_connect(&error, FailureKind::NoSuchTenant), "{error:?}");

    let mut maintenance = in_time(pools.acquire("postgres")).await.expect("it is there");
    let databases: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database ORDER BY 1")
        .fetch_all(&mut *maintenance)
        .await
        .expect("a list");
    assert_eq!(databases, ["postgres", "template0", "template1"]);
}

/// Fault B11: names collided, were cut at 63 bytes, and upper case broke.
#[tokio::test]
async fn hostile_and_similar_names_are_each_a_database_of_their_own_or_refused() {
    let (_server, options) = server_for_many_logins(app());
    let pools = pools(options);
    let (longest, longer) = ("x".repeat(63), "x".repeat(64));
    let names = [
        "a-b",
        "a_b",
        "A-B",
        "a b",
        " a-b",
        "a\"b",
        "a'b",
        "a;b",
        "\"; DROP DATABASE postgres; --",
        "../a",
        "%s",
        "$1",
        "${HOME}",
        "postgres://x:y@z/w",
        "host=elsewhere",
        "dbname=postgres",
        "sélect",
        "日本",
        &longest,
    ];
    for name in names {
        assert_eq!(in_time(pools.create(name)).await.expect(name), Created::New, "{name}");
        let mut lease = in_time(pools.acquire(name)).await.expect(name);
        lease.execute("CREATE TABLE who (name TEXT)").await.expect("a table of its own");
        sqlx::query("INSERT INTO who VALUES ($1)").bind(name).execute(&mut *lease).await.expect("a row");
    }
    for name in names {
        let mut lease = in_time(pools.acquire(name)).await.expect(name);
        let who: Vec<(String, String)> =
            sqlx::query_as("SELECT name, current_database()::text FROM who").fetch_all(&mut *lease).await.expect(name);
        assert_eq!(who, [(name.to_owned(), name.to_owned())]);
    }
    for name in [longer.as_str(), "template0", "template1"] {
        let error = refused(&pools, name).await;
        assert!(is_connect(&error, FailureKind::InvalidName), "{error:?}");
        let error = in_time(pools.create(name)).await.expect_err("nor is it made");
        assert!(matches!(error, ProvisionError::Failed { kind: FailureKind::InvalidName, .. }), "{error:?}");
    }
    for name in ["", "a\0b", "a\nb"] {
        let error = refused(&pools, name).await;
        assert!(matches!(error, AcquireError::InvalidTenant(_)), "{error:?}");
    }
}

/// Review, finding 10: wrapped or not, capital or small, with or without context.
#[tokio::test]
async fn every_error_names_its_tenant_begins_small_and_leaves_its_causes_to_speak_for_themselves() {
    let cluster = Cluster::new().await;
    let good = pools(options(&cluster.server));
    let wrong = pools(options(&cluster.server).password(WRONG_PASSWORD));
    let errors: Vec<Box<dyn StdError>> = vec![
        refused(&good, "stranger").await.into(),
        refused(&good, &"x".repeat(64)).await.into(),
        refused(&wrong, "acme").await.into(),
        refused(&wrong, "acme").await.into(),
        in_time(wrong.create("other")).await.expect_err("nor that").into(),
    ];
    for error in &errors {
        let text = error.to_string();
        assert!(text.starts_with(char::is_lowercase) && !text.ends_with('.'), "{text}");
        assert!(["\"stranger\"", "\"xxx", "\"acme\"", "\"other\""].iter().any(|name| text.contains(name)), "{text}");
        let source = error.source().expect("what the driver said");
        let ours = source.downcast_ref::<Error>().expect("it can be found by its type");
        assert!(!text.contains(&ours.to_string()), "{text}: {ours}");
        assert!(ours.to_string().starts_with(char::is_lowercase), "{ours}");
        let Some(driver) = ours.source() else { continue };
        assert!(!ours.to_string().contains(&driver.to_string()), "{ours}: {driver}");
    }
}

/// What is logged, by anyone, at any level.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    /// For the whole process, whose other tests are in it too.
    fn start() -> Self {
        let log = Self::default();
        let to = log.clone();
        let subscriber = tracing_subscriber::fmt().with_max_level(tracing_subscriber::filter::LevelFilter::TRACE);
        subscriber.with_ansi(false).with_writer(move || to.clone()).init();
        log
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().expect("no panic")).into_owned()
    }
}

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("no panic").write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Review, finding 8, and fault B15: the password stood in a URL that errors quoted, and a log printed parts of it.
#[tokio::test]
async fn a_password_of_any_characters_works_and_is_in_no_text_no_debug_and_no_log() {
    let log = Log::start();
    let role = Role::new("app", PASSWORD).create_databases();
    let server = PrivatePostgres::builder().role(role).start().expect("a server");
    let right = options(&server).username("app").password(PASSWORD);
    let wrong = right.clone().password(WRONG_PASSWORD);
    // That the search can find it: a `Debug` derived on what holds the options would show this.
    assert!(format!("{right:?}").contains("mark3r-one") && format!("{wrong:?}").contains("mark3r-two"));

    let factory = PostgresFactory::new(right);
    let mut shown = format!("{factory:?} {:#?}", factory.clone().resolver(|_| async { Err(Error::no_such_tenant()) }));
    let builder = patient(TenantPools::builder(factory)).max_connections(4).lease_warn_after(Duration::from_millis(1));
    shown += &format!("{builder:?} {builder:#?}");
    let good = builder.build().expect("good settings");
    in_time(good.create("acme")).await.expect("it logs in");
    let mut lease = in_time(good.acquire("acme")).await.expect("it logs in");
    lease.execute("SELECT 1").await.expect("an answer");
    let pool = in_time(good.acquire_pool("acme", 1)).await.expect("it logs in");
    shown += &format!("{good:?} {lease:?} {:?} {pool:?} {:?}", *lease, good.stats());
    shown += &told(&refused(&good, "stranger").await);
    in_time(async {
        while !log.text().contains("WARN") {
            tokio::task::yield_now().await
        }
    })
    .await;
    drop(lease);
    in_time(pool.close()).await;

    let bad = pools(wrong.clone());
    shown += &told(&refused(&bad, "acme").await);
    shown += &told(&refused(&bad, "acme").await);
    shown += &told(&in_time(bad.create("acme")).await.expect_err("it may not"));
    shown += &told(&in_time(bad.acquire_pool("other", 1)).await.expect_err("it may not"));
    shown += &told(&refused(&pools(wrong.host("127.0.0.1").port(1)), "acme").await);
    shown += &log.text();

    assert!(log.text().contains("SELECT 1"), "the driver's log is in it");
    for secret in ["mark3r", "p@/#", "%:?"] {
        let line = shown.lines().find(|line| line.contains(secret));
        assert_eq!(line, None);
    }
}
