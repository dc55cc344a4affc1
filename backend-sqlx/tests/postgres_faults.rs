//! Faults of a manager that was replaced by tenantry, each as the behaviour that makes it impossible, on a real server.
//! Those of names, databases and passwords are in `postgres_errors.rs`; those that need no server in the testkit's tests.

mod support;

use std::time::Duration;

use futures_util::future::join_all;
use sqlx::Executor;
use support::in_time;
use support::postgres::{Cluster, app, make_databases, server_for_many_logins};
use tenantry_core::{AcquireError, AcquireOptions, Created, LimitError, LimitScope, TenantPools};
use tenantry_sqlx::{Error, PostgresFactory};
use tenantry_testkit::Sampler;
use tenantry_testkit::servers::patient;
use tokio::task::JoinSet;

type Pools = TenantPools<PostgresFactory>;

/// Long enough for a line to move, short for a wait that ends in a refusal.
const SHORT: Duration = Duration::from_millis(100);

fn limit(error: AcquireError<Error>) -> LimitError {
    match error {
        AcquireError::Limit(limit) => limit,
        other => panic!("refused, but not for a limit: {other:?}"),
    }
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("tenant-{number:02}")).collect()
}

/// Fault B1: the budget was checked against what was open when a pool was made, and pools grew later.
#[tokio::test]
async fn pools_that_have_grown_to_their_size_are_within_the_budget() {
    const BUDGET: u32 = 20;
    let (server, options) = server_for_many_logins(app());
    let names = names(8);
    make_databases(&server, &names).await;
    let pools = patient(TenantPools::builder(PostgresFactory::new(options)))
        .max_connections(BUDGET)
        .max_connections_per_tenant(3)
        .build()
        .expect("good settings");
    let sampler = Sampler::start(&server, Duration::from_millis(1)).await.expect("a sampler");

    // Each has opened one connection and may grow to three.
    let mut leases = Vec::new();
    for name in &names[..6] {
        leases.push(in_time(pools.acquire_pool(name, 3)).await.expect("there is room"));
    }
    assert_eq!(pools.stats().pool_leased, 18);
    let in_short = || AcquireOptions::new().timeout(SHORT);
    let refused = in_time(pools.acquire_pool_with(&names[6], 3, in_short())).await.expect_err("two are left");
    assert_eq!(limit(refused).scope, LimitScope::Total);
    let two = join_all([pools.acquire(&names[6]), pools.acquire(&names[7])]);
    let two: Vec<_> = in_time(two).await.into_iter().map(|lease| lease.expect("one of the two")).collect();
    let refused = in_time(pools.acquire_with(&names[6], in_short())).await.expect_err("the last two are out");
    assert_eq!(limit(refused).open, BUDGET);

    let mut grown = Vec::new();
    for lease in &leases {
        grown.extend(in_time(join_all((0..3).map(|_| lease.acquire()))).await);
    }
    assert!(grown.iter().all(Result::is_ok));
    let seen = sampler.stop().await.expect("what it saw");
    assert_eq!(seen.most, u64::from(BUDGET), "{seen:?}");
    drop((grown, two));
}

/// Fault B1, as its users met it: slow queries of more tenants than there are connections, and creation beside them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_queries_of_many_tenants_and_creations_stay_within_the_servers_places() {
    const PLACES: u32 = 20;
    let (server, options) = server_for_many_logins(app().connection_limit(PLACES));
    let names = names(30);
    make_databases(&server, &names).await;
    let pools = patient(TenantPools::builder(PostgresFactory::new(options)))
        .max_connections(PLACES)
        .max_connections_per_tenant(3)
        .acquire_timeout(Duration::from_secs(600))
        .build()
        .expect("good settings");
    let sampler = Sampler::start(&server, Duration::from_millis(1)).await.expect("a sampler");
    let mut tasks = JoinSet::new();
    for number in 0..90 {
        let (pools, name) = (pools.clone(), names[number % 30].clone());
        tasks.spawn(async move {
            let mut lease = pools.acquire(&name).await.expect("a lease");
            lease.execute("SELECT pg_sleep(0.05)").await.expect("slow, and well");
        });
    }
    for number in 0..3 {
        let pools = pools.clone();
        tasks.spawn(async move {
            assert_eq!(pools.create(format!("new-{number}")).await.expect("in its turn"), Created::New);
        });
    }
    while let Some(ended) = tasks.join_next().await {
        ended.expect("nobody is refused");
    }
    in_time(pools.close()).await;
    let seen = sampler.stop().await.expect("what it saw");
    // That the sampler saw the load is not a matter of how many samples there were.
    let most = seen.most_of_role["app"];
    assert!((u64::from(PLACES / 2)..=u64::from(PLACES)).contains(&most), "{seen:?}");
}

/// Fault B3: a task that held a transaction acquired again for the same tenant, and waited for itself.
#[tokio::test]
async fn a_task_that_acquires_again_is_told_that_it_waits_for_itself_and_its_transaction_goes_on() {
    for cap in [1, 2] {
        let cluster = Cluster::new().await;
        let pools = patient(TenantPools::builder(cluster.factory.clone()))
            .max_connections(5)
            .max_connections_per_tenant(cap)
            .build()
            .expect("good settings");
        let nested = tokio::spawn(async move {
            let mut held = Vec::new();
            for _ in 0..cap {
                held.push(pools.acquire("acme").await.expect("below the cap"));
            }
            let mut transaction = held[0].begin().await.expect("begins");
            transaction.execute("INSERT INTO note (text) VALUES ('kept')").await.expect("a row");
            let again = pools.acquire_with("acme", AcquireOptions::new().timeout(SHORT)).await;
            let told = again.expect_err("it holds all that there are");
            transaction.commit().await.expect("nothing was closed under it");
            drop(held);
            let mut lease = pools.acquire("acme").await.expect("they are free again");
            let rows: i64 =
                sqlx::query_scalar("SELECT count(*) FROM note").fetch_one(&mut *lease).await.expect("a number");
            assert_eq!(rows, 1);
            told
        });
        let told = limit(in_time(nested).await.expect("no panic"));
        assert_eq!((told.scope, told.limit, told.held_by_caller), (LimitScope::Tenant, cap, cap));
        assert!(told.to_string().contains("pass the lease down"), "{told}");
    }
}

/// Comes back whenever it is told to, until it has an answer.
async fn served(pools: &Pools, tenant: &str) -> u64 {
    let mut refusals = 0;
    loop {
        let error = match pools.acquire(tenant).await {
            Ok(mut lease) => match lease.execute("SELECT 1").await {
                Ok(_) => return refusals,
                // The one who met a connection from before.
                Err(_) => continue,
            },
            Err(error) => error,
        };
        refusals += 1;
        tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
    }
}

/// Fault B7: after a short outage every queued caller tried again for itself, without a pause.
#[tokio::test]
async fn an_outage_costs_few_connects_however_many_call_and_all_are_served_after_it() {
    const CALLERS: usize = 200;
    let mut cluster = Cluster::new().await;
    let names = names(5);
    make_databases(&cluster.server, &names).await;
    let pools =
        patient(TenantPools::builder(cluster.factory.clone())).max_connections(20).build().expect("good settings");
    for name in &names {
        drop(in_time(pools.acquire(name)).await.expect("a lease"));
    }
    cluster.server.stop_immediate().expect("stops");

    let calls = || join_all((0..CALLERS).map(|number| pools.acquire(&names[number % 5])));
    // Some have what was idle before, which nobody has found dead yet.
    for mut lease in in_time(calls()).await.into_iter().flatten() {
        lease.execute("SELECT 1").await.expect_err("it is dead");
    }
    let before = pools.stats().totals;
    for answer in in_time(calls()).await {
        let error = answer.expect_err("there is no server");
        assert!(matches!(error, AcquireError::Connect { .. } | AcquireError::Unavailable { .. }), "{error:?}");
    }
    let tried = pools.stats().totals.connect_failures - before.connect_failures;
    assert!(tried <= 2 * 5, "{tried} connects for {CALLERS} callers of 5 tenants");

    cluster.server.start().expect("starts");
    let refusals: u64 =
        in_time(join_all((0..CALLERS).map(|number| served(&pools, &names[number % 5])))).await.iter().sum();
    let tried = pools.stats().totals.connect_failures - before.connect_failures;
    assert!(tried <= 4 * 5, "{tried} connects failed, {refusals} refusals, and the server is there");
}
