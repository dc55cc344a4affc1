//! Where MariaDB's server programs are on this machine: [`Installation`].

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

/// The programs of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installation {
    /// The folder that all else is below.
    pub(super) base: PathBuf,
    /// `mariadbd`.
    pub(super) server: PathBuf,
    /// `mariadb-install-db`.
    pub(super) install: PathBuf,
}

/// Where the server's program is if it is not on `PATH`, which rarely holds it.
const FOLDERS: [&str; 5] = ["/usr/sbin", "/usr/libexec", "/usr/bin", "/usr/local/sbin", "/usr/local/bin"];

/// Homebrew's folders, with one for each version that is installed.
const HOMEBREW: [&str; 2] = ["/opt/homebrew/opt", "/usr/local/opt"];

/// Below the base, where the program is that makes the data.
const INSTALL: [&str; 2] = ["bin", "scripts"];

impl Installation {
    /// The first complete one: on `PATH`, else in the usual places.
    pub(super) fn find() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let homebrew = HOMEBREW.iter().flat_map(|folder| versions(Path::new(folder)));
        env::split_paths(&path).chain(FOLDERS.map(PathBuf::from)).chain(homebrew).find_map(|folder| complete(&folder))
    }

    /// Where [`find`](Self::find) looks, for the error that says it found nothing.
    pub(super) fn places() -> String {
        let homebrew = HOMEBREW.map(|folder| format!("{folder}/mariadb*/bin"));
        format!("PATH, {}, {}", FOLDERS.join(", "), homebrew.join(", "))
    }
}

fn versions(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("mariadb"));
    let mut found: Vec<_> = named.map(|entry| entry.path().join("bin")).collect();
    // The one without a version in its name is Homebrew's newest.
    found.sort();
    found
}

/// Links lead to the real program, as the server has its other files beside where it really is.
fn complete(folder: &Path) -> Option<Installation> {
    let server = fs::canonicalize(folder.join("mariadbd")).ok()?;
    let base = server.parent()?.parent()?.to_path_buf();
    let install = INSTALL.iter().map(|folder| base.join(folder).join("mariadb-install-db"));
    let install = install.into_iter().find(|program| program.is_file())?;
    Some(Installation { base, server, install })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(root: &Path, path: &str) -> PathBuf {
        let file = root.join(path);
        fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
        fs::write(&file, "").expect("a file");
        file
    }

    #[test]
    fn both_programs_are_of_one_installation_and_a_server_alone_is_none() {
        for folder in ["sbin", "libexec", "bin"] {
            let root = tempfile::tempdir().expect("a folder");
            let base = fs::canonicalize(root.path()).expect("a path");
            let server = program(&base, &format!("{folder}/mariadbd"));
            assert_eq!(complete(&base.join(folder)), None);
            let install = program(&base, "bin/mariadb-install-db");
            assert_eq!(complete(&base.join(folder)), Some(Installation { base, server, install }));
        }
    }

    #[test]
    fn links_lead_to_the_real_folder_and_homebrews_are_found_by_their_names() {
        let root = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(root.path()).expect("a path");
        let server = program(&root, "Cellar/mariadb/11.4.2/bin/mariadbd");
        program(&root, "Cellar/mariadb/11.4.2/bin/mariadb-install-db");
        fs::create_dir_all(root.join("opt")).expect("a folder");
        let linked = root.join("opt/mariadb@11.4");
        std::os::unix::fs::symlink(root.join("Cellar/mariadb/11.4.2"), &linked).expect("a link");
        assert_eq!(versions(&root.join("opt")), [linked.join("bin")]);
        assert_eq!(complete(&linked.join("bin")).expect("complete").server, server);
    }
}
