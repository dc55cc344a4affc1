//! Faults of a real server and of the network before it: the most telling ones, under `TenantPools`.
#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "tests")]

use diesel_async::RunQueryDsl as _;
use tenantry_diesel::tokio_postgres::Config;
use tenantry_diesel::{PostgresConnection, PostgresFactory};
use tenantry_testkit::faults::Moment::{Closing, Idle, InUse, JustUsed, Opening};
use tenantry_testkit::faults::meets::{BROKEN_ONCE, DOWN, DOWN_OR_DEAD, NO_DATABASE, NO_DATABASE_OR_DEAD, SILENT};
use tenantry_testkit::faults::{Cross, Driver, Fault, Login, Logins, Moment, PASSWORD, ROLE, Trouble, stampede};
use tenantry_testkit::proxy::Direction::{ToClient, ToServer};

struct Diesel;

impl Driver for Diesel {
    type Factory = PostgresFactory;

    fn factory(logins: Logins) -> PostgresFactory {
        let servers = logins.clone();
        let factory = PostgresFactory::new(Config::new()).server_of(move |tenant| servers.server(tenant));
        factory.resolver(move |tenant| {
            let Login { port, database, .. } = logins.of(&tenant);
            let mut config = Config::new();
            config.host("127.0.0.1").port(port).user(ROLE).password(PASSWORD).dbname(database);
            async move { Ok(config) }
        })
    }

    async fn run(connection: &mut PostgresConnection, sql: &'static str) -> Result<(), Trouble> {
        diesel::sql_query(sql).execute(connection).await?;
        Ok(())
    }
}

/// Each line: what the connection does when the fault begins, what comes of that, what the next caller meets while it
/// lasts, and how many users at most meet a dead connection. An idle connection's end is seen when it comes, a moment
/// after the server's word; whoever is faster than that meets a dead one.
async fn crossed(fault: Fault, lines: [(Moment, &str, &str, usize); 5]) -> String {
    let mut cross = Cross::<Diesel>::new().await.expect("servers");
    cross.assert(fault, &lines).await.expect("servers that do as they are told")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_to_the_server() {
    let lines = [
        (Opening, "Timeout(Connecting)", SILENT, 0),
        (JustUsed, "gave up", "gave up", 2),
        (Idle, "Timeout(Connecting)", SILENT, 0),
        // The server had heard of the query. Nothing is known of the statement's end, so the next one has it asked.
        (InUse, "served", SILENT, 0),
        (Closing, "closed", SILENT, 0),
    ];
    println!("{}", crossed(Fault::BlackHole(ToServer), lines).await);
}

/// The server has let go and the client is not told: each of the three that were used a moment ago is silent for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reset_that_only_the_server_sees() {
    let lines = [
        (Opening, "Timeout(Connecting)", BROKEN_ONCE, 0),
        (JustUsed, "gave up", "gave up", 3),
        (Idle, "served", "served", 0),
        (InUse, "gave up", "served", 0),
        (Closing, "closed", "served", 0),
    ];
    println!("{}", crossed(Fault::Reset(ToServer), lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_what_the_server_says() {
    let lines = [
        (Opening, "Connect(Unreachable)", BROKEN_ONCE, 0),
        (JustUsed, "served|query failed", "served", 1),
        (Idle, "served", "served", 0),
        (InUse, "query failed", "served", 0),
        (Closing, "closed", "served", 0),
    ];
    println!("{}", crossed(Fault::HalfClose(ToClient), lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_that_an_administrator_ends() {
    let lines = [
        (Opening, "Connect(Unreachable)", BROKEN_ONCE, 0),
        (JustUsed, "served|query failed", "served", 1),
        (Idle, "served", "served", 0),
        (InUse, "query failed", "served", 0),
        (Closing, "closed", "served", 0),
    ];
    println!("{}", crossed(Fault::Terminate, lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_is_started_again() {
    let lines = [
        (Opening, "Connect(Unreachable)", DOWN, 0),
        (JustUsed, "Connect(Unreachable)|query failed", DOWN, 1),
        (Idle, "Connect(Unreachable)", DOWN, 0),
        // What holds the query ends as well, by chance before it does.
        (InUse, "query failed|served", DOWN_OR_DEAD, 1),
        (Closing, "closed", DOWN, 0),
    ];
    println!("{}", crossed(Fault::Crash, lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_dropped_with_all_who_are_in_it() {
    let lines = [
        (Opening, "Connect(NoSuchTenant)", NO_DATABASE, 0),
        (JustUsed, "Connect(NoSuchTenant)|query failed", NO_DATABASE, 1),
        (Idle, "Connect(NoSuchTenant)", NO_DATABASE, 0),
        // What holds the query ends as well, by chance before it does.
        (InUse, "query failed|served", NO_DATABASE_OR_DEAD, 1),
        (Closing, "closed", NO_DATABASE, 0),
    ];
    println!("{}", crossed(Fault::DropDatabase, lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_warm_tenants_are_no_stampede_when_their_server_comes_back() {
    let after = stampede::<Diesel>(50, false).await.unwrap();
    println!("{after}");
    assert_eq!((after.connects, after.failures), (50, 0), "one connect each");
    assert!(after.met_dead <= 1, "{after}");
}
