//! Where PostgreSQL's server programs are on this machine: [`Installation`].

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// A folder that has all of the server's programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Installation {
    bin: PathBuf,
}

const PROGRAMS: [&str; 3] = ["initdb", "postgres", "pg_ctl"];

/// Folders with one installation per version: the folder, how a version's folder begins, and where its programs are.
const VERSIONED: [(&str, &str, &str); 4] = [
    ("/usr/lib/postgresql", "", "bin"),         // Debian
    ("/usr", "pgsql-", "bin"),                  // Fedora, from PostgreSQL's own packages
    ("/opt/homebrew/opt", "postgresql", "bin"), // Homebrew
    ("/usr/local/opt", "postgresql", "bin"),    // Homebrew on Intel
];

impl Installation {
    /// The first complete one: on `PATH`, else the newest in the usual places.
    pub(super) fn find() -> Option<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        Self::on_path(&path).or_else(|| Self::versioned(Path::new("/"))).or_else(|| complete(Path::new("/usr/bin")))
    }

    /// Where [`find`](Self::find) looks, for the error that says it found nothing.
    pub(super) fn places() -> String {
        let places: Vec<_> = VERSIONED.iter().map(|(folder, name, bin)| format!("{folder}/{name}*/{bin}")).collect();
        format!("PATH, {}, /usr/bin", places.join(", "))
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }

    /// `PATH` may hold links or wrappers for some of the programs; the server finds its own files relative to where it
    /// really is, so the real folder counts.
    fn on_path(path: &OsStr) -> Option<Self> {
        let real = |folder: PathBuf| fs::canonicalize(folder.join("postgres")).ok()?.parent().map(Path::to_path_buf);
        env::split_paths(path).filter_map(real).find_map(|folder| complete(&folder))
    }

    fn versioned(root: &Path) -> Option<Self> {
        VERSIONED.iter().find_map(|(folder, prefix, bin)| {
            let folder = root.join(folder.trim_start_matches('/'));
            let entries = fs::read_dir(folder).ok()?.filter_map(Result::ok);
            let mut versions: Vec<_> = entries
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(prefix))
                .filter_map(|entry| complete(&entry.path().join(bin)).map(|found| (version(&entry.path()), found)))
                .collect();
            versions.sort_by_key(|(version, _)| *version);
            versions.pop().map(|(_, newest)| newest)
        })
    }
}

/// The number that a folder's name ends with, times ten so that 9.6 is less than 10; 0 where there is none.
fn version(folder: &Path) -> u32 {
    let name = folder.file_name().unwrap_or_default().to_string_lossy();
    let number = name.trim_start_matches(|c: char| !c.is_ascii_digit());
    let (major, minor) = number.split_once('.').unwrap_or((number, "0"));
    major.parse::<u32>().unwrap_or(0) * 10 + minor.parse::<u32>().unwrap_or(0)
}

fn complete(bin: &Path) -> Option<Installation> {
    let has_all = PROGRAMS.iter().all(|program| bin.join(program).is_file());
    has_all.then(|| Installation { bin: bin.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn install(root: &Path, bin: &str, programs: &[&str]) -> PathBuf {
        let bin = root.join(bin);
        fs::create_dir_all(&bin).expect("a folder");
        for program in programs {
            fs::write(bin.join(program), "").expect("a file");
        }
        bin
    }

    #[test]
    fn the_newest_complete_version_is_taken() {
        let root = tempfile::tempdir().expect("a folder");
        install(root.path(), "usr/lib/postgresql/9.6/bin", &PROGRAMS);
        let newest = install(root.path(), "usr/lib/postgresql/15/bin", &PROGRAMS);
        install(root.path(), "usr/lib/postgresql/16/bin", &["pg_ctl", "initdb"]);
        assert_eq!(Installation::versioned(root.path()), Some(Installation { bin: newest }));
    }

    #[test]
    fn other_systems_places_are_known() {
        for bin in ["usr/pgsql-17/bin", "opt/homebrew/opt/postgresql@16/bin", "usr/local/opt/postgresql/bin"] {
            let root = tempfile::tempdir().expect("a folder");
            let bin = install(root.path(), bin, &PROGRAMS);
            assert_eq!(Installation::versioned(root.path()), Some(Installation { bin }));
        }
    }

    #[test]
    fn links_on_path_lead_to_the_real_folder_and_lone_programs_to_nothing() {
        let root = tempfile::tempdir().expect("a folder");
        let root = fs::canonicalize(root.path()).expect("a path");
        let real = install(&root, "real", &PROGRAMS);
        let links = root.join("links");
        fs::create_dir(&links).expect("a folder");
        std::os::unix::fs::symlink(real.join("postgres"), links.join("postgres")).expect("a link");
        let lone = install(&root, "lone", &["postgres"]);
        let path = env::join_paths([&lone, &links]).expect("a path");
        assert_eq!(Installation::on_path(&path), Some(Installation { bin: real }));
        assert_eq!(Installation::on_path(lone.as_os_str()), None);
    }
}
