//! What the steps need besides cargo and a C compiler: found, or installed where that can be done, or named in one line.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::run::{Loudness, must, program, works};

/// A program from outside that some tests, or another step, start.
pub(crate) struct Server {
    /// The word for `--without`; the tests that start it have this word in their target's name or in their path.
    pub(crate) name: &'static str,
    /// Other words in the names of targets all of whose tests start it.
    targets: &'static [&'static str],
    /// One of its programs, by which it is found.
    program: &'static str,
    /// Folders that are rarely in PATH; `*` stands for one name.
    folders: &'static [&'static str],
    /// Debian's package.
    package: &'static str,
}

/// Every server that a test starts. A new one is a new entry.
pub(crate) const SERVERS: &[Server] = &[
    Server {
        name: "postgres",
        targets: &[],
        program: "initdb",
        // As in testkit/src/servers/postgres/installation.rs, which is the one to ask in a test.
        folders: &[
            "/usr/lib/postgresql/*/bin",
            "/usr/pgsql-*/bin",
            "/opt/homebrew/opt/postgresql*/bin",
            "/usr/local/opt/postgresql*/bin",
        ],
        package: "postgresql",
    },
    Server {
        name: "pgbouncer",
        targets: &[],
        program: "pgbouncer",
        // As in testkit/src/servers/pgbouncer.rs.
        folders: &["/usr/sbin", "/usr/bin", "/usr/local/bin", "/opt/homebrew/bin"],
        package: "pgbouncer",
    },
    Server {
        name: "mariadb",
        targets: &["mysql"],
        program: "mariadbd",
        // As in testkit/src/servers/mariadb/installation.rs.
        folders: &[
            "/usr/sbin",
            "/usr/libexec",
            "/usr/bin",
            "/usr/local/sbin",
            "/usr/local/bin",
            "/opt/homebrew/opt/mariadb*/bin",
            "/usr/local/opt/mariadb*/bin",
        ],
        package: "mariadb-server",
    },
    Server {
        name: "chromium",
        targets: &["browser"],
        program: "chromedriver",
        folders: &[],
        package: "chromium chromium-driver",
    },
];

/// Counts instructions, for the step `guard`, which is what can be left out.
pub(crate) const VALGRIND: Server =
    Server { name: "guard", targets: &[], program: "valgrind", folders: &[], package: "valgrind" };

/// Judges metrics and alerts, for the step `promtool`, which is what can be left out.
pub(crate) const PROMTOOL: Server =
    Server { name: "promtool", targets: &[], program: "promtool", folders: &[], package: "prometheus" };

/// What `bench.rs` compares with.
pub(crate) const PGBOUNCER: Server =
    Server { name: "bench", targets: &[], program: "pgbouncer", folders: &["/usr/sbin"], package: "pgbouncer" };

impl Server {
    /// Whether the tests of this target start it.
    pub(crate) fn is_started_by(&self, target: &str) -> bool {
        target.contains(self.name) || self.targets.iter().any(|word| target.contains(word))
    }

    /// The program's path, if it is on this machine.
    pub(crate) fn find(&self) -> Option<PathBuf> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let in_path = std::env::split_paths(&path);
        let elsewhere = self.folders.iter().flat_map(|pattern| matching(pattern));
        in_path.chain(elsewhere).map(|folder| folder.join(self.program)).find(|program| program.is_file())
    }

    /// Finds it or installs it.
    ///
    /// # Errors
    /// One line that says what is missing and what to do.
    pub(crate) fn ensure(&self, loudness: Loudness) -> Result<()> {
        if self.find().is_some() {
            return Ok(());
        }
        let mut installed = Ok(String::new());
        if let Some(apt_get) = apt_get() {
            must(&mut program("env", &format!("{apt_get} update")), loudness)?;
            installed = must(&mut program("env", &format!("{apt_get} install -y {}", self.package)), loudness);
        }
        // Only the programs count: that the package's own service cannot start, of which apt-get complains, is nothing
        // to the tests, which start their own.
        if self.find().is_none() {
            installed?;
            let Self { name, program, package, .. } = self;
            bail!(
                "{name} is missing (no `{program}`): install Debian's `{package}` or its like, or say --without {name}"
            );
        }
        Ok(())
    }
}

/// Finds or installs the server of that name.
///
/// # Errors
/// As [`Server::ensure`].
pub(crate) fn ensure_server(name: &str, loudness: Loudness) -> Result<()> {
    SERVERS.iter().filter(|server| server.name == name).try_for_each(|server| server.ensure(loudness))
}

/// How to call apt-get without being asked for a password, if at all.
fn apt_get() -> Option<&'static str> {
    if !Path::new("/etc/debian_version").exists() {
        None
    } else if must(&mut program("id", "-u"), Loudness { verbose: false }).is_ok_and(|id| id.trim() == "0") {
        Some("DEBIAN_FRONTEND=noninteractive apt-get")
    } else if works("sudo", "-n true") {
        Some("sudo -n DEBIAN_FRONTEND=noninteractive apt-get")
    } else {
        None
    }
}

/// The paths that a pattern means; those after its last star may not exist.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        found = match part.split_once('*') {
            None => found.into_iter().map(|folder| folder.join(part)).collect(),
            Some((start, end)) => found.iter().flat_map(|folder| children(folder, start, end)).collect(),
        };
    }
    found
}

fn children(folder: &Path, start: &str, end: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let named = |name: &str| name.starts_with(start) && name.ends_with(end);
    entries.filter(|entry| named(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// The parts of the toolchain that rustup's smallest profile leaves out.
///
/// # Errors
/// One line that names what is missing where there is no rustup to bring it.
pub(crate) fn ensure_component(name: &str, subcommand: &str, loudness: Loudness) -> Result<()> {
    if works("cargo", &format!("{subcommand} --version")) {
        return Ok(());
    }
    if !works("rustup", "--version") {
        bail!("`cargo {subcommand}` is missing: install your toolchain's {name}");
    }
    must(&mut program("rustup", &format!("component add {name}")), loudness).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_left_out_with_its_own_targets_alone() {
        let started = |target: &str| -> Vec<_> {
            SERVERS.iter().filter(|server| server.is_started_by(target)).map(|server| server.name).collect()
        };
        assert_eq!(started("mysql_conformance"), ["mariadb"]);
        assert_eq!(started("mariadb"), ["mariadb"]);
        assert_eq!(started("postgres_clean"), ["postgres"]);
        assert_eq!(started("browser"), ["chromium"]);
        assert_eq!(started("sqlite_clean"), [""; 0]);
    }

    #[test]
    fn a_star_stands_for_one_name() {
        let folder = format!("{}/s*c/main.rs", env!("CARGO_MANIFEST_DIR"));
        assert_eq!(matching(&folder), [Path::new(env!("CARGO_MANIFEST_DIR")).join("src/main.rs")]);
    }
}
