//! The PostgreSQL factory keeps the contract of `PoolFactory` and `Provision`, by the suite that any driver can run.
#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "tests")]

mod support;

use std::net::TcpListener;

use diesel::sql_types::{BigInt, Text};
use diesel::{IntoSql as _, QueryableByName};
use diesel_async::pooled_connection::deadpool::Object;
use diesel_async::{AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _};
use support::{pid, plain_query, tenant, text};
use tenantry_core::{NativePool, Provision as _, TenantId};
use tenantry_diesel::tokio_postgres::Config;
use tenantry_diesel::{PostgresConnection, PostgresFactory};
use tenantry_testkit::conformance::{Limited, NotPossible, PoolSubject, Subject, Suite, Trouble};
use tenantry_testkit::servers::Role;
use tenantry_testkit::{Direction, Flow, PrivatePostgres, Proxy};

const PASSWORD: &str = "p@/#%:?' mark3r";

/// A server, and a factory that reaches it through a proxy.
struct Over {
    server: PrivatePostgres,
    proxy: Proxy,
    factory: PostgresFactory,
}

#[derive(QueryableByName)]
struct Row {
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(QueryableByName)]
struct Found {
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = Text)]
    what: String,
}

impl Over {
    async fn new() -> Self {
        let app = Role::new("app", PASSWORD).create_databases();
        let few = Role::new("few", PASSWORD).connection_limit(2);
        let server = PrivatePostgres::builder().role(app).role(few).start().expect("a server");
        let proxy = Proxy::start(([127, 0, 0, 1], server.port()).into()).await.expect("a proxy");
        let factory = PostgresFactory::new(config(proxy.address().port(), "app", PASSWORD)).force_drop(true);
        for name in ["acme", "other"] {
            factory.create(&tenant(name)).await.expect("a database");
            server.run(name, "CREATE TABLE word (text TEXT); GRANT ALL ON word TO PUBLIC").await.expect("a table");
        }
        Self { server, proxy, factory }
    }
}

fn config(port: u16, user: &str, password: &str) -> Config {
    let mut config = Config::new();
    config.host("127.0.0.1").port(port).user(user).password(password).dbname("postgres");
    config
}

/// What can be left on a session, counted by the session itself.
const LEFT: &str = "
    SELECT count(*), 'a setting' AS what FROM pg_settings
        WHERE source = 'session' AND name NOT IN ('TimeZone', 'client_encoding')
    UNION ALL SELECT count(*), 'a temporary table' FROM pg_class WHERE relpersistence = 't'
    UNION ALL SELECT count(*), 'a channel' FROM pg_listening_channels()
    UNION ALL SELECT count(*), 'a cursor' FROM pg_cursors WHERE name = 'c'
    UNION ALL SELECT (current_user <> session_user)::int::bigint, 'a role'";

impl Subject for Over {
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
        vec![PASSWORD.to_owned(), "mark3r wrong".to_owned()]
    }

    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble> {
        Ok(self.server.sample().await?.in_database(tenant.as_str()))
    }

    async fn ask(&self, connection: &mut PostgresConnection) -> Result<(), Trouble> {
        plain_query(connection).await;
        Ok(())
    }

    async fn keep(&self, connection: &mut PostgresConnection, word: &str) -> Result<(), Trouble> {
        connection.batch_execute("CREATE TABLE IF NOT EXISTS word (text TEXT)").await?;
        let insert = diesel::sql_query("INSERT INTO word VALUES ($1)").bind::<Text, _>(word);
        insert.execute(connection).await?;
        Ok(())
    }

    async fn words(&self, connection: &mut PostgresConnection) -> Result<Vec<String>, Trouble> {
        let rows: Vec<Row> = diesel::sql_query("SELECT text FROM word").load(connection).await?;
        Ok(rows.into_iter().map(|row| row.text).collect())
    }

    fn ways_to_leave(&self) -> Vec<&'static str> {
        vec![
            "BEGIN",
            "SET search_path TO pg_catalog",
            "SET ROLE few",
            "CREATE TEMPORARY TABLE left_behind (n INT)",
            "LISTEN news",
            "DECLARE c CURSOR WITH HOLD FOR SELECT 1",
        ]
    }

    async fn leave(&self, connection: &mut PostgresConnection, way: &'static str) -> Result<(), Trouble> {
        Ok(connection.batch_execute(way).await?)
    }

    async fn left(&self, connection: &mut PostgresConnection) -> Result<Vec<String>, Trouble> {
        let found: Vec<Found> = diesel::sql_query(LEFT).load(connection).await?;
        let mut left: Vec<_> = found.into_iter().filter(|found| found.count > 0).map(|found| found.what).collect();
        // Inside of a transaction the time stands still.
        if text(connection, "SELECT now()").await == text(connection, "SELECT now()").await {
            left.push("a transaction".to_owned());
        }
        // diesel says goodbye to a statement that it does not keep; the answer comes with the next one.
        plain_query(connection).await;
        Ok(left)
    }

    async fn interruptible(&self, connection: &mut PostgresConnection) -> Result<(), Trouble> {
        let answer: Result<i32, diesel::result::Error> = connection
            .transaction(async |connection| {
                connection.batch_execute("SET search_path TO pg_catalog; SELECT pg_sleep(60)").await?;
                diesel::select(1.into_sql::<diesel::sql_types::Integer>()).get_result(connection).await
            })
            .await;
        answer?;
        Ok(())
    }

    async fn kill(&self, connection: &mut PostgresConnection) -> Result<(), NotPossible> {
        let pid = pid(connection).await;
        let killed = self.server.run("postgres", &format!("SELECT pg_terminate_backend({pid}, 60000)")).await;
        killed.expect("the superuser may");
        Ok(())
    }

    async fn silence(&self, silent: bool) -> Result<(), NotPossible> {
        self.proxy.set_flow(Direction::ToClient, if silent { Flow::BlackHole } else { Flow::Pass });
        Ok(())
    }

    fn with_wrong_password(&self) -> Result<PostgresFactory, NotPossible> {
        Ok(PostgresFactory::new(config(self.server.port(), "app", "mark3r wrong")))
    }

    fn with_unreachable_server(&self) -> Result<PostgresFactory, NotPossible> {
        let nobody = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
        Ok(PostgresFactory::new(config(nobody.port(), "app", PASSWORD)))
    }

    fn with_limited_server(&self) -> Result<Limited<PostgresFactory>, NotPossible> {
        let factory = PostgresFactory::new(config(self.server.port(), "few", PASSWORD));
        Ok(Limited { factory, tenant: tenant("acme"), limit: 2 })
    }
}

impl PoolSubject for Over {
    type Pooled = Object<AsyncPgConnection>;

    async fn take(&self, pool: &<PostgresFactory as NativePool>::Pool) -> Result<Self::Pooled, Trouble> {
        Ok(pool.get().await?)
    }
}

#[tokio::test]
async fn the_factory_keeps_the_contract() {
    let subject = Over::new().await;
    subject.server.run("postgres", "GRANT few TO app").await.expect("a grant");
    let report = Suite::of(&subject).provision().native_pool().run().await;
    println!("conformance: diesel, PostgreSQL: {}", report.summary());
    report.assert_passed();
    assert_eq!(report.not_made(), [""; 0], "everything was checked");
}
