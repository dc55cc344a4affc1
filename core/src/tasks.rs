//! What runs outside the lock: the ledger's actions, each as a task that owns its permit. Every task holds a token whose
//! `Drop` answers the ledger, so that a panic, or a runtime that goes away, loses no permit.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc as StdArc;
use std::time::Duration;

use tokio::sync::oneshot;
use tracing::Instrument;

use crate::error::AcquireError;
use crate::factory::{NativePool, PoolFactory};
use crate::lease::{PoolLease, PoolPermits, Slot};
use crate::ledger::{Action, Actions, Failure, PermitKey};
use crate::log::spans;
use crate::pools::Shared;
use crate::runtime::random;
use crate::sync::Arc;
use crate::under_lock;
use crate::{Event, FailureKind, Phase, TenantId};

impl<F: PoolFactory> Shared<F> {
    /// Carries out what a command left. Never called under the lock.
    pub(crate) fn act(self: &Arc<Self>, actions: Actions<Box<Slot<F>>, F::Error>) {
        under_lock::assert_outside();
        // Wakers, errors and observers are others' code, which may panic: what holds a permit has its task before. Who is told
        // comes last, as nobody should have to wait for that.
        let (others, ours): (Actions<_, _>, Actions<_, _>) = actions.into_iter().partition(|action| {
            matches!(action, Action::Wake(_) | Action::DropWaker(_) | Action::DropError(_) | Action::Tell(_))
        });
        let mut events = Vec::new();
        for action in ours.into_iter().chain(others) {
            match action {
                Action::Open { permit, tenant } => {
                    let opening = Opening { shared: self.clone(), permit, answered: false };
                    self.runtime.spawn(opening.run(tenant));
                    self.runtime.stir();
                }
                Action::Recycle { permit, connection } => {
                    let recycling = Recycling { shared: self.clone(), permit, slot: Some(connection) };
                    self.runtime.spawn(recycling.run());
                }
                Action::Close { permit, connection } => {
                    let closing = Closing { shared: self.clone(), permit, slot: Some(connection) };
                    self.runtime.spawn(closing.run());
                }
                Action::Wake(waker) => waker.wake(),
                Action::DropWaker(waker) => drop(waker),
                Action::DropError(error) => drop(error),
                Action::Tell(event) => events.push(event),
            }
        }
        events.iter().for_each(|event| self.tell(event));
    }

    /// Whoever wants to know is others' code: its panic is its own.
    fn tell(&self, event: &Event) {
        self.observers.tell(event);
        drop(catch_unwind(AssertUnwindSafe(|| self.log.event(event, || self.runtime.now()))));
    }

    /// A task was dropped before its end. During a panic that concerns its connection alone; otherwise the runtime is
    /// gone, and with it every way to open another.
    fn abandoned(self: &Arc<Self>) {
        if !std::thread::panicking() {
            self.with_now(|ledger, now| ledger.close(now));
        }
    }
}

/// Lets time pass for the ledger, until the manager is closed and empty. One that is dropped before its end means that the
/// runtime is gone: tasks are dropped before timers, so that everybody who waits is told before a timer of theirs could
/// panic.
#[must_use]
pub(crate) struct Maintenance<F: PoolFactory> {
    shared: Arc<Shared<F>>,
    finished: bool,
}

impl<F: PoolFactory> Maintenance<F> {
    pub(crate) fn new(shared: &Arc<Shared<F>>) -> Self {
        Self { shared: shared.clone(), finished: false }
    }

    pub(crate) async fn run(mut self) {
        let period = self.shared.settings.tick_period();
        while !self.finished {
            let quiet = self.shared.with_now(|ledger, _| ledger.is_quiet());
            if quiet {
                self.shared.runtime.sleep_until_stirred(Duration::from_secs(1)).await;
            } else {
                self.shared.runtime.sleep(period).await;
            }
            let (long, now) = self.shared.with_now(|ledger, now| {
                self.finished = ledger.is_closed() && ledger.is_quiet();
                (ledger.tick(now), now)
            });
            self.shared.log.tick(long, now);
        }
    }
}

impl<F: PoolFactory> Drop for Maintenance<F> {
    fn drop(&mut self) {
        if !self.finished {
            self.shared.runtime.is_gone();
            self.shared.with_now(|ledger, now| ledger.close(now));
        }
    }
}

/// A permit in state opening.
#[must_use]
struct Opening<F: PoolFactory> {
    shared: Arc<Shared<F>>,
    permit: PermitKey,
    answered: bool,
}

impl<F: PoolFactory> Opening<F> {
    async fn run(mut self, tenant: TenantId) {
        let (factory, runtime) = (&self.shared.factory, &self.shared.runtime);
        let span = spans::connect(&tenant, || self.shared.with(|ledger, _| ledger.server_of(self.permit)));
        let connect = factory.connect(&tenant).instrument(span.clone());
        // The future of a connect that is too slow is dropped with its socket before the permit is free.
        let outcome = match runtime.within(self.shared.settings.connect_timeout, connect).await {
            Some(Ok(connection)) => Ok(Box::new(Slot::new(connection, tenant, self.permit))),
            Some(Err(error)) => Err(Failure::Error { kind: factory.classify(&error), source: StdArc::new(error) }),
            None => Err(Failure::TimedOut),
        };
        spans::connected(&span, outcome.as_ref().err());
        drop(span);
        self.answered = true;
        let permit = self.permit;
        let chance = random();
        self.shared.with_now(|ledger, now| match outcome {
            Ok(slot) => ledger.opened(permit, slot, chance, now),
            Err(failure) => ledger.open_failed(permit, failure, chance, now),
        });
    }
}

impl<F: PoolFactory> Drop for Opening<F> {
    fn drop(&mut self) {
        seeded!(PanickedConnectKeepsItsPermit => return);
        if !self.answered {
            self.shared.abandoned();
            let chance = random();
            self.shared.with_now(|ledger, now| ledger.open_failed(self.permit, Failure::Panicked, chance, now));
        }
    }
}

/// A permit in state closing, and its connection until the driver has it.
#[must_use]
struct Closing<F: PoolFactory> {
    shared: Arc<Shared<F>>,
    permit: PermitKey,
    slot: Option<Box<Slot<F>>>,
}

impl<F: PoolFactory> Closing<F> {
    async fn run(mut self) {
        if let Some(slot) = self.slot.take() {
            let within = self.shared.settings.close_timeout;
            seeded!(PermitFreedBeforeTheCloseEnds => self.shared.with_now(|ledger, now| ledger.closed(self.permit, now)));
            self.shared.factory.close(slot.connection, within).await;
        }
    }
}

impl<F: PoolFactory> Drop for Closing<F> {
    fn drop(&mut self) {
        // Where no runtime is left the connection is dropped in place (rule 13), before its permit is free, also where the driver
        // panics for want of one.
        let slot = self.slot.take();
        drop(catch_unwind(AssertUnwindSafe(|| drop(slot))));
        self.shared.with_now(|ledger, now| ledger.closed(self.permit, now));
    }
}

/// A permit in state recycling, with its connection.
#[must_use]
struct Recycling<F: PoolFactory> {
    shared: Arc<Shared<F>>,
    permit: PermitKey,
    slot: Option<Box<Slot<F>>>,
}

impl<F: PoolFactory> Recycling<F> {
    async fn run(mut self) {
        let Some(slot) = &mut self.slot else { return };
        let (factory, runtime) = (&self.shared.factory, &self.shared.runtime);
        let limit = self.shared.settings.recycle_timeout;
        let recycled = runtime.within(limit, factory.recycle(&mut slot.connection)).await;
        let permit = self.permit;
        match recycled {
            Some(Ok(())) => {
                if let Some(slot) = self.slot.take() {
                    self.shared.with_now(|ledger, now| ledger.recycled(permit, slot, now));
                }
                return;
            }
            Some(Err(error)) if factory.classify(&error) != FailureKind::Unreachable => {}
            // Lost, or silent, which may be the same: the others are asked before they are handed out.
            Some(Err(_)) | None => self.shared.with_now(|ledger, _| ledger.found_lost(permit)),
        }
        self.into_closing().run().await;
    }

    /// recycling -> closing
    fn into_closing(mut self) -> Closing<F> {
        let closing = Closing { shared: self.shared.clone(), permit: self.permit, slot: self.slot.take() };
        closing.shared.with_now(|ledger, now| ledger.recycle_failed(closing.permit, now));
        closing
    }
}

impl<F: PoolFactory> Drop for Recycling<F> {
    fn drop(&mut self) {
        if let Some(slot) = self.slot.take() {
            let again = Self { shared: self.shared.clone(), permit: self.permit, slot: Some(slot) };
            // After a panic the driver closes it in order; where the runtime is gone the task is dropped at once.
            self.shared.runtime.spawn(again.into_closing().run());
        }
    }
}

/// Runs a driver's work that needs permits in a task of its own, so that whoever stops waiting leaves nothing half done.
/// An answer that nobody waits for any more is dropped.
pub(crate) async fn with_permits<F: PoolFactory, R: Send + 'static, W>(
    permits: PoolPermits<F>,
    limit: Duration,
    work: impl FnOnce(PoolPermits<F>) -> W + Send + 'static,
) -> Result<R, Failure<F::Error>>
where
    W: Future<Output = Result<R, F::Error>> + Send + 'static,
{
    let (answer, answered) = oneshot::channel();
    let shared = permits.shared.clone();
    let task = shared.clone();
    shared.runtime.spawn(async move {
        let outcome = match task.runtime.within(limit, work(permits)).await {
            Some(Ok(result)) => Ok(result),
            Some(Err(error)) => Err(Failure::Error { kind: task.factory.classify(&error), source: StdArc::new(error) }),
            None => Err(Failure::TimedOut),
        };
        drop(answer.send(outcome));
    });
    answered.await.unwrap_or(Err(Failure::Panicked))
}

/// Opens a driver's pool.
pub(crate) async fn open_pool<F: NativePool>(
    permits: PoolPermits<F>,
    tenant: TenantId,
) -> Result<PoolLease<F>, AcquireError<F::Error>> {
    let shared = permits.shared.clone();
    let (limit, whose) = (shared.settings.connect_timeout, tenant.clone());
    let opened = with_permits(permits, limit, async move |permits: PoolPermits<F>| {
        let pool = permits.shared.factory.open_pool(&whose, permits.count()).await?;
        Ok(PoolLease::new(whose, pool, permits))
    });
    opened.await.map_err(|failure| match failure {
        Failure::Error { kind, source } => AcquireError::Connect { tenant, kind, source },
        Failure::TimedOut => AcquireError::Timeout { tenant, phase: Phase::Connecting, waited: limit },
        Failure::Panicked => {
            let retry_after = shared.settings.acquire_timeout;
            AcquireError::Unavailable { tenant, kind: FailureKind::Other, retry_after, source: None }
        }
    })
}

/// Closes a driver's pool in a task. What is returned resolves at its end, and may be dropped.
pub(crate) fn close_pool<F: NativePool>(pool: F::Pool, permits: PoolPermits<F>) -> impl Future<Output = ()> + Send {
    permits.closing();
    let (ended, end) = oneshot::channel::<()>();
    let shared = permits.shared.clone();
    let runtime = shared.clone();
    runtime.runtime.spawn(async move {
        // Dropped last, and last to first: the permits after the pool, the word that it ended after the permits.
        let _ended = ended;
        let permits = permits;
        permits.shared.factory.close_pool(pool).await;
    });
    async move {
        // Never sent: the end is that the sender is gone.
        drop(end.await);
    }
}
