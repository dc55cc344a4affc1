//! What handing connections over is worth on a real server: 100 callers ask for 40 databases at random, 10 connections may
//! be open. With the default bound a connection stays with its tenant's own line for a moment although others wait; with a
//! bound of 0 every turn is exact. Rounds of both alternate on one server.
//!
//! `cargo bench --features postgres --bench postgres_sharing [-- seconds-of-a-round]`
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark measures and tells")]

use std::sync::Arc;
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use tenantry_core::{Counters, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::PrivatePostgres;
use tokio::task::JoinSet;

const TENANTS: usize = 40;
const TASKS: u64 = 100;
const BUDGET: u32 = 10;
const ROUNDS: usize = 3;

/// What one round or several came to.
#[derive(Default)]
struct Sum {
    served: u64,
    connects: u64,
    hand_overs: u64,
    seconds: f64,
    /// The waits of each tenant.
    waits: Vec<Vec<Duration>>,
}

impl Sum {
    fn add(&mut self, waits: Vec<(usize, Duration)>, totals: &Counters, took: Duration) {
        self.waits.resize(TENANTS, Vec::new());
        self.served += waits.len() as u64;
        waits.into_iter().for_each(|(tenant, wait)| self.waits[tenant].push(wait));
        self.connects += totals.connects;
        self.hand_overs += totals.hand_overs;
        self.seconds += took.as_secs_f64();
    }

    fn throughput(&self) -> f64 {
        self.served as f64 / self.seconds
    }

    /// The waits that one in 100 exceeds, of the tenant where that is longest, and of all.
    fn p99(&mut self) -> (Duration, Duration) {
        let p99 = |waits: &mut Vec<Duration>| {
            waits.sort_unstable();
            waits.get(waits.len() * 99 / 100).copied().unwrap_or_default()
        };
        let worst = self.waits.iter_mut().map(p99).max().unwrap_or_default();
        (worst, p99(&mut self.waits.concat()))
    }
}

async fn round(
    server: &PrivatePostgres,
    names: &Arc<[String]>,
    bound: Option<Duration>,
    wide: bool,
    sum: &mut Sum,
    time: Duration,
) {
    let mut builder = TenantPools::builder(factory(server)).max_connections(BUDGET);
    builder = builder.acquire_timeout(Duration::from_secs(600));
    if let Some(bound) = bound {
        builder = builder.handover_bound(bound);
    }
    if wide {
        builder = builder.max_connecting(BUDGET);
    }
    let pools = builder.build().expect("good settings");
    let mut tasks = JoinSet::new();
    let start = Instant::now();
    for seed in 0..TASKS {
        let (pools, names) = (pools.clone(), names.clone());
        tasks.spawn(async move {
            let (mut random, mut waits) = (fastrand::Rng::with_seed(seed), Vec::new());
            while start.elapsed() < time {
                let tenant = random.usize(..TENANTS);
                let asked = Instant::now();
                let mut lease = pools.acquire(&names[tenant]).await.expect("nobody is refused");
                waits.push((tenant, asked.elapsed()));
                sqlx::query("SELECT 1").execute(&mut *lease).await.expect("it lives");
            }
            waits
        });
    }
    let waits: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    let took = start.elapsed();
    sum.add(waits, &pools.stats().totals, took);
    pools.close().await;
}

fn factory(server: &PrivatePostgres) -> PostgresFactory {
    let options = PgConnectOptions::new_without_pgpass().host(server.host()).port(server.port());
    PostgresFactory::new(options.username(server.superuser()).password(server.password()).database("postgres"))
}

#[tokio::main]
async fn main() {
    let seconds = std::env::args().skip(1).find_map(|argument| argument.parse().ok()).unwrap_or(5);
    let time = Duration::from_secs(seconds);
    let server = PrivatePostgres::builder().max_connections(100).start().expect("a server");
    let names: Arc<[String]> = (0..TENANTS).map(|number| format!("tenant-{number:02}")).collect();
    let pools = TenantPools::builder(factory(&server)).max_connections(4).build().expect("good settings");
    for name in names.iter() {
        pools.create(name).await.expect("a new database");
    }
    pools.close().await;

    for wide in [false, true] {
        let (mut on, mut off) = (Sum::default(), Sum::default());
        for _ in 0..ROUNDS {
            round(&server, &names, None, wide, &mut on, time).await;
            round(&server, &names, Some(Duration::ZERO), wide, &mut off, time).await;
        }
        println!("max_connecting {}", if wide { "10, the whole budget" } else { "2, the default" });
        println!(
            "{:>14} {:>12} {:>22} {:>12} {:>16} {:>12}",
            "bound", "acquires/s", "connects per 1,000", "handed over", "worst p99 wait", "p99 wait"
        );
        for (name, sum) in [("default", &mut on), ("0", &mut off)] {
            let (worst, all) = sum.p99();
            let per = 1_000.0 / sum.served as f64;
            println!(
                "{name:>14} {:>12.0} {:>22.0} {:>12.0} {:>13.0} ms {:>9.0} ms",
                sum.throughput(),
                sum.connects as f64 * per,
                sum.hand_overs as f64 * per,
                worst.as_secs_f64() * 1e3,
                all.as_secs_f64() * 1e3
            );
        }
        println!(
            "throughput with the default bound: {:.2} times that without hand-overs\n",
            on.throughput() / off.throughput()
        );
    }
}
