//! Making and dropping the databases of [`MySqlFactory`].

use sqlx::mysql::{MySqlConnectOptions, MySqlConnection};
use sqlx::{AssertSqlSafe, Connection as _};
use tenantry_core::{Created, Dropped, InvalidName, Provision, TenantId};

use super::session::say_goodbye;
use super::{MySqlFactory, number_of};
use crate::error::{During, Error};

/// There for everyone, on every server.
const ANY_DATABASE: &str = "information_schema";

/// Database exists.
const ER_DB_CREATE_EXISTS: u16 = 1007;

/// No database to drop.
const ER_DB_DROP_EXISTS: u16 = 1008;

/// A name as SQL writes it, whatever it holds.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

impl MySqlFactory {
    /// The tenant's database, the one from which it is made and dropped, and the options for the latter.
    async fn maintenance(&self, tenant: &TenantId) -> Result<(String, String, MySqlConnectOptions), Error> {
        let options = self.options(tenant).await?;
        let database = options.get_database().unwrap_or_default().to_owned();
        let own = self.base.get_database().unwrap_or(ANY_DATABASE).to_owned();
        let options = options.database(&own);
        Ok((database, own, options))
    }

    /// Runs one statement on a connection of its own, and closes it.
    async fn maintain(&self, options: &MySqlConnectOptions, during: During, sql: String) -> Result<(), Error> {
        let connect = |source| Error::Sqlx { during: During::Connect, source };
        let mut raw = MySqlConnection::connect_with(options).await.map_err(connect)?;
        let result = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut raw).await;
        say_goodbye(raw, self.linger).await;
        result.map(drop).map_err(|source| Error::Sqlx { during, source })
    }
}

impl Provision for MySqlFactory {
    async fn create(&self, tenant: &TenantId) -> Result<Created, Error> {
        let (database, own, options) = self.maintenance(tenant).await?;
        if database == own {
            // It is there if it can be connected to.
            self.maintain(&options, During::Create, "DO 1".to_owned()).await?;
            return Ok(Created::AlreadyThere);
        }
        match self.maintain(&options, During::Create, format!("CREATE DATABASE {}", quoted(&database))).await {
            Ok(()) => Ok(Created::New),
            Err(Error::Sqlx { during: During::Create, source }) if number_of(&source) == Some(ER_DB_CREATE_EXISTS) => {
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
        match self.maintain(&options, During::Drop, format!("DROP DATABASE {}", quoted(&database))).await {
            Ok(()) => Ok(Dropped::Gone),
            Err(Error::Sqlx { during: During::Drop, source }) if number_of(&source) == Some(ER_DB_DROP_EXISTS) => {
                Ok(Dropped::WasAbsent)
            }
            Err(error) => Err(error),
        }
    }
}
