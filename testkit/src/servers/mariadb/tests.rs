//! That a private server starts, refuses what it must, and is gone afterwards. What its users may do is
//! seen by a client, which is in backend-sqlx/tests/mysql_server.rs.

use std::net::TcpStream;
use std::sync::Mutex;

use super::*;

#[test]
fn a_restart_keeps_port_and_a_stopped_server_is_gone() {
    let mut server = PrivateMariaDb::new().expect("a server");
    let port = server.port();
    assert!(server.socket().exists());
    drop(TcpStream::connect((HOST, port)).expect("by TCP"));
    server.restart().expect("restarts");
    assert_eq!(server.log().matches("mariadbd: Shutdown complete").count(), 1, "in order: {}", server.log());
    server.stop_immediate().expect("stops");
    server.stop_immediate().expect("nothing to do");
    assert!(TcpStream::connect((HOST, port)).is_err());
    server.start().expect("starts after a crash");
    server.start().expect("nothing to do");
    drop(TcpStream::connect((HOST, port)).expect("is back"));
    assert_eq!(server.log().matches(READY).count(), 3);
}

#[test]
fn it_is_gone_with_its_folder_when_a_test_panics() {
    let seen = Mutex::new(None);
    let panicked = std::panic::catch_unwind(|| {
        let server = PrivateMariaDb::new().expect("a server");
        *seen.lock().unwrap() = Some((server.port(), server.folder.path().to_path_buf()));
        panic!("as a failing test does");
    });
    assert!(panicked.is_err());
    let (port, folder) = seen.into_inner().expect("not poisoned").expect("there was one");
    assert!(TcpStream::connect((HOST, port)).is_err());
    assert!(!folder.exists());
}

#[test]
fn what_the_server_refuses_is_an_error_with_the_servers_words() {
    let refused = PrivateMariaDb::builder().setting("no-such-setting", "1").start().expect_err("refused");
    assert!(refused.to_string().contains("unknown variable 'no-such-setting=1'"), "{refused}");
    let refused = PrivateMariaDb::builder().user(User::new("long".repeat(50), "hunter2")).start().expect_err("refused");
    assert!(matches!(refused, MariaDbError::RefusedUser { .. }), "{refused}");
    assert!(refused.to_string().contains("too long for user name"), "{refused}");
    assert!(!refused.to_string().contains("hunter2"));
}

#[test]
fn nothing_that_is_printed_or_left_lying_about_holds_the_password() {
    let server = PrivateMariaDb::new().expect("a server");
    assert!(!format!("{server:?} {}", server.log()).contains(server.password()));
    assert!(!server.folder.path().join("users.sql").exists());
}
