//! [`PostgresFactory`]: one database per tenant in one PostgreSQL cluster, or in several. How a connection is cleaned and
//! closed stands in `postgres/session.rs`, how databases are made in `postgres/provision.rs`.

mod capacity;
mod classify;
mod provision;
mod session;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgPool, PgPoolOptions, PgSeverity};
use sqlx::{Connection as _, Postgres};
use tenantry_core::names::postgres_name;
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

use self::classify::{classify, code_of};

/// The most bytes of an `application_name`.
const MAX_APPLICATION_NAME: usize = 63;

/// How long a server process outlives the goodbye of its client, most of the time: of 300 connects right after a
/// close 14 were still refused, and none after this.
const LINGER: Duration = Duration::from_millis(10);

/// Opens connections to one PostgreSQL database per tenant.
///
/// # Where a tenant's database is
/// By default in the cluster that the options name, under the tenant's own name: `Acme` and `acme` are two databases, and
/// a name is always quoted. [`database_names`](Self::database_names) gives another rule, and
/// [`resolver`](Self::resolver) other options altogether, per tenant. A name of more than 63 bytes, which the server
/// would cut, is [`Error::InvalidName`]; so are `template0` and `template1`, to which a connection would keep anyone from
/// creating a database.
///
/// # The options' own database
/// It serves maintenance only: `create` and `drop_database` connect to it. A password goes into the options as it is,
/// with [`PgConnectOptions::password`]; only in a URL has it to be escaped.
///
/// # Between two users
/// A connection that is not clean (see [`Connection`]) is recycled by one round trip: an open transaction is rolled
/// back, cursors, advisory locks, temporary tables, `LISTEN`s, settings and roles are reset as `DISCARD ALL` does, and
/// prepared statements are kept, since sqlx remembers them. If they are not those that sqlx remembers, they go as well.
/// Then the [`after_connect`](Self::after_connect) hook runs again.
///
/// # Letting go
/// A server process lives on for a moment after its client has closed, and until the end of its query if one was
/// cancelled. `close` waits for the query to end, says goodbye, and waits 10 ms ([`linger`](Self::linger)) before the permit
/// is free, so that the server rarely counts more connections than tenantry does.
///
/// # Encryption
/// It is sqlx's, and needs one of its `tls-*` features, such as this crate's `tls-rustls`. By the options' `ssl_mode`, `prefer`
/// (the default) encrypts if the server offers it and `require` always; both believe anybody, an `ssl_root_cert` or not.
/// `verify-ca` asks for an authority that is believed, `verify-full` for the host's name as well. Only the last keeps out whoever
/// sits in between. A server that is not believed counts as [`FailureKind::Unreachable`].
///
/// # Keeping a connection's state in sight
/// sqlx has no setting for TCP keepalives on the client's side; the server's are settings like any other:
///
/// ```
/// use sqlx::postgres::PgConnectOptions;
/// use std::time::Duration;
/// use tenantry_sqlx::PostgresFactory;
///
/// let options = PgConnectOptions::new()
///     .host("db.internal")
///     .username("shop")
///     .password("as:it/is@ 100%")
///     .database("postgres")
///     // The server notices a client that is gone, between queries and (from PostgreSQL 14 on) during one.
///     .options([("tcp_keepalives_idle", "30"), ("client_connection_check_interval", "2s")]);
/// let factory = PostgresFactory::new(options)
///     .database_names(|tenant| format!("shop_{tenant}"))
///     .statement_timeout(Duration::from_secs(30));
/// ```
#[derive(Clone)]
pub struct PostgresFactory {
    base: PgConnectOptions,
    places: Places<PgConnectOptions>,
    after_connect: Option<Hook<Postgres>>,
    pool_options: PgPoolOptions,
    statement_timeout: Option<Duration>,
    name_sessions: bool,
    linger: Duration,
    recycle_transactions: bool,
    template: Option<String>,
    owner: Option<String>,
    force_drop: bool,
    behind_pgbouncer: bool,
}

impl PostgresFactory {
    /// A factory for the databases of the cluster that `options` name. Connects to nothing yet.
    #[must_use]
    pub fn new(options: PgConnectOptions) -> Self {
        Self {
            base: options,
            places: Places::default(),
            after_connect: None,
            pool_options: PgPoolOptions::new(),
            statement_timeout: None,
            name_sessions: true,
            linger: LINGER,
            recycle_transactions: false,
            template: None,
            owner: None,
            force_drop: false,
            behind_pgbouncer: false,
        }
    }

    /// The rule from a tenant to its database's name. Default: the tenant's name. It has to give different names to
    /// different tenants, or they share a database.
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
        Fut: Future<Output = Result<PgConnectOptions, Error>> + Send + 'static,
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

    /// Runs on each new connection, of pools too, before anyone has it, and again after each recycle: for `SET` and
    /// the like. An error of it closes the connection.
    #[must_use]
    pub fn after_connect<H>(mut self, hook: H) -> Self
    where
        H: for<'c> Fn(&'c mut PgConnection, &'c TenantId) -> BoxFuture<'c, Result<(), sqlx::Error>>
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
    pub fn pool_options(mut self, change: impl FnOnce(PgPoolOptions) -> PgPoolOptions) -> Self {
        self.pool_options = change(self.pool_options);
        self
    }

    /// The server's `statement_timeout`, in milliseconds, for each connection to a tenant. Default: what the server or
    /// the options say. It also bounds how long a cancelled query keeps its permit: a query that nobody waits for any
    /// more is not stopped by the driver.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = Some(timeout);
        self
    }

    /// Whether `application_name` ends in the tenant: `tenantry/acme`, or `shop/acme` where the options say `shop`, cut
    /// at 63 bytes. Default: yes.
    #[must_use]
    pub fn name_sessions(mut self, on: bool) -> Self {
        self.name_sessions = on;
        self
    }

    /// How long a permit is still held after the goodbye. Default: 10 ms; 0 frees it at once, and the server may then
    /// count one more connection for a moment.
    #[must_use]
    pub fn linger(mut self, linger: Duration) -> Self {
        self.linger = linger;
        self
    }

    /// Whether a connection is recycled after every transaction, resolved ones too: one round trip more for each. For
    /// code that may take a session's advisory lock, `SET` without `LOCAL` or make temporary tables inside of
    /// transactions, which nobody sees there. Default: no; such code calls `mark_dirty()` on its lease.
    #[must_use]
    pub fn recycle_after_transactions(mut self, on: bool) -> Self {
        self.recycle_transactions = on;
        self
    }

    /// The database that `create` copies. Default: the server's, `template1`.
    #[must_use]
    pub fn template(mut self, database: impl Into<String>) -> Self {
        self.template = Some(database.into());
        self
    }

    /// The role that owns what `create` makes. Default: the one that creates it.
    #[must_use]
    pub fn owner(mut self, role: impl Into<String>) -> Self {
        self.owner = Some(role.into());
        self
    }

    /// Whether `drop_database` ends the sessions of others in that database first (`WITH (FORCE)`, PostgreSQL 13 and
    /// later). Default: no, and it fails while there are any.
    #[must_use]
    pub fn force_drop(mut self, on: bool) -> Self {
        self.force_drop = on;
        self
    }

    /// For a server that is reached through PgBouncer, in session mode: leaves out the one startup parameter of sqlx's that
    /// PgBouncer refuses (`extra_float_digits`; servers from version 12 on do not need it), and lets `drop_database` end
    /// sessions ([`force_drop`](Self::force_drop)), as PgBouncer keeps some in every database. What works and what does not, in
    /// both modes, stands in `docs/pgbouncer.md`. Default: a server.
    #[must_use]
    pub fn behind_pgbouncer(mut self) -> Self {
        self.behind_pgbouncer = true;
        self.force_drop = true;
        self
    }

    /// The options to connect to a tenant's database with.
    async fn options(&self, tenant: &TenantId) -> Result<PgConnectOptions, Error> {
        let options = self.place(tenant).await?;
        let Some(timeout) = self.statement_timeout else { return Ok(options) };
        // 0 would mean "none".
        Ok(options.options([("statement_timeout", timeout.as_millis().max(1).to_string())]))
    }

    /// Where a tenant's database is and how its sessions are called.
    async fn place(&self, tenant: &TenantId) -> Result<PgConnectOptions, Error> {
        let options = match self.places.resolve(tenant).await? {
            Some(options) => {
                // Without a name the server takes the user's for the database, which may be anyone's.
                postgres_name(options.get_database().unwrap_or_default())?;
                options
            }
            None => {
                let name = self.places.name(tenant).unwrap_or_else(|| tenant.as_str().to_owned());
                postgres_name(&name)?;
                self.base.clone().database(&name)
            }
        };
        let options = if self.behind_pgbouncer { options.extra_float_digits(None) } else { options };
        if !self.name_sessions {
            return Ok(options);
        }
        let name = options.get_application_name().or(self.base.get_application_name());
        let name = session_name(name.unwrap_or("tenantry"), tenant.as_str());
        Ok(options.application_name(&name))
    }

    /// Opens one connection of the driver's and runs the hook.
    async fn open(&self, options: &PgConnectOptions, tenant: &TenantId) -> Result<PgConnection, Error> {
        let mut raw = PgConnection::connect_with(options).await.map_err(|source| match code_of(&source) {
            _ if classify(&source) == FailureKind::NoSuchTenant => Error::NoSuchTenant { source: Some(source) },
            _ => Error::Sqlx { during: During::Connect, source },
        })?;
        if let Err(error) = self.run_hook(&mut raw, tenant).await {
            session::say_goodbye(raw, self.linger).await;
            return Err(error);
        }
        Ok(raw)
    }

    async fn run_hook(&self, raw: &mut PgConnection, tenant: &TenantId) -> Result<(), Error> {
        match &self.after_connect {
            Some(hook) => {
                hook(raw, tenant).await.map_err(|source| Error::Sqlx { during: During::AfterConnect, source })
            }
            None => Ok(()),
        }
    }
}

impl fmt::Debug for PostgresFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Field by field: the options hold the user and the password.
        f.debug_struct("PostgresFactory")
            .field("host", &self.base.get_host())
            .field("port", &self.base.get_port())
            .field("resolver", &self.places.has_resolver())
            .field("after_connect", &self.after_connect.is_some())
            .field("statement_timeout", &self.statement_timeout)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

impl SqlxFactory for PostgresFactory {
    type Database = Postgres;
}

impl PoolFactory for PostgresFactory {
    type Connection = Connection<Postgres>;
    type Error = Error;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.places.server(tenant)
    }

    async fn connect(&self, tenant: &TenantId) -> Result<Connection<Postgres>, Error> {
        let options = self.options(tenant).await?;
        let raw = self.open(&options, tenant).await?;
        Ok(Connection::new(raw, (), tenant.clone(), self.recycle_transactions))
    }

    fn health(&self, connection: &mut Connection<Postgres>) -> Health {
        connection.health()
    }

    async fn recycle(&self, connection: &mut Connection<Postgres>) -> Result<(), Error> {
        let tenant = connection.tenant().clone();
        let (raw, track) = connection.parts();
        // Tracked, so that `close` knows of a server that is gone, and of an answer that is still to come.
        let cleaned = tracked::<Postgres, _>(track, session::clean(raw)).await;
        cleaned.map_err(|source| Error::Sqlx { during: During::Recycle, source })?;
        self.run_hook(raw, &tenant).await?;
        track.cleaned();
        Ok(())
    }

    async fn close(&self, connection: Connection<Postgres>, within: Duration) {
        // Past `within` the connection is dropped, and with it the socket.
        let _ = tokio::time::timeout(within, session::close(connection, self.linger)).await;
    }

    fn classify(&self, error: &Error) -> FailureKind {
        match error {
            Error::InvalidName(_) => FailureKind::InvalidName,
            Error::NoSuchTenant { .. } => FailureKind::NoSuchTenant,
            // A tenant's is told apart where it is opened: the one that is missing here is the one for maintenance.
            Error::Sqlx { source, .. } => match classify(source) {
                FailureKind::NoSuchTenant => FailureKind::Other,
                kind => kind,
            },
            Error::File { .. } => FailureKind::Unreachable,
            Error::LeftBehind { .. } | Error::Resolver(_) => FailureKind::Other,
        }
    }
}

impl NativePool for PostgresFactory {
    type Pool = PgPool;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<PgPool, Error> {
        let connect = self.options(tenant).await?;
        // One connection first, for an error that says what is wrong: the pool would try again for half a minute.
        let first = self.open(&connect, tenant).await?;
        session::say_goodbye(first, self.linger).await;
        let options = pool_options(self.pool_options.clone(), max, self.after_connect.clone(), tenant);
        Ok(options.connect_lazy_with(connect))
    }

    async fn close_pool(&self, pool: PgPool) {
        close_pool(&pool).await;
        tokio::time::sleep(self.linger).await;
    }
}

/// `base/tenant`, cut where the server would cut it, but between two characters.
fn session_name(base: &str, tenant: &str) -> String {
    let name = format!("{base}/{tenant}");
    let end =
        name.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_APPLICATION_NAME).last();
    name[..end.unwrap_or(0)].to_owned()
}

impl Driver for Postgres {
    type State = ();

    const SYNTAX: Syntax = Syntax::POSTGRES;

    const ABANDONED: Health = Health::Dirty;
    const CHANGED: Health = Health::Dirty;

    // sqlx cannot rewind its count of a transaction that was forgotten.
    const OPEN_TRANSACTION: Health = Health::Broken;

    fn ending(error: &dyn sqlx::error::DatabaseError) -> Ending {
        let Some(error) = error.try_downcast_ref::<PgDatabaseError>() else {
            return Ending::Dirty;
        };
        let ended = matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic)
            || error.code().starts_with("57P0")
            || error.code().starts_with("08");
        if ended { Ending::Lost } else { Ending::Clean }
    }

    forward_to_driver!(Postgres, PgConnection);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_after_its_tenant_and_cut_between_characters() {
        assert_eq!(session_name("shop", "acme"), "shop/acme");
        assert_eq!(session_name("shop", &"a".repeat(100)).len(), 63);
        let name = session_name("shop", &"é".repeat(40));
        assert_eq!(name.len(), 63);
        assert!(name.ends_with('é'));
    }

    #[test]
    fn debug_shows_neither_the_user_nor_the_password() {
        let options = PgConnectOptions::new_without_pgpass().host("db").username("bob").password("hunter2");
        let shown = format!("{:?}", PostgresFactory::new(options));
        assert!(shown.contains("db") && !shown.contains("bob") && !shown.contains("hunter2"), "{shown}");
    }

    #[tokio::test]
    async fn a_name_that_the_server_would_cut_is_refused() {
        let factory = PostgresFactory::new(PgConnectOptions::new_without_pgpass());
        for name in ["a".repeat(64), "é".repeat(32), "template0".into(), "template1".into()] {
            let tenant: TenantId = name.parse().unwrap();
            let error = factory.options(&tenant).await.unwrap_err();
            assert_eq!(factory.classify(&error), FailureKind::InvalidName, "{name}");
        }
        for name in ["a".repeat(63), "Acme".into(), "a-b".into(), "a_b".into(), "a\"; DROP".into(), "../x".into()] {
            let tenant: TenantId = name.parse().unwrap();
            let options = factory.options(&tenant).await.unwrap();
            assert_eq!(options.get_database(), Some(name.as_str()), "every name is its own");
        }
        let ruled = factory.database_names(|tenant| format!("shop_{tenant}\0"));
        let error = ruled.options(&"acme".parse().unwrap()).await.unwrap_err();
        assert_eq!(ruled.classify(&error), FailureKind::InvalidName, "a NUL ends a name on the wire");
    }

    #[tokio::test]
    async fn a_resolver_has_to_name_a_database() {
        let base = PgConnectOptions::new_without_pgpass().application_name("shop");
        let factory = PostgresFactory::new(base.clone()).resolver(move |tenant| {
            let base = base.clone();
            async move {
                match tenant.as_str() {
                    "acme" => Ok(base.host("other").database("acme_7")),
                    "nameless" => Ok(base),
                    "broken" => Err(Error::resolver("the directory is down")),
                    _ => Err(Error::no_such_tenant()),
                }
            }
        });
        let options = factory.options(&"acme".parse().unwrap()).await.unwrap();
        assert_eq!((options.get_host(), options.get_database()), ("other", Some("acme_7")));
        assert_eq!(options.get_application_name(), Some("shop/acme"));
        for (name, kind) in [
            ("nameless", FailureKind::InvalidName),
            ("broken", FailureKind::Other),
            ("stranger", FailureKind::NoSuchTenant),
        ] {
            let error = factory.options(&name.parse().unwrap()).await.unwrap_err();
            assert_eq!(factory.classify(&error), kind, "{name}");
        }
    }
}
