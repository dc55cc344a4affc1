//! [`Opener`]: how a file is opened. Everything here blocks, and runs where that is allowed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use diesel::connection::SimpleConnection as _;
use diesel::{Connection as _, ConnectionError, QueryResult};
use tenantry_core::TenantId;

use super::runtime::State;
use super::watch::Watch;
use crate::error::{During, Error};

pub(super) type Hook = Arc<dyn Fn(&mut diesel::SqliteConnection, &TenantId) -> QueryResult<()> + Send + Sync>;

/// The first of them first, so that the others may wait for somebody who is about to close the file.
const SET_UP: &str = "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA foreign_keys = ON";

/// What a factory opens files with.
#[derive(Clone)]
pub(super) struct Opener {
    pub(super) directory: Arc<Path>,
    pub(super) after_connect: Option<Hook>,
}

impl Opener {
    /// Opens a file that is there, sets the connection up and has it watched.
    pub(super) fn open(
        &self,
        file: &Path,
        tenant: &TenantId,
        state: &Arc<State>,
    ) -> Result<diesel::SqliteConnection, Error> {
        let opened = diesel::SqliteConnection::establish(&uri(file));
        let mut connection = opened.map_err(|source| self.why_not_open(file, source))?;
        let failed = |source| Error::SetUp(ConnectionError::CouldntSetupConfiguration(source));
        connection.batch_execute(SET_UP).map_err(failed)?;
        if let Some(hook) = &self.after_connect {
            hook(&mut connection, tenant).map_err(failed)?;
        }
        connection.set_instrumentation(Watch::new(Arc::clone(state)));
        state.unmark();
        Ok(connection)
    }

    /// SQLite has one code for all reasons why a file cannot be opened, so the file system is asked.
    fn why_not_open(&self, file: &Path, source: ConnectionError) -> Error {
        match file.try_exists() {
            Ok(false) => match self.directory.metadata() {
                Ok(_) => Error::NoSuchTenant,
                // A folder that is not there (a volume not mounted) is no reason to forget all tenants.
                Err(source) => Error::File { during: During::Connect, source },
            },
            Ok(true) => Error::SetUp(source),
            Err(source) => Error::File { during: During::Connect, source },
        }
    }
}

/// The file as SQLite takes it together with a mode, in which it makes no file.
fn uri(file: &Path) -> String {
    let mut uri = String::from(if cfg!(windows) { "file:///" } else { "file:" });
    for byte in file.as_os_str().as_encoded_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'_' | b'.' | b':' => uri.push(char::from(*byte)),
            b'\\' if cfg!(windows) => uri.push('/'),
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
    }
    uri + "?mode=rw"
}

/// Whether the file is there, for a connection that has it open.
pub(super) async fn is_there(file: &Path) -> io::Result<bool> {
    let file = file.to_owned();
    tokio::task::spawn_blocking(move || file.try_exists()).await.map_err(io::Error::other)?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(unix)]
    #[test]
    fn what_means_something_in_a_uri_means_nothing_in_a_files_name() {
        assert_eq!(uri(Path::new("/a b/c?d#e%41.db")), "file:/a%20b/c%3Fd%23e%2541.db?mode=rw");
    }
}
