//! [`Executor`] and [`Acquire`] for [`Connection`]: the driver's own, with each query's start, text and end written to
//! the connection's `track.rs`.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use sqlx::error::BoxDynError;
use sqlx::{Acquire, Describe, Execute, Executor, SqlStr, Transaction};

use crate::connection::Connection;
use crate::engine::{Engine, Step, ending_of};
use crate::track::{Ending, Running, Track};

impl<'c, DB: Engine> Executor<'c> for &'c mut Connection<DB> {
    type Database = DB;

    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Step<DB>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let (raw, track) = self.parts();
        Box::pin(TrackedStream {
            inner: DB::fetch_many(raw, Watched::new::<DB>(query, track)),
            running: Running::new(track),
            ending: ending_of::<DB>,
        })
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<DB::Row>, sqlx::Error>>
    where
        'c: 'e,
        E: 'q + Execute<'q, DB>,
    {
        let (raw, track) = self.parts();
        Box::pin(tracked::<DB, _>(track, DB::fetch_optional(raw, Watched::new::<DB>(query, track))))
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [DB::TypeInfo],
    ) -> BoxFuture<'e, Result<DB::Statement, sqlx::Error>>
    where
        'c: 'e,
    {
        let (raw, track) = self.parts();
        Box::pin(tracked::<DB, _>(track, DB::prepare_with(raw, sql, parameters)))
    }

    // Part of the trait only with sqlx's `offline`, which `macros` turns on; this crate therefore always asks for
    // `macros`, whatever its user asks for.
    #[doc(hidden)]
    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<DB>, sqlx::Error>>
    where
        'c: 'e,
    {
        let (raw, track) = self.parts();
        Box::pin(tracked::<DB, _>(track, DB::describe(raw, sql)))
    }
}

impl<'c, DB: Engine> Acquire<'c> for &'c mut Connection<DB> {
    type Database = DB;
    type Connection = &'c mut DB::Connection;

    /// The driver's own connection. What is done with it is not seen, so the lease is recycled afterwards.
    fn acquire(self) -> BoxFuture<'c, Result<Self::Connection, sqlx::Error>> {
        Box::pin(std::future::ready(Ok(&mut **self)))
    }

    fn begin(self) -> BoxFuture<'c, Result<Transaction<'c, DB>, sqlx::Error>> {
        Box::pin(Connection::begin(self))
    }
}

/// Runs one call of the driver as a tracked one.
pub(crate) async fn tracked<DB: Engine, T>(
    track: &Track,
    call: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    let mut running = Running::new(track);
    running.start();
    let result = call.await;
    running.end(result.as_ref().map_or_else(ending_of::<DB>, |_| Ending::Clean));
    result
}

/// A stream of the driver's. It has to come to its end: a row more may be waiting in the socket.
struct TrackedStream<'e, T> {
    inner: BoxStream<'e, Result<T, sqlx::Error>>,
    running: Running<'e>,
    ending: fn(&sqlx::Error) -> Ending,
}

impl<T> Stream for TrackedStream<'_, T> {
    type Item = Result<T, sqlx::Error>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.running.start();
        let polled = self.inner.as_mut().poll_next(cx);
        match &polled {
            Poll::Ready(None) => self.running.end(Ending::Clean),
            Poll::Ready(Some(Err(error))) => {
                let ending = (self.ending)(error);
                self.running.end(ending);
            }
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }
}

/// A query whose text is judged at the moment the driver takes it. Taking the text is the one way to have it, and
/// ends the query's life; all else has to reach the driver as it is.
struct Watched<'t, 'q, E> {
    query: E,
    track: &'t Track,
    leaves_nothing: fn(&str, bool) -> bool,
    prepared: bool,
    lifetime: PhantomData<&'q ()>,
}

impl<'t, E> Watched<'t, '_, E> {
    fn new<DB: Engine>(query: E, track: &'t Track) -> Self {
        let leaves_nothing = |sql: &str, prepared| DB::SYNTAX.leaves_nothing(sql, prepared);
        Self { query, track, leaves_nothing, prepared: false, lifetime: PhantomData }
    }
}

impl<'q, DB: Engine, E: Execute<'q, DB>> Execute<'_, DB> for Watched<'_, 'q, E> {
    fn sql(self) -> SqlStr {
        let sql = self.query.sql();
        if !(self.leaves_nothing)(sql.as_str(), self.prepared) {
            self.track.mark_dirty();
        }
        sql
    }

    fn statement(&self) -> Option<&DB::Statement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<DB::Arguments>, BoxDynError> {
        let arguments = self.query.take_arguments();
        self.prepared = matches!(arguments, Ok(Some(_)));
        arguments
    }

    fn persistent(&self) -> bool {
        self.query.persistent()
    }
}
