//! A private PostgreSQL server for each test that asks for one.

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor, Postgres};
use tenantry_core::{PoolFactory, Provision, TenantId};
use tenantry_sqlx::{Connection, PostgresFactory};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::Role;

use super::{StandIn, tenant};

/// A server with the database of the tenant `acme` on it, which has one table.
pub struct Cluster {
    pub factory: PostgresFactory,
    pub acme: TenantId,
    pub server: PrivatePostgres,
}

pub fn options(server: &PrivatePostgres) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host(server.host())
        .port(server.port())
        .username(server.superuser())
        .password(server.password())
        .database("postgres")
}

/// A server for tests that log in a lot, and options for the role `app`, whose logins cost little.
pub fn server_for_many_logins(role: Role) -> (PrivatePostgres, PgConnectOptions) {
    let server = PrivatePostgres::builder().setting("password_encryption", "md5").role(role.create_databases());
    let server = server.start().expect("a server");
    let options = options(&server).username("app").password("mark3r-role");
    (server, options)
}

/// Whom [`server_for_many_logins`] lets in.
pub fn app() -> Role {
    Role::new("app", "mark3r-role")
}

/// Makes databases for tenants of these names, faster than one by one.
pub async fn make_databases(server: &PrivatePostgres, names: &[String]) {
    let mut superuser = PgConnection::connect_with(&options(server)).await.expect("lets its superuser in");
    // Copied file by file: from PostgreSQL 15 on this has to be asked for, and takes a third of the time.
    let version: String = sqlx::query_scalar("SHOW server_version_num").fetch_one(&mut superuser).await.expect("one");
    let strategy = if version.as_str() < "150000" { "" } else { " STRATEGY file_copy" };
    for name in names {
        let create = format!("CREATE DATABASE \"{name}\"{strategy}");
        superuser.execute(AssertSqlSafe(create)).await.expect("a database");
    }
    superuser.close().await.expect("ends well");
}

impl Cluster {
    pub async fn new() -> Self {
        Self::with(|factory| factory).await
    }

    pub async fn with(change: impl FnOnce(PostgresFactory) -> PostgresFactory) -> Self {
        let server = PrivatePostgres::new().expect("a server");
        let factory = change(PostgresFactory::new(options(&server)));
        let acme = tenant("acme");
        factory.create(&acme).await.expect("a new database");
        server.run("acme", "CREATE TABLE note (id SERIAL PRIMARY KEY, text TEXT NOT NULL)").await.expect("a table");
        Self { factory, acme, server }
    }

    pub async fn lease(&self) -> StandIn<Connection<Postgres>> {
        StandIn::new(self.factory.connect(&self.acme).await.expect("the database is there"))
    }
}
