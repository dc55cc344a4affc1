//! Workloads without a server: warm, crowded and evicting acquires, and what a tenant weighs.

use std::alloc::System;
use std::hint::black_box;
use std::sync::Arc;

use stats_alloc::Region;
use tokio::runtime::{Builder, Runtime};

use crate::ALLOCATOR;
use crate::contenders::{BareBb8, BareDeadpool, Contender, DashDeadpool, LockBb8, MokaDeadpool, Open, Size, Tenantry};
use crate::floor::Floor;
use crate::measure::{Subject, Taken, Zipf, cpu_time, nanos_each, rounds};
use crate::table::{Table, number};

pub fn names(tenants: usize) -> Arc<[String]> {
    (0..tenants).map(|number| format!("tenant_{number:07}")).collect()
}

fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}

fn two_threads() -> Runtime {
    Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("a runtime")
}

/// A contender whose tenants each have one idle connection, in a runtime of its own.
fn filled<C: Contender>(runtime: &Runtime, names: &[String], size: &Size) -> C {
    runtime.block_on(async {
        let pools = C::new(size);
        for name in names {
            drop(pools.acquire(name).await);
        }
        pools
    })
}

const WARM_TENANTS: usize = 64;

struct Warm<C> {
    runtime: Runtime,
    pools: C,
    names: Arc<[String]>,
}

impl<C: Contender> Warm<C> {
    fn new() -> Self {
        let (runtime, names) = (one_thread(), names(WARM_TENANTS));
        let size = Size { tenants: WARM_TENANTS, room: WARM_TENANTS, each: 1, open: None };
        let pools = filled(&runtime, &names, &size);
        Self { runtime, pools, names }
    }

    fn run(&self, times: usize) {
        self.runtime.block_on(async {
            for turn in 0..times {
                drop(black_box(self.pools.acquire(&self.names[turn % WARM_TENANTS]).await));
            }
        });
    }

    fn allocations(&self) -> f64 {
        const TIMES: usize = 10_000;
        self.run(TIMES);
        let region = Region::new(ALLOCATOR);
        self.run(TIMES);
        let change = region.change();
        (change.allocations + change.reallocations) as f64 / TIMES as f64
    }
}

/// So many acquires and releases, for a tool that counts instructions.
pub fn warm_only(contender: usize, times: usize) {
    match contender {
        0 => Warm::<DashDeadpool>::new().run(times),
        1 => Warm::<LockBb8>::new().run(times),
        2 => Warm::<MokaDeadpool>::new().run(times),
        3 => Warm::<BareDeadpool>::new().run(times),
        4 => Warm::<BareBb8>::new().run(times),
        5 => Warm::<Tenantry>::new().run(times),
        _ => Warm::<Floor>::new().run(times),
    }
}

/// A line of the report for each contender: its cost beside that of `DashMap + deadpool`, the first, and of the floor, the last.
fn compared(taken: &[Taken], table: &mut Table, more: impl Fn(usize) -> Vec<String>) {
    let floor = taken.last().map_or(f64::NAN, |floor| floor.ratio);
    for (index, Taken { name, median, ratio }) in taken.iter().enumerate() {
        let cells = [name.clone(), number(*median), number(*ratio), number(ratio / floor)];
        table.row(cells.into_iter().chain(more(index)));
    }
}

pub fn warm(rounds_of: usize) -> String {
    const TIMES: usize = 20_000;
    macro_rules! subjects {
        ($($contender:ty),*) => {{
            let mut allocations = Vec::new();
            let mut subjects = Vec::new();
            $(
                let warm = Warm::<$contender>::new();
                allocations.push(warm.allocations());
                subjects.push(Subject::new(<$contender>::NAME, move || nanos_each(TIMES, || warm.run(TIMES))));
            )*
            (allocations, rounds(subjects, rounds_of))
        }};
    }
    let (allocations, taken) = subjects!(DashDeadpool, LockBb8, MokaDeadpool, BareDeadpool, BareBb8, Tenantry, Floor);
    let instructions: Vec<f64> =
        (0..taken.len()).map(|contender| instructions(contender).unwrap_or(f64::NAN)).collect();
    let mut table = Table::new(&[
        "",
        "ns",
        "to DashMap + deadpool",
        "to the floor",
        "allocations",
        "instructions",
        "to DashMap + deadpool",
    ]);
    compared(&taken, &mut table, |index| {
        vec![number(allocations[index]), number(instructions[index]), number(instructions[index] / instructions[0])]
    });
    table.text()
}

/// Instructions of one acquire and release, by Valgrind where it is there; from two runs, so that what both cost is no part
/// of it.
fn instructions(contender: usize) -> Option<f64> {
    // A multiple of what a task may do before it has to yield.
    let runs = [2_560_u64, 7_680];
    let file = tempfile::NamedTempFile::new().ok()?;
    let mut totals = runs.iter().map(|times| {
        let mut valgrind = std::process::Command::new("valgrind");
        valgrind.arg("--tool=callgrind").arg(format!("--callgrind-out-file={}", file.path().display()));
        valgrind.arg(std::env::current_exe().ok()?).args(["--warm-only", &contender.to_string(), &times.to_string()]);
        valgrind.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        valgrind.status().ok().filter(|status| status.success())?;
        let counts = std::fs::read_to_string(file.path()).ok()?;
        let total = counts.lines().find_map(|line| line.strip_prefix("summary: ").or(line.strip_prefix("totals: ")))?;
        total.trim().parse::<f64>().ok()
    });
    let (short, long) = (totals.next()??, totals.next()??);
    Some((long - short) / (runs[1] - runs[0]) as f64)
}

const TASKS: usize = 64;
/// Connections of one tenant: nobody waits.
const EACH: usize = 64;

/// Processor time of an acquire and release by 64 tasks on two threads. `hold`: the task yields once while it has the connection.
fn crowd<C: Contender>(tenants: usize, hold: bool) -> Subject<'static> {
    const TIMES: usize = 400;
    let (runtime, names) = (two_threads(), names(tenants));
    let size = Size { tenants, room: (tenants * EACH).min(4_000), each: EACH, open: None };
    let pools: C = filled(&runtime, &names, &size);
    let zipf = Zipf::new(tenants);
    Subject::new(C::NAME, move || {
        let start = cpu_time();
        runtime.block_on(async {
            let tasks: Vec<_> = (0..TASKS)
                .map(|task| {
                    let (pools, names, zipf) = (pools.clone(), names.clone(), zipf.clone());
                    let mut random = fastrand::Rng::with_seed(task as u64);
                    tokio::spawn(async move {
                        for _ in 0..TIMES {
                            let held = pools.acquire(&names[zipf.pick(&mut random)]).await;
                            if hold {
                                tokio::task::yield_now().await;
                            }
                            drop(held);
                        }
                    })
                })
                .collect();
            for task in tasks {
                task.await.expect("no task panics");
            }
        });
        (cpu_time() - start).as_secs_f64() * 1e9 / (TASKS * TIMES) as f64
    })
}

pub fn crowds(rounds_of: usize) -> String {
    let mut text = String::new();
    for (tenants, hold) in [(1, false), (1, true), (1_000, false), (1_000, true)] {
        let subjects = vec![
            crowd::<DashDeadpool>(tenants, hold),
            crowd::<LockBb8>(tenants, hold),
            crowd::<MokaDeadpool>(tenants, hold),
            crowd::<Tenantry>(tenants, hold),
            crowd::<Floor>(tenants, hold),
        ];
        let taken = rounds(subjects, rounds_of);
        let what = if tenants == 1 {
            "one tenant".to_owned()
        } else {
            format!("{} tenants, zipf(1.0)", number(tenants as f64))
        };
        text += &format!("\n{what}, {}:\n\n", if hold { "held across a yield" } else { "given back at once" });
        let mut table = Table::new(&["", "ns of processor time", "to DashMap + deadpool", "to the floor"]);
        compared(&taken, &mut table, |_| Vec::new());
        text += &table.text();
    }
    text
}

/// Microseconds of an acquire that has to make room: four times as many tenants as there is room for, one after the other.
fn churn<C: Contender>(room: usize) -> (Subject<'static>, Arc<Open>) {
    const TIMES: usize = 10_000;
    let (runtime, names, open) = (one_thread(), names(room * 4), Arc::new(Open::default()));
    let size = Size { tenants: room * 4, room, each: 1, open: Some(open.clone()) };
    let pools: C = filled(&runtime, &names, &size);
    let mut turn = 0;
    let subject = Subject::new(C::NAME, move || {
        nanos_each(TIMES, || {
            runtime.block_on(async {
                for _ in 0..TIMES {
                    turn += 1;
                    // An acquire that failed would end the run.
                    drop(black_box(pools.acquire(&names[turn % names.len()]).await));
                }
            });
        }) / 1e3
    });
    (subject, open)
}

pub fn churns(rounds_of: usize) -> String {
    let rooms = [100, 1_000, 10_000];
    let mut rows: Vec<Vec<String>> = Vec::new();
    for room in rooms {
        let (moka, moka_open) = churn::<MokaDeadpool>(room);
        let (tenantry, tenantry_open) = churn::<Tenantry>(room);
        let (floor, floor_open) = churn::<Floor>(room);
        let ledger = crate::ledger_only::churn(room);
        let taken = rounds(vec![moka, tenantry, ledger, floor], rounds_of);
        let opens = [Some(moka_open), Some(tenantry_open), None, Some(floor_open)];
        for (index, (taken_by, open)) in taken.iter().zip(opens).enumerate() {
            if rows.len() == index {
                rows.push(vec![taken_by.name.clone()]);
            }
            let most = open.map_or("-".to_owned(), |open| number(open.most() as f64));
            let to_floor = taken_by.ratio / taken[taken.len() - 1].ratio;
            rows[index].extend([number(taken_by.median), number(to_floor), most]);
        }
    }
    let mut table = Table::new(&[
        "",
        "µs, room for 100",
        "to the floor",
        "most open",
        "µs, 1,000",
        "to the floor",
        "most open",
        "µs, 10,000",
        "to the floor",
        "most open",
    ]);
    rows.into_iter().for_each(|row| table.row(row));
    table.text()
}

fn held(region: &Region<'_, System>) -> f64 {
    let change = region.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}

/// Bytes for each tenant with one idle connection.
fn weight<C: Contender>(tenants: usize) -> f64 {
    let (runtime, names) = (one_thread(), names(tenants));
    let region = Region::new(ALLOCATOR);
    let size = Size { tenants, room: tenants, each: 1, open: None };
    let _pools: C = filled(&runtime, &names, &size);
    held(&region) / tenants as f64
}

pub fn memory() -> String {
    let mut table = Table::new(&["", "bytes for a tenant, of 100,000", "of 1,000,000"]);
    macro_rules! row {
        ($contender:ty, $million:expr) => {
            let million = $million.map_or("-".to_owned(), number);
            table.row([
                format!("{}, one connection idle", <$contender>::NAME),
                number(weight::<$contender>(100_000)),
                million,
            ]);
        };
    }
    let of_million = |million: usize| Some(weight::<Floor>(million));
    row!(DashDeadpool, None::<f64>);
    row!(LockBb8, None::<f64>);
    row!(MokaDeadpool, None::<f64>);
    row!(Tenantry, Some(weight_at_most(1_000_000)));
    row!(Floor, of_million(1_000_000));
    let known = |tenants| number(crate::ledger_only::known(tenants));
    table.row(["tenantry, known, none open".to_owned(), known(100_000), known(1_000_000)]);
    let left = |tenants| number(crate::ledger_only::forgotten(tenants));
    table.row(["tenantry, forgotten".to_owned(), left(100_000), left(1_000_000)]);
    table.text()
}

/// The budget ends below a million: there, the ledger alone.
fn weight_at_most(tenants: usize) -> f64 {
    crate::ledger_only::idle(tenants)
}

/// The ledger's uses at more and more tenants.
pub fn scale(rounds_of: usize) -> String {
    const TENANTS: [usize; 4] = [1_000, 10_000, 100_000, 1_000_000];
    let play = |room: fn(usize) -> usize| {
        rounds(TENANTS.map(|tenants| crate::ledger_only::use_of_many(tenants, room(tenants))).into(), rounds_of)
    };
    let (warm, cold) = (play(|tenants| tenants), play(|_| 100));
    let mut table = Table::new(&["tenants", "ns, warm", "to 1,000", "ns, making room", "to 1,000"]);
    for ((tenants, warm), cold) in TENANTS.iter().zip(&warm).zip(&cold) {
        let times = [warm.median, warm.ratio, cold.median, cold.ratio].map(number);
        table.row(std::iter::once(number(*tenants as f64)).chain(times));
    }
    table.text()
}
