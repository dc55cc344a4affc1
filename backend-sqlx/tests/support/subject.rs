//! PostgreSQL as the suite for drivers wants it, and the same behind a PgBouncer.

use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::{Executor, Postgres};
use tenantry_core::TenantId;
use tenantry_sqlx::{Connection, PostgresFactory};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::conformance::{Limited, NotPossible, PoolSubject, Subject, Trouble};
use tenantry_testkit::proxy::{Flow, Proxy};
use tenantry_testkit::servers::{PoolMode, PrivatePgBouncer, Role};

use super::postgres::options;
use super::tenant;

const LIMIT: u32 = 2;

/// A server, perhaps a PgBouncer before it, and a proxy before those that can fall silent.
pub struct Cluster {
    pub factory: PostgresFactory,
    proxy: Proxy,
    bouncer: Option<PrivatePgBouncer>,
    server: PrivatePostgres,
}

impl Cluster {
    pub async fn new() -> Self {
        Self::behind(|_| None).await
    }

    /// In session mode, where each client has a connection to the server of its own, that ends with it: so the server counts
    /// what tenantry holds, and nothing that PgBouncer keeps.
    pub async fn behind_pgbouncer() -> Self {
        let bouncer = |server: &PrivatePostgres| {
            let settings = [("server_lifetime", "0"), ("server_login_retry", "0")];
            Some(PrivatePgBouncer::start(server, PoolMode::Session, &[], &settings).expect("a PgBouncer"))
        };
        Self::behind(bouncer).await
    }

    async fn behind(bouncer: impl FnOnce(&PrivatePostgres) -> Option<PrivatePgBouncer>) -> Self {
        let server = PrivatePostgres::builder()
            .role(Role::new("limited", "mark3r-limited").connection_limit(LIMIT))
            .start()
            .expect("a server");
        let host: std::net::IpAddr = server.host().parse().expect("an address");
        let bouncer = bouncer(&server);
        let port = bouncer.as_ref().map_or(server.port(), PrivatePgBouncer::port);
        let proxy = Proxy::start((host, port).into()).await.expect("a proxy");
        let factory = PostgresFactory::new(options(&server).port(proxy.address().port()));
        let factory = if bouncer.is_some() { factory.behind_pgbouncer() } else { factory };
        Self { factory, proxy, bouncer, server }
    }

    fn changed(&self, change: impl FnOnce(PgConnectOptions) -> PgConnectOptions) -> PostgresFactory {
        let options = change(options(&self.server));
        match &self.bouncer {
            Some(bouncer) => PostgresFactory::new(options.port(bouncer.port())).behind_pgbouncer(),
            None => PostgresFactory::new(options),
        }
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
        vec![self.server.password().to_owned(), "mark3r-limited".to_owned(), "mark3r-wrong".to_owned()]
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
        let end = format!("SELECT pg_terminate_backend({pid}, 60000)");
        self.server.run("postgres", &end).await.expect("a superuser may");
        Ok(())
    }

    async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
        self.proxy.set_flows(if silent { Flow::BlackHole } else { Flow::Pass });
        Ok(())
    }

    fn with_wrong_password(&self) -> Result<PostgresFactory, NotPossible> {
        Ok(self.changed(|options| options.password("mark3r-wrong")))
    }

    fn with_unreachable_server(&self) -> Result<PostgresFactory, NotPossible> {
        Ok(PostgresFactory::new(options(&self.server).port(1)))
    }

    fn with_limited_server(&self) -> Result<Limited<PostgresFactory>, NotPossible> {
        if self.bouncer.is_some() {
            return Err(NotPossible("PgBouncer lets a client wait instead of telling it that a server is full"));
        }
        let options = options(&self.server).username("limited").password("mark3r-limited");
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
