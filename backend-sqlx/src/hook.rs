//! What a user runs on each new connection, and the pools of sqlx's own, which run it too.

use std::sync::Arc;

use futures_core::future::BoxFuture;
use sqlx::pool::PoolOptions;
use sqlx::{Database, Pool};
use tenantry_core::TenantId;

/// Called with the driver's connection and its tenant, before anyone else has it.
pub(crate) type Hook<DB> = Arc<
    dyn for<'c> Fn(&'c mut <DB as Database>::Connection, &'c TenantId) -> BoxFuture<'c, Result<(), sqlx::Error>>
        + Send
        + Sync,
>;

/// The user's options for a pool, with what is the factory's to say.
pub(crate) fn pool_options<DB: Database>(
    mut options: PoolOptions<DB>,
    max: u32,
    hook: Option<Hook<DB>>,
    tenant: &TenantId,
) -> PoolOptions<DB> {
    options = options.max_connections(max);
    if options.get_min_connections() > max {
        options = options.min_connections(max);
    }
    let Some(hook) = hook else { return options };
    let tenant = tenant.clone();
    options.after_connect(move |raw, _| {
        let (hook, tenant) = (hook.clone(), tenant.clone());
        Box::pin(async move { hook(raw, &tenant).await })
    })
}

/// Closes the pool and resolves when its last connection is closed.
///
/// `Pool::close` alone waits for every connection in use before it closes the idle ones, so those go first.
pub(crate) async fn close_pool<DB: Database>(pool: &Pool<DB>) {
    // Bounded: others may go on using the pool meanwhile.
    for _ in 0..pool.options().get_max_connections() {
        let Some(idle) = pool.try_acquire() else {
            break;
        };
        let _ = idle.close().await;
    }
    pool.close().await;
}
