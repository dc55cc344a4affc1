//! Making and dropping the files of [`SqliteFactory`].

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use sqlx::Connection as _;
use tenantry_core::{Created, Dropped, Provision, TenantId};

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
        // Left over from a drop that was cut short; never beside a database that is there.
        if !tokio::fs::try_exists(&file).await.map_err(failed)? {
            remove_side_files(&file).await.map_err(failed)?;
        }
        // An empty file is an empty database to SQLite. The file system decides who makes it, so that of many who try
        // at once exactly one is told `New`.
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

async fn remove_side_files(file: &Path) -> std::io::Result<()> {
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
