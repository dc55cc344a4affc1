//! That a private server is there, is as it was told to be, and is gone afterwards.

use super::*;
use crate::Sampler;

async fn code(server: &PrivatePostgres, role: (&str, &str)) -> Option<String> {
    let mut config = server.config("postgres");
    let refused = config.user(role.0).password(role.1).connect(NoTls).await.err()?;
    Some(refused.code().map_or_else(|| refused.to_string(), |code| code.code().to_owned()))
}

#[tokio::test]
async fn it_takes_connections_by_tcp_and_by_socket_and_only_with_the_password() {
    let server = PrivatePostgres::new().expect("a server");
    server.run("postgres", "SELECT 1").await.expect("by TCP");
    let mut config = Config::new();
    config.host_path(server.socket_dir()).port(server.port()).user(server.superuser()).password(server.password());
    drop(config.dbname("postgres").connect(NoTls).await.expect("by socket"));
    let url: Config = server.url("postgres").parse().expect("a connection string");
    drop(url.connect(NoTls).await.expect("by URL"));
    assert_eq!(code(&server, ("postgres", "wrong")).await.as_deref(), Some("28P01"));
}

#[tokio::test]
async fn limits_roles_and_settings_are_as_told() {
    let hostile = Role::new("a'p\"p", "p@/#%:?' ");
    let server = PrivatePostgres::builder()
        .max_connections(7)
        .setting("log_statement", "all")
        .role(Role::new("one", "mark3r-role").connection_limit(1))
        .role(hostile.create_databases())
        .start()
        .expect("a server");
    let mut config = server.config("postgres");
    let (client, connection) = config.user("one").password("mark3r-role").connect(NoTls).await.expect("the first");
    let connection = tokio::spawn(connection);
    assert_eq!(code(&server, ("one", "mark3r-role")).await.as_deref(), Some("53300"));
    let row = client.query_one("SHOW max_connections", &[]).await.expect("a row");
    assert_eq!(row.get::<_, &str>(0), "7");
    assert!(server.log().contains("SHOW max_connections"));
    drop(client);
    connection.await.expect("no panic").expect("ends well");

    let url: Config = server.url_for("a'p\"p", "p@/#%:?' ", "postgres").parse().expect("a connection string");
    let (client, connection) = url.connect(NoTls).await.expect("the hostile one");
    tokio::spawn(connection);
    client.batch_execute("CREATE DATABASE mine").await.expect("may create");
}

#[tokio::test]
async fn a_restart_keeps_port_and_data_and_a_stopped_server_is_gone() {
    let mut server = PrivatePostgres::new().expect("a server");
    let port = server.port();
    server.run("postgres", "CREATE DATABASE kept").await.expect("runs");
    server.restart().expect("restarts");
    server.run("kept", "CREATE TABLE t()").await.expect("the database is still there");
    server.stop_immediate().expect("stops");
    server.stop_immediate().expect("nothing to do");
    assert!(server.run("kept", "SELECT 1").await.is_err());
    server.start().expect("starts");
    server.start().expect("nothing to do");
    server.run("kept", "SELECT 1").await.expect("is back");
    assert_eq!(server.port(), port);
    assert_eq!(server.log().matches(READY).count(), 3);
}

#[tokio::test]
async fn what_was_committed_outlives_a_crash() {
    let mut server = PrivatePostgres::builder().role(Role::new("one", "mark3r-role")).start().expect("a server");
    server.run("postgres", "CREATE TABLE t()").await.expect("runs");
    server.stop_immediate().expect("stops");
    server.start().expect("starts");
    server.run("postgres", "TABLE t").await.expect("the table is still there");
    assert_eq!(code(&server, ("one", "mark3r-role")).await, None);
}

#[test]
fn it_is_gone_with_its_folder_when_a_test_panics() {
    let (port, folder) = (std::sync::Mutex::new(0), std::sync::Mutex::new(None));
    let panicked = std::panic::catch_unwind(|| {
        let server = PrivatePostgres::new().expect("a server");
        *port.lock().unwrap() = server.port();
        *folder.lock().unwrap() = Some(server.socket_dir().to_path_buf());
        panic!("as a failing test does");
    });
    assert!(panicked.is_err());
    let port = *port.lock().unwrap();
    assert!(std::net::TcpStream::connect((HOST, port)).is_err());
    let folder = folder.into_inner().unwrap().expect("there was one");
    assert!(!folder.exists());
}

#[test]
fn a_setting_that_the_server_refuses_is_an_error_with_the_servers_words() {
    let refused = PrivatePostgres::builder().setting("no_such_setting", "1").start().expect_err("refused");
    assert!(refused.to_string().contains("unrecognized configuration parameter"), "{refused}");
}

#[tokio::test]
async fn a_sampler_counts_by_role_and_database_without_itself() {
    let server = PrivatePostgres::builder().role(Role::new("app", "mark3r-role")).start().expect("a server");
    let sampler = Sampler::start(&server, Duration::from_millis(1)).await.expect("starts");
    // The sampler's own session and those of `run` and `until` are the superuser's.
    let mut config = server.config("template1");
    config.user("app").password("mark3r-role");
    let (one, connection) = config.connect(NoTls).await.expect("connects");
    tokio::spawn(connection);
    let (two, connection) = config.connect(NoTls).await.expect("connects");
    let connection = tokio::spawn(connection);
    assert_eq!(server.until(|now| now.of_role("app") == 2).await.expect("both").in_database("template1"), 2);
    drop(two);
    connection.await.expect("no panic").expect("ends well");
    server.until(|now| now.of_role("app") == 1).await.expect("one is gone");
    let seen = sampler.stop().await.expect("what it saw");
    assert!(seen.samples >= 2);
    assert!(seen.most >= seen.most_of_role["app"]);
    assert_eq!((seen.most_of_role["app"], seen.most_in_database["template1"]), (2, 2));
    drop(one);
}

#[test]
fn nothing_that_is_printed_holds_the_password() {
    let server = PrivatePostgres::new().expect("a server");
    assert!(!format!("{server:?}").contains(server.password()));
    assert!(!format!("{:?}", Role::new("a", "mark3r-role")).contains("mark3r-role"));
}

/// A session of the role `app` on a server that has it.
async fn session(server: &PrivatePostgres) -> (Client, Connecting) {
    let mut config = server.config("postgres");
    connect(config.user("app").password("mark3r-role")).await.expect("connects")
}

fn with_app() -> PrivatePostgres {
    PrivatePostgres::builder().max_connections(8).role(Role::new("app", "mark3r-role")).start().expect("a server")
}

#[tokio::test]
async fn a_frozen_server_says_nothing_and_goes_on_where_it_was() {
    let mut server = with_app();
    let (client, _connection) = session(&server).await;
    server.freeze().expect("freezes");
    let silent = tokio::time::timeout(Duration::from_millis(50), client.simple_query("SELECT 1"));
    assert!(silent.await.is_err());
    std::net::TcpStream::connect((HOST, server.port())).expect("the system accepts");
    server.thaw().expect("thaws");
    client.simple_query("SELECT 2").await.expect("the session lives");
    session(&server).await;
    server.freeze().expect("freezes");
    server.restart().expect("a stop thaws");
    session(&server).await;
    server.freeze().expect("freezes");
    let (folder, start) = (server.socket_dir().to_path_buf(), tokio::time::Instant::now());
    drop(server);
    assert!(!folder.exists());
    // What does not hear that it is to end is killed after 5 s only.
    println!("a frozen server was gone after {:?}", start.elapsed());
}

#[tokio::test]
async fn ended_sessions_are_gone_and_others_are_not_until_their_database_is_dropped() {
    let server = with_app();
    server.run("postgres", "CREATE DATABASE \"a\"\"b\"").await.expect("made");
    let (one, connection) = session(&server).await;
    let mut config = server.config("a\"b");
    let (other, _) = connect(config.user("app").password("mark3r-role")).await.expect("connects");
    assert_eq!(server.end_sessions("app", "postgres").await.expect("ends"), 1);
    let ended = connection.await.expect("no panic").expect_err("ended");
    assert_eq!(ended.code().map(|code| code.code()), Some("57P01"));
    assert!(one.simple_query("SELECT 1").await.is_err());
    other.simple_query("SELECT 1").await.expect("lives");
    server.drop_database("a\"b").await.expect("dropped with who is in it");
    assert!(other.simple_query("SELECT 1").await.is_err());
}

#[tokio::test]
async fn strangers_take_every_place_and_leave_them() {
    let server = with_app();
    let strangers = server.fill("app", "mark3r-role").await.expect("fills");
    assert_eq!(strangers.count(), 5, "3 of 8 are for superusers");
    assert_eq!(code(&server, ("app", "mark3r-role")).await.as_deref(), Some("53300"));
    server.run("postgres", "SELECT 1").await.expect("a superuser is let in");
    drop(strangers);
    server.until(|now| now.of_role("app") == 0).await.expect("they leave");
    assert_eq!(code(&server, ("app", "mark3r-role")).await, None);
}

#[tokio::test]
async fn a_new_password_holds_for_who_comes_and_not_for_who_is_there() {
    let server = with_app();
    let (client, _connection) = session(&server).await;
    server.set_password("app", "it's new").await.expect("changes");
    client.simple_query("SELECT 1").await.expect("stays");
    assert_eq!(code(&server, ("app", "mark3r-role")).await.as_deref(), Some("28P01"));
    assert_eq!(code(&server, ("app", "it's new")).await, None);
}
