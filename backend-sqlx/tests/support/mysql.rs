//! A private MariaDB server for each test that asks for one.

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Executor, MySql};
use tenantry_core::{Created, PoolFactory, Provision, TenantId};
use tenantry_sqlx::{Connection, MySqlFactory};
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::servers::MariaDbBuilder;

use super::{PATIENCE, StandIn, tenant};

pub type Lease = StandIn<Connection<MySql>>;

/// A server with the database of the tenant `acme` on it, which has one table.
pub struct Server {
    pub factory: MySqlFactory,
    pub acme: TenantId,
    pub server: PrivateMariaDb,
}

pub fn options(server: &PrivateMariaDb) -> MySqlConnectOptions {
    let options = MySqlConnectOptions::new().host(server.host()).port(server.port());
    options.username(server.superuser()).password(server.password())
}

impl Server {
    pub async fn new() -> Self {
        Self::on(PrivateMariaDb::builder()).await
    }

    pub async fn on(builder: MariaDbBuilder) -> Self {
        let server = builder.start().expect("a server");
        let factory = MySqlFactory::new(options(&server));
        let server = Self { factory, acme: tenant("acme"), server };
        assert_eq!(server.factory.create(&server.acme).await.expect("a new database"), Created::New);
        let mut lease = server.lease().await;
        let table = "CREATE TABLE note (id INT AUTO_INCREMENT PRIMARY KEY, text TEXT NOT NULL)";
        lease.execute(table).await.expect("a table");
        server.factory.close(lease.into_inner(), PATIENCE).await;
        server
    }

    pub async fn lease(&self) -> Lease {
        StandIn::new(self.factory.connect(&self.acme).await.expect("the database is there"))
    }
}
