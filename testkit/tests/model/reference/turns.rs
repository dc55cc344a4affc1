//! Rules 4, 5, 6 and 11: who is servable, whose turn it is, and whose connection makes room.

use std::cmp::Ordering;

use super::super::expectation::Answer;
use super::super::world::TENANTS;
use super::{Claim, Fitness, Mode, Permit, Reference, State};

/// One turn of a tenant of weight 1 in virtual time. The rules leave its unit open.
const TURN: u64 = 1 << 20;

/// Where a turn's permit comes from.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source {
    Free,
    /// This connection is closing, or has to close first.
    After(u32),
}

/// What is in the way of all who stand in the same place is the same.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct Place {
    server: usize,
    /// For a pool lease, which needs no opening slot.
    pool: bool,
    /// Its own cap is short.
    at_cap: bool,
    /// Within its reserve, which is kept free for it.
    reserved: bool,
    /// For background work, outside of the reserve...
    pub(super) background: bool,
    /// ...to borrow an idle connection of its own, once the share allows.
    pub(super) borrow: bool,
}

impl Reference {
    /// After each command no free or evictable permit could serve a servable waiter, and nobody waits beside an idle
    /// connection of its own that is fit (rule 5).
    pub(super) fn settle(&mut self) {
        while (0..TENANTS).any(|tenant| self.serve_fit(tenant)) || self.serve_between_tenants() {}
    }

    /// The same after a change in one tenant's line or connections.
    pub(super) fn settle_with(&mut self, tenant: usize) {
        self.settle_line(tenant, None);
        self.settle();
    }

    /// The same, but each tenant's idle connections stay where they are for now.
    pub(super) fn settle_between_tenants(&mut self) {
        while self.serve_between_tenants() {}
    }

    fn serve_fit(&mut self, tenant: usize) -> bool {
        // Background work borrows in its turn.
        let head = self.plain_head(tenant).filter(|&head| !self.waiter(head).background);
        let newest = head.and_then(|_| self.idle_for(tenant, false));
        let fit = newest.filter(|&newest| self.fitness(newest, true) == Fitness::Fit);
        fit.into_iter().for_each(|fit| self.grant(fit));
        fit.is_some()
    }

    /// Gives a tenant's idle connections to its own line: granted where they are fit, put away where they are not. What is
    /// merely old is left alone while as many are being recycled as somebody waits for; what has just come back is not old.
    pub(super) fn settle_line(&mut self, tenant: usize, just_back: Option<u32>) {
        while let Some(head) = self.plain_head(tenant) {
            let background = self.waiter(head).background;
            let Some(newest) = self.idle_for(tenant, background) else { return };
            match self.fitness(newest, just_back != Some(newest)) {
                Fitness::Fit => self.grant(newest),
                Fitness::Aged if self.line_len(tenant) <= self.recyclings_of(tenant) => return,
                unfit => self.put_away(newest, unfit, background),
            }
        }
    }

    pub(super) fn plain_head(&self, tenant: usize) -> Option<u32> {
        self.line(tenant).next().filter(|waiter| waiter.pool == 0).map(|waiter| waiter.id)
    }

    fn pool_head(&self, tenant: usize) -> Option<u32> {
        self.line(tenant).next().filter(|waiter| waiter.pool > 0).map(|waiter| waiter.id)
    }

    /// How many permits the head of the line can use beyond those that it has, or has a connection for on its way.
    fn lacks_permits(&self, tenant: usize) -> u32 {
        if let Some(pool) = self.pool_head(tenant) {
            let pool = self.waiter(pool);
            return pool.pool - pool.gathered.len() as u32;
        }
        // Those behind a pool lease wait for it first.
        let plain = self.line(tenant).take_while(|waiter| waiter.pool == 0).count() as u32;
        plain.saturating_sub(self.openings_of(tenant) + self.recyclings_of(tenant))
    }

    /// The same, beyond those that are promised to it.
    pub(super) fn wants(&self, tenant: usize) -> u32 {
        self.lacks_permits(tenant).saturating_sub(self.promised_to(tenant))
    }

    /// Promises that their tenant's line can no longer use are for anybody (rule 8): the newest of them.
    pub(super) fn withdraw_promises(&mut self) {
        for tenant in 0..TENANTS {
            let mut promised = self.in_order(|permit| permit.is_promised_to(tenant));
            promised.sort_by_key(|&promised| self.permit(promised).claimed);
            for &surplus in promised.iter().skip(self.lacks_permits(tenant) as usize) {
                self.claim(surplus, Claim::Spare);
            }
        }
    }

    pub(super) fn claim(&mut self, closing: u32, to: Claim) {
        let order = self.next_order();
        let permit = self.permit_mut(closing);
        permit.claimed = order;
        if let State::Closing { claim, .. } = &mut permit.state {
            *claim = to;
        }
    }

    /// In use, opening and to be opened: what a tenant's share is charged with.
    fn used(&self, tenant: usize) -> u32 {
        let busy = |permit: &Permit| !matches!(permit.state, State::Idle | State::Closing { .. });
        self.count(|permit| permit.tenant == tenant && busy(permit)) + self.promised_to(tenant)
    }

    /// The least in use for its weight first, among equals the one whose turns are longest ago for its weight.
    pub(super) fn compare(&self, one: usize, other: usize) -> Ordering {
        let weighed = |this: usize, that: usize| self.used(this) * self.world.tenants[that].weight;
        weighed(one, other)
            .cmp(&weighed(other, one))
            .then(self.tenant(one).next_turn.cmp(&self.tenant(other).next_turn))
            .then(self.tenant(one).place.cmp(&self.tenant(other).place))
    }

    fn serve_between_tenants(&mut self) -> bool {
        self.withdraw_promises();
        let Some((tenant, source)) = self.next_turn() else { return false };
        self.give(tenant, source);
        self.had_turn(tenant);
        true
    }

    /// The permit that was promised to a tenant is free. It had its turn when the promise was made, and has made room
    /// itself.
    pub(super) fn keep_promise(&mut self, tenant: usize) {
        let pool = self.pool_head(tenant);
        let in_turn = pool.is_none() || self.gathering.is_none() || self.gathering == pool;
        let place = self.place_in_line(tenant).filter(|place| in_turn && !place.borrow && self.has_slot(place));
        if let Some(place) = place
            && (!place.background || self.has_share())
            && self.has_free_permit(tenant, &place)
        {
            self.give(tenant, Source::Free);
        }
    }

    fn give(&mut self, tenant: usize, source: Source) {
        let pool = self.pool_head(tenant);
        let place = self.place_in_line(tenant).expect("who is given something stands in line");
        self.gathering = pool.or(self.gathering);
        if let Source::After(permit) = source
            && self.permit(permit).state == State::Idle
        {
            self.events.evictions += 1;
            self.close_permit(permit);
        }
        match (source, pool) {
            (source, _) if place.borrow => {
                if let Source::After(own) = source {
                    // What is lent takes its part of the share at once.
                    self.permit_mut(own).background = false;
                }
                self.settle_line(tenant, None);
            }
            (Source::After(permit), _) => {
                let lateness = self.tenant(tenant).lateness;
                let background = place.background && !self.permit(permit).background;
                self.claim(permit, Claim::Promised { to: tenant, opens: pool.is_none(), background, lateness });
            }
            (Source::Free, None) => {
                self.start_open(tenant, place.background);
            }
            (Source::Free, Some(pool)) => {
                let permit = self.new_permit(tenant, State::Pool);
                self.waiter_mut(pool).gathered.push(permit);
                // What was promised to it is for anybody, not for the next in its line.
                self.withdraw_promises();
                if self.lacks_permits(tenant) == 0 {
                    self.answer(pool, Answer::Pool);
                    self.gathering = None;
                    self.settle_line(tenant, None);
                }
            }
        }
    }

    pub(super) fn start_open(&mut self, tenant: usize, background: bool) {
        let permit = self.new_permit(tenant, State::Opening);
        self.permit_mut(permit).background = background;
        self.expected.opens.push((permit, tenant));
    }

    /// Whether an open of the tenant could begin now, with a free permit.
    pub(super) fn may_open(&self, tenant: usize) -> bool {
        let server = self.server_of(tenant);
        let place = Place { server, pool: false, at_cap: false, reserved: false, background: false, borrow: false };
        self.has_slot(&place) && self.has_free_permit(tenant, &place)
    }

    fn had_turn(&mut self, tenant: usize) {
        self.clock = self.clock.max(self.tenant(tenant).next_turn) + 1;
        self.tenant_mut(tenant).next_turn = self.clock + TURN / u64::from(self.world.tenants[tenant].weight);
    }

    fn new_permit(&mut self, tenant: usize, state: State) -> u32 {
        let (id, order, server) = (self.next_id(), self.next_order(), self.server_of(tenant));
        let place = self.permit_places.take();
        self.permits.push(Permit {
            id,
            place,
            tenant,
            server,
            state,
            since: self.now,
            run_since: self.now,
            order,
            claimed: 0,
            background: false,
            lent: false,
            used_at: self.now,
            used_order: order,
            expires_at: super::Time::MAX,
            epoch: self.epoch(server),
            pinned: false,
            warned: false,
            caller: 0,
            connection: None,
        });
        id
    }

    /// The servable tenant whose turn it is. A pool lease that is being gathered is finished first, and until then no
    /// other one is begun (rule 11).
    fn next_turn(&self) -> Option<(usize, Source)> {
        if let Some(waiter) = self.gathering {
            let tenant = self.waiter(waiter).tenant;
            if self.pool_head(tenant) == Some(waiter)
                && let Some(source) = self.source(tenant)
            {
                return Some((tenant, source));
            }
        }
        let others = (0..TENANTS).filter(|&tenant| self.gathering.is_none() || self.pool_head(tenant).is_none());
        let servable: Vec<(usize, Source)> = others.filter_map(|tenant| Some((tenant, self.source(tenant)?))).collect();
        // Users first (rule 7).
        let of_kind = |background: bool| {
            let theirs = servable.iter().filter(|(tenant, _)| self.stands_for_background(*tenant) == background);
            theirs.copied().min_by(|one, other| self.compare(one.0, other.0))
        };
        of_kind(false).or_else(|| of_kind(true))
    }

    /// Where a tenant stands that can use one more permit, as far as that is for itself to say: somebody in its line has
    /// none on its way, its own cap leaves room or something of its own can make room, and where it is for an open, it has
    /// an opening slot left. A promise counts as an open to come.
    pub(super) fn place_in_line(&self, tenant: usize) -> Option<Place> {
        if self.mode(tenant) != Some(Mode::Active) {
            return None;
        }
        let (server, has_idle) = (self.server_of(tenant), !self.idle_of(tenant).is_empty());
        if has_idle && self.head_is_background(tenant) {
            // Whatever else is on its way to it, but for what is being validated.
            let place = Place { server, pool: false, at_cap: false, reserved: false, background: true, borrow: true };
            return Some(place).filter(|_| self.line_len(tenant) > self.recyclings_of(tenant));
        }
        if self.wants(tenant) == 0 {
            return None;
        }
        let (slots, pool) = (self.opening_slots(tenant), self.pool_head(tenant).is_some());
        let rests = if pool { slots == 0 } else { self.opening_soon(tenant) >= slots };
        // An idle connection of its own is for its own line first.
        let background = !pool && self.next_is_background(tenant);
        if rests || (has_idle && !pool) {
            return None;
        }
        // A promise on a closing of its own adds nothing to what a tenant holds.
        let own = |permit: &Permit| permit.tenant == tenant;
        let expected = self.count(|permit| own(permit) || permit.is_promised_to(tenant));
        let max = self.world.tenants[tenant].max;
        let at_cap = expected >= max;
        if at_cap
            && (expected > max || !(has_idle || self.permits.iter().any(|permit| own(permit) && permit.is_spare())))
        {
            return None;
        }
        if background && at_cap {
            return None;
        }
        let reserved = !background && !at_cap && self.lacks(tenant) > 0;
        Some(Place { server, pool, at_cap, reserved, background, borrow: false })
    }

    /// Whether its server has an opening slot, where it is for an open.
    fn has_slot(&self, place: &Place) -> bool {
        let opening_there = self.count(|permit| match permit.state {
            State::Opening => permit.server == place.server,
            State::Closing { claim: Claim::Promised { to, opens, .. }, .. } => {
                opens && self.server_of(to) == place.server
            }
            _ => false,
        });
        place.pool || place.borrow || opening_there < self.world.max_connecting(place.server)
    }

    /// Whether a permit is free for a tenant under all three caps and beside what others have reserved.
    fn has_free_permit(&self, tenant: usize, place: &Place) -> bool {
        let has_room = self.all_of(tenant) < self.world.tenants[tenant].max;
        let (there, in_all) = self.rooms(tenant, place);
        has_room && there.has_with(0) && in_all.has_with(0)
    }

    /// Where one more permit for a tenant would come from, if it can have one (rule 5).
    fn source(&self, tenant: usize) -> Option<Source> {
        let place = self.place_in_line(tenant).filter(|place| self.has_slot(place))?;
        let server = place.server;
        let (there, in_all) = self.rooms(tenant, &place);
        if place.borrow {
            return self.background_source(there, in_all, server, tenant, &place);
        }
        // One permit fewer has to be enough, also where a limit was lowered.
        if !in_all.has_with(1) {
            return None;
        }
        if place.at_cap {
            // Its own cap is short: what closes of its own anyway makes room, else its oldest, pins included (rule 4).
            let spare = self.in_order(|permit| permit.tenant == tenant && permit.is_spare());
            let oldest = spare.first().copied().or(self.idle_of(tenant).first().copied());
            return oldest.filter(|_| self.all_on(server) <= self.cap_of(server)).map(Source::After);
        }
        if place.background {
            return self.background_source(there, in_all, server, tenant, &place);
        }
        // One that was told that the server is full makes room itself, if it can (rule 10).
        let victim_there = self.victim(|permit| permit.server == server).filter(|_| there.has_with(1));
        if !there.has_with(0) || (self.was_told_full(tenant) && victim_there.is_some()) {
            return victim_there;
        }
        if in_all.has_with(0) { Some(Source::Free) } else { self.victim(|_| true) }
    }

    /// Opens that are under way, or have a permit promised.
    pub(super) fn opening_soon(&self, tenant: usize) -> u32 {
        self.openings_of(tenant) + self.promised_to(tenant)
    }

    /// What the reserves of others lack, on a server or in all.
    pub(super) fn kept_from(&self, tenant: usize, server: Option<usize>) -> u32 {
        (0..TENANTS)
            .filter(|&other| other != tenant && self.is_known(other))
            .filter(|&other| server.is_none_or(|server| self.server_of(other) == server))
            .map(|other| self.lacks(other))
            .sum()
    }

    /// The connection that makes room soonest: one that is closing anyway, else the least recently used idle one that is
    /// not pinned.
    fn victim(&self, here: impl Fn(&Permit) -> bool) -> Option<Source> {
        let closing = self.in_order(|permit| here(permit) && permit.is_spare());
        let idle = |background: bool| self.evictable(background).into_iter().find(|&idle| here(self.permit(idle)));
        closing.first().copied().or(idle(true)).or(idle(false)).map(Source::After)
    }

    /// On its server, and in all. Its own reserve is not for background work.
    fn rooms(&self, tenant: usize, place: &Place) -> (Room, Room) {
        let (mut there, mut in_all) = (self.server_room(tenant), self.total_room(tenant));
        if place.background {
            there.kept += self.lacks(tenant);
            in_all.kept += self.lacks(tenant);
        }
        (there, in_all)
    }

    fn server_room(&self, tenant: usize) -> Room {
        let server = self.server_of(tenant);
        Room {
            cap: self.world.server_cap(server),
            takes: self.cap_of(server),
            all: self.all_on(server),
            kept: self.kept_from(tenant, Some(server)),
        }
    }

    fn total_room(&self, tenant: usize) -> Room {
        let all = self.permits.len() as u32;
        Room { cap: self.world.total, takes: self.world.total, all, kept: self.kept_from(tenant, None) }
    }

    pub(super) fn server_has_room(&self, tenant: usize) -> bool {
        self.server_room(tenant).has_with(0)
    }

    pub(super) fn total_has_room(&self, tenant: usize) -> bool {
        self.total_room(tenant).has_with(0)
    }

    /// A connection became idle: its tenant's first waiter gets it, unless another tenant's turn has come. A fresh one
    /// was opened for its tenant and stays with it.
    pub(super) fn offer(&mut self, permit: u32, fresh: bool) {
        let tenant = self.permit(permit).tenant;
        if !fresh && self.plain_head(tenant).is_some() {
            let first = self.passed_over(tenant);
            let stays = first.is_none_or(|first| self.may_pass_over(first, permit));
            self.events.hand_overs += u64::from(stays);
            if first.is_none() || !stays {
                self.permit_mut(permit).run_since = self.now;
            }
            if first.is_none() {
                self.had_turn(tenant);
            } else if !stays {
                self.settle_between_tenants();
            }
        }
        self.settle_line(tenant, Some(permit));
        self.settle();
    }

    /// idle -> granted, to its tenant's first waiter.
    fn grant(&mut self, permit: u32) {
        let tenant = self.permit(permit).tenant;
        let waiter = self.plain_head(tenant).expect("a grant is for a waiter");
        self.hand_out(permit, self.waiter(waiter).background);
        self.enter(permit, State::Granted(waiter));
        self.answer(waiter, Answer::Connection(permit));
    }

    /// Whose turn it is, if not the tenant's own.
    fn passed_over(&self, tenant: usize) -> Option<usize> {
        let (first, _) = self.next_turn()?;
        if self.stands_for_background(first) != self.head_is_background(tenant) {
            return Some(first).filter(|_| self.head_is_background(tenant));
        }
        // What gathers is charged for what it holds already and cannot use yet; its turn is by time alone.
        let gathers = self.gathering.is_some() && self.pool_head(first) == self.gathering;
        let own = first == tenant || (!gathers && self.compare(tenant, first) == Ordering::Less);
        (!own).then_some(first)
    }

    /// A connection may stay with its tenant until it has passed another over for the bound, and the other has waited for
    /// so long (rule 6).
    fn may_pass_over(&self, first: usize, permit: u32) -> bool {
        let permit = self.permit(permit);
        if self.head_is_background(permit.tenant) && !self.stands_for_background(first) {
            return false;
        }
        let arrived = self.line(first).next().expect("somebody waits").since;
        let tenant = permit.tenant;
        let server = &self.servers[self.server_of(tenant)];
        let bound = self.world.handover_bound.unwrap_or(server.connect_time.unwrap_or_default() * 2);
        self.now - permit.run_since.max(arrived) < bound
    }
}

/// How much of a cap is taken, for one tenant.
pub(super) struct Room {
    cap: u32,
    /// What a full server takes at present. Reserves are kept out of the cap itself.
    takes: u32,
    all: u32,
    /// What others' reserves lack.
    kept: u32,
}

impl Room {
    /// Whether there is a permit to take, once `more` came back.
    pub(super) fn has_with(&self, more: u32) -> bool {
        self.all < self.takes + more && self.all + self.kept < self.cap + more
    }
}
