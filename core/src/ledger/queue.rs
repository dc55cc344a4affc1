//! Who waits, and whose turn it is: one line per tenant, first come first served; between tenants the order of rule 6.
//!
//! A tenant stands in its server's [`Ready`] while one more permit would help it and nothing of its own is in the way
//! ([`Ledger::refresh`]). What is in the way of all tenants of a server, or of everybody, is asked when a turn is given
//! ([`Ledger::next_turn`], in `serve.rs`).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::task::Waker;

use super::budget::{Place, State};
use super::lru::{Link, linked};
use super::refusal::Refusal;
use super::tenants::Mode;
use super::{Action, Held, Ledger, PermitKey, TenantKey, Time, WaiterKey};

pub(super) struct InLine;

/// What an acquire asks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask {
    /// 0: one connection. n: a pool lease of n permits.
    pub pool: u32,
    /// The asking task, 0 where unknown. Only read when a refusal is made.
    pub caller: u64,
}

/// An acquire that could not be served at once. It is in its tenant's line, or has its answer; never both.
pub(super) struct Waiter<E> {
    pub(super) tenant: TenantKey,
    pub(super) ask: Ask,
    pub(super) since: Time,
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

/// A tenant's place among those that wait: the one with the least in use for its weight first, among equals the one
/// whose last turn is longest ago.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Turn {
    load: u64,
    stamp: u64,
    pub(super) tenant: u32,
}

/// Why a ready tenant may be served where others of its server may not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Lane {
    /// Within its reserve: what is kept free is kept for it.
    Reserved = 0,
    Common = 1,
    /// Its first waiter wants permits for a pool lease, which need no opening slot.
    Pool = 2,
}

#[derive(Default)]
pub(super) struct Ready {
    pub(super) lanes: [BTreeSet<Turn>; 3],
}

impl<C, E> Ledger<C, E> {
    pub(super) fn enqueue(&mut self, tenant: u32, ask: Ask, now: Time) -> WaiterKey {
        let waiter = self.waiters.insert(Waiter {
            tenant: self.tenants.key(tenant),
            ask,
            since: now,
            waker: None,
            answer: None,
            gathered: Vec::new(),
            in_line: Link::new(),
        });
        let stamp = self.next_stamp();
        let entry = &mut self.tenants[tenant];
        entry.waiters += 1;
        if entry.line.is_empty() {
            entry.stamp = stamp;
            entry.pace.start(now);
        }
        entry.line.push(&mut self.waiters, waiter);
        entry.counters.waits += 1;
        self.queued += 1;
        self.counters.waits += 1;
        self.refresh(tenant);
        self.settle(tenant, now);
        self.waiters.key(waiter)
    }

    /// Takes a waiter out of its line with an answer, and wakes it.
    pub(super) fn answer(&mut self, waiter: u32, answer: Answer<E>, now: Time) {
        let tenant = self.leave_line(waiter, now);
        let entry = &mut self.waiters[waiter];
        entry.answer = Some(answer);
        if let Some(waker) = entry.waker.take() {
            self.actions.push(Action::Wake(waker));
        }
        self.refresh(tenant);
    }

    pub(super) fn leave_line(&mut self, waiter: u32, now: Time) -> u32 {
        let tenant = self.waiters[waiter].tenant.index();
        let entry = &mut self.tenants[tenant];
        entry.line.remove(&mut self.waiters, waiter);
        self.queued -= 1;
        let waited = now.saturating_sub(self.waiters[waiter].since);
        entry.counters.waited += waited;
        self.counters.waited += waited;
        if entry.line.is_empty() {
            entry.passed_since = None;
        }
        tenant
    }

    /// Answers everybody in a tenant's line, and takes uncollected grants back. Returns nothing to serve.
    pub(super) fn answer_line(&mut self, tenant: u32, refusal: impl Fn() -> Refusal<E>, now: Time) {
        while let Some(waiter) = self.tenants[tenant].line.oldest() {
            self.give_up_gathering(waiter, now);
            self.answer(waiter, Answer::Refused(refusal()), now);
        }
    }

    pub(super) fn next_stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }

    /// The tenant had its turn: it goes behind its equals.
    pub(super) fn had_turn(&mut self, tenant: u32) {
        let stamp = self.next_stamp();
        let entry = &mut self.tenants[tenant];
        entry.stamp = stamp;
        entry.passed_since = None;
        self.refresh(tenant);
    }

    pub(super) fn turn_of(&self, tenant: u32) -> Turn {
        let entry = &self.tenants[tenant];
        let used = entry.counts.all() - entry.counts.of(Place::Idle) - entry.counts.of(Place::Closing) + entry.promised;
        Turn { load: (u64::from(used) << 20) / u64::from(entry.weight), stamp: entry.stamp, tenant }
    }

    /// How many more permits the tenant's waiters can use, beyond those on their way to it.
    pub(super) fn wants(&self, tenant: u32) -> u32 {
        let entry = &self.tenants[tenant];
        let Some(first) = entry.line.oldest() else {
            return 0;
        };
        let first = &self.waiters[first];
        if first.ask.pool > 0 {
            return (first.ask.pool - first.gathered.len() as u32).saturating_sub(entry.promised);
        }
        let coming = entry.counts.of(Place::Opening) + entry.promised + entry.recycling;
        entry.line.len().saturating_sub(coming)
    }

    /// The lane in which the tenant may be served, as far as it is for itself to say.
    pub(super) fn lane(&self, tenant: u32) -> Option<Lane> {
        let entry = &self.tenants[tenant];
        if entry.line.is_empty() || entry.mode != Mode::Active || self.wants(tenant) == 0 {
            return None;
        }
        let room = entry.counts.all() + entry.promised < entry.cap;
        // A connection of its own that has just become idle is for its own line first (`offer`).
        let served_by_itself = !entry.idle.is_empty();
        if self.pool_at_head(tenant).is_some() {
            let possible = room || (entry.counts.all() <= entry.cap && !entry.idle.is_empty());
            return possible.then_some(Lane::Pool);
        }
        let opening = entry.counts.of(Place::Opening) + entry.promised;
        if !room || served_by_itself || opening >= self.opening_slots(tenant) {
            return None;
        }
        Some(if entry.counts.all() + entry.promised < entry.reserve { Lane::Reserved } else { Lane::Common })
    }

    /// The waiter for a pool lease that is first in a tenant's line, if it is one.
    pub(super) fn pool_at_head(&self, tenant: u32) -> Option<u32> {
        self.tenants[tenant].line.oldest().filter(|&waiter| self.waiters[waiter].ask.pool > 0)
    }

    /// Brings the tenant's place among the ready up to date. Called after every change to its line, its permits or what
    /// it may do; cheap where nobody of it waits.
    #[inline]
    pub(super) fn refresh(&mut self, tenant: u32) {
        let entry = &self.tenants[tenant];
        if entry.line.is_empty() && entry.ready.is_none() {
            return;
        }
        self.refresh_waiting(tenant);
    }

    fn refresh_waiting(&mut self, tenant: u32) {
        let now = self.lane(tenant).map(|lane| (lane, self.turn_of(tenant)));
        let entry = &mut self.tenants[tenant];
        if entry.ready == now {
            return;
        }
        let before = std::mem::replace(&mut entry.ready, now);
        let ready = &mut self.servers[entry.server as usize].ready;
        if let Some((lane, turn)) = before {
            ready.lanes[lane as usize].remove(&turn);
            self.ready -= 1;
        }
        if let Some((lane, turn)) = now {
            ready.lanes[lane as usize].insert(turn);
            self.ready += 1;
        }
    }

    /// What a waiter was given, if anything. Stores the waker where it has to go on waiting.
    pub fn poll(&mut self, waiter: WaiterKey, waker: Waker, now: Time) -> Polled<C, E> {
        let Some(index) = self.waiters.find(waiter) else {
            unreachable!("a waiter is polled by the one that holds its key, until it is gone")
        };
        if self.waiters[index].answer.is_none() {
            return Polled::Pending(self.waiters[index].waker.replace(waker));
        }
        self.collect(index, now)
    }

    /// An answer -> gone. A granted connection is in use from here on.
    fn collect(&mut self, waiter: u32, now: Time) -> Polled<C, E> {
        let entry = self.remove_waiter(waiter, now);
        match entry.answer {
            Some(Answer::Connection(key)) => {
                let Some(permit) = self.permits.find(key) else {
                    unreachable!("a granted permit is held for its waiter")
                };
                let State::Granted(connection, _) = self.enter(permit, State::InUse, now) else {
                    unreachable!("a grant stays granted until it is collected or taken back")
                };
                self.permits[permit].caller = entry.ask.caller;
                Polled::Connection(Held { permit: key, connection })
            }
            Some(Answer::Pool) => Polled::Pool(entry.gathered),
            Some(Answer::Refused(refusal)) => Polled::Refused(refusal),
            None => unreachable!("collect is for the answered"),
        }
    }

    pub(super) fn remove_waiter(&mut self, waiter: u32, now: Time) -> Waiter<E> {
        let mut entry = self.waiters.remove(waiter);
        if let Some(waker) = entry.waker.take() {
            self.actions.push(Action::DropWaker(waker));
        }
        let tenant = entry.tenant.index();
        self.tenants[tenant].waiters -= 1;
        self.settle(tenant, now);
        entry
    }

    /// The acquire behind a waiter was dropped: no permit, place or grant stays behind (rule 8).
    pub fn cancel(&mut self, waiter: WaiterKey, now: Time) {
        let Some(index) = self.waiters.find(waiter) else {
            return;
        };
        if self.waiters[index].answer.is_none() {
            self.give_up_gathering(index, now);
            let tenant = self.leave_line(index, now);
            self.remove_waiter(index, now);
            self.refresh(tenant);
            return self.serve_line_and_others(tenant, now);
        }
        match self.collect(index, now) {
            Polled::Connection(Held { permit, connection }) => self.come_back(permit.index(), connection, now),
            Polled::Pool(permits) => self.free_pool(&permits, now),
            Polled::Refused(refusal) => self.discard(refusal),
            Polled::Pending(_) => unreachable!("it had an answer"),
        }
    }

    /// A deadline passed. Whatever the waiter was given meanwhile is its answer; else it is refused, and says what was short.
    pub fn give_up(&mut self, waiter: WaiterKey, now: Time) -> Polled<C, E> {
        let Some(index) = self.waiters.find(waiter) else { unreachable!("a waiter gives up once") };
        if self.waiters[index].answer.is_none() {
            let refusal = self.refuse_late(index, now);
            self.give_up_gathering(index, now);
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
