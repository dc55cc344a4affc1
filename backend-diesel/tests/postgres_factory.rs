//! Opening, losing, closing and making: what a PostgreSQL factory promises to the one who counts.
#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "tests")]

mod support;

use std::net::TcpListener;
use std::time::Duration;

use diesel_async::{RunQueryDsl as _, SimpleAsyncConnection as _};
use support::{Cluster, number, pid, plain_query, tenant, text};
use tenantry_core::{Created, Dropped, FailureKind, Health, PoolFactory as _, Provision as _, TenantPools};
use tenantry_diesel::tokio_postgres::Config;
use tenantry_diesel::{Error, PostgresConnection, PostgresFactory};
use tenantry_testkit::servers::{Role, patient};
use tenantry_testkit::{Direction, Flow, PrivatePostgres, Proxy};

const LONG: Duration = Duration::from_secs(60);

async fn refused(factory: &PostgresFactory, name: &str) -> (FailureKind, Error) {
    let error = factory.connect(&tenant(name)).await.expect_err("refused");
    (factory.classify(&error), error)
}

/// Asks for the health until the driver has noticed what happened to the server.
async fn until_lost(factory: &PostgresFactory, connection: &mut PostgresConnection) {
    while factory.health(connection) != Health::Lost {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn failures_are_told_apart() {
    let role = Role::new("one", "mark3r-role").connection_limit(1);
    let cluster = Cluster::on(PrivatePostgres::builder().role(role).start().expect("a server")).await;
    assert_eq!(refused(&cluster.factory, "nobody").await.0, FailureKind::NoSuchTenant);
    assert_eq!(refused(&cluster.factory, "template1").await.0, FailureKind::InvalidName);
    assert_eq!(refused(&cluster.factory, &"a".repeat(64)).await.0, FailureKind::InvalidName);
    assert_eq!(refused(&cluster.factory_as("one", "wrong"), "acme").await.0, FailureKind::Auth);
    assert_eq!(refused(&cluster.factory_as("nobody", "mark3r-role"), "acme").await.0, FailureKind::Auth);

    let one = cluster.factory_as("one", "mark3r-role");
    let held = one.connect(&cluster.acme).await.expect("the only one");
    let (kind, error) = refused(&one, "acme").await;
    assert_eq!((kind, error.code()), (FailureKind::ServerFull, Some("53300")));
    one.close(held, LONG).await;
    cluster.server.run("postgres", "REVOKE CONNECT ON DATABASE acme FROM PUBLIC").await.expect("runs");
    assert_eq!(refused(&one, "acme").await.0, FailureKind::Auth);

    let nobody_listens = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
    let mut elsewhere = Config::new();
    elsewhere.host("127.0.0.1").port(nobody_listens).user("postgres").password("mark3r-role");
    assert_eq!(refused(&PostgresFactory::new(elsewhere), "acme").await.0, FailureKind::Unreachable);
}

#[tokio::test]
async fn an_error_holds_no_password() {
    let cluster = Cluster::new().await;
    let factory = cluster.factory_as("postgres", "p@/#%:?' ");
    let (kind, error) = refused(&factory, "acme").await;
    assert_eq!(kind, FailureKind::Auth);
    let source = std::error::Error::source(&error).expect("the driver's error");
    for text in [format!("{error}"), format!("{error:?}"), format!("{source}"), format!("{factory:?}")] {
        assert!(!text.contains("p@/"), "{text}");
    }
}

#[tokio::test]
async fn a_socket_of_the_file_system_works_as_well() {
    let cluster = Cluster::new().await;
    let mut config = Config::new();
    config.host_path(cluster.server.socket_dir()).port(cluster.server.port());
    config.user(cluster.server.superuser()).password(cluster.server.password());
    let factory = PostgresFactory::new(config);
    let mut connection = factory.connect(&cluster.acme).await.expect("connects");
    plain_query(&mut connection).await;
    factory.close(connection, LONG).await;
}

/// Sessions of a role, asked on a connection that is there already: a new one takes longer than a session to go.
async fn sessions(watcher: &mut PostgresConnection, role: &str) -> i64 {
    number(watcher, &format!("SELECT count(*) FROM pg_stat_activity WHERE usename = '{role}'")).await
}

#[tokio::test]
async fn the_server_has_let_go_when_a_close_resolves() {
    let role = Role::new("one", "mark3r-role").connection_limit(1);
    let cluster = Cluster::on(PrivatePostgres::builder().role(role).start().expect("a server")).await;
    let one = cluster.factory_as("one", "mark3r-role");
    let mut watcher = cluster.connect().await;
    for _ in 0..100 {
        let mut connection = one.connect(&cluster.acme).await.expect("the one before is gone");
        plain_query(&mut connection).await;
        assert_eq!(sessions(&mut watcher, "one").await, 1);
        one.close(connection, LONG).await;
        assert_eq!(sessions(&mut watcher, "one").await, 0);
    }
}

#[tokio::test]
async fn a_query_that_was_dropped_half_way_is_cancelled_by_the_close() {
    let role = Role::new("one", "mark3r-role").connection_limit(1);
    let cluster = Cluster::on(PrivatePostgres::builder().role(role).start().expect("a server")).await;
    let one = cluster.factory_as("one", "mark3r-role");
    let mut watcher = cluster.connect().await;
    for _ in 0..10 {
        let mut connection = one.connect(&cluster.acme).await.expect("the one before is gone");
        let slow = connection.batch_execute("SELECT pg_sleep(3600)");
        let slow = tokio::time::timeout(Duration::from_millis(5), slow).await;
        assert!(slow.is_err());
        one.close(connection, LONG).await;
        assert_eq!(sessions(&mut watcher, "one").await, 0);
    }
    assert!(cluster.server.log().contains("canceling statement due to user request"));
}

#[tokio::test]
async fn a_close_that_the_server_does_not_answer_ends_at_its_bound_and_the_socket_is_gone() {
    let cluster = Cluster::new().await;
    let proxy = Proxy::start(([127, 0, 0, 1], cluster.server.port()).into()).await.expect("a proxy");
    let mut config = Config::new();
    config.host("127.0.0.1").port(proxy.address().port());
    config.user("postgres").password(cluster.server.password());
    let factory = PostgresFactory::new(config);
    let connection = factory.connect(&cluster.acme).await.expect("connects");
    proxy.set_flow(Direction::ToClient, Flow::BlackHole);
    let close = factory.close(connection, Duration::from_millis(20));
    tokio::time::timeout(LONG, close).await.expect("it ends by itself");
    // The server got the goodbye, the client was not told: that the client's side is closed shows once it is.
    proxy.set_flow(Direction::ToClient, Flow::Pass);
    proxy.until_open(0).await;
}

#[tokio::test]
async fn a_dropped_connection_closes_its_socket() {
    let cluster = Cluster::new().await;
    let connection = cluster.connect().await;
    cluster.server.until(|now| now.in_database("acme") == 1).await.expect("one");
    drop(connection);
    cluster.server.until(|now| now.in_database("acme") == 0).await.expect("none");
}

#[tokio::test]
async fn a_connect_that_is_dropped_half_way_leaves_no_session() {
    let cluster = Cluster::new().await;
    let proxy = Proxy::start(([127, 0, 0, 1], cluster.server.port()).into()).await.expect("a proxy");
    let mut config = Config::new();
    config.host("127.0.0.1").port(proxy.address().port()).user("postgres").password(cluster.server.password());
    let factory = PostgresFactory::new(config);
    for delay in [0, 1, 2, 4, 8, 16] {
        proxy.set_flow(Direction::ToClient, Flow::Delay(Duration::from_millis(2)));
        let connect = factory.connect(&cluster.acme);
        drop(tokio::time::timeout(Duration::from_millis(delay), connect).await);
    }
    proxy.set_flow(Direction::ToClient, Flow::Pass);
    proxy.until_open(0).await;
    cluster.server.until(|now| now.in_database("acme") == 0).await.expect("none");
}

#[tokio::test]
async fn a_connection_that_the_server_ends_is_lost_without_being_asked() {
    let mut cluster = Cluster::new().await;
    let mut killed = cluster.connect().await;
    let mut other = cluster.connect().await;
    let victim = pid(&mut killed).await;
    number(&mut other, &format!("SELECT pg_terminate_backend({victim})::int")).await;
    until_lost(&cluster.factory, &mut killed).await;
    let error = cluster.factory.recycle(&mut killed).await.expect_err("it is gone");
    assert_eq!(cluster.factory.classify(&error), FailureKind::Unreachable);
    cluster.factory.close(killed, LONG).await;

    cluster.server.restart().expect("restarts");
    until_lost(&cluster.factory, &mut other).await;
    let mut next = cluster.connect().await;
    plain_query(&mut next).await;
    cluster.server.stop_immediate().expect("stops");
    until_lost(&cluster.factory, &mut next).await;
    assert_eq!(refused(&cluster.factory, "acme").await.0, FailureKind::Unreachable);
}

#[tokio::test]
async fn an_error_that_ends_the_session_is_seen_at_once() {
    let cluster = Cluster::new().await;
    let mut connection = cluster.connect().await;
    let own = connection.batch_execute("SELECT pg_terminate_backend(pg_backend_pid())").await;
    own.expect_err("it ends itself");
    assert_eq!(cluster.factory.health(&mut connection), Health::Lost);
}

#[tokio::test]
async fn names_of_all_kinds_name_databases_of_their_own() {
    let cluster = Cluster::new().await;
    let factory = &cluster.factory;
    let names = ["a-b", "a_b", "A-b", "a b", "a\"b", "a'b", "a;b--", "../a", "日本", "$1", "%41", "pg_x", "a\\b"];
    for name in names {
        assert_eq!(factory.create(&tenant(name)).await.expect(name), Created::New, "{name}");
        assert_eq!(factory.create(&tenant(name)).await.expect(name), Created::AlreadyThere, "{name}");
    }
    for name in names {
        let mut connection = factory.connect(&tenant(name)).await.expect(name);
        assert_eq!(text(&mut connection, "SELECT current_database()").await, name);
        factory.close(connection, LONG).await;
        assert_eq!(factory.drop_database(&tenant(name)).await.expect(name), Dropped::Gone, "{name}");
        assert_eq!(factory.drop_database(&tenant(name)).await.expect(name), Dropped::WasAbsent, "{name}");
    }
    // The longest that there can be, and the rule of one's own.
    let factory = cluster.factory.clone().database_names(|tenant| format!("shop_{tenant}"));
    let longest = tenant(&"x".repeat(58));
    assert_eq!(factory.create(&longest).await.expect("fits"), Created::New);
    assert!(matches!(factory.create(&tenant(&"x".repeat(59))).await, Err(Error::InvalidName(_))));
}

#[tokio::test]
async fn creating_and_dropping_are_safe_to_do_at_once() {
    let cluster = Cluster::new().await;
    let creators: Vec<_> = (0..6)
        .map(|_| {
            let factory = cluster.factory.clone();
            tokio::spawn(async move { factory.create(&tenant("new")).await })
        })
        .collect();
    let mut new = 0;
    for creator in creators {
        match creator.await.expect("no panic").expect("made by one of them") {
            Created::New => new += 1,
            Created::AlreadyThere => {}
        }
    }
    assert_eq!(new, 1);

    let held = cluster.factory.connect(&tenant("new")).await.expect("connects");
    cluster.factory.drop_database(&tenant("new")).await.expect_err("it is in use");
    let forced = cluster.factory.clone().force_drop(true);
    assert_eq!(forced.drop_database(&tenant("new")).await.expect("dropped"), Dropped::Gone);
    drop(held);
    assert!(matches!(forced.drop_database(&tenant("postgres")).await, Err(Error::InvalidName(_))));
    assert_eq!(forced.create(&tenant("postgres")).await.expect("is there"), Created::AlreadyThere);
}

#[tokio::test]
async fn sessions_say_whose_they_are_and_keep_their_timeout() {
    let cluster = Cluster::new().await;
    let factory = cluster.factory.clone().statement_timeout(Duration::from_secs(7));
    let mut connection = factory.connect(&cluster.acme).await.expect("connects");
    connection.batch_execute("SET statement_timeout = 0").await.expect("runs");
    factory.recycle(&mut connection).await.expect("recycles");
    assert_eq!(text(&mut connection, "SELECT current_setting('statement_timeout')").await, "7s");
    assert_eq!(text(&mut connection, "SELECT current_setting('application_name')").await, "tenantry/acme");
}

#[tokio::test]
async fn a_resolver_says_where_each_tenant_is() {
    let cluster = Cluster::new().await;
    let config = cluster.config();
    let factory = PostgresFactory::new(cluster.config()).resolver(move |tenant| {
        let mut config = config.clone();
        async move {
            match tenant.as_str() {
                "known" => Ok(config.dbname("acme").clone()),
                _ => Err(Error::NoSuchTenant),
            }
        }
    });
    let mut connection = factory.connect(&tenant("known")).await.expect("connects");
    assert_eq!(text(&mut connection, "SELECT current_database()").await, "acme");
    assert_eq!(refused(&factory, "unknown").await.0, FailureKind::NoSuchTenant);
}

#[tokio::test]
async fn a_lease_is_a_connection_of_diesel() {
    let cluster = Cluster::new().await;
    let pools = patient(TenantPools::builder(cluster.factory.clone())).max_connections(2).build().expect("settings");
    let mut lease = pools.acquire("acme").await.expect("a lease");
    let two = diesel::select(diesel::dsl::sql::<diesel::sql_types::Integer>("2"));
    assert_eq!(two.get_result::<i32>(&mut lease).await, Ok(2));
    let task = tokio::spawn(async move {
        use diesel_async::AsyncConnection as _;
        lease.transaction(async |lease| lease.batch_execute("SELECT 1").await).await
    });
    task.await.expect("no panic").expect("commits");
    pools.close().await;
    cluster.server.until(|now| now.in_database("acme") == 0).await.expect("none");
}
