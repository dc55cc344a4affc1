//! [`PostgresConnection`]: diesel-async's connection, with the task and the view of the wire that let it be judged,
//! cleaned and closed. Those are methods of [`Link`].

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::Duration;

use diesel_async::TransactionManager as _;
use diesel_async::{AnsiTransactionManager, AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use tenantry_core::Health;
use tokio_postgres::config::TargetSessionAttrs;
use tokio_postgres::{CancelToken, Client, Config, SimpleQueryMessage};

use super::driver::{Driver, until};
use super::security::{Settled, Stream, Tls, settled};
use super::session::Session;
use super::socket::{Address, Socket, addresses};
use super::wire::Wire;
use crate::error::{During, Error};

/// What `DISCARD ALL` does, without the prepared statements, which diesel remembers; then what diesel sets on every
/// new connection. All of it is one question. Resetting the session's user resets its role, too.
const CLEAN: &str = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; \
                     SET TIME ZONE 'UTC'; SET CLIENT_ENCODING TO 'UTF8'";

/// Ends the transaction of whatever kind that is open. Without one, it would be a warning in the server's log.
const CLEAN_AFTER_ROLLBACK: &str = "ROLLBACK; \
                     CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; \
                     SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD PLANS; DISCARD TEMP; DISCARD SEQUENCES; \
                     SET TIME ZONE 'UTC'; SET CLIENT_ENCODING TO 'UTF8'";

/// How long a query may go on after its user has left before it is cancelled. Doubled before each further request, as
/// one that comes before its query does nothing.
const CANCEL_AFTER: Duration = Duration::from_millis(10);

/// A connection to one tenant's database: an [`AsyncPgConnection`], to which it derefs, so that everything of
/// diesel-async works on a lease of it.
///
/// # What is seen of its use
/// The server says with every answer what a statement was and whether a transaction is open, and this is read along
/// on the wire. So an unfinished question, an open transaction (of `transaction()`, of SQL text, or of a future that was
/// dropped half-way) and statements that may leave something on the session (`SET`, `LISTEN`, `PREPARE`, `CREATE
/// TEMPORARY TABLE`, ...) make it [`Health::Dirty`]: it is cleaned before the next user has it.
///
/// Not seen is what functions do inside of a `SELECT` (`set_config`, `pg_advisory_lock`), nor the temporary table of a
/// `CREATE .. AS` or a `SELECT .. INTO`. Say it with the lease's `mark_dirty()`.
pub struct PostgresConnection {
    inner: AsyncPgConnection,
    link: Link,
    /// At the latest look, an answer was still on its way and nothing else was known against it.
    was_answering: bool,
}

impl Deref for PostgresConnection {
    type Target = AsyncPgConnection;

    fn deref(&self) -> &AsyncPgConnection {
        &self.inner
    }
}

impl DerefMut for PostgresConnection {
    fn deref_mut(&mut self) -> &mut AsyncPgConnection {
        &mut self.inner
    }
}

impl fmt::Debug for PostgresConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresConnection").field("session", &self.link.session).finish_non_exhaustive()
    }
}

impl PostgresConnection {
    /// Opens one and sets it up as diesel does.
    pub(super) async fn open(config: &Config, tls: Option<&Tls>) -> Result<Self, Error> {
        let (client, link) = Link::open(config, tls, During::Connect).await?;
        let inner = AsyncPgConnection::try_from(client).await.map_err(Error::SetUp)?;
        // diesel does not wait for the last answers. Then its settings are the connection's own.
        link.settle().await?;
        link.session.unmark();
        Ok(Self { inner, link, was_answering: false })
    }

    pub(super) fn health(&mut self) -> Health {
        let session = &self.link.session;
        self.was_answering = false;
        if session.is_lost() {
            return Health::Lost;
        }
        let depth = AnsiTransactionManager::transaction_manager_status_mut(&mut self.inner).transaction_depth();
        match depth {
            Err(_) => Health::Broken,
            _ if session.is_confused() => Health::Broken,
            // Settled first: only then is the session's state that of the latest question.
            Ok(None) if !self.link.is_settled() => {
                self.was_answering = true;
                Health::Dirty
            }
            Ok(None) if !session.is_in_transaction() && !session.is_marked() => Health::Clean,
            Ok(_) => Health::Dirty,
        }
    }

    /// Cleans it, and has proof that the server answers. A query that was dropped half-way and still runs is cancelled.
    pub(super) async fn recycle(&mut self, config: &Config) -> Result<(), Error> {
        let session = Arc::clone(&self.link.session);
        // An answer that was on its way when the user left is proof enough. diesel says goodbye to a statement that it
        // does not keep without waiting, so that is the common case, and there is nothing to clean.
        let has_answered = self.was_answering;
        self.link.settle_or_cancel(&self.inner.cancel_token(), config).await?;
        if !(has_answered && self.health() == Health::Clean) {
            // What is left to do is known only now: before, a BEGIN could have been on its way.
            let clean = if session.is_in_transaction() { CLEAN_AFTER_ROLLBACK } else { CLEAN };
            let cleaned = self.inner.batch_execute(clean).await;
            if session.is_lost() {
                return Err(Error::Lost);
            }
            cleaned.map_err(Error::Recycle)?;
            session.unmark();
            self.link.settle().await?;
        }
        self.was_answering = false;
        *self.inner.transaction_state() = AnsiTransactionManager::default();
        Ok(())
    }

    /// Closes it: see [`Link::close`].
    pub(super) async fn close(self, config: &Config, within: Duration) {
        let Self { inner, link, .. } = self;
        let cancel = inner.cancel_token();
        link.close(inner, cancel, config, within).await;
    }
}

/// Everything of a connection but its client: the task that drives it and what is seen on the wire. Dropping it closes the
/// socket at once.
#[derive(Debug)]
pub(super) struct Link {
    driver: Driver,
    session: Arc<Session>,
    address: Address,
    /// What it is encrypted with, if it is.
    tls: Option<Tls>,
}

impl Link {
    /// Tries the config's places in order until one lets us in.
    pub(super) async fn open(config: &Config, tls: Option<&Tls>, during: During) -> Result<(Client, Self), Error> {
        let mut latest = None;
        for address in addresses(config).await {
            let opened = match address {
                Ok(address) => Self::open_at(address, config, tls, during).await,
                Err(source) => Err(Error::Io { during, source }),
            };
            match opened {
                Ok(opened) => return Ok(opened),
                Err(error) => latest = Some(error),
            }
        }
        let nowhere = || Error::Io { during, source: io::ErrorKind::AddrNotAvailable.into() };
        Err(latest.unwrap_or_else(nowhere))
    }

    async fn open_at(
        address: Address,
        config: &Config,
        tls: Option<&Tls>,
        during: During,
    ) -> Result<(Client, Self), Error> {
        let postgres = |source| Error::Postgres { during, source };
        let socket = Socket::open(&address, config).await.map_err(|source| Error::Io { during, source })?;
        let stream = Stream::secure(socket, &address, config, tls).await;
        let stream = stream.map_err(|source| Error::Tls { during, source })?;
        let tls = tls.filter(|_| stream.is_encrypted()).cloned();
        let session = Arc::new(Session::new());
        let wire = Wire::watched(stream, Arc::clone(&session));
        let (client, connection) = settled(config).connect_raw(wire, Settled).await.map_err(postgres)?;
        let driver = Driver::spawn(connection, Arc::clone(&session));
        let link = Self { driver, session, address, tls };
        check_attributes(&client, config, during).await?;
        Ok((client, link))
    }

    /// Whether the server owes no answer, and no question is on its way to it.
    fn is_settled(&self) -> bool {
        self.driver.is_quiet() && self.session.owes_nothing()
    }

    /// Waits for that.
    async fn settle(&self) -> Result<(), Error> {
        until(&self.session, || self.session.is_lost() || self.is_settled()).await;
        if self.session.is_lost() { Err(Error::Lost) } else { Ok(()) }
    }

    /// The same, and cancels a query that takes its time, as nobody waits for it any more. One that comes too late for that
    /// does no harm: it is over when this is, and the server forgets it before it reads the next question.
    async fn settle_or_cancel(&self, cancel: &CancelToken, config: &Config) -> Result<(), Error> {
        let mut patience = CANCEL_AFTER;
        loop {
            if let Ok(settled) = tokio::time::timeout(patience, self.settle()).await {
                return settled;
            }
            self.cancel(cancel, config).await;
            patience *= 2;
        }
    }

    /// Resolves when the server has closed its side, some time after the client was dropped.
    pub(super) async fn ended(mut self) {
        self.driver.ended().await;
    }

    /// Best effort: where it fails, the query runs to its end or the socket is closed at the bound. Resolves when the server
    /// has passed the request on.
    async fn cancel(&self, cancel: &CancelToken, config: &Config) {
        let ask = async {
            let socket = Socket::open(&self.address, config).await?;
            // The request names a secret of the session's, which nobody in between should learn.
            let stream = Stream::secure_likewise(socket, &self.address, config, self.tls.as_ref()).await?;
            cancel.cancel_query_raw(Wire::unwatched(stream), Settled).await.map_err(io::Error::other)
        };
        let _ = ask.await;
    }

    /// Says goodbye with the drop of `client` and waits for the server to close its side, which it does after it has
    /// freed its place. A query that still runs is cancelled. After `within`, the socket is closed without a word.
    pub(super) async fn close<C>(mut self, client: C, cancel: CancelToken, config: &Config, within: Duration) {
        let goodbye = async {
            // Settled or lost: either way the goodbye is all that is left to say.
            let _ = self.settle_or_cancel(&cancel, config).await;
            drop(client);
            self.driver.ended().await;
        };
        if tokio::time::timeout(within, goodbye).await.is_err() {
            self.driver.abort().await;
        }
    }
}

/// Whether the server is of the kind that the config asks for (`target_session_attrs`).
async fn check_attributes(client: &Client, config: &Config, during: During) -> Result<(), Error> {
    let wants_read_only = match config.get_target_session_attrs() {
        TargetSessionAttrs::ReadWrite => "off",
        TargetSessionAttrs::ReadOnly => "on",
        _ => return Ok(()),
    };
    let answer = client.simple_query("SHOW transaction_read_only").await;
    let answer = answer.map_err(|source| Error::Postgres { during, source })?;
    let is_wanted = answer.iter().any(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0) == Some(wants_read_only),
        _ => false,
    });
    if is_wanted {
        return Ok(());
    }
    let source = io::Error::other("the server is not of the kind that target_session_attrs asks for");
    Err(Error::Io { during, source })
}
