//! What operators do: drain and resume a tenant, evict or renew its connections, close everything. Each may be called again
//! and again.

use super::budget::{Place, State};
use super::moment::{Moment, nanos};
use super::queue::Answer;
use super::refusal::Refusal;
use super::tenants::Mode;
use super::{Ledger, Time};
use crate::stats::CloseReason;
use crate::{ServerId, Settings};

impl<C, E> Ledger<C, E> {
    /// Active -> draining: nothing is handed out or opened any more; everybody in line is answered at once; what is idle
    /// closes. What is out closes when it comes back. Again and again is once.
    pub fn drain(&mut self, name: &str, now: Time) -> bool {
        let now = self.advance(now);
        let Some(tenant) = self.find(name) else {
            return false;
        };
        if self.tenants[tenant].mode != Mode::Removed {
            self.tenants[tenant].mode = Mode::Draining;
            self.clear_out(tenant, || Refusal::Draining, now);
        }
        self.settle(tenant, now);
        self.serve(now);
        true
    }

    /// Draining -> active, on the server that the factory now names. True where the tenant was draining.
    pub fn resume(&mut self, name: &str, server: &ServerId, now: Time) -> bool {
        let now = self.advance(now);
        let Some(tenant) = self.find(name) else {
            return false;
        };
        if !self.tenants[tenant].mode.drains() {
            return false;
        }
        self.activate(tenant, server, now);
        true
    }

    /// Draining -> active.
    fn activate(&mut self, tenant: u32, server: &ServerId, now: Moment) {
        let server = self.admit_server(server);
        if self.tenants[tenant].server != server {
            // What the old server said is no news of the new one.
            self.close_circuit(tenant);
            self.with_reserve(tenant, |ledger| ledger.tenants[tenant].server = server);
            self.leave_behind(tenant);
        }
        self.tenants[tenant].mode = Mode::Active;
        self.settle(tenant, now);
        // Its reserve may have moved with it.
        self.serve(now);
    }

    /// The tenant's database is going to be dropped. Active -> draining, until as many drops have [ended](Self::drop_ends) as
    /// began; what an operator says meanwhile stands.
    pub fn drop_begins(&mut self, name: &str, now: Time) -> bool {
        let now = self.advance(now);
        let Some(tenant) = self.find(name) else { return false };
        self.affairs_mut(tenant).drops += 1;
        if self.tenants[tenant].mode == Mode::Active {
            self.tenants[tenant].mode = Mode::Dropping;
            self.clear_out(tenant, || Refusal::Draining, now);
        }
        self.settle(tenant, now);
        self.serve(now);
        true
    }

    /// A drop that began is over, whatever came of it. With the last one the tenant is [resumed](Self::resume), if it drained
    /// for them alone.
    pub fn drop_ends(&mut self, name: &str, server: &ServerId, now: Time) {
        let now = self.advance(now);
        let Some(tenant) = self.find(name) else { unreachable!("it is known until its drops have ended") };
        self.affairs_mut(tenant).drops -= 1;
        self.touch(tenant, now);
        if self.affairs(tenant).drops == 0 && self.tenants[tenant].mode == Mode::Dropping {
            self.activate(tenant, server, now);
        }
    }

    /// Active or draining -> removed: as [`drain`](Self::drain), and a tombstone stays for `tombstone_ttl`.
    pub fn remove(&mut self, name: &str, now: Time) -> bool {
        let now = self.advance(now);
        let Some(tenant) = self.find(name) else { return false };
        if self.tenants[tenant].mode != Mode::Removed {
            self.tenants[tenant].mode = Mode::Removed;
            self.clear_out(tenant, || Refusal::Removed, now);
        }
        self.settle(tenant, now);
        self.serve(now);
        true
    }

    /// The tenant's database was made: failures to reach it and its tombstone are history.
    pub fn created(&mut self, name: &str, now: Time) {
        let now = self.advance(now);
        if let Some(tenant) = self.find(name) {
            self.close_circuit(tenant);
            if self.tenants[tenant].mode == Mode::Removed {
                self.tenants[tenant].mode = Mode::Active;
            }
            self.settle_anew(tenant, now);
            self.serve(now);
        }
    }

    /// Nothing is opened on a server any more, and nothing kept: what is idle closes now, what is out when it comes back.
    /// Waiters keep their places and their deadlines.
    pub fn pause(&mut self, id: &ServerId, now: Time) {
        let now = self.advance(now);
        let server = self.admit_server(id);
        self.servers[server as usize].paused = true;
        for permit in self.permits.indices() {
            let entry = &self.permits[permit];
            if entry.server == server && matches!(entry.state, State::Idle(_)) {
                self.close_idle(permit, CloseReason::Ended, now);
            }
        }
        self.serve(now);
    }

    /// Ends a pause: who waits is served. True where the server was paused.
    pub fn unpause(&mut self, id: &ServerId, now: Time) -> bool {
        let now = self.advance(now);
        let server = self.servers.iter_mut().find(|server| server.id == *id);
        let paused = server.is_some_and(|server| std::mem::take(&mut server.paused));
        self.serve(now);
        paused
    }

    /// Takes new limits, which were checked. What is above a lowered one closes: the idle now, the others as they come back.
    pub fn set_limits(&mut self, settings: Settings, now: Time) {
        let now = self.advance(now);
        self.aged_after = nanos(settings.validate_after_idle);
        self.settings = settings;
        self.limits_changed = true;
        self.total.set_cap(self.settings.max_connections);
        for server in 0..self.servers.len() {
            let id = self.servers[server].id.clone();
            let limit = self.limit_of(&id);
            let entry = &mut self.servers[server];
            (entry.capped, entry.max_connecting) = (limit.capped, limit.max_connecting);
            entry.scope.set_cap(limit.cap);
        }
        for tenant in self.tenants.indices() {
            let limits = self.settings.tenants.get(&self.tenants[tenant].name).copied().unwrap_or_default();
            self.limit_tenant(tenant, limits);
            self.drop_pins(tenant, now);
            self.touch(tenant, now);
        }
        self.shrink(now);
        self.serve(now);
    }

    /// Fewer pins, for a smaller reserve: an idle connection that loses its pin closes.
    fn drop_pins(&mut self, tenant: u32, now: Moment) {
        for permit in self.permits.indices() {
            if self.tenants[tenant].pins <= self.tenants[tenant].reserve {
                return;
            }
            let entry = &mut self.permits[permit];
            if entry.tenant != tenant || !entry.pinned {
                continue;
            }
            if matches!(entry.state, State::Idle(_)) {
                self.close_idle(permit, CloseReason::Ended, now);
            } else {
                // What is lent without a pin has a place among the victims, and this one has none: it is background's now.
                (entry.pinned, entry.lent) = (false, false);
                self.tenants[tenant].pins -= 1;
            }
        }
    }

    /// Closes idle connections while more than a cap are neither closing nor to be kept, the least recently used first.
    fn shrink(&mut self, now: Moment) {
        self.shrink_background(now);
        let mut idle: Vec<(bool, u64, u32)> = Vec::new();
        for (index, permit) in self.permits.iter() {
            if matches!(permit.state, State::Idle(_)) && !permit.pinned {
                // What background left idle comes first.
                idle.push((!permit.background, permit.order, index));
            }
        }
        idle.sort_unstable();
        for (_, _, permit) in idle {
            let entry = &self.permits[permit];
            let (tenant, server) = (&self.tenants[entry.tenant], &self.servers[entry.server as usize].scope);
            if tenant.is_above_a_cap(server, &self.total) {
                self.close_idle(permit, CloseReason::Ended, now);
            }
        }
    }

    /// What is being opened or recycled on another server than the tenant's is not for its line.
    fn leave_behind(&mut self, tenant: u32) {
        let (mut opening, mut recycling) = (0, 0);
        for index in self.permits.indices() {
            let permit = &mut self.permits[index];
            let count = match permit.state {
                _ if permit.tenant != tenant => continue,
                State::Opening => &mut opening,
                State::Recycling => &mut recycling,
                _ => continue,
            };
            permit.away = permit.server != self.tenants[tenant].server;
            *count += u32::from(!permit.away);
        }
        if (opening, recycling) != (self.affairs(tenant).opening, self.affairs(tenant).recycling) {
            let entry = self.affairs_mut(tenant);
            (entry.opening, entry.recycling) = (opening, recycling);
        }
        self.refresh(tenant);
    }

    /// Closes a tenant's idle connections; says how many.
    pub fn evict(&mut self, name: &str, now: Time) -> u32 {
        let now = self.advance(now);
        let Some(tenant) = self.find(name) else {
            return 0;
        };
        let mut closed = 0;
        while let Some(permit) = self.tenants[tenant].idle.oldest() {
            self.close_idle(permit, CloseReason::Evict, now);
            closed += 1;
        }
        self.serve(now);
        closed
    }

    /// Ends the lifetime of a tenant's connections, or of all: the idle close now, the others when they come back. Says how
    /// many.
    pub fn renew(&mut self, name: Option<&str>, now: Time) -> u32 {
        let now = self.advance(now);
        let only = name.map(|name| self.find(name));
        let mut renewed = 0;
        for permit in self.permits.indices() {
            let entry = &mut self.permits[permit];
            let open = matches!(entry.state.place(), Place::Idle | Place::InUse);
            if !open || only.is_some_and(|tenant| tenant != Some(entry.tenant)) {
                continue;
            }
            renewed += 1;
            entry.expires_at = now;
            if matches!(entry.state, State::Idle(_)) {
                self.close_idle(permit, CloseReason::Lifetime, now);
            }
        }
        self.serve(now);
        renewed
    }

    /// Answers a tenant's line, takes back what was answered and not collected yet, and closes what is idle.
    fn clear_out(&mut self, tenant: u32, refusal: impl Fn() -> Refusal<E>, now: Moment) {
        self.answer_line(tenant, &refusal, now);
        let answered: Vec<u32> = self.affairs(tenant).answered.iter(&self.waiters).collect();
        for waiter in answered {
            self.revoke(waiter, &refusal, now);
        }
        while let Some(permit) = self.tenants[tenant].idle.oldest() {
            self.close_idle(permit, CloseReason::Ended, now);
        }
    }

    /// A waiter that was served and has not looked yet is refused; what it was given closes, or is free.
    fn revoke(&mut self, waiter: u32, refusal: impl Fn() -> Refusal<E>, now: Moment) {
        if matches!(self.waiters[waiter].answer, Some(Answer::Refused(_))) {
            return;
        }
        match self.waiters[waiter].answer.replace(Answer::Refused(refusal())) {
            Some(Answer::Connection(key)) => {
                let Some(permit) = self.permits.find(key) else {
                    unreachable!("a granted permit is held for its waiter")
                };
                if let State::Granted(connection, _) = self.enter(permit, State::IN_USE, now) {
                    self.begin_close(permit, connection, CloseReason::Ended, now);
                }
            }
            _ => self.give_up_gathering(waiter, now),
        }
    }

    /// Ends it all: nothing opens any more, every waiter is told, what is idle closes, what is out closes when it comes
    /// back. Again and again is once.
    pub fn close(&mut self, now: Time) {
        let now = self.advance(now);
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        // All lines first: what is taken back from one must not go to another.
        for tenant in self.tenants.indices() {
            self.answer_line(tenant, || Refusal::Closed, now);
        }
        for tenant in self.tenants.indices() {
            self.clear_out(tenant, || Refusal::Closed, now);
        }
    }
}
