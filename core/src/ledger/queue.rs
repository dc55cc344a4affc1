//! Who waits, and whose turn it is: one line per tenant, first come first served; between tenants the order of rule 6.
//!
//! A tenant stands in its server's [`Ready`] while one more permit would help it and nothing of its own is in the way.
//! [`Ledger::refresh`] keeps that true; every primitive that changes what it reads calls it. What is in the way of all
//! tenants of a server, or of everybody, is asked when a turn is given ([`Ledger::next_turn`], in `serve.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;

use super::affairs::NO_AFFAIRS;
use super::budget::{Claim, Place, State};
use super::lru::{Link, linked};
use super::moment::Moment;
use super::refusal::Refusal;
use super::slots::Slots;
use super::tally::Count;
use super::tenants::Mode;
use super::{Action, Held, Ledger, OfWaiter, PermitKey, TenantKey, Time, WaiterKey};
use crate::observe::{Attention, Event};

pub(super) struct InLine;

/// What an acquire asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    /// 0: one connection. n: a pool lease of n permits.
    pub pool: u32,
    /// It is background work (rule 7). No pool lease is.
    pub background: bool,
    /// The asking task, 0 where unknown. Only read when a refusal is made.
    pub caller: u64,
}

pub(super) type Waiters<E> = Slots<OfWaiter, Waiter<E>>;

/// An acquire that could not be served at once. It is in its tenant's line, or among its answered; never both.
pub(super) struct Waiter<E> {
    pub(super) tenant: TenantKey,
    pub(super) ask: Ask,
    pub(super) since: Moment,
    pub(super) waker: Option<Waker>,
    /// What it was given. None while it is in the line.
    pub(super) answer: Option<Answer<E>>,
    /// The permits set aside so far for a pool lease.
    pub(super) gathered: Vec<PermitKey>,
    in_line: Link,
}

linked!(Waiter<E>, InLine => in_line);

pub(super) enum Answer<E> {
    /// A connection, in state `Granted`.
    Connection(PermitKey),
    /// All permits of a pool lease, in `gathered`.
    Pool,
    Refused(Refusal<E>),
}

/// What [`Ledger::poll`] found.
#[derive(Debug)]
#[must_use]
pub enum Polled<C, E> {
    /// Not yet. The waker that was there before, to be dropped outside the lock.
    Pending(Option<Waker>),
    /// A connection; the waiter is gone.
    Connection(Held<C>),
    /// All permits of a pool lease; the waiter is gone.
    Pool(Vec<PermitKey>),
    /// No; the waiter is gone.
    Refused(Refusal<E>),
}

/// One turn, or one connection, of a tenant of weight 1. Large, as weights divide it.
const TURN: u64 = 1 << 20;

/// A tenant's place among those that wait: the one with the least in use for its weight first, among equals the one
/// whose turns are longest ago for its weight.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Turn {
    load: u64,
    stamp: u64,
    pub(super) tenant: u32,
}

/// What a ready tenant's permit is for and where it may come from. In one lane of one server the same things are in
/// everybody's way, so that its first tenant speaks for all.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// To open a connection, within the tenant's reserve: what is kept free is kept for it.
    Reserved,
    /// To open a connection.
    Common,
    /// To open a connection in the place of one of its own that is being closed, as its own cap is short.
    Exchange,
    /// For a pool lease, in exchange for an idle connection of its own, as its own cap is short.
    PoolExchange,
    /// For a pool lease, within the reserve. Pool leases need no opening slot.
    PoolReserved,
    /// For a pool lease.
    Pool,
    /// To lend an idle connection of its own to its background work, once the share allows.
    Borrow,
    /// To open a connection for background work, outside the reserve.
    Background,
}

impl Lane {
    pub(super) const FOREGROUND: [Self; 6] =
        [Self::Reserved, Self::Common, Self::Exchange, Self::PoolExchange, Self::PoolReserved, Self::Pool];
    pub(super) const BACKGROUND: [Self; 2] = [Self::Borrow, Self::Background];

    pub(super) fn is_background(self) -> bool {
        matches!(self, Self::Borrow | Self::Background)
    }

    pub(super) fn is_pool(self) -> bool {
        matches!(self, Self::PoolExchange | Self::PoolReserved | Self::Pool)
    }
}

#[derive(Default)]
pub(super) struct Ready {
    pub(super) lanes: [BTreeSet<Turn>; Lane::FOREGROUND.len() + Lane::BACKGROUND.len()],
}

/// What is on its way to a tenant, in the three senses that matter.
impl<C, E> Ledger<C, E> {
    /// The permits that the tenant will hold when its promises are kept. One of its own closings adds none.
    pub(super) fn expected(&self, tenant: u32) -> u32 {
        let affairs = self.affairs(tenant);
        self.tenants[tenant].counts.all() + affairs.promises.len() - affairs.promised_own
    }

    pub(super) fn enqueue(&mut self, tenant: u32, ask: Ask, now: Moment) -> u32 {
        let waiter = self.waiters.insert(Waiter {
            tenant: self.tenants.key(tenant),
            ask,
            since: now,
            waker: None,
            answer: None,
            gathered: Vec::new(),
            in_line: Link::new(),
        });
        self.clock += 1;
        let affairs = self.affairs_at(tenant);
        let (tenant_entry, entry) = (&mut self.tenants[tenant], &mut self.affairs[affairs]);
        if entry.line.is_empty() {
            // Who did not ask has saved nothing up.
            tenant_entry.stamp = tenant_entry.stamp.max(self.clock);
        }
        // Foreground work stands before the first of the background.
        let behind = if ask.background { 0 } else { entry.background_in_line };
        let before = (behind > 0).then(|| entry.line.iter(&self.waiters).nth((entry.line.len() - behind) as usize));
        entry.line.insert(&mut self.waiters, waiter, before.flatten());
        entry.pools_in_line += u32::from(ask.pool > 0);
        entry.background_in_line += u32::from(ask.background);
        self.servers[tenant_entry.server as usize].scope.queued += 1;
        self.total.queued += 1;
        self.count(tenant, Count::Wait);
        self.touch(tenant, now);
        waiter
    }

    /// in line -> answered, and woken.
    pub(super) fn answer(&mut self, waiter: u32, answer: Answer<E>, now: Moment) {
        let tenant = self.leave_line(waiter, now);
        let affairs = self.affairs_at(tenant);
        self.affairs[affairs].answered.push(&mut self.waiters, waiter);
        let entry = &mut self.waiters[waiter];
        entry.answer = Some(answer);
        if let Some(waker) = entry.waker.take() {
            self.actions.push(Action::Wake(waker));
        }
        self.refresh(tenant);
    }

    fn leave_line(&mut self, waiter: u32, now: Moment) -> u32 {
        let tenant = self.waiters[waiter].tenant.index();
        let (affairs, server) = (self.affairs_at(tenant), self.tenants[tenant].server);
        let entry = &mut self.affairs[affairs];
        entry.line.remove(&mut self.waiters, waiter);
        entry.pools_in_line -= u32::from(self.waiters[waiter].ask.pool > 0);
        entry.background_in_line -= u32::from(self.waiters[waiter].ask.background);
        self.servers[server as usize].scope.queued -= 1;
        self.total.queued -= 1;
        if entry.line.is_empty() {
            entry.lateness = 0;
        }
        let waited = now.since(self.waiters[waiter].since);
        self.count(tenant, Count::Waited(waited));
        tenant
    }

    /// Answers everybody in a tenant's line.
    pub(super) fn answer_line(&mut self, tenant: u32, refusal: impl Fn() -> Refusal<E>, now: Moment) {
        while let Some(waiter) = self.affairs(tenant).line.oldest() {
            self.give_up_gathering(waiter, now);
            self.answer(waiter, Answer::Refused(refusal()), now);
        }
    }

    /// The last one in line is sent away before its first poll: there was no place for it.
    pub(super) fn turn_away(&mut self, waiter: u32, now: Moment) {
        self.give_up_gathering(waiter, now);
        let tenant = self.leave_line(waiter, now);
        let entry = self.waiters.remove(waiter);
        debug_assert!(entry.waker.is_none(), "nobody has polled it");
        self.touch(tenant, now);
    }

    /// The tenant had its turn: it goes behind its equals, half as far for twice the weight. (Start-time fair queueing: in the
    /// long run tenants that always ask have turns as their weights, though each holds one connection or none.)
    pub(super) fn had_turn(&mut self, tenant: u32) {
        let entry = &mut self.tenants[tenant];
        // One more with each turn and arrival, so that equals stand in the order in which they came.
        self.clock = self.clock.max(entry.stamp) + 1;
        entry.stamp = self.clock + TURN / u64::from(entry.weight);
        self.refresh(tenant);
    }

    pub(super) fn turn_of(&self, tenant: u32) -> Turn {
        let entry = &self.tenants[tenant];
        let unused = entry.counts.of(Place::Idle) + entry.counts.of(Place::Closing);
        let used = entry.counts.all() - unused + self.affairs(tenant).promises.len();
        Turn { load: u64::from(used) * TURN / u64::from(entry.weight), stamp: entry.stamp, tenant }
    }

    /// The lane in which the tenant may be served, as far as it is for itself to say.
    pub(super) fn lane(&self, tenant: u32) -> Option<Lane> {
        let entry = &self.tenants[tenant];
        let affairs = self.affairs(tenant);
        if affairs.line.is_empty() || entry.mode != Mode::Active {
            return None;
        }
        if !entry.idle.is_empty() && self.head_is_background(tenant) {
            // Whatever else is on its way to it.
            return (affairs.line.len() > affairs.recycling).then_some(Lane::Borrow);
        }
        if affairs.wants(&self.waiters) == 0 {
            return None;
        }
        let (expected, slots) = (self.expected(tenant), self.opening_slots(tenant));
        let (room, exchange) = (expected < entry.cap, expected == entry.cap);
        let reserved = entry.unfilled() > 0;
        if affairs.pool_at_head(&self.waiters).is_some() {
            if slots == 0 {
                return None;
            }
            let own = !affairs.spare.is_empty() || !entry.idle.is_empty();
            return match (room, reserved) {
                (false, _) => (exchange && own).then_some(Lane::PoolExchange),
                (true, true) => Some(Lane::PoolReserved),
                (true, false) => Some(Lane::Pool),
            };
        }
        // An idle connection of its own is for its own line first (`serve_line`).
        if !entry.idle.is_empty() || affairs.opening_soon() >= slots {
            return None;
        }
        if affairs.next_is_background() {
            return room.then_some(Lane::Background);
        }
        match (room, reserved) {
            (false, _) => (exchange && !affairs.spare.is_empty()).then_some(Lane::Exchange),
            (true, true) => Some(Lane::Reserved),
            (true, false) => Some(Lane::Common),
        }
    }

    /// Brings the tenant's place among the ready up to date, and gives promises back that its line cannot use any more.
    /// Cheap where nobody of it waits.
    #[inline]
    pub(super) fn refresh(&mut self, tenant: u32) {
        let affairs = self.tenants[tenant].affairs;
        if affairs != NO_AFFAIRS {
            self.refresh_waiting(tenant, affairs);
            self.end_affairs(tenant);
        }
    }

    fn refresh_waiting(&mut self, tenant: u32, affairs: u32) {
        let entry = &self.affairs[affairs];
        if entry.line.is_empty() && entry.ready.is_none() && entry.promises.is_empty() {
            return;
        }
        self.give_promises_back(tenant, affairs);
        let now = self.lane(tenant).map(|lane| (lane, self.turn_of(tenant)));
        let before = std::mem::replace(&mut self.affairs[affairs].ready, now);
        if before == now {
            return;
        }
        let ready = &mut self.servers[self.tenants[tenant].server as usize].ready;
        if let Some((lane, turn)) = before {
            ready.lanes[lane as usize].remove(&turn);
            self.ready -= 1;
        }
        if let Some((lane, turn)) = now {
            ready.lanes[lane as usize].insert(turn);
            self.ready += 1;
        }
    }

    /// Those of a tenant's promises that its line cannot use, the newest first. They may be thousands, after a pool lease that
    /// is given up.
    fn give_promises_back(&mut self, tenant: u32, affairs: u32) {
        seeded!(PromiseNotGivenBack => return);
        while let entry = &self.affairs[affairs]
            && entry.promises.len() > entry.promises_wanted(&self.waiters)
            && let Some(newest) = entry.promises.newest()
        {
            let (_, owner) = self.move_claim(newest, Claim::Spare);
            owner.into_iter().filter(|&owner| owner != tenant).for_each(|owner| self.refresh(owner));
        }
    }

    /// What a waiter was given, if anything. Stores the waker where it has to go on waiting.
    pub fn poll(&mut self, waiter: WaiterKey, waker: Waker, now: Time) -> Polled<C, E> {
        let now = self.advance(now);
        let Some(index) = self.waiters.find(waiter) else {
            unreachable!("a waiter is polled by the one that holds its key, until it is gone")
        };
        if self.waiters[index].answer.is_none() {
            seeded!(StaleWaker => if self.waiters[index].waker.is_some() { return Polled::Pending(Some(waker)) });
            seeded!(WakerInASecondPlace => return Polled::Pending(Some(waker)));
            return Polled::Pending(self.waiters[index].waker.replace(waker));
        }
        self.actions.push(Action::DropWaker(waker));
        self.collect(index, now)
    }

    /// answered -> gone. A granted connection is in use from here on.
    fn collect(&mut self, waiter: u32, now: Moment) -> Polled<C, E> {
        let tenant = self.waiters[waiter].tenant.index();
        let affairs = self.affairs_at(tenant);
        self.affairs[affairs].answered.remove(&mut self.waiters, waiter);
        let entry = self.waiters.remove(waiter);
        self.touch(tenant, now);
        match entry.answer {
            Some(Answer::Connection(key)) => {
                let Some(permit) = self.permits.find(key) else {
                    unreachable!("a granted permit is held for its waiter")
                };
                let State::Granted(connection, _) = self.enter(permit, State::in_use(entry.ask.caller), now) else {
                    unreachable!("a grant stays granted until it is collected or taken back")
                };
                let waited = now.since(entry.since);
                self.tell(Attention::All, |ledger| Event::Acquired { tenant: ledger.name(tenant), waited });
                Polled::Connection(Held { permit: key, connection })
            }
            Some(Answer::Pool) => Polled::Pool(entry.gathered),
            Some(Answer::Refused(refusal)) => Polled::Refused(refusal),
            None => unreachable!("collect is for the answered"),
        }
    }

    /// The acquire behind a waiter was dropped: no permit, place or grant stays behind (rule 8).
    pub fn cancel(&mut self, waiter: WaiterKey, now: Time) {
        let now = self.advance(now);
        let Some(index) = self.waiters.find(waiter) else { return };
        if self.waiters[index].answer.is_none() {
            self.give_up_gathering(index, now);
            let tenant = self.leave_line(index, now);
            let entry = self.waiters.remove(index);
            self.actions.extend(entry.waker.map(Action::DropWaker));
            self.touch(tenant, now);
            return self.serve_line_and_others(tenant, now);
        }
        match self.collect(index, now) {
            Polled::Connection(_) if seeded!(CancelledGrantSwallowed) => {}
            Polled::Connection(Held { permit, connection }) => self.come_back(permit.index(), connection, now),
            Polled::Pool(permits) => self.free_permits(&permits, now),
            Polled::Refused(refusal) => self.discard(refusal),
            Polled::Pending(_) => unreachable!("it had an answer"),
        }
    }

    /// A deadline passed. Whatever the waiter was given meanwhile is its answer; else it is refused, and says what was short.
    pub fn give_up(&mut self, waiter: WaiterKey, now: Time) -> Polled<C, E> {
        let now = self.advance(now);
        let Some(index) = self.waiters.find(waiter) else { unreachable!("a waiter gives up once") };
        if self.waiters[index].answer.is_none() {
            let refusal = self.refuse_late(index, now);
            self.give_up_gathering(index, now);
            if let Some(waker) = self.waiters[index].waker.take() {
                // It is the one who asks; nobody has to be woken.
                self.actions.push(Action::DropWaker(waker));
            }
            self.answer(index, Answer::Refused(refusal), now);
            let tenant = self.waiters[index].tenant.index();
            self.serve_line_and_others(tenant, now);
        }
        self.collect(index, now)
    }

    /// Sources of errors may be the last of their kind; they are dropped outside the lock.
    pub(super) fn discard(&mut self, refusal: Refusal<E>) {
        let source: Option<Arc<E>> = match refusal {
            Refusal::Connect { source, .. } => Some(source),
            Refusal::Unavailable { source, .. } => source,
            _ => None,
        };
        self.actions.extend(source.map(Action::DropError));
    }
}
