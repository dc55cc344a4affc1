//! Making and dropping the databases of [`MySqlFactory`].

use mysql_async::prelude::Queryable as _;
use mysql_async::{Conn, Opts, OptsBuilder};
use tenantry_core::{Created, Dropped, InvalidName, Provision, TenantId};

use super::{MySqlFactory, quoted};
use crate::error::{During, Error};

/// There for everyone, on every server.
const ANY_DATABASE: &str = "information_schema";

/// Database exists.
const ER_DB_CREATE_EXISTS: u16 = 1007;

/// No database to drop.
const ER_DB_DROP_EXISTS: u16 = 1008;

impl MySqlFactory {
    /// The tenant's database, the one from which it is made and dropped, and the options for the latter.
    async fn maintenance(&self, tenant: &TenantId) -> Result<(String, String, Opts), Error> {
        let opts = self.opts(tenant).await?;
        let database = opts.db_name().unwrap_or_default().to_owned();
        let own = self.base.db_name().unwrap_or(ANY_DATABASE).to_owned();
        let opts = OptsBuilder::from_opts(opts).db_name(Some(own.clone())).prefer_socket(false);
        Ok((database, own, opts.into()))
    }

    /// Runs one statement on a connection of its own, and closes it.
    async fn maintain(&self, opts: Opts, during: During, sql: String) -> Result<(), Error> {
        let mut conn = Conn::new(opts).await.map_err(|source| Error::MySql { during: During::Connect, source })?;
        let answer = conn.query_drop(sql).await;
        let _ = conn.disconnect().await;
        tokio::time::sleep(self.linger).await;
        answer.map_err(|source| Error::MySql { during, source })
    }
}

impl Provision for MySqlFactory {
    async fn create(&self, tenant: &TenantId) -> Result<Created, Error> {
        let (database, own, opts) = self.maintenance(tenant).await?;
        if database == own {
            // It is there if it can be connected to.
            self.maintain(opts, During::Create, "DO 1".to_owned()).await?;
            return Ok(Created::AlreadyThere);
        }
        match self.maintain(opts, During::Create, format!("CREATE DATABASE {}", quoted(&database))).await {
            Ok(()) => Ok(Created::New),
            Err(error @ Error::MySql { during: During::Create, .. }) if error.number() == Some(ER_DB_CREATE_EXISTS) => {
                Ok(Created::AlreadyThere)
            }
            Err(error) => Err(error),
        }
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, Error> {
        let (database, own, opts) = self.maintenance(tenant).await?;
        if database == own {
            return Err(InvalidName::Reserved.into());
        }
        match self.maintain(opts, During::Drop, format!("DROP DATABASE {}", quoted(&database))).await {
            Ok(()) => Ok(Dropped::Gone),
            Err(error @ Error::MySql { during: During::Drop, .. }) if error.number() == Some(ER_DB_DROP_EXISTS) => {
                Ok(Dropped::WasAbsent)
            }
            Err(error) => Err(error),
        }
    }
}
