//! The state that a fake, its connections and its pools share, and the two guards that keep its counts right:
//! [`Place`] (a counted connection or pool) and [`Running`] (a counted call).

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tenantry_core::{FailureKind, ServerCapacity, ServerId, TenantId};
use tokio::sync::watch;

use super::connection::Record;
use super::script::{Call, Plans, Task};
use super::witness::{Event, Owner, Witness};

type Placement = Arc<dyn Fn(&TenantId) -> ServerId + Send + Sync>;

pub(super) struct Shared {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

pub(super) struct State {
    pub(super) plans: Plans,
    pub(super) witness: Witness,
    pub(super) servers: HashMap<ServerId, Server>,
    pub(super) databases: Databases,
    pub(super) max_per_tenant: Option<u32>,
    pub(super) capacity: ServerCapacity,
    placed: HashMap<TenantId, ServerId>,
    placement: Placement,
    records: HashMap<u64, Weak<Record>>,
    last_id: u64,
}

/// Which databases there are: all but a few, or a few only.
#[derive(Debug)]
pub(super) enum Databases {
    AllBut(HashSet<TenantId>),
    Only(HashSet<TenantId>),
}

impl Databases {
    pub(super) fn has(&self, tenant: &TenantId) -> bool {
        match self {
            Self::AllBut(missing) => !missing.contains(tenant),
            Self::Only(there) => there.contains(tenant),
        }
    }

    /// Returns whether that changed anything.
    pub(super) fn set(&mut self, tenant: &TenantId, there: bool) -> bool {
        let (set, insert) = match self {
            Self::AllBut(missing) => (missing, !there),
            Self::Only(existing) => (existing, there),
        };
        if insert { set.insert(tenant.clone()) } else { set.remove(tenant) }
    }
}

#[derive(Debug, Default)]
pub(super) struct Server {
    /// The most connections that it lets in; `None` is no limit.
    pub(super) limit: Option<u64>,
    /// Connections of other programs.
    pub(super) outsiders: u64,
    /// Ours that it let in and that are not gone yet.
    admitted: u64,
}

impl Server {
    fn has_room(&self) -> bool {
        self.limit.is_none_or(|limit| self.admitted + self.outsiders < limit)
    }
}

impl Shared {
    pub(super) fn new() -> Self {
        let state = State {
            plans: Plans::default(),
            witness: Witness::default(),
            servers: HashMap::new(),
            databases: Databases::AllBut(HashSet::new()),
            max_per_tenant: None,
            capacity: ServerCapacity::default(),
            placed: HashMap::new(),
            placement: Arc::new(|_| ServerId::default()),
            records: HashMap::new(),
            last_id: 0,
        };
        Self { state: Mutex::new(state), changed: watch::Sender::new(()) }
    }

    /// A panic of a test's own must not take the fake with it: the state is whole between any two statements.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, then tells those who wait for a change; they are woken after the lock is let go.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let result = change(&mut self.lock());
        self.changed.send_replace(());
        result
    }

    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(super) fn place(&self, tenant: TenantId, server: ServerId) {
        self.lock().placed.insert(tenant, server);
    }

    pub(super) fn place_with(&self, placement: Placement) {
        self.lock().placement = placement;
    }

    pub(super) fn server(&self, tenant: &TenantId) -> ServerId {
        let placement = {
            let state = self.lock();
            if let Some(server) = state.placed.get(tenant) {
                return server.clone();
            }
            Arc::clone(&state.placement)
        };
        placement(tenant)
    }

    /// Starts a call that has a place of its own: a connect, the opening of a pool, the making of a database.
    pub(super) fn start(self: &Arc<Self>, call: Call, tenant: &TenantId, places: u64) -> (Place, Running, Task) {
        let server = self.server(tenant);
        let (owner, task) = self.change(|state| {
            state.last_id += 1;
            let owner = Owner { tenant: tenant.clone(), server, id: state.last_id };
            state.witness.take(&owner, places);
            let task = state.start(call, &owner);
            (owner, task)
        });
        let place = Place { shared: Arc::clone(self), owner: owner.clone(), places, admitted: false };
        (place, Running { shared: Arc::clone(self), call, owner, ended: false }, task)
    }

    /// Starts a call on something that has its place already.
    pub(super) fn start_on(self: &Arc<Self>, call: Call, owner: &Owner) -> (Running, Task) {
        let task = self.change(|state| state.start(call, owner));
        (Running { shared: Arc::clone(self), call, owner: owner.clone(), ended: false }, task)
    }

    pub(super) fn log(&self, event: Event) {
        self.change(|state| state.witness.log(event));
    }

    pub(super) fn remember(&self, record: &Arc<Record>) {
        self.lock().records.insert(record.owner.id, Arc::downgrade(record));
    }

    /// The open connections that `concerns` says yes to.
    pub(super) fn records(&self, concerns: impl Fn(&Record) -> bool) -> Vec<Arc<Record>> {
        let records: Vec<_> = self.lock().records.values().filter_map(Weak::upgrade).collect();
        records.into_iter().filter(|record| record.is_open() && concerns(record)).collect()
    }

    /// Keeps the misuse for [`FakeFactory::assert_no_misuse`](super::FakeFactory::assert_no_misuse), then panics:
    /// a panic alone is lost where it happens in a task that nobody joins.
    pub(super) fn misuse(&self, text: String) -> ! {
        self.change(|state| state.witness.misuse(text.clone()));
        panic!("{text}");
    }
}

impl State {
    fn start(&mut self, call: Call, owner: &Owner) -> Task {
        self.witness.start(call, owner);
        self.plans.task(call, &owner.tenant)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

/// A counted place: from the start of a connect until the connection is gone. Dropping it stops the count.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) shared: Arc<Shared>,
    pub(super) owner: Owner,
    places: u64,
    admitted: bool,
}

impl Place {
    /// What the server says to it: whether the database is there, and whether there is room.
    pub(super) fn ask_for_entry(&mut self, check_database: bool) -> Result<(), FailureKind> {
        let places = self.places;
        self.shared.change(|state| {
            if check_database && !state.databases.has(&self.owner.tenant) {
                return Err(FailureKind::NoSuchTenant);
            }
            let server = state.servers.entry(self.owner.server.clone()).or_default();
            if !server.has_room() {
                return Err(FailureKind::ServerFull);
            }
            server.admitted += places;
            Ok(())
        })?;
        self.admitted = true;
        Ok(())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.witness.give_back(&self.owner, self.places);
            state.records.remove(&self.owner.id);
            if self.admitted
                && let Some(server) = state.servers.get_mut(&self.owner.server)
            {
                server.admitted -= self.places;
            }
        });
    }
}

/// A counted call. Dropped before [`done`](Self::done), it logs that it was abandoned.
#[derive(Debug)]
pub(super) struct Running {
    shared: Arc<Shared>,
    call: Call,
    owner: Owner,
    ended: bool,
}

impl Running {
    /// The call is over: logs how it ended.
    pub(super) fn done(mut self, event: impl FnOnce(TenantId, u64) -> Event) {
        let event = event(self.owner.tenant.clone(), self.owner.id);
        self.end(Some(event));
    }

    /// The call is over and needs no line in the log.
    pub(super) fn done_quietly(mut self) {
        self.end(None);
    }

    fn end(&mut self, event: Option<Event>) {
        self.ended = true;
        self.shared.change(|state| state.witness.end(self.call, &self.owner, event));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.ended {
            self.end(self.owner.abandoned(self.call));
        }
    }
}
