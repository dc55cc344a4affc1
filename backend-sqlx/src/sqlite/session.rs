//! What a SQLite connection was like when it was opened, so that [`recycle`] can tell whether it is so again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection as _, Row, Sqlite};

use crate::connection::Connection;
use crate::error::{During, Error};

/// Names one row per setting that a connection has for itself; left out is what belongs to the file or to the process
/// (`user_version`, `soft_heap_limit`, ...). Then what is attached, its temporary objects and its collations.
///
/// Through table-valued functions, since SQLite reads a flag when it prepares `PRAGMA flag`, not when it runs it, and
/// this statement stays prepared: a third of the time that as many `PRAGMA`s take.
macro_rules! settings {
    ($($name:ident)*) => {
        concat!(
            "SELECT group_concat(v, ' ') FROM (SELECT 'a' LIKE 'A' AS v UNION ALL SELECT timeout FROM pragma_busy_timeout",
            $(" UNION ALL SELECT ", stringify!($name), " FROM pragma_", stringify!($name),)*
            " UNION ALL SELECT name FROM pragma_collation_list UNION ALL SELECT coalesce(sql, name) FROM temp.sqlite_master",
            " UNION ALL SELECT file FROM pragma_database_list WHERE name <> 'temp')"
        )
    };
}

const SETTINGS: &str = settings! {
    analysis_limit automatic_index cache_size cache_spill cell_size_check checkpoint_fullfsync count_changes
    defer_foreign_keys empty_result_callbacks foreign_keys full_column_names fullfsync ignore_check_constraints
    journal_mode journal_size_limit legacy_alter_table locking_mode max_page_count query_only read_uncommitted
    recursive_triggers reverse_unordered_selects secure_delete short_column_names synchronous temp_store threads
    trusted_schema writable_schema
};

/// Two that have no such function.
const MORE_SETTINGS: &str = "PRAGMA mmap_size; PRAGMA wal_autocheckpoint";

/// How often a running statement looks whether it is to stop, in SQLite's virtual machine instructions: some
/// microseconds of work.
const INSTRUCTIONS_BETWEEN_LOOKS: i32 = 10_000;

/// Kept beside each connection.
#[derive(Debug)]
pub struct Session {
    file: PathBuf,
    settings: Vec<String>,
    /// While true, whatever statement runs is ended by its next look.
    interrupt: Arc<AtomicBool>,
}

impl Session {
    /// Reads the settings of a connection just opened, and makes its statements interruptible.
    pub(super) async fn begin(raw: &mut SqliteConnection, file: PathBuf) -> Result<Self, sqlx::Error> {
        let interrupt = Arc::new(AtomicBool::new(false));
        let stop = interrupt.clone();
        raw.lock_handle()
            .await?
            .set_progress_handler(INSTRUCTIONS_BETWEEN_LOOKS, move || !stop.load(Ordering::Relaxed));
        let settings = settings_of(raw).await?;
        Ok(Self { file, settings, interrupt })
    }
}

async fn settings_of(raw: &mut SqliteConnection) -> Result<Vec<String>, sqlx::Error> {
    let mut rows = sqlx::query(SETTINGS).fetch_all(&mut *raw).await?;
    rows.extend(sqlx::raw_sql(MORE_SETTINGS).fetch_all(raw).await?);
    rows.iter().map(|row| row.try_get_unchecked(0)).collect()
}

/// Makes a connection fit for its next user, or fails, upon which it is closed.
pub(super) async fn recycle(connection: &mut Connection<Sqlite>) -> Result<(), Error> {
    let sqlx = |source| Error::Sqlx { during: During::Recycle, source };
    settle(connection).await.map_err(sqlx)?;

    let before = connection.state().settings.clone();
    let file = connection.state().file.clone();
    let (raw, track) = connection.parts();
    roll_back(raw).await.map_err(sqlx)?;
    if raw.is_in_transaction() {
        return Err(Error::LeftBehind { what: "a transaction that sqlx still counts as open" });
    }
    if settings_of(raw).await.map_err(sqlx)? != before {
        return Err(Error::LeftBehind {
            what: "a setting, an attached database, a temporary object or a collation that was not there at first",
        });
    }
    match tokio::fs::try_exists(file).await {
        Ok(true) => {}
        Ok(false) => return Err(Error::no_such_tenant()),
        Err(source) => {
            return Err(Error::File { during: During::Recycle, source });
        }
    }
    track.cleaned();
    Ok(())
}

/// Waits until the connection's thread has done all that was asked of it, a ROLLBACK of a dropped transaction
/// included. A statement that nobody waits for any more is stopped.
async fn settle(connection: &mut Connection<Sqlite>) -> Result<(), sqlx::Error> {
    let interrupt = connection.state().interrupt.clone();
    let (raw, track) = connection.parts();
    if track.is_unfinished() {
        interrupt.store(true, Ordering::Relaxed);
    }
    let settled = raw.ping().await;
    interrupt.store(false, Ordering::Relaxed);
    settled
}

/// Ends whatever transaction there is. `BEGIN` fails inside of one, and proves by succeeding that there was none.
async fn roll_back(raw: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    match sqlx::raw_sql("BEGIN; ROLLBACK").execute(&mut *raw).await {
        Err(sqlx::Error::Database(_)) => sqlx::raw_sql("ROLLBACK").execute(raw).await.map(drop),
        other => other.map(drop),
    }
}

/// Closes the file, and resolves when it is closed.
pub(super) async fn close(mut connection: Connection<Sqlite>) {
    if settle(&mut connection).await.is_ok() {
        let _ = connection.into_raw().close().await;
    }
}
