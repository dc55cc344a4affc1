//! Who a server runs as: servers refuse to run as root, so a test that is root runs them as somebody else.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Who runs a server for which its package made no user.
const NOBODY: &str = "nobody";

/// What the names of variables begin with that a server or its programs would read.
const SETTINGS: [&str; 3] = ["PG", "MYSQL", "MARIADB"];

/// Who runs the server's programs and owns its files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// Whoever runs the test.
    Own { uid: u32 },
    /// Another user, as the test is run by root.
    Other { uid: u32, gid: u32 },
}

impl Account {
    /// Looks at who owns `made_by_us`, which tells who we are, and picks another user if that is root: `preferred`,
    /// else `nobody`.
    pub(super) fn pick(made_by_us: &Path, preferred: &str) -> io::Result<Self> {
        let uid = fs::metadata(made_by_us)?.uid();
        if uid != 0 {
            return Ok(Self::Own { uid });
        }
        let users = fs::read_to_string("/etc/passwd")?;
        let found = [preferred, NOBODY].iter().find_map(|name| look_up(&users, name));
        let missing = || format!("neither `{preferred}` nor `{NOBODY}` is in /etc/passwd");
        found.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, missing()))
    }

    pub(super) fn uid(self) -> u32 {
        match self {
            Self::Own { uid } | Self::Other { uid, .. } => uid,
        }
    }

    /// Gives `path` to the account.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Own { .. } => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid)),
        }
    }

    /// A command that runs as the account, knowing nothing of the test's own settings of servers and language.
    pub(super) fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        for (name, _) in std::env::vars_os() {
            if SETTINGS.iter().any(|start| name.to_string_lossy().starts_with(start)) {
                command.env_remove(name);
            }
        }
        // The log is read for English sentences; the test's folder may be closed to the account.
        command.env("LC_ALL", "C").current_dir("/");
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }
}

fn look_up(users: &str, name: &str) -> Option<Account> {
    let line = users.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(str::parse::<u32>);
    let (uid, gid) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    (uid != 0).then_some(Account::Other { uid, gid })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_whole_name_and_root_is_never_taken() {
        let users = "root:x:0:0::/root:/bin/sh\npostgres-old:x:1:1::/:\npostgres:x:101:104:P,,,:/var/lib:/bin/sh\nfake:x:0:0::/:\n";
        assert_eq!(look_up(users, "postgres"), Some(Account::Other { uid: 101, gid: 104 }));
        assert_eq!(look_up(users, "nobody"), None);
        assert_eq!(look_up(users, "fake"), None);
    }
}
