//! tokio-postgres under tenantry: all that it takes.
use std::time::Duration;

use tenantry_core::{FailureKind, Health, PoolFactory, TenantId};
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Config, NoTls, Row, types::ToSql};

/// What `DISCARD ALL` does but for prepared statements, which the client remembers, after whatever transaction is open.
const CLEAN: &str = "ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                     SELECT pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("PostgreSQL would cut a name of more than 63 bytes")]
    NameTooLong,
    #[error("PostgreSQL refused, or could not be reached")]
    Postgres(#[from] tokio_postgres::Error),
}

pub(crate) struct Factory(pub(crate) Config);

pub(crate) struct Connection {
    client: Client,
    driver: JoinHandle<Result<(), tokio_postgres::Error>>,
    is_dirty: bool,
}

impl Connection {
    /// One query that leaves nothing on the session. Dropped half-way, or failed, it makes the connection dirty.
    pub(crate) async fn query(&mut self, sql: &str, values: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, Error> {
        let before = std::mem::replace(&mut self.is_dirty, true);
        let rows = self.client.query(sql, values).await?;
        self.is_dirty = before;
        Ok(rows)
    }
    /// Everything else, transactions included; the connection is cleaned afterwards.
    pub(crate) fn client(&mut self) -> &mut Client {
        self.is_dirty = true;
        &mut self.client
    }
}

impl PoolFactory for Factory {
    type Connection = Connection;
    type Error = Error;

    async fn connect(&self, tenant: &TenantId) -> Result<Connection, Error> {
        let name = Some(tenant.as_str()).filter(|name| name.len() <= 63).ok_or(Error::NameTooLong)?;
        let (client, connection) = self.0.clone().dbname(name).connect(NoTls).await?;
        Ok(Connection { client, driver: tokio::spawn(connection), is_dirty: false })
    }
    fn health(&self, connection: &mut Connection) -> Health {
        match connection {
            Connection { client, .. } if client.is_closed() => Health::Lost,
            Connection { is_dirty: true, .. } => Health::Dirty,
            _ => Health::Clean,
        }
    }
    async fn recycle(&self, connection: &mut Connection) -> Result<(), Error> {
        connection.client.batch_execute(CLEAN).await?;
        connection.is_dirty = false;
        Ok(())
    }
    async fn close(&self, Connection { client, mut driver, .. }: Connection, within: Duration) {
        drop(client); // the driver says goodbye when its client is gone and every question is answered
        drop(tokio::time::timeout(within, &mut driver).await);
        driver.abort();
    }
    fn classify(&self, error: &Error) -> FailureKind {
        let Error::Postgres(error) = error else { return FailureKind::InvalidName };
        match error.code().map(|code| code.code()) {
            Some("53300") => FailureKind::ServerFull,
            Some("3D000") => FailureKind::NoSuchTenant,
            Some(code) if code.starts_with("28") => FailureKind::Auth,
            Some(code) if !code.starts_with("57P") => FailureKind::Other,
            _ => FailureKind::Unreachable,
        }
    }
}
