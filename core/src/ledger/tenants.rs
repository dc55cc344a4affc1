//! The table of tenants and servers: who is known, what each may do, and when one is forgotten (rule 17).

use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use hashbrown::DefaultHashBuilder;

use super::affairs::{Affairs, NO_AFFAIRS};
use super::budget::{Counts, InTenant, Scope};
use super::failure::{Circuit, ServerFull};
use super::lru::{Link, List, linked};
use super::moment::Moment;
use super::pace::Pace;
use super::queue::Ready;
use super::tally::Tally;
use super::victims::Victims;
use super::{Action, Ledger, Time};
use crate::config::TenantLimits;
use crate::{ServerId, TenantId};

pub(super) struct InQuiet;

/// What the ledger knows of one tenant. Rare things stand behind a box; this is what every tenant costs.
pub(super) struct Tenant<E> {
    pub(super) name: TenantId,
    pub(super) server: u32,
    pub(super) cap: u32,
    pub(super) reserve: u32,
    pub(super) weight: u16,
    pub(super) mode: Mode,
    pub(super) counts: Counts,
    /// Its idle connections, the one used last at the end.
    pub(super) idle: List<InTenant>,
    /// How many of its open connections are pinned.
    pub(super) pins: u32,
    /// Its next turn's begin in virtual time.
    pub(super) stamp: u64,
    pub(super) pace: Pace,
    /// Those of its affairs that are under way, [`NO_AFFAIRS`] while it is at rest.
    pub(super) affairs: u32,
    pub(super) circuit: Option<Box<Circuit<E>>>,
    pub(super) tally: Tally,
    /// When it became quiet: no permit, no waiter.
    quiet_since: Moment,
    /// It is quiet among the strangers: its database does not exist, as far as is known.
    stranger: bool,
    in_quiet: Link,
}

linked!(Tenant<E>, InQuiet => in_quiet);

/// What a tenant's callers get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Mode {
    Active,
    /// Until an operator resumes it.
    Draining,
    /// Draining until its database is dropped, unless an operator says otherwise meanwhile.
    Dropping,
    Removed,
}

impl Mode {
    pub(super) fn drains(self) -> bool {
        matches!(self, Self::Draining | Self::Dropping)
    }
}

impl<E> Tenant<E> {
    /// What its reserve still lacks.
    #[inline]
    pub(super) fn unfilled(&self) -> u32 {
        self.reserve.saturating_sub(self.counts.all())
    }

    /// Whether more of it stay than a lowered cap allows, its own, its server's or the total's.
    #[inline]
    pub(super) fn is_above_a_cap(&self, server: &Scope, total: &Scope) -> bool {
        self.counts.staying() > self.cap || server.is_above_its_cap() || total.is_above_its_cap()
    }

    pub(super) fn is_listed_quiet(&self) -> bool {
        self.in_quiet.is_linked()
    }

    pub(super) fn is_quiet(&self, affairs: &Affairs) -> bool {
        self.counts.all() == 0
            && affairs.line.is_empty()
            && affairs.answered.is_empty()
            && affairs.promises.is_empty()
            && self.reserve == 0
            && !self.circuit.as_ref().is_some_and(|circuit| circuit.is_open())
            && !self.mode.drains()
            && affairs.drops == 0
    }
}

/// What the ledger knows of one server.
pub(super) struct Server {
    pub(super) id: ServerId,
    pub(super) scope: Scope,
    pub(super) victims: Victims,
    /// Whether its cap is the user's word; else it is the total's, and no refusal names it.
    pub(super) capped: bool,
    pub(super) ready: Ready,
    pub(super) max_connecting: u32,
    /// Nothing is opened or kept on it.
    pub(super) paused: bool,
    /// Closings whose permits its tenants will open connections with.
    pub(super) promised: u32,
    pub(super) epoch: u32,
    /// The moving average of a connect's time.
    pub(super) connect_time: Option<Duration>,
    pub(super) full: Option<ServerFull>,
    /// When a tenant that had found it unreachable got through again.
    pub(super) reached_again: Moment,
    /// The last tenant that was told "server full", and when.
    pub(super) full_seen: Option<(TenantId, Moment)>,
    /// Events, for the statistics.
    pub(super) connects: u64,
    pub(super) connect_failures: u64,
    pub(super) said_full: u64,
}

/// What the settings say of one server.
pub(super) struct ServerLimit {
    pub(super) cap: u32,
    pub(super) capped: bool,
    pub(super) max_connecting: u32,
}

/// Hashes names for one ledger's table. They come from outside: it is seeded by chance, so that nobody can make a table of names
/// that collide.
#[derive(Clone, Default)]
pub struct NameHasher(DefaultHashBuilder);

impl NameHasher {
    /// The hash of a name.
    #[inline]
    #[must_use]
    pub fn hash(&self, name: &str) -> u64 {
        let mut hasher = self.0.build_hasher();
        // Alone in its key, a name needs no mark at its end, which `str`'s own `hash` adds.
        hasher.write(name.as_bytes());
        hasher.finish()
    }
}

impl<C, E> Ledger<C, E> {
    #[inline]
    pub(super) fn find(&self, name: &str) -> Option<u32> {
        self.find_hashed(name, self.hasher.hash(name))
    }

    #[inline]
    pub(super) fn find_hashed(&self, name: &str, hash: u64) -> Option<u32> {
        self.by_name.find(hash, |&index| self.tenants[index].name.as_str() == name).copied()
    }

    /// Makes a tenant known. A tenant that is known already stays as it is.
    pub fn admit(&mut self, name: TenantId, server: &ServerId, now: Time) {
        if self.find(name.as_str()).is_some() {
            return;
        }
        let server = self.admit_server(server);
        let limits = self.settings.tenants.get(&name).copied().unwrap_or_default();
        let hash = self.hasher.hash(name.as_str());
        let index = self.tenants.insert(Tenant {
            name,
            server,
            cap: 0,
            reserve: 0,
            weight: 1,
            mode: Mode::Active,
            counts: Counts::default(),
            idle: List::new(),
            pins: 0,
            stamp: 0,
            affairs: NO_AFFAIRS,
            pace: Pace::default(),
            circuit: None,
            tally: Tally::default(),
            quiet_since: now.into(),
            stranger: false,
            in_quiet: Link::new(),
        });
        self.limit_tenant(index, limits);
        self.maintenance_lines += usize::from(self.tenants[index].name.is_maintenance());
        let (tenants, hasher) = (&self.tenants, &self.hasher);
        self.by_name.insert_unique(hash, index, |&index| hasher.hash(tenants[index].name.as_str()));
        self.settle(index, now.into());
        if self.tenants.len() > self.settings.max_known_tenants as usize {
            // The bound on how many are remembered wins over how long; names that nobody has go first.
            let oldest = self.strangers.oldest().or(self.quiet.oldest()).filter(|&oldest| oldest != index);
            oldest.into_iter().for_each(|oldest| self.forget(oldest));
        }
    }

    pub(super) fn limit_tenant(&mut self, tenant: u32, limits: TenantLimits) {
        let cap = limits.max.unwrap_or(self.settings.max_connections_per_tenant);
        self.with_reserve(tenant, |ledger| {
            let entry = &mut ledger.tenants[tenant];
            entry.cap = cap;
            entry.reserve = limits.reserve.unwrap_or(0);
            // The settings allow no more than 1,000.
            entry.weight = u16::try_from(limits.weight.unwrap_or(1)).unwrap_or(u16::MAX);
        });
        self.pin_idle(tenant);
        debug_assert!(
            self.limits_changed
                || self.tenants[tenant].reserve == 0
                || self.total.unfilled <= self.total.cap - self.total.counts.all(),
            "who has a reserve is known before others take it"
        );
    }

    pub(super) fn admit_server(&mut self, id: &ServerId) -> u32 {
        // Few by nature: each stands for a cluster of the real world.
        let known = self.servers.iter().position(|server| server.id == *id);
        let index = known.unwrap_or_else(|| {
            let limit = self.limit_of(id);
            self.servers.push(Server {
                id: id.clone(),
                scope: Scope::new(limit.cap),
                victims: Victims::new(),
                capped: limit.capped,
                ready: Ready::default(),
                max_connecting: limit.max_connecting,
                paused: false,
                promised: 0,
                epoch: 0,
                connect_time: None,
                full: None,
                reached_again: Moment::START,
                full_seen: None,
                connects: 0,
                connect_failures: 0,
                said_full: 0,
            });
            self.servers.len() - 1
        });
        u32::try_from(index).unwrap_or(u32::MAX)
    }

    /// A server's limits; the total's where it has none of its own.
    pub(super) fn limit_of(&self, id: &ServerId) -> ServerLimit {
        let limit = self.settings.servers.get(id).copied();
        let cap = limit.unwrap_or(self.settings.max_connections);
        let max_connecting = self.settings.max_connecting.unwrap_or_else(|| (cap / 4).max(2));
        ServerLimit { cap, capped: limit.is_some(), max_connecting }
    }

    /// Starts or ends a tenant's quiet time, from which it is forgotten. Called after every change to what keeps it known.
    #[inline]
    pub(super) fn settle(&mut self, tenant: u32, now: Moment) {
        let entry = &self.tenants[tenant];
        let quiet = entry.is_quiet(self.affairs(tenant));
        if quiet == entry.in_quiet.is_linked() {
            return;
        }
        if quiet {
            let stranger = entry.circuit.as_ref().is_some_and(|circuit| circuit.is_strangers());
            let entry = &mut self.tenants[tenant];
            (entry.quiet_since, entry.stranger) = (now, stranger);
            self.enter_quiet(tenant);
        } else {
            self.leave_quiet(tenant);
        }
    }

    /// After a failure: what a tenant is remembered for has changed.
    pub(super) fn settle_anew(&mut self, tenant: u32, now: Moment) {
        self.refresh(tenant);
        if self.tenants[tenant].in_quiet.is_linked() {
            self.leave_quiet(tenant);
        }
        self.settle(tenant, now);
    }

    fn enter_quiet(&mut self, tenant: u32) {
        let list = if self.tenants[tenant].stranger { &mut self.strangers } else { &mut self.quiet };
        list.push(&mut self.tenants, tenant);
    }

    fn leave_quiet(&mut self, tenant: u32) {
        let list = if self.tenants[tenant].stranger { &mut self.strangers } else { &mut self.quiet };
        list.remove(&mut self.tenants, tenant);
    }

    /// Forgets the tenants whose time has come, at most `most` of each list.
    pub(super) fn forget_due(&mut self, now: Moment, most: u32) {
        for stranger in [false, true] {
            for _ in 0..most {
                let list = if stranger { &self.strangers } else { &self.quiet };
                let Some(oldest) = list.oldest() else { break };
                if !self.forget_if_due(oldest, now) {
                    break;
                }
            }
        }
    }

    /// False where this one, and so everybody behind it, has time left. A tombstone younger than its own time goes to the
    /// end and waits once more.
    fn forget_if_due(&mut self, tenant: u32, now: Moment) -> bool {
        let entry = &self.tenants[tenant];
        let removed = entry.mode == Mode::Removed;
        let patience = if removed { self.settings.tombstone_ttl } else { self.settings.forget_after };
        let age = now.since(entry.quiet_since);
        if age < patience.min(self.settings.forget_after) {
            return false;
        }
        if age >= patience {
            self.forget(tenant);
        } else {
            self.leave_quiet(tenant);
            self.enter_quiet(tenant);
        }
        true
    }

    /// A tombstone whose time is over counts as forgotten, whenever the list comes to it.
    pub(super) fn forget_tombstone(&mut self, tenant: u32, now: Moment) -> bool {
        let entry = &self.tenants[tenant];
        let over = entry.mode == Mode::Removed
            && entry.in_quiet.is_linked()
            && now.since(entry.quiet_since) >= self.settings.tombstone_ttl;
        if over {
            self.forget(tenant);
        }
        over
    }

    fn forget(&mut self, tenant: u32) {
        self.leave_quiet(tenant);
        let hash = self.hasher.hash(self.tenants[tenant].name.as_str());
        if let Ok(entry) = self.by_name.find_entry(hash, |&index| index == tenant) {
            entry.remove();
        }
        let entry = self.tenants.remove(tenant);
        self.maintenance_lines -= usize::from(entry.name.is_maintenance());
        self.unavailable -= u32::from(entry.circuit.as_ref().is_some_and(|circuit| circuit.is_unavailable()));
        let source: Option<Arc<E>> = entry.circuit.and_then(|circuit| circuit.source);
        self.actions.extend(source.map(Action::DropError));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::budget::Permit;

    #[test]
    fn a_tenant_at_rest_and_its_idle_connection_are_small() {
        assert!(size_of::<Tenant<()>>() <= 184, "{}", size_of::<Tenant<()>>());
        assert!(size_of::<Permit<Box<()>>>() <= 96, "{}", size_of::<Permit<Box<()>>>());
    }
}
