//! The settings, their defaults with the reasons, and the one place where they are checked.

use std::collections::HashMap;
use std::fmt::Debug;
use std::time::Duration;

use crate::error::{ConfigError, ConfigProblem};
use crate::{InvalidTenant, ServerId, TenantId};

/// One tenant's own limits, where they differ from everybody's. What is not set stays as for the others.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TenantLimits {
    pub(crate) max: Option<u32>,
    pub(crate) reserve: Option<u32>,
    pub(crate) weight: Option<u32>,
}

impl TenantLimits {
    /// No limit of its own yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Those of the service's own database beside its tenants', in a budget of `max_connections`: a tenth of it, at least
    /// 5, at most 20, and never more than half (of 100: 10; of 30: 5; of 400: 20; of 6: 3). As many are reserved, so that
    /// it has them at once however busy the tenants are, and it cannot have more, so that it takes nothing from them.
    #[must_use]
    pub fn system(max_connections: u32) -> Self {
        let own = (max_connections / 10).clamp(5, 20).min(max_connections / 2);
        Self::new().max(own.max(1)).reserve(own)
    }

    /// The most connections this tenant may have, in all states. Default: `max_connections_per_tenant`.
    /// From 1 to the total budget.
    #[must_use]
    pub fn max(mut self, connections: u32) -> Self {
        self.max = Some(connections);
        self
    }

    /// Connections this tenant can always have: the rest of the budget is all that others get. Default: 0.
    /// At most its own maximum; all reserves together at most the budget, and less where anybody else is to be served.
    #[must_use]
    pub fn reserve(mut self, connections: u32) -> Self {
        self.reserve = Some(connections);
        self
    }

    /// Its share of a crowded budget, relative to the others'. Default: 1. From 1 to 1,000.
    #[must_use]
    pub fn weight(mut self, weight: u32) -> Self {
        self.weight = Some(weight);
        self
    }
}

/// Limits to change while a manager runs. What is not set stays as it is.
#[derive(Debug, Clone, Default)]
#[must_use = "limits change nothing before `set_limits`"]
pub struct Limits {
    max_connections: Option<u32>,
    max_connections_per_tenant: Option<u32>,
    servers: Vec<(ServerId, u32)>,
    tenants: Vec<(Result<TenantId, InvalidTenant>, TenantLimits)>,
}

impl Limits {
    /// No change yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The budget, as [`Builder::max_connections`](crate::Builder::max_connections).
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Every tenant's cap, as
    /// [`Builder::max_connections_per_tenant`](crate::Builder::max_connections_per_tenant).
    pub fn max_connections_per_tenant(mut self, connections: u32) -> Self {
        self.max_connections_per_tenant = Some(connections);
        self
    }

    /// A server's cap, as [`Builder::max_connections_on`](crate::Builder::max_connections_on).
    pub fn max_connections_on(mut self, server: impl Into<ServerId>, connections: u32) -> Self {
        self.servers.push((server.into(), connections));
        self
    }

    /// One tenant's own limits, all three of them, as [`Builder::tenant`](crate::Builder::tenant).
    pub fn tenant(mut self, tenant: impl AsRef<str>, limits: TenantLimits) -> Self {
        self.tenants.push((TenantId::new(tenant), limits));
        self
    }

    /// The settings with these limits. Nothing is checked but the names.
    pub(crate) fn apply(&self, settings: &mut Settings, problems: &mut Problems) {
        settings.max_connections = self.max_connections.unwrap_or(settings.max_connections);
        settings.max_connections_per_tenant =
            self.max_connections_per_tenant.unwrap_or(settings.max_connections_per_tenant);
        // Never more than all of them; a budget that is raised again later leaves it where it is.
        let most = settings.max_connections.max(1);
        settings.max_connecting = settings.max_connecting.map(|connecting| connecting.min(most));
        settings.background_share = settings.background_share.map(|share| share.min(most));
        settings.servers.extend(self.servers.iter().cloned());
        for (tenant, limits) in &self.tenants {
            match tenant {
                Ok(tenant) => drop(settings.tenants.insert(tenant.clone(), *limits)),
                Err(invalid) => problems.add("tenant", &"not a tenant's name", invalid.to_string()),
            }
        }
    }
}

/// Everything the ledger is told. Made by [`Builder`](crate::Builder), which documents each setting.
#[derive(Debug, Clone, PartialEq)]
#[doc(hidden)]
pub struct Settings {
    pub max_connections: u32,
    pub max_connections_per_tenant: u32,
    pub servers: HashMap<ServerId, u32>,
    pub tenants: HashMap<TenantId, TenantLimits>,
    pub max_waiters: u32,
    pub max_waiters_per_tenant: u32,
    pub max_connecting: Option<u32>,
    pub acquire_timeout: Duration,
    pub connect_timeout: Duration,
    pub idle_timeout: Duration,
    pub max_lifetime: Duration,
    pub close_timeout: Duration,
    pub recycle_timeout: Duration,
    pub validate_after_idle: Duration,
    pub handover_bound: Option<Duration>,
    pub background_share: Option<u32>,
    pub background_steals_after: Duration,
    pub forget_after: Duration,
    pub max_known_tenants: u32,
    pub tombstone_ttl: Duration,
    pub lease_warn_after: Duration,
}

/// What a tenant may have unless told otherwise. Enough for one tenant's parallel requests, far from a whole budget.
pub(crate) const MAX_PER_TENANT: u32 = 5;
/// No server takes more; PostgreSQL's own maximum is 262,143 backends.
pub(crate) const MAX_BUDGET: u32 = 262_143;
const MAX_WAITERS: u32 = 1_000_000;
const MAX_WEIGHT: u32 = 1_000;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

impl Settings {
    /// The defaults for a budget. The per-tenant cap never exceeds the budget by default.
    #[must_use]
    pub fn new(max_connections: u32) -> Self {
        Self {
            max_connections,
            max_connections_per_tenant: MAX_PER_TENANT.min(max_connections),
            servers: HashMap::new(),
            tenants: HashMap::new(),
            max_waiters: 10_000,
            max_waiters_per_tenant: 1_000,
            max_connecting: None,
            acquire_timeout: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(5 * 60),
            max_lifetime: Duration::from_secs(30 * 60),
            close_timeout: Duration::from_secs(5),
            recycle_timeout: Duration::from_secs(2),
            validate_after_idle: Duration::from_millis(500),
            handover_bound: None,
            background_share: None,
            background_steals_after: Duration::from_secs(10),
            forget_after: Duration::from_secs(60 * 60),
            max_known_tenants: 100_000,
            tombstone_ttl: Duration::from_secs(60 * 60),
            lease_warn_after: Duration::from_secs(30),
        }
    }

    /// Every bound and every cross check, all problems at once. `server_of` says where a tenant with limits lives.
    pub(crate) fn check(&self, problems: &mut Problems, server_of: impl Fn(&TenantId) -> ServerId) {
        problems.number("max_connections", self.max_connections, 1, MAX_BUDGET);
        let budget = self.max_connections.clamp(1, MAX_BUDGET);
        problems.number("max_connections_per_tenant", self.max_connections_per_tenant, 1, budget);
        problems.number("max_waiters", self.max_waiters, 0, MAX_WAITERS);
        problems.number("max_waiters_per_tenant", self.max_waiters_per_tenant, 0, self.max_waiters);
        if let Some(connecting) = self.max_connecting {
            problems.number("max_connecting", connecting, 1, budget);
        }
        if let Some(share) = self.background_share {
            problems.number("background_share", share, 1, budget);
        }
        for (server, &cap) in &self.servers {
            problems.number(&format!("max_connections_on({server:?})"), cap, 1, budget);
        }
        self.check_times(problems);
        self.check_tenants(problems, budget, server_of);
    }

    /// How often time passes for the ledger: a tenth of the shortest time that matters, from 10 ms to 1 s.
    pub(crate) fn tick_period(&self) -> Duration {
        let times =
            [self.validate_after_idle, self.idle_timeout, self.max_lifetime, self.close_timeout, self.lease_warn_after];
        let shortest = times.into_iter().filter(|time| !time.is_zero()).min().unwrap_or(DAY);
        (shortest / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    fn check_times(&self, problems: &mut Problems) {
        let ms = Duration::from_millis(1);
        problems.time("acquire_timeout", self.acquire_timeout, ms, DAY);
        problems.time("connect_timeout", self.connect_timeout, ms, DAY);
        problems.time("idle_timeout", self.idle_timeout, ms, 365 * DAY);
        problems.time("max_lifetime", self.max_lifetime, ms, 365 * DAY);
        problems.time("close_timeout", self.close_timeout, ms, DAY);
        problems.time("recycle_timeout", self.recycle_timeout, ms, DAY);
        problems.time("validate_after_idle", self.validate_after_idle, Duration::ZERO, 365 * DAY);
        problems.time("forget_after", self.forget_after, ms, 365 * DAY);
        problems.time("tombstone_ttl", self.tombstone_ttl, ms, 365 * DAY);
        problems.time("lease_warn_after", self.lease_warn_after, ms, 365 * DAY);
        problems.time("background_steals_after", self.background_steals_after, Duration::ZERO, 365 * DAY);
        if let Some(bound) = self.handover_bound {
            problems.time("handover_bound", bound, Duration::ZERO, DAY);
        }
    }

    fn check_tenants(&self, problems: &mut Problems, budget: u32, server_of: impl Fn(&TenantId) -> ServerId) {
        let mut reserved: u64 = 0;
        let mut reserved_on: HashMap<ServerId, u64> = HashMap::new();
        for (tenant, limits) in &self.tenants {
            let named = |setting: &str| format!("tenant({tenant:?}).{setting}");
            let max = limits.max.unwrap_or(self.max_connections_per_tenant);
            problems.number(&named("max"), max, 1, budget);
            let reserve = limits.reserve.unwrap_or(0);
            problems.number(&named("reserve"), reserve, 0, max);
            problems.number(&named("weight"), limits.weight.unwrap_or(1), 1, MAX_WEIGHT);
            reserved += u64::from(reserve);
            if reserve > 0 {
                *reserved_on.entry(server_of(tenant)).or_default() += u64::from(reserve);
            }
        }
        if reserved > u64::from(budget) {
            problems.add(
                "tenant(..).reserve",
                &reserved,
                format!("all reserves together are at most max_connections, {budget}"),
            );
        }
        for (server, reserved) in reserved_on {
            if let Some(&cap) = self.servers.get(&server)
                && reserved > u64::from(cap)
            {
                problems.add(
                    "tenant(..).reserve",
                    &reserved,
                    format!("the reserves on {server:?} are at most its cap, {cap}"),
                );
            }
        }
    }
}

/// A bound in the words of the documentation: nobody reads 31536000 s as a year.
fn plain(time: Duration) -> String {
    let seconds = time.as_secs();
    if time.is_zero() {
        return "0".to_owned();
    }
    match (seconds / DAY.as_secs(), seconds % DAY.as_secs()) {
        (1, 0) => "1 day".to_owned(),
        (days, 0) if days > 1 => format!("{days} days"),
        _ => format!("{time:?}"),
    }
}

#[derive(Default)]
pub(crate) struct Problems(Vec<ConfigProblem>);

impl Problems {
    pub(crate) fn add(&mut self, setting: &str, value: &dyn Debug, expected: impl Into<String>) {
        self.0.push(ConfigProblem { setting: setting.into(), value: format!("{value:?}"), expected: expected.into() });
    }

    pub(crate) fn number(&mut self, setting: &str, value: u32, least: u32, most: u32) {
        if value < least || value > most {
            self.add(setting, &value, format!("give {least} to {most}"));
        }
    }

    fn time(&mut self, setting: &str, value: Duration, least: Duration, most: Duration) {
        if value < least || value > most {
            self.add(setting, &value, format!("give {} to {}", plain(least), plain(most)));
        }
    }

    pub(crate) fn into_result(self) -> Result<(), ConfigError> {
        if self.0.is_empty() { Ok(()) } else { Err(self.into_error()) }
    }

    pub(crate) fn into_error(mut self) -> ConfigError {
        self.0.sort_by(|a, b| a.setting.cmp(&b.setting));
        ConfigError { problems: self.0 }
    }
}
