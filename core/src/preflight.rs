//! Does the budget fit the server? [`TenantPools::preflight`] asks it for its limits, over an ordinary connection, and
//! [`Preflight::fits`] says what is short, for as many processes as run at once.

use std::error::Error;
use std::fmt;
use std::future::Future;

use crate::error::AcquireError;
use crate::factory::{FailureKind, PoolFactory};
use crate::pools::{Shared, TenantPools};
use crate::sync::Arc;
use crate::{Lease, ServerId, TenantId};

/// A driver that can ask its server how many connections it takes.
pub trait Capacity: PoolFactory {
    /// Asks over a connection that is there already. It must leave the connection as any query does.
    ///
    /// Start from [`ServerCapacity::default`] and set what the server has a limit for.
    fn capacity(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<ServerCapacity, Self::Error>> + Send;
}

/// What a server says of its limits for the login that asks. A limit that it does not have, or from which this login is
/// exempt, is None.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ServerCapacity {
    /// All connections of all clients (`max_connections` of PostgreSQL and of MySQL).
    pub max_connections: Option<u32>,
    /// Of those, the ones that this login cannot have (PostgreSQL: `superuser_reserved_connections`, and from version 16 on
    /// `reserved_connections`).
    pub reserved: u32,
    /// This login's own limit (PostgreSQL: the role's `CONNECTION LIMIT`; MySQL: `max_user_connections`).
    pub login_limit: Option<u32>,
    /// The limit of the database that was asked (PostgreSQL: the database's `CONNECTION LIMIT`).
    pub database_limit: Option<u32>,
    /// Client connections that the server has at this moment, this one and those of others included. No limit: for people.
    pub open_now: Option<u32>,
}

impl ServerCapacity {
    /// The most connections that all processes with this login can have together, if nobody else is there.
    #[must_use]
    pub fn for_this_login(&self) -> Option<u32> {
        let server = self.max_connections.map(|max| max.saturating_sub(self.reserved));
        server.into_iter().chain(self.login_limit).min()
    }
}

/// How many processes with the same settings use one server at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Replicas {
    /// Those that always run. 1 by default; 0 counts as 1.
    pub running: u32,
    /// How many more there are while a deployment goes on, as the old ones stop only when the new ones are there
    /// (`maxSurge` of Kubernetes; `running` again where all are replaced at once, as with blue and green). 0 by default.
    pub surge: u32,
}

impl Default for Replicas {
    fn default() -> Self {
        Self { running: 1, surge: 0 }
    }
}

impl Replicas {
    /// At the worst moment.
    fn at_once(self) -> u32 {
        self.running.max(1).saturating_add(self.surge)
    }
}

/// What a preflight found out: the server's limits, and what this manager may open there.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Preflight {
    /// The tenant whose connection asked.
    pub tenant: TenantId,
    /// The server that answered.
    pub server: ServerId,
    /// What it said.
    pub capacity: ServerCapacity,
    /// The most connections that this manager opens on that server.
    pub budget: u32,
    /// The most that it opens for that tenant.
    pub per_tenant: u32,
}

impl Preflight {
    /// Whether so many processes with these settings fit at once, even if each of them uses its whole budget.
    ///
    /// Others who use the server are not counted ([`ServerCapacity::open_now`] shows them), and a server process outlives
    /// its client by some milliseconds, so leave a few connections over: see [`spare`](Self::spare).
    ///
    /// # Errors
    /// [`DoesNotFit`] names every limit that is too low, and the budget that fits.
    pub fn fits(&self, replicas: Replicas) -> Result<(), DoesNotFit> {
        let ServerCapacity { max_connections, reserved, login_limit, database_limit, .. } = self.capacity;
        let limits = [
            (CapacityLimit::Server, max_connections.map(|max| max.saturating_sub(reserved)), self.budget),
            (CapacityLimit::Login, login_limit, self.budget),
            (CapacityLimit::Database, database_limit, self.per_tenant),
        ];
        let short = limits.into_iter().filter_map(|(limit, allowed, each)| {
            let (allowed, needed) = (allowed?, u64::from(each) * u64::from(replicas.at_once()));
            (needed > u64::from(allowed)).then_some(Shortage { limit, allowed, needed, each })
        });
        let shortages: Vec<_> = short.collect();
        if shortages.is_empty() {
            return Ok(());
        }
        Err(DoesNotFit { server: self.server.clone(), capacity: self.capacity, replicas, shortages })
    }

    /// Connections that the server has left for this login beside so many processes; below zero where they do not fit. None
    /// where it has no limit.
    #[must_use]
    pub fn spare(&self, replicas: Replicas) -> Option<i64> {
        let needed = i64::from(self.budget) * i64::from(replicas.at_once());
        self.capacity.for_this_login().map(|allowed| i64::from(allowed) - needed)
    }

    /// The largest `max_connections` with which so many processes fit; None where the server has no limit, 0 where not even
    /// one connection for each is there.
    #[must_use]
    pub fn largest_budget(&self, replicas: Replicas) -> Option<u32> {
        self.capacity.for_this_login().map(|allowed| allowed / replicas.at_once())
    }
}

/// Which limit is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CapacityLimit {
    /// The server's, less what it reserves.
    Server,
    /// The login's.
    Login,
    /// That of the tenant's database.
    Database,
}

/// One limit that is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shortage {
    /// Which.
    pub limit: CapacityLimit,
    /// What it allows.
    pub allowed: u32,
    /// What all processes may open together.
    pub needed: u64,
    /// What each of them may.
    pub each: u32,
}

/// The budget does not fit the server. Its text says what does.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DoesNotFit {
    /// Which server.
    pub server: ServerId,
    /// What it said of itself.
    pub capacity: ServerCapacity,
    /// The processes that were to fit.
    pub replicas: Replicas,
    /// At least one.
    pub shortages: Vec<Shortage>,
}

impl fmt::Display for DoesNotFit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replicas { running, surge } = self.replicas;
        let processes = self.replicas.at_once();
        f.write_str("the budget does not fit the server: ")?;
        match running.max(1) {
            1 => f.write_str("one process")?,
            running => write!(f, "{running} processes")?,
        }
        if surge > 0 {
            write!(f, " and {surge} more during a deployment")?;
        }
        for (index, shortage) in self.shortages.iter().enumerate() {
            let Shortage { limit, allowed, needed, each } = shortage;
            let (whose, setting) = match limit {
                CapacityLimit::Server => ("the server", "max_connections"),
                CapacityLimit::Login => ("this login's own limit", "max_connections"),
                CapacityLimit::Database => ("the database's own limit", "max_connections_per_tenant"),
            };
            let begin = if index == 0 { " may open" } else { "; they may open" };
            write!(f, "{begin} {needed} ({each} each), {whose} allows {allowed}")?;
            if let (CapacityLimit::Server, Some(max), 1..) =
                (limit, self.capacity.max_connections, self.capacity.reserved)
            {
                write!(f, " ({max} less {} reserved)", self.capacity.reserved)?;
            }
            match allowed / processes {
                0 => f.write_str(", which is less than one for each of them")?,
                fitting => write!(f, ", so {setting} is at most {fitting}")?,
            }
        }
        Ok(())
    }
}

impl Error for DoesNotFit {}

/// Why a preflight found nothing out.
#[derive(Debug)]
#[non_exhaustive]
pub enum PreflightError<E> {
    /// There was no connection to ask over.
    Acquire(AcquireError<E>),
    /// The server, or the driver, failed to answer.
    #[non_exhaustive]
    Failed {
        /// Whose connection it was.
        tenant: TenantId,
        /// What the failure means.
        kind: FailureKind,
        /// The driver's own error.
        source: E,
    },
    /// There was no answer within the manager's `acquire_timeout`. The connection is closed.
    #[non_exhaustive]
    NoAnswer {
        /// Whose connection it was.
        tenant: TenantId,
    },
}

impl<E> fmt::Display for PreflightError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // Its own text: `source` skips it for the same reason.
            Self::Acquire(error) => fmt::Display::fmt(error, f),
            Self::Failed { tenant, .. } => write!(f, "the server of tenant {tenant:?} did not tell its limits"),
            Self::NoAnswer { tenant } => write!(f, "the server of tenant {tenant:?} did not answer"),
        }
    }
}

impl<E: Error + 'static> Error for PreflightError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Acquire(error) => error.source(),
            Self::Failed { source, .. } => Some(source),
            Self::NoAnswer { .. } => None,
        }
    }
}

impl<F: Capacity> TenantPools<F> {
    /// Asks the server that a tenant lives on for its limits, over an ordinary connection of that tenant, within the budget. For
    /// the start of a service: a budget that the server cannot serve is better found now than in the first busy hour. Takes at
    /// most twice `acquire_timeout`: once for the connection, once for the answer.
    ///
    /// ```
    /// use tenantry_core::{Capacity, Replicas, TenantPools};
    ///
    /// async fn start(pools: &TenantPools<impl Capacity>) -> Result<(), Box<dyn std::error::Error>> {
    ///     let preflight = pools.preflight("system").await?;
    ///     preflight.fits(Replicas { running: 3, surge: 1 })?; // "the budget does not fit the server: .."
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    /// [`PreflightError`]: no connection, or no answer. That the budget does not fit is none of them: it is said by
    /// [`Preflight::fits`].
    ///
    /// # Cancel safety
    /// Dropping the future leaves a question unanswered; the connection is recycled before anyone else has it.
    pub fn preflight(
        &self,
        tenant: impl AsRef<str>,
    ) -> impl Future<Output = Result<Preflight, PreflightError<F::Error>>> + Send + 'static {
        let (shared, acquired) = (self.shared.clone(), self.acquire(tenant));
        async move { ask(&shared, acquired.await.map_err(PreflightError::Acquire)?).await }
    }
}

/// Asks over this lease's connection.
pub(crate) async fn ask<F: Capacity>(
    shared: &Arc<Shared<F>>,
    mut lease: Lease<F>,
) -> Result<Preflight, PreflightError<F::Error>> {
    let tenant = lease.tenant().clone();
    let asked = shared.factory.capacity(&mut lease);
    let capacity = match shared.runtime.within(shared.settings.acquire_timeout, asked).await {
        Some(Ok(capacity)) => capacity,
        Some(Err(source)) => {
            let kind = shared.factory.classify(&source);
            return Err(PreflightError::Failed { tenant, kind, source });
        }
        None => {
            lease.discard();
            return Err(PreflightError::NoAnswer { tenant });
        }
    };
    // While the lease is held: a tenant with a connection is known.
    let (of_tenant, all) = shared.with(|ledger, _| (ledger.tenant_stats(tenant.as_str()), ledger.stats()));
    let server = of_tenant.as_ref().map_or_else(|| shared.factory.server(&tenant), |stats| stats.server.clone());
    let budget = all.servers.iter().find(|stats| stats.server == server).map_or(all.max, |stats| stats.max);
    let per_tenant = of_tenant.map_or(budget, |stats| stats.max.min(budget));
    // Both are caps, which are u32.
    let narrow = |count: u64| u32::try_from(count).unwrap_or(u32::MAX);
    Ok(Preflight { server, capacity, budget: narrow(budget), per_tenant: narrow(per_tenant), tenant })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preflight(budget: u32, capacity: ServerCapacity) -> Preflight {
        let tenant: TenantId = "system".parse().expect("a name");
        Preflight { tenant, server: ServerId::default(), capacity, budget, per_tenant: budget.min(5) }
    }

    /// PostgreSQL as it comes.
    fn default_server() -> ServerCapacity {
        ServerCapacity { max_connections: Some(100), reserved: 3, ..ServerCapacity::default() }
    }

    fn replicas(running: u32, surge: u32) -> Replicas {
        Replicas { running, surge }
    }

    #[test]
    fn a_default_postgresql_leaves_97_and_a_deployment_counts() {
        let one = preflight(97, default_server());
        assert_eq!((one.fits(Replicas::default()), one.spare(Replicas::default())), (Ok(()), Some(0)));
        let error = preflight(98, default_server()).fits(Replicas::default()).expect_err("one too many");
        assert_eq!((error.shortages[0].allowed, error.shortages[0].needed), (97, 98));
        assert_eq!(
            error.to_string(),
            "the budget does not fit the server: one process may open 98 (98 each), the server allows 97 (100 less 3 \
             reserved), so max_connections is at most 97"
        );
        let three = preflight(32, default_server());
        three.fits(replicas(3, 0)).expect("96 of 97");
        let error = three.fits(replicas(3, 1)).expect_err("128 of 97");
        assert!(error.to_string().contains("3 processes and 1 more during a deployment may open 128"), "{error}");
        assert_eq!((three.largest_budget(replicas(3, 1)), three.spare(replicas(3, 1))), (Some(24), Some(-31)));
        preflight(24, default_server()).fits(replicas(3, 1)).expect("as was said");
    }

    #[test]
    fn each_limit_that_is_short_is_named_with_what_fits() {
        let capacity = ServerCapacity { login_limit: Some(50), database_limit: Some(4), ..default_server() };
        let error = preflight(60, capacity).fits(replicas(2, 0)).expect_err("three are short");
        let short: Vec<_> = error.shortages.iter().map(|short| (short.limit, short.allowed, short.needed)).collect();
        let expected =
            [(CapacityLimit::Server, 97, 120), (CapacityLimit::Login, 50, 120), (CapacityLimit::Database, 4, 10)];
        assert_eq!(short, expected);
        let text = error.to_string();
        assert!(text.contains("max_connections is at most 25") && text.contains("per_tenant is at most 2"), "{text}");
        assert_eq!(preflight(60, capacity).largest_budget(replicas(2, 0)), Some(25));
    }

    #[test]
    fn no_limit_fits_everything_and_nothing_fits_nothing() {
        let none = preflight(10_000, ServerCapacity::default());
        assert_eq!((none.fits(replicas(u32::MAX, 5)), none.largest_budget(replicas(9, 9))), (Ok(()), None));
        let closed = ServerCapacity { login_limit: Some(0), ..default_server() };
        let error = preflight(1, closed).fits(replicas(0, 0)).expect_err("0 processes count as one");
        assert!(error.to_string().contains("less than one for each"), "{error}");
        assert_eq!(preflight(1, closed).largest_budget(Replicas::default()), Some(0));
    }
}
