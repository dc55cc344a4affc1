//! What a case is drawn with: the budgets and times of one small manager, and where its tenants live.

use std::time::Duration;

use proptest::prelude::*;
use tenantry_core::{ServerId, Settings, TenantId, TenantLimits};

/// How many tenants there are. Index operations are taken modulo this.
pub(crate) const TENANTS: usize = 5;
/// How many servers there are; the first is "the only server" where nothing else is said.
pub(crate) const SERVERS: usize = 2;
pub(crate) const MS: Duration = Duration::from_millis(1);

/// The settings of one case, always within the bounds that the builder checks.
#[derive(Clone, Debug)]
pub(crate) struct World {
    pub(crate) total: u32,
    pub(crate) servers: [Option<u32>; SERVERS],
    pub(crate) tenants: [Limits; TENANTS],
    pub(crate) max_waiters: u32,
    pub(crate) max_waiters_per_tenant: u32,
    pub(crate) max_connecting: Option<u32>,
    pub(crate) handover_bound: Option<Duration>,
    pub(crate) background_share: Option<u32>,
    pub(crate) background_steals_after: Duration,
    pub(crate) idle_timeout: Duration,
    pub(crate) max_lifetime: Duration,
    pub(crate) validate_after_idle: Duration,
    pub(crate) close_timeout: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) lease_warn_after: Duration,
    pub(crate) forget_after: Duration,
    pub(crate) tombstone_ttl: Duration,
    pub(crate) max_known_tenants: u32,
}

/// One tenant's own limits, and its server at first sight.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    pub(crate) max: u32,
    pub(crate) reserve: u32,
    pub(crate) weight: u32,
    pub(crate) home: usize,
}

/// The limits that may be changed later.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Change {
    pub(crate) total: u32,
    pub(crate) servers: [Option<u32>; SERVERS],
    /// Of one tenant alone.
    pub(crate) tenant: usize,
    pub(crate) max: u32,
    pub(crate) reserve: u32,
    pub(crate) weight: u32,
}

impl World {
    /// Takes new limits, within the bounds that are checked before the ledger sees them. `homes`: where each tenant is.
    pub(crate) fn change(&mut self, change: &Change, homes: [usize; TENANTS]) {
        self.total = change.total;
        self.servers = change.servers.map(|cap| cap.map(|cap| cap.min(change.total)));
        self.max_connecting = self.max_connecting.map(|most| most.min(change.total));
        self.background_share = self.background_share.map(|share| share.min(change.total));
        let tenant = &mut self.tenants[change.tenant];
        (tenant.max, tenant.reserve, tenant.weight) = (change.max, change.reserve, change.weight);
        self.keep_bounds(homes);
    }

    /// All reserves together fit, in all and on each server.
    fn keep_bounds(&mut self, homes: [usize; TENANTS]) {
        let (mut left, mut left_on) = (self.total, self.servers.map(|cap| cap.unwrap_or(self.total)));
        for (tenant, home) in self.tenants.iter_mut().zip(homes) {
            tenant.max = tenant.max.min(self.total);
            tenant.reserve = tenant.reserve.min(tenant.max).min(left).min(left_on[home]);
            left -= tenant.reserve;
            left_on[home] -= tenant.reserve;
        }
    }

    pub(crate) fn settings(&self) -> Settings {
        let mut settings = Settings::new(self.total);
        settings.max_waiters = self.max_waiters;
        settings.max_waiters_per_tenant = self.max_waiters_per_tenant;
        settings.max_connecting = self.max_connecting;
        settings.handover_bound = self.handover_bound;
        settings.background_share = self.background_share;
        settings.background_steals_after = self.background_steals_after;
        settings.idle_timeout = self.idle_timeout;
        settings.max_lifetime = self.max_lifetime;
        settings.validate_after_idle = self.validate_after_idle;
        settings.close_timeout = self.close_timeout;
        settings.acquire_timeout = self.acquire_timeout;
        settings.lease_warn_after = self.lease_warn_after;
        settings.forget_after = self.forget_after;
        settings.tombstone_ttl = self.tombstone_ttl;
        settings.max_known_tenants = self.max_known_tenants;
        for (server, cap) in self.servers.iter().enumerate() {
            settings.servers.extend(cap.map(|cap| (server_id(server), cap)));
        }
        for (tenant, limits) in self.tenants.iter().enumerate() {
            let own = TenantLimits::new().max(limits.max).reserve(limits.reserve).weight(limits.weight);
            settings.tenants.insert(tenant_id(tenant), own);
        }
        settings
    }

    /// The cap of a server: its own, or the total's.
    pub(crate) fn server_cap(&self, server: usize) -> u32 {
        self.servers[server].unwrap_or(self.total)
    }

    /// The most that background work holds: a quarter of all, at least 1, unless set.
    pub(crate) fn background_share(&self) -> u32 {
        self.background_share.unwrap_or((self.total / 4).max(1))
    }

    /// How many opens may be under way on a server: a quarter of its permits, at least 2, unless set.
    pub(crate) fn max_connecting(&self, server: usize) -> u32 {
        self.max_connecting.unwrap_or((self.server_cap(server) / 4).max(2))
    }
}

pub(crate) fn tenant_id(tenant: usize) -> TenantId {
    TenantId::new(["a", "b", "c", "d", "e"][tenant]).expect("a letter is a valid name")
}

pub(crate) fn server_id(server: usize) -> ServerId {
    ServerId::from(["", "two"][server])
}

fn ms(range: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    range.prop_map(Duration::from_millis)
}

/// Mostly far away, sometimes soon.
fn seldom(soon: std::ops::Range<u64>) -> impl Strategy<Value = Duration> {
    prop_oneof![2 => Just(Duration::from_secs(3_600)), 1 => ms(soon)]
}

pub(crate) fn any_world() -> impl Strategy<Value = World> {
    let one_tenant = (1_u32..7, prop_oneof![3 => Just(0), 1 => 1_u32..3], 1_u32..4, 0..SERVERS);
    let budgets = (
        1_u32..7,
        prop::option::weighted(0.4, 1_u32..6),
        prop::option::weighted(0.4, 1_u32..6),
        prop::array::uniform5(one_tenant),
        prop::bool::weighted(0.5),
    );
    let lines = (
        prop_oneof![4 => 4_u32..12, 1 => 0_u32..4],
        0_u32..12,
        prop::option::of(1_u32..5),
        any::<bool>(),
        prop::option::of(1_u32..7),
    );
    let handover = prop_oneof![Just(Some(Duration::ZERO)), Just(None), Just(Some(MS * 20)), Just(Some(MS * 3_600_000))];
    let times = (
        handover,
        seldom(20..500),
        seldom(20..500),
        prop_oneof![2 => Just(MS * 500), 1 => Just(Duration::ZERO), 2 => ms(1..100)],
        ms(1..300),
        ms(1..5_000),
        ms(1..1_000),
        seldom(1..500),
        seldom(1..1_500),
        prop_oneof![Just(MS * 10_000), ms(0..200)],
    );
    (budgets, lines, times).prop_map(|(budgets, lines, times)| {
        let (total, first, second, tenants, one_server) = budgets;
        let servers = [first, second].map(|cap| cap.map(|cap| cap.min(total)));
        let tenants = tenants.map(|(max, reserve, weight, home)| {
            let home = if one_server { 0 } else { home };
            Limits { max, reserve, weight, home }
        });
        let (max_waiters, per_tenant, max_connecting, few_known, share) = lines;
        let homes = std::array::from_fn(|tenant| tenants[tenant].home);
        let mut world = World {
            total,
            servers,
            tenants,
            max_waiters,
            max_waiters_per_tenant: per_tenant.min(max_waiters),
            max_connecting: max_connecting.map(|most| most.min(total)),
            handover_bound: times.0,
            idle_timeout: times.1,
            max_lifetime: times.2,
            validate_after_idle: times.3,
            close_timeout: times.4,
            acquire_timeout: times.5,
            lease_warn_after: times.6,
            forget_after: times.7,
            tombstone_ttl: times.8,
            background_share: share.map(|share| share.min(total)),
            background_steals_after: times.9,
            max_known_tenants: if few_known { total + max_waiters } else { 100_000 },
        };
        world.keep_bounds(homes);
        world
    })
}

pub(crate) fn any_change() -> impl Strategy<Value = Change> {
    let server = || prop::option::weighted(0.4, 1_u32..6);
    (1_u32..7, [server(), server()], 0..TENANTS, 1_u32..7, prop_oneof![2 => Just(0), 1 => 1_u32..3], 1_u32..4).prop_map(
        |(total, servers, tenant, max, reserve, weight)| Change { total, servers, tenant, max, reserve, weight },
    )
}
