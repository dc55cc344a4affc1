//! Making and dropping the databases of [`PostgresFactory`].

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use tenantry_core::{Created, Dropped, InvalidName, Provision, TenantId};

use super::session::say_goodbye;
use super::{PostgresFactory, code_of};
use crate::error::{During, Error};

/// A name as SQL writes it, whatever it holds.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

impl PostgresFactory {
    /// The tenant's database, the one from which it is made and dropped, and the options for the latter.
    async fn maintenance(&self, tenant: &TenantId) -> Result<(String, String, PgConnectOptions), Error> {
        // Without the timeout: copying a template is no statement of a tenant's.
        let options = self.place(tenant).await?;
        let database = options.get_database().unwrap_or_default().to_owned();
        // Without a name of its own the base means the one named like its user.
        let own = self.base.get_database().unwrap_or(self.base.get_username()).to_owned();
        let options = options.database(&own);
        Ok((database, own, options))
    }

    /// Runs one statement on a connection of its own, and closes it.
    async fn maintain(&self, options: &PgConnectOptions, during: During, sql: String) -> Result<(), Error> {
        let connect = |source| Error::Sqlx { during: During::Connect, source };
        let mut raw = PgConnection::connect_with(options).await.map_err(connect)?;
        let result = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut raw).await;
        say_goodbye(raw, self.linger).await;
        result.map(drop).map_err(|source| Error::Sqlx { during, source })
    }
}

impl Provision for PostgresFactory {
    async fn create(&self, tenant: &TenantId) -> Result<Created, Error> {
        let (database, own, options) = self.maintenance(tenant).await?;
        if database == own {
            // It is there if it can be connected to.
            self.maintain(&options, During::Create, "SELECT 1".to_owned()).await?;
            return Ok(Created::AlreadyThere);
        }
        let mut sql = format!("CREATE DATABASE {}", quoted(&database));
        if let Some(owner) = &self.owner {
            sql.push_str(" OWNER ");
            sql.push_str(&quoted(owner));
        }
        if let Some(template) = &self.template {
            sql.push_str(" TEMPLATE ");
            sql.push_str(&quoted(template));
        }
        match self.maintain(&options, During::Create, sql).await {
            Ok(()) => Ok(Created::New),
            // The second of two who create it at the same moment is told so by the catalog's index.
            Err(Error::Sqlx { during: During::Create, source })
                if matches!(code_of(&source), Some("42P04" | "23505")) =>
            {
                Ok(Created::AlreadyThere)
            }
            Err(error) => Err(error),
        }
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, Error> {
        let (database, own, options) = self.maintenance(tenant).await?;
        if database == own {
            return Err(InvalidName::Reserved.into());
        }
        let force = if self.force_drop { " WITH (FORCE)" } else { "" };
        let sql = format!("DROP DATABASE {}{force}", quoted(&database));
        match self.maintain(&options, During::Drop, sql).await {
            Ok(()) => Ok(Dropped::Gone),
            Err(Error::Sqlx { during: During::Drop, source }) if code_of(&source) == Some("3D000") => {
                Ok(Dropped::WasAbsent)
            }
            Err(error) => Err(error),
        }
    }
}
