//! What differs between the databases, for `connection.rs` and `executor.rs`. Implemented in `postgres.rs`,
//! `mysql.rs` and `sqlite.rs`, the forwarding part by [`forward_to_driver`].

use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{Database, Describe, Either, Execute, SqlStr};
use tenantry_core::Health;

use crate::statement::Syntax;
use crate::track::Ending;

/// What a query yields: the end of a statement, or a row.
pub(crate) type Step<DB> = Either<<DB as Database>::QueryResult, <DB as Database>::Row>;

/// The driver's own calls, spelled without a higher-ranked bound: with
/// `for<'c> &'c mut DB::Connection: Executor<'c>` in their place, a future that borrows a lease is "not general
/// enough" to be spawned.
pub trait Driver: Database {
    /// What the factory keeps with each connection.
    type State: Send + Sync;

    /// How the engine reads SQL.
    const SYNTAX: Syntax;

    /// What a query, stream or `begin` dropped half-way makes of a connection.
    const ABANDONED: Health;

    /// What a statement that may have changed the session makes of a connection. `Broken` where nothing can undo it.
    const CHANGED: Health;

    /// What a transaction makes of a connection whose user left it open. `Dirty` where the driver can roll it back.
    const OPEN_TRANSACTION: Health;

    /// How an error that came from the database itself ends a query.
    fn ending(error: &dyn sqlx::error::DatabaseError) -> Ending;

    /// [`Executor::fetch_many`](sqlx::Executor::fetch_many).
    fn fetch_many<'e, 'q: 'e, E>(
        raw: &'e mut Self::Connection,
        query: E,
    ) -> BoxStream<'e, Result<Step<Self>, sqlx::Error>>
    where
        E: Execute<'q, Self> + 'q;

    /// [`Executor::fetch_optional`](sqlx::Executor::fetch_optional).
    fn fetch_optional<'e, 'q: 'e, E>(
        raw: &'e mut Self::Connection,
        query: E,
    ) -> BoxFuture<'e, Result<Option<Self::Row>, sqlx::Error>>
    where
        E: Execute<'q, Self> + 'q;

    /// [`Executor::prepare_with`](sqlx::Executor::prepare_with).
    fn prepare_with<'e>(
        raw: &'e mut Self::Connection,
        sql: SqlStr,
        parameters: &'e [Self::TypeInfo],
    ) -> BoxFuture<'e, Result<Self::Statement, sqlx::Error>>;

    /// `Executor::describe`, which the query macros use.
    fn describe(raw: &mut Self::Connection, sql: SqlStr) -> BoxFuture<'_, Result<Describe<Self>, sqlx::Error>>;

    /// [`Migrator::run`] on this one connection.
    fn migrate<'e>(raw: &'e mut Self::Connection, migrator: &'e Migrator) -> BoxFuture<'e, Result<(), MigrateError>>;
}

/// A database that [`Connection`](crate::Connection) can talk to: `Postgres`, `MySql` or `Sqlite`, each by its
/// feature. Sealed: what is clean and what is not has to be known for each.
pub trait Engine: Driver {}

impl<DB: Driver> Engine for DB {}

/// How an error ends a query.
pub(crate) fn ending_of<DB: Driver>(error: &sqlx::Error) -> Ending {
    match error {
        sqlx::Error::Database(error) => DB::ending(error.as_ref()),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => Ending::Lost,
        sqlx::Error::WorkerCrashed => Ending::Broken,
        _ => Ending::Dirty,
    }
}

/// The part of [`Driver`] that is the same text for each database, though no generic code can say it.
macro_rules! forward_to_driver {
    ($db:ty, $connection:ty) => {
        fn fetch_many<'e, 'q: 'e, E>(
            raw: &'e mut $connection,
            query: E,
        ) -> ::futures_core::stream::BoxStream<'e, Result<$crate::engine::Step<$db>, ::sqlx::Error>>
        where
            E: ::sqlx::Execute<'q, $db> + 'q,
        {
            ::sqlx::Executor::fetch_many(raw, query)
        }

        fn fetch_optional<'e, 'q: 'e, E>(
            raw: &'e mut $connection,
            query: E,
        ) -> ::futures_core::future::BoxFuture<'e, Result<Option<<$db as ::sqlx::Database>::Row>, ::sqlx::Error>>
        where
            E: ::sqlx::Execute<'q, $db> + 'q,
        {
            ::sqlx::Executor::fetch_optional(raw, query)
        }

        fn prepare_with<'e>(
            raw: &'e mut $connection,
            sql: ::sqlx::SqlStr,
            parameters: &'e [<$db as ::sqlx::Database>::TypeInfo],
        ) -> ::futures_core::future::BoxFuture<'e, Result<<$db as ::sqlx::Database>::Statement, ::sqlx::Error>> {
            ::sqlx::Executor::prepare_with(raw, sql, parameters)
        }

        fn describe(
            raw: &mut $connection,
            sql: ::sqlx::SqlStr,
        ) -> ::futures_core::future::BoxFuture<'_, Result<::sqlx::Describe<$db>, ::sqlx::Error>> {
            ::sqlx::Executor::describe(raw, sql)
        }

        fn migrate<'e>(
            raw: &'e mut $connection,
            migrator: &'e ::sqlx::migrate::Migrator,
        ) -> ::futures_core::future::BoxFuture<'e, Result<(), ::sqlx::migrate::MigrateError>> {
            // `run` would be the public way; no future that holds it can be spawned ("not general enough").
            Box::pin(migrator.run_direct(None, raw, false))
        }
    };
}
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub(crate) use forward_to_driver;
