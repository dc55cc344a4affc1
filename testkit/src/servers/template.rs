//! A data folder to copy, because making one takes longer than everything else: [`Template`].
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

use super::account::Account;

/// What could not be done.
#[derive(Debug)]
pub(super) struct Failed {
    pub(super) doing: &'static str,
    pub(super) source: io::Error,
}

impl Failed {
    pub(super) fn to(doing: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self { doing, source }
    }
}

#[derive(Debug)]
pub(super) struct Template {
    archive: PathBuf,
    account: Account,
    contents: &'static [&'static str],
}

impl Template {
    /// The one that a version of the server makes: of what `contents` names, in a manner that changes with `layout`.
    pub(super) fn of(
        server: &Path,
        layout: u32,
        account: Account,
        contents: &'static [&'static str],
    ) -> Result<Self, Failed> {
        let changed = fs::metadata(server).and_then(|file| file.modified());
        let changed = changed.map_err(Failed::to("look at the server's program"))?;
        let mut hash = DefaultHasher::new();
        (layout, server, changed).hash(&mut hash);
        let name = format!("tenantry-testkit-{}-{:016x}.tar", account.uid(), hash.finish());
        Ok(Self { archive: std::env::temp_dir().join(name), account, contents })
    }

    /// Unpacks the template into `folder`. Where there is none yet, `fill` makes its contents in an empty folder that
    /// is the account's.
    pub(super) fn unpack(&self, folder: &Path, fill: impl FnOnce(&Path) -> Result<(), Failed>) -> Result<(), Failed> {
        if !self.is_ours().map_err(Failed::to("look at the template"))? {
            self.make(fill)?;
        }
        let mut tar = self.account.command("tar");
        tar.arg("-xf").arg(&self.archive).arg("-C").arg(folder);
        run(tar, "unpack the template")
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

    fn make(&self, fill: impl FnOnce(&Path) -> Result<(), Failed>) -> Result<(), Failed> {
        let failed = Failed::to("make the template");
        // Beside the archive, so that it can be renamed to it.
        let beside = self.archive.parent().unwrap_or(Path::new("/tmp"));
        let made = tempfile::Builder::new().prefix("tenantry-testkit-making-").tempdir_in(beside).map_err(&failed)?;
        self.account.own(made.path()).map_err(&failed)?;
        fill(made.path())?;
        let archive = made.path().join("archive");
        let mut tar = self.account.command("tar");
        tar.arg("-cf").arg(&archive).arg("-C").arg(made.path()).args(self.contents);
        run(tar, "pack the template")?;
        fs::set_permissions(&archive, Permissions::from_mode(0o600)).map_err(&failed)?;
        // If somebody else was first, theirs goes and this one comes: they are as good as each other.
        fs::rename(archive, &self.archive).map_err(failed)
    }
}

/// Runs a program to its end; what it wrote is in the error.
pub(super) fn run(mut command: Command, doing: &'static str) -> Result<(), Failed> {
    let output = command.output().map_err(Failed::to(doing))?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stderr, output.stdout].concat();
    Err(Failed::to(doing)(io::Error::other(String::from_utf8_lossy(&said).into_owned())))
}

/// Writes a file that only the account can read.
pub(super) fn write_secret(file: &Path, secret: &str, account: Account) -> io::Result<()> {
    fs::write(file, "")?;
    fs::set_permissions(file, Permissions::from_mode(0o600))?;
    fs::write(file, secret)?;
    account.own(file)
}
