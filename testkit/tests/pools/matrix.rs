//! The cancellation matrix: an acquire dropped at its every moment, crossed with every way in which the driver's part of it
//! can end, and with a manager that is dropped before or after. Rule 8: it leaves no permit, place, promise or grant behind.
//!
//! The small one in full, with one permit; then a thousand random ones, with many acquires at once.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tenantry_core::{AcquireError, FailureKind};
use tenantry_testkit::fake::FakeError;
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;

use crate::support::{FakeLease, Pools, assert_nothing_lost, manager, ms, poll_once, secs, warm};

/// How long each of the driver's calls takes, so that there is a moment within it. Moments are `STEP` apart.
const TAKES: Duration = ms(2);
const STEP: Duration = ms(1);
/// The longest way (recycle fails, close, connect, each of `TAKES`) and one more.
const STEPS: u32 = 8;

type Acquiring = Pin<Box<dyn Future<Output = Result<FakeLease, AcquireError<FakeError>>> + Send>>;

/// What the acquire finds, and so what it has to wait for.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    /// A free permit: a connect.
    Cold,
    /// Another tenant's idle connection: its close, then a connect.
    Victim,
    /// The only permit is out: a release.
    HandOver,
    /// The only permit is out, and comes back dirty: a recycle.
    Dirty,
    /// Its own idle connection, that is to be validated: a recycle.
    Aged,
}

impl Way {
    const ALL: [Self; 5] = [Self::Cold, Self::Victim, Self::HandOver, Self::Dirty, Self::Aged];

    /// The calls of the driver that it leads to.
    fn calls(self) -> &'static [Call] {
        match self {
            Self::Cold => &[Call::Connect],
            Self::Victim => &[Call::Close, Call::Connect],
            Self::HandOver => &[],
            Self::Dirty | Self::Aged => &[Call::Recycle, Call::Connect],
        }
    }
}

/// How a call ends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Ok,
    Error,
    Panic,
    Never,
}

impl End {
    const ALL: [Self; 4] = [Self::Ok, Self::Error, Self::Panic, Self::Never];

    fn behavior(self) -> Behavior {
        match self {
            Self::Ok => Behavior::instant(),
            Self::Error => Behavior::fails(FailureKind::Other),
            Self::Panic => Behavior::panics(),
            Self::Never => Behavior::hangs(),
        }
    }
}

/// When the last handle on the manager is dropped.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Manager {
    Stays,
    GoesBefore,
    GoesAfter,
}

/// When the acquire is dropped.
#[derive(Clone, Copy, Debug)]
struct Moment {
    /// None: it was never polled. Else it was polled at once, and after each of so many steps.
    steps: Option<u32>,
    /// Whether it has looked at what the last step brought it.
    looked: bool,
}

impl Moment {
    fn all() -> impl Iterator<Item = Self> {
        let polled = (0..=STEPS).flat_map(|steps| [true, false].map(|looked| Self { steps: Some(steps), looked }));
        std::iter::once(Self { steps: None, looked: false }).chain(polled)
    }
}

#[derive(Debug)]
struct Case {
    way: Way,
    ends: [End; 2],
    moment: Moment,
    manager: Manager,
}

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in {self:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_acquire_dropped_at_any_moment_leaves_nothing_behind_however_the_driver_ends() {
    let mut cases = 0;
    for way in Way::ALL {
        let ends: Vec<[End; 2]> = match way.calls().len() {
            0 => vec![[End::Ok; 2]],
            1 => End::ALL.map(|end| [end, End::Ok]).to_vec(),
            _ => End::ALL.into_iter().flat_map(|first| End::ALL.map(|second| [first, second])).collect(),
        };
        for ends in ends {
            for moment in Moment::all() {
                for manager in [Manager::Stays, Manager::GoesBefore, Manager::GoesAfter] {
                    one(&Case { way, ends, moment, manager }).await;
                    cases += 1;
                }
            }
        }
    }
    assert_eq!(cases, (4 + 16 + 1 + 16 + 16) * 19 * 3);
}

async fn one(case: &Case) {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).validate_after_idle(ms(100)).acquire_timeout(secs(60)).build().unwrap();
    let mut held = prepare(case.way, &pools).await;
    for (call, end) in case.way.calls().iter().zip(case.ends) {
        fake.on(*call).next(end.behavior().delayed(TAKES));
    }

    let mut acquiring: Acquiring = Box::pin(pools.acquire("acme"));
    let mut served = None;
    let mut look = |acquiring: &mut Acquiring| {
        if served.is_none()
            && let Poll::Ready(answer) = poll_once(acquiring.as_mut())
        {
            served = Some(answer);
        }
    };
    for step in 0..=case.moment.steps.unwrap_or(0) {
        if step > 0 {
            tokio::time::sleep(STEP).await;
        }
        if case.moment.steps.is_some_and(|last| step < last || step == 0 || case.moment.looked) {
            look(&mut acquiring);
        }
        if step == 1 {
            held = None;
        }
    }
    if case.manager == Manager::GoesBefore {
        drop(pools);
        drop((acquiring, served, held));
        return assert_gone(&fake).await;
    }
    drop((acquiring, served, held));
    assert_eq!(pools.stats().waiting, 0, "it waits no more");
    if case.manager == Manager::GoesAfter {
        drop(pools);
        return assert_gone(&fake).await;
    }
    assert_next_is_served(&pools, &fake).await;
}

/// Brings the manager to where the way begins; a lease that is out is the answer.
async fn prepare(way: Way, pools: &Pools) -> Option<FakeLease> {
    match way {
        Way::Cold => None,
        Way::Victim => {
            warm(pools, "victim").await;
            None
        }
        Way::HandOver => Some(pools.acquire("acme").await.unwrap()),
        Way::Dirty => {
            let mut lease = pools.acquire("acme").await.unwrap();
            lease.mark_dirty();
            Some(lease)
        }
        Way::Aged => {
            warm(pools, "acme").await;
            tokio::time::sleep(ms(200)).await;
            None
        }
    }
}

/// An acquire that is dropped after a time. One that looks rarely has often been granted what it never sees.
async fn wait(mut acquiring: Acquiring, patience: Duration, rarely: bool) -> Option<<Acquiring as Future>::Output> {
    if !rarely {
        return tokio::time::timeout(patience, acquiring).await.ok();
    }
    let looks = 1 + patience.as_millis() / 3;
    for _ in 0..looks {
        if let Poll::Ready(answer) = poll_once(acquiring.as_mut()) {
            return Some(answer);
        }
        tokio::time::sleep(ms(3)).await;
    }
    None
}

/// Whoever comes next is served as soon as what hangs has reached its bound, and no permit is lost.
async fn assert_next_is_served(pools: &Pools, fake: &FakeFactory) {
    for call in [Call::Connect, Call::Recycle, Call::Close] {
        fake.on(call).reset();
    }
    drop(pools.acquire("next").await.unwrap());
    assert_nothing_lost(pools, fake).await;
}

/// The last handle is gone: what hangs reaches its bound, and then nothing is open.
async fn assert_gone(fake: &FakeFactory) {
    tokio::time::sleep(secs(20)).await;
    assert_eq!(fake.open().now, 0, "a connection outlived its manager");
    assert!(fake.open().most <= 1);
    fake.assert_no_misuse();
}

#[tokio::test(start_paused = true)]
async fn a_thousand_crowds_dropped_at_random_moments_leave_nothing_behind_whatever_the_driver_does() {
    for seed in 0..1_000 {
        crowd(Seed(seed)).await;
    }
}

struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("in the crowd of seed {}", self.0);
        }
    }
}

async fn crowd(seed: Seed) {
    let mut random = fastrand::Rng::with_seed(seed.0);
    let fake = FakeFactory::new();
    let budget = random.u32(1..=4);
    let builder = manager(&fake, budget).max_connections_per_tenant(random.u32(1..=budget)).acquire_timeout(secs(60));
    let pools = builder.validate_after_idle(ms(random.u64(..10))).build().unwrap();
    for call in [Call::Connect, Call::Recycle, Call::Close, Call::OpenPool, Call::ClosePool] {
        for _ in 0..random.u32(..8) {
            let end = End::ALL[random.usize(..4)];
            // A pool that never closes keeps its permits for ever, and says so: that is the contract.
            let end = if call == Call::ClosePool && end == End::Never { End::Ok } else { end };
            fake.on(call).next(end.behavior().delayed(ms(random.u64(..4))));
        }
    }
    let mut crowd = JoinSet::new();
    for _ in 0..random.u32(1..=10) {
        let tenant = ["a", "b", "c"][random.usize(..3)];
        let (arrives, patience, holds) = (ms(random.u64(..6)), ms(random.u64(..12)), ms(random.u64(..4)));
        let rarely = random.bool();
        let (fate, pool) = (random.u32(..6), (random.u32(..5) == 0).then(|| random.u32(1..=budget)));
        let (acquire, acquire_pool) = (pools.acquire(tenant), pools.acquire_pool(tenant, pool.unwrap_or(1)));
        crowd.spawn(async move {
            tokio::time::sleep(arrives).await;
            if pool.is_some() {
                let leased = tokio::time::timeout(patience, acquire_pool).await;
                tokio::time::sleep(holds).await;
                return drop(leased);
            }
            let Some(Ok(mut lease)) = wait(Box::pin(acquire), patience, rarely).await else { return };
            tokio::time::sleep(holds).await;
            match fate {
                0 => lease.discard(),
                1 => lease.mark_dirty(),
                2 => lease.set_health(tenantry_core::Health::Lost),
                _ => {}
            }
        });
    }
    if random.u32(..3) == 0 {
        tokio::time::sleep(ms(random.u64(..12))).await;
        drop(pools);
        crowd.join_all().await;
        tokio::time::sleep(secs(20)).await;
        assert_eq!(fake.open().now, 0);
        assert!(fake.open().most <= u64::from(budget));
        return fake.assert_no_misuse();
    }
    crowd.join_all().await;
    assert_eq!(pools.stats().waiting, 0);
    assert_next_is_served(&pools, &fake).await;
}
