//! [`TenantPools`]: the async edge around the ledger. One mutex; every command goes through [`Shared::run`], which decides
//! under the lock and acts after it. `acquire.rs` waits, `lease.rs` gives back, `tasks.rs` opens, recycles and closes,
//! `operate.rs` is what operators do.

use std::fmt;
use std::future::{Future, poll_fn};
use std::sync::Arc as StdArc;
use std::task::Poll;

use crate::acquire::{AcquireOptions, acquire, acquire_pool};
use crate::builder::Builder;
use crate::error::{AcquireError, TryAcquireError};
use crate::factory::{NativePool, PoolFactory};
use crate::lease::{Lease, PoolLease, Slot};
use crate::ledger::{Ledger, Moment, NameHasher, Time, TryDecision, Watched};
use crate::log::Log;
use crate::observe::Observers;
use crate::runtime::{Runtime, current_task};
use crate::stats::{Stats, TenantStats};
use crate::sync::{Arc, Mutex, lock};
use crate::under_lock::UnderLock;
use crate::{ServerId, Settings, TenantId};

/// The ledger as this crate uses it: a connection with what is known of it, boxed so that it moves for the price of a pointer.
pub(crate) type ConnectionLedger<F> = Ledger<Box<Slot<F>>, <F as PoolFactory>::Error>;

/// What the handles, the leases and the tasks have in common.
pub(crate) struct Shared<F: PoolFactory> {
    ledger: Mutex<ConnectionLedger<F>>,
    pub(crate) factory: F,
    pub(crate) settings: Settings,
    pub(crate) runtime: Runtime,
    pub(crate) observers: Observers,
    pub(crate) log: Log,
    /// The ledger's own.
    pub(crate) hasher: NameHasher,
}

impl<F: PoolFactory> Shared<F> {
    pub(crate) fn new(factory: F, settings: Settings, runtime: Runtime, observers: Observers) -> Arc<Self> {
        let mut ledger = Ledger::new(settings.clone());
        ledger.attend(observers.attention().max(Log::ATTENTION));
        let log = Log::default();
        let hasher = ledger.name_hasher();
        Arc::new(Self { ledger: Mutex::new(ledger), factory, settings, runtime, observers, log, hasher })
    }

    /// Runs one command under the lock and its actions after it. The time is the coarse one while nobody waits or is told it
    /// (rule 16).
    #[inline]
    pub(crate) fn with<R>(self: &Arc<Self>, command: impl FnOnce(&mut ConnectionLedger<F>, Moment) -> R) -> R {
        let exact = |ledger: &ConnectionLedger<F>| ledger.anyone_waits() || ledger.tells_times();
        self.run(|ledger| if exact(ledger) { self.runtime.now().into() } else { self.runtime.coarse() }, command)
    }

    #[inline]
    fn run<R, T: Copy>(
        self: &Arc<Self>,
        now: impl FnOnce(&ConnectionLedger<F>) -> T,
        command: impl FnOnce(&mut ConnectionLedger<F>, T) -> R,
    ) -> R {
        let under_lock = UnderLock::begin();
        let mut ledger = lock(&self.ledger);
        let now = now(&ledger);
        let result = command(&mut ledger, now);
        // In a model, every state that any schedule reaches is recounted.
        #[cfg(tenantry_loom)]
        ledger.check();
        seeded!(ActsUnderTheLock => self.act(ledger.take_actions()));
        let actions = ledger.has_actions().then(|| ledger.take_actions());
        drop(ledger);
        drop(under_lock);
        if let Some(actions) = actions {
            self.act(actions);
        }
        result
    }

    /// The same at the clock's own time, for commands that are no part of the warm path.
    pub(crate) fn with_now<R>(self: &Arc<Self>, command: impl FnOnce(&mut ConnectionLedger<F>, Time) -> R) -> R {
        let now = self.runtime.now();
        self.run(|_| now, command)
    }

    /// Makes a tenant known. The factory says where it lives, outside the lock.
    pub(crate) fn admit(self: &Arc<Self>, tenant: &TenantId) {
        let server = self.factory.server(tenant);
        self.admit_on(tenant, &server);
    }

    pub(crate) fn admit_on(self: &Arc<Self>, tenant: &TenantId, server: &ServerId) {
        self.with_now(|ledger, now| ledger.admit(tenant.clone(), server, now));
    }

    /// Resolves once the tenant (None: everybody) holds no permit.
    pub(crate) async fn empty(self: &Arc<Self>, tenant: Option<&str>) {
        struct Watch<'a, F: PoolFactory>(&'a Arc<Shared<F>>, Watched);
        impl<F: PoolFactory> Drop for Watch<'_, F> {
            fn drop(&mut self) {
                let Self(shared, watched) = self;
                shared.with_now(|ledger, _| ledger.unwatch(watched));
            }
        }
        let mut watch = Watch(self, Watched::default());
        poll_fn(|context| {
            let (waker, Watch(shared, watched)) = (context.waker().clone(), &mut watch);
            let empty = shared.with_now(|ledger, _| ledger.poll_empty(tenant, watched, waker));
            if empty { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

/// Connections to the databases of many tenants, under one budget. Cheap to clone; all clones are the same manager.
///
/// Dropping the last clone acts as [`close`](Self::close) without waiting: nothing opens any more, idle connections close,
/// pending acquires get [`AcquireError::Closed`], and leases that are out close when they come back.
///
/// Two managers share nothing, not even in one process: each has its own budget.
pub struct TenantPools<F: PoolFactory> {
    pub(crate) shared: Arc<Shared<F>>,
    /// None in a handle that keeps nothing open.
    last: Option<StdArc<CloseOnDrop<F>>>,
}

struct CloseOnDrop<F: PoolFactory>(Arc<Shared<F>>);

impl<F: PoolFactory> Drop for CloseOnDrop<F> {
    fn drop(&mut self) {
        self.0.with_now(|ledger, now| ledger.close(now));
    }
}

impl<F: PoolFactory> Clone for TenantPools<F> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), last: self.last.clone() }
    }
}

impl<F: PoolFactory> fmt::Debug for TenantPools<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stats = self.stats();
        f.debug_struct("TenantPools")
            .field("max", &stats.max)
            .field("open", &stats.open())
            .field("waiting", &stats.waiting)
            .field("closed", &stats.closed)
            .finish_non_exhaustive()
    }
}

impl<F: PoolFactory> TenantPools<F> {
    /// Starts to build a manager over `factory`. See [`Builder`] for the settings.
    pub fn builder(factory: F) -> Builder<F> {
        Builder::new(factory)
    }

    pub(crate) fn new(shared: Arc<Shared<F>>) -> Self {
        let last = Some(StdArc::new(CloseOnDrop(shared.clone())));
        Self { shared, last }
    }

    /// A handle on the same manager which does not keep it open: when the last of the others is dropped the manager closes,
    /// and this one can still read what is left of it. Clones of it are of its kind. For what looks on, such as an endpoint
    /// with statistics: a service should not go on because somebody watches it.
    #[must_use]
    pub fn weak(&self) -> Self {
        Self { shared: self.shared.clone(), last: None }
    }

    /// A connection to the tenant's database, within `acquire_timeout`.
    ///
    /// A tenant with an idle connection is served at once: no round trip, no allocation (but for a name of more than 64
    /// bytes), one lock operation. Otherwise the acquire waits in its tenant's line until a connection of the tenant comes
    /// back, or a permit is free, or can be freed by closing the least recently used idle connection of another tenant.
    ///
    /// # Errors
    /// [`AcquireError`] says which: a bad name, a limit that was short, a failed or slow connect, a tenant that is
    /// unavailable, draining or removed, or a closed manager.
    ///
    /// # Cancel safety
    /// Dropping the future at any moment leaves nothing behind: its place in line is given up, a connection that was set
    /// aside for it goes to the next, and a connect that was started for it goes on for whoever comes.
    #[inline]
    pub fn acquire(
        &self,
        tenant: impl AsRef<str>,
    ) -> impl Future<Output = Result<Lease<F>, AcquireError<F::Error>>> + Send + 'static {
        acquire(self.shared.clone(), tenant.as_ref(), AcquireOptions::new())
    }

    /// [`acquire`](Self::acquire) with options of its own.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire).
    #[inline]
    pub fn acquire_with(
        &self,
        tenant: impl AsRef<str>,
        options: AcquireOptions,
    ) -> impl Future<Output = Result<Lease<F>, AcquireError<F::Error>>> + Send + 'static {
        acquire(self.shared.clone(), tenant.as_ref(), options)
    }

    /// An idle connection now, or not at all. Never opens, evicts or waits; a connection that was idle for longer than
    /// `validate_after_idle` is handed out as it is, as there is no time to ask it.
    ///
    /// # Errors
    /// [`TryAcquireError`], [`NotIdle`](TryAcquireError::NotIdle) above all.
    pub fn try_acquire(&self, tenant: impl AsRef<str>) -> Result<Lease<F>, TryAcquireError> {
        let tenant = tenant.as_ref();
        TenantId::check(tenant)?;
        loop {
            match self.shared.with(|ledger, now| ledger.try_acquire(tenant, current_task(), now)) {
                TryDecision::Take(held) => {
                    if let Ok(lease) = Lease::checked(self.shared.clone(), held) {
                        return Ok(lease);
                    }
                }
                TryDecision::NotIdle => return Err(TryAcquireError::NotIdle),
                TryDecision::Draining => return Err(TryAcquireError::Draining),
                TryDecision::Removed => return Err(TryAcquireError::Removed),
                TryDecision::Closed => return Err(TryAcquireError::Closed),
            }
        }
    }

    /// Recounts the ledger; panics where an invariant does not hold ([`Ledger::check`]). For tests.
    #[doc(hidden)]
    pub fn check(&self) {
        self.shared.with(|ledger, _| ledger.check());
    }

    /// The tasks that a model's threads run.
    #[cfg(tenantry_loom)]
    #[doc(hidden)]
    pub fn tasks(&self) -> crate::runtime::Tasks {
        self.shared.runtime.tasks().clone()
    }

    /// A picture of the whole manager at one moment, from the same counts that decide. Costs as much as one acquire, and a step
    /// for each server, however many tenants are known; [`tenants`](Self::tenants) and [`top_tenants`](Self::top_tenants) have
    /// their numbers.
    pub fn stats(&self) -> Stats {
        self.shared.with_now(|ledger, now| ledger.at(now).stats())
    }

    /// A picture of one tenant; None where it is not known.
    pub fn tenant_stats(&self, tenant: impl AsRef<str>) -> Option<TenantStats> {
        let tenant = tenant.as_ref();
        // Lines of the manager's own have names that no tenant has.
        TenantId::check(tenant).ok()?;
        self.shared.with_now(|ledger, now| ledger.at(now).tenant_stats(tenant))
    }
}

impl<F: NativePool> TenantPools<F> {
    /// The driver's own pool of `max` connections to the tenant's database, for code that insists on one. Its permits are
    /// reserved as a whole, before it is opened, and come back when its last connection is closed.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire). A `max` of 0, or above a cap, is refused at once, with no `retry_after`.
    ///
    /// # Cancel safety
    /// As [`acquire`](Self::acquire): permits that were set aside are free again, a pool that was being opened is closed.
    pub fn acquire_pool(
        &self,
        tenant: impl AsRef<str>,
        max: u32,
    ) -> impl Future<Output = Result<PoolLease<F>, AcquireError<F::Error>>> + Send + 'static {
        acquire_pool(self.shared.clone(), TenantId::new(tenant), max, AcquireOptions::new())
    }

    /// [`acquire_pool`](Self::acquire_pool) with options of its own.
    ///
    /// # Errors
    /// As [`acquire_pool`](Self::acquire_pool).
    ///
    /// # Cancel safety
    /// As [`acquire_pool`](Self::acquire_pool).
    pub fn acquire_pool_with(
        &self,
        tenant: impl AsRef<str>,
        max: u32,
        options: AcquireOptions,
    ) -> impl Future<Output = Result<PoolLease<F>, AcquireError<F::Error>>> + Send + 'static {
        acquire_pool(self.shared.clone(), TenantId::new(tenant), max, options)
    }
}
