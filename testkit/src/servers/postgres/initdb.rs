//! The data that a server starts with: made by `initdb` once, then copied by `template.rs`.

use std::fs;
use std::path::Path;

use super::installation::Installation;
use crate::servers::account::Account;
use crate::servers::place;
use crate::servers::template::{Failed, Template, run, write_secret};

/// Changes whenever the arguments of `initdb` or the form of the password do.
const LAYOUT: u32 = 3;

/// The file with the superuser's password, beside `data`.
const PASSWORD: &str = "password";

/// The superuser of every server made here.
pub(super) const SUPERUSER: &str = "postgres";

/// Makes `folder`'s `data`. Returns the superuser's password.
pub(super) fn unpack(folder: &Path, installation: &Installation, account: Account) -> Result<String, Failed> {
    let template = Template::of(&installation.program("postgres"), LAYOUT, account, &["data", PASSWORD])?;
    template.unpack(folder, |empty| initdb(empty, installation, account))?;
    fs::read_to_string(folder.join(PASSWORD)).map_err(Failed::to("read the template's password"))
}

fn initdb(folder: &Path, installation: &Installation, account: Account) -> Result<(), Failed> {
    let password_file = folder.join(PASSWORD);
    write_secret(&password_file, &place::password(), account).map_err(Failed::to("write the superuser's password"))?;
    let mut initdb = account.command(installation.program("initdb"));
    initdb.arg("-D").arg(folder.join("data")).arg("--pwfile").arg(password_file);
    initdb.args(["--no-sync", "--encoding=UTF8", "--locale=C", "--wal-segsize=1", "--username", SUPERUSER]);
    // `md5` asks for SCRAM where a password is stored so, which is the server's default, and for less where it is not.
    initdb.args(["--auth-local=scram-sha-256", "--auth-host=md5"]);
    run(initdb, "run initdb")
}
