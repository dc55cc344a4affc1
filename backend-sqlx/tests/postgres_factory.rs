//! `PostgresFactory`: options, names, errors, making and dropping databases, and letting go of connections.

mod support;

use std::error::Error as _;
use std::time::Duration;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use support::postgres::{Cluster, options};
use support::{PATIENCE, in_time, polled_once, tenant};
use tenantry_core::{Created, Dropped, FailureKind, NativePool, PoolFactory, Provision, ServerId};
use tenantry_sqlx::{During, Error, PostgresFactory};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::Role;

const PASSWORD: &str = "p@/#%:?' \"\\$&=+mark3rü";

fn as_role(server: &PrivatePostgres, role: &str, password: &str) -> PostgresFactory {
    PostgresFactory::new(options(server).username(role).password(password))
}

#[tokio::test]
async fn connecting_never_makes_a_database() {
    let cluster = Cluster::new().await;
    let error = cluster.factory.connect(&tenant("stranger")).await.unwrap_err();
    assert!(matches!(error, Error::NoSuchTenant { .. }), "{error:?}");
    assert_eq!(cluster.factory.classify(&error), FailureKind::NoSuchTenant);
    assert!(error.source().unwrap().downcast_ref::<sqlx::Error>().is_some());
    let error = cluster.factory.open_pool(&tenant("stranger"), 2).await.unwrap_err();
    assert_eq!(cluster.factory.classify(&error), FailureKind::NoSuchTenant);
}

#[tokio::test]
async fn each_name_is_a_database_of_its_own() {
    let cluster = Cluster::new().await;
    let names = ["Acme", "ACME", "a-b", "a_b", "a b", "a\"b", "../x", "select", "日本", &"x".repeat(63)];
    for name in names {
        assert_eq!(cluster.factory.create(&tenant(name)).await.unwrap(), Created::New, "{name}");
    }
    for name in names {
        assert_eq!(cluster.factory.create(&tenant(name)).await.unwrap(), Created::AlreadyThere, "{name}");
        let mut connection = cluster.factory.connect(&tenant(name)).await.unwrap();
        let database: String =
            sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut connection).await.unwrap();
        assert_eq!(database, name);
        cluster.factory.close(connection, PATIENCE).await;
        assert_eq!(cluster.factory.drop_database(&tenant(name)).await.unwrap(), Dropped::Gone, "{name}");
        assert_eq!(cluster.factory.drop_database(&tenant(name)).await.unwrap(), Dropped::WasAbsent, "{name}");
    }
}

#[tokio::test]
async fn the_servers_own_databases_are_not_dropped() {
    let cluster = Cluster::new().await;
    for name in ["postgres", "template0", "template1"] {
        let error = cluster.factory.drop_database(&tenant(name)).await.expect_err(name);
        assert_eq!(cluster.factory.classify(&error), FailureKind::InvalidName, "{name}");
    }
    assert_eq!(cluster.factory.create(&tenant("postgres")).await.unwrap(), Created::AlreadyThere);
    cluster.factory.connect(&tenant("postgres")).await.expect("a service's own database can be its tenant");
}

#[tokio::test]
async fn of_many_who_create_at_once_one_is_told_new() {
    let cluster = Cluster::new().await;
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let factory = cluster.factory.clone();
            tokio::spawn(async move { factory.create(&tenant("fresh")).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += u32::from(in_time(task).await.unwrap() == Created::New);
    }
    assert_eq!(new, 1);
}

#[tokio::test]
async fn a_database_in_use_is_dropped_by_force_only() {
    let cluster = Cluster::new().await;
    let lease = cluster.lease().await;
    let error = cluster.factory.drop_database(&cluster.acme).await.unwrap_err();
    assert!(matches!(error, Error::Sqlx { during: During::Drop, .. }), "{error:?}");
    assert_eq!(error.code().as_deref(), Some("55006"));
    let forced = cluster.factory.clone().force_drop(true);
    assert_eq!(forced.drop_database(&cluster.acme).await.unwrap(), Dropped::Gone);
    cluster.factory.close(lease.into_inner(), PATIENCE).await;
}

#[tokio::test]
async fn a_missing_maintenance_database_is_no_missing_tenant() {
    let cluster = Cluster::new().await;
    let factory = PostgresFactory::new(options(&cluster.server).database("nowhere"));
    let error = factory.drop_database(&cluster.acme).await.expect_err("nobody looked at it");
    assert_eq!(factory.classify(&error), FailureKind::Other);
    factory.create(&cluster.acme).await.unwrap_err();
}

#[tokio::test]
async fn a_template_and_an_owner_are_used() {
    let cluster = Cluster::new().await;
    cluster.server.run("postgres", "CREATE ROLE \"the owner\"").await.unwrap();
    let factory = cluster.factory.clone().template("acme").owner("the owner");
    factory.create(&tenant("copy")).await.unwrap();
    let mut connection = factory.connect(&tenant("copy")).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM note").fetch_one(&mut connection).await.unwrap();
    assert_eq!(rows, 0);
    let owner: String = sqlx::query_scalar("SELECT datdba::regrole::text FROM pg_database WHERE datname = 'copy'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(owner, "\"the owner\"");
}

#[tokio::test]
async fn any_password_works_and_none_is_shown() {
    let server = PrivatePostgres::builder()
        .setting("password_encryption", "scram-sha-256")
        .role(Role::new("bob's role", PASSWORD).create_databases())
        .start()
        .unwrap();
    let factory = as_role(&server, "bob's role", PASSWORD);
    factory.create(&tenant("acme")).await.unwrap();
    let connection = factory.connect(&tenant("acme")).await.unwrap();

    let wrong = as_role(&server, "bob's role", "hunter2");
    let error = wrong.connect(&tenant("acme")).await.unwrap_err();
    assert_eq!(wrong.classify(&error), FailureKind::Auth);
    for shown in [format!("{error}"), format!("{error:?}"), format!("{factory:?}"), format!("{connection:?}")] {
        for secret in ["hunter2", "bob", PASSWORD] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
    assert!(!error.to_string().contains(&error.source().unwrap().to_string()));
    assert!(!format!("{:?}", error.source().unwrap()).contains("hunter2"));
}

#[tokio::test]
async fn a_full_server_says_so() {
    let server = PrivatePostgres::builder().role(Role::new("app", "app").connection_limit(1)).start().unwrap();
    server.run("postgres", "CREATE DATABASE acme").await.unwrap();
    let factory = as_role(&server, "app", "app");
    let first = factory.connect(&tenant("acme")).await.unwrap();
    let error = factory.connect(&tenant("acme")).await.unwrap_err();
    assert_eq!(factory.classify(&error), FailureKind::ServerFull, "{error:?}");
    let error = in_time(factory.open_pool(&tenant("acme"), 1)).await.unwrap_err();
    assert_eq!(factory.classify(&error), FailureKind::ServerFull, "a pool does not try for half a minute");
    factory.close(first, PATIENCE).await;
}

#[tokio::test]
async fn a_close_says_goodbye_when_a_cancelled_query_has_ended() {
    let cluster = Cluster::new().await;
    let mut watcher = PgConnection::connect_with(&options(&cluster.server)).await.unwrap();
    let works = "SELECT count(*) FROM pg_stat_activity WHERE datname = 'acme' AND state = 'active'";
    for _ in 0..5 {
        let mut connection = cluster.factory.connect(&cluster.acme).await.unwrap();
        // Cancelled after it was sent: the server works on, and reads no goodbye meanwhile.
        assert!(polled_once(sqlx::raw_sql("SELECT pg_sleep(0.3)").execute(&mut connection)));
        in_time(cluster.factory.close(connection, PATIENCE)).await;
        let at_work: i64 = sqlx::query_scalar(works).fetch_one(&mut watcher).await.unwrap();
        assert_eq!(at_work, 0, "it has ended");
        // The goodbye was heard: how long a session outlives that is up to the server.
        in_time(cluster.server.until(|now| now.in_database("acme") == 0)).await.unwrap();
    }
}

#[tokio::test]
async fn a_close_ends_at_its_bound_while_the_server_still_works() {
    let cluster = Cluster::new().await;
    let mut lease = cluster.lease().await;
    assert!(polled_once(sqlx::raw_sql("SELECT pg_sleep(3600)").execute(&mut *lease)));
    in_time(cluster.factory.close(lease.into_inner(), Duration::from_millis(20))).await;
}

#[tokio::test]
async fn a_session_carries_its_tenants_name_and_the_timeout() {
    let cluster = Cluster::with(|factory| factory.statement_timeout(Duration::from_millis(1500))).await;
    let mut lease = cluster.lease().await;
    let settings = "SELECT current_setting('application_name') || ' ' || current_setting('statement_timeout')";
    let shown: String = sqlx::query_scalar(settings).fetch_one(&mut *lease).await.unwrap();
    assert_eq!(shown, "tenantry/acme 1500ms");
    sqlx::raw_sql("SET statement_timeout = 0; SET application_name = 'x'").execute(&mut *lease).await.unwrap();
    cluster.factory.recycle(&mut lease).await.unwrap();
    let shown: String = sqlx::query_scalar(settings).fetch_one(&mut *lease).await.unwrap();
    assert_eq!(shown, "tenantry/acme 1500ms", "a recycle puts both back");

    let plain = PostgresFactory::new(options(&cluster.server).application_name("shop")).name_sessions(false);
    let mut connection = plain.connect(&cluster.acme).await.unwrap();
    let shown: String = sqlx::query_scalar(settings).fetch_one(&mut connection).await.unwrap();
    assert_eq!(shown, "shop 0");
}

#[tokio::test]
async fn a_resolver_sends_tenants_to_their_own_servers() {
    let (east, west) = (PrivatePostgres::new().unwrap(), PrivatePostgres::new().unwrap());
    let known: Vec<(&str, PgConnectOptions)> =
        vec![("east", options(&east).database("one")), ("west", options(&west).database("two"))];
    let factory = PostgresFactory::new(options(&east))
        .resolver(move |tenant| {
            let found = known.iter().find(|(name, _)| *name == tenant.as_str()).map(|(_, options)| options.clone());
            async move { found.ok_or_else(Error::no_such_tenant) }
        })
        .server_of(|tenant| ServerId::from(tenant.as_str()));
    for (name, server) in [("east", &east), ("west", &west)] {
        assert_eq!(factory.server(&tenant(name)), ServerId::from(name));
        factory.create(&tenant(name)).await.unwrap();
        let mut connection = factory.connect(&tenant(name)).await.unwrap();
        let port: i32 = sqlx::query_scalar("SELECT inet_server_port()").fetch_one(&mut connection).await.unwrap();
        assert_eq!(port, i32::from(server.port()));
    }
    let error = factory.connect(&tenant("north")).await.unwrap_err();
    assert_eq!(factory.classify(&error), FailureKind::NoSuchTenant);
}

#[tokio::test]
async fn a_pool_of_sqlxs_own_holds_no_more_than_asked_for_and_is_empty_when_closed() {
    let cluster = Cluster::with(|factory| {
        factory.linger(Duration::from_millis(100)).after_connect(|raw, _| {
            Box::pin(async move { sqlx::raw_sql("SET work_mem = '123kB'").execute(raw).await.map(drop) })
        })
    })
    .await;
    let pool = cluster.factory.open_pool(&cluster.acme, 2).await.unwrap();
    let mut one = pool.acquire().await.unwrap();
    let two = pool.acquire().await.unwrap();
    assert!(pool.try_acquire().is_none());
    let work_mem: String = sqlx::query_scalar("SELECT current_setting('work_mem')").fetch_one(&mut *one).await.unwrap();
    assert_eq!(work_mem, "123kB");
    drop(two);
    let closing = tokio::spawn({
        let (factory, pool) = (cluster.factory.clone(), pool.clone());
        async move { factory.close_pool(pool).await }
    });
    in_time(pool.close_event()).await;
    drop(one);
    in_time(closing).await.unwrap();
    cluster.server.until(|sample| sample.in_database("acme") == 0).await.unwrap();
}
