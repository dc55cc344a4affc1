//! The warm path: an acquire that finds an idle connection, and a release that nobody waits for. Nearly every operation is one of
//! the two, so that each is one function here that looks every entry up once. They decide nothing of their own: what is
//! not plain goes the long way (`take` and `come_back` in `ledger.rs`), and comes to the same where both can be gone, as the
//! tests' rig makes sure by going either.

use super::affairs::{Affairs, NO_AFFAIRS};
use super::budget::{Place, State};
use super::fitness::Fitness;
use super::moment::Moment;
use super::slots::Slots;
use super::tenants::{Mode, Tenant};
use super::{Ask, Held, Ledger, PermitKey};
use crate::observe::Attention;

/// Nothing else among its affairs speaks against an idle connection.
#[inline]
fn somebody_waits<E>(tenant: &Tenant<E>, affairs: &Slots<(), Affairs>) -> bool {
    tenant.affairs != NO_AFFAIRS && !affairs[tenant.affairs].line.is_empty()
}

impl<C, E> Ledger<C, E> {
    /// The warm path of [`acquire`](Self::acquire), alone: the tenant's newest idle connection if nothing speaks against it.
    /// None changes nothing. The name comes with its [hash](super::NameHasher), which needs no lock.
    #[inline]
    pub fn acquire_warm(&mut self, name: &str, hash: u64, ask: Ask, now: impl Into<Moment>) -> Option<Held<C>> {
        let now = self.latest.max(now.into());
        let index = self.find_hashed(name, hash)?;
        let tenant = &mut self.tenants[index];
        if self.closed || tenant.mode != Mode::Active || somebody_waits(tenant, &self.affairs) {
            return None;
        }
        if ask.background || self.attention == Attention::All {
            return self.acquire_warm_and_tell(index, ask, now);
        }
        let newest = tenant.idle.newest()?;
        let (permit, key) = self.permits.keyed(newest);
        let server = &mut self.servers[permit.server as usize];
        if permit.background || permit.fitness(server.epoch, self.aged_after, now) != Fitness::Fit {
            // One that leaves the background's share makes room in it for others.
            return None;
        }
        self.latest = now;
        let State::Idle(connection) = std::mem::replace(&mut permit.state, State::in_use(ask.caller)) else {
            unreachable!("what stands in a list of idle connections is idle")
        };
        (permit.since, permit.run_since) = (now, now);
        for counts in [&mut tenant.counts, &mut server.scope.counts, &mut self.total.counts] {
            counts.shift(Place::Idle, Place::InUse);
        }
        tenant.tally.warm_hit();
        self.counters.warm_hits += 1;
        let in_tenant = permit.in_tenant.leave();
        let in_server = (!permit.pinned).then(|| permit.in_server.leave());
        tenant.idle.close_gap(&mut self.permits, in_tenant);
        if let Some(in_server) = in_server {
            server.victims.idle.close_gap(&mut self.permits, in_server);
        }
        Some(Held { permit: key, connection })
    }

    /// The same for background work, and where somebody is told of it.
    fn acquire_warm_and_tell(&mut self, tenant: u32, ask: Ask, now: Moment) -> Option<Held<C>> {
        let newest = self.idle_for(tenant, ask.background)?;
        let leaves_share = self.permits[newest].background && !ask.background;
        if leaves_share || self.fitness(newest, true, now) != Fitness::Fit {
            return None;
        }
        self.latest = now;
        Some(self.take(newest, ask, now))
    }

    /// in use -> idle, for a clean connection that nobody waits for. Any other is returned, and nothing is changed.
    #[inline]
    pub(super) fn release_warm(&mut self, key: PermitKey, connection: C, now: Moment) -> Result<(), C> {
        let Some(permit) = self.permits.get_mut(key) else {
            unreachable!("a lease holds its permit until it is released")
        };
        let tenant = &mut self.tenants[permit.tenant];
        let server = &mut self.servers[permit.server as usize];
        let plain =
            self.ready == 0 && !somebody_waits(tenant, &self.affairs) && tenant.reserve == 0 && !permit.background;
        if !plain
            || self.attention == Attention::All
            || self.closed
            || permit.is_over(tenant, server, now)
            || (self.limits_changed && tenant.is_above_a_cap(&server.scope, &self.total))
        {
            return Err(connection);
        }
        debug_assert!(matches!(permit.state, State::InUse { .. }));
        // Not dropped, as nothing is in it.
        std::mem::forget(std::mem::replace(&mut permit.state, State::Idle(connection)));
        (permit.since, permit.used_at) = (now, now);
        for counts in [&mut tenant.counts, &mut server.scope.counts, &mut self.total.counts] {
            counts.shift(Place::InUse, Place::Idle);
        }
        let nanos = now.nanos();
        for pace in [&mut tenant.pace, &mut server.scope.pace, &mut self.total.pace] {
            pace.came_back(nanos);
        }
        let index = key.index();
        let in_tenant = tenant.idle.append(&mut permit.in_tenant, index);
        let in_server = server.victims.idle.append(&mut permit.in_server, index);
        self.order += 1;
        permit.order = self.order;
        tenant.idle.follow(&mut self.permits, in_tenant, index);
        server.victims.idle.follow(&mut self.permits, in_server, index);
        seeded!(LruByCreation => self.sort_victims_by_creation());
        Ok(())
    }
}
