//! `--scale`: what an operation of the ledger costs in time, and a tenant in memory, at 1,000 to 1,000,000 tenants. The sizes
//! take turns, so that a busy machine slows all of them; what counts is the ratio to the smallest.

use std::alloc::System;
use std::time::{Duration, Instant};

use fastrand::Rng;
use stats_alloc::Region;
use tenantry_core::ledger::{Action, Ask, Decision, Ledger, PermitKey};
use tenantry_core::{Health, ServerId, Settings, TenantId};

use crate::ALLOCATOR;

const SIZES: [u32; 4] = [1_000, 10_000, 100_000, 1_000_000];
const ROUNDS: usize = 15;
/// Operations in a round of each size.
const OPERATIONS: u32 = 20_000;
/// Connections in the ledger that evicts: few enough that nearly every acquire is cold.
const ROOM: u32 = 100;
const START: Duration = Duration::from_secs(1);

/// As in the manager, a connection is behind a pointer.
pub(crate) type Book = Ledger<Box<u32>, ()>;

/// What is timed, in the order of the table.
const TIMED: [&str; 5] =
    ["warm acquire + release", "cold acquire that evicts", "first sight of a tenant", "tick, nothing due", "stats"];

/// One size.
struct Subject {
    names: Vec<TenantId>,
    /// Every tenant has an idle connection.
    warm: Book,
    /// Every tenant is known, [`ROOM`] connections are idle.
    cold: Book,
    rng: Rng,
    now: Duration,
    /// Nanoseconds for each operation of a round.
    times: [Vec<f64>; TIMED.len()],
    known: f64,
    idle: f64,
    left: f64,
}

fn names(tenants: u32) -> Vec<TenantId> {
    let name = |tenant: u32| TenantId::new(format!("tenant_{tenant:07}"));
    (0..tenants).map(|tenant| name(tenant).unwrap_or_else(|invalid| unreachable!("{invalid}"))).collect()
}

fn settings(budget: u32, tenants: u32) -> Settings {
    let mut settings = Settings::new(budget);
    settings.max_known_tenants = tenants + 1;
    settings.max_connecting = Some(budget);
    (settings.idle_timeout, settings.max_lifetime) = (START * 1_000_000, START * 1_000_000);
    settings.validate_after_idle = START * 1_000_000;
    settings
}

/// Plays the driver: every connect and close is done at once. The connection that was asked for, if one was.
fn serve(book: &mut Book, now: Duration) {
    loop {
        let actions = book.take_actions();
        if actions.is_empty() {
            return;
        }
        for action in actions {
            match action {
                Action::Open { permit, .. } => book.opened(permit, Box::new(0), 0, now),
                Action::Close { permit, .. } => book.closed(permit, now),
                Action::Recycle { permit, connection } => book.recycled(permit, connection, now),
                Action::Wake(_) | Action::DropWaker(_) | Action::DropError(_) | Action::Tell(_) => {}
            }
        }
    }
}

fn take(book: &mut Book, name: &TenantId, now: Duration) -> (PermitKey, Box<u32>) {
    loop {
        match book.acquire(name.as_str(), Ask::default(), now) {
            Decision::Take(held) => return (held.permit, held.connection),
            Decision::Unknown => book.admit(name.clone(), &ServerId::default(), now),
            Decision::Wait(waiter) => {
                serve(book, now);
                let polled = book.poll(waiter, std::task::Waker::noop().clone(), now);
                serve(book, now);
                let tenantry_core::ledger::Polled::Connection(held) = polled else {
                    unreachable!("a connect is done at once: {polled:?}")
                };
                return (held.permit, held.connection);
            }
            Decision::Refuse(refusal) => unreachable!("there is room: {refusal:?}"),
        }
    }
}

fn held(region: &Region<'_, System>) -> f64 {
    let change = region.change();
    (change.bytes_allocated as f64) - (change.bytes_deallocated as f64)
}

/// A ledger that knows so many tenants, [`ROOM`] of which have a connection, and all of which had one.
pub(crate) fn known(tenants: u32) -> Book {
    let mut book = Book::new(settings(ROOM, tenants));
    for name in names(tenants) {
        let (permit, connection) = take(&mut book, &name, START);
        book.release(permit, connection, Health::Clean, START);
        serve(&mut book, START);
    }
    book
}

impl Subject {
    /// Fills the ledgers, and weighs what that takes. The names are weighed with the tenants: a ledger keeps one of each.
    fn new(tenants: u32) -> Self {
        let per_tenant = |bytes: f64| bytes / f64::from(tenants);
        let region = Region::new(ALLOCATOR);
        let names = names(tenants);
        let list = names.capacity() * size_of::<TenantId>();
        let mut cold = Book::new(settings(ROOM, tenants));
        for name in &names {
            cold.admit(name.clone(), &ServerId::default(), START);
        }
        let known = per_tenant(held(&region) - list as f64);

        let region = Region::new(ALLOCATOR);
        let mut warm = Book::new(settings(tenants, tenants));
        for name in &names {
            let (permit, connection) = take(&mut warm, name, START);
            warm.release(permit, connection, Health::Clean, START);
        }
        // The names are shared with the other one.
        let name = size_of::<usize>() * 2 + names.first().map_or(0, |name| name.as_str().len().next_multiple_of(8));
        let idle = per_tenant(held(&region)) + name as f64;
        let left = per_tenant(Self::forgotten(&names));
        Self { names, warm, cold, rng: Rng::with_seed(1), now: START, times: Default::default(), known, idle, left }
    }

    /// What stays behind of tenants that were known and are forgotten, beside the table that the next ones use again.
    fn forgotten(names: &[TenantId]) -> f64 {
        let mut settings = settings(ROOM, 1_000_000);
        settings.forget_after = START;
        let mut book = Book::new(settings);
        let fill = |book: &mut Book, now: Duration| {
            for name in names {
                book.admit(name.clone(), &ServerId::default(), now);
            }
            let mut now = now + START * 2;
            while book.stats().tenants > 0 {
                now += START;
                drop(book.tick(now));
            }
            now
        };
        let now = fill(&mut book, START);
        let region = Region::new(ALLOCATOR);
        fill(&mut book, now);
        held(&region)
    }

    fn name(&mut self) -> usize {
        self.rng.usize(0..self.names.len())
    }

    fn round(&mut self) {
        let picks: Vec<usize> = (0..OPERATIONS).map(|_| self.name()).collect();
        self.now += START;
        let Self { names, warm, cold, now, times, .. } = self;
        let now = *now;
        let mut timed = |index: usize, operations: u32, run: &mut dyn FnMut()| {
            let start = clock();
            run();
            times[index].push(start.elapsed().as_secs_f64() * 1e9 / f64::from(operations));
        };
        timed(0, OPERATIONS, &mut || {
            for &pick in &picks {
                let name = names[pick].as_str();
                let held = warm.acquire_warm(name, warm.name_hasher().hash(name), Ask::default(), now);
                let Some(held) = held else { unreachable!("every tenant has an idle connection") };
                warm.release(held.permit, held.connection, Health::Clean, now);
            }
        });
        timed(1, OPERATIONS, &mut || {
            for &pick in &picks {
                let (permit, connection) = take(cold, &names[pick], now);
                cold.release(permit, connection, Health::Clean, now);
                serve(cold, now);
            }
        });
        // Strangers take the places of the longest quiet, as the table is full.
        let round = now.as_secs();
        let strangers = (0..OPERATIONS / 20).map(|n| TenantId::new(format!("stranger_{round}_{n}")));
        let strangers: Vec<TenantId> = strangers.filter_map(Result::ok).collect();
        timed(2, OPERATIONS / 20, &mut || {
            for name in &strangers {
                cold.admit(name.clone(), &ServerId::default(), now);
            }
        });
        timed(3, 100, &mut || (0..100).for_each(|_| drop(cold.tick(now))));
        timed(4, 1_000, &mut || (0..1_000).for_each(|_| drop(std::hint::black_box(warm.stats()))));
    }
}

pub(crate) fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

/// Measures and prints the table.
pub(crate) fn scale() {
    println!("filling ledgers with {SIZES:?} tenants");
    let mut subjects = SIZES.map(Subject::new);
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            subject.round();
        }
    }
    let line = |what: &str, unit: &str, values: [f64; SIZES.len()]| {
        let shown: String = values.iter().map(|value| format!("{value:>11.0}")).collect();
        let ratios: String = values.iter().skip(1).map(|value| format!("{:>8.2}", value / values[0])).collect();
        println!("{what:28}{unit:>6}{shown}  {}", if values[0] == 0.0 { "" } else { &ratios });
    };
    let head: String = SIZES.iter().map(|size| format!("{size:>11}")).collect();
    println!("\n{:28}{:>6}{head}  ratios to the first", "tenants", "");
    for (index, what) in TIMED.into_iter().enumerate() {
        let mut values = subjects.each_mut().map(|subject| median(&mut subject.times[index]));
        values.iter_mut().for_each(|value| *value = value.max(0.001));
        line(what, "ns", values);
    }
    line("a tenant that is known", "bytes", subjects.each_ref().map(|subject| subject.known));
    line("a tenant with an idle one", "bytes", subjects.each_ref().map(|subject| subject.idle));
    line("a tenant that is forgotten", "bytes", subjects.each_ref().map(|subject| subject.left));
    println!(
        "\nMedians of {ROUNDS} rounds of {OPERATIONS} operations on random tenants, all sizes in turn. Memory is what is allocated, \
         tables' spare room and the name included."
    );
}

#[expect(clippy::disallowed_methods, reason = "this is what measures")]
fn clock() -> Instant {
    Instant::now()
}
