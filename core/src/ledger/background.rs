//! Background work (rule 7): a share of the budget that it never passes, connections that it borrows without disturbing
//! their order, and whose connections it may close to make room.

use super::Ledger;
use super::moment::Moment;
use super::queue::Lane;
use super::serve::Source;
use crate::error::LimitScope;
use crate::stats::CloseReason;

/// What background work has of the budget.
#[derive(Default)]
pub(super) struct Share {
    /// Permits charged to it: it opened them, or has borrowed them.
    pub(super) taken: u32,
    /// Permits of others that are promised to it.
    pub(super) promised: u32,
    /// What has been idle since before this time is idle for long. Moves with each tick.
    pub(super) idle_for_long: Option<Moment>,
}

impl<C, E> Ledger<C, E> {
    /// The most permits that background work may hold.
    pub(super) fn background_share(&self) -> u32 {
        self.settings.background_share.unwrap_or_else(|| (self.total.cap / 4).max(1))
    }

    pub(super) fn has_share(&self) -> bool {
        self.share.taken + self.share.promised < self.background_share() || seeded!(BackgroundPassesItsShare)
    }

    /// Whether the permit counts against the share. One that is idle changes sides only outside the lists of victims.
    pub(super) fn charge(&mut self, permit: u32, background: bool) {
        let entry = &mut self.permits[permit];
        if entry.background != background {
            entry.background = background;
            self.share.taken = if background { self.share.taken + 1 } else { self.share.taken - 1 };
        }
    }

    /// The tenant's newest idle connection that an acquire of this kind may have.
    #[inline]
    pub(super) fn idle_for(&self, tenant: u32, background: bool) -> Option<u32> {
        let idle = &self.tenants[tenant].idle;
        if !background || self.has_share() {
            return idle.newest();
        }
        idle.iter(&self.permits).filter(|&idle| self.permits[idle].background).last()
    }

    /// idle -> out of the lists, for an acquire of this kind. One that is lent to background keeps its place among the
    /// victims (and is none meanwhile), so that the borrowing refreshes nothing.
    #[inline]
    pub(super) fn take_out(&mut self, idle: u32, background: bool) {
        if background && !self.permits[idle].background && !seeded!(BorrowingRefreshes) {
            self.permits[idle].lent = true;
            self.charge(idle, true);
            let tenant = self.permits[idle].tenant;
            self.tenants[tenant].idle.remove(&mut self.permits, idle);
            self.refresh(tenant);
        } else {
            self.unlink_idle(idle);
        }
    }

    /// A lent connection has become idle: it is where it was before.
    pub(super) fn link_returned(&mut self, permit: u32) {
        let (tenant, used_at) = (self.permits[permit].tenant, self.permits[permit].used_at);
        self.permits[permit].lent = false;
        self.charge(permit, false);
        let newer = self.tenants[tenant].idle.iter(&self.permits).find(|&other| self.permits[other].used_at > used_at);
        self.tenants[tenant].idle.insert(&mut self.permits, permit, newer);
        self.pin_idle(tenant);
        self.refresh(tenant);
    }

    /// Where a permit for background work would come from. At its share, one of its own connections has to make room.
    pub(super) fn background_source(&self, tenant: u32, lane: Lane) -> Option<Source> {
        if lane == Lane::Borrow {
            return if self.has_share() {
                Some(Source::Free)
            } else {
                self.oldest_of(None, |victims| victims.background.oldest())
                    .map(|own| Source::Victim(own, LimitScope::Background))
            };
        }
        let entry = &self.tenants[tenant];
        let (server, takes) = (&self.servers[entry.server as usize].scope, self.server_cap(entry.server));
        if !server.makes_room(takes, 0) {
            return None;
        }
        let there = self.background_victim(Some(entry.server));
        if !server.has_room(takes, 0) || (self.was_told_full(tenant) && there.is_some()) {
            there.map(|victim| Source::Victim(victim, self.limit_on(entry.server)))
        } else if !self.has_share() {
            self.background_victim(None).map(|victim| Source::Victim(victim, LimitScope::Background))
        } else if !self.total.has_room(self.total.cap, 0) {
            self.background_victim(None).map(|victim| Source::Victim(victim, LimitScope::Total))
        } else {
            Some(Source::Free)
        }
    }

    /// What is being closed anyway; else what background left idle itself; else, below its share, the least recently used
    /// that has been idle for long.
    fn background_victim(&self, server: Option<u32>) -> Option<u32> {
        let below = self.has_share();
        let counts = |&closing: &u32| below || self.permits[closing].background;
        let closing = self.oldest_of(server, |victims| victims.closing.iter(&self.permits).find(counts));
        let background = || self.oldest_of(server, |victims| victims.background.oldest());
        let oldest = || self.oldest_of(server, |victims| victims.oldest_idle(&self.permits));
        let for_long =
            |&idle: &u32| below && self.share.idle_for_long.is_some_and(|before| self.permits[idle].used_at <= before);
        closing.or_else(background).or_else(|| oldest().filter(for_long))
    }

    /// Closes what background left idle while it has more than its share, as that was lowered.
    pub(super) fn shrink_background(&mut self, now: Moment) {
        while self.share.taken > self.background_share()
            && let Some(oldest) = self.oldest_of(None, |victims| victims.background.oldest())
        {
            self.close_idle(oldest, CloseReason::Ended, now);
            self.charge(oldest, false);
        }
    }
}
