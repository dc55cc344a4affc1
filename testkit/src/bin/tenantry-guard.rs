//! What `cargo xtask guard` counts: `allocations` says how many an operation makes; `warm N` and `waiting N` run one N
//! times, for a tool that counts instructions. The driver does nothing, so that only the manager's own work is left.
#![allow(clippy::print_stdout, reason = "a command's lines are for the one who ran it")]

use std::alloc::System;
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tenantry_core::{FailureKind, Health, Lease, PoolFactory, TenantId, TenantPools};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// A driver that does nothing.
struct Nothing;

impl PoolFactory for Nothing {
    type Connection = u64;
    type Error = Infallible;

    async fn connect(&self, _: &TenantId) -> Result<u64, Infallible> {
        Ok(0)
    }

    fn health(&self, _: &mut u64) -> Health {
        Health::Clean
    }

    async fn recycle(&self, _: &mut u64) -> Result<(), Infallible> {
        Ok(())
    }

    async fn close(&self, _: u64, _: Duration) {}

    fn classify(&self, error: &Infallible) -> FailureKind {
        match *error {}
    }
}

/// Tenants that take turns: as many as a small service has in use at a time.
const TENANTS: usize = 64;

struct Subject {
    pools: TenantPools<Nothing>,
    names: Vec<String>,
}

impl Subject {
    /// Every tenant has one idle connection, and may have no other.
    async fn new() -> Self {
        let builder = TenantPools::builder(Nothing).max_connections(TENANTS as u32).max_connections_per_tenant(1);
        let Ok(pools) = builder.validate_after_idle(Duration::from_secs(86_400)).build() else {
            unreachable!("good settings")
        };
        let names: Vec<String> = (0..TENANTS).map(|number| format!("tenant_{number:07}")).collect();
        for name in &names {
            drop(pools.acquire(name).await);
        }
        Self { pools, names }
    }

    fn name(&self, turn: usize) -> &str {
        &self.names[turn % TENANTS]
    }

    fn warm(&self, times: usize) {
        (0..times).for_each(|turn| drop(at_once(self.pools.acquire(self.name(turn)))));
    }

    /// One waits for another's only connection, and is handed it.
    fn waiting(&self, times: usize) {
        let context = &mut Context::from_waker(Waker::noop());
        for turn in 0..times {
            let held = at_once(self.pools.acquire(self.name(turn)));
            let mut waiting = pin!(self.pools.acquire(self.name(turn)));
            assert!(waiting.as_mut().poll(context).is_pending());
            drop(held);
            assert!(matches!(waiting.poll(context), Poll::Ready(Ok(_))));
        }
    }
}

fn at_once<E: std::fmt::Debug>(acquire: impl Future<Output = Result<Lease<Nothing>, E>>) -> Lease<Nothing> {
    match pin!(acquire).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(lease)) => lease,
        other => unreachable!("it has an idle connection: {other:?}"),
    }
}

fn allocations(times: usize, run: impl Fn(usize)) -> f64 {
    run(times);
    let region = Region::new(ALLOCATOR);
    run(times);
    let change = region.change();
    (change.allocations + change.reallocations) as f64 / times as f64
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut arguments = std::env::args().skip(1);
    let (what, times) = (arguments.next(), arguments.next().and_then(|times| times.parse().ok()));
    let subject = Subject::new().await;
    match (what.as_deref(), times) {
        (Some("allocations"), None) => {
            println!("warm {:.3}", allocations(10_000, |times| subject.warm(times)));
            println!("waiting {:.3}", allocations(10_000, |times| subject.waiting(times)));
        }
        (Some("warm"), Some(times)) => subject.warm(times),
        (Some("waiting"), Some(times)) => subject.waiting(times),
        _ => unreachable!("allocations | warm N | waiting N"),
    }
}
