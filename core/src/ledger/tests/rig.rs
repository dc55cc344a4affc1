//! A ledger with a hand for each end of it: what the callers hold, what the tasks have to do, and the time.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Wake, Waker};
use std::time::Duration;

use crate::ledger::{
    Action, Ask, Decision, Failure, Held, Ledger, PermitKey, Polled, Refusal, Time, TryDecision, WaiterKey,
};
use crate::{Event, FailureKind, Health, ServerId, Settings, TenantId};

thread_local! {
    /// Whether a command is running, that is, whether the lock would be held.
    static LOCKED: Cell<bool> = const { Cell::new(false) };
}

/// A user's code: it must not run while the lock is held.
#[track_caller]
fn users_code(what: &str) {
    let locked = LOCKED.get();
    assert!(!locked || std::thread::panicking(), "{what} under the lock");
}

/// A connection, known by its number and its tenant.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conn {
    pub(super) id: u32,
    pub(super) tenant: String,
}

impl Drop for Conn {
    fn drop(&mut self) {
        users_code("a connection was dropped");
    }
}

/// A driver's error.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Oops;

impl Drop for Oops {
    fn drop(&mut self) {
        users_code("an error was dropped");
    }
}

/// A waker which is a user's, as all are.
struct Alarm;

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        users_code("a waker was woken");
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        users_code("a waker was dropped");
    }
}

pub(super) const MS: Duration = Duration::from_millis(1);

pub(super) struct Rig {
    pub(super) ledger: Ledger<Conn, Oops>,
    pub(super) now: Time,
    /// Work that the ledger asked for, oldest first.
    pub(super) opens: Vec<(PermitKey, TenantId)>,
    pub(super) recycles: Vec<(PermitKey, Conn)>,
    pub(super) closes: Vec<(PermitKey, Conn)>,
    pub(super) wakes: usize,
    /// What an observer was told, where one [attends](Ledger::attend).
    pub(super) told: Vec<Event>,
    pub(super) server_of: fn(&str) -> ServerId,
    /// Whether every step is followed by a recount, which takes as long as there are permits.
    pub(super) recounts: bool,
    connections: u32,
    asked: u32,
}

impl Rig {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            ledger: Ledger::new(settings),
            now: Duration::from_secs(1),
            opens: Vec::new(),
            recycles: Vec::new(),
            closes: Vec::new(),
            wakes: 0,
            told: Vec::new(),
            server_of: |_| ServerId::default(),
            recounts: true,
            connections: 0,
            asked: 0,
        }
    }

    /// A budget, and a cap for each tenant; as many may connect at once.
    pub(super) fn with(total: u32, per_tenant: u32) -> Self {
        let mut settings = Settings::new(total);
        settings.max_connections_per_tenant = per_tenant;
        settings.max_connecting = Some(total * 2);
        Self::new(settings)
    }

    /// Runs one command, takes its actions, and recounts.
    pub(super) fn step<R>(&mut self, command: impl FnOnce(&mut Ledger<Conn, Oops>, Time) -> R) -> R {
        LOCKED.set(true);
        let result = command(&mut self.ledger, self.now);
        LOCKED.set(false);
        for action in self.ledger.take_actions() {
            match action {
                Action::Open { permit, tenant } => self.opens.push((permit, tenant)),
                Action::Recycle { permit, connection } => self.recycles.push((permit, connection)),
                Action::Close { permit, connection } => self.closes.push((permit, connection)),
                Action::Wake(waker) => {
                    waker.wake();
                    self.wakes += 1;
                }
                Action::Tell(event) => self.told.push(*event),
                Action::DropWaker(_) | Action::DropError(_) => {}
            }
        }
        if self.recounts {
            self.ledger.check();
        }
        result
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now += time;
        self.step(|ledger, now| ledger.tick(now));
    }

    /// As the edge does it: what is warm first. Every other time without, which has to come to the same.
    pub(super) fn ask(&mut self, tenant: &str, ask: Ask) -> Decision<Conn, Oops> {
        self.asked += 1;
        if ask.pool == 0
            && self.asked.is_multiple_of(2)
            && let Some(held) =
                self.step(|ledger, now| ledger.acquire_warm(tenant, ledger.name_hasher().hash(tenant), ask, now))
        {
            return Decision::Take(held);
        }
        match self.step(|ledger, now| ledger.acquire(tenant, ask, now)) {
            Decision::Unknown => {
                self.admit(tenant);
                self.step(|ledger, now| ledger.acquire(tenant, ask, now))
            }
            decision => decision,
        }
    }

    pub(super) fn acquire(&mut self, tenant: &str) -> Decision<Conn, Oops> {
        self.ask(tenant, Ask::default())
    }

    pub(super) fn wait(&mut self, tenant: &str) -> WaiterKey {
        match self.acquire(tenant) {
            Decision::Wait(waiter) => waiter,
            other => panic!("{tenant} should wait, not {other:?}"),
        }
    }

    pub(super) fn wait_pool(&mut self, tenant: &str, pool: u32) -> WaiterKey {
        match self.ask(tenant, Ask { pool, ..Ask::default() }) {
            Decision::Wait(waiter) => waiter,
            other => panic!("{tenant} should wait, not {other:?}"),
        }
    }

    pub(super) fn refused(&mut self, tenant: &str) -> Refusal<Oops> {
        match self.acquire(tenant) {
            Decision::Refuse(refusal) => refusal,
            other => panic!("{tenant} should be refused, not {other:?}"),
        }
    }

    /// A connection that was idle.
    pub(super) fn warm(&mut self, tenant: &str) -> Held<Conn> {
        match self.acquire(tenant) {
            Decision::Take(held) => held,
            other => panic!("{tenant} should be warm, not {other:?}"),
        }
    }

    pub(super) fn try_acquire(&mut self, tenant: &str) -> TryDecision<Conn> {
        self.step(|ledger, now| ledger.try_acquire(tenant, 0, now))
    }

    pub(super) fn poll(&mut self, waiter: WaiterKey) -> Polled<Conn, Oops> {
        let waker = Waker::from(Arc::new(Alarm));
        self.step(|ledger, now| ledger.poll(waiter, waker, now))
    }

    pub(super) fn granted(&mut self, waiter: WaiterKey) -> Held<Conn> {
        match self.poll(waiter) {
            Polled::Connection(held) => held,
            other => panic!("should be granted, not {other:?}"),
        }
    }

    pub(super) fn pending(&mut self, waiter: WaiterKey) {
        let polled = self.poll(waiter);
        assert!(matches!(polled, Polled::Pending(_)), "should wait on, not {polled:?}");
    }

    pub(super) fn refusal(&mut self, waiter: WaiterKey) -> Refusal<Oops> {
        match self.poll(waiter) {
            Polled::Refused(refusal) => refusal,
            other => panic!("should be refused, not {other:?}"),
        }
    }

    pub(super) fn cancel(&mut self, waiter: WaiterKey) {
        self.step(|ledger, now| ledger.cancel(waiter, now));
    }

    /// The waiter's deadline passes, and nothing was granted to it.
    pub(super) fn give_up(&mut self, waiter: WaiterKey) -> Refusal<Oops> {
        match self.step(|ledger, now| ledger.give_up(waiter, now)) {
            Polled::Refused(refusal) => refusal,
            other => panic!("should be refused, not {other:?}"),
        }
    }

    pub(super) fn admit(&mut self, tenant: &str) {
        let (name, server) = (TenantId::new(tenant).expect("a valid name"), (self.server_of)(tenant));
        self.step(|ledger, now| ledger.admit(name, &server, now));
    }

    pub(super) fn release(&mut self, held: Held<Conn>, health: Health) {
        self.step(|ledger, now| ledger.release(held.permit, held.connection, health, now));
    }

    /// The oldest open succeeds.
    pub(super) fn opened(&mut self) -> u32 {
        let (permit, tenant) = self.opens.remove(0);
        self.connections += 1;
        let id = self.connections;
        let connection = Conn { id, tenant: tenant.to_string() };
        self.step(|ledger, now| ledger.opened(permit, connection, 0, now));
        id
    }

    pub(super) fn open_failed(&mut self, kind: FailureKind) {
        self.open_failed_by_chance(kind, 0);
    }

    /// The oldest open fails, with that random number for the backoffs.
    pub(super) fn open_failed_by_chance(&mut self, kind: FailureKind, random: u64) {
        let (permit, _) = self.opens.remove(0);
        let failure = Failure::Error { kind, source: Arc::new(Oops) };
        self.step(|ledger, now| ledger.open_failed(permit, failure, random, now));
    }

    /// The oldest close ends.
    pub(super) fn closed(&mut self) -> Conn {
        let (permit, connection) = self.closes.remove(0);
        self.step(|ledger, now| ledger.closed(permit, now));
        connection
    }

    pub(super) fn recycled(&mut self) {
        let (permit, connection) = self.recycles.remove(0);
        self.step(|ledger, now| ledger.recycled(permit, connection, now));
    }

    /// A lease on a new connection.
    pub(super) fn lease(&mut self, tenant: &str) -> Held<Conn> {
        match self.acquire(tenant) {
            Decision::Take(held) => held,
            Decision::Wait(waiter) => {
                self.opened();
                self.granted(waiter)
            }
            other => panic!("{tenant} should be served, not {other:?}"),
        }
    }

    /// An idle connection.
    pub(super) fn warm_up(&mut self, tenant: &str) {
        let held = self.lease(tenant);
        self.release(held, Health::Clean);
    }

    /// opening, idle, in use, closing, pool
    pub(super) fn counts(&self) -> [u64; 5] {
        let stats = self.ledger.stats();
        [stats.opening, stats.idle, stats.in_use, stats.closing, stats.pool_leased]
    }
}
