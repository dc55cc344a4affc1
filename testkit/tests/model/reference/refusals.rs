//! Rule 19: how a "no" is made.

use tenantry_core::ledger::Ask;
use tenantry_core::{LimitScope, Phase};

use super::super::expectation::{Refusal, Retry, Shortage};
use super::super::world::{MS, TENANTS};
use super::{Claim, Mode, Permit, Reference, State, Time};

/// A limit that was short.
struct Short {
    scope: LimitScope,
    limit: u32,
}

impl Reference {
    pub(super) fn refuse_by_mode(&self, tenant: usize) -> Option<Refusal> {
        match self.mode(tenant)? {
            Mode::Active => None,
            Mode::Draining | Mode::Dropping => Some(Refusal::Draining),
            Mode::Removed => Some(Refusal::Removed),
        }
    }

    /// The refusals that need no waiting: an open circuit, and more permits than there can ever be. What others have
    /// reserved is never for this one.
    pub(super) fn refuse_at_once(&mut self, tenant: usize, ask: Ask) -> Option<Refusal> {
        if let Some(refusal) = self.refuse_by_circuit(tenant) {
            return Some(refusal);
        }
        let Ask { pool, background, caller } = ask;
        if background && pool > 0 {
            let short = Short { scope: LimitScope::Background, limit: 0 };
            return Some(self.shortage(tenant, short, caller, Time::ZERO, Some(Retry::Never)));
        }
        let server = self.server_of(tenant);
        let others = |on: Option<usize>| -> u32 {
            (0..TENANTS)
                .filter(|&other| other != tenant && self.is_known(other))
                .filter(|&other| on.is_none_or(|server| self.server_of(other) == server))
                .map(|other| self.reserve(other))
                .sum()
        };
        let own = (LimitScope::Tenant, self.world.tenants[tenant].max);
        // A server is named only where it has a cap.
        let on_server =
            self.world.servers[server].map(|cap| (LimitScope::Server, cap.saturating_sub(others(Some(server)))));
        let in_all = (LimitScope::Total, self.world.total.saturating_sub(others(None)));
        let limits = [Some(own), on_server, Some(in_all)];
        let &(scope, limit) = limits.iter().flatten().find(|(_, limit)| pool > *limit)?;
        Some(self.shortage(tenant, Short { scope, limit }, caller, Time::ZERO, Some(Retry::Never)))
    }

    /// Turns the newest in line away, where the line is full and nothing is on its way to it. Those for whom something is
    /// do not count.
    pub(super) fn refuse_by_queue(&mut self, waiter: u32) -> Option<Refusal> {
        let tenant = self.waiter(waiter).tenant;
        if self.waiter(waiter).answer.is_some() || self.wants(tenant) == 0 {
            return None;
        }
        let coming = self.opening_soon(tenant) + self.recyclings_of(tenant);
        let to_open = |permit: &Permit| match permit.state {
            State::Closing { claim: Claim::Promised { opens, .. }, .. } => opens,
            state => state == State::Opening,
        };
        let (limit, of_tenant) = (self.world.max_waiters, self.world.max_waiters_per_tenant);
        let (limit, seen) = if self.line_len(tenant).saturating_sub(coming) > of_tenant {
            (of_tenant, self.tenant(tenant).returns.known)
        } else if (self.waiting() as u32).saturating_sub(self.count(to_open)) > limit {
            (limit, self.returns.known)
        } else {
            return None;
        };
        self.turn_away(waiter);
        let retry = if seen { Retry::Estimated } else { Retry::AfterAcquireTimeout };
        Some(self.shortage(tenant, Short { scope: LimitScope::Queue, limit }, 0, Time::ZERO, Some(retry)))
    }

    /// The refusal of a waiter whose deadline passed.
    pub(super) fn refuse_late(&mut self, waiter: u32) -> Refusal {
        let entry = self.waiter(waiter);
        let (tenant, pool, caller, waited) = (entry.tenant, entry.pool, entry.caller, self.now - entry.since);
        let background = entry.background;
        let place = self.line(tenant).position(|other| other.id == waiter).expect("it is in line") as u32;
        // The first ones in line are those for whom a connection is on its way.
        let opening = self.openings_of(tenant);
        let on_its_way = pool == 0 && place < opening + self.recyclings_of(tenant);
        let short = self.narrowest(tenant, background);
        let Some(short) = short.filter(|_| !on_its_way) else {
            self.events.timeouts += 1;
            let recycling = on_its_way && place >= opening;
            let phase = if recycling { Phase::Recycling } else { Phase::Connecting };
            return Refusal::Timeout { phase, waited };
        };
        self.shortage(tenant, short, caller, waited, None)
    }

    /// The narrowest limit that keeps a tenant from one more permit: its own, its server's if that has one, the total.
    /// None where none does, and too many connect already.
    fn narrowest(&self, tenant: usize, background: bool) -> Option<Short> {
        let own = self.world.tenants[tenant].max;
        if self.all_of(tenant) >= own {
            return Some(Short { scope: LimitScope::Tenant, limit: own });
        }
        if background && !self.has_share() {
            return Some(Short { scope: LimitScope::Background, limit: self.world.background_share() });
        }
        let server = self.server_of(tenant);
        let limit = self.cap_of(server);
        let has_limit = self.world.servers[server].is_some() || limit < self.world.server_cap(server);
        if self.was_told_full(tenant) || (has_limit && !self.server_has_room(tenant)) {
            return Some(Short { scope: LimitScope::Server, limit });
        }
        let pool_first = self.line(tenant).next().is_some_and(|first| first.pool > 0);
        let short = pool_first || !self.total_has_room(tenant);
        short.then_some(Short { scope: LimitScope::Total, limit: self.world.total })
    }

    fn shortage(&mut self, tenant: usize, short: Short, caller: u64, waited: Time, retry: Option<Retry>) -> Refusal {
        let Short { scope, limit } = short;
        let server = self.server_of(tenant);
        let on_server = |waiter: &&super::Waiter| waiter.answer.is_none() && self.server_of(waiter.tenant) == server;
        let (open, waiting, returns) = match scope {
            LimitScope::Tenant => (self.all_of(tenant), self.line_len(tenant), self.tenant(tenant).returns),
            LimitScope::Server => {
                let waiting = self.waiters.iter().filter(on_server).count();
                (self.all_on(server), waiting as u32, self.servers[server].returns)
            }
            LimitScope::Background => (self.charged(), self.waiting() as u32, self.returns),
            _ => (self.permits.len() as u32, self.waiting() as u32, self.returns),
        };
        let retry = retry.unwrap_or(if returns.known { Retry::Estimated } else { Retry::AfterAcquireTimeout });
        let all_holders = self.largest_holders();
        let holders = if scope == LimitScope::Tenant { vec![(tenant, self.all_of(tenant))] } else { all_holders };
        let held_by_caller =
            if caller == 0 { 0 } else { self.count(|permit| permit.caller == caller && permit.state == State::Leased) };
        self.events.refusals[scope as usize] += 1;
        Refusal::Limit(Shortage { scope, limit, open, waiting, waited, retry, holders, held_by_caller })
    }

    /// At most 10 ms old, the largest first.
    fn largest_holders(&mut self) -> Vec<(usize, u32)> {
        let fresh = self.holders.filter(|(at, _)| self.now - *at < MS * 10);
        let (_, counts) =
            *self.holders.insert(fresh.unwrap_or((self.now, std::array::from_fn(|tenant| self.all_of(tenant)))));
        let mut holders: Vec<(usize, u32)> = (0..TENANTS).zip(counts).filter(|&(_, held)| held > 0).collect();
        holders.sort_by_key(|&(tenant, held)| (std::cmp::Reverse(held), tenant));
        holders
    }
}
