//! One question to the server, from its first byte to the end of its answer: [`Asking`].
//!
//! The driver gives a connection up that is left in the middle of an answer, and its server works on, unseen. So a
//! question owns the connection while it is asked, and if whoever asks goes away, it goes on in a task: the connection
//! comes back when the server is done, with what is known of it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use futures_util::TryStreamExt as _;
use mysql_async::consts::StatusFlags;
use mysql_async::prelude::{Protocol, Queryable as _};
use mysql_async::{Conn, DriverError, Error, Params, QueryResult, Row};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::connection::MySqlConnection;
use super::statement::{Leaves, leaves};

/// The driver's connection, and what is known of the session.
pub(super) struct Session {
    pub(super) conn: Conn,
    pub(super) standing: Standing,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the driver's connection: that shows the options, and with them the password.
        f.debug_struct("Session").field("standing", &self.standing).finish_non_exhaustive()
    }
}

/// What a session is fit for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// The server or the network ended it.
    pub(super) lost: bool,
    /// Nobody can say where it is.
    pub(super) broken: bool,
    /// In a transaction, as the server's latest answer says.
    pub(super) in_transaction: bool,
    /// Something may be left on it.
    pub(super) changed: bool,
}

/// Where a session is.
#[derive(Debug)]
pub(super) enum Seat {
    /// At rest.
    Here(Box<Session>),
    /// In a task, at the end of a question that nobody asks any more.
    Away(Away),
    /// With a question that is being asked, or was forgotten.
    Gone,
}

/// A task with a session in it. Dropped, both end.
#[derive(Debug)]
pub(super) struct Away(JoinHandle<Finished>);

impl Away {
    /// Waits for the session; nothing if its task ended without.
    async fn back(&mut self) -> Option<Box<Session>> {
        (&mut self.0).await.ok().and_then(|finished| finished.session)
    }

    /// Drops the session where it is, and waits for that.
    async fn end(mut self) {
        self.0.abort();
        self.back().await;
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Seat {
    /// Waits until the session is at rest. False if there is none any more. Dropped, it changes nothing.
    pub(super) async fn settle(&mut self) -> bool {
        if let Self::Away(away) = self {
            let back = away.back().await;
            *self = back.map_or(Self::Gone, Self::Here);
        }
        matches!(self, Self::Here(_))
    }

    /// The same without waiting: what came back by itself is at rest.
    pub(super) fn look(&mut self) {
        if let Self::Away(away) = self
            && let Poll::Ready(back) = Pin::new(&mut away.0).poll(&mut Context::from_waker(Waker::noop()))
        {
            *self = back.ok().and_then(|finished| finished.session).map_or(Self::Gone, Self::Here);
        }
    }

    /// Drops whatever there is, and waits until it is dropped.
    pub(super) async fn end(self) {
        if let Self::Away(away) = self {
            away.end().await;
        }
    }
}

/// What to ask.
pub(super) enum Question {
    /// Statements as text, their rows ignored.
    Batch(String),
    /// One statement, its rows ignored.
    Execute(String, Params),
    /// One statement, its rows sent there as long as somebody takes them.
    Load(String, Params, mpsc::Sender<Row>),
}

/// The end of a question.
#[derive(Debug)]
pub(super) struct Finished {
    session: Option<Box<Session>>,
    /// What was asked.
    pub(super) sql: String,
    /// How many rows were affected.
    pub(super) answer: Result<u64, Error>,
}

type Job = Pin<Box<dyn Future<Output = Finished> + Send>>;

/// A question being asked. Dropped after its first poll, it is asked to its end by a task.
pub(super) struct Asking<'c> {
    pub(super) connection: &'c mut MySqlConnection,
    question: Option<Question>,
    job: Option<Job>,
}

impl<'c> Asking<'c> {
    pub(super) fn new(connection: &'c mut MySqlConnection, question: Question) -> Self {
        Self { connection, question: Some(question), job: None }
    }
}

impl Future for Asking<'_> {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let Self { connection, question, job } = &mut *self;
        if let Some(question) = question.take() {
            *job = Some(Box::pin(ask(std::mem::replace(&mut connection.seat, Seat::Gone), question)));
        }
        let Some(asked) = job else { return Poll::Pending };
        let mut finished = ready!(asked.as_mut().poll(cx));
        *job = None;
        connection.seat = finished.session.take().map_or(Seat::Gone, Seat::Here);
        Poll::Ready(finished)
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let Some(mut job) = self.job.take() else { return };
        // Often only the last bytes of an answer are left to read, and they are here already.
        self.connection.seat = match job.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(finished) => finished.session.map_or(Seat::Gone, Seat::Here),
            Poll::Pending => Seat::Away(Away(self.connection.runtime.spawn(job))),
        };
    }
}

async fn ask(mut seat: Seat, question: Question) -> Finished {
    let there = seat.settle().await;
    let mut session = match seat {
        Seat::Here(session) if there => session,
        _ => {
            let (Question::Batch(sql) | Question::Execute(sql, _) | Question::Load(sql, ..)) = question;
            return Finished { session: None, sql, answer: Err(Error::Driver(DriverError::ConnectionClosed)) };
        }
    };
    let Session { conn, standing } = &mut *session;
    // Before it is sent: what is dropped with its task half-way is not to be used again.
    let was_broken = std::mem::replace(&mut standing.broken, true);
    let (sql, answer) = match question {
        Question::Batch(sql) => {
            let asked = conn.query_iter(sql.as_str()).await;
            let answer = collect(asked, None).await;
            (sql, answer)
        }
        Question::Execute(sql, params) => {
            let asked = conn.exec_iter(sql.as_str(), params).await;
            let answer = collect(asked, None).await;
            (sql, answer)
        }
        Question::Load(sql, params, rows) => {
            let asked = conn.exec_iter(sql.as_str(), params).await;
            let answer = collect(asked, Some(rows)).await;
            (sql, answer)
        }
    };
    let several = matches!(answer, Ok((_, true)));
    let left = leaves(&sql);
    standing.broken = was_broken || left == Leaves::ForGood;
    standing.changed |= several || left != Leaves::Nothing;
    match &answer {
        // An error has no status with it, and a plain statement's leaves a transaction as it was.
        Err(error) if is_end(error) => standing.lost = true,
        Err(Error::Server(_)) => {}
        Err(_) => standing.broken = true,
        Ok(_) => {
            let status = conn.last_ok_packet().map(|answer| answer.status_flags());
            standing.in_transaction = status.is_some_and(|status| status.contains(StatusFlags::SERVER_STATUS_IN_TRANS));
        }
    }
    let answer = answer.map(|(affected, _)| affected);
    Finished { session: Some(session), sql, answer }
}

/// Reads an answer to its end. How many rows were affected, and whether there was more than one result.
async fn collect<P: Protocol + Unpin>(
    asked: Result<QueryResult<'_, 'static, P>, Error>,
    mut to: Option<mpsc::Sender<Row>>,
) -> Result<(u64, bool), Error> {
    let mut result = asked?;
    let mut to_its_end = true;
    if let Some(to) = &mut to
        && let Some(mut rows) = result.stream::<Row>().await?
    {
        while to_its_end && let Some(row) = rows.try_next().await? {
            to_its_end = to.send(row).await.is_ok();
        }
    } else {
        result.for_each(|_| ()).await?;
    }
    let affected = result.affected_rows();
    let several = to_its_end && !result.is_empty();
    result.drop_result().await?;
    Ok((affected, several))
}

/// Whether the session is over: the network broke, the server stops, or it ended it (killed, or idle for too long).
pub(super) fn is_end(error: &Error) -> bool {
    match error {
        Error::Server(error) => matches!(error.code, 1053 | 1927 | 4031),
        Error::Io(_) | Error::Driver(DriverError::ConnectionClosed) => true,
        _ => false,
    }
}
