//! What a preflight says of a PostgreSQL server is what the server does: as many connections as it says are let in, and
//! not one more.

mod support;

use sqlx::Connection as _;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use support::postgres::options;
use tenantry_core::{CapacityLimit, FailureKind, Preflight, Replicas, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::{Role, patient};

const MAX: u32 = 12;

fn server() -> PrivatePostgres {
    let builder = PrivatePostgres::builder().max_connections(MAX).setting("password_encryption", "md5");
    let limited = Role::new("limited", "mark3r-role").connection_limit(4);
    builder.role(Role::new("app", "mark3r-role")).role(limited).start().expect("a server")
}

async fn preflight(options: &PgConnectOptions, budget: u32, tenant: &str) -> Preflight {
    let factory = PostgresFactory::new(options.clone());
    let pools = patient(TenantPools::builder(factory)).max_connections(budget).build().expect("good settings");
    let preflight = pools.preflight(tenant).await.expect("an answer");
    assert_eq!((pools.stats().idle, pools.stats().totals.connects), (1, 1), "clean, and one of the budget");
    pools.close().await;
    preflight
}

/// How many the server really lets in.
async fn let_in(options: &PgConnectOptions, database: &str) -> u32 {
    let options = options.clone().database(database);
    let mut inside = Vec::new();
    loop {
        match PgConnection::connect_with(&options).await {
            Ok(connection) => inside.push(connection),
            Err(error) => {
                let code = error.as_database_error().and_then(|error| error.code());
                assert_eq!(code.as_deref(), Some("53300"), "{error}");
                let count = u32::try_from(inside.len()).expect("a few");
                for connection in inside {
                    connection.close().await.expect("ends well");
                }
                return count;
            }
        }
    }
}

/// The server forgets a connection some milliseconds after its client.
async fn alone(server: &PrivatePostgres) {
    let sampler = server;
    while sampler.sample().await.expect("a count").total() > 0 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_it_says_is_what_the_server_lets_in() {
    let server = server();
    server.run("postgres", "CREATE DATABASE acme; ").await.expect("a database");
    server.run("postgres", "CREATE DATABASE small CONNECTION LIMIT 2").await.expect("a database");
    let (superuser, app, limited) = (
        options(&server),
        options(&server).username("app").password("mark3r-role"),
        options(&server).username("limited").password("mark3r-role"),
    );
    for (login, database, max) in
        [(&app, "acme", MAX - 3), (&limited, "acme", 4), (&app, "small", 2), (&superuser, "small", MAX)]
    {
        let preflight = preflight(login, 2, database).await;
        alone(&server).await;
        let capacity = preflight.capacity;
        let said = capacity.for_this_login().into_iter().chain(capacity.database_limit).min();
        assert_eq!(said, Some(max), "{capacity:?}");
        assert_eq!(let_in(login, database).await, max, "{capacity:?}");
        assert!(capacity.open_now.is_some_and(|open| open >= 1), "itself: {capacity:?}");
        alone(&server).await;
    }
}

#[tokio::test]
async fn a_budget_that_it_calls_fitting_is_served_by_all_replicas_at_once_and_one_more_is_not() {
    let server = server();
    server.run("postgres", "CREATE DATABASE acme").await.expect("a database");
    let app = options(&server).username("app").password("mark3r-role");
    // Nine places: two processes with four, or three with three, one of them new.
    let rolling = Replicas { running: 2, surge: 1 };
    let four = preflight(&app, 4, "acme").await;
    four.fits(Replicas { running: 2, surge: 0 }).expect("eight of nine");
    let error = four.fits(rolling).expect_err("twelve of nine");
    assert_eq!((error.shortages[0].limit, error.shortages[0].allowed), (CapacityLimit::Server, 9));
    assert_eq!(four.largest_budget(rolling), Some(3));
    assert_eq!(preflight(&app, 3, "acme").await.spare(rolling), Some(0));
    alone(&server).await;

    let mut replicas = Vec::new();
    for _ in 0..3 {
        let builder = patient(TenantPools::builder(PostgresFactory::new(app.clone()))).max_connections(3);
        replicas.push(builder.max_connections_per_tenant(3).build().expect("good settings"));
    }
    let mut leases = Vec::new();
    for pools in replicas.iter().cycle().take(9) {
        leases.push(pools.acquire("acme").await.expect("there is room for all of the three"));
    }
    let one_more = PgConnection::connect_with(&app.clone().database("acme")).await.expect_err("the tenth");
    assert_eq!(one_more.as_database_error().and_then(|error| error.code()).as_deref(), Some("53300"));
    drop(leases);
    for pools in replicas {
        assert_eq!(pools.stats().totals.server_full, 0);
        pools.close().await;
    }
}

#[tokio::test]
async fn a_role_that_may_not_ask_is_told_so_and_the_error_holds_no_password() {
    let server = server();
    let wrong = options(&server).username("app").password("mark3r-wrong");
    let pools =
        patient(TenantPools::builder(PostgresFactory::new(wrong))).max_connections(2).build().expect("good settings");
    let error = pools.preflight("postgres").await.expect_err("a wrong password");
    let tenantry_core::PreflightError::Acquire(tenantry_core::AcquireError::Connect { kind, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(*kind, FailureKind::Auth);
    assert!(!format!("{error:?} {error}").contains("mark3r"));
}
