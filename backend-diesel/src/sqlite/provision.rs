//! Making and dropping the files of [`SqliteFactory`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenantry_core::{Created, Dropped, Provision, TenantId};

use super::SqliteFactory;
use crate::error::{During, Error};

/// What SQLite keeps beside a database, and removes itself in good times.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

impl Provision for SqliteFactory {
    /// Makes an empty database, and the folder if that is missing. Goes on to its end when the future is dropped.
    async fn create(&self, tenant: &TenantId) -> Result<Created, Error> {
        let (file, tenant, opener) = (self.file(tenant)?, tenant.clone(), self.opener.clone());
        on_a_thread(During::Create, move || {
            let failed = |source| Error::File { during: During::Create, source };
            fs::create_dir_all(&opener.directory).map_err(failed)?;
            let _alone = alone(&opener.directory).map_err(failed)?;
            if file.try_exists().map_err(failed)? {
                return Ok(Created::AlreadyThere);
            }
            // Left over from a drop that was cut short.
            remove_side_files(&file).map_err(failed)?;
            // An empty file is an empty database to SQLite. The file system decides who makes it, even where it knows no
            // locks, so that of many who try at once exactly one is told `New`.
            match OpenOptions::new().write(true).create_new(true).open(&file) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(Created::AlreadyThere),
                Err(error) => return Err(failed(error)),
            }
            // Opening it once writes its header and turns on the write-ahead log, and shows that connecting will work.
            drop(opener.open(&file, &tenant, &Arc::default())?);
            Ok(Created::New)
        })
        .await
    }

    /// Removes the file and what SQLite keeps beside it. Connections that are still open keep what they have, until
    /// they are closed. Goes on to its end when the future is dropped.
    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, Error> {
        let (file, directory) = (self.file(tenant)?, Arc::clone(&self.opener.directory));
        on_a_thread(During::Drop, move || {
            let failed = |source| Error::File { during: During::Drop, source };
            let _alone = match alone(&directory) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Dropped::WasAbsent),
                alone => alone.map_err(failed)?,
            };
            // The database first: what is left if this is cut short is then no tenant any more.
            let dropped = match fs::remove_file(&file) {
                Ok(()) => Dropped::Gone,
                Err(error) if error.kind() == ErrorKind::NotFound => Dropped::WasAbsent,
                Err(error) => return Err(failed(error)),
            };
            remove_side_files(&file).map_err(failed)?;
            Ok(dropped)
        })
        .await
    }
}

async fn on_a_thread<R: Send + 'static>(
    during: During,
    work: impl FnOnce() -> Result<R, Error> + Send + 'static,
) -> Result<R, Error> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(Error::File { during, source: io::Error::other(error) }))
}

/// Waits until nobody else makes or drops a file in this folder, in any process of this machine and by either driver: a drop
/// must not remove the log of a database that was made anew meanwhile. A folder cannot be opened, nor locked, on Windows.
fn alone(directory: &Path) -> io::Result<Option<File>> {
    if !cfg!(unix) {
        return Ok(None);
    }
    let folder = File::open(directory)?;
    match folder.lock() {
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(error),
        _ => Ok(Some(folder)),
    }
}

fn remove_side_files(file: &Path) -> io::Result<()> {
    for suffix in SIDE_FILES {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        match fs::remove_file(PathBuf::from(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
