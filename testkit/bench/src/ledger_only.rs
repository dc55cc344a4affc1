//! The ledger without the manager around it: connects and closes are done at once. What is left is what the decisions cost.

use std::time::Duration;

use stats_alloc::Region;
use tenantry_core::ledger::{Action, Ask, Decision, Ledger, PermitKey, Polled};
use tenantry_core::{Health, ServerId, Settings, TenantId};

use crate::ALLOCATOR;
use crate::measure::{Subject, nanos_each};

/// As in the manager, a connection is behind a pointer.
type Book = Ledger<Box<u32>, ()>;

const START: Duration = Duration::from_secs(1);

fn names(tenants: usize) -> Vec<TenantId> {
    (0..tenants).map(|tenant| TenantId::new(format!("tenant_{tenant:07}")).expect("a good name")).collect()
}

fn book(budget: u32) -> Book {
    let mut settings = Settings::new(budget);
    settings.max_known_tenants = 2_000_000;
    settings.max_connecting = Some(budget);
    settings.forget_after = START;
    for time in [&mut settings.idle_timeout, &mut settings.max_lifetime, &mut settings.validate_after_idle] {
        *time = START * 1_000_000;
    }
    Book::new(settings)
}

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
                _ => {}
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
                drop(book.take_actions());
                let Polled::Connection(held) = polled else { unreachable!("a connect is done at once: {polled:?}") };
                return (held.permit, held.connection);
            }
            Decision::Refuse(refusal) => unreachable!("there is room: {refusal:?}"),
        }
    }
}

/// Microseconds of an acquire that has to make room.
pub fn churn(room: usize) -> Subject<'static> {
    const TIMES: usize = 10_000;
    let (mut book, names, mut turn) = (book(room as u32), names(room * 4), 0);
    Subject::new("tenantry's ledger alone", move || {
        nanos_each(TIMES, || {
            for _ in 0..TIMES {
                turn += 1;
                let (permit, connection) = take(&mut book, &names[turn % names.len()], START);
                book.release(permit, connection, Health::Clean, START);
                serve(&mut book, START);
            }
        }) / 1e3
    })
}

/// Nanoseconds of a use of one tenant at random, of so many that are known and have been used once.
pub fn use_of_many(tenants: usize, room: usize) -> Subject<'static> {
    const TIMES: usize = 10_000;
    let (mut book, names) = (book(room as u32), names(tenants));
    let mut once = move |tenant: usize| {
        let (permit, connection) = take(&mut book, &names[tenant], START);
        book.release(permit, connection, Health::Clean, START);
        serve(&mut book, START);
    };
    (0..tenants).for_each(&mut once);
    let mut random = fastrand::Rng::with_seed(1);
    Subject::new("ledger", move || nanos_each(TIMES, || (0..TIMES).for_each(|_| once(random.usize(..tenants)))))
}

fn held(region: &Region<'_, std::alloc::System>) -> f64 {
    let change = region.change();
    change.bytes_allocated as f64 - change.bytes_deallocated as f64
}

/// Bytes of a tenant that is known and holds nothing, its name included.
pub fn known(tenants: usize) -> f64 {
    let region = Region::new(ALLOCATOR);
    let mut book = book(100);
    for tenant in 0..tenants {
        let name = TenantId::new(format!("tenant_{tenant:07}")).expect("a good name");
        book.admit(name, &ServerId::default(), START);
    }
    held(&region) / tenants as f64
}

/// Bytes of a tenant with one idle connection, its name included.
pub fn idle(tenants: usize) -> f64 {
    let region = Region::new(ALLOCATOR);
    let mut book = book(tenants as u32);
    for tenant in 0..tenants {
        let name = TenantId::new(format!("tenant_{tenant:07}")).expect("a good name");
        let (permit, connection) = take(&mut book, &name, START);
        book.release(permit, connection, Health::Clean, START);
    }
    held(&region) / tenants as f64
}

/// Bytes that stay behind of a tenant that was known and is forgotten, beside the table that the next ones use again.
pub fn forgotten(tenants: usize) -> f64 {
    let (mut book, names) = (book(100), names(tenants));
    let mut now = START;
    let mut fill = |book: &mut Book| {
        for name in &names {
            book.admit(name.clone(), &ServerId::default(), now);
        }
        while book.stats().tenants > 0 {
            now += START * 2;
            drop(book.tick(now));
        }
    };
    fill(&mut book);
    let region = Region::new(ALLOCATOR);
    fill(&mut book);
    held(&region) / tenants as f64
}
