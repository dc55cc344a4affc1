//! Making and dropping the files of [`SqliteFactory`].

use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use sqlx::Connection as _;
use tenantry_core::{Created, Dropped, Provision, TenantId};
use tokio::sync::MutexGuard;

use super::SqliteFactory;
use crate::error::{During, Error};

/// What SQLite keeps beside a database, and removes itself in good times.
const SIDE_FILES: [&str; 3] = ["-wal", "-shm", "-journal"];

impl Provision for SqliteFactory {
    /// Makes an empty database, and the folder if that is missing.
    async fn create(&self, tenant: &TenantId) -> Result<Created, Error> {
        let file = self.file(tenant)?;
        let failed = |source| Error::File { during: During::Create, source };
        tokio::fs::create_dir_all(&self.directory).await.map_err(failed)?;
        let _alone = self.alone().await.map_err(failed)?;
        if tokio::fs::try_exists(&file).await.map_err(failed)? {
            return Ok(Created::AlreadyThere);
        }
        // Left over from a drop that was cut short.
        remove_side_files(&file).await.map_err(failed)?;
        // An empty file is an empty database to SQLite. The file system decides who makes it, even where it knows no
        // locks, so that of many who try at once exactly one is told `New`.
        match tokio::fs::OpenOptions::new().write(true).create_new(true).open(&file).await {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {
                return Ok(Created::AlreadyThere);
            }
            Err(error) => return Err(failed(error)),
        }
        // Opening it once writes its header and turns on the write-ahead log, and shows that connecting will work.
        let _ = self.open(&file, tenant).await?.close().await;
        Ok(Created::New)
    }

    /// Removes the file and what SQLite keeps beside it. Connections that are still open keep what they have, until
    /// they are closed.
    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, Error> {
        let file = self.file(tenant)?;
        let failed = |source| Error::File { during: During::Drop, source };
        let _alone = match self.alone().await {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Dropped::WasAbsent),
            alone => alone.map_err(failed)?,
        };
        // The database first: what is left if this is cut short is then no tenant any more.
        let dropped = match tokio::fs::remove_file(&file).await {
            Ok(()) => Dropped::Gone,
            Err(error) if error.kind() == ErrorKind::NotFound => Dropped::WasAbsent,
            Err(error) => return Err(failed(error)),
        };
        remove_side_files(&file).await.map_err(failed)?;
        Ok(dropped)
    }
}

impl SqliteFactory {
    /// Waits until nobody else makes or drops a file in this folder, in any process of this machine: a drop must not
    /// remove the log of a database that was made anew meanwhile.
    ///
    /// In two steps, since a lock of the file system is waited for on a thread of the runtime's blocking ones, of which
    /// whoever has the lock needs one.
    async fn alone(&self) -> io::Result<(MutexGuard<'_, ()>, Option<File>)> {
        let guard = self.provisioning.lock().await;
        if !cfg!(unix) {
            // A folder cannot be opened, nor locked, elsewhere.
            return Ok((guard, None));
        }
        let directory = self.directory.clone();
        let lock = move || {
            let folder = File::open(directory)?;
            match folder.lock() {
                Err(error) if error.kind() == ErrorKind::Unsupported => Ok(folder),
                locked => locked.map(|()| folder),
            }
        };
        let folder = tokio::task::spawn_blocking(lock).await.map_err(io::Error::other)??;
        Ok((guard, Some(folder)))
    }
}

async fn remove_side_files(file: &Path) -> io::Result<()> {
    for suffix in SIDE_FILES {
        let mut path = file.as_os_str().to_owned();
        path.push(suffix);
        match tokio::fs::remove_file(PathBuf::from(path)).await {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}
