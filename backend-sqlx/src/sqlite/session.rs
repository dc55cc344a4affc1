//! What a SQLite connection was like when it was opened, so that [`recycle`] can tell whether it is so again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Connection as _, Row, Sqlite};

use crate::connection::Connection;
use crate::error::{During, Error};

/// Every setting that a connection has for itself and that can be read, what is attached to it, its temporary objects
/// and its collations; one row each. As one text for one trip to the connection's thread, and never prepared ahead:
/// SQLite reads a flag when it prepares `PRAGMA flag`, not when it runs it. A `PRAGMA` which this SQLite does not know
/// yields no row.
///
/// Left out is what belongs to the file or to the process (`user_version`, `soft_heap_limit`, ...).
const SETTINGS: &str = "
    PRAGMA analysis_limit; PRAGMA automatic_index; PRAGMA busy_timeout; PRAGMA cache_size; PRAGMA cache_spill;
    PRAGMA cell_size_check; PRAGMA checkpoint_fullfsync; PRAGMA count_changes; PRAGMA defer_foreign_keys;
    PRAGMA empty_result_callbacks; PRAGMA foreign_keys; PRAGMA full_column_names; PRAGMA fullfsync;
    PRAGMA ignore_check_constraints; PRAGMA journal_mode; PRAGMA journal_size_limit; PRAGMA legacy_alter_table;
    PRAGMA locking_mode; PRAGMA max_page_count; PRAGMA mmap_size; PRAGMA query_only; PRAGMA read_uncommitted;
    PRAGMA recursive_triggers; PRAGMA reverse_unordered_selects; PRAGMA secure_delete; PRAGMA short_column_names;
    PRAGMA synchronous; PRAGMA temp_store; PRAGMA threads; PRAGMA trusted_schema; PRAGMA wal_autocheckpoint;
    PRAGMA writable_schema;
    SELECT 'a' LIKE 'A';
    SELECT count(*) FROM pragma_collation_list;
    SELECT count(*) FROM temp.sqlite_master;
    SELECT file FROM pragma_database_list WHERE name <> 'temp' ORDER BY name;
";

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
    let rows: Vec<SqliteRow> = sqlx::raw_sql(SETTINGS).fetch_all(raw).await?;
    rows.iter().map(|row| row.try_get_unchecked::<String, _>(0)).collect()
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
