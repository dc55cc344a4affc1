//! Rule 7: what background work may have, and from whom.

use super::turns::{Place, Room, Source};
use super::{Permit, Reference};

impl Reference {
    pub(super) fn stands_for_background(&self, tenant: usize) -> bool {
        self.place_in_line(tenant).is_some_and(|place| place.background)
    }

    /// Whether the first in line that nothing is on its way to is background work.
    pub(super) fn next_is_background(&self, tenant: usize) -> bool {
        let coming = self.openings_of(tenant) + self.recyclings_of(tenant) + self.promised_to(tenant);
        self.line(tenant).nth(coming as usize).is_some_and(|waiter| waiter.background)
    }

    /// Rule 7: background work closes only what it left idle itself, and what was idle for long while it is below its share.
    pub(super) fn background_victim(&self, here: impl Fn(&Permit) -> bool) -> Option<Source> {
        let below = self.has_share();
        let closing = self.in_order(|permit| here(permit) && permit.is_spare() && (below || permit.background));
        let idle = |background: bool| self.evictable(background).into_iter().find(|&idle| here(self.permit(idle)));
        let long = |&idle: &u32| below && self.idle_for_long.is_some_and(|long| self.permit(idle).used_at <= long);
        closing.first().copied().or(idle(true)).or(idle(false).filter(long)).map(Source::After)
    }

    pub(super) fn background_source(
        &self,
        there: Room,
        in_all: Room,
        server: usize,
        tenant: usize,
        place: &Place,
    ) -> Option<Source> {
        if place.borrow {
            let own = self.evictable(true).first().map(|&own| Source::After(own));
            return if self.has_share() { Some(Source::Free) } else { own };
        }
        if !there.has_with(1) {
            return None;
        }
        let victim_there = self.background_victim(|permit| permit.server == server);
        if !there.has_with(0) || (self.was_told_full(tenant) && victim_there.is_some()) {
            return victim_there;
        }
        if in_all.has_with(0) && self.has_share() { Some(Source::Free) } else { self.background_victim(|_| true) }
    }

    pub(super) fn head_is_background(&self, tenant: usize) -> bool {
        self.plain_head(tenant).is_some_and(|head| self.waiter(head).background)
    }
}
