//! The contract of a driver, proved for the factory by the conformance suite.

use tenantry_core::TenantId;
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::conformance::{Limited, NotPossible, Subject, Suite, Trouble};
use tenantry_testkit::proxy::{Flow, Proxy};
use tenantry_testkit::servers::Role;

use crate::factory::{Connection, Factory};

const LIMIT: u32 = 2;

/// A server, and a proxy before it that can fall silent.
struct Cluster {
    factory: Factory,
    proxy: Proxy,
    server: PrivatePostgres,
}

impl Cluster {
    async fn new() -> Self {
        let limited = Role::new("limited", "mark3r-limited").connection_limit(LIMIT);
        let server = PrivatePostgres::builder().role(limited).start().expect("a server");
        let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await.expect("a proxy");
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(proxy.address().port()).user(server.superuser()).password(server.password());
        Self { factory: Factory(config), proxy, server }
    }
}

fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant")
}

impl Subject for Cluster {
    type Factory = Factory;

    fn factory(&self) -> &Factory {
        &self.factory
    }

    fn tenants(&self) -> [TenantId; 2] {
        [tenant("acme"), tenant("other")]
    }

    fn missing_tenant(&self) -> TenantId {
        tenant("missing")
    }

    fn secrets(&self) -> Vec<String> {
        vec![self.server.password().to_owned(), "mark3r-limited".to_owned(), "mark3r-wrong".to_owned()]
    }

    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
        Ok(self.server.sample().await?.in_database(tenant.as_str()))
    }

    async fn ask(&self, connection: &mut Connection) -> Result<(), Trouble> {
        connection.query("SELECT count(*) FROM pg_class", &[]).await?;
        Ok(())
    }

    async fn keep(&self, connection: &mut Connection, word: &str) -> Result<(), Trouble> {
        connection.client().batch_execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        connection.query("INSERT INTO word VALUES ($1)", &[&word]).await?;
        Ok(())
    }

    async fn words(&self, connection: &mut Connection) -> Result<Vec<String>, Trouble> {
        connection.client().batch_execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        let rows = connection.query("SELECT word FROM word", &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    fn ways_to_leave(&self) -> Vec<&'static str> {
        vec![
            "BEGIN",
            "SET search_path = elsewhere",
            "SELECT pg_advisory_lock(7)",
            "CREATE TEMP TABLE scratch (id INT)",
            "LISTEN news",
        ]
    }

    async fn leave(&self, connection: &mut Connection, way: &'static str) -> Result<(), Trouble> {
        Ok(connection.client().batch_execute(way).await?)
    }

    async fn left(&self, connection: &mut Connection) -> Result<Vec<String>, Trouble> {
        // Two statements of one transaction see one `now()`.
        let now: String = connection.query("SELECT now()::text", &[]).await?[0].get(0);
        let left = "SELECT 'a transaction' WHERE now()::text = $1
            UNION ALL SELECT 'a search path' WHERE current_setting('search_path') = 'elsewhere'
            UNION ALL SELECT 'a lock' FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()
            UNION ALL SELECT relname::text FROM pg_class WHERE relpersistence = 't' AND relkind = 'r'
            UNION ALL SELECT 'ears' FROM pg_listening_channels()";
        Ok(connection.query(left, &[&now]).await?.iter().map(|row| row.get(0)).collect())
    }

    async fn interruptible(&self, connection: &mut Connection) -> Result<(), Trouble> {
        let transaction = connection.client().transaction().await?;
        transaction.batch_execute("SELECT pg_sleep(0.01)").await?;
        transaction.commit().await?;
        let set = "SET search_path = elsewhere; SELECT pg_sleep(0.01); RESET search_path";
        Ok(connection.client().batch_execute(set).await?)
    }

    async fn kill(&self, connection: &mut Connection) -> Result<(), NotPossible> {
        let pid: i32 = connection.query("SELECT pg_backend_pid()", &[]).await.expect("an answer")[0].get(0);
        let end = format!("SELECT pg_terminate_backend({pid}, 60000)");
        self.server.run("postgres", &end).await.expect("a superuser may");
        Ok(())
    }

    async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
        self.proxy.set_flows(if silent { Flow::BlackHole } else { Flow::Pass });
        Ok(())
    }

    fn with_wrong_password(&self) -> Result<Factory, NotPossible> {
        let mut config = self.factory.0.clone();
        config.password("mark3r-wrong");
        Ok(Factory(config))
    }

    fn with_unreachable_server(&self) -> Result<Factory, NotPossible> {
        let mut config = tokio_postgres::Config::new();
        config.host("127.0.0.1").port(1).user(self.server.superuser()).password(self.server.password());
        Ok(Factory(config))
    }

    fn with_limited_server(&self) -> Result<Limited<Factory>, NotPossible> {
        let mut config = self.factory.0.clone();
        config.user("limited").password("mark3r-limited");
        Ok(Limited { factory: Factory(config), tenant: tenant("acme"), limit: LIMIT })
    }

    // A server process outlives its client's goodbye by some milliseconds, and tokio-postgres does not wait for its end.
    fn knows_when_the_server_lets_go(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn the_factory_keeps_the_contract() {
    let cluster = Cluster::new().await;
    for tenant in cluster.tenants() {
        cluster.server.run("postgres", &format!("CREATE DATABASE {tenant}")).await.expect("a new database");
    }
    let report = Suite::of(&cluster).run().await;
    report.assert_passed();
    assert_eq!(report.not_made(), [""; 0], "everything was checked");
}
