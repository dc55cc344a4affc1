//! [`FakeConnection`] and its remote control, [`FakeHandle`].

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tenantry_core::{FailureKind, Health, ServerId, TenantId};

use super::script::Call;
use super::shared::{Place, Shared};
use super::witness::{Event, Owner};

/// Why a call of the fake failed: because it was told to, or because of the limits and databases it was given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the fake's answer to {call:?} is {kind:?}")]
#[non_exhaustive]
pub struct FakeError {
    /// What the fake's `classify` says of it.
    pub kind: FailureKind,
    /// What was called.
    pub call: Call,
}

/// A connection that lives in memory. It counts as open until it is closed or dropped.
///
/// The test decides what it is worth ([`set_health`](Self::set_health)), and it watches how it is used
/// ([`use_it`](Self::use_it)).
pub struct FakeConnection {
    record: Arc<Record>,
    place: Option<Place>,
}

/// A handle on a [`FakeConnection`], also after a lease has taken that away. It does not keep it open.
#[derive(Clone)]
pub struct FakeHandle {
    record: Arc<Record>,
}

pub(super) struct Record {
    pub(super) owner: Owner,
    shared: Arc<Shared>,
    open: AtomicBool,
    in_use: AtomicBool,
    cut: AtomicBool,
    health: AtomicU8,
    left_behind: Mutex<Vec<String>>,
}

/// What [`Record::health`] holds when the test wants the question itself to panic.
const PANICS: u8 = u8::MAX;

const HEALTHS: [Health; 4] = [Health::Clean, Health::Dirty, Health::Broken, Health::Lost];

impl Record {
    pub(super) fn is_open(&self) -> bool {
        self.open.load(Ordering::SeqCst)
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Ordering::SeqCst);
    }

    pub(super) fn set_health(&self, health: Health) {
        let index = HEALTHS.iter().position(|known| *known == health).unwrap_or(0);
        self.health.store(u8::try_from(index).unwrap_or(0), Ordering::SeqCst);
    }

    /// # Panics
    /// When the test said so.
    pub(super) fn health(&self) -> Health {
        let health = self.health.load(Ordering::SeqCst);
        assert_ne!(health, PANICS, "the fake was told to panic when asked for its health");
        HEALTHS[usize::from(health)]
    }

    fn left_behind(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.left_behind.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A round trip: shows whether the server cut the connection, as a real one would.
    pub(super) fn round_trip(&self) -> Result<(), FailureKind> {
        if self.cut.load(Ordering::SeqCst) {
            self.set_health(Health::Lost);
            return Err(FailureKind::Unreachable);
        }
        Ok(())
    }

    fn misuse(&self, what: &str) -> ! {
        let Owner { tenant, id, .. } = &self.owner;
        self.shared.misuse(format!("connection {id} of tenant {tenant} {what}"))
    }

    fn use_it(self: &Arc<Self>, tenant: Option<&str>) -> Use {
        if !self.is_open() {
            self.misuse("is used after it was closed");
        }
        if let Some(tenant) = tenant.filter(|tenant| *tenant != self.owner.tenant.as_str()) {
            self.misuse(&format!("is used as one of tenant {tenant}"));
        }
        if self.in_use.swap(true, Ordering::SeqCst) {
            self.misuse("is used by two holders at once");
        }
        Use { record: Arc::clone(self) }
    }
}

impl FakeConnection {
    pub(super) fn new(place: Place) -> Self {
        let record = Record {
            owner: place.owner.clone(),
            shared: Arc::clone(&place.shared),
            open: AtomicBool::new(true),
            in_use: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            health: AtomicU8::new(0),
            left_behind: Mutex::new(Vec::new()),
        };
        let record = Arc::new(record);
        place.shared.remember(&record);
        Self { record, place: Some(place) }
    }

    pub(super) fn record(&self) -> &Arc<Record> {
        &self.record
    }

    /// Its number, from 1; no other connection or pool of the same fake has it, not even a later one.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.record.owner.id
    }

    /// The tenant it was opened for.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        &self.record.owner.tenant
    }

    /// The server it counts on: the one that the fake named when it was opened.
    #[must_use]
    pub fn server(&self) -> &ServerId {
        &self.record.owner.server
    }

    /// A handle that stays valid when the connection goes back to the manager.
    #[must_use]
    pub fn handle(&self) -> FakeHandle {
        FakeHandle { record: Arc::clone(&self.record) }
    }

    /// Says "I use this connection", until the answer is dropped.
    ///
    /// # Panics
    /// When the connection was closed or is in use already. The fake also remembers it
    /// for [`FakeFactory::assert_no_misuse`](super::FakeFactory::assert_no_misuse).
    pub fn use_it(&self) -> Use {
        self.record.use_it(None)
    }

    /// Says "I, working for `tenant`, use this connection", until the answer is dropped.
    ///
    /// # Panics
    /// As [`use_it`](Self::use_it), and when the connection belongs to another tenant.
    pub fn use_for(&self, tenant: impl AsRef<str>) -> Use {
        self.record.use_it(Some(tenant.as_ref()))
    }

    /// Decides what the fake's `health` answers, until a recycle succeeds (which makes it [`Health::Clean`]).
    pub fn set_health(&self, health: Health) {
        self.record.set_health(health);
    }

    /// Makes the question for its health panic.
    pub fn panic_when_asked(&self) {
        self.record.health.store(PANICS, Ordering::SeqCst);
    }

    /// The server ended it and everybody can see: its health is [`Health::Lost`], a round trip fails.
    pub fn mark_lost(&self) {
        self.handle().mark_lost();
    }

    /// The server ended it and nobody has seen: its health stays as it is until a query or a recycle finds out.
    pub fn cut(&self) {
        self.record.cut();
    }

    /// Leaves something on the connection that the next user must not see, and makes it [`Health::Dirty`].
    pub fn leave_behind(&self, what: impl Into<String>) {
        self.record.left_behind().push(what.into());
        self.set_health(Health::Dirty);
    }

    /// What was left behind since the last recycle that succeeded.
    #[must_use]
    pub fn left_behind(&self) -> Vec<String> {
        self.record.left_behind().clone()
    }

    /// A round trip to the server, scripted as [`Call::Query`].
    ///
    /// # Errors
    /// What the script says; [`FailureKind::Unreachable`] when the connection was [`cut`](Self::cut) or lost.
    ///
    /// # Cancel safety
    /// As with a real driver: a query that is dropped half-way leaves the connection [`Health::Dirty`].
    pub async fn query(&mut self) -> Result<(), FakeError> {
        let (running, task) = self.record.shared.start_on(Call::Query, &self.record.owner);
        let before = self.record.health();
        self.set_health(Health::Dirty);
        let answer = match task.perform().await {
            Ok(()) => self.record.round_trip(),
            Err(kind) => Err(kind),
        };
        if self.record.health() == Health::Dirty {
            self.set_health(before);
        }
        running.done_quietly();
        answer.map_err(|kind| FakeError { kind, call: Call::Query })
    }

    pub(super) fn check_not_in_use(&self) {
        if self.record.in_use.load(Ordering::SeqCst) {
            self.record.misuse("is closed under its user");
        }
    }

    /// The recycle succeeded: nothing is left on it.
    pub(super) fn wipe(&self) {
        self.record.left_behind().clear();
        self.set_health(Health::Clean);
    }

    /// The orderly end, which is no [`Event::Dropped`].
    pub(super) fn end(mut self) {
        self.record.open.store(false, Ordering::SeqCst);
        self.place = None;
    }
}

impl Drop for FakeConnection {
    fn drop(&mut self) {
        self.record.open.store(false, Ordering::SeqCst);
        if let Some(place) = self.place.take() {
            let Owner { tenant, id, .. } = place.owner.clone();
            let shared = Arc::clone(&place.shared);
            drop(place);
            shared.log(Event::Dropped { tenant, id });
        }
    }
}

impl fmt::Debug for FakeConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Owner { tenant, id, .. } = &self.record.owner;
        f.debug_struct("FakeConnection").field("tenant", tenant).field("id", id).finish_non_exhaustive()
    }
}

impl FakeHandle {
    /// The connection's number.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.record.owner.id
    }

    /// Whether the connection is neither closed nor dropped.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.record.is_open()
    }

    /// As [`FakeConnection::use_it`].
    ///
    /// # Panics
    /// As there.
    pub fn use_it(&self) -> Use {
        self.record.use_it(None)
    }

    /// As [`FakeConnection::set_health`].
    pub fn set_health(&self, health: Health) {
        self.record.set_health(health);
    }

    /// As [`FakeConnection::mark_lost`].
    pub fn mark_lost(&self) {
        self.record.cut();
        self.record.set_health(Health::Lost);
    }

    /// As [`FakeConnection::cut`].
    pub fn cut(&self) {
        self.record.cut();
    }
}

impl fmt::Debug for FakeHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FakeHandle").field("id", &self.id()).field("open", &self.is_open()).finish_non_exhaustive()
    }
}

/// One holder's use of a connection, until it is dropped: see [`FakeConnection::use_it`].
pub struct Use {
    record: Arc<Record>,
}

impl Drop for Use {
    fn drop(&mut self) {
        self.record.in_use.store(false, Ordering::SeqCst);
    }
}

impl fmt::Debug for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Use").field("id", &self.record.owner.id).finish_non_exhaustive()
    }
}
