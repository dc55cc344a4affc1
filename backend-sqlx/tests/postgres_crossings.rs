//! Faults of a real server and of the network before it, each met by a connection that is being opened, idle, in use or
//! being closed.

use sqlx::Postgres;
use sqlx::postgres::PgConnectOptions;
use tenantry_sqlx::{Connection, PostgresFactory};
use tenantry_testkit::faults::Moment::{Closing, Idle, InUse, JustUsed, Opening};
use tenantry_testkit::faults::meets::{
    BROKEN_ONCE, DOWN, DOWN_OR_DEAD, NO_DATABASE, NO_DATABASE_OR_DEAD, NOT_LET_IN, SILENT,
};
use tenantry_testkit::faults::{Cross, Driver, Fault, Login, Logins, Moment, PASSWORD, ROLE, Trouble, stampede};
use tenantry_testkit::proxy::Direction::{ToClient, ToServer};

struct Sqlx;

impl Driver for Sqlx {
    type Factory = PostgresFactory;

    fn factory(logins: Logins) -> PostgresFactory {
        let servers = logins.clone();
        let base = PgConnectOptions::new_without_pgpass().host("127.0.0.1").username(ROLE).password(PASSWORD);
        PostgresFactory::new(base.clone()).server_of(move |tenant| servers.server(tenant)).resolver(move |tenant| {
            let Login { port, database, .. } = logins.of(&tenant);
            let options = base.clone().port(port).database(&database);
            async move { Ok(options) }
        })
    }

    async fn run(connection: &mut Connection<Postgres>, sql: &'static str) -> Result<(), Trouble> {
        sqlx::query(sql).execute(connection).await?;
        Ok(())
    }
}

/// Each line: what the connection does when the fault begins, what comes of that, what the next caller meets while it
/// lasts, and how many users at most meet a dead connection. sqlx sees the end of an idle connection only when it uses
/// it, so one user meets one that was used a moment ago; the others' are asked before they are handed out.
async fn crossed(fault: Fault, lines: [(Moment, &str, &str, usize); 5]) -> String {
    let mut cross = Cross::<Sqlx>::new().await.expect("servers");
    cross.assert(fault, &lines).await.expect("servers that do as they are told")
}

const ALL_SERVED: [(Moment, &str, &str, usize); 5] = [
    (Opening, "served", "served", 0),
    (JustUsed, "served", "served", 0),
    (Idle, "served", "served", 0),
    (InUse, "served", "served", 0),
    (Closing, "closed", "served", 0),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_to_the_server_costs_time_alone() {
    println!("{}", crossed(Fault::Delay(ToServer), ALL_SERVED).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_way_to_the_client_costs_time_alone() {
    println!("{}", crossed(Fault::Delay(ToClient), ALL_SERVED).await);
}

/// Whoever has a connection that was used a moment ago waits for as long as they like: that is theirs to bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_to_the_server() {
    let lines = [
        (Opening, "Timeout(Connecting)", SILENT, 0),
        (JustUsed, "gave up", "gave up", 2),
        (Idle, "Timeout(Connecting)", SILENT, 0),
        // The server had heard of the query.
        (InUse, "served", "gave up", 1),
        (Closing, "closed", SILENT, 0),
    ];
    println!("{}", crossed(Fault::BlackHole(ToServer), lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_black_hole_to_the_client() {
    let lines = [
        (Opening, "Timeout(Connecting)", SILENT, 0),
        (JustUsed, "gave up", "gave up", 2),
        (Idle, "Timeout(Connecting)", SILENT, 0),
        (InUse, "gave up", SILENT, 0),
        (Closing, "closed", SILENT, 0),
    ];
    println!("{}", crossed(Fault::BlackHole(ToClient), lines).await);
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
async fn a_reset_that_only_the_client_sees() {
    let lines = [
        (Opening, "Connect(Unreachable)", BROKEN_ONCE, 0),
        (JustUsed, "query failed", "served", 1),
        (Idle, "served", "served", 0),
        (InUse, "query failed", "served", 0),
        (Closing, "closed", "served", 0),
    ];
    println!("{}", crossed(Fault::Reset(ToClient), lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_what_the_client_says() {
    let lines = [
        (Opening, "Connect(Unreachable)", BROKEN_ONCE, 0),
        (JustUsed, "query failed", "served", 1),
        (Idle, "served", "served", 0),
        // The server answers before it looks for the next question, and finds the end.
        (InUse, "served", "query failed", 1),
        (Closing, "closed", "served", 0),
    ];
    println!("{}", crossed(Fault::HalfClose(ToServer), lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_end_of_what_the_server_says() {
    let lines = [
        (Opening, "Connect(Unreachable)", BROKEN_ONCE, 0),
        (JustUsed, "query failed", "served", 1),
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
        (JustUsed, "query failed", "served", 1),
        (Idle, "served", "served", 0),
        (InUse, "query failed", "served", 0),
        (Closing, "closed", "served", 0),
    ];
    println!("{}", crossed(Fault::Terminate, lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_frozen() {
    let lines = [
        (Opening, "Timeout(Connecting)", SILENT, 0),
        (JustUsed, "gave up", "gave up", 2),
        (Idle, "Timeout(Connecting)", SILENT, 0),
        (InUse, "gave up", SILENT, 0),
        (Closing, "closed", SILENT, 0),
    ];
    println!("{}", crossed(Fault::Freeze, lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_crashes_and_is_started_again() {
    let lines = [
        (Opening, "Connect(Unreachable)", DOWN, 0),
        // Another tenant may have been the one who met a dead connection.
        (JustUsed, "query failed|Connect(Unreachable)", DOWN, 1),
        (Idle, "Connect(Unreachable)", DOWN, 0),
        // What holds the query ends as well, by chance before it does.
        (InUse, "query failed|served", DOWN_OR_DEAD, 1),
        (Closing, "closed", DOWN, 0),
    ];
    println!("{}", crossed(Fault::Crash, lines).await);
}

/// The strangers' places are not to be had. Who has a connection keeps it; who needs one gets the place of another tenant's
/// where that is idle at the moment of a try, and is told of the server's limit at the deadline.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_strangers_have_filled() {
    let by_chance = "served|Limit(Server)";
    let lines = [
        (Opening, by_chance, by_chance, 0),
        (JustUsed, "served", "served", 0),
        (Idle, "served", "served", 0),
        (InUse, "served", "served", 0),
        // The place that it had is free.
        (Closing, "closed", "served", 0),
    ];
    println!("{}", crossed(Fault::Full, lines).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_dropped_with_all_who_are_in_it() {
    let lines = [
        (Opening, "Connect(NoSuchTenant)", NO_DATABASE, 0),
        (JustUsed, "query failed", NO_DATABASE, 1),
        (Idle, "Connect(NoSuchTenant)", NO_DATABASE, 0),
        // What holds the query ends as well, by chance before it does.
        (InUse, "query failed|served", NO_DATABASE_OR_DEAD, 1),
        (Closing, "closed", NO_DATABASE, 0),
    ];
    println!("{}", crossed(Fault::DropDatabase, lines).await);
}

/// Who is logged in stays so.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_was_changed() {
    let lines = [
        (Opening, "Connect(Auth)", NOT_LET_IN, 0),
        (JustUsed, "served", "served", 0),
        (Idle, "served", "served", 0),
        (InUse, "served", "served", 0),
        (Closing, "closed", NOT_LET_IN, 0),
    ];
    println!("{}", crossed(Fault::NewPassword, lines).await);
}

/// One, or two where the two threads of the test ask at the very same time.
fn assert_at_most_one_met_it(met_dead: u64) {
    assert!((1..=2).contains(&met_dead), "{met_dead} met a dead connection");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_warm_tenants_are_no_stampede_when_their_server_comes_back() {
    let after = stampede::<Sqlx>(50, false).await.unwrap();
    println!("{after}");
    assert_eq!((after.connects, after.failures), (50, 0), "one connect each");
    assert_at_most_one_met_it(after.met_dead);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_warm_tenants_are_no_stampede_while_their_server_is_down() {
    let after = stampede::<Sqlx>(50, true).await.unwrap();
    println!("{after}");
    assert_eq!(after.connects, 50, "{after}");
    assert_at_most_one_met_it(after.met_dead);
    // Each tenant rests for longer and longer, however often somebody comes.
    assert!(after.failures <= 50 * 10, "{after}");
}
