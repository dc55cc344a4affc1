//! Rule 17: who is remembered, and for how long.

use super::super::expectation::{Command, Reply};
use super::super::world::TENANTS;
use super::failures::Memory;
use super::{Mode, Quiet, Reference, Returns, Tenant, Time};

impl Reference {
    pub(super) fn admit(&mut self, tenant: usize) {
        let place = self.tenant_places.take();
        let server = self.world.tenants[tenant].home;
        let new = Tenant {
            place,
            server,
            mode: Mode::Active,
            drops: 0,
            next_turn: 0,
            memory: None,
            lateness: 0,
            quiet: None,
            returns: Returns::default(),
        };
        self.tenants[tenant] = Some(new);
        self.note_who_is_quiet();
        if self.tenants.iter().flatten().count() > self.world.max_known_tenants as usize {
            let others = (0..TENANTS).filter(|&other| other != tenant);
            let quiet = others.filter_map(|other| Some((self.tenants[other].as_ref()?.quiet?, other)));
            // Names that nobody has go first.
            if let Some((_, longest)) = quiet.min_by_key(|(quiet, _)| (!quiet.stranger, quiet.order)) {
                self.forget_one(longest);
            }
        }
        self.call(Command::Admit { tenant, server }, Reply::Nothing);
    }

    fn is_quiet(&self, tenant: usize) -> bool {
        self.all_of(tenant) == 0
            && self.promised_to(tenant) == 0
            && self.reserve(tenant) == 0
            && !self.is_draining(tenant)
            && self.tenant(tenant).drops == 0
            && self.waiters.iter().all(|waiter| waiter.tenant != tenant)
            && !self.tenant(tenant).memory.as_ref().is_some_and(Memory::keeps_known)
    }

    pub(super) fn note_who_is_quiet(&mut self) {
        for tenant in self.by_their_places() {
            let (quiet, now) = (self.is_quiet(tenant), self.now);
            if quiet != self.tenant(tenant).quiet.is_some() {
                let order = self.next_order();
                let entry = self.tenant_mut(tenant);
                let stranger = entry.memory.as_ref().is_some_and(Memory::is_strangers);
                entry.quiet = quiet.then_some(Quiet { since: now, order, stranger });
            }
        }
    }

    /// Forgets who has been quiet for `forget_after`, and of those removed the tombstones that are over. Those quiet longest
    /// are looked at first, up to the first that has time left; a tombstone younger than its own time waits once more. How
    /// many are looked at is left open.
    pub(super) fn forget(&mut self) {
        for stranger in [false, true] {
            for _ in 0..256 {
                let quiet =
                    |tenant: usize| self.tenants[tenant].as_ref()?.quiet.filter(|quiet| quiet.stranger == stranger);
                let all = (0..TENANTS).filter_map(|tenant| Some((quiet(tenant)?, tenant)));
                let Some((quiet, tenant)) = all.min_by_key(|(quiet, _)| quiet.order) else { break };
                let age = self.now - quiet.since;
                let patience = self.patience_with(tenant);
                if age < patience.min(self.world.forget_after) {
                    break;
                }
                if age >= patience {
                    self.forget_one(tenant);
                } else {
                    let order = self.next_order();
                    self.tenant_mut(tenant).quiet = Some(Quiet { order, ..quiet });
                }
            }
        }
    }

    fn forget_one(&mut self, tenant: usize) {
        let gone = self.tenants[tenant].take();
        self.tenant_places.free.extend(gone.map(|tenant| tenant.place));
    }

    /// Those who are known, in the order of their places.
    pub(super) fn by_their_places(&self) -> Vec<usize> {
        let mut known: Vec<usize> = (0..TENANTS).filter(|&tenant| self.is_known(tenant)).collect();
        known.sort_by_key(|&tenant| self.tenant(tenant).place);
        known
    }

    fn patience_with(&self, tenant: usize) -> Time {
        let removed = self.tenant(tenant).mode == Mode::Removed;
        if removed { self.world.tombstone_ttl } else { self.world.forget_after }
    }

    /// A tombstone whose time is over counts as forgotten, whenever the list comes to it.
    pub(super) fn forget_tombstone(&mut self, tenant: usize) {
        let Some(entry) = &self.tenants[tenant] else { return };
        let over = entry.quiet.is_some_and(|quiet| self.now - quiet.since >= self.world.tombstone_ttl);
        if over && entry.mode == Mode::Removed {
            self.forget_one(tenant);
        }
    }
}
