//! [`MySqlConnection`]: a connection of diesel-async's on one of mysql_async's, and what the factory asks of it.

use std::fmt;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use diesel::connection::{CacheSize, DynInstrumentation, Instrumentation, InstrumentationEvent, StrQueryHelper};
use diesel::mysql::{Mysql, MysqlQueryBuilder};
use diesel::query_builder::bind_collector::RawBytesBindCollector;
use diesel::query_builder::{AsQuery, QueryBuilder as _, QueryFragment, QueryId};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::{ConnectionError, ConnectionResult, QueryResult};
use diesel_async::TransactionManager as _;
use diesel_async::{AnsiTransactionManager, AsyncConnection, AsyncConnectionCore, SimpleAsyncConnection};
use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use mysql_async::prelude::Queryable as _;
use mysql_async::{ChangeUserOpts, Conn, DriverError, IoError, Opts, OptsBuilder, Params, Row};
use tenantry_core::Health;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::binds::params;
use super::job::{Asking, Finished, Question, Seat, Session, Standing, is_end};
use super::quoted;
use super::rows::MySqlRow;
use crate::error::{During, Error};

/// What diesel sets on every new connection, and again after each reset.
const SET_UP: &str = "SET time_zone = '+00:00', character_set_client = 'utf8mb4', \
                      character_set_connection = 'utf8mb4', character_set_results = 'utf8mb4'";

/// How many rows are read ahead of who takes them.
const READ_AHEAD: usize = 64;

/// A connection to one tenant's database, for diesel: it is an [`AsyncConnection`] for [`Mysql`], as diesel-async's
/// `AsyncMysqlConnection` is, so that queries, `transaction()` and migrations work on a lease of it.
///
/// It is a type of its own because nobody can tell what is left on one of those. Code that names `AsyncMysqlConnection`
/// takes this one instead, or any `C: AsyncConnection<Backend = Mysql>`. Prepared statements are kept in the driver's own
/// bounded cache (`stmt_cache_size` of the options).
///
/// # What is seen of its use
/// The server says with every answer whether a transaction is open, of whatever kind. That, an unfinished question and
/// statements that may leave something on the session (`SET`, `LOCK TABLES`, `CREATE TEMPORARY TABLE`, `GET_LOCK`, user
/// variables, anything but reading and writing) make it [`Health::Dirty`]: it is cleaned before the next user has it.
///
/// A role that was set makes it [`Health::Broken`], as nothing gives it back.
///
/// Not seen is what functions of your own do inside of a `SELECT`, nor a role that a procedure sets. Say it with the
/// lease's `mark_dirty()` or `discard()`.
///
/// # Cancel safety
/// MySQL has no way to call a question back on its own connection. One whose future or stream is dropped is asked to its
/// end by a task; the next question on the same connection waits for that, and so does cleaning and closing it.
pub struct MySqlConnection {
    pub(super) seat: Seat,
    pub(super) runtime: Handle,
    transactions: AnsiTransactionManager,
    instrumentation: DynInstrumentation,
}

impl fmt::Debug for MySqlConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MySqlConnection").field("session", &self.seat).finish_non_exhaustive()
    }
}

impl MySqlConnection {
    /// Opens one and sets it up as diesel does.
    pub(super) async fn open(opts: Opts) -> Result<Self, mysql_async::Error> {
        // The driver runs them last one first.
        let set_up = opts.setup().iter().cloned().chain([SET_UP.to_owned()]).collect();
        let opts = OptsBuilder::from_opts(opts)
            .setup::<String>(set_up)
            .client_found_rows(true)
            // It would be a second connection beside the first, which nobody counts.
            .prefer_socket(false);
        let conn = Conn::new(opts).await?;
        Ok(Self {
            seat: Seat::Here(Box::new(Session { conn, standing: Standing::default() })),
            runtime: Handle::current(),
            transactions: AnsiTransactionManager::default(),
            instrumentation: DynInstrumentation::default_instrumentation(),
        })
    }

    pub(super) fn health(&mut self) -> Health {
        self.seat.look();
        let depth = AnsiTransactionManager::transaction_manager_status_mut(self).transaction_depth();
        match (&self.seat, depth) {
            (Seat::Here(session), _) if session.standing.lost => Health::Lost,
            (Seat::Gone, _) | (_, Err(_)) => Health::Broken,
            (Seat::Here(session), _) if session.standing.broken => Health::Broken,
            (Seat::Here(session), Ok(None)) if session.standing == Standing::default() => Health::Clean,
            _ => Health::Dirty,
        }
    }

    /// Cleans it, and has proof that the server answers. A question that was dropped half-way is waited for.
    pub(super) async fn recycle(&mut self) -> Result<(), Error> {
        self.seat.settle().await;
        let is_clean = self.health() == Health::Clean;
        let Seat::Here(session) = &mut self.seat else { return Err(Error::Lost) };
        if session.standing.lost || session.standing.broken {
            return Err(Error::Lost);
        }
        // Until it is done: whoever gives up half-way leaves a connection that is of no more use.
        session.standing.broken = true;
        let conn = &mut session.conn;
        let cleaned = if is_clean { conn.ping().await } else { reset(conn).await };
        match cleaned {
            Ok(()) => session.standing = Standing::default(),
            Err(source) => {
                session.standing.lost = is_end(&source);
                return Err(Error::MySql { during: During::Recycle, source });
            }
        }
        self.transactions = AnsiTransactionManager::default();
        Ok(())
    }

    /// Waits for a question that was dropped half-way, says goodbye, and then waits a moment (`linger`) for the server to
    /// let go. After `within`, the socket is closed without a word.
    pub(super) async fn close(self, linger: Duration, within: Duration) {
        let mut seat = self.seat;
        let goodbye = async {
            seat.settle().await;
            if let Seat::Here(session) = std::mem::replace(&mut seat, Seat::Gone) {
                // Nobody is there to say it to if it fails.
                let _ = session.conn.disconnect().await;
                tokio::time::sleep(linger).await;
            }
        };
        if tokio::time::timeout(within, goodbye).await.is_err() {
            seat.end().await;
        }
    }

    /// Asks a question to its end.
    async fn ask(&mut self, question: Question) -> QueryResult<u64> {
        let mut asking = Asking::new(self, question);
        let finished = (&mut asking).await;
        asking.connection.finish(finished)
    }

    /// Tells who has to know how a question ended.
    fn finish(&mut self, Finished { sql, answer, .. }: Finished) -> QueryResult<u64> {
        let answer = answer.map_err(to_diesel);
        if let Err(DieselError::DatabaseError(DatabaseErrorKind::SerializationFailure, _)) = answer {
            AnsiTransactionManager::transaction_manager_status_mut(self)
                .set_requires_rollback_maybe_up_to_top_level(true);
        }
        let event = InstrumentationEvent::finish_query;
        self.instrumentation.on_connection_event(event(&StrQueryHelper::new(&sql), answer.as_ref().err()));
        answer
    }

    /// The text and the values of a query, which is told to who watches.
    fn written<T: QueryFragment<Mysql>>(&mut self, query: &T) -> QueryResult<(String, Params)> {
        let debug = diesel::debug_query::<Mysql, _>(query);
        self.instrumentation.on_connection_event(InstrumentationEvent::start_query(&debug));
        let mut builder = MysqlQueryBuilder::new();
        query.to_sql(&mut builder, &Mysql)?;
        let mut binds = RawBytesBindCollector::<Mysql>::new();
        query.collect_binds(&mut binds, &mut (), &Mysql)?;
        Ok((builder.finish(), params(binds.metadata, binds.binds)?))
    }
}

/// Undoes whatever a user may have left. `USE` is the one thing that the server's own reset leaves as it is.
async fn reset(conn: &mut Conn) -> Result<(), mysql_async::Error> {
    if !conn.reset().await? {
        // A server from before it could.
        conn.change_user(ChangeUserOpts::default()).await?;
    }
    match conn.opts().db_name().map(|name| format!("USE {}", quoted(name))) {
        Some(back) => conn.query_drop(back).await,
        None => Ok(()),
    }
}

impl SimpleAsyncConnection for MySqlConnection {
    async fn batch_execute(&mut self, query: &str) -> QueryResult<()> {
        let start = InstrumentationEvent::start_query;
        self.instrumentation.on_connection_event(start(&StrQueryHelper::new(query)));
        self.ask(Question::Batch(query.to_owned())).await.map(drop)
    }
}

impl AsyncConnectionCore for MySqlConnection {
    type ExecuteFuture<'conn, 'query> = BoxFuture<'conn, QueryResult<usize>>;
    type LoadFuture<'conn, 'query> = Ready<QueryResult<Self::Stream<'conn, 'query>>>;
    type Stream<'conn, 'query> = BoxStream<'conn, QueryResult<MySqlRow>>;
    type Row<'conn, 'query> = MySqlRow;
    type Backend = Mysql;

    fn load<'conn, 'query, T>(&'conn mut self, source: T) -> Self::LoadFuture<'conn, 'query>
    where
        T: AsQuery + 'query,
        T::Query: QueryFragment<Mysql> + QueryId + 'query,
    {
        ready(self.written(&source.as_query()).map(|(sql, params)| -> Self::Stream<'conn, 'query> {
            let (sender, rows) = mpsc::channel(READ_AHEAD);
            let asking = Asking::new(self, Question::Load(sql, params, sender));
            Box::pin(Rows { asking, rows, is_read: false, error: None })
        }))
    }

    fn execute_returning_count<'conn, 'query, T>(&'conn mut self, source: T) -> Self::ExecuteFuture<'conn, 'query>
    where
        T: QueryFragment<Mysql> + QueryId + 'query,
    {
        let written = self.written(&source);
        Box::pin(async move {
            let (sql, params) = written?;
            let affected = self.ask(Question::Execute(sql, params)).await?;
            usize::try_from(affected).map_err(|error| DieselError::DeserializationError(error.into()))
        })
    }
}

impl AsyncConnection for MySqlConnection {
    type TransactionManager = AnsiTransactionManager;

    async fn establish(url: &str) -> ConnectionResult<Self> {
        let opts = Opts::from_url(url).map_err(|error| ConnectionError::InvalidConnectionUrl(error.to_string()))?;
        let opened = Self::open(opts).await;
        opened.map_err(|error| ConnectionError::CouldntSetupConfiguration(to_diesel(error)))
    }

    fn transaction_state(&mut self) -> &mut AnsiTransactionManager {
        &mut self.transactions
    }

    fn instrumentation(&mut self) -> &mut dyn Instrumentation {
        &mut *self.instrumentation
    }

    fn set_instrumentation(&mut self, instrumentation: impl Instrumentation) {
        self.instrumentation = instrumentation.into();
    }

    /// Without effect: the driver's cache is bounded, by its options.
    fn set_prepared_statement_cache_size(&mut self, _size: CacheSize) {}
}

/// The rows of an answer, as they come.
struct Rows<'c> {
    asking: Asking<'c>,
    rows: mpsc::Receiver<Row>,
    /// The answer, to its end.
    is_read: bool,
    /// What comes after the last row.
    error: Option<DieselError>,
}

impl Stream for Rows<'_> {
    type Item = QueryResult<MySqlRow>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self { asking, rows, is_read, error } = &mut *self;
        // Rows that were read already come first; the answer is read on when there are none.
        if let Ok(row) = rows.try_recv() {
            return Poll::Ready(Some(Ok(MySqlRow::new(row))));
        }
        if !*is_read && let Poll::Ready(finished) = Pin::new(&mut *asking).poll(cx) {
            *is_read = true;
            *error = asking.connection.finish(finished).err();
        }
        match rows.try_recv() {
            Ok(row) => Poll::Ready(Some(Ok(MySqlRow::new(row)))),
            Err(_) if !*is_read => Poll::Pending,
            Err(_) => Poll::Ready(error.take().map(Err)),
        }
    }
}

/// diesel's word for an error, with the text of the server.
fn to_diesel(error: mysql_async::Error) -> DieselError {
    use DatabaseErrorKind as Kind;
    let kind = match &error {
        mysql_async::Error::Server(error) => match error.code {
            1062 | 1586 | 1859 => Kind::UniqueViolation,
            1216 | 1217 | 1451 | 1452 | 1830 | 1834 => Kind::ForeignKeyViolation,
            1048 | 1364 => Kind::NotNullViolation,
            // MySQL's number, and MariaDB's.
            3819 | 4025 => Kind::CheckViolation,
            1792 => Kind::ReadOnlyTransaction,
            1213 => Kind::SerializationFailure,
            1053 | 1927 | 4031 => Kind::ClosedConnection,
            _ => Kind::Unknown,
        },
        mysql_async::Error::Io(IoError::Io(_)) | mysql_async::Error::Driver(DriverError::ConnectionClosed) => {
            Kind::ClosedConnection
        }
        _ => Kind::Unknown,
    };
    let text = match error {
        mysql_async::Error::Server(error) => error.message,
        error => error.to_string(),
    };
    DieselError::DatabaseError(kind, Box::new(text))
}
