//! [`MySqlFactory`]: one database per tenant on one MySQL or MariaDB server, or on several. How a connection is judged,
//! cleaned and closed stands in `mysql/connection.rs`, how a question is asked to its end in `mysql/job.rs`, how databases
//! are made in `mysql/provision.rs`.

mod binds;
mod capacity;
mod connection;
mod job;
mod pool;
mod provision;
mod rows;
mod statement;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use mysql_async::{DriverError, Opts, OptsBuilder};
use tenantry_core::names::{mysql_name, plain_mysql_name};
use tenantry_core::{FailureKind, Health, PoolFactory, ServerId, TenantId};

use crate::error::{During, Error};

pub use connection::MySqlConnection;
pub use rows::{MySqlField, MySqlRow};

type Resolver = Arc<dyn Fn(TenantId) -> BoxFuture<'static, Result<Opts, Error>> + Send + Sync>;
type Naming = Arc<dyn Fn(&TenantId) -> String + Send + Sync>;
type ServerOf = Arc<dyn Fn(&TenantId) -> ServerId + Send + Sync>;

/// A server thread outlives the goodbye of its client by a moment.
const LINGER: Duration = Duration::from_millis(10);

/// Opens connections to one MySQL or MariaDB database per tenant, as [`MySqlConnection`]s, over mysql_async. It needs no C
/// library.
///
/// # Where a tenant's database is
/// By default on the server that the options name, under the tenant's own name: `a-z`, `0-9`, `-`, `_`, and inside of it
/// `.` and a space; at most 64 characters. A server on a file system that folds case (`lower_case_table_names`) would take
/// `Acme` and `acme` for one database, so upper case is [`Error::InvalidName`]. [`database_names`](Self::database_names)
/// gives another rule, and [`resolver`](Self::resolver) other options altogether, per tenant.
///
/// # The options
/// Their own database serves maintenance only: `create` and `drop_database` connect to it, or to `information_schema` if
/// there is none. Those about pools are without effect, and `prefer_socket` is off, which would open a second connection
/// beside each first. Their `init` runs once on each connection, their `setup` then and after each reset.
///
/// # Between two users
/// A connection that is not clean is reset by the server (`COM_RESET_CONNECTION`): transactions, locks, temporary tables,
/// variables, settings and prepared statements are gone, and it is put back into the tenant's database. MariaDB (seen
/// with 10.11) counts a connection to its user's `max_user_connections` no more once it was reset; the budget does.
///
/// # Letting go
/// `close` waits for a question that was dropped half-way, says goodbye, and waits 10 ms ([`linger`](Self::linger)).
///
/// # Encryption
/// With the feature `tls-rustls`, by the options' `ssl_opts`; without it, a connect with them panics. A program in which both of
/// rustls's providers are compiled has to say which one (`CryptoProvider::install_default`).
///
/// ```
/// use tenantry_diesel::MySqlFactory;
/// use tenantry_diesel::mysql_async::OptsBuilder;
///
/// let opts = OptsBuilder::default().ip_or_hostname("db.internal").user(Some("shop")).pass(Some("as:it/is@ 100%"));
/// let factory = MySqlFactory::new(opts).database_names(|tenant| format!("shop_{tenant}"));
/// ```
#[derive(Clone)]
pub struct MySqlFactory {
    base: Opts,
    naming: Option<Naming>,
    resolver: Option<Resolver>,
    server_of: Option<ServerOf>,
    linger: Duration,
}

impl MySqlFactory {
    /// A factory for the databases of the server that `opts` name ([`Opts`] or an [`OptsBuilder`]; [`Opts::from_url`]
    /// reads a URL). Connects to nothing yet.
    #[must_use]
    pub fn new(opts: impl Into<Opts>) -> Self {
        Self { base: opts.into(), naming: None, resolver: None, server_of: None, linger: LINGER }
    }

    /// The rule from a tenant to its database's name, in place of the tenant's own. It has to give different names to
    /// different tenants, as the server compares them, or they share a database.
    #[must_use]
    pub fn database_names(mut self, rule: impl Fn(&TenantId) -> String + Send + Sync + 'static) -> Self {
        self.naming = Some(Arc::new(rule));
        self
    }

    /// Where each tenant's database is and how to log in there, asked before each connect; it takes the place of the
    /// naming rule. Return [`Error::NoSuchTenant`] for a tenant that is not known. Name the servers with
    /// [`server_of`](Self::server_of) if there is more than one, since each has its own limit.
    #[must_use]
    pub fn resolver<R, Fut>(mut self, resolver: R) -> Self
    where
        R: Fn(TenantId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Opts, Error>> + Send + 'static,
    {
        self.resolver = Some(Arc::new(move |tenant| Box::pin(resolver(tenant))));
        self
    }

    /// The server that a tenant lives on. Default: the only one. Must answer without blocking.
    #[must_use]
    pub fn server_of(mut self, server: impl Fn(&TenantId) -> ServerId + Send + Sync + 'static) -> Self {
        self.server_of = Some(Arc::new(server));
        self
    }

    /// How long a permit is still held after the goodbye. Default: 10 ms; 0 frees it at once, and the server may then
    /// count one more connection for a moment.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// What to connect with for a tenant, its database included.
    async fn opts(&self, tenant: &TenantId) -> Result<Opts, Error> {
        if let Some(resolver) = &self.resolver {
            let opts = resolver(tenant.clone()).await?;
            mysql_name(opts.db_name().unwrap_or_default())?;
            return Ok(opts);
        }
        let name = match &self.naming {
            Some(rule) => {
                let name = rule(tenant);
                mysql_name(&name)?;
                name
            }
            None => plain_mysql_name(tenant.as_str())?,
        };
        Ok(OptsBuilder::from_opts(self.base.clone()).db_name(Some(name)).into())
    }
}

impl fmt::Debug for MySqlFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Field by field: the options hold the user and the password.
        f.debug_struct("MySqlFactory")
            .field("host", &self.base.ip_or_hostname())
            .field("port", &self.base.tcp_port())
            .field("resolver", &self.resolver.is_some())
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

impl PoolFactory for MySqlFactory {
    type Connection = MySqlConnection;
    type Error = Error;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.server_of.as_ref().map_or_else(ServerId::default, |server| server(tenant))
    }

    async fn connect(&self, tenant: &TenantId) -> Result<MySqlConnection, Error> {
        let opts = self.opts(tenant).await?;
        MySqlConnection::open(opts).await.map_err(|source| Error::MySql { during: During::Connect, source })
    }

    fn health(&self, connection: &mut MySqlConnection) -> Health {
        connection.health()
    }

    async fn recycle(&self, connection: &mut MySqlConnection) -> Result<(), Error> {
        connection.recycle().await
    }

    async fn close(&self, connection: MySqlConnection, within: Duration) {
        connection.close(self.linger, within).await;
    }

    fn classify(&self, error: &Error) -> FailureKind {
        match error {
            Error::InvalidName(_) => FailureKind::InvalidName,
            Error::NoSuchTenant => FailureKind::NoSuchTenant,
            Error::MySql { source, .. } => classify(source),
            Error::Io { .. } | Error::Lost => FailureKind::Unreachable,
            _ => FailureKind::Other,
        }
    }
}

fn classify(error: &mysql_async::Error) -> FailureKind {
    let number = match error {
        mysql_async::Error::Server(error) => error.code,
        mysql_async::Error::Io(_) | mysql_async::Error::Driver(DriverError::ConnectionClosed) => {
            return FailureKind::Unreachable;
        }
        _ => return FailureKind::Other,
    };
    match number {
        // Too many connections: of all, of the user, or of the user within an hour.
        1040 | 1203 | 1226 => FailureKind::ServerFull,
        // Unknown database.
        1049 => FailureKind::NoSuchTenant,
        // No such user or password, no access to the database, not from this host.
        1044 | 1045 | 1130 | 1698 => FailureKind::Auth,
        // The server stops, ended the session, or blocks this host for a while.
        1053 | 1129 | 1927 | 4031 => FailureKind::Unreachable,
        _ => FailureKind::Other,
    }
}

/// A name as SQL writes it, whatever it holds.
fn quoted(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_the_user_nor_the_password() {
        let opts = Opts::from_url("mysql://bob:hunter2@db:3307/main").expect("a URL");
        let shown = format!("{:?}", MySqlFactory::new(opts));
        assert!(shown.contains("db") && !shown.contains("bob") && !shown.contains("hunter2"), "{shown}");
    }

    #[tokio::test]
    async fn names_that_a_server_may_fold_or_keeps_for_itself_are_refused() {
        let factory = MySqlFactory::new(OptsBuilder::default());
        for name in ["Acme", "café", "a/b", "..", "a ", "mysql", "sys", &"a".repeat(65)] {
            let error = factory.opts(&name.parse().expect("a tenant")).await.expect_err(name);
            assert_eq!(factory.classify(&error), FailureKind::InvalidName, "{name}");
        }
        let opts = factory.opts(&"a".repeat(64).parse().expect("a tenant")).await.expect("good");
        assert_eq!(opts.db_name(), Some("a".repeat(64).as_str()));

        let ruled = factory.database_names(|tenant| format!("shop_{tenant}"));
        let opts = ruled.opts(&"Acme".parse().expect("a tenant")).await.expect("good");
        assert_eq!(opts.db_name(), Some("shop_Acme"), "a rule of one's own is one's own to answer for");
        ruled.opts(&"a ".parse().expect("a tenant")).await.expect_err("no name ends with a blank");
    }
}
