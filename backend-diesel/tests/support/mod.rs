//! A private PostgreSQL server for each test that asks for one, and short words for what tests ask of a connection.

#![allow(dead_code, unreachable_pub, reason = "each file of tests uses its own part")]

use diesel::sql_types::{BigInt, Integer, Text};
use diesel::{IntoSql as _, OptionalExtension as _, QueryableByName};
use diesel_async::RunQueryDsl as _;
use tenantry_core::{Health, PoolFactory as _, Provision as _, TenantId};
use tenantry_diesel::tokio_postgres::Config;
use tenantry_diesel::{PostgresConnection, PostgresFactory};
use tenantry_testkit::PrivatePostgres;

pub fn tenant(name: &str) -> TenantId {
    name.parse().expect("a tenant")
}

/// A server with the database of the tenant `acme` on it.
pub struct Cluster {
    pub factory: PostgresFactory,
    pub acme: TenantId,
    pub server: PrivatePostgres,
}

impl Cluster {
    pub async fn new() -> Self {
        Self::on(PrivatePostgres::new().expect("a server")).await
    }

    pub async fn on(server: PrivatePostgres) -> Self {
        let factory = PostgresFactory::new(server.config("postgres"));
        let acme = tenant("acme");
        factory.create(&acme).await.expect("a new database");
        Self { factory, acme, server }
    }

    /// A factory like its own, that logs in as somebody else.
    pub fn factory_as(&self, role: &str, password: &str) -> PostgresFactory {
        let mut config = self.config();
        config.user(role).password(password);
        PostgresFactory::new(config)
    }

    pub fn config(&self) -> Config {
        self.server.config("postgres")
    }

    pub async fn connect(&self) -> PostgresConnection {
        self.factory.connect(&self.acme).await.expect("the database is there")
    }

    /// Recycles a connection that is dirty, and checks that it is clean then.
    pub async fn recycle(&self, connection: &mut PostgresConnection) {
        assert_eq!(self.factory.health(connection), Health::Dirty);
        self.factory.recycle(connection).await.expect("recycles");
        assert_eq!(self.factory.health(connection), Health::Clean);
    }
}

#[derive(QueryableByName)]
struct TextRow {
    #[diesel(sql_type = Text)]
    value: String,
}

#[derive(QueryableByName)]
struct NumberRow {
    #[diesel(sql_type = BigInt)]
    value: i64,
}

/// The one text that an expression gives.
pub async fn text(connection: &mut PostgresConnection, expression: &str) -> String {
    let query = diesel::sql_query(format!("SELECT ({expression})::text AS value"));
    let row: Option<TextRow> = query.get_result(connection).await.optional().expect("an answer");
    row.expect("a row").value
}

/// The one number that an expression gives.
pub async fn number(connection: &mut PostgresConnection, expression: &str) -> i64 {
    let query = diesel::sql_query(format!("SELECT ({expression})::bigint AS value"));
    query.get_result::<NumberRow>(connection).await.expect("an answer").value
}

pub async fn pid(connection: &mut PostgresConnection) -> i64 {
    number(connection, "pg_backend_pid()").await
}

/// A query that leaves nothing to be said afterwards, as diesel keeps its statement.
pub async fn plain_query(connection: &mut PostgresConnection) {
    let one = diesel::select(1.into_sql::<Integer>());
    assert_eq!(one.get_result::<i32>(connection).await, Ok(1));
}
