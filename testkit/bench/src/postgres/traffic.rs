//! Clients that ask for one tenant's database after the other, and what each of them met.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use sqlx::Connection;
use tenantry::TenantPools;
use tenantry::sqlx::PostgresFactory;

use super::bouncer::{Kept, Port};
use super::lru::LruPools;
use super::{DATABASES, connect, name, select};
use crate::measure::{Zipf, percentile};

#[derive(Clone)]
pub enum Contender {
    Tenantry(TenantPools<PostgresFactory>),
    Lru(Arc<LruPools>),
    /// PgBouncer in transaction mode: each client keeps a connection to it for each database.
    Transactions(Arc<Kept>),
    /// PgBouncer in session mode: a client that kept its connection would keep the server's.
    Sessions(Arc<Port>),
}

impl Contender {
    pub fn name(&self) -> String {
        match self {
            Self::Tenantry(_) => "tenantry".to_owned(),
            Self::Lru(pools) => format!("LRU map of PgPools of {}", pools.each),
            Self::Transactions(_) => "PgBouncer, transactions".to_owned(),
            Self::Sessions(_) => "PgBouncer, sessions".to_owned(),
        }
    }

    async fn request(&self, client: usize, tenant: usize) -> Result<()> {
        match self {
            Self::Tenantry(pools) => select(&mut *pools.acquire(name(tenant)).await?).await,
            Self::Lru(pools) => pools.request(tenant).await,
            Self::Transactions(kept) => {
                let mut connection = kept.connection(client, tenant).await?;
                select(&mut connection).await
            }
            Self::Sessions(port) => {
                let mut connection = connect(&port.options(tenant)).await?;
                select(&mut connection).await?;
                connection.close().await?;
                Ok(())
            }
        }
    }

    /// Connections to the server that were opened so far, where that is known.
    fn connects(&self) -> Option<u64> {
        match self {
            Self::Tenantry(pools) => Some(pools.stats().totals.connects),
            Self::Lru(pools) => Some(pools.connects()),
            Self::Transactions(_) | Self::Sessions(_) => None,
        }
    }
}

/// A round.
pub struct Outcome {
    took: Duration,
    /// Milliseconds.
    times: Vec<f64>,
    pub connects: Option<u64>,
    /// Whose requests were made, in order.
    pub trace: Vec<usize>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.times.len() as f64 / self.took.as_secs_f64()
    }

    pub fn percentile(&self, percent: f64) -> f64 {
        percentile(self.times.clone(), percent)
    }
}

/// So many clients, each with one request at a time, for so long. `zipf`: how often each database is asked for; all alike
/// without.
pub async fn play(
    contender: &Contender,
    zipf: Option<&Zipf>,
    clients: usize,
    lasts: Duration,
    seed: u64,
) -> Result<Outcome> {
    let before = contender.connects();
    let start = Instant::now();
    let tasks: Vec<_> = (0..clients)
        .map(|client| {
            let (contender, zipf) = (contender.clone(), zipf.cloned());
            let mut random = fastrand::Rng::with_seed(seed << 16 | client as u64);
            tokio::spawn(async move {
                let mut met = Vec::new();
                while start.elapsed() < lasts {
                    let tenant = match &zipf {
                        Some(zipf) => zipf.pick(&mut random),
                        None => random.usize(..DATABASES),
                    };
                    let asked = start.elapsed();
                    contender.request(client, tenant).await?;
                    met.push((asked, tenant, start.elapsed() - asked));
                }
                anyhow::Ok(met)
            })
        })
        .collect();
    let mut met = Vec::new();
    for task in tasks {
        met.extend(task.await??);
    }
    let took = start.elapsed();
    met.sort_unstable();
    let connects = contender.connects().zip(before).map(|(after, before)| after - before);
    let times = met.iter().map(|(_, _, time)| time.as_secs_f64() * 1e3).collect();
    Ok(Outcome { took, times, connects, trace: met.into_iter().map(|(_, tenant, _)| tenant).collect() })
}
