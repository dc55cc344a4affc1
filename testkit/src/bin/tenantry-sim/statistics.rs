//! `--statistics`: how long a request for statistics holds the lock at 100,000 tenants known, and what an acquire costs beside
//! such requests and without them, in turns.

use std::convert::Infallible;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tenantry_core::{FailureKind, Health, PoolFactory, TenantId, TenantPage, TenantPools, TopBy};
use tokio::runtime::Runtime;

use crate::scale;

const TENANTS: u32 = 100_000;
const BUDGET: u32 = 1_000;
const REPEATS: usize = 20;
const ROUNDS: usize = 30;
const ACQUIRES: u32 = 50_000;

/// A driver that costs nothing.
struct Nothing;

impl PoolFactory for Nothing {
    type Connection = ();
    type Error = Infallible;

    async fn connect(&self, _: &TenantId) -> Result<(), Infallible> {
        Ok(())
    }

    fn health(&self, (): &mut ()) -> Health {
        Health::Clean
    }

    async fn recycle(&self, (): &mut ()) -> Result<(), Infallible> {
        Ok(())
    }

    async fn close(&self, (): (), _: Duration) {}

    fn classify(&self, never: &Infallible) -> FailureKind {
        match *never {}
    }
}

/// What is walked, a stretch at a time, and how long each command of it took, in microseconds. Each walk is made again and
/// again; the shortest time of each stretch is the command's own, the longest has the machine's interruptions in it.
fn holds() {
    println!("{TENANTS} tenants known; microseconds in the ledger, that is under the lock, for one command of a walk");
    let mut book = scale::known(TENANTS);
    let mut rows = Vec::with_capacity(TENANTS as usize);
    let mut found = Vec::with_capacity(TENANTS as usize);
    let all = |times: &[Vec<f64>]| {
        let own = times.iter().map(|times| times.iter().copied().fold(f64::MAX, f64::min)).fold(0.0, f64::max);
        let mut every: Vec<f64> = times.iter().flatten().copied().collect();
        every.sort_by(f64::total_cmp);
        (every[every.len() / 2], own, every[every.len() * 99 / 100], every[every.len() - 1])
    };
    let line = |what: &str, step: &mut dyn FnMut(u32) -> Option<u32>| {
        let mut times: Vec<Vec<f64>> = Vec::new();
        for _ in 0..REPEATS {
            let (mut next, mut stretch) = (Some(0), 0);
            while let Some(from) = next {
                let start = clock();
                next = step(from);
                let took = start.elapsed().as_secs_f64() * 1e6;
                times.resize_with(times.len().max(stretch + 1), Vec::new);
                times[stretch].push(took);
                stretch += 1;
            }
        }
        let (median, own, most, max) = all(&times);
        println!(
            "{what:28}{:>8} commands: median {median:6.1}, longest of its own {own:6.1}, 99 % {most:6.1}, max {max:8.1}",
            times.len()
        );
    };
    line("a page of 100, all pages", &mut |from| {
        rows.clear();
        book.at(Duration::from_secs(2)).tenants_from(from, None, 100, &mut rows)
    });
    line("a search that finds nothing", &mut |from| {
        rows.clear();
        book.tenants_from(from, Some("nobody"), 100, &mut rows)
    });
    for by in [TopBy::InUse, TopBy::Refusals] {
        line(&format!("the top by {by:?}"), &mut |from| {
            found.clear();
            book.measure_from(from, by, 0, &mut found)
        });
    }
    line("stats", &mut |_| {
        drop(std::hint::black_box(book.stats()));
        None
    });
}

/// Nanoseconds that this thread has been on a processor.
fn on_cpu() -> u64 {
    let seen = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    seen.split_whitespace().next().and_then(|time| time.parse().ok()).unwrap_or(0)
}

/// One round: CPU and time of an acquire with its release, in nanoseconds.
fn round(runtime: &Runtime, pools: &TenantPools<Nothing>, names: &[String]) -> [f64; 2] {
    runtime.block_on(async {
        let (start, cpu) = (clock(), on_cpu());
        for _ in 0..ACQUIRES / BUDGET {
            for name in names {
                if let Err(error) = pools.acquire(name).await {
                    unreachable!("it is warm: {error}");
                }
            }
        }
        let each = |nanos: f64| nanos / f64::from(ACQUIRES);
        [each((on_cpu() - cpu) as f64), each(start.elapsed().as_secs_f64() * 1e9)]
    })
}

/// Asks for statistics without a pause.
fn ask(runtime: &Runtime, pools: &TenantPools<Nothing>, over: &AtomicBool, asked: &AtomicU64) {
    while !over.load(Ordering::Relaxed) {
        runtime.block_on(async {
            std::hint::black_box(pools.top_tenants(10, TopBy::InUse).await);
            std::hint::black_box(pools.tenants(TenantPage::new().containing("nobody")).await);
        });
        asked.fetch_add(2, Ordering::Relaxed);
    }
}

fn acquires() {
    let Ok(runtime) = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build() else {
        println!("there is no runtime to be had");
        return;
    };
    let day = Duration::from_secs(24 * 60 * 60);
    let builder = TenantPools::builder(Nothing).runtime(runtime.handle().clone()).max_connections(BUDGET);
    let builder = builder.idle_timeout(day).validate_after_idle(day).max_known_tenants(TENANTS * 2).forget_after(day);
    let pools = builder.build().unwrap_or_else(|error| unreachable!("{error}"));
    let names: Vec<String> = (0..TENANTS).map(|tenant| format!("tenant_{tenant:07}")).collect();
    runtime.block_on(async {
        for name in &names {
            drop(pools.acquire(name).await);
        }
    });
    // The last ones have the connections.
    let warm = &names[(TENANTS - BUDGET) as usize..];
    let (mut without, mut with, asked) = (Vec::new(), Vec::new(), AtomicU64::new(0));
    for _ in 0..ROUNDS {
        without.push(round(&runtime, &pools, warm));
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| ask(&runtime, &pools, &over, &asked));
            with.push(round(&runtime, &pools, warm));
            over.store(true, Ordering::Relaxed);
        });
    }
    println!(
        "\nan acquire with its release, warm, {TENANTS} tenants known, medians of {ROUNDS} rounds of {ACQUIRES} in turns"
    );
    for (what, rounds) in [("alone", &without), ("beside requests", &with)] {
        let [cpu, time] =
            [0, 1].map(|which| scale::median(&mut rounds.iter().map(|round| round[which]).collect::<Vec<_>>()));
        println!("{what:18}{cpu:8.0} ns of CPU, {time:8.0} ns in all");
    }
    println!("{} requests, one after the other without a pause, each over all tenants", asked.into_inner());
}

/// Measures and prints both.
pub(crate) fn statistics() {
    holds();
    acquires();
}

#[expect(clippy::disallowed_methods, reason = "this is what measures")]
fn clock() -> Instant {
    Instant::now()
}
