//! What operators do: drain, remove and resume a tenant, pause a server, change limits, close everything.

use super::super::expectation::{Answer, Command, Refusal, Reply};
use super::super::world::{Change, TENANTS};
use super::{Mode, Reference, State};

impl Reference {
    /// Rule 18.
    pub(super) fn drain(&mut self, tenant: usize) {
        let known = self.is_known(tenant);
        match self.mode(tenant) {
            Some(Mode::Active) => {
                self.tenant_mut(tenant).mode = Mode::Draining;
                self.clear_out(&[tenant], &Refusal::Draining);
            }
            // From now on it drains for the operator, whatever becomes of the drop.
            Some(Mode::Dropping) => self.tenant_mut(tenant).mode = Mode::Draining,
            _ => {}
        }
        self.call(Command::Drain { tenant }, Reply::Was(known));
    }

    /// As a drain, and a tombstone stays.
    pub(super) fn remove(&mut self, tenant: usize) {
        let known = self.is_known(tenant);
        if known && self.mode(tenant) != Some(Mode::Removed) {
            self.tenant_mut(tenant).mode = Mode::Removed;
            self.clear_out(&[tenant], &Refusal::Removed);
        }
        self.call(Command::Remove { tenant }, Reply::Was(known));
    }

    /// A tenant's database was made: what was remembered of failures, and its tombstone, are history.
    pub(super) fn created(&mut self, tenant: usize) {
        if let Some(entry) = &mut self.tenants[tenant] {
            entry.memory = None;
            if entry.mode == Mode::Removed {
                entry.mode = Mode::Active;
            }
            // Its quiet time begins anew.
            entry.quiet = None;
            self.settle();
        }
        self.call(Command::Created { tenant }, Reply::Nothing);
    }

    /// Nothing is opened on a server any more, and nothing kept. Who waits waits on.
    pub(super) fn pause(&mut self, server: usize) {
        self.servers[server].paused = true;
        for idle in self.by_place(|permit| permit.server == server && permit.state == State::Idle) {
            self.close_permit(idle);
        }
        self.settle();
        self.call(Command::Pause { server }, Reply::Nothing);
    }

    pub(super) fn unpause(&mut self, server: usize) {
        let paused = std::mem::take(&mut self.servers[server].paused);
        self.settle();
        self.call(Command::Unpause { server }, Reply::Was(paused));
    }

    /// Rule 12.
    pub(super) fn close(&mut self) {
        if !self.closed {
            self.closed = true;
            let known: Vec<usize> = (0..TENANTS).filter(|&tenant| self.is_known(tenant)).collect();
            self.clear_out(&known, &Refusal::Closed);
        }
        self.call(Command::Close, Reply::Nothing);
    }

    /// Everybody in line and everybody who has not collected yet is refused; what is idle or granted closes.
    fn clear_out(&mut self, tenants: &[usize], refusal: &Refusal) {
        let theirs = |tenant: usize| tenants.contains(&tenant);
        let of_theirs: Vec<u32> =
            self.waiters.iter().filter(|waiter| theirs(waiter.tenant)).map(|waiter| waiter.id).collect();
        let (waiting, mut answered): (Vec<u32>, Vec<u32>) =
            of_theirs.into_iter().partition(|&waiter| self.waiter(waiter).answer.is_none());
        answered.sort_by_key(|&waiter| self.waiter(waiter).answered);
        for waiter in waiting {
            self.stop_gathering(waiter);
            self.answer(waiter, Answer::Refused(refusal.clone()));
        }
        for waiter in answered {
            match self.waiter(waiter).answer.clone() {
                Some(Answer::Connection(permit)) => self.retire(permit),
                Some(Answer::Pool) => {
                    let gathered = std::mem::take(&mut self.waiter_mut(waiter).gathered);
                    self.free(&gathered);
                }
                _ => continue,
            }
            self.waiter_mut(waiter).answer = Some(Answer::Refused(refusal.clone()));
        }
        for &tenant in tenants {
            for idle in self.idle_of(tenant) {
                self.close_permit(idle);
            }
        }
        self.settle();
    }

    /// What is above a lowered limit closes: the idle now, the least recently used first; the others as they come back.
    pub(super) fn set_limits(&mut self, change: &Change) {
        // Who has limits of its own is made known first.
        if !self.is_known(change.tenant) {
            self.admit(change.tenant);
        }
        let home = |tenant: usize| {
            let known = self.tenants[tenant].as_ref().map(|tenant| tenant.server);
            known.unwrap_or(self.world.tenants[tenant].home)
        };
        let homes = std::array::from_fn(home);
        self.world.change(change, homes);
        for tenant in self.by_their_places() {
            self.pin_idle(tenant);
            self.drop_pins(tenant);
        }
        let of_background = self.evictable(true);
        for &idle in &of_background {
            if self.charged() > self.world.background_share() {
                self.close_permit(idle);
                self.permit_mut(idle).background = false;
            }
        }
        let left = |me: &Self, idle: &u32| me.permit(*idle).state == State::Idle;
        let mut idle: Vec<u32> = of_background.into_iter().filter(|idle| left(self, idle)).collect();
        idle.extend(self.evictable(false));
        for idle in idle {
            if self.is_too_many(self.permit(idle)) {
                self.close_permit(idle);
            }
        }
        self.settle();
        self.call(Command::SetLimits(Box::new(self.world.settings())), Reply::Nothing);
    }

    /// Fewer pins for a smaller reserve: an idle connection that loses its pin closes.
    fn drop_pins(&mut self, tenant: usize) {
        for permit in self.by_place(|permit| permit.tenant == tenant && permit.pinned) {
            if self.pins_of(tenant) <= self.reserve(tenant) {
                return;
            }
            if self.permit(permit).state == State::Idle {
                self.close_permit(permit);
            } else {
                let entry = self.permit_mut(permit);
                (entry.pinned, entry.lent) = (false, false);
            }
        }
    }

    pub(super) fn resume(&mut self, tenant: usize, server: usize) {
        let draining = self.is_draining(tenant);
        if draining {
            self.use_again(tenant, server);
        }
        self.call(Command::Resume { tenant, server }, Reply::Was(draining));
    }

    fn use_again(&mut self, tenant: usize, server: usize) {
        if self.server_of(tenant) != server {
            // What the old server said is no news of the new one.
            self.tenant_mut(tenant).memory = None;
        }
        let entry = self.tenant_mut(tenant);
        (entry.mode, entry.server) = (Mode::Active, server);
        self.settle();
    }

    /// Rule 18.
    pub(super) fn drop_begins(&mut self, tenant: usize) {
        let known = self.is_known(tenant);
        if known {
            self.tenant_mut(tenant).drops += 1;
            if self.mode(tenant) == Some(Mode::Active) {
                self.tenant_mut(tenant).mode = Mode::Dropping;
                self.clear_out(&[tenant], &Refusal::Draining);
            }
        }
        self.call(Command::DropBegins { tenant }, Reply::Was(known));
    }

    pub(super) fn drop_ends(&mut self, tenant: usize, server: usize) {
        self.tenant_mut(tenant).drops -= 1;
        if self.tenant(tenant).drops == 0 && self.mode(tenant) == Some(Mode::Dropping) {
            self.use_again(tenant, server);
        }
        self.call(Command::DropEnds { tenant, server }, Reply::Nothing);
    }

    pub(super) fn evict(&mut self, tenant: usize) {
        let idle = self.idle_of(tenant);
        for &permit in &idle {
            self.close_permit(permit);
        }
        self.events.closed_evict += idle.len() as u64;
        self.settle();
        self.call(Command::Evict { tenant }, Reply::Evicted(idle.len() as u32));
    }

    /// The lifetime of what is open is over: the idle close, the others when they come back.
    pub(super) fn renew(&mut self, tenant: Option<usize>) {
        let open = |permit: &super::Permit| {
            let open = matches!(permit.state, State::Idle | State::Leased | State::Granted(_) | State::Recycling);
            open && tenant.is_none_or(|tenant| tenant == permit.tenant)
        };
        let renewed = self.by_place(open);
        for &permit in &renewed {
            let now = self.now;
            self.permit_mut(permit).expires_at = now;
            if self.permit(permit).state == State::Idle {
                self.events.closed_lifetime += 1;
                self.close_permit(permit);
            }
        }
        self.settle();
        self.call(Command::Renew { tenant }, Reply::Evicted(renewed.len() as u32));
    }
}
