//! Making and dropping the databases of [`PostgresFactory`].

use std::time::Duration;

use tenantry_core::{Created, Dropped, InvalidName, Provision, TenantId};
use tokio_postgres::Config;

use super::PostgresFactory;
use super::connection::Link;
use crate::error::{During, Error};

/// How long the closing of a maintenance connection may take before its socket is dropped.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A name as SQL writes it, whatever it holds.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl PostgresFactory {
    /// The tenant's database, and the options for the database from which it is made and dropped.
    async fn maintenance(&self, tenant: &TenantId) -> Result<(String, Config), Error> {
        let mut config = self.config(tenant).await?;
        let database = config.get_dbname().unwrap_or_default().to_owned();
        config.dbname(self.maintenance_database());
        Ok((database, config))
    }

    /// Runs one statement on a connection of its own, and closes that.
    async fn maintain(&self, config: &Config, during: During, sql: &str) -> Result<(), Error> {
        let (client, link) = Link::open(config, self.tls.as_ref(), During::Connect).await?;
        let ran = client.batch_execute(sql).await;
        let cancel = client.cancel_token();
        link.close(client, cancel, config, CLOSE_WITHIN).await;
        ran.map_err(|source| Error::Postgres { during, source })
    }
}

impl Provision for PostgresFactory {
    async fn create(&self, tenant: &TenantId) -> Result<Created, Error> {
        let (database, config) = self.maintenance(tenant).await?;
        if database == self.maintenance_database() {
            // It is there if it can be connected to.
            self.maintain(&config, During::Create, "").await?;
            return Ok(Created::AlreadyThere);
        }
        let mut sql = format!("CREATE DATABASE {}", quoted(&database));
        for (word, name) in [(" OWNER ", &self.owner), (" TEMPLATE ", &self.template)] {
            if let Some(name) = name {
                sql.push_str(word);
                sql.push_str(&quoted(name));
            }
        }
        match self.maintain(&config, During::Create, &sql).await {
            Ok(()) => Ok(Created::New),
            // The second of two who create it at the same moment is told so by the catalog's index.
            Err(error) if matches!(error.code(), Some("42P04" | "23505")) => Ok(Created::AlreadyThere),
            Err(error) => Err(error),
        }
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, Error> {
        let (database, config) = self.maintenance(tenant).await?;
        if database == self.maintenance_database() {
            return Err(InvalidName::Reserved.into());
        }
        let force = if self.force_drop { " WITH (FORCE)" } else { "" };
        let sql = format!("DROP DATABASE {}{force}", quoted(&database));
        match self.maintain(&config, During::Drop, &sql).await {
            Ok(()) => Ok(Dropped::Gone),
            // A maintenance database that is missing is told in the same words, but while connecting.
            Err(error @ Error::Postgres { during: During::Drop, .. }) if error.code() == Some("3D000") => {
                Ok(Dropped::WasAbsent)
            }
            Err(error) => Err(error),
        }
    }
}
