//! The tenants: their databases are made, migrated and filled here, all of it under the budget.

use anyhow::{Context, Result};
use futures_util::{StreamExt, TryStreamExt, stream};

use crate::database::MIGRATIONS;
use crate::service::Pools;

/// The notes that each tenant starts with.
pub(crate) const SEEDS: usize = 20;

/// How many databases are made at once: so few that none waits for a connection while a busy server copies its templates.
const AT_ONCE: usize = 4;

/// The tenants' names, the busiest first.
pub(crate) fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("tenant-{number:04}")).collect()
}

/// The text that belongs under a key, and to this tenant alone.
pub(crate) fn text(tenant: &str, key: &str) -> String {
    format!("{tenant} keeps this under {key}")
}

/// Makes, migrates and fills a database for each tenant.
pub(crate) async fn make(pools: &Pools, tenants: &[String]) -> Result<()> {
    let makings = stream::iter(tenants).map(|tenant| make_one(pools, tenant));
    makings.buffer_unordered(AT_ONCE).try_collect().await
}

async fn make_one(pools: &Pools, tenant: &str) -> Result<()> {
    pools.create(tenant).await.with_context(|| format!("cannot make {tenant}"))?;
    let mut lease = pools.acquire(tenant).await?;
    lease.migrate(&MIGRATIONS).await?;
    let mut transaction = lease.begin().await?;
    for number in 0..SEEDS {
        let key = format!("seed-{number:04}");
        sqlx::query("INSERT INTO notes (key, text) VALUES ($1, $2)")
            .bind(&key)
            .bind(text(tenant, &key))
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(())
}
