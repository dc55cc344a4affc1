//! The contract of a driver, proved for MySQL by the suite of tenantry's testkit. Which server, says `mysql.rs`.

mod support;

use std::net::ToSocketAddrs;

use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use sqlx::{AssertSqlSafe, Connection as _, Executor, MySql, MySqlConnection};
use support::tenant;
use tenantry_core::{Provision, TenantId};
use tenantry_sqlx::{Connection, MySqlFactory};
use tenantry_testkit::conformance::{Limited, NotPossible, PoolSubject, Subject, Suite, Trouble};
use tenantry_testkit::proxy::{Flow, Proxy};

const LIMIT: u32 = 2;
const LIMITED: &str = "tenantry-test-limited";

fn options() -> MySqlConnectOptions {
    let url = std::env::var("TENANTRY_TEST_MYSQL_URL").expect("TENANTRY_TEST_MYSQL_URL names a server");
    url.parse().expect("a good URL")
}

async fn administrator() -> MySqlConnection {
    MySqlConnection::connect_with(&options()).await.expect("the server lets us in")
}

/// The server, and a proxy before it that can fall silent.
struct Server {
    factory: MySqlFactory,
    proxy: Proxy,
}

impl Subject for Server {
    type Factory = MySqlFactory;

    fn factory(&self) -> &MySqlFactory {
        &self.factory
    }

    fn tenants(&self) -> [TenantId; 2] {
        [tenant("tenantry-test-one"), tenant("tenantry-test-two")]
    }

    fn missing_tenant(&self) -> TenantId {
        tenant("tenantry-test-missing")
    }

    fn secrets(&self) -> Vec<String> {
        vec!["limited-password".to_owned(), "wrong-password".to_owned()]
    }

    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM information_schema.processlist WHERE db = ?")
            .bind(tenant.as_str())
            .fetch_one(&mut administrator().await)
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
        let kill = AssertSqlSafe(format!("KILL {id}"));
        sqlx::raw_sql(kill).execute(&mut administrator().await).await.expect("an administrator may");
        Ok(())
    }

    async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
        self.proxy.set_flows(if silent { Flow::BlackHole } else { Flow::Pass });
        Ok(())
    }

    fn with_wrong_password(&self) -> Result<MySqlFactory, NotPossible> {
        Ok(MySqlFactory::new(options().username(LIMITED).password("wrong-password")))
    }

    fn with_unreachable_server(&self) -> Result<MySqlFactory, NotPossible> {
        Ok(MySqlFactory::new(options().port(1)))
    }

    fn with_limited_server(&self) -> Result<Limited<MySqlFactory>, NotPossible> {
        let factory = MySqlFactory::new(options().username(LIMITED).password("limited-password"));
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
#[ignore = "needs a MySQL server"]
async fn the_driver_keeps_its_contract() {
    let address = (options().get_host(), options().get_port()).to_socket_addrs().unwrap().next().unwrap();
    let proxy = Proxy::start(address).await.unwrap();
    let options = options().host("127.0.0.1").port(proxy.address().port());
    let server = Server { factory: MySqlFactory::new(options), proxy };
    let [one, two] = server.tenants();
    for tenant in [&one, &two] {
        server.factory.create(tenant).await.unwrap();
    }
    for statement in [
        format!("DROP USER IF EXISTS `{LIMITED}`@`%`"),
        format!("CREATE USER `{LIMITED}`@`%` IDENTIFIED BY 'limited-password' WITH MAX_USER_CONNECTIONS {LIMIT}"),
        format!("GRANT ALL ON `{one}`.* TO `{LIMITED}`@`%`"),
    ] {
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut administrator().await).await.unwrap();
    }
    let report = Suite::of(&server).provision().native_pool().run().await;
    for tenant in [&one, &two] {
        server.factory.drop_database(tenant).await.unwrap();
    }
    let drop = AssertSqlSafe(format!("DROP USER `{LIMITED}`@`%`"));
    sqlx::raw_sql(drop).execute(&mut administrator().await).await.unwrap();
    report.assert_passed();
    assert_eq!(report.not_made(), [""; 0], "{report}");
}
