//! Work over many tenants: [`TenantPools::for_each_tenant`], in the background, with progress, errors by tenant, a way to stop
//! and a way to go on.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::{Future, IntoFuture, pending, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::sync::Arc;
use crate::{AcquireError, AcquireOptions, Lease, PoolFactory, Priority, TenantPools};

/// Why a tenant's part of a sweep came to nothing. `D` is the driver's error, `E` the work's own.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SweepError<D, E> {
    /// There was no connection for it.
    #[error("no connection for the work")]
    Acquire(#[source] AcquireError<D>),
    /// The work says so.
    #[error("the work failed")]
    Work(#[source] E),
    /// The work panicked. The connection was closed or cleaned, as any lease that is dropped in a panic.
    #[error("the work panicked")]
    Panicked,
}

/// How far a sweep is. Told after each tenant.
#[derive(Debug)]
#[non_exhaustive]
pub struct SweepProgress<'a, D, E> {
    /// The tenant that is done with.
    pub tenant: &'a str,
    /// What became of it.
    pub result: Result<(), &'a SweepError<D, E>>,
    /// Tenants done with so far, this one included.
    pub finished: usize,
    /// Of those, the ones that failed.
    pub failed: usize,
    /// Tenants in all.
    pub total: usize,
}

/// What came of a sweep.
#[derive(Debug)]
#[non_exhaustive]
pub struct SweepReport<D, E> {
    /// How many tenants the work was done for.
    pub done: usize,
    /// Those for whom it failed, with the reason, in the order in which they failed.
    pub failed: Vec<(String, SweepError<D, E>)>,
    /// Those whose work was not begun, as the sweep was [stopped](Sweep::stop_when), in the order in which they were given.
    pub remaining: Vec<String>,
}

impl<D, E> SweepReport<D, E> {
    /// Whether the work is done for every tenant.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.remaining.is_empty()
    }

    /// The tenants to begin again with: those that failed, then those that remain.
    #[must_use]
    pub fn unfinished(&self) -> Vec<String> {
        let failed = self.failed.iter().map(|(tenant, _)| tenant);
        failed.chain(&self.remaining).cloned().collect()
    }
}

/// How long the work waits for one tenant's connection, by default.
const PATIENCE: Duration = Duration::from_secs(5 * 60);

type OnProgress<D, E> = Box<dyn FnMut(&SweepProgress<'_, D, E>) + Send>;
type Stop = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Work over many tenants that has not begun yet. Made by [`TenantPools::for_each_tenant`]; awaited, it runs.
#[must_use = "a sweep runs when it is awaited"]
pub struct Sweep<F: PoolFactory, W, E> {
    pools: TenantPools<F>,
    tenants: VecDeque<String>,
    concurrency: usize,
    acquire_timeout: Duration,
    work: Arc<W>,
    on_progress: OnProgress<F::Error, E>,
    stop: Stop,
}

impl<F: PoolFactory, W, E> fmt::Debug for Sweep<F, W, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenants = self.tenants.len();
        f.debug_struct("Sweep")
            .field("tenants", &tenants)
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}

impl<F: PoolFactory> TenantPools<F> {
    /// Runs `work` once for each tenant, on a connection of the tenant's, for at most `concurrency` tenants at once (0 counts as
    /// 1), in the [background](Priority::Background): at most [`background_share`](crate::Builder::background_share) connections
    /// are in its hands, and users go first.
    ///
    /// The result is a [`Sweep`], which runs when it is awaited. A tenant that fails is written down, and the sweep goes on.
    ///
    /// ```
    /// # use tenantry_core as tenantry;
    /// # async fn sweep<F: tenantry::PoolFactory>(pools: tenantry::TenantPools<F>, tenants: Vec<String>) {
    /// let report = pools
    ///     .for_each_tenant(tenants, 4, |lease| async move {
    ///         println!("at work for {}", lease.tenant());
    ///         Ok::<(), std::io::Error>(())
    ///     })
    ///     .on_progress(|progress| println!("{} of {}", progress.finished, progress.total))
    ///     .await;
    /// for (tenant, error) in &report.failed {
    ///     eprintln!("{tenant}: {error}");
    /// }
    /// // Later: pools.for_each_tenant(report.unfinished(), ..)
    /// # }
    /// ```
    ///
    /// # Errors
    /// Never as a whole: [`SweepReport::failed`] has each tenant's own. A tenant whose connection takes longer than
    /// [`Sweep::acquire_timeout`] is among them.
    ///
    /// # Cancel safety
    /// Dropped while it runs, the work under way is dropped at its next await and its connections go back as any lease does.
    /// [`Sweep::stop_when`] lets it finish instead, and says what remains.
    pub fn for_each_tenant<W, Working, E>(
        &self,
        tenants: impl IntoIterator<Item: Into<String>>,
        concurrency: usize,
        work: W,
    ) -> Sweep<F, W, E>
    where
        W: Fn(Lease<F>) -> Working + Send + Sync + 'static,
        Working: Future<Output = Result<(), E>> + Send + 'static,
        E: Send + 'static,
    {
        Sweep {
            pools: self.clone(),
            tenants: tenants.into_iter().map(Into::into).collect(),
            concurrency: concurrency.max(1),
            acquire_timeout: PATIENCE,
            work: Arc::new(work),
            on_progress: Box::new(|_| {}),
            stop: Box::pin(pending()),
        }
    }
}

impl<F: PoolFactory, W, E> Sweep<F, W, E> {
    /// How long the work waits for one tenant's connection. Default: 5 minutes, as users go first.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.acquire_timeout = timeout;
        self
    }

    /// Called after each tenant, in the task that awaits the sweep.
    pub fn on_progress(mut self, told: impl FnMut(&SweepProgress<'_, F::Error, E>) + Send + 'static) -> Self {
        self.on_progress = Box::new(told);
        self
    }

    /// Once this resolves no further tenant is begun; the work under way is waited for.
    pub fn stop_when(mut self, stop: impl Future<Output = ()> + Send + 'static) -> Self {
        self.stop = Box::pin(stop);
        self
    }
}

impl<F, W, Working, E> IntoFuture for Sweep<F, W, E>
where
    F: PoolFactory,
    W: Fn(Lease<F>) -> Working + Send + Sync + 'static,
    Working: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    type Output = SweepReport<F::Error, E>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(run(self))
    }
}

async fn run<F, W, Working, E>(mut sweep: Sweep<F, W, E>) -> SweepReport<F::Error, E>
where
    F: PoolFactory,
    W: Fn(Lease<F>) -> Working + Send + Sync + 'static,
    Working: Future<Output = Result<(), E>> + Send + 'static,
    E: Send + 'static,
{
    let total = sweep.tenants.len();
    let mut report = SweepReport { done: 0, failed: Vec::new(), remaining: Vec::new() };
    let (mut running, mut names) = (JoinSet::new(), HashMap::new());
    let mut stopped = false;
    loop {
        // A stop that has come is not asked for again.
        stopped = stopped || poll_fn(|context| Poll::Ready(sweep.stop.as_mut().poll(context).is_ready())).await;
        while !stopped
            && running.len() < sweep.concurrency
            && let Some(tenant) = sweep.tenants.pop_front()
        {
            let options = AcquireOptions::new().timeout(sweep.acquire_timeout).priority(Priority::Background);
            let (acquire, work) = (sweep.pools.acquire_with(&tenant, options), sweep.work.clone());
            let task = async move { work(acquire.await.map_err(SweepError::Acquire)?).await.map_err(SweepError::Work) };
            names.insert(sweep.pools.shared.runtime.spawn_in(&mut running, task), tenant);
        }
        let Some(next) = running.join_next_with_id().await else { break };
        let (id, result) = match next {
            Ok((id, result)) => (id, result),
            // A task that was dropped was dropped with its runtime.
            Err(lost) if lost.is_panic() => (lost.id(), Err(SweepError::Panicked)),
            Err(lost) => (lost.id(), Err(SweepError::Acquire(AcquireError::Closed))),
        };
        let Some(tenant) = names.remove(&id) else { unreachable!("every task has its tenant") };
        let failed = report.failed.len() + usize::from(result.is_err());
        (sweep.on_progress)(&SweepProgress {
            tenant: &tenant,
            result: result.as_ref().map(|&()| ()),
            finished: report.done + report.failed.len() + 1,
            failed,
            total,
        });
        match result {
            Ok(()) => report.done += 1,
            Err(error) => report.failed.push((tenant, error)),
        }
    }
    report.remaining = sweep.tenants.into();
    report
}
