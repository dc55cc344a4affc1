//! Cleaning and closing one PostgreSQL connection.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgDatabaseError, PgRow, PgSeverity};
use sqlx::{Connection as _, Postgres, Row};
use tenantry_core::Health;

use crate::connection::Connection;

/// What `DISCARD ALL` does, which cannot be sent along with other statements, without `DEALLOCATE ALL`: sqlx remembers
/// its prepared statements and would go on using them. `DISCARD PLANS` is left out; plans are no state, and the server
/// drops those that a reset makes wrong.
///
/// `BEGIN; ROLLBACK` ends whatever transaction there is; a `ROLLBACK` alone would write a warning to the server's log
/// each time there is none. The last row says which prepared statements the server has.
const CLEAN: &str = "BEGIN; ROLLBACK; CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ROLE; RESET ALL; UNLISTEN *; \
    SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP; DISCARD SEQUENCES; \
    SELECT pg_catalog.count(*) FILTER (WHERE NOT from_sql), pg_catalog.count(*) FILTER (WHERE from_sql) \
    FROM pg_catalog.pg_prepared_statements";

/// A prepare that was cancelled leaves a statement on the server which sqlx knows nothing of. Harmless, unless they
/// add up.
const STRAY_STATEMENTS: usize = 20;

/// More errors than this in answers still to be read are not believed.
const MAX_PENDING_ERRORS: u32 = 16;

/// Makes a session as it was at first, but for sqlx's prepared statements.
pub(super) async fn clean(raw: &mut PgConnection) -> Result<(), sqlx::Error> {
    drain(raw).await?;
    let mut rows = run_clean(raw).await;
    if let Err(error) = &rows
        && is_plain(error)
    {
        // A failed transaction refuses even BEGIN.
        drain(raw).await?;
        sqlx::raw_sql("ROLLBACK").execute(&mut *raw).await?;
        rows = run_clean(raw).await;
    }
    let rows = rows?;
    let count = |column: usize| -> Result<usize, sqlx::Error> {
        let row = rows.last().ok_or(sqlx::Error::RowNotFound)?;
        Ok(usize::try_from(row.try_get::<i64, _>(column)?).unwrap_or(0))
    };
    let (by_driver, by_sql) = (count(0)?, count(1)?);
    let remembered = raw.cached_statements_size();
    // Statements prepared by SQL would meet the next user's by name; if some of sqlx's are gone (a DEALLOCATE, a
    // DISCARD ALL), it would go on using them.
    if by_sql > 0 || by_driver < remembered || by_driver > remembered + STRAY_STATEMENTS {
        raw.clear_cached_statements().await?;
        sqlx::raw_sql("DEALLOCATE ALL").execute(raw).await?;
    }
    Ok(())
}

async fn run_clean(raw: &mut PgConnection) -> Result<Vec<PgRow>, sqlx::Error> {
    sqlx::raw_sql(CLEAN).fetch_all(raw).await
}

/// Sends what is still to be sent (the ROLLBACK of a dropped transaction) and reads what is still to be read, until the
/// server is at rest: it works on a cancelled query until that ends. Without a round trip if there is neither.
async fn drain(raw: &mut PgConnection) -> Result<(), sqlx::Error> {
    for _ in 0..MAX_PENDING_ERRORS {
        match raw.flush().await {
            // The error of a query nobody waits for; the server goes on after it.
            Err(error) if is_plain(&error) => {}
            other => return other,
        }
    }
    Err(sqlx::Error::Protocol("too many errors in answers to cancelled queries".into()))
}

/// True for an error of a statement, after which the session goes on.
fn is_plain(error: &sqlx::Error) -> bool {
    let error = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>());
    error.is_some_and(|error| error.severity() == PgSeverity::Error)
}

/// Closes a connection of ours in order, as far as it is able to.
pub(super) async fn close(mut connection: Connection<Postgres>, linger: Duration) {
    if connection.health() == Health::Lost {
        // Nobody is there to say goodbye to.
        let _ = connection.into_raw().close_hard().await;
        return;
    }
    // A goodbye sent into a running query is read when that has ended; the socket would be gone long before.
    let at_rest = drain(connection.parts().0).await.is_ok();
    let raw = connection.into_raw();
    if at_rest {
        say_goodbye(raw, linger).await;
    } else {
        let _ = raw.close_hard().await;
    }
}

/// Closes a connection that is at rest. The server has let go of it some milliseconds after the goodbye; sqlx does not
/// let us read until the end of the stream, which would tell.
pub(super) async fn say_goodbye(raw: PgConnection, linger: Duration) {
    let _ = raw.close().await;
    tokio::time::sleep(linger).await;
}
