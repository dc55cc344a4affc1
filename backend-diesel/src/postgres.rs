//! [`PostgresFactory`]: one database per tenant in one PostgreSQL cluster, or in several. How a connection is judged,
//! cleaned and closed stands in `postgres/connection.rs`, how databases are made in `postgres/provision.rs`.

mod capacity;
mod connection;
mod driver;
mod pool;
mod provision;
mod security;
mod session;
mod socket;
#[cfg(feature = "tls-rustls")]
mod tls;
mod wire;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_core::future::BoxFuture;
use tenantry_core::names::postgres_name;
use tenantry_core::{FailureKind, Health, PoolFactory, ServerId, TenantId};
use tokio_postgres::Config;

use crate::error::{During, Error};

pub use connection::PostgresConnection;
#[cfg(feature = "tls-rustls")]
pub use tls::Tls;

type Resolver = Arc<dyn Fn(TenantId) -> BoxFuture<'static, Result<Config, Error>> + Send + Sync>;
type Naming = Arc<dyn Fn(&TenantId) -> String + Send + Sync>;
type ServerOf = Arc<dyn Fn(&TenantId) -> ServerId + Send + Sync>;

/// The most bytes of an `application_name`.
const MAX_APPLICATION_NAME: usize = 63;

/// Opens connections to one PostgreSQL database per tenant, as [`PostgresConnection`]s.
///
/// # Where a tenant's database is
/// By default in the cluster that the config names, under the tenant's own name: `Acme` and `acme` are two databases, and
/// a name is always quoted. [`database_names`](Self::database_names) gives another rule, and
/// [`resolver`](Self::resolver) another config altogether, per tenant. A name of more than 63 bytes, which the server
/// would cut, is [`Error::InvalidName`]; so are `template0` and `template1`, to which a connection would keep anyone
/// from creating a database.
///
/// # The config's own database
/// It serves maintenance only: `create` and `drop_database` connect to it. It is the one named like the user where the
/// config names none.
///
/// # Between two users
/// A connection that is not clean is recycled by one round trip: an open transaction is rolled back, cursors,
/// advisory locks, temporary tables, `LISTEN`s, settings and roles are reset as `DISCARD ALL` does, and prepared
/// statements are kept, since diesel remembers them.
///
/// # Letting go
/// A server process lives on for a moment after its client has closed, and until the end of its query if one was dropped
/// half-way. So `recycle` and `close` cancel a query that still runs after its user has left (by PostgreSQL's own request for
/// that, on a short-lived socket that is no session), and `close` says goodbye and waits for the server to close its side.
/// When its time is over, it drops the socket.
///
/// # Encryption
/// Happens where the factory was told whom to believe that it is the server (`tls`, with the feature `tls-rustls`), and
/// then as the config's `sslmode` says:
///
/// | `sslmode` | with `tls` | without |
/// |---|---|---|
/// | `disable` | in the clear | in the clear |
/// | `prefer`, the default of a [`Config`] | encrypted and verified if the server offers it, else in the clear | in the clear |
/// | `require` | encrypted and verified, or [`Error::Tls`] | [`Error::Tls`] |
///
/// *Verified* is what libpq calls `verify-full`: an authority that is believed vouches for the server's certificate, which is
/// for the host that the config names (the address, where it names no host). So `require` is stricter here than in libpq,
/// where it takes any certificate; `verify-ca` and `verify-full` are not words that a [`Config`] knows. A server that fails
/// the test is never talked to in the clear instead. But with `prefer`, whoever sits in between can say that the server
/// offers none: only `require` protects from that. Unix sockets are never encrypted.
///
/// A login by SCRAM is bound to the encryption (`channel_binding`), and requests to cancel a query are encrypted as well.
///
/// ```
/// use std::time::Duration;
/// use tenantry_diesel::PostgresFactory;
/// use tenantry_diesel::tokio_postgres::Config;
///
/// let mut config = Config::new();
/// config.host("db.internal").user("shop").password("as:it/is@ 100%").dbname("postgres");
/// let factory = PostgresFactory::new(config)
///     .database_names(|tenant| format!("shop_{tenant}"))
///     .statement_timeout(Duration::from_secs(30));
/// ```
#[derive(Clone)]
pub struct PostgresFactory {
    base: Config,
    naming: Option<Naming>,
    resolver: Option<Resolver>,
    server_of: Option<ServerOf>,
    tls: Option<security::Tls>,
    statement_timeout: Option<Duration>,
    name_sessions: bool,
    template: Option<String>,
    owner: Option<String>,
    force_drop: bool,
}

impl PostgresFactory {
    /// A factory for the databases of the cluster that `config` names. Connects to nothing yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            base: config,
            naming: None,
            resolver: None,
            server_of: None,
            tls: None,
            statement_timeout: None,
            name_sessions: true,
            template: None,
            owner: None,
            force_drop: false,
        }
    }

    /// The rule from a tenant to its database's name. Default: the tenant's name. It has to give different names to
    /// different tenants, or they share a database.
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
        Fut: Future<Output = Result<Config, Error>> + Send + 'static,
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

    /// Whom to believe that it is the server, for connections that are to be encrypted. Default: nobody, so none is. What
    /// follows from it for each `sslmode` stands [above](Self#encryption).
    ///
    /// ```
    /// use tenantry_diesel::tokio_postgres::config::SslMode;
    /// use tenantry_diesel::{PostgresFactory, Tls, tokio_postgres::Config};
    ///
    /// # fn main() -> std::io::Result<()> {
    /// # let file = tempfile::NamedTempFile::new()?;
    /// # let authority = tenantry_testkit::servers::Authority::new()?;
    /// # std::fs::write(file.path(), authority.pem())?;
    /// # let path = file.path();
    /// let mut config = Config::new();
    /// config.host("db.internal").user("shop").ssl_mode(SslMode::Require);
    /// let factory = PostgresFactory::new(config).tls(Tls::root_certificates(std::fs::read(path)?)?);
    /// # Ok(()) }
    /// ```
    #[cfg(feature = "tls-rustls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The server's `statement_timeout`, in milliseconds, for each connection to a tenant. Default: what the server or
    /// the config's options say. It holds again after each recycle.
    #[must_use]
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = Some(timeout);
        self
    }

    /// Whether `application_name` ends in the tenant: `tenantry/acme`, or `shop/acme` where the config says `shop`, cut
    /// at 63 bytes. Default: yes.
    #[must_use]
    pub fn name_sessions(mut self, on: bool) -> Self {
        self.name_sessions = on;
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

    /// Whether `drop_database` ends the sessions of others first (`WITH (FORCE)`). Default: no, it fails while there are
    /// any.
    #[must_use]
    pub fn force_drop(mut self, on: bool) -> Self {
        self.force_drop = on;
        self
    }

    /// What to connect with for a tenant, its database included.
    async fn config(&self, tenant: &TenantId) -> Result<Config, Error> {
        let mut config = match &self.resolver {
            Some(resolver) => resolver(tenant.clone()).await?,
            None => {
                let name = self.naming.as_ref().map_or_else(|| tenant.to_string(), |rule| rule(tenant));
                let mut config = self.base.clone();
                config.dbname(name);
                config
            }
        };
        postgres_name(config.get_dbname().or(config.get_user()).unwrap_or_default())?;
        if self.name_sessions {
            let program = config.get_application_name().unwrap_or("tenantry");
            let mut name = format!("{program}/{tenant}");
            name.truncate(name.floor_char_boundary(MAX_APPLICATION_NAME));
            config.application_name(name);
        }
        if let Some(timeout) = self.statement_timeout {
            // 0 would mean "none".
            let before = config.get_options().unwrap_or_default();
            let options = format!("{before} -c statement_timeout={}", timeout.as_millis().max(1));
            config.options(options.trim_start());
        }
        Ok(config)
    }

    fn maintenance_database(&self) -> &str {
        self.base.get_dbname().or(self.base.get_user()).unwrap_or("postgres")
    }
}

impl fmt::Debug for PostgresFactory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresFactory").field("maintenance", &self.maintenance_database()).finish_non_exhaustive()
    }
}

impl PoolFactory for PostgresFactory {
    type Connection = PostgresConnection;
    type Error = Error;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.server_of.as_ref().map_or_else(ServerId::default, |server| server(tenant))
    }

    async fn connect(&self, tenant: &TenantId) -> Result<PostgresConnection, Error> {
        let config = self.config(tenant).await?;
        PostgresConnection::open(&config, self.tls.as_ref()).await
    }

    fn health(&self, connection: &mut PostgresConnection) -> Health {
        connection.health()
    }

    async fn recycle(&self, connection: &mut PostgresConnection) -> Result<(), Error> {
        connection.recycle(&self.base).await
    }

    async fn close(&self, connection: PostgresConnection, within: Duration) {
        connection.close(&self.base, within).await;
    }

    fn classify(&self, error: &Error) -> FailureKind {
        match error {
            Error::InvalidName(_) => FailureKind::InvalidName,
            Error::NoSuchTenant => FailureKind::NoSuchTenant,
            Error::Postgres { source, during } => classify_postgres(source, *during),
            Error::Io { .. } | Error::Tls { .. } | Error::Lost => FailureKind::Unreachable,
            Error::SetUp(diesel::ConnectionError::CouldntSetupConfiguration(error))
            | Error::Recycle(error)
            | Error::Preflight(error) => classify_diesel(error),
            _ => FailureKind::Other,
        }
    }
}

fn classify_postgres(error: &tokio_postgres::Error, during: During) -> FailureKind {
    let Some(code) = error.code() else {
        // Without a code it is the driver's own: the network's errors, or a setting that it cannot use.
        let source = std::error::Error::source(error);
        let is_network = error.is_closed() || source.is_some_and(|source| source.is::<std::io::Error>());
        return if is_network { FailureKind::Unreachable } else { FailureKind::Other };
    };
    match code.code() {
        "53300" => FailureKind::ServerFull,
        "3D000" => FailureKind::NoSuchTenant,
        // Wrong password; no line for us in pg_hba.conf, or a role that is not there; may not connect to this database.
        "28P01" | "28000" => FailureKind::Auth,
        "42501" if during == During::Connect => FailureKind::Auth,
        // Shutting down, crashed, starting up.
        "57P01" | "57P02" | "57P03" => FailureKind::Unreachable,
        code if code.starts_with("08") => FailureKind::Unreachable,
        _ => FailureKind::Other,
    }
}

/// diesel keeps no code, but tells the end of a connection from the rest.
fn classify_diesel(error: &diesel::result::Error) -> FailureKind {
    use diesel::result::DatabaseErrorKind::{ClosedConnection, UnableToSendCommand};
    match error {
        diesel::result::Error::DatabaseError(ClosedConnection | UnableToSendCommand, _) => FailureKind::Unreachable,
        _ => FailureKind::Other,
    }
}
