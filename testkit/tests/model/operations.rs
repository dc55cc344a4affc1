//! What may happen: every command, in any order. Operations name what they act on by a number that is taken modulo what
//! exists, so that none is ever rejected and a failing sequence shrinks well; where nothing exists, nothing happens.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use proptest::prelude::*;
use proptest::strategy::Union;
use tenantry_core::{FailureKind, Health};

use super::world::{Change, SERVERS, TENANTS, any_change};

#[derive(Clone, Copy, Debug)]
pub(crate) enum Operation {
    /// A caller asks for a connection (`pool` 0) or a pool lease. `polled`: it looks for its answer at once, and so is
    /// woken by it; else at a later `Poll`.
    Acquire {
        tenant: usize,
        pool: u32,
        background: bool,
        caller: u64,
        polled: bool,
    },
    TryAcquire {
        tenant: usize,
        caller: u64,
    },
    /// A waiter looks, whether it has an answer or not.
    Poll {
        waiter: usize,
    },
    /// A waiter that has an answer looks.
    Collect {
        answered: usize,
    },
    Cancel {
        waiter: usize,
    },
    GiveUp {
        waiter: usize,
    },
    Release {
        lease: usize,
        health: Health,
    },
    /// A connect ends well.
    Opened {
        open: usize,
        random: u64,
    },
    OpenFailed {
        open: usize,
        trouble: Trouble,
        random: u64,
    },
    Recycled {
        recycling: usize,
    },
    /// `lost`: the server was found to have ended it.
    RecycleFailed {
        recycling: usize,
        lost: bool,
    },
    /// A close ends.
    Closed {
        closing: usize,
    },
    /// A collected pool lease begins to close: its permits are closing.
    ClosingPool {
        pool: usize,
    },
    /// The close of a pool ends.
    ClosedPool {
        pool: usize,
    },
    /// A pool's permits are given back, whether its close began or not.
    FreePool {
        pool: usize,
    },
    /// Time passes and nobody looks.
    Wait {
        millis: u64,
    },
    /// Time passes, then the maintenance task looks.
    Tick {
        millis: u64,
    },
    Drain {
        tenant: usize,
    },
    Resume {
        tenant: usize,
        server: usize,
    },
    Remove {
        tenant: usize,
    },
    /// A drop of a tenant's database begins.
    DropBegins {
        tenant: usize,
    },
    /// One of those ends.
    DropEnds {
        dropping: usize,
        server: usize,
    },
    /// A tenant's database was made.
    Created {
        tenant: usize,
    },
    Pause {
        server: usize,
    },
    Unpause {
        server: usize,
    },
    SetLimits(Change),
    Evict {
        tenant: usize,
    },
    /// The connections of one or of all end their lifetime.
    Renew {
        tenant: Option<usize>,
    },
    Close,
}

/// An operation as it is drawn. Takes one line in a failing sequence, however that is printed.
#[derive(Clone, Copy)]
pub(crate) struct Step(pub(crate) Operation);

impl fmt::Debug for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// Why a connect comes to nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Trouble {
    Error(FailureKind),
    TimedOut,
    Panicked,
}

fn any_health() -> impl Strategy<Value = Health> {
    prop_oneof![
        6 => Just(Health::Clean),
        2 => Just(Health::Dirty),
        1 => Just(Health::Broken),
        1 => Just(Health::Lost),
    ]
}

fn any_trouble() -> impl Strategy<Value = Trouble> {
    prop_oneof![
        2 => Just(Trouble::Error(FailureKind::Unreachable)),
        6 => Just(Trouble::Error(FailureKind::ServerFull)),
        1 => Just(Trouble::Error(FailureKind::NoSuchTenant)),
        1 => Just(Trouble::Error(FailureKind::InvalidName)),
        1 => Just(Trouble::Error(FailureKind::Auth)),
        1 => Just(Trouble::Error(FailureKind::Other)),
        1 => Just(Trouble::TimedOut),
        1 => Just(Trouble::Panicked),
    ]
}

/// Mostly the length of a connect or a query, sometimes that of a pause.
fn any_pause() -> impl Strategy<Value = u64> {
    prop_oneof![4 => 0_u64..10, 2 => 0_u64..150, 1 => 0_u64..1_500]
}

/// What there is to act on, so that few operations are drawn that find nothing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) struct Exists {
    pub(crate) waiting: bool,
    pub(crate) answered: bool,
    pub(crate) lease: bool,
    pub(crate) open: bool,
    pub(crate) recycling: bool,
    pub(crate) closing: bool,
    pub(crate) pool: bool,
    pub(crate) draining: bool,
    pub(crate) removed: bool,
    pub(crate) dropping: bool,
    pub(crate) paused: bool,
}

pub(crate) fn any_step(exists: Exists) -> BoxedStrategy<Step> {
    thread_local!(static KNOWN: RefCell<HashMap<Exists, BoxedStrategy<Step>>> = RefCell::default());
    KNOWN.with(|known| known.borrow_mut().entry(exists).or_insert_with(|| step_where(exists)).clone())
}

/// Some tenants are busier than others.
fn any_tenant() -> impl Strategy<Value = usize> {
    prop_oneof![0..TENANTS, 0..2_usize]
}

fn acquires() -> [(u32, BoxedStrategy<Operation>); 2] {
    use Operation::Acquire;
    let (tenant, caller) = (any_tenant, || (0_u64..3, prop::bool::weighted(0.9)));
    [
        (
            26,
            (tenant(), prop::bool::weighted(0.3), caller())
                .prop_map(|(tenant, background, (caller, polled))| Acquire {
                    tenant,
                    pool: 0,
                    background,
                    caller,
                    polled,
                })
                .boxed(),
        ),
        (
            3,
            (tenant(), 1_u32..5, prop::bool::weighted(0.05), caller())
                .prop_map(|(tenant, pool, background, (caller, polled))| Acquire {
                    tenant,
                    pool,
                    background,
                    caller,
                    polled,
                })
                .boxed(),
        ),
    ]
}

fn step_where(exists: Exists) -> BoxedStrategy<Step> {
    use Operation::*;
    let tenant = any_tenant;
    let one_of = || 0_usize..8;
    let waiter = exists.waiting || exists.answered;
    let pairs = [
        (2, (tenant(), 0_u64..3).prop_map(|(tenant, caller)| TryAcquire { tenant, caller }).boxed()),
        (2 * u32::from(waiter), one_of().prop_map(|waiter| Poll { waiter }).boxed()),
        (14 * u32::from(exists.answered), one_of().prop_map(|answered| Collect { answered }).boxed()),
        (3 * u32::from(waiter), one_of().prop_map(|waiter| Cancel { waiter }).boxed()),
        (3 * u32::from(waiter), one_of().prop_map(|waiter| GiveUp { waiter }).boxed()),
        (
            16 * u32::from(exists.lease),
            (one_of(), any_health()).prop_map(|(lease, health)| Release { lease, health }).boxed(),
        ),
        (
            16 * u32::from(exists.open),
            (one_of(), any::<u64>()).prop_map(|(open, random)| Opened { open, random }).boxed(),
        ),
        (
            4 * u32::from(exists.open),
            (one_of(), any_trouble(), any::<u64>())
                .prop_map(|(open, trouble, random)| OpenFailed { open, trouble, random })
                .boxed(),
        ),
        (8 * u32::from(exists.recycling), one_of().prop_map(|recycling| Recycled { recycling }).boxed()),
        (
            3 * u32::from(exists.recycling),
            (one_of(), any::<bool>()).prop_map(|(recycling, lost)| RecycleFailed { recycling, lost }).boxed(),
        ),
        (10 * u32::from(exists.closing), one_of().prop_map(|closing| Closed { closing }).boxed()),
        (3 * u32::from(exists.pool), one_of().prop_map(|pool| ClosingPool { pool }).boxed()),
        (3 * u32::from(exists.pool), one_of().prop_map(|pool| ClosedPool { pool }).boxed()),
        (2 * u32::from(exists.pool), one_of().prop_map(|pool| FreePool { pool }).boxed()),
        (6, any_pause().prop_map(|millis| Wait { millis }).boxed()),
        (5, any_pause().prop_map(|millis| Tick { millis }).boxed()),
        (1, tenant().prop_map(|tenant| Drain { tenant }).boxed()),
        (
            1 + 5 * u32::from(exists.draining),
            (tenant(), 0..SERVERS).prop_map(|(tenant, server)| Resume { tenant, server }).boxed(),
        ),
        (1, tenant().prop_map(|tenant| Evict { tenant }).boxed()),
        (1, prop::option::weighted(0.8, tenant()).prop_map(|tenant| Renew { tenant }).boxed()),
        (1, tenant().prop_map(|tenant| Remove { tenant }).boxed()),
        (1, tenant().prop_map(|tenant| DropBegins { tenant }).boxed()),
        (
            4 * u32::from(exists.dropping),
            (one_of(), 0..SERVERS).prop_map(|(dropping, server)| DropEnds { dropping, server }).boxed(),
        ),
        (1 + 4 * u32::from(exists.removed), tenant().prop_map(|tenant| Created { tenant }).boxed()),
        (1, any_change().prop_map(SetLimits).boxed()),
        (1, (0..SERVERS).prop_map(|server| Pause { server }).boxed()),
        (10 * u32::from(exists.paused), (0..SERVERS).prop_map(|server| Unpause { server }).boxed()),
        (1, prop_oneof![9 => Just(Wait { millis: 0 }), 1 => Just(Close)].boxed()),
    ];
    let possible = acquires().into_iter().chain(pairs).filter(|(weight, _)| *weight > 0).collect();
    Union::new_weighted(possible).prop_map(Step).boxed()
}
