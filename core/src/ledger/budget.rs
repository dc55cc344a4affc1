//! What is counted and where: permits, their states, and the three scopes (tenant, server, total) that cap them.
//!
//! [`Ledger::take_permit`], [`Ledger::enter`] and [`Ledger::free_permit`] are the only places where a count changes, and the warm path
//! (`warm.rs`), which does as `enter` does.

use super::lru::{Link, Linked, List, linked};
use super::moment::Moment;
use super::pace::Pace;
use super::slots::Slots;
use super::tenants::{Mode, Server, Tenant};
use super::{Ledger, OfPermit, TenantKey, WaiterKey};

pub(super) struct InTenant;
pub(super) struct InServer;

/// One physical connection's place in the budget.
pub(super) struct Permit<C> {
    pub(super) tenant: u32,
    /// Where the connection is. A tenant may have moved since (drain, resume).
    pub(super) server: u32,
    pub(super) state: State<C>,
    /// When it entered its state.
    pub(super) since: Moment,
    /// Since when it has gone from hand to hand within its tenant beside others who wait (rule 6).
    pub(super) run_since: Moment,
    /// When its lifetime ends; open connections only.
    pub(super) expires_at: Moment,
    /// The server's epoch in which it was last known to be alive.
    pub(super) epoch: u32,
    /// Its tenant has left its server while it was being opened or recycled: it will not be used.
    pub(super) away: bool,
    /// It fills its tenant's reserve and is no victim (rule 4).
    pub(super) pinned: bool,
    /// It is charged to the share of background work: opened for it, or lent to it (rule 7).
    pub(super) background: bool,
    /// It is lent to background work. Unless pinned it stands among the victims, where it stood before, and is none.
    pub(super) lent: bool,
    /// When it came back from foreground work, or from the background that opened it; the order of idle connections.
    pub(super) used_at: Moment,
    pub(super) in_tenant: Link,
    pub(super) in_server: Link,
    /// Grows with each entry of any server's list and each close that begins, so that the oldest of one list can be compared with
    /// that of another.
    pub(super) order: u64,
}

impl<C> Permit<C> {
    /// Whether its connection is to be closed when it comes back, as far as its tenant and its server say.
    #[inline]
    pub(super) fn is_over<E>(&self, tenant: &Tenant<E>, server: &Server, now: Moment) -> bool {
        server.paused || tenant.mode != Mode::Active || self.expires_at <= now || self.server != tenant.server
    }
}

linked!(Permit<C>, InTenant => in_tenant);
linked!(Permit<C>, InServer => in_server);

/// Where a permit is in its life. `free` is not among them: a free permit has no entry.
///
/// ```text
///             opened                 take, grant
///  Opening ----------> Idle <-----------------------> InUse, Granted
///     |                 |  ^    recycled                 |      |
///     | failed          |  +---------------- Recycling <-+      | broken, expired,
///     v                 | victim, evicted,      | failed        | refused by its tenant
///   free <- - - - - - Closing <----------------+----------------+
///            closed
/// ```
/// Permits of a pool lease are in `Pool`, from when they are set aside until its `close` begins.
pub(super) enum State<C> {
    /// A task of ours is connecting.
    Opening,
    /// Kept here for the next acquire. In its tenant's list, and unless pinned in its server's.
    Idle(C),
    /// Out with a lease. The task that took it, 0 where unknown, is the lower half of its number: two tasks that are the same in
    /// it hardly live at a time. `warned`: the lease was reported as held for long.
    InUse { caller: u32, warned: bool },
    /// Set aside for a waiter which has not collected it yet. Counts as in use.
    Granted(C, WaiterKey),
    /// A task of ours is cleaning or validating it. Counts as in use.
    Recycling,
    /// A task of ours is closing it.
    Closing { claim: Claim, overdue: bool },
    /// Set aside for a pool lease, or held by one.
    Pool,
}

/// Who counts on the permit of a connection that is being closed.
#[derive(Clone, Copy)]
pub(super) enum Claim {
    /// Nobody yet. It stands in its tenant's list of spare ones, and in its server's list of closings.
    Spare,
    /// One tenant. It stands in that tenant's list of promises.
    Promised(Promise),
    /// Nobody, and nobody may: it takes too long, belongs to a pool, or its own tenant's reserve needs it.
    Uncounted,
}

/// A permit to come.
#[derive(Clone, Copy)]
pub(super) struct Promise {
    pub(super) tenant: TenantKey,
    pub(super) server: u32,
    /// It will be used to open a connection, and not for a pool lease.
    pub(super) opens: bool,
    /// It is charged to background work, beside what the closing itself is charged to.
    pub(super) background: bool,
    /// How many times in a row a promise to the tenant had taken too long when this one was made.
    pub(super) lateness: u8,
}

/// The states as they are counted. The last one is: [`Counts`] has no count for it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Opening,
    Idle,
    Closing,
    Pool,
    InUse,
}

impl<C> State<C> {
    #[inline]
    pub(super) fn place(&self) -> Place {
        match self {
            Self::Opening => Place::Opening,
            Self::Idle(_) => Place::Idle,
            Self::InUse { .. } | Self::Granted(..) | Self::Recycling => Place::InUse,
            Self::Closing { .. } => Place::Closing,
            Self::Pool => Place::Pool,
        }
    }

    pub(super) const CLOSING: Self = Self::Closing { claim: Claim::Uncounted, overdue: false };

    /// In use by nobody yet.
    pub(super) const IN_USE: Self = Self::InUse { caller: 0, warned: false };

    /// In use by the task of that number.
    #[inline]
    pub(super) const fn in_use(caller: u64) -> Self {
        Self::InUse { caller: caller as u32, warned: false }
    }
}

/// How many permits are in which place. What is in none of the others is in use.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(super) struct Counts {
    others: [u32; Place::InUse as usize],
    all: u32,
}

impl Counts {
    #[inline]
    pub(super) fn of(&self, place: Place) -> u32 {
        match self.others.get(place as usize) {
            Some(&count) => count,
            None => self.all - self.others.iter().sum::<u32>(),
        }
    }

    /// All permits that are not free.
    #[inline]
    pub(super) fn all(&self) -> u32 {
        self.all
    }

    /// All permits but those whose connection is being closed.
    #[inline]
    pub(super) fn staying(&self) -> u32 {
        self.all - self.of(Place::Closing)
    }

    #[inline]
    pub(super) fn shift(&mut self, from: Place, to: Place) {
        self.leave(from);
        self.arrive(to);
    }

    pub(super) fn add(&mut self, place: Place) {
        self.arrive(place);
        self.all += 1;
    }

    fn sub(&mut self, place: Place) {
        self.leave(place);
        self.all -= 1;
    }

    #[inline]
    fn arrive(&mut self, place: Place) {
        if let Some(count) = self.others.get_mut(place as usize) {
            *count += 1;
        }
    }

    #[inline]
    fn leave(&mut self, place: Place) {
        if let Some(count) = self.others.get_mut(place as usize) {
            *count -= 1;
        }
    }
}

/// A cap over many tenants: one server's, or the total.
pub(super) struct Scope {
    pub(super) cap: u32,
    /// The most that may still be taken after the cap was lowered under it; falls with what comes back.
    pub(super) tolerated: u32,
    pub(super) counts: Counts,
    /// All reserves together.
    pub(super) reserved: u32,
    /// What tenants with a reserve do not hold of it yet, and nobody else may take.
    pub(super) unfilled: u32,
    /// Waiters in the lines of its tenants.
    pub(super) queued: u32,
    pub(super) pace: Pace,
}

impl Scope {
    pub(super) fn new(cap: u32) -> Self {
        Self {
            cap,
            tolerated: cap,
            counts: Counts::default(),
            reserved: 0,
            unfilled: 0,
            queued: 0,
            pace: Pace::default(),
        }
    }

    /// Whether more stay than a lowered cap allows.
    #[inline]
    pub(super) fn is_above_its_cap(&self) -> bool {
        self.counts.staying() > self.cap
    }

    /// A lowered cap takes nobody's connection away: it holds for what is taken from here on.
    pub(super) fn set_cap(&mut self, cap: u32) {
        self.cap = cap;
        self.tolerated = cap.max(self.counts.all);
    }

    fn gave_back(&mut self) {
        self.tolerated = self.cap.max(self.tolerated.min(self.counts.all));
    }

    /// Whether a tenant that lacks `own` of its reserve may take a free permit. `effective` is what a full server takes
    /// at present; reserves are kept out of the cap itself.
    pub(super) fn has_room(&self, effective: u32, own: u32) -> bool {
        seeded!(PermitTakenAfterTheConnect => return self.counts.all - self.counts.of(Place::Opening) < effective);
        let all = self.counts.all;
        all < effective && self.cap.saturating_sub(all) > self.unfilled - own
    }

    /// Whether there is room once one permit came back.
    pub(super) fn makes_room(&self, effective: u32, own: u32) -> bool {
        let all = self.counts.all;
        all <= effective && (self.cap + 1).saturating_sub(all) > self.unfilled - own
    }
}

impl<C, E> Ledger<C, E> {
    /// free -> `state` (opening, or held for a pool lease). The caller has made sure of the room.
    pub(super) fn take_permit(&mut self, tenant: u32, state: State<C>, background: bool, now: Moment) -> u32 {
        let server = self.tenants[tenant].server;
        let place = state.place();
        self.with_reserve(tenant, |ledger| {
            ledger.tenants[tenant].counts.add(place);
            ledger.servers[server as usize].scope.counts.add(place);
            ledger.total.counts.add(place);
        });
        debug_assert!(self.total.counts.all <= self.total.cap, "a permit is taken only where one is free");
        if place == Place::Opening {
            self.affairs_mut(tenant).opening += 1;
        }
        self.share.taken += u32::from(background);
        self.touch(tenant, now);
        self.permits.insert(Permit {
            tenant,
            server,
            state,
            since: now,
            run_since: now,
            expires_at: Moment::NEVER,
            epoch: self.servers[server as usize].epoch,
            away: false,
            pinned: false,
            background,
            lent: false,
            used_at: now,
            in_tenant: Link::new(),
            in_server: Link::new(),
            order: 0,
        })
    }

    /// One state -> another; returns the one it left. Lists are the caller's business.
    #[inline]
    pub(super) fn enter(&mut self, permit: u32, state: State<C>, now: Moment) -> State<C> {
        let entry = &mut self.permits[permit];
        let tenant = &mut self.tenants[entry.tenant];
        let (from, to) = (entry.state.place(), state.place());
        if from != to {
            tenant.counts.shift(from, to);
            self.servers[entry.server as usize].scope.counts.shift(from, to);
            self.total.counts.shift(from, to);
        }
        entry.since = now;
        let (tenant, away) = (entry.tenant, std::mem::take(&mut entry.away));
        let begins = matches!(state, State::Recycling);
        let before = std::mem::replace(&mut entry.state, state);
        if begins {
            self.affairs_mut(tenant).recycling += 1;
        }
        match before {
            _ if away => {}
            State::Recycling => self.affairs_mut(tenant).recycling -= 1,
            State::Opening => self.affairs_mut(tenant).opening -= 1,
            _ => {}
        }
        self.refresh(tenant);
        before
    }

    /// opening (its connect failed), closing (its close ended) or pool -> free. Serves nobody: that is [`Ledger::serve`]'s.
    pub(super) fn free_permit(&mut self, permit: u32, now: Moment) {
        let entry = self.permits.remove(permit);
        let (tenant, server, place) = (entry.tenant, entry.server, entry.state.place());
        debug_assert!(matches!(place, Place::Opening | Place::Closing | Place::Pool), "no other state ends so");
        debug_assert!(!entry.in_tenant.is_linked() && !entry.in_server.is_linked());
        self.with_reserve(tenant, |ledger| {
            ledger.tenants[tenant].counts.sub(place);
            ledger.servers[server as usize].scope.counts.sub(place);
            ledger.total.counts.sub(place);
        });
        self.share.taken -= u32::from(entry.background);
        self.servers[server as usize].scope.gave_back();
        self.total.gave_back();
        if place == Place::Opening && !entry.away {
            self.affairs_mut(tenant).opening -= 1;
        }
        self.overdue -= u32::from(matches!(entry.state, State::Closing { overdue: true, .. }));
        if place != Place::Closing {
            self.came_back(tenant, server, now);
        }
        self.notify_watchers(tenant);
        self.touch(tenant, now);
    }

    /// Brings everything up to date that depends on what a tenant holds and waits for.
    pub(super) fn touch(&mut self, tenant: u32, now: Moment) {
        self.refresh(tenant);
        self.settle(tenant, now);
    }

    /// Runs `change` and keeps the scopes' `reserved` and `unfilled` true to the tenant's before and after.
    pub(super) fn with_reserve(&mut self, tenant: u32, change: impl FnOnce(&mut Self)) {
        let (server, reserve, unfilled) = self.reserve_of(tenant);
        self.servers[server].scope.reserved -= reserve;
        self.servers[server].scope.unfilled -= unfilled;
        self.total.reserved -= reserve;
        self.total.unfilled -= unfilled;
        change(self);
        let (server, reserve, unfilled) = self.reserve_of(tenant);
        self.servers[server].scope.reserved += reserve;
        self.servers[server].scope.unfilled += unfilled;
        self.total.reserved += reserve;
        self.total.unfilled += unfilled;
    }

    fn reserve_of(&self, tenant: u32) -> (usize, u32, u32) {
        let entry = &self.tenants[tenant];
        (entry.server as usize, entry.reserve, entry.unfilled())
    }

    /// Changes who counts on the permit of a closing, and with it the list that it stands in.
    pub(super) fn set_claim(&mut self, closing: u32, claim: Claim) {
        let (before, after) = self.move_claim(closing, claim);
        before.into_iter().chain(after).for_each(|tenant| self.refresh(tenant));
    }

    /// The same, but for the tenants it concerns, which are to be [refreshed](Self::refresh): the one that counted on the permit
    /// before, and the one that does now.
    pub(super) fn move_claim(&mut self, closing: u32, claim: Claim) -> (Option<u32>, Option<u32>) {
        let (owner, server) = (self.permits[closing].tenant, self.permits[closing].server as usize);
        let State::Closing { claim: entry, .. } = &mut self.permits[closing].state else {
            unreachable!("only a closing is claimed")
        };
        let before = match std::mem::replace(entry, claim) {
            Claim::Spare => {
                self.servers[server].victims.closing.remove(&mut self.permits, closing);
                let affairs = self.affairs_at(owner);
                self.affairs[affairs].spare.remove(&mut self.permits, closing);
                Some(owner)
            }
            Claim::Promised(promise) => {
                let tenant = promise.tenant.index();
                let affairs = self.affairs_at(tenant);
                self.affairs[affairs].promises.remove(&mut self.permits, closing);
                self.affairs[affairs].promised_own -= u32::from(tenant == owner);
                self.servers[promise.server as usize].promised -= u32::from(promise.opens);
                self.share.promised -= u32::from(promise.background);
                Some(tenant)
            }
            Claim::Uncounted => None,
        };
        let after = match claim {
            Claim::Spare => {
                let affairs = self.affairs_at(owner);
                insert_spare(&mut self.servers[server].victims.closing, &mut self.permits, closing);
                insert_spare(&mut self.affairs[affairs].spare, &mut self.permits, closing);
                Some(owner)
            }
            Claim::Promised(promise) => {
                let tenant = promise.tenant.index();
                let affairs = self.affairs_at(tenant);
                self.affairs[affairs].promises.push(&mut self.permits, closing);
                self.affairs[affairs].promised_own += u32::from(tenant == owner);
                self.servers[promise.server as usize].promised += u32::from(promise.opens);
                self.share.promised += u32::from(promise.background);
                Some(tenant)
            }
            Claim::Uncounted => None,
        };
        (before, after)
    }
}

/// Puts a closing among the spare ones, which stand in the order in which they began to close: what a promise gives back was
/// there before others.
fn insert_spare<L, C>(spare: &mut List<L>, permits: &mut Slots<OfPermit, Permit<C>>, closing: u32)
where
    Permit<C>: Linked<L>,
{
    let order = permits[closing].order;
    let began_later = |other: u32| permits[other].order > order;
    let later = spare.newest().filter(|&newest| began_later(newest));
    let first_later = later.and_then(|_| spare.iter(permits).find(|&other| began_later(other)));
    spare.insert(permits, closing, first_later);
}
