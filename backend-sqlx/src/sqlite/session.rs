//! What a SQLite connection was like when it was opened, so that [`recycle`] can tell whether it is so again.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sqlx::sqlite::SqliteConnection;
use sqlx::{AssertSqlSafe, Connection as _, Row, Sqlite};

use crate::connection::Connection;
use crate::error::{During, Error};

/// One text of `name=value` parts for all that a connection has for itself: settings, attached databases, temporary
/// objects and collations. Left out is what belongs to the file or to the process (`user_version`, `soft_heap_limit`).
///
/// Through table-valued functions, since SQLite reads a flag when it prepares `PRAGMA flag`, not when it runs it, and
/// this statement stays prepared: a third of the time that as many `PRAGMA`s take.
macro_rules! settings {
    ($($name:ident)*) => {
        concat!(
            "SELECT group_concat(part, char(31)) FROM (SELECT 'busy_timeout=' || timeout AS part FROM pragma_busy_timeout",
            $(" UNION ALL SELECT '", stringify!($name), "=' || ", stringify!($name), " FROM pragma_", stringify!($name),)*
            " UNION ALL SELECT 'case_sensitive_like=' || ('a' NOT LIKE 'A')",
            " UNION ALL SELECT ':collation=' || name FROM pragma_collation_list",
            " UNION ALL SELECT ':' || type || '=' || name FROM temp.sqlite_master",
            " UNION ALL SELECT ':database=' || name || '=' || file FROM pragma_database_list WHERE name <> 'temp')"
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

/// Those that have no such function.
const MORE_SETTINGS: [&str; 2] = ["mmap_size", "wal_autocheckpoint"];

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
    let parts: String = sqlx::query_scalar(SETTINGS).fetch_one(&mut *raw).await?;
    let mut settings: Vec<String> = parts.split('\u{1f}').map(str::to_owned).collect();
    let more = sqlx::raw_sql("PRAGMA mmap_size; PRAGMA wal_autocheckpoint").fetch_all(raw).await?;
    for (name, row) in MORE_SETTINGS.iter().zip(more) {
        settings.push(format!("{name}={}", row.try_get_unchecked::<i64, _>(0)?));
    }
    Ok(settings)
}

/// Undoes what can be undone of the differences between two such lists; whoever called looks again whether it did.
async fn restore(raw: &mut SqliteConnection, before: &[String], now: &[String]) {
    let mut statements = Vec::new();
    for part in now.iter().filter(|part| !before.contains(part)) {
        match part.split_once('=') {
            Some((":table" | ":view" | ":trigger", name)) => {
                let kind = &part[1..part.len() - name.len() - 1];
                statements.push(format!("DROP {kind} IF EXISTS temp.{}", quoted(name)));
            }
            Some((":database", name_and_file)) => {
                let name = name_and_file.split('=').next().unwrap_or_default();
                statements.push(format!("DETACH DATABASE {}", quoted(name)));
            }
            _ => {}
        }
    }
    // SQLite's own words for a value are those that it takes.
    for part in before.iter().filter(|part| !part.starts_with(':') && !now.contains(part)) {
        statements.push(format!("PRAGMA {part}"));
    }
    for statement in statements {
        // One that fails shows in the second look.
        let _ = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut *raw).await;
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
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
    let now = settings_of(raw).await.map_err(sqlx)?;
    if now != before {
        restore(raw, &before, &now).await;
        if settings_of(raw).await.map_err(sqlx)? != before {
            return Err(Error::LeftBehind { what: "a setting or an object that could not be undone" });
        }
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
