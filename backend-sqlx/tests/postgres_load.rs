//! The budget under load, as the server counts it: 200 tasks at 50 databases, with callers that go away, queries that are
//! cut off and transactions that nobody ends. What is found wrong is a list of words, which one test here must get.

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Executor};
use support::postgres::{make_databases, options};
use support::{in_time, polled_once};
use tenantry_core::{Lease, Stats, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::servers::{Role, Seen};
use tenantry_testkit::{PrivatePostgres, Sampler};
use tokio::task::JoinSet;

const TENANTS: usize = 50;
const TASKS: u64 = 200;
/// The roles that the loads log in as: one with `CONNECTION LIMIT 20`, one without.
const LIMITED: &str = "limited";
const FREE: &str = "free";
/// The limit.
const PLACES: u32 = 20;
/// Connections of a pool lease.
const POOL: u32 = 3;

type Pools = TenantPools<PostgresFactory>;

/// How the tasks come by their connections.
#[derive(Clone, Copy, PartialEq)]
enum Asks {
    Acquire,
    /// One in twenty asks for a pool of its own.
    AcquireAndPools,
}

/// What is to be loaded, and with what.
#[derive(Clone, Copy)]
struct Plan {
    budget: u32,
    role: &'static str,
    asks: Asks,
    /// How often each task asks.
    rounds: u32,
}

const PLAN: Plan = Plan { budget: PLACES, role: FREE, asks: Asks::Acquire, rounds: 20 };

/// What a load left behind.
struct Outcome {
    asks: Asks,
    /// Errors that a caller saw.
    surfaced: Vec<String>,
    sampled: Seen,
    /// At the end, when nothing is out any more.
    stats: Stats,
    /// Connects of the role in the server's log, the refused ones among them.
    connects: u64,
    /// Those that the server's log says it refused for the role's limit.
    refused: u64,
}

impl Outcome {
    /// What is wrong, in words, where so many connections are allowed.
    fn faults(&self, allowed: u32) -> Vec<String> {
        let mut faults = Vec::new();
        let mut expect = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        let totals = self.stats.totals;
        let most = self.sampled.most;
        expect(self.sampled.samples > 50, format!("only {} samples", self.sampled.samples));
        expect(most > u64::from(allowed) / 2, format!("no load: {most} connections at most"));
        expect(most <= u64::from(allowed), format!("{most} connections at once, {allowed} allowed"));
        expect(self.surfaced.is_empty(), format!("callers saw {:?}", self.surfaced));
        expect(self.refused * 100 <= self.connects, format!("{} of {} connects refused", self.refused, self.connects));
        // What a pool of sqlx's own is told, it keeps to itself.
        if self.asks == Asks::Acquire {
            let saw = (totals.connects + totals.connect_failures, totals.server_full);
            let log = (self.connects, self.refused);
            expect(saw == log, format!("connects and refusals: {saw:?} by the factory, {log:?} by the server's log"));
        }
        expect(
            totals.server_full <= self.refused,
            format!("{} refusals, {} of them in the log", totals.server_full, self.refused),
        );
        expect(self.stats.open() == 0, format!("{} permits did not come back", self.stats.open()));
        faults
    }
}

/// A server with the databases and the roles. One for several loads, since databases are files by the hundred.
async fn server() -> (PrivatePostgres, Arc<[String]>) {
    let server = PrivatePostgres::builder()
        .setting("log_connections", "on")
        // Logins that cost little: the faster they come, the more load they are.
        .setting("password_encryption", "md5")
        .role(Role::new(LIMITED, "secret").connection_limit(PLACES))
        .role(Role::new(FREE, "secret"))
        .start()
        .expect("a server");
    let tenants: Arc<[String]> = (0..TENANTS).map(|number| format!("tenant-{number:02}")).collect();
    make_databases(&server, &tenants).await;
    (server, tenants)
}

/// Runs the load; the role may have run none before.
async fn load((server, tenants): &(PrivatePostgres, Arc<[String]>), plan: Plan) -> Outcome {
    let Plan { budget, role, .. } = plan;
    let factory = PostgresFactory::new(options(server).username(role).password("secret"));
    let pools = TenantPools::builder(factory)
        .max_connections(budget)
        // Nobody is to be refused because the machine is slow.
        .acquire_timeout(Duration::from_secs(600))
        .connect_timeout(Duration::from_secs(60))
        .build()
        .expect("good settings");

    let sampler = Sampler::start(server, Duration::from_millis(1)).await.expect("a sampler");
    let mut tasks = JoinSet::new();
    for seed in 0..TASKS {
        tasks.spawn(task(pools.clone(), tenants.clone(), seed, plan));
    }
    let mut surfaced = Vec::new();
    while let Some(saw) = tasks.join_next().await {
        surfaced.extend(saw.expect("no panic"));
    }
    // Every permit can be had again, all of them at once.
    let places = if role == LIMITED { PLACES } else { budget };
    let all = join_all((0..places as usize).map(|number| pools.acquire(&tenants[number]))).await;
    surfaced.extend(all.iter().filter_map(|lease| lease.as_ref().err().map(ToString::to_string)));
    assert_eq!(pools.stats().in_use, u64::from(places));
    // Its last sample is of this moment.
    let sampled = sampler.stop().await.expect("what it saw");
    drop(all);
    in_time(pools.close()).await;
    server.until(|sample| sample.of_role(role) == 0).await.expect("they go");

    let log = server.log();
    let count = |words: &str| log.matches(words).count() as u64;
    let connects = count(&format!("connection authorized: user={role} "));
    let refused = count(&format!("FATAL:  too many connections for role \"{role}\""));
    let outcome = Outcome { asks: plan.asks, surfaced, sampled, stats: pools.stats(), connects, refused };
    let totals = outcome.stats.totals;
    eprintln!(
        "budget {budget}, role {role}: at most {} of {} samples, {connects} connects, refused {refused} by the log \
         and {} as the factory saw, warm {}, evictions {}, recycles {}",
        outcome.sampled.most,
        outcome.sampled.samples,
        totals.server_full,
        totals.warm_hits + totals.hand_overs,
        totals.evictions,
        totals.recycles,
    );
    outcome
}

/// One user after another, as the seed will have it; the errors that they saw.
async fn task(pools: Pools, tenants: Arc<[String]>, seed: u64, plan: Plan) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut surfaced = Vec::new();
    for _ in 0..plan.rounds {
        let tenant = &tenants[random.usize(..TENANTS)];
        if plan.asks == Asks::AcquireAndPools && random.u32(..20) == 0 {
            surfaced.extend(use_a_pool(&pools, tenant, &mut random).await.err());
            continue;
        }
        let acquire = pools.acquire(tenant);
        let lease = if random.u32(..8) == 0 {
            // The caller goes away, at any moment of it.
            let patience = Duration::from_micros(random.u64(..20_000));
            let Ok(lease) = tokio::time::timeout(patience, acquire).await else { continue };
            lease
        } else {
            acquire.await
        };
        match lease {
            Ok(lease) => surfaced.extend(use_it(lease, &mut random).await.err()),
            Err(error) => surfaced.push(error.to_string()),
        }
    }
    surfaced
}

/// Looks whose database it is, and leaves in one of many ways.
async fn use_it(mut lease: Lease<PostgresFactory>, random: &mut fastrand::Rng) -> Result<(), String> {
    let said = |error: sqlx::Error| error.to_string();
    let database: String =
        sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut *lease).await.map_err(said)?;
    if database != lease.tenant().as_str() {
        return Err(format!("{} was given {database}", lease.tenant()));
    }
    match random.u32(..10) {
        0 => {
            // A query that is cut off.
            let sleep = format!("SELECT pg_sleep({})", random.f64() * 0.02);
            let patience = Duration::from_micros(random.u64(..10_000));
            let query = sqlx::raw_sql(AssertSqlSafe(sleep)).execute(&mut *lease);
            tokio::time::timeout(patience, query).await.unwrap_or(Ok(Default::default())).map_err(said)?;
        }
        1 => drop(polled_once(lease.begin())),
        2 => drop(lease.begin().await.map_err(said)?),
        3 => {
            let mut rows = sqlx::query("SELECT generate_series(1, 10000)").fetch(&mut *lease);
            rows.next().await.expect("the first of many").map_err(said)?;
        }
        4 => lease.discard(),
        5 => {
            lease.execute("BEGIN").await.map_err(said)?;
        }
        _ => {}
    }
    Ok(())
}

/// More at once than the pool has connections, one of them cut off.
async fn use_a_pool(pools: &Pools, tenant: &str, random: &mut fastrand::Rng) -> Result<(), String> {
    let lease = pools.acquire_pool(tenant, POOL).await.map_err(|error| error.to_string())?;
    let ask = || sqlx::query_scalar::<_, String>("SELECT current_database()::text").fetch_one(&*lease);
    polled_once(ask());
    for answer in join_all((0..POOL + 2).map(|_| ask())).await {
        let database = answer.map_err(|error| error.to_string())?;
        if database != tenant {
            return Err(format!("{tenant} was given {database}"));
        }
    }
    if random.bool() {
        lease.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_counts_no_more_than_the_budget_and_refuses_next_to_nobody_where_it_has_just_as_many_places() {
    let server = server().await;
    assert_eq!(load(&server, PLAN).await.faults(PLACES), [""; 0]);
    assert_eq!(load(&server, Plan { role: LIMITED, ..PLAN }).await.faults(PLACES), [""; 0]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_counts_no_more_than_the_budget_and_refuses_next_to_nobody_with_pools_in_it() {
    let server = server().await;
    let plan = Plan { asks: Asks::AcquireAndPools, ..PLAN };
    assert_eq!(load(&server, plan).await.faults(PLACES), [""; 0]);
    assert_eq!(load(&server, Plan { role: LIMITED, ..plan }).await.faults(PLACES), [""; 0]);
}

/// That the checks can fail: the server's log and the factory see what no caller does, and the sampler what neither does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_of_two_more_than_the_server_has_places_is_found_out() {
    let server = server().await;
    let limited = load(&server, Plan { budget: PLACES + 2, role: LIMITED, ..PLAN }).await;
    assert!(limited.refused > 0 && limited.stats.totals.server_full == limited.refused, "{:?}", limited.faults(PLACES));
    assert_eq!(limited.surfaced, [""; 0]);
    assert_eq!(limited.stats.open(), 0);

    let faults = load(&server, Plan { budget: PLACES + 2, rounds: 5, ..PLAN }).await.faults(PLACES);
    assert!(faults.contains(&"22 connections at once, 20 allowed".to_owned()), "{faults:?}");
}
