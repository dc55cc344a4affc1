//! Which idle connections make room, and in which order: the lists of each server, pins and what is lent (rules 4 and 7).
//!
//! A connection enters its lists in [`Ledger::link_idle`] and leaves them in [`Ledger::unlink_idle`]; what is counted
//! stands in `budget.rs`.

use super::budget::{InServer, Permit};
use super::lru::List;
use super::slots::Slots;
use super::{Ledger, OfPermit};

/// One server's connections that make room when they close.
pub(super) struct Victims {
    /// The idle ones that may be victims, the least recently used first, and those lent to background.
    pub(super) idle: List<InServer>,
    /// The idle ones of background work, the least recently used first. They make room before all others.
    pub(super) background: List<InServer>,
    /// Those being closed whose permit is spare.
    pub(super) closing: List<InServer>,
}

impl Victims {
    pub(super) const fn new() -> Self {
        Self { idle: List::new(), background: List::new(), closing: List::new() }
    }

    /// The least recently used idle connection of foreground work.
    pub(super) fn oldest_idle<C>(&self, permits: &Slots<OfPermit, Permit<C>>) -> Option<u32> {
        // Few are lent, as they are charged to the background's share.
        self.idle.iter(permits).find(|&idle| !permits[idle].lent)
    }
}

impl<C, E> Ledger<C, E> {
    /// The connection that makes room soonest, on the server or, without one, anywhere: one that is being closed anyway, else
    /// what background left idle, else the least recently used.
    pub(super) fn victim(&self, server: Option<u32>) -> Option<u32> {
        let closing = self.oldest_of(server, |victims| victims.closing.oldest());
        let background = || self.oldest_of(server, |victims| victims.background.oldest());
        closing.or_else(background).or_else(|| self.oldest_of(server, |victims| victims.oldest_idle(&self.permits)))
    }

    /// The oldest in a server's list or, without one, in those of all. Servers are few by nature.
    pub(super) fn oldest_of(&self, server: Option<u32>, oldest: impl Fn(&Victims) -> Option<u32>) -> Option<u32> {
        match server {
            Some(server) => oldest(&self.servers[server as usize].victims),
            None => {
                let all = self.servers.iter().filter_map(|server| oldest(&server.victims));
                all.min_by_key(|&permit| self.permits[permit].order)
            }
        }
    }

    /// The next place in the order of all servers' lists.
    #[inline]
    pub(super) fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    /// Puts an idle connection into its lists as the newest, pinned where its tenant's reserve wants a pin.
    #[inline]
    pub(super) fn link_idle(&mut self, permit: u32) {
        let entry = &mut self.permits[permit];
        let (tenant, server) = (&mut self.tenants[entry.tenant], entry.server);
        if tenant.pins < tenant.reserve && !entry.pinned {
            entry.pinned = true;
            tenant.pins += 1;
        }
        let evictable = !entry.pinned;
        tenant.idle.push(&mut self.permits, permit);
        if evictable {
            self.link_victim(permit, server);
        } else {
            // What fills a reserve is its tenant's, whoever opened it.
            self.charge(permit, false);
        }
        self.refresh(self.permits[permit].tenant);
    }

    #[inline]
    fn link_victim(&mut self, permit: u32, server: u32) {
        self.permits[permit].order = self.next_order();
        let victims = &mut self.servers[server as usize].victims;
        let list = if self.permits[permit].background { &mut victims.background } else { &mut victims.idle };
        list.push(&mut self.permits, permit);
        seeded!(LruByCreation => self.sort_victims_by_creation());
    }

    #[inline]
    pub(super) fn unlink_idle(&mut self, permit: u32) {
        let (tenant, server, pinned) = {
            let entry = &self.permits[permit];
            (entry.tenant, entry.server, entry.pinned)
        };
        self.tenants[tenant].idle.remove(&mut self.permits, permit);
        if !pinned {
            self.unlink_victim(permit, server);
        }
        self.refresh(tenant);
    }

    #[inline]
    fn unlink_victim(&mut self, permit: u32, server: u32) {
        let (victims, entry) = (&mut self.servers[server as usize].victims, &self.permits[permit]);
        let list = if entry.background && !entry.lent { &mut victims.background } else { &mut victims.idle };
        list.remove(&mut self.permits, permit);
    }

    /// A lent connection will not come back.
    pub(super) fn stop_lending(&mut self, permit: u32) {
        if self.permits[permit].lent {
            if !self.permits[permit].pinned {
                self.unlink_victim(permit, self.permits[permit].server);
            }
            self.permits[permit].lent = false;
        }
    }

    /// A connection that begins to close gives its pin to another idle one of its tenant; where none is idle, the next
    /// to come back takes it ([`link_idle`](Self::link_idle)).
    pub(super) fn unpin(&mut self, permit: u32) {
        if !std::mem::take(&mut self.permits[permit].pinned) {
            return;
        }
        let tenant = self.permits[permit].tenant;
        self.tenants[tenant].pins -= 1;
        self.pin_idle(tenant);
    }

    /// Pins idle connections of a tenant while its reserve wants pins.
    pub(super) fn pin_idle(&mut self, tenant: u32) {
        while self.tenants[tenant].pins < self.tenants[tenant].reserve {
            let unpinned = self.tenants[tenant].idle.iter(&self.permits).find(|&i| !self.permits[i].pinned);
            let Some(heir) = unpinned else { return };
            self.unlink_victim(heir, self.permits[heir].server);
            self.charge(heir, false);
            self.permits[heir].pinned = true;
            self.tenants[tenant].pins += 1;
        }
    }
}
