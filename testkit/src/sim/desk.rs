//! Who decides: a [`Desk`] gives out connections, and the engine carries out what it says. [`LedgerDesk`] is the real one,
//! called as tenantry's own edge calls it; `fifo.rs` is the one that it is measured against.

use std::collections::HashMap;
use std::fmt::Debug;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Wake, Waker};
use std::time::Duration;

use slotmap::{SecondaryMap, new_key_type};
use tenantry_core::ledger::{
    Action, Ask, Decision, Failure, Held, Ledger, PermitKey, Polled, Refusal, Time, WaiterKey,
};
use tenantry_core::{FailureKind, Health, LimitScope, ServerId, Settings, TenantId, TenantLimits};

use super::plan::{Limits, Operation, Plan};

new_key_type! {
    /// Names one acquire, from its first try to the end of its hold.
    pub(super) struct RequestKey;
    /// Names one connection, from the start of its connect to the end of its close.
    pub(super) struct SocketKey;
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wish {
    pub(super) tenant: u32,
    /// The tenant's server.
    pub(super) home: usize,
    /// 0: one connection.
    pub(super) pool: u32,
    pub(super) background: bool,
    pub(super) request: RequestKey,
    /// Who asks: the request that it asked for first.
    pub(super) caller: RequestKey,
}

/// The answer to an acquire, or to a look at what became of it.
#[derive(Debug)]
pub(super) enum Answer<D: Desk> {
    Socket(D::Permit, SocketKey),
    Pool(Vec<D::Permit>),
    Waits(D::Waiter),
    No(No),
}

/// A refusal, as far as the simulation cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum No {
    /// Which limit, when to come again, and how many connections the caller holds.
    Limit(LimitScope, Option<Duration>, u32),
    Timeout,
    Connect(FailureKind),
    Unavailable(FailureKind, Duration),
    Draining,
    Removed,
    Closed,
}

/// Why a connect came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flop {
    Error(FailureKind),
    TimedOut,
    Panicked,
}

/// What the desk wants done.
#[derive(Debug)]
pub(super) enum Work<P> {
    Open { permit: P, tenant: u32 },
    Recycle { permit: P, socket: SocketKey },
    Close { permit: P, socket: SocketKey },
    Wake(RequestKey),
}

/// What there is, as those see it who hold, open and close it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) opening: u64,
    /// Connections that are open: kept, with callers, being recycled.
    pub(super) open: u64,
    pub(super) closing: u64,
    /// Those of pool leases.
    pub(super) leased: u64,
    /// Callers who have no answer.
    pub(super) waiting: u64,
}

/// Gives out connections. Whatever it wants done is taken from it after each call.
pub(super) trait Desk: Sized {
    type Permit: Copy + Eq + Debug;
    type Waiter: Copy + Debug;

    fn new(plan: &Plan, names: Rc<[TenantId]>) -> Self;
    fn acquire(&mut self, wish: Wish, now: Time) -> Answer<Self>;
    fn poll(&mut self, request: RequestKey, waiter: Self::Waiter, now: Time) -> Answer<Self>;
    fn give_up(&mut self, waiter: Self::Waiter, now: Time) -> Answer<Self>;
    fn cancel(&mut self, waiter: Self::Waiter, now: Time);
    fn release(&mut self, permit: Self::Permit, socket: SocketKey, health: Health, now: Time);
    fn opened(&mut self, permit: Self::Permit, socket: SocketKey, random: u64, now: Time);
    fn open_failed(&mut self, permit: Self::Permit, flop: Flop, random: u64, now: Time);
    fn recycled(&mut self, permit: Self::Permit, socket: SocketKey, now: Time);
    fn recycle_failed(&mut self, permit: Self::Permit, now: Time);
    fn closed(&mut self, permit: Self::Permit, now: Time);
    fn closing_pool(&mut self, permits: &[Self::Permit], now: Time);
    fn free_pool(&mut self, permits: &[Self::Permit], now: Time);
    fn tick(&mut self, now: Time);
    /// False where there was nothing to do.
    fn operate(&mut self, operation: Operation, home: usize, now: Time) -> bool;
    fn close(&mut self, now: Time);
    fn work(&mut self, into: &mut Vec<Work<Self::Permit>>);
    fn is_quiet(&self) -> bool;
    /// Recounts itself, and compares with what is there.
    fn check(&self, seen: Seen);
    /// Connections that it counts, waiters that it has.
    fn counts(&self) -> (u64, u64);
}

/// The ledger, its clock and its bells.
pub(super) struct LedgerDesk {
    ledger: Ledger<SocketKey, FailureKind>,
    names: Rc<[TenantId]>,
    numbers: HashMap<TenantId, u32>,
    servers: Vec<ServerId>,
    rung: Arc<Mutex<Vec<Ring>>>,
    /// How many bells were given out.
    bells: u64,
    /// The last bell of each request. It hears no other.
    heard: SecondaryMap<RequestKey, u64>,
    /// The warm path reads no clock while nobody waits.
    coarse: Time,
}

/// Notes who was woken.
struct Bell {
    ring: Ring,
    rung: Arc<Mutex<Vec<Ring>>>,
}

/// Whose, and which of its bells.
type Ring = (RequestKey, u64);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rung.lock().unwrap_or_else(PoisonError::into_inner).push(self.ring);
    }
}

pub(super) fn server_id(server: usize) -> ServerId {
    ServerId::from(if server == 0 { String::new() } else { format!("server {server}") }.as_str())
}

fn settings(plan: &Plan, names: &[TenantId]) -> Settings {
    let mut settings = plan.settings.clone();
    for (&tenant, limits) in &plan.limits {
        settings.tenants.insert(names[tenant as usize].clone(), tenant_limits(limits));
    }
    for (server, caps) in plan.servers.iter().enumerate() {
        settings.servers.extend(caps.cap.map(|cap| (server_id(server), cap)));
    }
    settings
}

fn tenant_limits(limits: &Limits) -> TenantLimits {
    let told = TenantLimits::new().reserve(limits.reserve).weight(limits.weight.max(1));
    limits.max.map_or(told, |max| told.max(max))
}

impl LedgerDesk {
    fn clock(&mut self, now: Time) -> Time {
        self.coarse = self.coarse.max(now);
        now
    }

    fn time(&self, now: Time) -> Time {
        if self.ledger.anyone_waits() { now } else { self.coarse }
    }

    fn polled(polled: Polled<SocketKey, FailureKind>, waiter: WaiterKey) -> Answer<Self> {
        match polled {
            Polled::Pending(before) => {
                drop(before);
                Answer::Waits(waiter)
            }
            Polled::Connection(Held { permit, connection }) => Answer::Socket(permit, connection),
            Polled::Pool(permits) => Answer::Pool(permits),
            Polled::Refused(refusal) => Answer::No(no(&refusal)),
        }
    }

    fn admit(&mut self, tenant: u32, home: usize, now: Time) {
        self.ledger.admit(self.names[tenant as usize].clone(), &self.servers[home], now);
    }

    fn set_limits(&mut self, now: Time, change: impl FnOnce(&mut Settings)) {
        let mut settings = self.ledger.settings().clone();
        change(&mut settings);
        self.ledger.set_limits(settings, now);
    }
}

fn no(refusal: &Refusal<FailureKind>) -> No {
    match refusal {
        Refusal::Limit(shortage) => No::Limit(shortage.scope, shortage.retry_after, shortage.held_by_caller),
        Refusal::Timeout { .. } => No::Timeout,
        Refusal::Connect { kind, .. } => No::Connect(*kind),
        Refusal::Unavailable { kind, retry_after, .. } => No::Unavailable(*kind, *retry_after),
        Refusal::Draining => No::Draining,
        Refusal::Removed => No::Removed,
        Refusal::Closed => No::Closed,
    }
}

impl Desk for LedgerDesk {
    type Permit = PermitKey;
    type Waiter = WaiterKey;

    fn new(plan: &Plan, names: Rc<[TenantId]>) -> Self {
        let mut desk = Self {
            ledger: Ledger::new(settings(plan, &names)),
            numbers: names.iter().cloned().zip(0..).collect(),
            names,
            servers: (0..plan.servers.len()).map(server_id).collect(),
            rung: Arc::default(),
            bells: 0,
            heard: SecondaryMap::new(),
            coarse: Time::ZERO,
        };
        // Who has limits of its own is known from the start, so that its reserve is kept.
        for &tenant in plan.limits.keys() {
            desk.admit(tenant, tenant as usize % plan.servers.len(), Time::ZERO);
        }
        desk
    }

    fn acquire(&mut self, wish: Wish, now: Time) -> Answer<Self> {
        let Wish { tenant, home, pool, background, caller, .. } = wish;
        let names = Rc::clone(&self.names);
        let name = names[tenant as usize].as_str();
        let ask = Ask { pool, background, caller: slotmap::Key::data(&caller).as_ffi() };
        if pool == 0
            && let Some(held) =
                self.ledger.acquire_warm(name, self.ledger.name_hasher().hash(name), ask, self.time(now))
        {
            return Answer::Socket(held.permit, held.connection);
        }
        let now = self.clock(now);
        loop {
            match self.ledger.acquire(name, ask, now) {
                Decision::Take(held) => return Answer::Socket(held.permit, held.connection),
                Decision::Wait(waiter) => return Answer::Waits(waiter),
                Decision::Refuse(refusal) => return Answer::No(no(&refusal)),
                Decision::Unknown => self.admit(tenant, home, now),
            }
        }
    }

    fn poll(&mut self, request: RequestKey, waiter: WaiterKey, now: Time) -> Answer<Self> {
        let now = self.clock(now);
        self.bells += 1;
        self.heard.insert(request, self.bells);
        let bell = Waker::from(Arc::new(Bell { ring: (request, self.bells), rung: Arc::clone(&self.rung) }));
        Self::polled(self.ledger.poll(waiter, bell, now), waiter)
    }

    fn give_up(&mut self, waiter: WaiterKey, now: Time) -> Answer<Self> {
        let now = self.clock(now);
        Self::polled(self.ledger.give_up(waiter, now), waiter)
    }

    fn cancel(&mut self, waiter: WaiterKey, now: Time) {
        let now = self.clock(now);
        self.ledger.cancel(waiter, now);
    }

    fn release(&mut self, permit: PermitKey, socket: SocketKey, health: Health, now: Time) {
        let now = self.time(now);
        self.ledger.release(permit, socket, health, now);
    }

    fn opened(&mut self, permit: PermitKey, socket: SocketKey, random: u64, now: Time) {
        let now = self.clock(now);
        self.ledger.opened(permit, socket, random, now);
    }

    fn open_failed(&mut self, permit: PermitKey, flop: Flop, random: u64, now: Time) {
        let now = self.clock(now);
        let failure = match flop {
            Flop::Error(kind) => Failure::Error { kind, source: Arc::new(kind) },
            Flop::TimedOut => Failure::TimedOut,
            Flop::Panicked => Failure::Panicked,
        };
        self.ledger.open_failed(permit, failure, random, now);
    }

    fn recycled(&mut self, permit: PermitKey, socket: SocketKey, now: Time) {
        let now = self.clock(now);
        self.ledger.recycled(permit, socket, now);
    }

    fn recycle_failed(&mut self, permit: PermitKey, now: Time) {
        let now = self.clock(now);
        self.ledger.recycle_failed(permit, now);
    }

    fn closed(&mut self, permit: PermitKey, now: Time) {
        let now = self.clock(now);
        self.ledger.closed(permit, now);
    }

    fn closing_pool(&mut self, permits: &[PermitKey], now: Time) {
        let now = self.clock(now);
        self.ledger.closing_pool(permits, now);
    }

    fn free_pool(&mut self, permits: &[PermitKey], now: Time) {
        let now = self.clock(now);
        self.ledger.free_pool(permits, now);
    }

    fn tick(&mut self, now: Time) {
        let now = self.clock(now);
        drop(self.ledger.tick(now));
    }

    fn operate(&mut self, operation: Operation, home: usize, now: Time) -> bool {
        let now = self.clock(now);
        let names = Rc::clone(&self.names);
        let name = |tenant: u32| names[tenant as usize].as_str();
        match operation {
            Operation::Drain(tenant) => {
                self.admit(tenant, home, now);
                return self.ledger.drain(name(tenant), now);
            }
            Operation::Resume(tenant, server) => return self.ledger.resume(name(tenant), &self.servers[server], now),
            Operation::Remove(tenant) => {
                self.admit(tenant, home, now);
                return self.ledger.remove(name(tenant), now);
            }
            Operation::Created(tenant) => self.ledger.created(name(tenant), now),
            Operation::Evict(tenant) => return self.ledger.evict(name(tenant), now) > 0,
            Operation::Pause(server) => self.ledger.pause(&self.servers[server], now),
            Operation::Unpause(server) => return self.ledger.unpause(&self.servers[server], now),
            Operation::Budget(budget) => self.set_limits(now, |settings| settings.max_connections = budget),
            Operation::PerTenant(cap) => self.set_limits(now, |settings| settings.max_connections_per_tenant = cap),
        }
        true
    }

    fn close(&mut self, now: Time) {
        let now = self.clock(now);
        self.ledger.close(now);
    }

    fn work(&mut self, into: &mut Vec<Work<PermitKey>>) {
        for action in self.ledger.take_actions() {
            match action {
                Action::Open { permit, tenant } => into.push(Work::Open { permit, tenant: self.numbers[&tenant] }),
                Action::Recycle { permit, connection } => into.push(Work::Recycle { permit, socket: connection }),
                Action::Close { permit, connection } => into.push(Work::Close { permit, socket: connection }),
                Action::Wake(waker) => waker.wake(),
                Action::DropWaker(_) | Action::DropError(_) | Action::Tell(_) => {}
            }
        }
        let mut rung = self.rung.lock().unwrap_or_else(PoisonError::into_inner);
        let heard = rung.drain(..).filter(|&(request, bell)| self.heard.get(request) == Some(&bell));
        into.extend(heard.map(|(request, _)| Work::Wake(request)));
    }

    fn is_quiet(&self) -> bool {
        self.ledger.is_quiet()
    }

    fn check(&self, seen: Seen) {
        self.ledger.check();
        let stats = self.ledger.stats();
        let counted = Seen {
            opening: stats.opening,
            open: stats.idle + stats.in_use,
            closing: stats.closing,
            // It counts those set aside for one as well.
            leased: stats.pool_leased.min(seen.leased),
            waiting: stats.waiting,
        };
        assert_eq!(counted, seen, "what is counted is not what is there");
    }

    fn counts(&self) -> (u64, u64) {
        let stats = self.ledger.stats();
        (stats.open(), stats.waiting)
    }
}
