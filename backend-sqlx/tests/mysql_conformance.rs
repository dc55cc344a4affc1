//! The contract of a driver, proved for MySQL on a private MariaDB by the suite of tenantry's testkit.

mod support;

use sqlx::mysql::MySqlPool;
use sqlx::{AssertSqlSafe, Connection as _, Executor, MySql, MySqlConnection};
use support::mysql::options;
use support::tenant;
use tenantry_core::{Provision, TenantId};
use tenantry_sqlx::{Connection, MySqlFactory};
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::conformance::{Limited, NotPossible, PoolSubject, Subject, Suite, Trouble};
use tenantry_testkit::proxy::{Flow, Proxy};
use tenantry_testkit::servers::User;

const LIMIT: u32 = 2;
const LIMITED: &str = "limited";

/// The server, and a proxy before it that can fall silent.
struct Server {
    server: PrivateMariaDb,
    factory: MySqlFactory,
    proxy: Proxy,
}

impl Server {
    async fn new() -> Self {
        let limited = User::new(LIMITED, "mark3r-limited").owns("one").max_user_connections(LIMIT);
        let server = PrivateMariaDb::builder().user(limited).start().expect("a server");
        let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await.expect("a proxy");
        let factory = MySqlFactory::new(options(&server).port(proxy.address().port()));
        Self { server, factory, proxy }
    }

    async fn administrator(&self) -> MySqlConnection {
        MySqlConnection::connect_with(&options(&self.server)).await.expect("the server lets us in")
    }
}

impl Subject for Server {
    type Factory = MySqlFactory;

    fn factory(&self) -> &MySqlFactory {
        &self.factory
    }

    fn tenants(&self) -> [TenantId; 2] {
        [tenant("one"), tenant("two")]
    }

    fn missing_tenant(&self) -> TenantId {
        tenant("missing")
    }

    fn secrets(&self) -> Vec<String> {
        vec!["mark3r-limited".to_owned(), "mark3r-wrong".to_owned()]
    }

    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM information_schema.processlist WHERE db = ?")
            .bind(tenant.as_str())
            .fetch_one(&mut self.administrator().await)
            .await?;
        Ok(count.try_into()?)
    }

    async fn ask(&self, connection: &mut Connection<MySql>) -> Result<(), Trouble> {
        sqlx::query("SELECT count(*) FROM information_schema.tables").execute(connection).await?;
        Ok(())
    }

    async fn keep(&self, connection: &mut Connection<MySql>, word: &str) -> Result<(), Trouble> {
        connection.execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        sqlx::query("INSERT INTO word VALUES (?)").bind(word).execute(connection).await?;
        Ok(())
    }

    async fn words(&self, connection: &mut Connection<MySql>) -> Result<Vec<String>, Trouble> {
        connection.execute("CREATE TABLE IF NOT EXISTS word (word TEXT)").await?;
        Ok(sqlx::query_scalar("SELECT word FROM word").fetch_all(connection).await?)
    }

    fn ways_to_leave(&self) -> Vec<&'static str> {
        vec!["BEGIN", "SET @left = 1", "SELECT GET_LOCK('left', 0)", "CREATE TEMPORARY TABLE scratch (id INT)"]
    }

    async fn leave(&self, connection: &mut Connection<MySql>, way: &'static str) -> Result<(), Trouble> {
        connection.execute(way).await?;
        Ok(())
    }

    async fn left(&self, connection: &mut Connection<MySql>) -> Result<Vec<String>, Trouble> {
        let left = "SELECT 'a variable' FROM dual WHERE @left IS NOT NULL
            UNION ALL SELECT 'a lock' FROM dual WHERE IS_USED_LOCK('left') = CONNECTION_ID()
            UNION ALL SELECT 'a transaction' FROM information_schema.innodb_trx
                WHERE trx_mysql_thread_id = CONNECTION_ID() AND trx_query IS NULL";
        Ok(sqlx::query_scalar(left).fetch_all(connection).await?)
    }

    async fn interruptible(&self, connection: &mut Connection<MySql>) -> Result<(), Trouble> {
        let mut transaction = connection.begin().await?;
        sqlx::query("SELECT SLEEP(0.01)").execute(&mut *transaction).await?;
        transaction.commit().await?;
        sqlx::query("SELECT SLEEP(0.01)").execute(connection).await?;
        Ok(())
    }

    async fn kill(&self, connection: &mut Connection<MySql>) -> Result<(), NotPossible> {
        let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(connection).await.expect("an id");
        let mut administrator = self.administrator().await;
        let kill = AssertSqlSafe(format!("KILL {id}"));
        sqlx::raw_sql(kill).execute(&mut administrator).await.expect("an administrator may");
        // The server's word says that it will end; a busy one takes another statement before.
        let there = "SELECT 1 FROM information_schema.processlist WHERE id = ?";
        while sqlx::query(there).bind(id).fetch_optional(&mut administrator).await.expect("an answer").is_some() {}
        Ok(())
    }

    async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
        self.proxy.set_flows(if silent { Flow::BlackHole } else { Flow::Pass });
        Ok(())
    }

    fn with_wrong_password(&self) -> Result<MySqlFactory, NotPossible> {
        Ok(MySqlFactory::new(options(&self.server).username(LIMITED).password("mark3r-wrong")))
    }

    fn with_unreachable_server(&self) -> Result<MySqlFactory, NotPossible> {
        Ok(MySqlFactory::new(options(&self.server).port(1)))
    }

    fn with_limited_server(&self) -> Result<Limited<MySqlFactory>, NotPossible> {
        let factory = MySqlFactory::new(options(&self.server).username(LIMITED).password("mark3r-limited"));
        let [tenant, _] = self.tenants();
        Ok(Limited { factory, tenant, limit: LIMIT })
    }

    // sqlx does not let us see it; the linger makes it so nearly always.
    fn knows_when_the_server_lets_go(&self) -> bool {
        false
    }
}

impl PoolSubject for Server {
    type Pooled = sqlx::pool::PoolConnection<MySql>;

    async fn take(&self, pool: &MySqlPool) -> Result<Self::Pooled, Trouble> {
        Ok(pool.acquire().await?)
    }
}

#[tokio::test]
async fn the_driver_keeps_its_contract() {
    let server = Server::new().await;
    for tenant in server.tenants() {
        server.factory.create(&tenant).await.expect("a new database");
    }
    let report = Suite::of(&server).provision().native_pool().run().await;
    println!("conformance: sqlx, MariaDB: {}", report.summary());
    report.assert_passed();
    assert_eq!(report.not_made(), [""; 0], "{report}");
}
