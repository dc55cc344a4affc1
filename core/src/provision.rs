//! Making and dropping a tenant's database: apart from using it, and inside the budget.

use std::future::Future;
use std::time::Duration;

use crate::TenantId;
use crate::acquire::{AcquireOptions, acquire_permits, error};
use crate::error::ProvisionError;
use crate::factory::{Created, Dropped, Provision};
use crate::lease::PoolPermits;
use crate::ledger::Failure;
use crate::pools::{Shared, TenantPools};
use crate::sync::Arc;
use crate::tasks::with_permits;

/// How long the driver may take. A `CREATE DATABASE` copies a template of a few MB, in some 100 ms; a minute is for a busy disk.
const LIMIT: Duration = Duration::from_secs(60);

impl<F: Provision> TenantPools<F> {
    /// Makes the tenant's database if it is missing. An acquire never does. It also ends the tenant's
    /// [`remove`](Self::remove).
    ///
    /// It needs one permit on the tenant's server, for the connection that does it; that one is not the tenant's, and counts
    /// against the server and the total.
    ///
    /// It waits for the permit for at most `acquire_timeout`, and for the driver for a minute.
    ///
    /// # Errors
    /// [`ProvisionError`]: no permit in time, the driver's own failure, or no end in time.
    ///
    /// # Cancel safety
    /// Once there is a permit the work goes on in a task; dropping the future only ends the waiting.
    pub fn create(
        &self,
        tenant: impl AsRef<str>,
    ) -> impl Future<Output = Result<Created, ProvisionError<F::Error>>> + Send + 'static {
        let (shared, tenant) = (self.shared.clone(), TenantId::new(tenant));
        async move {
            let tenant = tenant.map_err(ProvisionError::invalid)?;
            let whose = tenant.clone();
            let created = beside(&shared, tenant, async move |permits: PoolPermits<F>| {
                let created = permits.shared.factory.create(&whose).await?;
                // It may have been asked for in vain before; that is over.
                permits.shared.with_now(|ledger, now| ledger.created(whose.as_str(), now));
                Ok(created)
            });
            created.await
        }
    }

    /// Drops the tenant's database if it is there. The tenant is drained for it, for at most `close_timeout`, and resumed
    /// afterwards, unless it was drained or removed before or meanwhile; its callers get
    /// [`AcquireError::Draining`](crate::AcquireError::Draining) meanwhile. What is in use longer than that is left alone, and
    /// most servers refuse to drop a database in use: [`drain`](Self::drain) it before, with the time that it needs.
    ///
    /// After the drain it needs a permit and takes its time as [`create`](Self::create) does.
    ///
    /// # Errors
    /// [`ProvisionError`]: no permit in time, the driver's own failure, or no end in time.
    ///
    /// # Cancel safety
    /// Once there is a permit the work goes on in a task; dropping the future only ends the waiting.
    pub fn drop_database(
        &self,
        tenant: impl AsRef<str>,
    ) -> impl Future<Output = Result<Dropped, ProvisionError<F::Error>>> + Send + 'static {
        let (shared, tenant) = (self.shared.clone(), TenantId::new(tenant));
        async move {
            let tenant = tenant.map_err(ProvisionError::invalid)?;
            let dropping = Dropping::new(&shared, &tenant);
            shared.runtime.within(shared.settings.close_timeout, shared.empty(Some(tenant.as_str()))).await;
            let whose = tenant.clone();
            let dropped = beside(&shared, tenant, async move |permits: PoolPermits<F>| {
                let dropped = permits.shared.factory.drop_database(&whose).await;
                drop(permits);
                drop(dropping);
                dropped
            });
            dropped.await
        }
    }
}

/// A tenant whose database is being dropped for as long as this lives.
struct Dropping<F: Provision> {
    shared: Arc<Shared<F>>,
    tenant: TenantId,
}

impl<F: Provision> Dropping<F> {
    fn new(shared: &Arc<Shared<F>>, tenant: &TenantId) -> Self {
        // Where nobody asked for it yet: whoever does from now on is not to keep the database in use.
        while !shared.with_now(|ledger, now| ledger.drop_begins(tenant.as_str(), now)) {
            shared.admit(tenant);
        }
        Self { shared: shared.clone(), tenant: tenant.clone() }
    }
}

impl<F: Provision> Drop for Dropping<F> {
    fn drop(&mut self) {
        let server = self.shared.factory.server(&self.tenant);
        self.shared.with_now(|ledger, now| ledger.drop_ends(self.tenant.as_str(), &server, now));
    }
}

/// Runs work for a tenant under one permit of its server's maintenance line.
async fn beside<F: Provision, R: Send + 'static, W>(
    shared: &Arc<Shared<F>>,
    tenant: TenantId,
    work: impl FnOnce(PoolPermits<F>) -> W + Send + 'static,
) -> Result<R, ProvisionError<F::Error>>
where
    W: Future<Output = Result<R, F::Error>> + Send + 'static,
{
    let server = shared.factory.server(&tenant);
    let line = TenantId::maintenance(&server);
    let admit = |shared: &Arc<Shared<F>>| shared.admit_on(&line, &server);
    let permits = match acquire_permits(shared, line.as_str(), 1, AcquireOptions::new(), admit).await {
        Ok(permits) => permits,
        Err(refusal) => return Err(ProvisionError::Permit(error(shared, tenant, refusal))),
    };
    with_permits(permits, LIMIT, work).await.map_err(|failure| match failure {
        Failure::Error { kind, source } => ProvisionError::Failed { tenant, kind, source },
        Failure::TimedOut | Failure::Panicked => ProvisionError::Unfinished { tenant },
    })
}
