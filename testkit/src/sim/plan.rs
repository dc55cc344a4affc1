//! What is simulated: a [`Plan`] with its [`Server`]s, [`Crowd`]s of callers, [`Fault`]s and [`Operation`]s. Plain data, all of
//! it public; `chaos.rs` draws plans full of trouble, the tests write theirs by hand.

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use tenantry_core::{FailureKind, Settings};

use super::chance::Lasts;

/// A run, all of it determined by this: two runs of one plan are the same to the last event.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where all random numbers come from.
    pub seed: u64,
    /// How many tenants there are. They are numbered from 0.
    pub tenants: u32,
    /// What the manager is told. Limits of servers and of single tenants are added from below.
    pub settings: Settings,
    /// At least one. Tenant n lives on server n modulo their number, until an operator moves it.
    pub servers: Vec<Server>,
    /// Limits of tenants that have their own.
    pub limits: BTreeMap<u32, Limits>,
    /// Who asks.
    pub crowds: Vec<Crowd>,
    /// What goes wrong, each at its time.
    pub faults: Vec<Fault>,
    /// What operators do, each at its time.
    pub operations: Vec<(Duration, Operation)>,
    /// Operators who do anything to anybody, at this pace.
    pub meddling: Option<Lasts>,
    /// From a wake-up until its caller's task runs.
    pub scheduling: Lasts,
    /// When the crowds go home. What they have asked for by then is still served.
    pub lasts: Duration,
    /// Whether the manager is closed at that moment, with everybody still there.
    pub closes_at_once: bool,
    /// Measures begin with this hold, counted from 0 over all crowds.
    pub measured_from: u64,
    /// Every so many events the ledger recounts itself. 0: as often as costs about as much as the events themselves.
    pub check_every: u64,
    /// From this event on it does so at every one.
    pub check_all_from: u64,
    /// How many events a violation shows.
    pub last_events: usize,
}

impl Plan {
    /// One server and nobody who asks. Connects take 3 ms, closes 1 ms, recycling 0.2 ms; nothing fails.
    #[must_use]
    pub fn new(seed: u64, tenants: u32, max_connections: u32) -> Self {
        Self {
            seed,
            tenants,
            settings: Settings::new(max_connections),
            servers: vec![Server::default()],
            limits: BTreeMap::new(),
            crowds: Vec::new(),
            faults: Vec::new(),
            operations: Vec::new(),
            meddling: None,
            scheduling: Lasts::NONE,
            lasts: Duration::from_secs(60),
            closes_at_once: false,
            measured_from: 0,
            check_every: 1,
            check_all_from: u64::MAX,
            last_events: 60,
        }
    }
}

/// A server: what the manager is told of it, and what it does.
#[derive(Clone, Debug)]
pub struct Server {
    /// The cap that the manager is told.
    pub cap: Option<u32>,
    /// How many sessions it really takes before it says that it is full.
    pub takes: u32,
    /// How long a connect takes.
    pub connect: Lasts,
    /// How long a close takes.
    pub close: Lasts,
    /// How long recycling takes.
    pub recycle: Lasts,
    /// How long it counts a session after the client's close has ended.
    pub lingers: Lasts,
    /// The part of the connects that fail, 0 to 1.
    pub connects_fail: f64,
    /// The part of the connects that never end.
    pub connects_hang: f64,
    /// The part of the connects that panic.
    pub connects_panic: f64,
    /// The part of the recyclings that fail.
    pub recycles_fail: f64,
    /// The part of the recyclings that never end.
    pub recycles_hang: f64,
    /// The part of the closes that end only when the time they were given is over, and a tenth of those only twice as late.
    pub closes_hang: f64,
    /// Whether the driver sees that a socket was closed without a round trip.
    pub sees_closed: bool,
}

impl Default for Server {
    fn default() -> Self {
        Self {
            cap: None,
            takes: u32::MAX,
            connect: Lasts::ms(3),
            close: Lasts::ms(1),
            recycle: Lasts::us(200),
            lingers: Lasts::NONE,
            connects_fail: 0.0,
            connects_hang: 0.0,
            connects_panic: 0.0,
            recycles_fail: 0.0,
            recycles_hang: 0.0,
            closes_hang: 0.0,
            sees_closed: true,
        }
    }
}

/// One tenant's own limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Its cap, where it is not everybody's.
    pub max: Option<u32>,
    /// Its reserve.
    pub reserve: u32,
    /// Its weight; 0 means the usual one.
    pub weight: u32,
}

/// Callers that do the same.
#[derive(Clone, Debug)]
pub struct Crowd {
    /// What it is called in the report.
    pub name: &'static str,
    /// Whom they ask for.
    pub tenants: Whom,
    /// When they ask.
    pub pace: Pace,
    /// How long they hold what they get.
    pub hold: Lasts,
    /// How long they wait.
    pub timeout: Duration,
    /// What they do when they are refused.
    pub retries: Retries,
    /// The part of the waits that are given up, at any time before their deadline, and of those who are woken that are gone
    /// before they look.
    pub cancels: f64,
    /// The part of the waits in which the caller's task runs once, at any time, without having been woken.
    pub glances: f64,
    /// The part that asks for a pool lease of one to so many connections.
    pub pools: (f64, u32),
    /// Whether it is background work (rule 7). Then it asks for no pool leases.
    pub background: bool,
    /// The part of the holds during which the same caller asks for a second connection of the same tenant, and ends both when it
    /// is done with that one or does not get it.
    pub nests: f64,
    /// The part of the connections that come back dirty.
    pub dirty: f64,
    /// The part that comes back broken.
    pub broken: f64,
    /// The part that comes back lost, although its server is well.
    pub lost: f64,
    /// When they come.
    pub from: Duration,
}

impl Crowd {
    /// Callers that ask for one connection, hold it for `hold`, wait for 5 s, never give up, and do no harm.
    #[must_use]
    pub fn new(name: &'static str, tenants: Whom, pace: Pace, hold: Lasts) -> Self {
        Self {
            name,
            tenants,
            pace,
            hold,
            timeout: Duration::from_secs(5),
            retries: Retries::Never,
            cancels: 0.0,
            glances: 0.0,
            pools: (0.0, 0),
            background: false,
            nests: 0.0,
            dirty: 0.0,
            broken: 0.0,
            lost: 0.0,
            from: Duration::ZERO,
        }
    }
}

/// Whom a crowd asks for.
#[derive(Clone, Debug)]
pub enum Whom {
    /// Always the same.
    One(u32),
    /// The n-th caller the n-th of these, modulo their number; callers who come by themselves, any.
    Each(Range<u32>),
    /// Each time any of these.
    Any(Range<u32>),
    /// Each time the next of these, and after the last one the first.
    InTurn(Range<u32>),
    /// Each time one of these, the k-th in proportion to `1 / k^exponent`.
    Zipf(Range<u32>, f64),
}

/// When a crowd asks.
#[derive(Clone, Debug)]
pub enum Pace {
    /// So many callers, each of whom thinks, asks, holds, and thinks again.
    Loop {
        /// How many.
        callers: u32,
        /// How long they think.
        think: Lasts,
    },
    /// Callers come at random and go.
    Arrivals {
        /// How many on average.
        per_second: f64,
        /// Times when more of them come.
        bursts: Option<Bursts>,
    },
    /// So many come at one moment and go.
    Once(u32),
}

/// Times when more callers come.
#[derive(Clone, Debug)]
pub struct Bursts {
    /// From the end of one to the next.
    pub every: Lasts,
    /// How long they last.
    pub last: Lasts,
    /// How many times more.
    pub times: f64,
}

/// What a refused caller does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// Takes it for an answer; one in a loop goes on as after a hold.
    Never,
    /// Comes back after `retry_after`, so many times at most.
    AsTold(u32),
}

/// Something that goes wrong for a while.
#[derive(Clone, Debug)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// How long it goes on.
    pub lasts: Duration,
    /// What it is.
    pub what: Trouble,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Trouble {
    /// A server ends all its sessions, and takes no new ones until the fault is over.
    Down {
        /// Which.
        server: usize,
        /// Whether connects hang meanwhile instead of being refused.
        hangs: bool,
    },
    /// A server connects, closes and recycles so many times slower.
    Slow {
        /// Which.
        server: usize,
        /// How many times.
        times: f64,
    },
    /// A server's places are taken by strangers.
    Strangers {
        /// Which.
        server: usize,
        /// How many.
        places: u32,
    },
    /// One tenant's connects come to nothing.
    Tenant {
        /// Whose.
        tenant: u32,
        /// How.
        how: Breakage,
    },
}

/// How a tenant's connects come to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breakage {
    /// They never end.
    Hangs,
    /// They fail.
    Fails(FailureKind),
    /// They panic.
    Panics,
}

/// What an operator does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Drains a tenant.
    Drain(u32),
    /// Resumes a tenant, on this server.
    Resume(u32, usize),
    /// Removes a tenant.
    Remove(u32),
    /// Makes a tenant's database.
    Created(u32),
    /// Closes a tenant's idle connections.
    Evict(u32),
    /// Pauses a server.
    Pause(usize),
    /// Ends a server's pause.
    Unpause(usize),
    /// Changes the total budget.
    Budget(u32),
    /// Changes what each tenant may have.
    PerTenant(u32),
}
