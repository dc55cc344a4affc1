//! Where a server lives: its folder, its port, and how a URL names what is there.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tempfile::TempDir;

/// The address that every server listens on.
pub(super) const HOST: &str = "127.0.0.1";

/// How often a port that somebody else took first is replaced by another one.
pub(super) const PORTS_TRIED: u32 = 5;

/// Ports are taken from below those that systems give to outgoing connections, so that a stopped server finds its
/// port free when it starts again.
const PORTS: std::ops::Range<u16> = 15_000..32_000;

/// Memory that has to be free for a server to be kept there: enough for some that run at once.
const ROOM_IN_MEMORY: u64 = 4 << 30;

/// The longest path of a socket that every system takes.
const LONGEST_SOCKET_PATH: usize = 100;

/// A folder in which a socket of that name has a short enough path.
pub(super) fn folder(prefix: &str, socket: &str) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix).permissions(Permissions::from_mode(0o700));
    if let Some(memory) = memory() {
        return builder.tempdir_in(memory);
    }
    let folder = builder.tempdir()?;
    if folder.path().join(socket).as_os_str().len() <= LONGEST_SOCKET_PATH {
        return Ok(folder);
    }
    builder.tempdir_in("/tmp")
}

/// Linux's folder in memory, where nobody has named another one and there is room. A database of PostgreSQL is 300
/// files of 7 MB in all; on a disk, removing a server with 50 of them takes longer than most tests.
fn memory() -> Option<&'static Path> {
    let memory = Path::new("/dev/shm");
    if std::env::var_os("TMPDIR").is_some() {
        return None;
    }
    let found = rustix::fs::statvfs(memory).ok()?;
    let writable = tempfile::tempfile_in(memory).is_ok();
    (writable && found.f_bavail.saturating_mul(found.f_frsize) >= ROOM_IN_MEMORY).then_some(memory)
}

pub(super) fn free_port() -> io::Result<u16> {
    let try_one = |_| {
        let port = fastrand::u16(PORTS);
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|_| port)
    };
    let mut tries = (0..100).map(try_one).skip_while(Result::is_err);
    tries.next().unwrap_or_else(|| Err(io::ErrorKind::AddrInUse.into()))
}

/// A password that nobody guesses. It begins with a word that `cargo xtask test` looks for in all that the tests print, as other
/// passwords of tests have it in them too.
pub(super) fn password() -> String {
    "mark3r-".chars().chain(std::iter::repeat_with(fastrand::alphanumeric).take(24)).collect()
}

/// Percent-encodes everything that has a meaning in a URL.
pub(super) fn encoded(text: &str) -> String {
    let encode = |byte: u8| match byte {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(encode).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_url_would_read_as_its_own_is_encoded() {
        assert_eq!(encoded("a-Z_0.9~"), "a-Z_0.9~");
        assert_eq!(encoded("p@/#%:?' é"), "p%40%2F%23%25%3A%3F%27%20%C3%A9");
    }
}
