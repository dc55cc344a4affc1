//! A real PostgreSQL server: what is added to one query, and the traffic of a whole service.

mod bouncer;
mod lru;
mod paging;
mod traffic;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use deadpool_postgres::{Manager, Pool as DeadPool};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};
use tenantry::TenantPools;
use tenantry::sqlx::PostgresFactory;
use tenantry_testkit::PrivatePostgres;
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::NoTls;

use crate::measure::{Subject, Zipf, median, percentile, rounds};
use crate::table::{Table, number};
use traffic::{Contender, Outcome};

fn options(server: &PrivatePostgres) -> PgConnectOptions {
    let options = PgConnectOptions::new_without_pgpass().host(server.host()).port(server.port());
    options.username(server.superuser()).password(server.password()).database("postgres").disable_statement_logging()
}

fn tenantry(server: &PrivatePostgres, budget: u32) -> tenantry::Builder<PostgresFactory> {
    TenantPools::builder(PostgresFactory::new(options(server))).max_connections(budget)
}

/// The tenth percentile of one round: what an operation takes while nobody else has the processor.
fn p10(runtime: &Runtime, mut once: impl AsyncFnMut()) -> f64 {
    const TIMES: usize = 200;
    runtime.block_on(async {
        let mut times = Vec::with_capacity(TIMES);
        for _ in 0..TIMES {
            let start = Instant::now();
            once().await;
            times.push(start.elapsed().as_secs_f64() * 1e6);
        }
        percentile(times, 10.0)
    })
}

/// Keeps this thread, and what it starts, on one processor.
struct OneProcessor(CpuSet);

impl OneProcessor {
    fn begin() -> Result<Self> {
        let (all, mut one) = (sched_getaffinity(None)?, CpuSet::new());
        one.set((0..CpuSet::MAX_CPU).find(|&cpu| all.is_set(cpu)).context("no processor")?);
        sched_setaffinity(None, &one)?;
        Ok(Self(all))
    }
}

impl Drop for OneProcessor {
    fn drop(&mut self) {
        let _ = sched_setaffinity(None, &self.0);
    }
}

/// Acquire, `SELECT 1` and release, in microseconds.
pub fn warm() -> Result<String> {
    let _here = OneProcessor::begin()?;
    let server = PrivatePostgres::builder().max_connections(50).start()?;
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _entered = runtime.enter();
    let mut raw = runtime.block_on(options(&server).connect())?;
    let pools = tenantry(&server, 10).build()?;
    runtime.block_on(pools.create("acme"))?;
    let tested = PgPoolOptions::new().connect_lazy_with(options(&server));
    let untested = PgPoolOptions::new().test_before_acquire(false).connect_lazy_with(options(&server));
    let config = server.config("postgres");
    let dead = DeadPool::builder(Manager::new(config.clone(), NoTls)).max_size(10).build()?;
    let (client, connection) = runtime.block_on(config.connect(NoTls))?;
    runtime.spawn(connection);
    let statement = runtime.block_on(client.prepare("SELECT 1"))?;
    const SELECT: &str = "SELECT 1";
    let at = &runtime;
    let with_sqlx = vec![
        Subject::new("sqlx: one connection", || {
            p10(at, async || {
                sqlx::query(SELECT).execute(&mut raw).await.expect("it lives");
            })
        }),
        Subject::new("tenantry", || {
            p10(at, async || {
                let mut lease = pools.acquire("acme").await.expect("there is room");
                sqlx::query(SELECT).execute(&mut *lease).await.expect("it lives");
            })
        }),
        Subject::new("PgPool", || {
            p10(at, async || {
                let mut lease = tested.acquire().await.expect("there is room");
                sqlx::query(SELECT).execute(&mut *lease).await.expect("it lives");
            })
        }),
        Subject::new("PgPool, test_before_acquire(false)", || {
            p10(at, async || {
                let mut lease = untested.acquire().await.expect("there is room");
                sqlx::query(SELECT).execute(&mut *lease).await.expect("it lives");
            })
        }),
    ];
    let with_tokio_postgres = vec![
        Subject::new("tokio-postgres: one connection", || {
            p10(at, async || drop(client.query_one(&statement, &[]).await.expect("it lives")))
        }),
        Subject::new("deadpool-postgres", || {
            p10(at, async || {
                let client = dead.get().await.expect("there is room");
                let statement = client.prepare_cached(SELECT).await.expect("it lives");
                client.query_one(&statement, &[]).await.expect("it lives");
            })
        }),
    ];
    let mut table = Table::new(&["", "µs, p10", "to one connection of its driver"]);
    for subjects in [with_sqlx, with_tokio_postgres] {
        for taken in rounds(subjects, 31) {
            table.row([taken.name, number(taken.median), number(taken.ratio)]);
        }
    }
    Ok(table.text())
}

const DATABASES: usize = 200;
const BUDGET: u32 = 30;
const CLIENTS: usize = 64;
/// A round of a second that takes longer is not counted; nobody else has to wait for it.
const PATIENCE: Duration = Duration::from_secs(10);

fn name(database: usize) -> String {
    format!("t{database:03}")
}

/// A server with the databases of all tenants.
struct Ground {
    runtime: Runtime,
    server: PrivatePostgres,
}

impl Ground {
    fn new() -> Result<Self> {
        let server = PrivatePostgres::builder().max_connections(400).start()?;
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
        runtime.block_on(async {
            let pools = tenantry(&server, 4).build()?;
            for database in 0..DATABASES {
                pools.create(name(database)).await?;
            }
            pools.close().await;
            anyhow::Ok(())
        })?;
        Ok(Self { runtime, server })
    }

    /// With so many connects at once, or as it is by default.
    fn tenantry(&self, max_connecting: Option<u32>) -> Result<Contender> {
        let _entered = self.runtime.enter();
        let builder = tenantry(&self.server, BUDGET);
        let builder = max_connecting.into_iter().fold(builder, |builder, most| builder.max_connecting(most));
        Ok(Contender::Tenantry(builder.build()?))
    }

    fn lru(&self, each: u32) -> Contender {
        Contender::Lru(lru::LruPools::new(options(&self.server), BUDGET, each))
    }
}

/// All contenders' rounds of one kind of traffic: they take turns, a second each.
fn compare(
    ground: &Ground,
    contenders: &[Contender],
    zipf: Option<&Zipf>,
    clients: usize,
    seconds: u64,
) -> Vec<Vec<Outcome>> {
    let mut outcomes: Vec<Vec<Outcome>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..=seconds {
        for (contender, outcomes) in contenders.iter().zip(&mut outcomes) {
            let play = traffic::play(contender, zipf, clients, Duration::from_secs(1), round);
            let outcome = ground.runtime.block_on(async { tokio::time::timeout(PATIENCE, play).await });
            match outcome.context("it hangs").flatten() {
                // The first round warms up.
                Ok(outcome) if round > 0 => outcomes.push(outcome),
                Ok(_) => {}
                Err(error) => println!("{}: {error:#}", contender.name()),
            }
        }
    }
    outcomes
}

/// A service with 64 clients over 200 databases.
pub fn service(seconds: u64) -> Result<String> {
    let ground = Ground::new()?;
    let bouncer = bouncer::Bouncer::start(&ground.server, BUDGET)?;
    let contenders = [
        ground.tenantry(None)?,
        ground.lru(1),
        ground.lru(3),
        Contender::Transactions(bouncer.transactions.clone()),
        Contender::Sessions(Arc::new(bouncer.sessions.clone())),
    ];
    let zipf = Zipf::new(DATABASES);
    let mut text = String::new();
    for (what, zipf) in [("zipf(1.0)", Some(&zipf)), ("uniform", None)] {
        let keep = bouncer.keep(&contenders, CLIENTS);
        ground
            .runtime
            .block_on(async { tokio::time::timeout(PATIENCE * 9, keep).await })
            .context("PgBouncer hangs")
            .flatten()?;
        let outcomes = compare(&ground, &contenders, zipf, CLIENTS, seconds);
        let mut table = Table::new(&[
            "",
            "requests/s",
            "tenantry is",
            "p50, ms",
            "p99, ms",
            "connects per 1,000 requests",
            "LRU needs",
            "the optimum needs",
        ]);
        for (contender, theirs) in contenders.iter().zip(&outcomes) {
            let ratios = outcomes[0].iter().zip(theirs).map(|(ours, theirs)| ours.per_second() / theirs.per_second());
            let of = |measure: fn(&Outcome) -> f64| median(theirs.iter().map(measure).collect());
            let trace: Vec<usize> = theirs.iter().flat_map(|outcome| outcome.trace.iter().copied()).collect();
            let per = if trace.is_empty() { f64::NAN } else { 1_000.0 / trace.len() as f64 };
            let connects: Option<f64> =
                theirs.iter().map(|outcome| outcome.connects.map(|connects| connects as f64)).sum();
            table.row([
                contender.name(),
                number(of(Outcome::per_second)),
                format!("{} times as fast", number(median(ratios.collect()))),
                number(of(|outcome| outcome.percentile(50.0))),
                number(of(|outcome| outcome.percentile(99.0))),
                connects.map_or("-".to_owned(), |connects| number(connects * per)),
                number(paging::lru(&trace, BUDGET as usize) as f64 * per),
                number(paging::optimum(&trace, BUDGET as usize) as f64 * per),
            ]);
        }
        text += &format!("\n{what}:\n\n{}", table.text());
    }
    Ok(text)
}

/// The same against the number of clients.
pub fn clients(seconds: u64) -> Result<String> {
    let ground = Ground::new()?;
    let contenders = [ground.tenantry(None)?, ground.lru(1), ground.tenantry(Some(BUDGET))?];
    let zipf = Zipf::new(DATABASES);
    let mut table = Table::new(&[
        "clients",
        "tenantry, requests/s",
        "connects per 1,000",
        "LRU map of PgPools of 1, requests/s",
        "connects per 1,000",
        "tenantry is",
        "with max_connecting(30)",
        "it is",
    ]);
    for clients in [16, 32, 64, 128, 256, 512] {
        let outcomes = compare(&ground, &contenders, Some(&zipf), clients, seconds);
        let per_second = |index: usize| median(outcomes[index].iter().map(Outcome::per_second).collect());
        let ahead = |ours: usize| {
            let rounds = outcomes[ours].iter().zip(&outcomes[1]);
            let ratios = rounds.map(|(ours, theirs)| ours.per_second() / theirs.per_second());
            format!("{} times as fast", number(median(ratios.collect())))
        };
        let connects = |index: usize| {
            let requests: usize = outcomes[index].iter().map(|outcome| outcome.trace.len()).sum();
            let connects: u64 = outcomes[index].iter().filter_map(|outcome| outcome.connects).sum();
            number(connects as f64 * 1_000.0 / requests as f64)
        };
        table.row([
            clients.to_string(),
            number(per_second(0)),
            connects(0),
            number(per_second(1)),
            connects(1),
            ahead(0),
            number(per_second(2)),
            ahead(2),
        ]);
    }
    Ok(table.text())
}

/// Runs one statement and wants one answer.
async fn select(connection: &mut sqlx::PgConnection) -> Result<()> {
    // The simple protocol, as PgBouncer's transactions know no prepared statements before its version 1.21.
    sqlx::raw_sql("SELECT 1").execute(connection).await.context("a query")?;
    Ok(())
}

async fn connect(options: &PgConnectOptions) -> Result<sqlx::PgConnection> {
    sqlx::PgConnection::connect_with(options).await.context("a connection")
}
