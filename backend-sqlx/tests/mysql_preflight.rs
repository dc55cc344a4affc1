//! What a preflight says of a MariaDB server is what the server does.

mod support;

use sqlx::Connection as _;
use sqlx::mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError};
use support::mysql::options;
use tenantry_core::{Replicas, TenantPools};
use tenantry_sqlx::MySqlFactory;
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::servers::{User, patient};

/// How many the server really lets in, and what it says to the next.
async fn let_in(options: &MySqlConnectOptions) -> (u32, u16) {
    let mut inside = Vec::new();
    loop {
        match MySqlConnection::connect_with(options).await {
            Ok(connection) => inside.push(connection),
            Err(error) => {
                let number = error.as_database_error().map(|error| error.downcast_ref::<MySqlDatabaseError>().number());
                return (u32::try_from(inside.len()).expect("a few"), number.unwrap_or_default());
            }
        }
    }
}

#[tokio::test]
async fn what_it_says_is_what_the_server_lets_in() {
    let builder = PrivateMariaDb::builder().max_connections(12);
    let builder = builder.user(User::new("app", "mark3r-role").owns("acme"));
    let builder = builder.user(User::new("limited", "mark3r-role").max_user_connections(3).owns("acme"));
    for (name, max, refusal) in [("app", 12, 1040), ("limited", 3, 1226)] {
        let server = builder.clone().start().expect("a server");
        let login = options(&server).username(name).password("mark3r-role");
        let pools = patient(TenantPools::builder(MySqlFactory::new(login.clone())))
            .max_connections(2)
            .build()
            .expect("settings");
        pools.create("acme").await.expect("its own database");
        let preflight = pools.preflight("acme").await.expect("an answer");
        assert_eq!(preflight.capacity.for_this_login(), Some(max), "{preflight:?}");
        assert_eq!(preflight.capacity.max_connections, Some(12));
        assert!(preflight.capacity.open_now.is_some_and(|open| open >= 1), "{preflight:?}");
        assert_eq!(preflight.fits(Replicas { running: 1, surge: 1 }).is_ok(), max >= 4);
        assert_eq!(pools.stats().idle, 1, "it is clean");
        pools.close().await;
        // The server forgets a connection a moment after its client.
        loop {
            let counted = let_in(&login).await;
            if counted == (max, refusal) {
                break;
            }
            assert!(counted.0 < max, "more than it said: {counted:?}");
        }
    }
}
