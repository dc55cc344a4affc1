//! What a fake has seen, counted from outside the manager: places, calls, [`Event`]s. `shared.rs` keeps it.

use std::collections::{HashMap, VecDeque};

use tenantry_core::{FailureKind, ServerId, TenantId};

use super::script::Call;

/// One thing that happened to the fake. `id` is the connection's or pool's number, from 1, never used twice.
///
/// *Abandoned* means that the call's future was dropped half-way, or panicked.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "every field is what the enum's own text says")]
pub enum Event {
    /// A connect was polled for the first time; its place counts from here.
    ConnectStarted { tenant: TenantId, id: u64 },
    /// A connection was handed to the manager.
    Connected { tenant: TenantId, id: u64 },
    /// A connect ended with an error; its place counts no more.
    ConnectFailed { tenant: TenantId, id: u64, kind: FailureKind },
    /// A connect was abandoned; its place counts no more.
    ConnectAbandoned { tenant: TenantId, id: u64 },
    /// A recycle was polled for the first time.
    RecycleStarted { tenant: TenantId, id: u64 },
    /// A recycle left the connection clean.
    Recycled { tenant: TenantId, id: u64 },
    /// A recycle ended with an error.
    RecycleFailed { tenant: TenantId, id: u64, kind: FailureKind },
    /// A recycle was abandoned.
    RecycleAbandoned { tenant: TenantId, id: u64 },
    /// A close was polled for the first time.
    CloseStarted { tenant: TenantId, id: u64 },
    /// A close ended; its place counts no more.
    Closed { tenant: TenantId, id: u64 },
    /// A close was not done within its time and dropped the connection; its place counts no more.
    ClosedAtTheBound { tenant: TenantId, id: u64 },
    /// A close was abandoned. [`Dropped`](Self::Dropped) follows.
    CloseAbandoned { tenant: TenantId, id: u64 },
    /// A connection was dropped and never closed; its place counts no more.
    Dropped { tenant: TenantId, id: u64 },
    /// The opening of a pool was polled for the first time; all of its places count from here.
    PoolOpenStarted { tenant: TenantId, id: u64 },
    /// A pool was handed to the manager.
    PoolOpened { tenant: TenantId, id: u64 },
    /// The opening of a pool ended with an error; its places count no more.
    PoolOpenFailed { tenant: TenantId, id: u64, kind: FailureKind },
    /// The opening of a pool was abandoned; its places count no more.
    PoolOpenAbandoned { tenant: TenantId, id: u64 },
    /// The closing of a pool was polled for the first time.
    PoolCloseStarted { tenant: TenantId, id: u64 },
    /// A pool is closed, with its last connection; its places count no more.
    PoolClosed { tenant: TenantId, id: u64 },
    /// The closing of a pool was abandoned.
    PoolCloseAbandoned { tenant: TenantId, id: u64 },
    /// The last handle to a pool was dropped and it was never closed; its places count no more.
    PoolDropped { tenant: TenantId, id: u64 },
    /// A database was made.
    DatabaseCreated { tenant: TenantId, id: u64 },
    /// A database was dropped; the connections to it are cut.
    DatabaseDropped { tenant: TenantId, id: u64 },
}

/// How many places are taken: now, and at most since the start or the last
/// [`reset_high_water`](super::FakeFactory::reset_high_water).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Places {
    /// Taken at this moment.
    pub now: u64,
    /// The most that were taken at one moment.
    pub most: u64,
}

impl Places {
    fn take(&mut self, count: u64) {
        self.now += count;
        self.most = self.most.max(self.now);
    }
}

/// How often a function of the fake was called. A call starts at the first poll of its future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Calls {
    /// Calls begun.
    pub started: u64,
    /// Calls over, in whatever way.
    pub ended: u64,
    /// The most that ran at one moment.
    pub most_at_once: u64,
}

impl Calls {
    /// Calls that run at this moment.
    #[must_use]
    pub const fn running(&self) -> u64 {
        self.started - self.ended
    }

    fn start(&mut self) {
        self.started += 1;
        self.most_at_once = self.most_at_once.max(self.running());
    }
}

/// Everything, one server, or one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Scope {
    Total,
    Server(ServerId),
    Tenant(TenantId),
}

/// Whose call or place it is.
#[derive(Debug, Clone)]
pub(super) struct Owner {
    pub(super) tenant: TenantId,
    pub(super) server: ServerId,
    pub(super) id: u64,
}

impl Owner {
    fn scopes(&self) -> [Scope; 3] {
        [Scope::Total, Scope::Server(self.server.clone()), Scope::Tenant(self.tenant.clone())]
    }

    fn started(&self, call: Call) -> Option<Event> {
        let (tenant, id) = (self.tenant.clone(), self.id);
        match call {
            Call::Connect => Some(Event::ConnectStarted { tenant, id }),
            Call::Recycle => Some(Event::RecycleStarted { tenant, id }),
            Call::Close => Some(Event::CloseStarted { tenant, id }),
            Call::OpenPool => Some(Event::PoolOpenStarted { tenant, id }),
            Call::ClosePool => Some(Event::PoolCloseStarted { tenant, id }),
            Call::Create | Call::DropDatabase | Call::Query => None,
        }
    }

    /// What to log when such a call's future was dropped, or panicked.
    pub(super) fn abandoned(&self, call: Call) -> Option<Event> {
        let (tenant, id) = (self.tenant.clone(), self.id);
        match call {
            Call::Connect => Some(Event::ConnectAbandoned { tenant, id }),
            Call::Recycle => Some(Event::RecycleAbandoned { tenant, id }),
            Call::Close => Some(Event::CloseAbandoned { tenant, id }),
            Call::OpenPool => Some(Event::PoolOpenAbandoned { tenant, id }),
            Call::ClosePool => Some(Event::PoolCloseAbandoned { tenant, id }),
            Call::Create | Call::DropDatabase | Call::Query => None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Witness {
    places: HashMap<Scope, Places>,
    calls: HashMap<(Call, Scope), Calls>,
    events: VecDeque<Event>,
    events_kept: usize,
    misuses: Vec<String>,
}

impl Default for Witness {
    fn default() -> Self {
        Self {
            places: HashMap::new(),
            calls: HashMap::new(),
            events: VecDeque::new(),
            events_kept: 100_000,
            misuses: Vec::new(),
        }
    }
}

impl Witness {
    pub(super) fn take(&mut self, owner: &Owner, count: u64) {
        for scope in owner.scopes() {
            self.places.entry(scope).or_default().take(count);
        }
    }

    pub(super) fn give_back(&mut self, owner: &Owner, count: u64) {
        for scope in owner.scopes() {
            self.places.entry(scope).or_default().now -= count;
        }
    }

    pub(super) fn places(&self, scope: &Scope) -> Places {
        self.places.get(scope).copied().unwrap_or_default()
    }

    pub(super) fn reset_high_water(&mut self) {
        for places in self.places.values_mut() {
            places.most = places.now;
        }
        for calls in self.calls.values_mut() {
            calls.most_at_once = calls.running();
        }
    }

    pub(super) fn start(&mut self, call: Call, owner: &Owner) {
        for scope in owner.scopes() {
            self.calls.entry((call, scope)).or_default().start();
        }
        self.events.extend(owner.started(call));
        self.trim();
    }

    pub(super) fn end(&mut self, call: Call, owner: &Owner, event: Option<Event>) {
        for scope in owner.scopes() {
            self.calls.entry((call, scope)).or_default().ended += 1;
        }
        self.events.extend(event);
        self.trim();
    }

    pub(super) fn calls(&self, call: Call, scope: Scope) -> Calls {
        self.calls.get(&(call, scope)).copied().unwrap_or_default()
    }

    pub(super) fn log(&mut self, event: Event) {
        self.events.push_back(event);
        self.trim();
    }

    pub(super) fn keep_events(&mut self, most: usize) {
        self.events_kept = most;
        self.trim();
    }

    fn trim(&mut self) {
        while self.events.len() > self.events_kept {
            self.events.pop_front();
        }
    }

    pub(super) fn events(&self) -> Vec<Event> {
        self.events.iter().cloned().collect()
    }

    pub(super) fn take_events(&mut self) -> Vec<Event> {
        self.events.drain(..).collect()
    }

    pub(super) fn misuse(&mut self, text: String) {
        self.misuses.push(text);
    }

    pub(super) fn misuses(&self) -> Vec<String> {
        self.misuses.clone()
    }
}
