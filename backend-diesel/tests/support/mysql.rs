//! A private MariaDB server for each test that asks for one, and short words for what tests ask of a connection.

#![allow(dead_code, unreachable_pub, reason = "each file of tests uses its own part")]

use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use diesel::sql_types::{BigInt, Integer};
use diesel::{IntoSql as _, QueryableByName};
use diesel_async::RunQueryDsl as _;
use tenantry_core::{Health, PoolFactory as _, Provision as _, TenantId};
use tenantry_diesel::mysql_async::prelude::{FromRow, Queryable as _};
use tenantry_diesel::mysql_async::{Conn, OptsBuilder};
use tenantry_diesel::{MySqlConnection, MySqlFactory};
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::servers::MariaDbBuilder;

/// Long enough for anything that works, short enough to see what does not.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant")
}

/// Fails the test instead of hanging it.
pub async fn in_time<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("still not done after a minute")
}

/// Polls a future once and drops it, as a timeout does; true if it was cut off by that.
pub fn cut_off<T>(future: impl Future<Output = T>) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_pending()
}

pub fn opts(server: &PrivateMariaDb) -> OptsBuilder {
    let opts = OptsBuilder::default().ip_or_hostname(server.host()).tcp_port(server.port());
    opts.user(Some(server.superuser())).pass(Some(server.password()))
}

/// What the superuser is answered by one statement.
pub async fn ask<T: FromRow + Send + 'static>(server: &PrivateMariaDb, statement: &str) -> Vec<T> {
    let mut conn = Conn::new(opts(server).prefer_socket(false)).await.expect("the superuser is let in");
    conn.query(statement).await.expect("an answer")
}

/// Ends a session, and waits for its end: the server's word alone says that it will.
pub async fn kill(server: &PrivateMariaDb, id: i64) {
    let _: Vec<u8> = ask(server, &format!("KILL {id}")).await;
    let there = format!("SELECT 1 FROM information_schema.processlist WHERE id = {id}");
    in_time(async { while !ask::<u8>(server, &there).await.is_empty() {} }).await;
}

/// A server with the database of the tenant `acme` on it.
pub struct Server {
    pub factory: MySqlFactory,
    pub acme: TenantId,
    pub server: PrivateMariaDb,
}

impl Server {
    pub async fn new() -> Self {
        Self::on(PrivateMariaDb::builder()).await
    }

    pub async fn on(builder: MariaDbBuilder) -> Self {
        let server = builder.start().expect("a server");
        let factory = MySqlFactory::new(opts(&server));
        let acme = tenant("acme");
        factory.create(&acme).await.expect("a new database");
        Self { factory, acme, server }
    }

    pub async fn connect(&self) -> MySqlConnection {
        self.factory.connect(&self.acme).await.expect("the database is there")
    }

    /// Recycles a connection that is dirty, and checks that it is clean then.
    pub async fn recycle(&self, connection: &mut MySqlConnection) {
        assert_eq!(self.factory.health(connection), Health::Dirty);
        in_time(self.factory.recycle(connection)).await.expect("recycles");
        assert_eq!(self.factory.health(connection), Health::Clean);
    }
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

/// The one number that an expression gives.
pub async fn number(connection: &mut MySqlConnection, expression: &str) -> i64 {
    let query = diesel::sql_query(format!("SELECT CAST(({expression}) AS SIGNED) AS value"));
    let row: NumberRow = query.get_result(connection).await.expect("an answer");
    row.value
}

/// A query that leaves nothing.
pub async fn plain_query(connection: &mut MySqlConnection) {
    let one: i32 = diesel::select(1.into_sql::<Integer>()).get_result(connection).await.expect("an answer");
    assert_eq!(one, 1);
}
