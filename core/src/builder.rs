//! [`Builder`]: every setting of a manager, what it counts, its default and the reason for it.

use std::fmt;
use std::time::Duration;

use tokio::runtime::Handle;

use crate::config::{MAX_BUDGET, MAX_PER_TENANT, Problems, Settings, TenantLimits};
use crate::error::ConfigError;
use crate::factory::PoolFactory;
use crate::observe::{Observer, Observers};
use crate::pools::{Shared, TenantPools};
use crate::runtime::{Runtime, has_timers};
use crate::tasks::Maintenance;
use crate::{ServerId, TenantId};

/// Settings of a [`TenantPools`] to be. Nothing is checked before [`build`](Self::build), which names every bad setting at
/// once and changes none silently.
#[must_use = "nothing happens before `build`"]
pub struct Builder<F> {
    factory: F,
    max_connections: Option<u32>,
    max_connections_per_tenant: Option<u32>,
    max_known_tenants: Option<u32>,
    max_waiters_per_tenant: Option<u32>,
    settings: Settings,
    system: Option<TenantId>,
    bad_tenants: Vec<crate::InvalidTenant>,
    runtime: Option<Handle>,
    observers: Observers,
}

impl<F> fmt::Debug for Builder<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("max_connections", &self.max_connections)
            .field("max_connections_per_tenant", &self.max_connections_per_tenant)
            .field("system_database", &self.system)
            .field("max_waiters_per_tenant", &self.max_waiters_per_tenant)
            .field("max_known_tenants", &self.max_known_tenants)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl<F: PoolFactory> Builder<F> {
    pub(crate) fn new(factory: F) -> Self {
        Self {
            factory,
            max_connections: None,
            max_connections_per_tenant: None,
            max_known_tenants: None,
            max_waiters_per_tenant: None,
            settings: Settings::new(0),
            system: None,
            bad_tenants: Vec::new(),
            runtime: None,
            observers: Observers::default(),
        }
    }

    /// The budget: the most physical connections of this manager at any moment, over all tenants, counting those being
    /// opened and closed. Required; there is no default, as only you know what the server allows (PostgreSQL's default of
    /// 100 leaves 97) and how many processes share it. From 1 to 262,143.
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// The most connections of one tenant, counted in the same way. Default: what the driver finds sensible
    /// ([`PoolFactory::max_per_tenant`]; 1 for SQLite), else 5, which is enough for one tenant's parallel requests and far
    /// from a whole budget; never more than the budget. From 1 to the budget.
    pub fn max_connections_per_tenant(mut self, connections: u32) -> Self {
        self.max_connections_per_tenant = Some(connections);
        self
    }

    /// The most connections on one server. Default: the budget. From 1 to the budget.
    pub fn max_connections_on(mut self, server: impl Into<ServerId>, connections: u32) -> Self {
        self.settings.servers.insert(server.into(), connections);
        self
    }

    /// One tenant's own limits, such as a system database's reserve.
    pub fn tenant(mut self, tenant: impl AsRef<str>, limits: TenantLimits) -> Self {
        match TenantId::new(tenant) {
            Ok(tenant) => drop(self.settings.tenants.insert(tenant, limits)),
            Err(invalid) => self.bad_tenants.push(invalid),
        }
        self
    }

    /// The tenant that is the service's own database, with what [`TenantLimits::system`] makes of the budget: a share that
    /// is always free for it, and counted like any other's connections. Default: none. [`tenant`](Self::tenant) gives it
    /// other limits, which win.
    pub fn system_database(mut self, tenant: impl AsRef<str>) -> Self {
        match TenantId::new(tenant) {
            Ok(tenant) => self.system = Some(tenant),
            Err(invalid) => self.bad_tenants.push(invalid),
        }
        self
    }

    /// The most acquires in line for which no connection is on its way yet, over all tenants; one more is refused at once.
    /// Default: 10,000, some 10 MB of waiting requests. From 0 (nobody waits for room) to 1,000,000.
    pub fn max_waiters(mut self, waiters: u32) -> Self {
        self.settings.max_waiters = waiters;
        self
    }

    /// The same, of one tenant. Default: 1,000, so that ten greedy tenants fill the line and not one; never more than
    /// `max_waiters` by default. From 0 to `max_waiters`.
    pub fn max_waiters_per_tenant(mut self, waiters: u32) -> Self {
        self.max_waiters_per_tenant = Some(waiters);
        self
    }

    /// The most connects under way at once, on each server. Default: a quarter of the connections that the server is
    /// allowed, at least 2, so that a cold start does not drown it. One tenant uses at most half of them, at least 1.
    /// From 1 to the budget.
    pub fn max_connecting(mut self, connects: u32) -> Self {
        self.settings.max_connecting = Some(connects);
        self
    }

    /// How long an acquire may take in all, waiting and connecting. Default: 5 s, well before a browser or a proxy gives
    /// up. From 1 ms to a day.
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.settings.acquire_timeout = timeout;
        self
    }

    /// How long one connect may take before it is abandoned. Default: 5 s, a thousand times a connect on a local network.
    /// From 1 ms to a day.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = timeout;
        self
    }

    /// How long a connection may be idle before it is closed. Default: 5 min, so that a night's quiet gives the server its
    /// memory back. Pinned connections of a reserve stay. From 1 ms to a year.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.idle_timeout = timeout;
        self
    }

    /// How old a connection may become, less up to 10 % by chance so that those opened together do not end together. One
    /// that is in use is closed when it comes back. Default: 30 min, as in the field's other pools. From 1 ms to a year.
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.settings.max_lifetime = lifetime;
        self
    }

    /// How long a driver may take to close a connection before it drops the socket. The permit is held until it is done.
    /// Default: 5 s. From 1 ms to a day.
    pub fn close_timeout(mut self, timeout: Duration) -> Self {
        self.settings.close_timeout = timeout;
        self
    }

    /// How long cleaning or validating a connection may take before it is closed instead. Default: 2 s: a rollback can
    /// take its time, a dead server must not. From 1 ms to a day.
    pub fn recycle_timeout(mut self, timeout: Duration) -> Self {
        self.settings.recycle_timeout = timeout;
        self
    }

    /// An idle connection at least this old is asked whether it still lives before it is handed out. Default: 500 ms, as
    /// in HikariCP: a busy tenant never pays for it. 0: every time. To a year.
    pub fn validate_after_idle(mut self, idle: Duration) -> Self {
        self.settings.validate_after_idle = idle;
        self
    }

    /// How long one connection may go from hand to hand within its tenant while it is another tenant's turn. Default: twice
    /// the measured connect time of the server, so that the waiting is paid back by the connects it saves. 0 turns hand-overs
    /// past others off. To a day.
    pub fn handover_bound(mut self, bound: Duration) -> Self {
        self.settings.handover_bound = Some(bound);
        self
    }

    /// The most connections that background work ([`Priority::Background`](crate::Priority::Background)) may hold at once:
    /// those it opened, while they are idle too, and those it has borrowed. Default: a quarter of the budget, at least 1.
    /// From 1 to `max_connections`.
    pub fn background_share(mut self, connections: u32) -> Self {
        self.settings.background_share = Some(connections);
        self
    }

    /// How long a foreground connection has to be idle before background work that is below its share may close it to make
    /// room. Default: 10 s, so that a tenant in use keeps its connections whatever a sweep does. To a year.
    pub fn background_steals_after(mut self, idle: Duration) -> Self {
        self.settings.background_steals_after = idle;
        self
    }

    /// How long a tenant is remembered after its last connection closed (its counters, its failures). Default: 1 h.
    /// From 1 ms to a year.
    pub fn forget_after(mut self, quiet: Duration) -> Self {
        self.settings.forget_after = quiet;
        self
    }

    /// The most tenants that are remembered; beyond it the longest quiet are forgotten, those whose database does not exist
    /// first. Default: 100,000, some 40 MB, or the least if that is more. At least `max_connections` + `max_waiters`, as
    /// each of those may be a tenant of its own.
    pub fn max_known_tenants(mut self, tenants: u32) -> Self {
        self.max_known_tenants = Some(tenants);
        self
    }

    /// How long a removed tenant's callers are told so. Default: 1 h. From 1 ms to a year.
    pub fn tombstone_ttl(mut self, ttl: Duration) -> Self {
        self.settings.tombstone_ttl = ttl;
        self
    }

    /// A lease that is out for longer is logged, once, with its tenant. Default: 30 s, where a request is long over.
    /// From 1 ms to a year.
    pub fn lease_warn_after(mut self, held: Duration) -> Self {
        self.settings.lease_warn_after = held;
        self
    }

    /// Is told what happens, outside of the lock: for histograms, or a log of one's own. May be called more than once; all of
    /// them are told. Default: nobody, which costs nothing.
    pub fn observer(mut self, observer: impl Observer) -> Self {
        self.observers.add(observer);
        self
    }

    /// The runtime for the manager's own tasks; it needs tokio's time driver. Default: the one that `build` is called in.
    pub fn runtime(mut self, runtime: Handle) -> Self {
        self.runtime = Some(runtime);
        self
    }

    /// Checks everything that [`build`](Self::build) checks, but for the runtime, and starts nothing: for settings that come
    /// from outside, before anything else is begun.
    ///
    /// # Errors
    /// [`ConfigError`] names every setting that is missing or out of bounds, alone or against another.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.settle().1.into_result()
    }

    /// Checks everything and starts the manager. Opens nothing.
    ///
    /// # Errors
    /// [`ConfigError`] names every setting that is missing or out of bounds, alone or against another, and a runtime that is
    /// missing or has no timers.
    pub fn build(self) -> Result<TenantPools<F>, ConfigError> {
        let (settings, mut problems) = self.settle();
        let Some(runtime) = self.runtime.or_else(|| Handle::try_current().ok()) else {
            problems.add("runtime", &"not set", "call build inside a tokio runtime, or give one");
            return Err(problems.into_error());
        };
        if !has_timers(&runtime) {
            problems.add("runtime", &"without timers", "call enable_time on its builder");
        }
        problems.into_result()?;
        let shared = Shared::new(self.factory, settings, Runtime::new(runtime), self.observers);
        // Known from the start, so that nobody takes what is reserved for them.
        for tenant in shared.settings.tenants.keys() {
            shared.admit(tenant);
        }
        shared.runtime.spawn(Maintenance::new(&shared).run());
        Ok(TenantPools::new(shared))
    }

    /// The settings with every default in its place, and all that is wrong with them.
    fn settle(&self) -> (Settings, Problems) {
        let mut settings = self.settings.clone();
        let mut problems = Problems::default();
        for invalid in &self.bad_tenants {
            problems.add("tenant", &"not a tenant's name", invalid.to_string());
        }
        if self.max_connections.is_none() {
            problems.add("max_connections", &"not set", "it is required: what the server allows this process");
        }
        settings.max_waiters_per_tenant =
            self.max_waiters_per_tenant.unwrap_or(settings.max_waiters_per_tenant.min(settings.max_waiters));
        // Without a good budget the others are checked against the largest, so that every bad one is named.
        settings.max_connections = self.max_connections.unwrap_or(MAX_BUDGET);
        let budget = settings.max_connections.clamp(1, MAX_BUDGET);
        let default = self.factory.max_per_tenant().unwrap_or(MAX_PER_TENANT).clamp(1, budget);
        settings.max_connections_per_tenant = self.max_connections_per_tenant.unwrap_or(default);
        if let Some(system) = &self.system {
            settings.tenants.entry(system.clone()).or_insert(TenantLimits::system(budget));
        }
        let least_known = self.max_connections.unwrap_or(1).saturating_add(settings.max_waiters);
        settings.max_known_tenants = self.max_known_tenants.unwrap_or(settings.max_known_tenants.max(least_known));
        problems.number("max_known_tenants", settings.max_known_tenants, least_known, u32::MAX);
        settings.check(&mut problems, |tenant| self.factory.server(tenant));
        (settings, problems)
    }
}
