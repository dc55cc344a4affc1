//! Checks of the driver's own pools.

use std::pin::pin;
use std::time::Duration;

use tenantry_core::{FailureKind, NativePool, PoolFactory, TenantId};

use super::steps::{Step, Stop, ensure, ensure_server_side_is_free, fail};
use super::{PoolSubject, Trouble};

/// Long enough for something to happen that must not. Waiting too short can only hide a fault, not make one up.
const A_WHILE: Duration = Duration::from_millis(100);

const MAX: u32 = 2;

type PoolOf<S> = <<S as super::Subject>::Factory as NativePool>::Pool;

async fn open<S: PoolSubject>(subject: &S, tenant: &TenantId) -> Step<PoolOf<S>> {
    match subject.factory().open_pool(tenant, MAX).await {
        Ok(pool) => Ok(pool),
        Err(error) => fail(format!("cannot open a pool for {tenant:?}, whose database is there: {error:?}")),
    }
}

async fn take_all<S: PoolSubject>(subject: &S, pool: &PoolOf<S>) -> Step<Vec<S::Pooled>> {
    let mut taken = Vec::new();
    for _ in 0..MAX {
        taken.push(subject.take(pool).await?);
    }
    Ok(taken)
}

pub(super) async fn a_pool_never_holds_more_than_it_may<S: PoolSubject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    let pool = open(subject, &tenant).await?;
    let taken = take_all(subject, &pool).await?;
    // An error is as good as waiting.
    let one_more = tokio::time::timeout(A_WHILE, subject.take(&pool)).await;
    ensure!(!matches!(one_more, Ok(Ok(_))), "a pool of {MAX} gave {}", MAX + 1);
    let count = subject.server_side(&tenant).await?;
    ensure!(count <= u64::from(MAX), "a pool of {MAX} has {count} connections on the server");
    drop(taken);
    subject.factory().close_pool(pool).await;
    ensure_server_side_is_free(subject, &tenant, subject.knows_when_the_server_lets_go(), "the close of a pool").await
}

pub(super) async fn a_pool_closes_when_its_last_connection_is_back<S: PoolSubject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    let pool = open(subject, &tenant).await?;
    let kept = pool.clone();
    let taken = take_all(subject, &pool).await?;
    let mut closing = pin!(subject.factory().close_pool(pool));
    let early = tokio::time::timeout(A_WHILE, closing.as_mut()).await;
    ensure!(
        early.is_err(),
        "a pool is closed while {MAX} of its connections are out: their permits would be given away"
    );
    drop(taken);
    closing.await;
    ensure_server_side_is_free(subject, &tenant, subject.knows_when_the_server_lets_go(), "the close of a pool")
        .await?;
    // Refused or for ever waiting, but not served.
    let served = tokio::time::timeout(A_WHILE, subject.take(&kept)).await;
    ensure!(!matches!(served, Ok(Ok(_))), "a pool that is closed still gives connections");
    Ok(())
}

pub(super) async fn a_pool_for_an_unknown_tenant_fails_or_serves_nobody<S: PoolSubject>(subject: &S) -> Step {
    let missing = subject.missing_tenant();
    match subject.factory().open_pool(&missing, MAX).await {
        Err(error) => {
            let kind = subject.factory().classify(&error);
            ensure!(
                kind == FailureKind::NoSuchTenant,
                "a pool for a missing database is {kind:?}, not NoSuchTenant: {error:?}"
            );
            Ok(())
        }
        // A driver may connect only when it is asked for the first connection.
        Ok(pool) => {
            let taken = subject.take(&pool).await;
            subject.factory().close_pool(pool).await;
            unserved(&taken).map_err(|why| Stop::Failed(why.into()))
        }
    }
}

fn unserved<T>(taken: &Result<T, Trouble>) -> Result<(), &'static str> {
    if taken.is_ok() { Err("a pool for a database that is not there gave a connection") } else { Ok(()) }
}
