//! The contract of a driver, proved for PostgreSQL by the suite of tenantry's testkit.

mod support;

use sqlx::postgres::PgPool;
use sqlx::{Executor, Postgres};
use support::postgres::options;
use support::tenant;
use tenantry_core::{Provision, TenantId};
use tenantry_sqlx::{Connection, PostgresFactory};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::conformance::{Limited, NotPossible, PoolSubject, Subject, Suite, Trouble};
use tenantry_testkit::proxy::{Flow, Proxy};
use tenantry_testkit::servers::Role;

const LIMIT: u32 = 2;

/// A server, and a proxy before it that can fall silent.
struct Cluster {
    factory: PostgresFactory,
    proxy: Proxy,
    server: PrivatePostgres,
}

impl Cluster {
    async fn new() -> Self {
        let server = PrivatePostgres::builder()
            .role(Role::new("limited", "limited-password").connection_limit(LIMIT))
            .start()
            .expect("a server");
        let host: std::net::IpAddr = server.host().parse().expect("an address");
        let proxy = Proxy::start((host, server.port()).into()).await.expect("a proxy");
        let options = options(&server).port(proxy.address().port());
        Self { factory: PostgresFactory::new(options), proxy, server }
    }
}

impl Subject for Cluster {
    type Factory = PostgresFactory;

    fn factory(&self) -> &PostgresFactory {
        &self.factory
    }

    fn tenants(&self) -> [TenantId; 2] {
        [tenant("acme"), tenant("other")]
    }

    fn missing_tenant(&self) -> TenantId {
        tenant("missing")
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.server.password().to_owned(), "limited-password".to_owned(), "wrong-password".to_owned()]
    }

    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
        Ok(self.server.sample().await?.in_database(tenant.as_str()))
    }

    async fn ask(&self, connection: &mut Connection<Postgres>) -> Result<(), Trouble> {
        sqlx::query("SELECT count(*) FROM pg_class").execute(connection).await?;
        Ok(())
    }

    async fn keep(&self, connection: &mut Connection<Postgres>, word: &str) -> Result<(), Trouble> {
        connection.execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        sqlx::query("INSERT INTO word VALUES ($1)").bind(word).execute(connection).await?;
        Ok(())
    }

    async fn words(&self, connection: &mut Connection<Postgres>) -> Result<Vec<String>, Trouble> {
        connection.execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        Ok(sqlx::query_scalar("SELECT word FROM word").fetch_all(connection).await?)
    }

    fn ways_to_leave(&self) -> Vec<&'static str> {
        vec![
            "BEGIN",
            "BEGIN; SELECT pg_advisory_xact_lock(7)",
            "SET search_path = elsewhere",
            "SELECT pg_advisory_lock(7)",
            "CREATE TEMP TABLE scratch (id INT)",
            "LISTEN news",
        ]
    }

    async fn leave(&self, connection: &mut Connection<Postgres>, way: &'static str) -> Result<(), Trouble> {
        connection.execute(way).await?;
        Ok(())
    }

    async fn left(&self, connection: &mut Connection<Postgres>) -> Result<Vec<String>, Trouble> {
        // Two statements of one transaction see one `now()`.
        let now: String = sqlx::query_scalar("SELECT now()::text").fetch_one(&mut *connection).await?;
        let left = "SELECT 'a transaction' WHERE now()::text = $1
            UNION ALL SELECT 'a search path' WHERE current_setting('search_path') = 'elsewhere'
            UNION ALL SELECT 'a lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
            UNION ALL SELECT relname::text FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'
            UNION ALL SELECT 'ears' FROM pg_listening_channels()";
        Ok(sqlx::query_scalar(left).bind(now).fetch_all(connection).await?)
    }

    async fn interruptible(&self, connection: &mut Connection<Postgres>) -> Result<(), Trouble> {
        let mut transaction = connection.begin().await?;
        transaction.execute("SELECT pg_sleep(0.01)").await?;
        transaction.commit().await?;
        connection.execute("SET search_path = elsewhere; SELECT pg_sleep(0.01); RESET search_path").await?;
        Ok(())
    }

    async fn kill(&self, connection: &mut Connection<Postgres>) -> Result<(), NotPossible> {
        let pid: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(connection).await.expect("an id");
        let end = format!("SELECT pg_terminate_backend({pid}, 5000)");
        self.server.run("postgres", &end).await.expect("a superuser may");
        Ok(())
    }

    async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
        self.proxy.set_flows(if silent { Flow::BlackHole } else { Flow::Pass });
        Ok(())
    }

    fn with_wrong_password(&self) -> Result<PostgresFactory, NotPossible> {
        Ok(PostgresFactory::new(options(&self.server).password("wrong-password")))
    }

    fn with_unreachable_server(&self) -> Result<PostgresFactory, NotPossible> {
        Ok(PostgresFactory::new(options(&self.server).port(1)))
    }

    fn with_limited_server(&self) -> Result<Limited<PostgresFactory>, NotPossible> {
        let options = options(&self.server).username("limited").password("limited-password");
        Ok(Limited { factory: PostgresFactory::new(options), tenant: tenant("acme"), limit: LIMIT })
    }

    // sqlx does not let us see it; the linger makes it so nearly always.
    fn knows_when_the_server_lets_go(&self) -> bool {
        false
    }
}

impl PoolSubject for Cluster {
    type Pooled = sqlx::pool::PoolConnection<Postgres>;

    async fn take(&self, pool: &PgPool) -> Result<Self::Pooled, Trouble> {
        Ok(pool.acquire().await?)
    }
}

#[tokio::test]
async fn the_driver_keeps_its_contract() {
    let cluster = Cluster::new().await;
    for tenant in cluster.tenants() {
        cluster.factory.create(&tenant).await.unwrap();
    }
    let report = Suite::of(&cluster).provision().native_pool().run().await;
    println!("conformance: sqlx, PostgreSQL: {}", report.summary());
    report.assert_passed();
    assert_eq!(report.not_made(), [""; 0], "{report}");
}
