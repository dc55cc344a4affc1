//! How an acquire goes: ask the ledger; take what is idle, or wait in line until the ledger has an answer.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use smallstr::SmallString;
use tracing::Instrument;

use crate::error::{AcquireError, LimitError};
use crate::factory::{NativePool, PoolFactory};
use crate::lease::{Lease, PoolLease, PoolPermits, Slot};
use crate::ledger::{Ask, Decision, Polled, Refusal, Shortage, WaiterKey};
use crate::log::spans;
use crate::pools::Shared;
use crate::runtime::{current_task, time_of_day};
use crate::sync::Arc;
use crate::tasks::open_pool;
use crate::{InvalidTenant, Phase, TenantId};

/// Whom an acquire is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Priority {
    /// Somebody waits for it.
    #[default]
    Foreground,
    /// A sweep over many tenants, a migration, a poller. It stands behind all foreground acquires, holds at most
    /// [`background_share`](crate::Builder::background_share) connections, makes room among its own idle ones (and those that
    /// were idle for [`background_steals_after`](crate::Builder::background_steals_after)), and a connection of its tenant that
    /// it borrows counts as unused all the while.
    Background,
}

/// What one acquire may have of its own.
#[derive(Debug, Clone, Copy, Default)]
#[must_use]
pub struct AcquireOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) priority: Priority,
}

impl AcquireOptions {
    /// Nothing of its own yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long this acquire may take in all, from its first poll. Default: the manager's `acquire_timeout`. Zero: what
    /// is there at once, or a refusal.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Whom this acquire is for. Default: [`Priority::Foreground`]. Pool leases are foreground work: asked for in the
    /// background, one is refused with [`LimitScope::Background`](crate::LimitScope::Background) and a limit of 0.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    #[inline]
    pub(crate) fn ask(self, pool: u32) -> Ask {
        Ask { pool, background: self.priority == Priority::Background, caller: current_task() }
    }
}

/// The name that was asked for, kept inside the future: up to 64 bytes need no allocation. Nobody has checked it yet.
type Name = SmallString<[u8; 64]>;

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) name: Name,
    pub(crate) hash: u64,
}

impl Asked {
    /// Hashed is the caller's own text: neither the copy, nor anything under the lock.
    #[inline]
    pub(crate) fn new<F: PoolFactory>(shared: &Shared<F>, name: &str) -> Self {
        Self { hash: shared.hasher.hash(name), name: name.into() }
    }
}

/// What came of asking.
enum Answer<F: PoolFactory> {
    Connection(Lease<F>),
    Pool(PoolPermits<F>),
}

/// An acquire. Written by hand, as an `async` block would move the name and the result once more.
struct Acquire<F: PoolFactory> {
    /// None once it is in the lease, or in `cold`.
    shared: Option<Arc<Shared<F>>>,
    asked: Asked,
    options: AcquireOptions,
    /// What takes longer than a look. A box keeps the warm future small: the one allocation of the waiting path.
    cold: Option<Pin<Box<dyn Future<Output = Acquired<F>> + Send>>>,
}

type Acquired<F> = Result<Lease<F>, AcquireError<<F as PoolFactory>::Error>>;

#[inline]
pub(crate) fn acquire<F: PoolFactory>(
    shared: Arc<Shared<F>>,
    name: &str,
    options: AcquireOptions,
) -> impl Future<Output = Acquired<F>> + Send + 'static + use<F> {
    let asked = Asked::new(&shared, name);
    Acquire { shared: Some(shared), asked, options, cold: None }
}

impl<F: PoolFactory> Future for Acquire<F> {
    type Output = Acquired<F>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Acquired<F>> {
        if let Some(shared) = &self.shared {
            // The warm path: a name that the ledger knows with an idle connection needs no check.
            seeded!(EvictedAfterLookUp => crate::seeded::look_up(shared, &self.asked.name));
            let ask = self.options.ask(0);
            let held = shared.with(|ledger, now| ledger.acquire_warm(&self.asked.name, self.asked.hash, ask, now));
            let Some(shared) = self.shared.take() else { unreachable!("it was there") };
            let shared = match held {
                Some(held) => match Lease::checked(shared, held) {
                    Ok(lease) => return Poll::Ready(Ok(lease)),
                    Err(shared) => shared,
                },
                None => shared,
            };
            self.turn_cold(shared);
        }
        let Some(cold) = &mut self.cold else { panic!("an acquire is polled after its end") };
        cold.as_mut().poll(context)
    }
}

impl<F: PoolFactory> Acquire<F> {
    #[cold]
    fn turn_cold(&mut self, shared: Arc<Shared<F>>) {
        let name = std::mem::replace(&mut self.asked.name, Name::new());
        self.cold = Some(Box::pin(acquire_cold(shared, name, self.options)));
    }
}

/// Whatever takes longer is worth a look at the clock.
async fn acquire_cold<F: PoolFactory>(
    shared: Arc<Shared<F>>,
    name: Name,
    options: AcquireOptions,
) -> Result<Lease<F>, AcquireError<F::Error>> {
    TenantId::check(&name)?;
    let tenant = || TenantId::checked(&name);
    match ask(&shared, &name, 0, options, |shared: &Arc<Shared<F>>| shared.admit(&tenant())).await {
        Ok(Answer::Connection(lease)) => Ok(lease),
        Ok(Answer::Pool(_)) => unreachable!("a connection was asked for"),
        Err(refusal) => Err(error(&shared, tenant(), refusal)),
    }
}

pub(crate) async fn acquire_pool<F: NativePool>(
    shared: Arc<Shared<F>>,
    tenant: Result<TenantId, InvalidTenant>,
    max: u32,
    options: AcquireOptions,
) -> Result<PoolLease<F>, AcquireError<F::Error>> {
    let tenant = tenant?;
    if max == 0 {
        return Err(AcquireError::Limit(LimitError::nothing_asked(tenant, time_of_day())));
    }
    let (start, timeout) = (shared.runtime.now(), options.timeout.unwrap_or(shared.settings.acquire_timeout));
    let options = options.timeout(timeout);
    let known = |shared: &Arc<Shared<F>>| shared.admit(&tenant);
    match acquire_permits(&shared, tenant.as_str(), max, options, known).await {
        Ok(permits) => {
            let left = timeout.saturating_sub(shared.runtime.now().saturating_sub(start));
            let opened = shared.runtime.within(left, open_pool(permits, tenant.clone())).await;
            opened.unwrap_or_else(|| {
                let waited = shared.runtime.now().saturating_sub(start);
                Err(AcquireError::Timeout { tenant, phase: Phase::Connecting, waited })
            })
        }
        Err(refusal) => Err(error(&shared, tenant, refusal)),
    }
}

/// Permits from a line of that name, which `admit` makes known.
pub(crate) async fn acquire_permits<F: PoolFactory>(
    shared: &Arc<Shared<F>>,
    line: &str,
    permits: u32,
    options: AcquireOptions,
    admit: impl Fn(&Arc<Shared<F>>) + Send,
) -> Result<PoolPermits<F>, Refusal<F::Error>> {
    match ask(shared, line, permits, options, admit).await? {
        Answer::Pool(permits) => Ok(permits),
        Answer::Connection(_) => unreachable!("permits were asked for"),
    }
}

/// What is not served at once has a span around it.
async fn ask<F: PoolFactory>(
    shared: &Arc<Shared<F>>,
    line: &str,
    pool: u32,
    options: AcquireOptions,
    admit: impl Fn(&Arc<Shared<F>>) + Send,
) -> Result<Answer<F>, Refusal<F::Error>> {
    if !cfg!(feature = "tracing") {
        return ask_the_ledger(shared, line, pool, options, admit).await;
    }
    let (span, start) = (spans::acquire(line, pool, options), shared.runtime.now());
    let answer = ask_the_ledger(shared, line, pool, options, admit).instrument(span.clone()).await;
    spans::ended(&span, answer.as_ref().err(), shared.runtime.now().saturating_sub(start));
    answer
}

async fn ask_the_ledger<F: PoolFactory>(
    shared: &Arc<Shared<F>>,
    line: &str,
    pool: u32,
    options: AcquireOptions,
    admit: impl Fn(&Arc<Shared<F>>) + Send,
) -> Result<Answer<F>, Refusal<F::Error>> {
    let ask = options.ask(pool);
    loop {
        match shared.with_now(|ledger, now| ledger.acquire(line, ask, now)) {
            Decision::Take(held) => {
                if let Ok(lease) = Lease::checked(shared.clone(), held) {
                    return Ok(Answer::Connection(lease));
                }
            }
            Decision::Wait(waiter) => {
                let timeout = options.timeout.unwrap_or(shared.settings.acquire_timeout);
                return Waiting { shared, waiter: Some(waiter) }.within(timeout).await;
            }
            Decision::Refuse(refusal) => return Err(refusal),
            Decision::Unknown => admit(shared),
        }
    }
}

/// A place in line. Dropping it gives the place up, and what was set aside for it (rule 8).
struct Waiting<'a, F: PoolFactory> {
    shared: &'a Arc<Shared<F>>,
    /// None once the ledger's answer was collected.
    waiter: Option<WaiterKey>,
}

impl<F: PoolFactory> Waiting<'_, F> {
    async fn within(mut self, timeout: Duration) -> Result<Answer<F>, Refusal<F::Error>> {
        let shared = self.shared;
        let answer = shared.runtime.within(timeout, poll_fn(|context| self.poll(context))).await;
        answer.unwrap_or_else(|| self.give_up())
    }

    fn poll(&mut self, context: &Context<'_>) -> Poll<Result<Answer<F>, Refusal<F::Error>>> {
        let Some(waiter) = self.waiter else { unreachable!("polled after its answer") };
        let waker = context.waker().clone();
        match self.shared.with_now(|ledger, now| ledger.poll(waiter, waker, now)) {
            // The waker of the last poll is dropped here, outside the lock.
            Polled::Pending(_before) => {
                seeded!(WakerInASecondPlace => crate::seeded::keep_waker(self.shared, waiter, context));
                Poll::Pending
            }
            answer => Poll::Ready(self.collect(answer)),
        }
    }

    /// The deadline passed. What was granted at the last moment is taken all the same.
    fn give_up(&mut self) -> Result<Answer<F>, Refusal<F::Error>> {
        let Some(waiter) = self.waiter else { unreachable!("gave up after its answer") };
        let answer = self.shared.with_now(|ledger, now| ledger.give_up(waiter, now));
        self.collect(answer)
    }

    fn collect(&mut self, polled: Polled<Box<Slot<F>>, F::Error>) -> Result<Answer<F>, Refusal<F::Error>> {
        self.waiter = None;
        match polled {
            Polled::Connection(held) => Ok(Answer::Connection(Lease::new(self.shared.clone(), held))),
            Polled::Pool(permits) => Ok(Answer::Pool(PoolPermits::new(self.shared, permits))),
            Polled::Refused(refusal) => Err(refusal),
            Polled::Pending(_) => unreachable!("only an answer is collected"),
        }
    }
}

impl<F: PoolFactory> Drop for Waiting<'_, F> {
    fn drop(&mut self) {
        if let Some(waiter) = self.waiter {
            self.shared.with_now(|ledger, now| ledger.cancel(waiter, now));
        }
    }
}

/// The ledger's "no" as callers see it.
pub(crate) fn error<F: PoolFactory>(
    shared: &Shared<F>,
    tenant: TenantId,
    refusal: Refusal<F::Error>,
) -> AcquireError<F::Error> {
    match refusal {
        Refusal::Limit(shortage) => {
            let Shortage { scope, limit, open, waiting, waited, retry_after, holders, held_by_caller } = *shortage;
            let at = time_of_day();
            if held_by_caller > 0 {
                shared.log.waited_for_itself(&tenant, held_by_caller, waited, shared.runtime.now());
            }
            AcquireError::Limit(LimitError {
                tenant,
                scope,
                limit,
                open,
                waiting,
                waited,
                retry_after,
                at,
                holders,
                held_by_caller,
            })
        }
        Refusal::Timeout { phase, waited } => AcquireError::Timeout { tenant, phase, waited },
        Refusal::Connect { kind, source } => AcquireError::Connect { tenant, kind, source },
        Refusal::Unavailable { kind, retry_after, source } => {
            AcquireError::Unavailable { tenant, kind, retry_after, source }
        }
        Refusal::Draining => AcquireError::Draining { tenant },
        Refusal::Removed => AcquireError::Removed { tenant },
        Refusal::Closed => AcquireError::Closed,
    }
}
