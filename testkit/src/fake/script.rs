//! What a fake does when it is called: [`Behavior`]s and the [`Script`]s that hold them; gates are in `gate.rs`.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tenantry_core::{FailureKind, TenantId};

use super::FakeFactory;
use super::gate::{Barrier, Gate};

/// Which of the fake's functions is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Call {
    /// [`PoolFactory::connect`](tenantry_core::PoolFactory::connect).
    Connect,
    /// [`PoolFactory::recycle`](tenantry_core::PoolFactory::recycle).
    Recycle,
    /// [`PoolFactory::close`](tenantry_core::PoolFactory::close).
    Close,
    /// [`NativePool::open_pool`](tenantry_core::NativePool::open_pool).
    OpenPool,
    /// [`NativePool::close_pool`](tenantry_core::NativePool::close_pool).
    ClosePool,
    /// [`Provision::create`](tenantry_core::Provision::create).
    Create,
    /// [`Provision::drop_database`](tenantry_core::Provision::drop_database).
    DropDatabase,
    /// [`FakeConnection::query`](super::FakeConnection::query), which stands for a user's round trip.
    Query,
}

/// What one call does: waits at a gate, waits for a time, and ends in one of four ways.
///
/// ```
/// # use std::time::Duration;
/// # use tenantry_core::FailureKind;
/// # use tenantry_testkit::Behavior;
/// let slow = Behavior::after(Duration::from_millis(20));
/// let slow_and_refused = Behavior::fails(FailureKind::Auth).delayed(Duration::from_millis(20));
/// ```
#[derive(Debug, Clone)]
pub struct Behavior {
    gate: Option<Arc<Barrier>>,
    delay: Duration,
    end: End,
    stubborn: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Done,
    Fails(FailureKind),
    Panics,
    Never,
}

impl Behavior {
    const fn ending(end: End) -> Self {
        Self { gate: None, delay: Duration::ZERO, end, stubborn: false }
    }

    /// Succeeds at its first poll. It is what a fake does unless told otherwise, and needs no runtime.
    #[must_use]
    pub const fn instant() -> Self {
        Self::ending(End::Done)
    }

    /// Succeeds after `delay` of tokio's clock: exact where the test has paused it.
    #[must_use]
    pub const fn after(delay: Duration) -> Self {
        Self::ending(End::Done).delayed(delay)
    }

    /// Fails with an error that the fake classifies as `kind`. A close cannot fail: it drops the connection.
    #[must_use]
    pub const fn fails(kind: FailureKind) -> Self {
        Self::ending(End::Fails(kind))
    }

    /// Panics when polled.
    #[must_use]
    pub const fn panics() -> Self {
        Self::ending(End::Panics)
    }

    /// Never ends; a close ends at its bound all the same, unless it is [`stubborn`](Self::stubborn). For a call that
    /// hangs until the test lets it go on, use a [`Gate`].
    #[must_use]
    pub const fn hangs() -> Self {
        Self::ending(End::Never)
    }

    /// Waits for the gate, then succeeds.
    #[must_use]
    pub fn behind(gate: &Gate) -> Self {
        Self::instant().and_behind(gate)
    }

    /// The same, once `gate` has let it through.
    #[must_use]
    pub fn and_behind(mut self, gate: &Gate) -> Self {
        self.gate = Some(gate.barrier());
        self
    }

    /// The same, `delay` later (after the gate, if it has one).
    #[must_use]
    pub const fn delayed(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// For a close: breaks the contract by running on past the time it was given.
    #[must_use]
    pub const fn stubborn(mut self) -> Self {
        self.stubborn = true;
        self
    }

    pub(super) fn is_stubborn(&self) -> bool {
        self.stubborn
    }

    /// Whether it ends without waiting for anything, so that no timer and no runtime is needed.
    pub(super) fn is_immediate(&self) -> bool {
        self.gate.is_none() && self.delay.is_zero() && self.end != End::Never
    }

    pub(super) async fn perform(self, call: Call) -> Result<(), FailureKind> {
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        if !self.delay.is_zero() {
            tokio::time::sleep(self.delay).await;
        }
        match self.end {
            End::Done => Ok(()),
            End::Fails(kind) => Err(kind),
            End::Panics => panic!("the fake was told to panic at {call:?}"),
            End::Never => std::future::pending().await,
        }
    }
}

/// What one kind of call does, of all tenants or of one: made by [`FakeFactory::on`] and [`FakeFactory::on_tenant`].
///
/// A call takes, in this order: the tenant's next one-shot, the next one-shot of all tenants, the tenant's standing
/// behaviour, that of all tenants, [`Behavior::instant`].
#[derive(Debug)]
pub struct Script<'a> {
    pub(super) fake: &'a FakeFactory,
    pub(super) call: Call,
    pub(super) tenant: Option<TenantId>,
}

impl Script<'_> {
    /// Queues a one-shot: one call does this, then the queue goes on.
    pub fn next(&self, behavior: Behavior) -> &Self {
        self.next_few(1, behavior)
    }

    /// Queues the same one-shot `count` times.
    pub fn next_few(&self, count: usize, behavior: Behavior) -> &Self {
        self.edit(|plan| plan.next.extend(std::iter::repeat_n(behavior, count)))
    }

    /// What every call does for which no one-shot is queued.
    pub fn always(&self, behavior: Behavior) -> &Self {
        self.edit(|plan| plan.always = Some(behavior))
    }

    /// Forgets this script: its queue and its standing behaviour.
    pub fn reset(&self) -> &Self {
        self.edit(|plan| *plan = Plan::default())
    }

    /// Holds these calls back from now on, before they do what is scripted, until the gate is released or dropped.
    /// A close is held even past the time it was given, which starts to count once it is let through.
    #[must_use = "dropping the gate releases it"]
    pub fn hold(&self) -> Gate {
        let gate = Gate::new();
        self.fake.shared.lock().plans.hold(self.call, self.tenant.clone(), gate.barrier());
        gate
    }

    fn edit(&self, edit: impl FnOnce(&mut Plan)) -> &Self {
        edit(self.fake.shared.lock().plans.plan(self.call, self.tenant.clone()));
        self
    }
}

#[derive(Debug, Default)]
pub(super) struct Plan {
    next: VecDeque<Behavior>,
    always: Option<Behavior>,
}

#[derive(Debug)]
struct Hold {
    call: Call,
    tenant: Option<TenantId>,
    barrier: Arc<Barrier>,
}

/// Every script of one fake.
#[derive(Debug, Default)]
pub(super) struct Plans {
    plans: HashMap<(Call, Option<TenantId>), Plan>,
    holds: Vec<Hold>,
}

/// What one call has to do: pass these gates, then this.
pub(super) struct Task {
    pub(super) call: Call,
    pub(super) holds: Vec<Arc<Barrier>>,
    pub(super) behavior: Behavior,
}

impl Task {
    pub(super) async fn perform(self) -> Result<(), FailureKind> {
        pass_all(&self.holds).await;
        self.behavior.perform(self.call).await
    }
}

pub(super) async fn pass_all(holds: &[Arc<Barrier>]) {
    for hold in holds {
        hold.pass().await;
    }
}

impl Plans {
    fn plan(&mut self, call: Call, tenant: Option<TenantId>) -> &mut Plan {
        self.plans.entry((call, tenant)).or_default()
    }

    fn hold(&mut self, call: Call, tenant: Option<TenantId>, barrier: Arc<Barrier>) {
        self.holds.push(Hold { call, tenant, barrier });
    }

    pub(super) fn task(&mut self, call: Call, tenant: &TenantId) -> Task {
        self.holds.retain(|hold| !hold.barrier.is_open());
        let concerns = |hold: &&Hold| hold.call == call && hold.tenant.as_ref().is_none_or(|held| held == tenant);
        let holds = self.holds.iter().filter(concerns).map(|hold| Arc::clone(&hold.barrier)).collect();
        Task { call, holds, behavior: self.behavior(call, tenant) }
    }

    fn behavior(&mut self, call: Call, tenant: &TenantId) -> Behavior {
        let keys = [(call, Some(tenant.clone())), (call, None)];
        for key in &keys {
            if let Some(behavior) = self.plans.get_mut(key).and_then(|plan| plan.next.pop_front()) {
                return behavior;
            }
        }
        let always = |key| self.plans.get(key).and_then(|plan| plan.always.clone());
        keys.iter().find_map(always).unwrap_or_else(Behavior::instant)
    }
}
