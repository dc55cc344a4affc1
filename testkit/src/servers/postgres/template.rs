//! A data folder to copy, because `initdb` takes longer than everything else: [`Template`].
//!
//! It is kept between processes (a test runner starts one for each test) as one archive in the system's folder for
//! temporary files, readable by the account that runs the servers alone. One file, because that is there or not:
//! what tidies such folders up would take a few files out of many.

use std::fs::{self, Permissions};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PostgresError;
use super::installation::Installation;
use crate::servers::account::Account;

/// Changes whenever the arguments of `initdb` do.
const LAYOUT: u32 = 2;

/// The file with the superuser's password, beside `data`.
const PASSWORD: &str = "password";

/// The superuser of every server made here.
pub(super) const SUPERUSER: &str = "postgres";

#[derive(Debug)]
pub(super) struct Template {
    archive: PathBuf,
    account: Account,
}

impl Template {
    pub(super) fn of(installation: &Installation, account: Account) -> Result<Self, PostgresError> {
        let postgres = installation.program("postgres");
        let changed = fs::metadata(&postgres).and_then(|file| file.modified());
        let changed = changed.map_err(PostgresError::setup("look at the server's program"))?;
        let mut hash = DefaultHasher::new();
        (LAYOUT, postgres, changed).hash(&mut hash);
        let name = format!("tenantry-testkit-{}-{:016x}.tar", account.uid(), hash.finish());
        Ok(Self { archive: std::env::temp_dir().join(name), account })
    }

    /// Unpacks the template as `folder`'s `data`, making it first where there is none. Returns the superuser's password.
    pub(super) fn unpack(&self, folder: &Path, installation: &Installation) -> Result<String, PostgresError> {
        if !self.is_ours().map_err(PostgresError::setup("look at the template"))? {
            self.make(installation)?;
        }
        let mut tar = self.account.command("tar");
        tar.arg("-xf").arg(&self.archive).arg("-C").arg(folder);
        run(tar, "unpack the template")?;
        fs::read_to_string(folder.join(PASSWORD)).map_err(PostgresError::setup("read the template's password"))
    }

    /// Whether it is there and nobody else can have written it.
    fn is_ours(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.archive) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
            Ok(found) if found.is_file() && found.uid() == self.account.uid() && found.mode() & 0o077 == 0 => Ok(true),
            Ok(_) => Err(io::Error::new(
                ErrorKind::PermissionDenied,
                format!("{} belongs to somebody else or is open to others; remove it", self.archive.display()),
            )),
        }
    }

    fn make(&self, installation: &Installation) -> Result<(), PostgresError> {
        let setup = PostgresError::setup("make the template");
        // Beside the archive, so that it can be renamed to it.
        let beside = self.archive.parent().unwrap_or(Path::new("/tmp"));
        let made = tempfile::Builder::new().prefix("tenantry-testkit-making-").tempdir_in(beside).map_err(&setup)?;
        let password_file = made.path().join(PASSWORD);
        let password: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
        fs::write(&password_file, password).map_err(&setup)?;
        fs::set_permissions(&password_file, Permissions::from_mode(0o600)).map_err(&setup)?;
        self.account.own(&password_file).map_err(&setup)?;
        self.account.own(made.path()).map_err(&setup)?;

        let mut initdb = self.account.command(installation.program("initdb"));
        initdb.arg("-D").arg(made.path().join("data")).arg("--pwfile").arg(password_file);
        initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--username", SUPERUSER]);
        // `md5` asks for SCRAM where a password is stored so, which is the server's default, and for less where it is not.
        initdb.args(["--auth-local=scram-sha-256", "--auth-host=md5"]);
        run(initdb, "run initdb")?;

        let archive = made.path().join("archive");
        let mut tar = self.account.command("tar");
        tar.arg("-cf").arg(&archive).arg("-C").arg(made.path()).args(["data", PASSWORD]);
        run(tar, "pack the template")?;
        fs::set_permissions(&archive, Permissions::from_mode(0o600)).map_err(&setup)?;
        // If somebody else was first, theirs goes and this one comes: they are as good as each other.
        fs::rename(archive, &self.archive).map_err(setup)
    }
}

pub(super) fn run(mut command: Command, doing: &'static str) -> Result<(), PostgresError> {
    let output = command.output().map_err(PostgresError::setup(doing))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(PostgresError::setup(doing)(io::Error::other(said)))
}
