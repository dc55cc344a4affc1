//! The MySQL factory keeps the contract of `PoolFactory` and `Provision` on a private MariaDB, by the suite that any driver
//! can run.
#![cfg(feature = "mysql")]
#![allow(missing_docs, reason = "tests")]

#[path = "support/mysql.rs"]
mod support;

use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};
use support::{ask, kill, number, opts, plain_query, tenant};
use tenantry_core::{NativePool, PoolFactory as _, Provision as _, TenantId};
use tenantry_diesel::{MySqlConnection, MySqlFactory, Pooled};
use tenantry_testkit::conformance::{Limited, NotPossible, PoolSubject, Subject, Suite, Trouble};
use tenantry_testkit::servers::User;
use tenantry_testkit::{Flow, PrivateMariaDb, Proxy};

const LIMIT: u32 = 2;
const LIMITED: &str = "limited";
const PASSWORD: &str = "p@/#%:?' mark3r";

/// The server, and a proxy before it that can fall silent.
struct Server {
    server: PrivateMariaDb,
    proxy: Proxy,
    factory: MySqlFactory,
}

impl Server {
    async fn new() -> Self {
        let limited = User::new(LIMITED, PASSWORD).owns("one").max_user_connections(LIMIT);
        let server = PrivateMariaDb::builder().user(limited).start().expect("a server");
        let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await.expect("a proxy");
        let factory = MySqlFactory::new(opts(&server).tcp_port(proxy.address().port()));
        for name in ["one", "two"] {
            factory.create(&tenant(name)).await.expect("a database");
        }
        for statement in ["CREATE ROLE helper", "GRANT helper TO root"] {
            let _: Vec<u8> = ask(&server, statement).await;
        }
        Self { server, proxy, factory }
    }
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    text: String,
}

/// What can be left on a session, as it sees it itself.
const LEFT: &str = "
    SELECT 'a variable' AS text FROM dual WHERE @left IS NOT NULL
    UNION ALL SELECT 'a lock' FROM dual WHERE IS_USED_LOCK('left') = CONNECTION_ID()
    UNION ALL SELECT 'a setting' FROM dual WHERE @@sql_mode = '' OR @@autocommit = 0
    UNION ALL SELECT 'a role' FROM dual WHERE CURRENT_ROLE() IS NOT NULL
    UNION ALL SELECT 'another database' FROM dual WHERE DATABASE() = 'mysql'
    UNION ALL SELECT 'a transaction' FROM information_schema.innodb_trx
        WHERE trx_mysql_thread_id = CONNECTION_ID() AND trx_query IS NULL";

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
        vec![PASSWORD.to_owned(), "mark3r wrong".to_owned()]
    }

    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
        let count = format!("SELECT count(*) FROM information_schema.processlist WHERE db = '{tenant}'");
        Ok(ask(&self.server, &count).await[0])
    }

    async fn ask(&self, connection: &mut MySqlConnection) -> Result<(), Trouble> {
        plain_query(connection).await;
        Ok(())
    }

    async fn keep(&self, connection: &mut MySqlConnection, word: &str) -> Result<(), Trouble> {
        connection.batch_execute("CREATE TABLE IF NOT EXISTS word (text TEXT)").await?;
        let insert = diesel::sql_query("INSERT INTO word VALUES (?)").bind::<Text, _>(word);
        insert.execute(connection).await?;
        Ok(())
    }

    async fn words(&self, connection: &mut MySqlConnection) -> Result<Vec<String>, Trouble> {
        connection.batch_execute("CREATE TABLE IF NOT EXISTS word (text TEXT)").await?;
        let rows: Vec<Row> = diesel::sql_query("SELECT text FROM word").load(connection).await?;
        Ok(rows.into_iter().map(|row| row.text).collect())
    }

    fn ways_to_leave(&self) -> Vec<&'static str> {
        vec![
            "BEGIN",
            "SET @left = 1",
            "SELECT GET_LOCK('left', 0)",
            "CREATE TEMPORARY TABLE word (other INT)",
            "SET sql_mode = ''",
            "SET autocommit = 0",
            "USE mysql",
            "SET ROLE helper",
            "SELECT 1; BEGIN; SELECT 2",
        ]
    }

    async fn leave(&self, connection: &mut MySqlConnection, way: &'static str) -> Result<(), Trouble> {
        Ok(connection.batch_execute(way).await?)
    }

    async fn left(&self, connection: &mut MySqlConnection) -> Result<Vec<String>, Trouble> {
        let found: Vec<Row> = diesel::sql_query(LEFT).load(connection).await?;
        let mut left: Vec<_> = found.into_iter().map(|row| row.text).collect();
        if diesel::sql_query("SELECT other FROM word").execute(connection).await.is_ok() {
            left.push("a temporary table".to_owned());
        }
        // Reading a variable looks like leaving one.
        self.factory.recycle(connection).await?;
        Ok(left)
    }

    async fn interruptible(&self, connection: &mut MySqlConnection) -> Result<(), Trouble> {
        let answer: Result<i64, diesel::result::Error> = connection
            .transaction(async |connection| {
                connection.batch_execute("SET @left = 1; SELECT SLEEP(0.01)").await?;
                Ok(number(connection, "SELECT SLEEP(0.01)").await)
            })
            .await;
        answer?;
        Ok(())
    }

    async fn kill(&self, connection: &mut MySqlConnection) -> Result<(), NotPossible> {
        let id = number(connection, "CONNECTION_ID()").await;
        kill(&self.server, id).await;
        Ok(())
    }

    async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
        self.proxy.set_flows(if silent { Flow::BlackHole } else { Flow::Pass });
        Ok(())
    }

    fn with_wrong_password(&self) -> Result<MySqlFactory, NotPossible> {
        Ok(MySqlFactory::new(opts(&self.server).user(Some(LIMITED)).pass(Some("mark3r wrong"))))
    }

    fn with_unreachable_server(&self) -> Result<MySqlFactory, NotPossible> {
        Ok(MySqlFactory::new(opts(&self.server).tcp_port(1)))
    }

    fn with_limited_server(&self) -> Result<Limited<MySqlFactory>, NotPossible> {
        let factory = MySqlFactory::new(opts(&self.server).user(Some(LIMITED)).pass(Some(PASSWORD)));
        Ok(Limited { factory, tenant: tenant("one"), limit: LIMIT })
    }

    // mysql_async does not let us see it; the linger makes it so nearly always.
    fn knows_when_the_server_lets_go(&self) -> bool {
        false
    }
}

impl PoolSubject for Server {
    type Pooled = Object<Pooled<MySqlFactory>>;

    async fn take(&self, pool: &<MySqlFactory as NativePool>::Pool) -> Result<Self::Pooled, Trouble> {
        Ok(pool.get().await?)
    }
}

#[tokio::test]
async fn the_factory_keeps_the_contract() {
    let subject = Server::new().await;
    let report = Suite::of(&subject).provision().native_pool().run().await;
    println!("conformance: diesel, MariaDB: {}", report.summary());
    report.assert_passed();
    assert_eq!(report.not_made(), [""; 0], "everything was checked");
}
