//! [`MySqlFactory`]: one database per tenant on one MySQL or MariaDB server, or on several. How a connection is cleaned and
//! closed stands in `mysql/session.rs`, how databases are made in `mysql/provision.rs`.

mod capacity;
mod provision;
mod session;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlPool, MySqlPoolOptions};
use sqlx::{Connection as _, MySql};
use tenantry_core::names::{mysql_name, plain_mysql_name};
use tenantry_core::{FailureKind, Health, NativePool, PoolFactory, ServerId, TenantId};

use crate::connection::Connection;
use crate::engine::{Driver, forward_to_driver};
use crate::error::{During, Error};
use crate::executor::tracked;
use crate::handle::SqlxFactory;
use crate::hook::{Hook, close_pool, pool_options};
use crate::places::Places;
use crate::statement::Syntax;
use crate::track::Ending;

/// A server thread outlives the goodbye of its client by a moment.
const LINGER: Duration = Duration::from_millis(10);

/// Opens connections to one MySQL or MariaDB database per tenant.
///
/// # Where a tenant's database is
/// By default on the server that the options name, under the tenant's own name: `a-z`, `0-9`, `-`, `_`, and inside of it
/// `.` and a space; at most 64 characters. A server on a file system that folds case (`lower_case_table_names`) would take
/// `Acme` and `acme` for one database, so upper case is [`Error::InvalidName`]. [`database_names`](Self::database_names)
/// gives another rule, and [`resolver`](Self::resolver) other options altogether, per tenant.
///
/// # The options' own database
/// It serves maintenance only: `create` and `drop_database` connect to it, or to `information_schema` if there is none.
///
/// # Between two users
/// MySQL's way to reset a session (`COM_RESET_CONNECTION`) is not to be had through sqlx, so only little can be cleaned: an
/// open transaction is rolled back, locks are released. A connection is *closed*, not cleaned, after any statement other
/// than the six of [`Connection`]'s table, after the driver's own connection was used, after migrations, and after a
/// query or stream was dropped before its end (sqlx loses track of the protocol there). For the same reason `mark_dirty()`
/// on a lease does not undo settings, user variables and temporary tables here: call `discard()` instead.
///
/// # Logging in
/// MySQL 8's own way (`caching_sha2_password`) needs TLS, or sqlx's feature `mysql-rsa`, turned on beside this crate.
///
/// # Letting go
/// `close` waits for a cancelled query to end, says goodbye, and waits 10 ms ([`linger`](Self::linger)).
#[derive(Clone)]
pub struct MySqlFactory {
    base: MySqlConnectOptions,
    places: Places<MySqlConnectOptions>,
    after_connect: Option<Hook<MySql>>,
    pool_options: MySqlPoolOptions,
    linger: Duration,
    recycle_transactions: bool,
}

impl MySqlFactory {
    /// A factory for the databases of the server that `options` name. Connects to nothing yet.
    #[must_use]
    pub fn new(options: MySqlConnectOptions) -> Self {
        Self {
            base: options,
            places: Places::default(),
            after_connect: None,
            pool_options: MySqlPoolOptions::new(),
            linger: LINGER,
            recycle_transactions: false,
        }
    }

    /// The rule from a tenant to its database's name, in place of the tenant's own. It has to give different names to
    /// different tenants, as the server compares them, or they share a database.
    #[must_use]
    pub fn database_names(mut self, rule: impl Fn(&TenantId) -> String + Send + Sync + 'static) -> Self {
        self.places.set_names(rule);
        self
    }

    /// Where each tenant's database is and how to log in there, asked before each connect; it takes the place of the
    /// naming rule. Return [`Error::no_such_tenant`] for a tenant that is not known. Name the servers with
    /// [`server_of`](Self::server_of) if there is more than one, since each has its own limit.
    #[must_use]
    pub fn resolver<R, Fut>(mut self, resolver: R) -> Self
    where
        R: Fn(TenantId) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<MySqlConnectOptions, Error>> + Send + 'static,
    {
        self.places.set_resolver(resolver);
        self
    }

    /// The server that a tenant lives on. Default: the only one. Must answer without blocking.
    #[must_use]
    pub fn server_of(mut self, server: impl Fn(&TenantId) -> ServerId + Send + Sync + 'static) -> Self {
        self.places.set_server_of(server);
        self
    }

    /// Runs on each new connection, of pools too, before anyone has it: for `SET` and the like. An error of it closes the
    /// connection.
    #[must_use]
    pub fn after_connect<H>(mut self, hook: H) -> Self
    where
        H: for<'c> Fn(&'c mut MySqlConnection, &'c TenantId) -> BoxFuture<'c, Result<(), sqlx::Error>>
            + Send
            + Sync
            + 'static,
    {
        self.after_connect = Some(Arc::new(hook));
        self
    }

    /// Changes the options of pools opened by `acquire_pool`. `max_connections` is overwritten there, and
    /// `after_connect` by the factory's hook if there is one.
    #[must_use]
    pub fn pool_options(mut self, change: impl FnOnce(MySqlPoolOptions) -> MySqlPoolOptions) -> Self {
        self.pool_options = change(self.pool_options);
        self
    }

    /// How long a permit is still held after the goodbye. Default: 10 ms; 0 frees it at once, and the server may then
    /// count one more connection for a moment.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Whether a connection is closed after every transaction, resolved ones too. For code that may `SET`, lock or make
    /// temporary tables inside of transactions, which nobody sees there. Default: no; such code calls `discard()` on its
    /// lease.
    #[must_use]
    pub fn recycle_after_transactions(mut self, on: bool) -> Self {
        self.recycle_transactions = on;
        self
    }

    /// The options to connect to a tenant's database with.
    async fn options(&self, tenant: &TenantId) -> Result<MySqlConnectOptions, Error> {
        if let Some(options) = self.places.resolve(tenant).await? {
            mysql_name(options.get_database().unwrap_or_default())?;
            return Ok(options);
        }
        let name = match self.places.name(tenant) {
            Some(name) => {
                mysql_name(&name)?;
                name
            }
            None => plain_mysql_name(tenant.as_str())?,
        };
        Ok(self.base.clone().database(&name))
    }

    /// Opens one connection of the driver's and runs the hook.
    async fn open(&self, options: &MySqlConnectOptions, tenant: &TenantId) -> Result<MySqlConnection, Error> {
        let mut raw = MySqlConnection::connect_with(options).await.map_err(|source| match number_of(&source) {
            Some(ER_BAD_DB) => Error::NoSuchTenant { source: Some(source) },
            _ => Error::Sqlx { during: During::Connect, source },
        })?;
        if let Some(hook) = &self.after_connect
            && let Err(source) = hook(&mut raw, tenant).await
        {
            session::say_goodbye(raw, self.linger).await;
            return Err(Error::Sqlx { during: During::AfterConnect, source });
        }
        Ok(raw)
    }
}

impl fmt::Debug for MySqlFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Field by field: the options hold the user and the password.
        f.debug_struct("MySqlFactory")
            .field("host", &self.base.get_host())
            .field("port", &self.base.get_port())
            .field("resolver", &self.places.has_resolver())
            .field("after_connect", &self.after_connect.is_some())
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

impl SqlxFactory for MySqlFactory {
    type Database = MySql;
}

impl PoolFactory for MySqlFactory {
    type Connection = Connection<MySql>;
    type Error = Error;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.places.server(tenant)
    }

    async fn connect(&self, tenant: &TenantId) -> Result<Connection<MySql>, Error> {
        let options = self.options(tenant).await?;
        let raw = self.open(&options, tenant).await?;
        Ok(Connection::new(raw, (), tenant.clone(), self.recycle_transactions))
    }

    fn health(&self, connection: &mut Connection<MySql>) -> Health {
        connection.health()
    }

    async fn recycle(&self, connection: &mut Connection<MySql>) -> Result<(), Error> {
        if connection.health() == Health::Broken {
            return Err(Error::LeftBehind { what: "a change of the session, which nothing but a new one undoes" });
        }
        let (raw, track) = connection.parts();
        let cleaned = tracked::<MySql, _>(track, session::clean(raw)).await;
        cleaned.map_err(|source| Error::Sqlx { during: During::Recycle, source })?;
        track.cleaned();
        Ok(())
    }

    async fn close(&self, connection: Connection<MySql>, within: Duration) {
        // Past `within` the connection is dropped, and with it the socket.
        let _ = tokio::time::timeout(within, session::close(connection, self.linger)).await;
    }

    fn classify(&self, error: &Error) -> FailureKind {
        match error {
            Error::InvalidName(_) => FailureKind::InvalidName,
            Error::NoSuchTenant { .. } => FailureKind::NoSuchTenant,
            Error::Sqlx { source, .. } => classify(source),
            Error::File { .. } => FailureKind::Unreachable,
            Error::LeftBehind { .. } | Error::Resolver(_) => FailureKind::Other,
        }
    }
}

impl NativePool for MySqlFactory {
    type Pool = MySqlPool;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<MySqlPool, Error> {
        let connect = self.options(tenant).await?;
        // One connection first, for an error that says what is wrong: the pool would try again for half a minute.
        let first = self.open(&connect, tenant).await?;
        session::say_goodbye(first, self.linger).await;
        let options = pool_options(self.pool_options.clone(), max, self.after_connect.clone(), tenant);
        Ok(options.connect_lazy_with(connect))
    }

    async fn close_pool(&self, pool: MySqlPool) {
        close_pool(&pool).await;
        tokio::time::sleep(self.linger).await;
    }
}

/// Unknown database.
const ER_BAD_DB: u16 = 1049;

fn classify(error: &sqlx::Error) -> FailureKind {
    match (error, number_of(error)) {
        (sqlx::Error::Io(_) | sqlx::Error::Tls(_), _) => FailureKind::Unreachable,
        // Too many connections: of all, of the user, or of the user within an hour.
        (_, Some(1040 | 1203 | 1226)) => FailureKind::ServerFull,
        // No such user or password, no access to the database, not from this host.
        (_, Some(1044 | 1045 | 1130 | 1698)) => FailureKind::Auth,
        // The server stops, ended the session, or blocks this host for a while.
        (_, Some(1053 | 1129 | 1927 | 4031)) => FailureKind::Unreachable,
        _ => FailureKind::Other,
    }
}

fn number_of(error: &sqlx::Error) -> Option<u16> {
    Some(error.as_database_error()?.try_downcast_ref::<MySqlDatabaseError>()?.number())
}

impl Driver for MySql {
    type State = ();

    const SYNTAX: Syntax = Syntax::MYSQL;

    // sqlx takes the answer to a cancelled prepare for that to a query, and reads on in the middle of it.
    const ABANDONED: Health = Health::Broken;
    const CHANGED: Health = Health::Broken;
    // sqlx cannot rewind its count of a transaction that was forgotten.
    const OPEN_TRANSACTION: Health = Health::Broken;

    fn ending(error: &dyn sqlx::error::DatabaseError) -> Ending {
        match error.try_downcast_ref::<MySqlDatabaseError>().map(MySqlDatabaseError::number) {
            // The server stops, or ended the session: killed, or idle for too long.
            Some(1053 | 1927 | 4031) => Ending::Lost,
            Some(_) => Ending::Clean,
            None => Ending::Dirty,
        }
    }

    forward_to_driver!(MySql, MySqlConnection);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_neither_the_user_nor_the_password() {
        let options = MySqlConnectOptions::new().host("db").username("bob").password("hunter2");
        let shown = format!("{:?}", MySqlFactory::new(options));
        assert!(shown.contains("db") && !shown.contains("bob") && !shown.contains("hunter2"), "{shown}");
    }

    #[tokio::test]
    async fn names_that_a_server_may_fold_or_keeps_for_itself_are_refused() {
        let factory = MySqlFactory::new(MySqlConnectOptions::new());
        for name in ["Acme", "café", "a/b", "..", "a ", "mysql", "sys", &"a".repeat(65)] {
            let error = factory.options(&name.parse().unwrap()).await.expect_err(name);
            assert_eq!(factory.classify(&error), FailureKind::InvalidName, "{name}");
        }
        let options = factory.options(&"a".repeat(64).parse().unwrap()).await.unwrap();
        assert_eq!(options.get_database(), Some("a".repeat(64).as_str()));

        let ruled = factory.database_names(|tenant| format!("shop_{tenant}"));
        let options = ruled.options(&"Acme".parse().unwrap()).await.unwrap();
        assert_eq!(options.get_database(), Some("shop_Acme"), "a rule of one's own is one's own to answer for");
        ruled.options(&"a ".parse().unwrap()).await.expect_err("no name ends with a blank");
    }
}
