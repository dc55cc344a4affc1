//! How an acquire of one side goes. The ledger knows no kinds of connections, so what it gives may be of the other side.
//! Such a one is set aside while the ledger has more, idle or to be opened; when it has not, the one set aside is
//! *exchanged*: closed, and then one of the right kind opened, under the same permit and in a task of the manager's own.
//!
//! So whatever the ledger gives serves the one it was given to: nobody is passed over for its kind, and the count of
//! permits never has to know of kinds.

use std::sync::Arc as StdArc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::{EitherConnection, EitherFactory, Side};
use crate::acquire::{self, AcquireOptions, Asked};
use crate::error::AcquireError;
use crate::factory::PoolFactory;
use crate::ledger::Time;
use crate::pools::Shared;
use crate::sync::Arc;
use crate::{FailureKind, Lease, Phase, TenantId};

type EitherShared<A, B> = Arc<Shared<EitherFactory<A, B>>>;
type Failed<A, B> = <EitherFactory<A, B> as PoolFactory>::Error;
type Found<A, B> = Result<Lease<EitherFactory<A, B>>, AcquireError<Failed<A, B>>>;
type Exchanged<A, B> = Result<Lease<EitherFactory<A, B>>, Missed<Failed<A, B>>>;

pub(super) async fn acquire<A: PoolFactory, B: PoolFactory>(
    shared: EitherShared<A, B>,
    asked: Asked,
    side: Side,
    options: AcquireOptions,
) -> Found<A, B> {
    let mut aside = Vec::new();
    // The warm path, without a clock, an allocation or a word to anybody.
    while let Some(held) = shared.with(|ledger, now| ledger.acquire_warm(&asked.name, asked.hash, options.ask(0), now))
    {
        match Lease::checked(shared.clone(), held) {
            Ok(lease) if lease.side() == Some(side) => return Ok(lease),
            Ok(lease) => aside.push(lease),
            Err(_) => {}
        }
    }
    let tenant = TenantId::new(&*asked.name)?;
    let (start, timeout) = (shared.runtime.now(), options.timeout.unwrap_or(shared.settings.acquire_timeout));
    Box::pin(Search { shared, tenant, side, start, timeout, options, aside }.run()).await
}

struct Search<A: PoolFactory, B: PoolFactory> {
    shared: EitherShared<A, B>,
    tenant: TenantId,
    side: Side,
    start: Time,
    timeout: Duration,
    options: AcquireOptions,
    /// Connections of the other side, the newest first. They go back when this is dropped.
    aside: Vec<Lease<EitherFactory<A, B>>>,
}

/// Why an exchange gave no connection.
enum Missed<E> {
    /// The ledger is to be asked: it knows how to wait for this.
    AskAgain,
    Refused(AcquireError<E>),
}

impl<E> From<AcquireError<E>> for Missed<E> {
    fn from(error: AcquireError<E>) -> Self {
        Self::Refused(error)
    }
}

/// A connection that looked near is waited for as long as ten connects take on that server, as a victim may have to be
/// closed for it first; and for this long at least.
const PATIENCE: Duration = Duration::from_millis(20);

impl<A: PoolFactory, B: PoolFactory> Search<A, B> {
    async fn run(mut self) -> Found<A, B> {
        loop {
            let near = if self.aside.is_empty() { Some(self.left()) } else { self.more_is_near() };
            if let Some(patience) = near {
                match self.ask(patience).await {
                    Ok(lease) if lease.side() == Some(self.side) => return Ok(lease),
                    Ok(lease) => {
                        self.aside.push(lease);
                        continue;
                    }
                    // It was not as near as it looked. What is aside serves all the same.
                    Err(AcquireError::Limit(_) | AcquireError::Timeout { .. }) if !self.aside.is_empty() => {}
                    Err(error) => return Err(error),
                }
            }
            if let Some(oldest) = self.aside.pop() {
                match self.exchange(oldest).await {
                    Err(Missed::AskAgain) => {}
                    Err(Missed::Refused(error)) => return Err(error),
                    Ok(lease) => return Ok(lease),
                }
            }
        }
    }

    /// What the ledger has for the tenant, of whichever kind.
    async fn ask(&mut self, patience: Duration) -> Found<A, B> {
        let _asking = self.shared.factory.asks.ask(&self.tenant, self.side);
        acquire::acquire(self.shared.clone(), self.tenant.as_str(), self.options.timeout(patience)).await
    }

    fn left(&self) -> Duration {
        self.timeout.saturating_sub(self.waited())
    }

    fn waited(&self) -> Duration {
        self.shared.runtime.now().saturating_sub(self.start)
    }

    /// Whether another connection can be had soon, with nobody of this tenant in front: an idle one, or a permit for one
    /// more. What is free or can be evicted is nobody else's, as it would have been given to who waits for it. It is a
    /// guess, as others act at the same time, and some of the idle may be kept for their own tenant; so this says how long
    /// to wait for it.
    fn more_is_near(&self) -> Option<Duration> {
        let (stats, tenant) = self.shared.with(|ledger, _| (ledger.stats(), ledger.tenant_stats(self.tenant.as_str())));
        let tenant = tenant.filter(|tenant| tenant.waiting == 0)?;
        let server = stats.servers.iter().find(|server| server.server == tenant.server)?;
        let taken = tenant.opening + tenant.idle + tenant.in_use + tenant.closing + tenant.pool_leased;
        let room = taken < tenant.max
            && (server.open < server.effective_max || server.idle > 0)
            && (stats.open() < stats.max || stats.idle > 0);
        let patience = (server.connect_time.unwrap_or_default() * 10).max(PATIENCE).min(self.left() / 2);
        (tenant.idle > 0 || room).then_some(patience)
    }

    /// Exchanges one of those set aside; the others go back.
    async fn exchange(&mut self, lease: Lease<EitherFactory<A, B>>) -> Exchanged<A, B> {
        self.aside.clear();
        let tenant = self.tenant.clone();
        if self.left().is_zero() {
            return Err(AcquireError::Timeout { tenant, phase: Phase::Connecting, waited: self.waited() }.into());
        }
        let (answer, answered) = oneshot::channel();
        let (shared, side) = (self.shared.clone(), self.side);
        self.shared.runtime.spawn(async move {
            // An answer that nobody waits for any more goes back, as any lease does.
            drop(answer.send(exchange(&shared, lease, side).await));
        });
        match self.shared.runtime.within(self.left(), answered).await {
            Some(Ok(exchanged)) => exchanged,
            // Its task is gone without an answer: the runtime is too, or the driver panicked.
            Some(Err(_)) if self.shared.with(|ledger, _| ledger.is_closed()) => Err(AcquireError::Closed.into()),
            Some(Err(_)) => {
                let retry_after = self.shared.settings.acquire_timeout;
                Err(AcquireError::Unavailable { tenant, kind: FailureKind::Other, retry_after, source: None }.into())
            }
            None => Err(AcquireError::Timeout { tenant, phase: Phase::Connecting, waited: self.waited() }.into()),
        }
    }
}

/// Under the lease's permit: closes its connection, then opens one of the wanted kind. However it ends, and if the task is
/// dropped, the lease gives back what it has by then; without a connection that is the permit alone.
async fn exchange<A: PoolFactory, B: PoolFactory>(
    shared: &EitherShared<A, B>,
    mut lease: Lease<EitherFactory<A, B>>,
    side: Side,
) -> Exchanged<A, B> {
    let (factory, settings, start) = (&shared.factory, &shared.settings, shared.runtime.now());
    let tenant = lease.tenant().clone();
    may_open(shared, &tenant)?;
    if let Some(refusal) = factory.rests.refusal(&tenant, side, start) {
        return Err(refusal.into());
    }
    let other = std::mem::replace(&mut *lease, EitherConnection::NOTHING);
    factory.close(other, settings.close_timeout).await;
    may_open(shared, &tenant)?;
    match shared.runtime.within(settings.connect_timeout, factory.open(side, &tenant)).await {
        Some(Ok(connection)) => *lease = connection,
        Some(Err(error)) => {
            let (kind, source) = (factory.classify(&error), StdArc::new(error));
            if kind == FailureKind::ServerFull {
                return Err(Missed::AskAgain);
            }
            factory.rests.begin(&tenant, side, kind, source.clone(), shared.runtime.now());
            return Err(AcquireError::Connect { tenant, kind, source }.into());
        }
        None => {
            let waited = shared.runtime.now().saturating_sub(start);
            return Err(AcquireError::Timeout { tenant, phase: Phase::Connecting, waited }.into());
        }
    }
    may_open(shared, &tenant)?;
    Ok(lease)
}

/// The ledger opens nothing after a close, for a tenant that is drained or removed, or on a server that is paused; neither
/// does an exchange.
fn may_open<A: PoolFactory, B: PoolFactory>(
    shared: &EitherShared<A, B>,
    tenant: &TenantId,
) -> Result<(), Missed<Failed<A, B>>> {
    let (all, stats) = shared.with(|ledger, _| (ledger.stats(), ledger.tenant_stats(tenant.as_str())));
    if all.closed {
        return Err(AcquireError::Closed.into());
    }
    let Some(stats) = stats else { return Err(Missed::AskAgain) };
    let tenant = tenant.clone();
    if stats.draining {
        return Err(AcquireError::Draining { tenant }.into());
    }
    if stats.removed {
        return Err(AcquireError::Removed { tenant }.into());
    }
    let paused = all.servers.iter().any(|server| server.server == stats.server && server.effective_max == 0);
    if paused { Err(Missed::AskAgain) } else { Ok(()) }
}
