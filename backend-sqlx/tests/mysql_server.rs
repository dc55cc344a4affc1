//! That the testkit's private MariaDB is to a client what it was told to be; the testkit itself has no client.

mod support;

use sqlx::mysql::MySqlConnectOptions;
use sqlx::{Connection, Executor, MySqlConnection};
use support::mysql::options;
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::servers::User;

/// The number of the server's error.
fn number(refused: &sqlx::Error) -> Option<u16> {
    let refused = refused.as_database_error()?.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>()?;
    Some(refused.number())
}

async fn connect(options: &MySqlConnectOptions) -> Result<MySqlConnection, sqlx::Error> {
    MySqlConnection::connect_with(options).await
}

#[tokio::test]
async fn it_takes_connections_by_tcp_and_by_socket_and_only_with_the_password() {
    let server = PrivateMariaDb::new().expect("a server");
    let options = options(&server);
    connect(&options).await.expect("by TCP");
    connect(&options.clone().socket(server.socket())).await.expect("by socket");
    MySqlConnection::connect(&server.url("mysql")).await.expect("by URL");
    for (name, password) in [("root", "wrong"), ("root", ""), ("", ""), ("mariadb.sys", "")] {
        for by in [options.clone(), options.clone().socket(server.socket())] {
            let refused = connect(&by.username(name).password(password)).await.expect_err("refused");
            assert!(matches!(number(&refused), Some(1045 | 4151)), "{name}: {refused}");
        }
    }
}

#[tokio::test]
async fn limits_users_and_settings_are_as_told() {
    let hostile = ("u@`s\"e'r", "p@/#%:?' \\\n;");
    let server = PrivateMariaDb::builder()
        .max_connections(12)
        .setting("wait-timeout", "77")
        .user(User::new("one", "mark3r-role").max_user_connections(1))
        .user(User::new(hostile.0, hostile.1).owns("a_c"))
        .start()
        .expect("a server");
    let one = options(&server).username("one").password("mark3r-role");
    let mut first = connect(&one).await.expect("the first");
    assert_eq!(number(&connect(&one).await.expect_err("full")), Some(1226));
    let settings = sqlx::query_as::<_, (u64, u64)>("SELECT @@max_connections, @@wait_timeout");
    assert_eq!(settings.fetch_one(&mut first).await.expect("a row"), (12, 77));

    let mut owner = MySqlConnection::connect(&server.url_for(hostile.0, hostile.1, "")).await.expect("a connection");
    owner.execute("CREATE DATABASE `a_c`").await.expect("its own");
    assert_eq!(number(&owner.execute("CREATE DATABASE `abc`").await.expect_err("not its own")), Some(1044));
}

#[tokio::test]
async fn data_and_users_outlive_a_restart_and_a_crash() {
    let mut server =
        PrivateMariaDb::builder().user(User::new("app", "mark3r-role").owns("kept")).start().expect("a server");
    let app = options(&server).username("app").password("mark3r-role");
    connect(&app).await.expect("in").execute("CREATE DATABASE kept").await.expect("made");
    server.restart().expect("restarts");
    let app = app.database("kept");
    connect(&app).await.expect("in").execute("CREATE TABLE t (id INT)").await.expect("made");
    server.stop_immediate().expect("stops");
    assert!(connect(&app).await.is_err());
    server.start().expect("starts");
    connect(&app).await.expect("in").execute("SELECT * FROM t").await.expect("still there");
}
