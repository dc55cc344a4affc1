//! A driver that lives in memory, for tests: [`FakeFactory`]. What it does is in `fake/script.rs`, what it has seen in
//! `fake/witness.rs`.

mod connection;
mod gate;
mod pool;
mod script;
mod shared;
#[cfg(test)]
mod tests;
mod witness;

use std::sync::Arc;
use std::time::Duration;

use tenantry_core::{
    Capacity, Created, Dropped, FailureKind, Health, NativePool, PoolFactory, Provision, ServerCapacity, ServerId,
    TenantId,
};

pub use connection::{FakeConnection, FakeError, FakeHandle, Use};
pub use gate::Gate;
use gate::come;
pub use pool::{FakePool, FakePooled};
pub use script::{Behavior, Call, Script};
pub use witness::{Calls, Event, Places};

use shared::{Databases, Shared};
use witness::Scope;

/// A [`PoolFactory`] whose connections live in memory. Cloning it gives another handle on the same fake: give one to
/// the manager and keep one to script it and to read what it saw.
///
/// It is the witness of the budget: it counts every place from the start of a connect until the close has ended or
/// the connection was dropped, and knows nothing of the manager's own count.
///
/// ```
/// use std::time::Duration;
/// use tenantry_core::{FailureKind, PoolFactory, TenantId};
/// use tenantry_testkit::{Behavior, Call, FakeFactory};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let fake = FakeFactory::new();
/// fake.on_tenant(Call::Connect, "acme").next(Behavior::fails(FailureKind::Unreachable));
/// fake.on(Call::Connect).always(Behavior::after(Duration::from_millis(5)));
///
/// let acme: TenantId = "acme".parse()?;
/// let refused = fake.connect(&acme).await.unwrap_err();
/// assert_eq!(fake.classify(&refused), FailureKind::Unreachable);
///
/// let connection = fake.connect(&acme).await?;
/// assert_eq!((fake.open().now, fake.open().most), (1, 1));
/// fake.close(connection, Duration::from_secs(5)).await;
/// assert_eq!(fake.open().now, 0);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct FakeFactory {
    shared: Arc<Shared>,
}

impl Default for FakeFactory {
    fn default() -> Self {
        Self::new()
    }
}

/// Names come from the test itself, so a bad one is a mistake in the test.
#[track_caller]
fn named(tenant: impl AsRef<str>) -> TenantId {
    match TenantId::new(tenant) {
        Ok(tenant) => tenant,
        Err(error) => panic!("the test names a tenant that cannot be: {error}"),
    }
}

/// Scripting: what the fake will do.
impl FakeFactory {
    /// A fake on which everything succeeds at once and every tenant has a database.
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::new(Shared::new()) }
    }

    /// The script of one kind of call, for all tenants.
    #[must_use]
    pub fn on(&self, call: Call) -> Script<'_> {
        Script { fake: self, call, tenant: None }
    }

    /// The script of one kind of call, for one tenant.
    ///
    /// # Panics
    /// As every function here that takes a tenant's name: when it cannot be one.
    #[must_use]
    #[track_caller]
    pub fn on_tenant(&self, call: Call, tenant: impl AsRef<str>) -> Script<'_> {
        Script { fake: self, call, tenant: Some(named(tenant)) }
    }

    /// Holds one tenant's connects back until the gate is released or dropped.
    #[must_use = "dropping the gate releases it"]
    #[track_caller]
    pub fn hold_connects(&self, tenant: impl AsRef<str>) -> Gate {
        self.on_tenant(Call::Connect, tenant).hold()
    }

    /// Holds one tenant's recycles back until the gate is released or dropped.
    #[must_use = "dropping the gate releases it"]
    #[track_caller]
    pub fn hold_recycles(&self, tenant: impl AsRef<str>) -> Gate {
        self.on_tenant(Call::Recycle, tenant).hold()
    }

    /// Holds one tenant's closes back until the gate is released or dropped, even past the time that they are given.
    #[must_use = "dropping the gate releases it"]
    #[track_caller]
    pub fn hold_closes(&self, tenant: impl AsRef<str>) -> Gate {
        self.on_tenant(Call::Close, tenant).hold()
    }

    /// Puts one tenant on a server. What is open already goes on counting where it was opened.
    #[track_caller]
    pub fn place(&self, tenant: impl AsRef<str>, server: ServerId) {
        self.shared.place(named(tenant), server);
    }

    /// Puts every tenant that was not [placed](Self::place) by name on the server that `placement` says.
    pub fn place_with(&self, placement: impl Fn(&TenantId) -> ServerId + Send + Sync + 'static) {
        self.shared.place_with(Arc::new(placement));
    }

    /// The most connections that a server lets in; past it, a connect fails with [`FailureKind::ServerFull`].
    /// `None`, the default, is no limit.
    pub fn set_server_limit(&self, server: &ServerId, limit: Option<u64>) {
        self.shared.change(|state| state.servers.entry(server.clone()).or_default().limit = limit);
    }

    /// How many places of a server's limit other programs hold.
    pub fn set_outsiders(&self, server: &ServerId, count: u64) {
        self.shared.change(|state| state.servers.entry(server.clone()).or_default().outsiders = count);
    }

    /// From now on only these tenants have a database (and those that are created); a connect for another fails with
    /// [`FailureKind::NoSuchTenant`].
    #[track_caller]
    pub fn set_databases<T: AsRef<str>>(&self, tenants: impl IntoIterator<Item = T>) {
        let there = tenants.into_iter().map(named).collect();
        self.shared.change(|state| state.databases = Databases::Only(there));
    }

    /// Whether one tenant has a database.
    #[track_caller]
    pub fn has_database(&self, tenant: impl AsRef<str>) -> bool {
        self.shared.lock().databases.has(&named(tenant))
    }

    /// What [`PoolFactory::max_per_tenant`] answers. Managers ask once, when they are built.
    pub fn set_max_per_tenant(&self, max: Option<u32>) {
        self.shared.change(|state| state.max_per_tenant = max);
    }

    /// What a preflight is told of every server's limits. Default: it has none.
    pub fn set_capacity(&self, capacity: ServerCapacity) {
        self.shared.change(|state| state.capacity = capacity);
    }

    /// The server ends every connection it has, as in a restart, and nobody has noticed yet: see
    /// [`FakeConnection::cut`]. Returns how many there were.
    pub fn cut_all_on(&self, server: &ServerId) -> usize {
        let there = self.shared.records(|record| record.owner.server == *server);
        there.iter().for_each(|record| record.cut());
        there.len()
    }
}

/// Reading: what the fake has seen.
impl FakeFactory {
    /// The places taken, in all. A pool counts with all of its places, and so does the making of a database with one.
    #[must_use]
    pub fn open(&self) -> Places {
        self.shared.lock().witness.places(&Scope::Total)
    }

    /// The places that one tenant has taken.
    #[must_use]
    #[track_caller]
    pub fn open_of(&self, tenant: impl AsRef<str>) -> Places {
        self.shared.lock().witness.places(&Scope::Tenant(named(tenant)))
    }

    /// The places taken on one server.
    #[must_use]
    pub fn open_on(&self, server: &ServerId) -> Places {
        self.shared.lock().witness.places(&Scope::Server(server.clone()))
    }

    /// Starts every `most` anew from what is there now.
    pub fn reset_high_water(&self) {
        self.shared.lock().witness.reset_high_water();
    }

    /// How often something was called, in all.
    #[must_use]
    pub fn calls(&self, call: Call) -> Calls {
        self.shared.lock().witness.calls(call, Scope::Total)
    }

    /// How often something was called for one tenant.
    #[must_use]
    #[track_caller]
    pub fn calls_of(&self, call: Call, tenant: impl AsRef<str>) -> Calls {
        self.shared.lock().witness.calls(call, Scope::Tenant(named(tenant)))
    }

    /// How often something was called for the tenants of one server.
    #[must_use]
    pub fn calls_on(&self, call: Call, server: &ServerId) -> Calls {
        self.shared.lock().witness.calls(call, Scope::Server(server.clone()))
    }

    /// Everything that happened, oldest first; the latest 100,000 unless [told otherwise](Self::keep_events).
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.shared.lock().witness.events()
    }

    /// The same, and forgets them.
    #[must_use]
    pub fn take_events(&self) -> Vec<Event> {
        self.shared.lock().witness.take_events()
    }

    /// How many events to keep; 0 for none, where a long run is to stay small.
    pub fn keep_events(&self, most: usize) {
        self.shared.lock().witness.keep_events(most);
    }

    /// Every misuse of a connection that [`FakeConnection::use_it`] found.
    #[must_use]
    pub fn misuses(&self) -> Vec<String> {
        self.shared.lock().witness.misuses()
    }

    /// # Panics
    /// When a connection was misused, even where the panic itself was lost in a task that nobody joined.
    #[track_caller]
    pub fn assert_no_misuse(&self) {
        let misuses = self.misuses();
        assert!(misuses.is_empty(), "connections were misused: {misuses:#?}");
    }

    /// Resolves when `done` says yes. It asks now and after every change.
    ///
    /// # Panics
    /// When it does not within an hour of tokio's clock; where that is paused, a test that waits in vain fails at once.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn until(&self, done: impl Fn(&Self) -> bool) {
        let mut changes = self.shared.changes();
        let is_done = async {
            while !done(self) {
                // The sender lives as long as `self`, so this is a change and never an error.
                let _ = changes.changed().await;
            }
        };
        come(is_done, || format!("{:?} are open", self.open())).await;
    }

    /// Resolves when at least `count` calls of this kind have started since the fake was made.
    ///
    /// # Panics
    /// As [`until`](Self::until).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn reached(&self, call: Call, count: u64) {
        self.until(|fake| fake.calls(call).started >= count).await;
    }

    /// Resolves when at least `count` calls of this kind have ended, in whatever way, since the fake was made.
    ///
    /// # Panics
    /// As [`until`](Self::until).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn ended(&self, call: Call, count: u64) {
        self.until(|fake| fake.calls(call).ended >= count).await;
    }

    /// Resolves when at least `count` connects have started since the fake was made.
    ///
    /// # Panics
    /// As [`until`](Self::until).
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn connects_reached(&self, count: u64) {
        self.reached(Call::Connect, count).await;
    }
}

impl PoolFactory for FakeFactory {
    type Connection = FakeConnection;
    type Error = FakeError;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.shared.server(tenant)
    }

    async fn connect(&self, tenant: &TenantId) -> Result<FakeConnection, FakeError> {
        let (mut place, running, task) = self.shared.start(Call::Connect, tenant, 1);
        match task.perform().await.and_then(|()| place.ask_for_entry(true)) {
            Ok(()) => {
                let connection = FakeConnection::new(place);
                running.done(|tenant, id| Event::Connected { tenant, id });
                Ok(connection)
            }
            Err(kind) => {
                drop(place);
                running.done(|tenant, id| Event::ConnectFailed { tenant, id, kind });
                Err(FakeError { kind, call: Call::Connect })
            }
        }
    }

    fn health(&self, connection: &mut FakeConnection) -> Health {
        connection.record().health()
    }

    async fn recycle(&self, connection: &mut FakeConnection) -> Result<(), FakeError> {
        let (running, task) = self.shared.start_on(Call::Recycle, &connection.record().owner);
        match task.perform().await.and_then(|()| connection.record().round_trip()) {
            Ok(()) => {
                connection.wipe();
                running.done(|tenant, id| Event::Recycled { tenant, id });
                Ok(())
            }
            Err(kind) => {
                running.done(|tenant, id| Event::RecycleFailed { tenant, id, kind });
                Err(FakeError { kind, call: Call::Recycle })
            }
        }
    }

    async fn close(&self, connection: FakeConnection, within: Duration) {
        connection.check_not_in_use();
        let (running, task) = self.shared.start_on(Call::Close, &connection.record().owner);
        script::pass_all(&task.holds).await;
        let behavior = task.behavior;
        // A failing close and one that takes too long end the same way: the socket is dropped.
        let in_time = if behavior.is_immediate() || behavior.is_stubborn() {
            let _ = behavior.perform(Call::Close).await;
            true
        } else {
            tokio::time::timeout(within, behavior.perform(Call::Close)).await.is_ok()
        };
        connection.end();
        running.done(
            |tenant, id| {
                if in_time { Event::Closed { tenant, id } } else { Event::ClosedAtTheBound { tenant, id } }
            },
        );
    }

    fn classify(&self, error: &FakeError) -> FailureKind {
        error.kind
    }

    fn max_per_tenant(&self) -> Option<u32> {
        self.shared.lock().max_per_tenant
    }
}

impl Capacity for FakeFactory {
    async fn capacity(&self, _: &mut FakeConnection) -> Result<ServerCapacity, FakeError> {
        Ok(self.shared.lock().capacity)
    }
}

impl NativePool for FakeFactory {
    type Pool = FakePool;

    async fn open_pool(&self, tenant: &TenantId, max: u32) -> Result<FakePool, FakeError> {
        let (mut place, running, task) = self.shared.start(Call::OpenPool, tenant, u64::from(max));
        match task.perform().await.and_then(|()| place.ask_for_entry(true)) {
            Ok(()) => {
                let pool = FakePool::new(place, max);
                running.done(|tenant, id| Event::PoolOpened { tenant, id });
                Ok(pool)
            }
            Err(kind) => {
                drop(place);
                running.done(|tenant, id| Event::PoolOpenFailed { tenant, id, kind });
                Err(FakeError { kind, call: Call::OpenPool })
            }
        }
    }

    async fn close_pool(&self, pool: FakePool) {
        let (running, task) = self.shared.start_on(Call::ClosePool, pool.owner());
        // A pool that fails to close is closed all the same, as with every driver: there is no other answer.
        let _ = task.perform().await;
        pool.drain().await;
        pool.end();
        running.done(|tenant, id| Event::PoolClosed { tenant, id });
    }
}

impl Provision for FakeFactory {
    async fn create(&self, tenant: &TenantId) -> Result<Created, FakeError> {
        let (mut place, running, task) = self.shared.start(Call::Create, tenant, 1);
        let answer = task.perform().await.and_then(|()| place.ask_for_entry(false));
        let created = answer.map(|()| {
            let new = self.shared.change(|state| state.databases.set(tenant, true));
            if new { Created::New } else { Created::AlreadyThere }
        });
        drop(place);
        match created {
            Ok(Created::New) => running.done(|tenant, id| Event::DatabaseCreated { tenant, id }),
            _ => running.done_quietly(),
        }
        created.map_err(|kind| FakeError { kind, call: Call::Create })
    }

    async fn drop_database(&self, tenant: &TenantId) -> Result<Dropped, FakeError> {
        let (mut place, running, task) = self.shared.start(Call::DropDatabase, tenant, 1);
        let answer = task.perform().await.and_then(|()| place.ask_for_entry(false));
        let dropped = answer.map(|()| {
            let was_there = self.shared.change(|state| state.databases.set(tenant, false));
            if was_there { Dropped::Gone } else { Dropped::WasAbsent }
        });
        // As `DROP DATABASE .. WITH (FORCE)` does.
        if dropped == Ok(Dropped::Gone) {
            self.shared.records(|record| record.owner.tenant == *tenant).iter().for_each(|record| record.cut());
        }
        drop(place);
        match dropped {
            Ok(Dropped::Gone) => running.done(|tenant, id| Event::DatabaseDropped { tenant, id }),
            _ => running.done_quietly(),
        }
        dropped.map_err(|kind| FakeError { kind, call: Call::DropDatabase })
    }
}
