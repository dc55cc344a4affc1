//! Wide scenarios: a crowd of callers, operators who drain, evict, pause and resize, and somebody who aborts tasks, over a
//! driver that fails, hangs and panics; half of them end with a close in the midst of it. All of it in an order that a
//! seed shakes, and that comes again with the seed: every future puts itself off at random polls ([`Shaken`]), on one thread
//! and a paused clock. After each turn of anybody the ledger is recounted.

use std::panic::resume_unwind;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use fastrand::Rng;
use tenantry_core::{FailureKind, Health, Limits, ServerId};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;

use crate::support::{FakeLease, Pools, assert_nothing_lost, manager, ms, secs, within};

const SEEDS: u64 = 200;
const TENANTS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
const CALLS: [Call; 5] = [Call::Connect, Call::Recycle, Call::Close, Call::OpenPool, Call::ClosePool];

/// A task of the scenario: lets others go first as often as its seed says, and recounts after each of its turns.
struct Shaken<F> {
    future: Pin<Box<F>>,
    random: Rng,
    pools: Pools,
}

impl<F: Future> Future for Shaken<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        if self.random.u32(..3) == 0 {
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.future.as_mut().poll(context);
        self.pools.check();
        polled
    }
}

struct Scenario {
    seed: u64,
    random: Rng,
    budget: u32,
    fake: FakeFactory,
    pools: Pools,
}

impl Drop for Scenario {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the scenario of seed {}", self.seed);
        }
    }
}

impl Scenario {
    fn new(seed: u64) -> Self {
        let mut random = Rng::with_seed(seed);
        let budget = random.u32(1..=6);
        let fake = FakeFactory::new();
        fake.place_with(|tenant| ServerId::from(if tenant.as_str() < "d" { "one" } else { "two" }));
        for call in CALLS {
            for _ in 0..random.u32(..60) {
                fake.on(call).next(behavior(&mut random, call));
            }
        }
        let mut builder = manager(&fake, budget)
            .max_connections_per_tenant(random.u32(1..=budget))
            .max_waiters(random.u32(1..60))
            .acquire_timeout(ms(random.u64(1..300)))
            .connect_timeout(ms(30))
            .recycle_timeout(ms(20))
            .close_timeout(ms(40))
            .validate_after_idle(ms(random.u64(..20)));
        if random.bool() {
            builder = builder.max_connections_on("two", random.u32(1..=budget));
        }
        Self { seed, random, budget, pools: builder.build().unwrap(), fake }
    }

    fn shaken<F: Future>(&mut self, future: F) -> Shaken<F> {
        Shaken { future: Box::pin(future), random: self.random.fork(), pools: self.pools.clone() }
    }

    async fn run(mut self) {
        let mut crowd = JoinSet::new();
        let mut tasks = Vec::new();
        for _ in 0..self.random.u32(5..40) {
            let caller = caller(self.pools.clone(), self.random.fork(), self.budget);
            tasks.push(crowd.spawn(self.shaken(caller)));
        }
        for _ in 0..2 {
            let operator = operator(self.pools.clone(), self.random.fork(), self.budget);
            crowd.spawn(self.shaken(operator));
        }
        for _ in 0..self.random.u32(..20) {
            tokio::time::sleep(ms(self.random.u64(..5))).await;
            tasks[self.random.usize(..tasks.len())].abort();
            self.still_within_the_budget();
        }
        if self.random.bool() {
            let closing = self.pools.clone();
            let report = self.shaken(async move { closing.close_within(secs(60)).await }).await;
            assert!(report.is_complete(), "{report:?}");
            self.end(crowd).await;
            assert_eq!(self.fake.open().now, 0);
            return self.fake.assert_no_misuse();
        }
        self.end(crowd).await;
        self.recover();
        // Longer than any circuit, full server or hung call lasts.
        tokio::time::sleep(secs(120)).await;
        let stats = self.pools.stats();
        let busy = [stats.opening, stats.in_use, stats.closing, stats.pool_leased, stats.waiting, stats.overdue];
        assert_eq!((busy, stats.open()), ([0; 6], self.fake.open().now));
        assert_nothing_lost(&self.pools, &self.fake).await;
    }

    /// Everybody's task ends, by itself, aborted, or in the panic that it was meant to have.
    async fn end(&self, mut crowd: JoinSet<()>) {
        while let Some(ended) = crowd.join_next().await {
            if let Err(error) = ended
                && error.is_panic()
                && !error.into_panic().is::<MeantToPanic>()
            {
                panic!("a task of the scenario failed");
            }
        }
        self.still_within_the_budget();
        assert_eq!(self.pools.stats().waiting, 0);
    }

    fn still_within_the_budget(&self) {
        assert!(self.fake.open().most <= u64::from(self.budget), "{} of {}", self.fake.open().most, self.budget);
    }

    /// What operators did is undone, and the driver does what it is asked.
    fn recover(&self) {
        CALLS.iter().for_each(|&call| _ = self.fake.on(call).reset());
        TENANTS.iter().for_each(|tenant| _ = self.pools.resume(tenant));
        ["one", "two"].iter().for_each(|&server| _ = self.pools.unpause(server));
        let all = Limits::new().max_connections(self.budget).max_connections_per_tenant(self.budget);
        self.pools.set_limits(all.max_connections_on("two", self.budget)).unwrap();
    }
}

fn behavior(random: &mut Rng, call: Call) -> Behavior {
    const KINDS: [FailureKind; 5] = [
        FailureKind::ServerFull,
        FailureKind::NoSuchTenant,
        FailureKind::Auth,
        FailureKind::Unreachable,
        FailureKind::Other,
    ];
    let end = match random.u32(..8) {
        0 => Behavior::fails(KINDS[random.usize(..KINDS.len())]),
        1 => Behavior::panics(),
        // A pool that never closes keeps its permits for ever, as it is asked to.
        2 if call != Call::ClosePool => Behavior::hangs(),
        _ => Behavior::instant(),
    };
    end.delayed(ms(random.u64(..5)))
}

struct MeantToPanic;

/// Asks a few times, in every way in which one can ask, and ends in every way in which a holder can.
async fn caller(pools: Pools, mut random: Rng, budget: u32) {
    for _ in 0..random.u32(1..8) {
        tokio::time::sleep(ms(random.u64(..15))).await;
        let tenant = TENANTS[random.usize(..TENANTS.len())];
        let patience = ms(random.u64(..25));
        let lease = match random.u32(..8) {
            0 => pools.try_acquire(tenant).ok(),
            1 => pools.acquire_with(tenant, within(patience)).await.ok(),
            2 => tokio::time::timeout(patience, pools.acquire(tenant)).await.ok().and_then(Result::ok),
            3 => {
                if let Ok(pool) = pools.acquire_pool_with(tenant, random.u32(1..=budget), within(patience * 4)).await {
                    tokio::time::sleep(ms(random.u64(..5))).await;
                    if random.bool() {
                        pool.close().await;
                    }
                }
                None
            }
            _ => pools.acquire(tenant).await.ok(),
        };
        if let Some(lease) = lease {
            assert_eq!(lease.tenant().as_str(), tenant);
            use_it(lease, tenant, &mut random).await;
        }
    }
}

async fn use_it(mut lease: FakeLease, tenant: &str, random: &mut Rng) {
    let using = lease.use_for(tenant);
    tokio::time::sleep(ms(random.u64(..6))).await;
    drop(using);
    match random.u32(..12) {
        0 => lease.discard(),
        1 => lease.mark_dirty(),
        2 => lease.set_health(Health::Broken),
        3 => lease.set_health(Health::Lost),
        4 => lease.panic_when_asked(),
        5 => resume_unwind(Box::new(MeantToPanic)),
        _ => {}
    }
}

async fn operator(pools: Pools, mut random: Rng, budget: u32) {
    for _ in 0..random.u32(2..12) {
        tokio::time::sleep(ms(random.u64(..12))).await;
        let tenant = TENANTS[random.usize(..TENANTS.len())];
        let server = ["one", "two"][random.usize(..2)];
        let some = random.u32(1..=budget);
        match random.u32(..9) {
            0 => drop(pools.evict(tenant)),
            1 => drop(pools.drain(tenant, ms(random.u64(..20))).await),
            2 => drop(pools.remove(tenant, ms(random.u64(..20))).await),
            3 => drop(pools.create(tenant).await),
            4 => drop(pools.resume(tenant)),
            5 => drop(tokio::time::timeout(ms(random.u64(..20)), pools.warm(tenant, some)).await),
            6 => pools.pause(server),
            7 => drop(pools.unpause(server)),
            _ => drop(pools.set_limits(Limits::new().max_connections(some).max_connections_per_tenant(some))),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_shaken_crowd_with_operators_aborts_and_a_failing_driver_keeps_the_budget_and_loses_no_permit() {
    for seed in 0..SEEDS {
        let bounded = tokio::time::timeout(Duration::from_secs(3_600), Scenario::new(seed).run());
        assert!(bounded.await.is_ok(), "seed {seed} does not end");
    }
}
