//! The ledger: the one place that counts connections and decides who gets one. Start here.
//!
//! It is a pure state machine. It knows no clock (`now` is an argument, a time since the manager's start), no lock, no
//! driver, no task and no random numbers; a connection is a `C` and a driver's error an `E` that it only keeps. Whoever
//! drives it (`pools.rs` does, under one mutex) calls a command, takes the [actions](Ledger::take_actions) that the
//! command left, and carries them out *after* the lock is released.
//!
//! Four kinds of methods, as in quinn-proto:
//! * commands of callers: [`acquire`](Ledger::acquire), [`try_acquire`](Ledger::try_acquire), [`poll`](Ledger::poll),
//!   [`cancel`](Ledger::cancel), [`give_up`](Ledger::give_up), [`release`](Ledger::release), and those of operators:
//!   [`drain`](Ledger::drain), [`resume`](Ledger::resume), [`evict`](Ledger::evict), [`close`](Ledger::close);
//! * answers to actions: [`opened`](Ledger::opened), [`open_failed`](Ledger::open_failed),
//!   [`recycled`](Ledger::recycled), [`recycle_failed`](Ledger::recycle_failed), [`closed`](Ledger::closed);
//! * the passing of time: [`tick`](Ledger::tick);
//! * getters, and [`check`](Ledger::check), which recounts everything.
//!
//! What it keeps to is in `core/RULES.md`; comments cite its numbers. Its parts: `budget.rs` counts permits (the permit's
//! life is drawn there, at `State`), `victims.rs` keeps the order in which idle connections make room, `queue.rs` keeps the
//! waiters, `serve.rs` decides where freed capacity goes and `background.rs` what of it background work may have,
//! `fitness.rs` says what an idle connection is good for, `failure.rs` remembers failed connects, `tenants.rs` is the table of
//! who is known, `affairs.rs` what stands beside a tenant while it waits, `lifecycle.rs` is what operators do, `tick.rs` what
//! time does, `refusal.rs` makes the "no" and `pace.rs` when to come again, `tally.rs` counts events and `watch.rs` shows them,
//! `decision.rs` has the types of the answers, `warm.rs` is the warm path, `check.rs` numbers the invariants. They stand on
//! `slots.rs`, a slab, and `lru.rs`, the lists through it.

mod affairs;
mod background;
mod budget;
mod check;
mod decision;
mod failure;
mod fitness;
mod lifecycle;
mod lru;
mod moment;
mod pace;
mod queue;
mod refusal;
#[cfg(tenantry_seeded)]
mod seeded;
mod serve;
mod slots;
mod tally;
mod tenants;
mod tick;
mod victims;
mod warm;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::time::Duration;

use hashbrown::HashTable;

use self::affairs::Affairs;
use self::background::Share;
use self::budget::{Claim, Permit, Scope, State};
use self::failure::Due;
use self::lru::List;
use self::moment::nanos;
use self::queue::Waiter;
use self::slots::Slots;
use self::tally::Count;
use self::tenants::{InQuiet, Mode, Server, Tenant};
use self::watch::Watcher;
use crate::Health;
use crate::config::Settings;
use crate::error::Holder;
use crate::observe::{Attention, ConnectOutcome, Event};
use crate::stats::{CloseReason, Counters};

pub use self::decision::{Action, Actions, Decision, Held, TryDecision};
pub use self::failure::Failure;
pub use self::moment::Moment;
pub use self::queue::{Ask, Polled};
pub use self::refusal::{Refusal, Shortage};
pub use self::slots::Key;
pub use self::tenants::NameHasher;
pub use self::tick::LongLease;
pub use self::watch::{ROWS, STRETCH, Watched};

/// Time since the manager's start, as commands are told it.
pub type Time = Duration;

/// Tags a [`PermitKey`].
#[derive(Debug)]
pub enum OfPermit {}
/// Tags a [`WaiterKey`].
#[derive(Debug)]
pub enum OfWaiter {}
/// Tags the key of a tenant.
#[derive(Debug)]
pub enum OfTenant {}

/// Names one permit.
pub type PermitKey = Key<OfPermit>;
/// Names one waiter.
pub type WaiterKey = Key<OfWaiter>;
/// Names one tenant.
pub type TenantKey = Key<OfTenant>;

/// The state of everything that is counted. See the module's documentation.
pub struct Ledger<C, E> {
    settings: Settings,
    permits: Slots<OfPermit, Permit<C>>,
    tenants: Slots<OfTenant, Tenant<E>>,
    /// What stands beside the tenants of whom somebody waits, or something is on its way.
    affairs: Slots<(), Affairs>,
    by_name: HashTable<u32>,
    /// Of the tenants, those that stand for work beside the tenants' own connections.
    maintenance_lines: usize,
    hasher: NameHasher,
    servers: Vec<Server>,
    total: Scope,
    /// The last place that was given in the order of all servers' lists.
    order: u64,
    share: Share,
    waiters: Slots<OfWaiter, Waiter<E>>,
    /// Tenants that stand in a server's `Ready`.
    ready: u32,
    /// The waiter for a pool lease that permits are being set aside for.
    gathering: Option<u32>,
    /// The virtual time of rule 6: it stands where the turn given last began.
    clock: u64,
    /// When something that rests may be tried again.
    due: BTreeSet<(Moment, Due)>,
    /// Tenants that hold nothing, the longest quiet first.
    quiet: List<InQuiet>,
    /// The same, of those whose database does not exist.
    strangers: List<InQuiet>,
    /// The latest time that a command brought. A coarse clock may lag behind a fine one; time does not go back here.
    latest: Moment,
    /// `validate_after_idle` in nanoseconds.
    aged_after: u64,
    closed: bool,
    /// Limits were changed at least once: what is taken may be above a cap.
    limits_changed: bool,
    watchers: Slots<(), Watcher>,
    /// Where the next tick goes on looking.
    cursor: u32,
    /// Closes that are past `close_timeout` and still hold their permit.
    overdue: u32,
    holders: (Option<Moment>, Vec<Holder>),
    counters: Counters,
    /// Tenants whose last connect failed.
    unavailable: u32,
    actions: Actions<C, E>,
    attention: Attention,
}

impl<C, E> Ledger<C, E> {
    /// An empty ledger. The settings were checked by the builder.
    pub fn new(settings: Settings) -> Self {
        Self {
            total: Scope::new(settings.max_connections),
            order: 0,
            share: Share::default(),
            aged_after: nanos(settings.validate_after_idle),
            settings,
            permits: Slots::new(),
            tenants: Slots::new(),
            affairs: Slots::new(),
            by_name: HashTable::new(),
            maintenance_lines: 0,
            hasher: NameHasher::default(),
            servers: Vec::new(),
            waiters: Slots::new(),
            ready: 0,
            gathering: None,
            clock: 0,
            due: BTreeSet::new(),
            quiet: List::new(),
            strangers: List::new(),
            latest: Moment::START,
            closed: false,
            limits_changed: false,
            watchers: Slots::new(),
            cursor: 0,
            overdue: 0,
            holders: (None, Vec::new()),
            counters: Counters::default(),
            unavailable: 0,
            actions: Actions::new(),
            attention: Attention::None,
        }
    }

    /// The hasher of its names, for those who hash before they take the lock.
    pub fn name_hasher(&self) -> NameHasher {
        self.hasher.clone()
    }

    /// Whether there is something to do. Not on the warm path.
    #[inline]
    pub fn has_actions(&self) -> bool {
        !self.actions.is_empty()
    }

    /// What the last commands left to do.
    pub fn take_actions(&mut self) -> Actions<C, E> {
        std::mem::take(&mut self.actions)
    }

    #[inline]
    fn advance(&mut self, now: impl Into<Moment>) -> Moment {
        self.latest = self.latest.max(now.into());
        self.latest
    }

    /// Asks for a connection, or for the permits of a pool lease.
    pub fn acquire(&mut self, name: &str, ask: Ask, now: Time) -> Decision<C, E> {
        let now = self.advance(now);
        if self.closed {
            return Decision::Refuse(Refusal::Closed);
        }
        let Some(tenant) = self.find(name) else { return Decision::Unknown };
        if let Some(refusal) = Self::refuse_by_mode(self.tenants[tenant].mode) {
            if self.forget_tombstone(tenant, now) {
                return Decision::Unknown;
            }
            return Decision::Refuse(refusal);
        }
        let decision = self.take_or_wait(tenant, ask, now);
        // A backoff may have ended or something old been closed on the way, for those who wait already.
        self.serve(now);
        decision
    }

    fn take_or_wait(&mut self, tenant: u32, ask: Ask, now: Moment) -> Decision<C, E> {
        if ask.pool == 0
            && !self.affairs(tenant).stands_before(ask.background)
            && let Some(permit) = self.find_fit(tenant, ask.background, true, now)
        {
            return Decision::Take(self.take(permit, ask, now));
        }
        if let Some(refusal) = self.refuse_at_once(tenant, ask, now) {
            return Decision::Refuse(refusal);
        }
        let waiter = self.enqueue(tenant, ask, now);
        self.serve_line_and_others(tenant, now);
        match self.refuse_by_queue(waiter, now) {
            Some(refusal) => Decision::Refuse(refusal),
            None => Decision::Wait(self.waiters.key(waiter)),
        }
    }

    /// An idle connection now, or not at all. Never validates one by its age, as there is no time for it.
    pub fn try_acquire(&mut self, name: &str, caller: u64, now: impl Into<Moment>) -> TryDecision<C> {
        let now = self.advance(now);
        if self.closed {
            return TryDecision::Closed;
        }
        let Some(tenant) = self.find(name) else { return TryDecision::NotIdle };
        let mode = self.tenants[tenant].mode;
        match mode {
            Mode::Draining | Mode::Dropping => return TryDecision::Draining,
            Mode::Removed if !self.forget_tombstone(tenant, now) => return TryDecision::Removed,
            Mode::Removed => return TryDecision::NotIdle,
            Mode::Active => {}
        }
        let first = !self.affairs(tenant).stands_before(false);
        let fit = if first { self.find_fit(tenant, false, false, now) } else { None };
        let ask = Ask { caller, ..Ask::default() };
        let decision = fit.map_or(TryDecision::NotIdle, |permit| TryDecision::Take(self.take(permit, ask, now)));
        self.serve(now);
        decision
    }

    /// idle -> in use.
    #[inline]
    fn take(&mut self, permit: u32, ask: Ask, now: Moment) -> Held<C> {
        self.take_out(permit, ask.background);
        self.charge(permit, ask.background);
        let State::Idle(connection) = self.enter(permit, State::in_use(ask.caller), now) else {
            unreachable!("what stands in a list of idle connections is idle")
        };
        let entry = &mut self.permits[permit];
        entry.run_since = now;
        let tenant = entry.tenant;
        self.tenants[tenant].tally.warm_hit();
        self.counters.warm_hits += 1;
        self.tell(Attention::All, |ledger| Event::Acquired { tenant: ledger.name(tenant), waited: Time::ZERO });
        Held { permit: self.permits.key(permit), connection }
    }

    /// in use -> idle, granted, recycling or closing: a lease ended.
    #[inline]
    pub fn release(&mut self, permit: PermitKey, connection: C, health: Health, now: impl Into<Moment>) {
        let now = self.advance(now);
        let connection = match health {
            Health::Clean => match self.release_warm(permit, connection, now) {
                Ok(()) => return,
                Err(connection) => connection,
            },
            _ => connection,
        };
        self.release_the_long_way(permit, connection, health, now);
    }

    fn release_the_long_way(&mut self, permit: PermitKey, connection: C, health: Health, now: Moment) {
        let Some(index) = self.permits.find(permit) else {
            unreachable!("a lease holds its permit until it is released")
        };
        debug_assert!(matches!(self.permits[index].state, State::InUse { .. }));
        self.tell(Attention::All, |ledger| {
            let Permit { tenant, since, .. } = ledger.permits[index];
            Event::Released { tenant: ledger.name(tenant), used: now.since(since), health }
        });
        match health {
            Health::Clean => self.come_back(index, connection, now),
            Health::Dirty if seeded!(DirtyIsClean) => self.come_back(index, connection, now),
            Health::Dirty if !self.is_retired(index, now) => {
                self.enter(index, State::Recycling, now);
                self.recycle(index, connection);
                // It covers one of its own line, who may have been promised another's permit.
                self.serve(now);
            }
            Health::Dirty => self.retire(index, connection, now),
            Health::Broken => self.begin_close(index, connection, CloseReason::Broken, now),
            Health::Lost => {
                self.breakage_seen(index);
                self.begin_close(index, connection, CloseReason::Broken, now);
            }
        }
    }

    /// A recycling found its connection lost, not merely unfit. [`recycle_failed`](Self::recycle_failed) comes next.
    pub fn found_lost(&mut self, permit: PermitKey) {
        if let Some(index) = self.permits.find(permit) {
            self.breakage_seen(index);
        }
    }

    /// Its server's epoch is over. News only from a connection that was alive in the present one.
    fn breakage_seen(&mut self, permit: u32) {
        let entry = &mut self.servers[self.permits[permit].server as usize];
        if self.permits[permit].epoch == entry.epoch && !seeded!(EpochStays) {
            entry.epoch = entry.epoch.wrapping_add(1);
        }
    }

    /// in use -> idle, then to whom it may concern; or closing, where it is not to be used again.
    #[inline]
    fn come_back(&mut self, permit: u32, connection: C, now: Moment) {
        if self.is_retired(permit, now) {
            return self.retire(permit, connection, now);
        }
        self.came_back(self.permits[permit].tenant, self.permits[permit].server, now);
        self.become_idle(permit, connection, now);
        self.offer(permit, false, now);
    }

    /// in use -> closing, as it is retired.
    fn retire(&mut self, permit: u32, connection: C, now: Moment) {
        let over = self.permits[permit].expires_at <= now;
        self.begin_close(permit, connection, if over { CloseReason::Lifetime } else { CloseReason::Ended }, now);
    }

    #[inline]
    fn become_idle(&mut self, permit: u32, connection: C, now: Moment) {
        self.enter(permit, State::Idle(connection), now);
        if self.permits[permit].lent {
            return self.link_returned(permit);
        }
        self.permits[permit].used_at = now;
        self.link_idle(permit);
    }

    /// Whether a connection is to be closed instead of kept.
    #[inline]
    fn is_retired(&self, permit: u32, now: Moment) -> bool {
        let entry = &self.permits[permit];
        let tenant = &self.tenants[entry.tenant];
        let server = &self.servers[entry.server as usize];
        (self.closed && !seeded!(ClosedKeepsIdle))
            || entry.is_over(tenant, server, now)
            || (self.limits_changed && tenant.is_above_a_cap(&server.scope, &self.total))
    }

    fn recycle(&mut self, permit: u32, connection: C) {
        self.count(self.permits[permit].tenant, Count::Recycle);
        // What the recycling finds alive is alive in the epoch in which it began.
        self.permits[permit].epoch = self.servers[self.permits[permit].server as usize].epoch;
        self.actions.push(Action::Recycle { permit: self.permits.key(permit), connection });
    }

    /// recycling -> idle and on.
    pub fn recycled(&mut self, permit: PermitKey, connection: C, now: Time) {
        let Some(index) = self.permits.find(permit) else { unreachable!("a recycling holds its permit") };
        debug_assert!(matches!(self.permits[index].state, State::Recycling));
        let now = self.advance(now);
        self.come_back(index, connection, now);
    }

    /// recycling -> closing: the one who recycled it closes it and answers [`closed`](Self::closed).
    pub fn recycle_failed(&mut self, permit: PermitKey, now: Time) {
        let Some(index) = self.permits.find(permit) else { unreachable!("a recycling holds its permit") };
        debug_assert!(matches!(self.permits[index].state, State::Recycling));
        let (now, tenant) = (self.advance(now), self.permits[index].tenant);
        self.came_back(tenant, self.permits[index].server, now);
        self.start_closing(index, CloseReason::Broken, now);
        self.serve_line(tenant, None, now);
        self.refuse_uncovered(tenant, now);
        self.serve(now);
    }

    /// opening -> idle and on. `random` chooses the jitter of its lifetime.
    pub fn opened(&mut self, permit: PermitKey, connection: C, random: u64, now: Time) {
        let Some(index) = self.permits.find(permit) else { unreachable!("an open holds its permit") };
        debug_assert!(matches!(self.permits[index].state, State::Opening));
        let now = self.advance(now);
        let Permit { tenant, server, since, away, .. } = self.permits[index];
        self.count(tenant, Count::Connect);
        self.servers[server as usize].connects += 1;
        let took = now.since(since);
        self.tell(Attention::All, |ledger| Event::Connected {
            tenant: ledger.name(tenant),
            server: ledger.servers[server as usize].id.clone(),
            took,
            outcome: ConnectOutcome::Opened,
        });
        let average = &mut self.servers[server as usize].connect_time;
        *average = Some(average.map_or(took, |average| (average * 7 + took) / 8));
        if !away {
            self.server_reached(tenant, server, now);
            self.close_circuit(tenant);
        }
        // Up to a tenth less, so that connections opened together do not end together.
        let jitter = u64::try_from(self.settings.max_lifetime.as_millis() / 10).unwrap_or(u64::MAX).max(1);
        let lifetime = self.settings.max_lifetime.saturating_sub(Duration::from_millis(random % jitter));
        self.permits[index].expires_at = now + lifetime;
        self.enter(index, State::IN_USE, now);
        self.server_took_one(server);
        if self.is_retired(index, now) {
            return self.begin_close(index, connection, CloseReason::Ended, now);
        }
        self.become_idle(index, connection, now);
        self.offer(index, true, now);
    }

    /// idle -> closing.
    fn close_idle(&mut self, permit: u32, reason: CloseReason, now: Moment) {
        self.unlink_idle(permit);
        let State::Idle(connection) = self.start_closing(permit, reason, now) else {
            unreachable!("what stands in a list of idle connections is idle")
        };
        self.actions.push(Action::Close { permit: self.permits.key(permit), connection });
    }

    /// in use -> closing. What waits may count on its permit.
    fn begin_close(&mut self, permit: u32, connection: C, reason: CloseReason, now: Moment) {
        self.came_back(self.permits[permit].tenant, self.permits[permit].server, now);
        self.start_closing(permit, reason, now);
        self.actions.push(Action::Close { permit: self.permits.key(permit), connection });
        self.serve_line_and_others(self.permits[permit].tenant, now);
    }

    fn start_closing(&mut self, permit: u32, reason: CloseReason, now: Moment) -> State<C> {
        let Permit { tenant, server, .. } = self.permits[permit];
        self.count(tenant, Count::Closed(reason));
        // An eviction is told by the one who chose the victim.
        if reason != CloseReason::MadeRoom {
            self.tell(Attention::Rare, |ledger| Event::Closed {
                tenant: ledger.name(tenant),
                server: ledger.servers[server as usize].id.clone(),
                reason,
            });
        }
        let before = self.enter(permit, State::CLOSING, now);
        self.stop_lending(permit);
        self.permits[permit].order = self.next_order();
        self.unpin(permit);
        let owner = &self.tenants[self.permits[permit].tenant];
        if owner.counts.all() > owner.reserve {
            self.set_claim(permit, Claim::Spare);
        }
        before
    }

    /// closing -> free: the close ended, or panicked. The permit goes to the one it was promised to, else to whose turn it is.
    pub fn closed(&mut self, permit: PermitKey, now: Time) {
        let now = self.advance(now);
        let Some(index) = self.permits.find(permit) else { return };
        let State::Closing { claim, .. } = self.permits[index].state else { unreachable!("only a close ends so") };
        self.set_claim(index, Claim::Uncounted);
        self.free_permit(index, now);
        if let Claim::Promised(promise) = claim {
            let tenant = promise.tenant.index();
            self.affairs_mut(tenant).lateness = 0;
            self.keep_promise(tenant, now);
            self.settle(tenant, now);
        }
        self.serve(now);
    }
}
