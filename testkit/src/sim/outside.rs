//! What is counted from outside: connections from the start of their connect to the end of their close, against every cap, and
//! what callers were told against what then happened. It reads nothing of the ledger's.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tenantry_core::FailureKind;

use super::plan::{Operation, Plan};

/// The least that a refusal says of a probe that is under way.
const PROBE_SLACK: Duration = Duration::from_millis(10);

pub(super) struct Outside {
    pub(super) total: Count,
    pub(super) servers: Vec<Count>,
    tenants: Vec<u32>,
    /// Connects under way, by server.
    connecting: Vec<Count>,
    per_tenant: u32,
    caps: BTreeMap<u32, u32>,
    /// Tenants with a reserve, their servers, and what it is. Empty once limits or servers were changed.
    reserves: Vec<(u32, usize, u32)>,
    /// Until when a tenant's callers were told to stay away.
    told: BTreeMap<u32, Duration>,
    /// Tenants that found their server unreachable and have not got through since.
    cut_off: BTreeSet<u32>,
    /// When a tenant's connect last succeeded, or what it was refused for was forgiven.
    forgiven: BTreeMap<u32, Duration>,
    /// Connections with background work.
    background: Count,
    closed: bool,
    /// Connections that callers have, and the sum of those over time.
    pub(super) busy: Level,
    /// All connections but the idle, over time.
    pub(super) occupied: Level,
}

/// How many, how many at most at once, and how many there may be.
#[derive(Clone, Copy, Default)]
pub(super) struct Count {
    pub(super) now: u32,
    pub(super) most: u32,
    cap: u32,
}

impl Count {
    fn to(cap: u32) -> Self {
        Self { now: 0, most: 0, cap }
    }

    fn rise(&mut self, by: u32, what: &dyn Fn() -> String) {
        self.now += by;
        self.most = self.most.max(self.now);
        // A cap that was lowered below what was there is passed no further.
        assert!(self.now <= self.cap, "{}: {} of {}", what(), self.now, self.cap);
    }

    fn fall(&mut self, by: u32, what: &str) {
        assert!(self.now >= by, "{what} fall below none");
        self.now -= by;
    }
}

/// A level and its integral.
#[derive(Clone, Copy, Default)]
pub(super) struct Level {
    level: u32,
    since: Duration,
    /// In level times seconds, since `from`.
    area: f64,
    from: Duration,
}

impl Level {
    fn change(&mut self, by: i32, now: Duration) {
        self.area += f64::from(self.level) * now.saturating_sub(self.since).as_secs_f64();
        self.since = now;
        self.level = self.level.checked_add_signed(by).unwrap_or_default();
    }

    pub(super) fn begin(&mut self, now: Duration) {
        self.change(0, now);
        (self.area, self.from) = (0.0, now);
    }

    /// The average from the beginning until now.
    pub(super) fn average(&mut self, now: Duration) -> f64 {
        self.change(0, now);
        self.area / now.saturating_sub(self.from).as_secs_f64().max(1e-9)
    }
}

impl Outside {
    pub(super) fn new(plan: &Plan) -> Self {
        let settings = &plan.settings;
        let total = settings.max_connections;
        let cap = |server: &super::plan::Server| server.cap.unwrap_or(total);
        let connecting = |cap: u32| settings.max_connecting.unwrap_or_else(|| (cap / 4).max(2));
        let servers = plan.servers.len();
        let mut outside = Self {
            total: Count::to(total),
            servers: plan.servers.iter().map(|server| Count::to(cap(server))).collect(),
            tenants: vec![0; plan.tenants as usize],
            connecting: plan.servers.iter().map(|server| Count::to(connecting(cap(server)))).collect(),
            per_tenant: settings.max_connections_per_tenant,
            caps: plan.limits.iter().filter_map(|(&tenant, limits)| Some((tenant, limits.max?))).collect(),
            reserves: Vec::new(),
            told: BTreeMap::new(),
            cut_off: BTreeSet::new(),
            forgiven: BTreeMap::new(),
            background: Count::to(settings.background_share.unwrap_or((total / 4).max(1))),
            closed: false,
            busy: Level::default(),
            occupied: Level::default(),
        };
        let reserves = plan.limits.iter().filter(|(_, limits)| limits.reserve > 0);
        outside.reserves =
            reserves.map(|(&tenant, limits)| (tenant, tenant as usize % servers, limits.reserve)).collect();
        outside
    }

    /// A connect begins.
    pub(super) fn opens(&mut self, tenant: u32, server: usize, now: Duration) {
        assert!(!self.closed, "a connect begins after the manager was closed");
        let told = self.told.get(&tenant).copied().unwrap_or_default();
        assert!(
            told <= now + PROBE_SLACK,
            "tenant {tenant} connects at {now:?}, its callers were told to stay away until {told:?}"
        );
        self.connecting[server].rise(1, &|| format!("connects under way on server {server}"));
        self.take(tenant, server, 1, now);
    }

    pub(super) fn take(&mut self, tenant: u32, server: usize, permits: u32, now: Duration) {
        self.total.rise(permits, &|| "connections in all".into());
        self.servers[server].rise(permits, &|| format!("connections on server {server}"));
        let cap = self.caps.get(&tenant).copied().unwrap_or(self.per_tenant);
        let count = &mut self.tenants[tenant as usize];
        *count += permits;
        assert!(*count <= cap, "connections of tenant {tenant}: {count} of {cap}");
        self.check_reserves(tenant, server);
        self.occupied.change(permits.cast_signed(), now);
    }

    /// What others lack of their reserves is left free.
    fn check_reserves(&self, taker: u32, server: usize) {
        let lacks = |tenant: u32, reserve: u32| reserve.saturating_sub(self.tenants[tenant as usize]);
        let others = || self.reserves.iter().filter(|(tenant, ..)| *tenant != taker);
        let all: u32 = others().map(|&(tenant, _, reserve)| lacks(tenant, reserve)).sum();
        assert!(self.total.now + all <= self.total.cap, "tenant {taker} takes what {all} reserved ones need");
        let here = others().filter(|(_, home, _)| *home == server);
        let here: u32 = here.map(|&(tenant, _, reserve)| lacks(tenant, reserve)).sum();
        let count = self.servers[server];
        assert!(
            count.now + here <= count.cap,
            "tenant {taker} takes what {here} reserved ones need on server {server}"
        );
    }

    /// A connect ended well.
    pub(super) fn opened(&mut self, tenant: u32, server: usize, homes: &[usize], now: Duration) {
        self.connecting[server].fall(1, "connects");
        self.forgives(tenant, now);
        if self.cut_off.remove(&tenant) {
            // Others who found that the server cannot be reached may try again before the time that they were told.
            let others = self.cut_off.iter().copied().filter(|&other| homes[other as usize] == server);
            for other in others.collect::<Vec<_>>() {
                self.forgives(other, now);
            }
        }
    }

    /// A connect came to nothing.
    pub(super) fn failed_to_open(&mut self, tenant: u32, server: usize, kind: FailureKind) {
        self.connecting[server].fall(1, "connects");
        match kind {
            FailureKind::Unreachable => drop(self.cut_off.insert(tenant)),
            // A server that is full is no failure of the tenant's, and says nothing of those before.
            FailureKind::ServerFull => {}
            _ => drop(self.cut_off.remove(&tenant)),
        }
    }

    fn forgives(&mut self, tenant: u32, now: Duration) {
        self.told.remove(&tenant);
        self.forgiven.insert(tenant, now);
    }

    /// Connections are gone, to the last moment occupied.
    pub(super) fn frees(&mut self, tenant: u32, server: usize, permits: u32, now: Duration) {
        self.total.fall(permits, "connections in all");
        self.servers[server].fall(permits, "connections of a server");
        let count = &mut self.tenants[tenant as usize];
        assert!(*count >= permits, "tenant {tenant} closes what it has not");
        *count -= permits;
        self.occupied.change(-permits.cast_signed(), now);
    }

    /// A background caller takes a connection, or gives it back. Its share is never more than at the start.
    pub(super) fn is_background(&mut self, takes: bool) {
        if takes {
            self.background.rise(1, &|| "connections with background work".into());
        } else {
            self.background.fall(1, "connections with background work");
        }
    }

    /// So many more connections are with callers.
    pub(super) fn is_busy(&mut self, more: i32, now: Duration) {
        self.busy.change(more, now);
    }

    /// A connection becomes idle, or ceases to be.
    pub(super) fn is_idle(&mut self, idle: bool, now: Duration) {
        self.occupied.change(if idle { -1 } else { 1 }, now);
    }

    /// A caller was told to stay away, by an answer that was made at `at`. What does not exist is not remembered for certain.
    pub(super) fn tells(&mut self, tenant: u32, kind: FailureKind, retry_after: Duration, at: Duration) {
        let stale = self.forgiven.get(&tenant).is_some_and(|&forgiven| forgiven >= at);
        if !stale && !matches!(kind, FailureKind::NoSuchTenant | FailureKind::InvalidName) {
            let until = self.told.entry(tenant).or_default();
            *until = (*until).max(at + retry_after);
        }
    }

    pub(super) fn operates(&mut self, operation: Operation, now: Duration) {
        match operation {
            Operation::Budget(budget) => {
                // A server without a cap of its own has the budget's; which ones have is no matter while only one of
                // the two is checked at its own value.
                self.total.cap = budget;
                self.reserves.clear();
            }
            Operation::PerTenant(cap) => {
                self.per_tenant = cap;
                self.reserves.clear();
            }
            Operation::Created(tenant) => self.forgives(tenant, now),
            Operation::Resume(tenant, _) => {
                self.forgives(tenant, now);
                self.reserves.retain(|(other, ..)| *other != tenant);
            }
            _ => {}
        }
    }

    /// Servers without caps of their own have that of the total, and a part of it to connect with.
    pub(super) fn server_without_cap(&mut self, server: usize, budget: u32, connecting: Option<u32>) {
        self.servers[server].cap = budget;
        self.connecting[server].cap = connecting.unwrap_or_else(|| (budget / 4).max(2));
    }

    pub(super) fn closes(&mut self) {
        self.closed = true;
    }

    /// The most connects that were under way at once on one server.
    pub(super) fn most_connecting(&self) -> u32 {
        self.connecting.iter().map(|count| count.most).max().unwrap_or_default()
    }

    pub(super) fn assert_free(&self) {
        assert_eq!(self.total.now, 0, "connections are left at the end");
        assert_eq!((self.busy.level, self.occupied.level), (0, 0), "levels at the end");
        assert!(self.tenants.iter().all(|&count| count == 0), "a tenant has connections at the end");
    }
}
