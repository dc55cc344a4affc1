//! What the reference keeps of each thing, and nothing that can be counted.

use std::time::Duration;

use super::super::expectation::Answer;
use super::Time;
use super::failures::{Full, Memory};

/// One place in the budget.
#[derive(Clone, Debug)]
pub(crate) struct Permit {
    pub(crate) id: u32,
    /// Its place among all: the one that became free last, else a new one. In some cases the ledger goes by the order of
    /// places, which the rules leave open.
    pub(super) place: u32,
    pub(crate) tenant: usize,
    pub(crate) server: usize,
    pub(crate) state: State,
    /// When it entered its state, as time and as a count of all such events.
    pub(super) since: Time,
    /// Since when it passes others over within its tenant.
    pub(super) run_since: Time,
    pub(super) order: u64,
    /// When its closing was promised to somebody or given back, as a count.
    pub(super) claimed: u64,
    /// It counts against the share of background work...
    pub(super) background: bool,
    /// ...as it is lent to it: idle since before, as far as anybody's order goes.
    pub(super) lent: bool,
    /// When it became idle, but for what it was lent for; as time, and as a count.
    pub(super) used_at: Time,
    pub(super) used_order: u64,
    pub(super) expires_at: Time,
    pub(super) epoch: u32,
    pub(super) pinned: bool,
    pub(super) warned: bool,
    pub(super) caller: u64,
    /// The connection, once there is one.
    pub(crate) connection: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum State {
    Opening,
    Idle,
    Leased,
    /// For this waiter, which has not collected it yet.
    Granted(u32),
    /// Being cleaned or validated.
    Recycling,
    Closing {
        claim: Claim,
        overdue: bool,
    },
    /// Of a pool lease, or set aside for one.
    Pool,
}

/// Who counts on the permit of a closing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Claim {
    /// Anybody may.
    Spare,
    /// For one tenant's line, to open a connection or for a pool lease.
    /// `background`: it counts against the share, and would not without the promise.
    Promised { to: usize, opens: bool, background: bool, lateness: u32 },
    /// It takes too long, belongs to a pool lease, or its own tenant's reserve needs it.
    Nobody,
}

/// What an idle connection is good for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Fitness {
    Fit,
    /// Idle for long: to be validated.
    Aged,
    /// Of an older epoch: to be validated.
    Outdated,
    Expired,
}

#[derive(Clone, Debug)]
pub(super) struct Waiter {
    pub(super) id: u32,
    pub(super) tenant: usize,
    pub(super) pool: u32,
    pub(super) background: bool,
    pub(super) caller: u64,
    pub(super) since: Time,
    /// It has looked, and is to be woken.
    pub(super) polled: bool,
    pub(super) answer: Option<Answer>,
    /// When it was answered, as a count.
    pub(super) answered: u64,
    pub(super) gathered: Vec<u32>,
}

/// A collected pool lease.
#[derive(Clone, Debug)]
pub(super) struct PoolLease {
    pub(super) permits: Vec<u32>,
    pub(super) closing: bool,
}

/// What a tenant's callers get.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Active,
    Draining,
    /// It drains for the drops of its database alone.
    Dropping,
    Removed,
}

/// What is remembered of a tenant while it is known.
#[derive(Clone, Debug)]
pub(super) struct Tenant {
    /// As a permit's.
    pub(super) place: u32,
    pub(super) server: usize,
    pub(super) mode: Mode,
    /// Drops of its database that are under way.
    pub(super) drops: u32,
    /// When its next turn begins, in virtual time.
    pub(super) next_turn: u64,
    pub(super) memory: Option<Memory>,
    /// How many times in a row a promise to it took too long.
    pub(super) lateness: u32,
    /// Since when it holds nothing and nobody waits, and in which order that came.
    pub(super) quiet: Option<Quiet>,
    pub(super) returns: Returns,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    pub(super) since: Time,
    pub(super) order: u64,
    /// Its database does not exist, as far as was known then.
    pub(super) stranger: bool,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Server {
    /// Nothing is opened on it, and nothing kept.
    pub(super) paused: bool,
    pub(super) epoch: u32,
    pub(super) connect_time: Option<Time>,
    pub(super) full: Option<Full>,
    /// When somebody who had found it unreachable got through.
    pub(super) reached_again: Time,
    /// The last tenant that was told "full", and when.
    pub(super) told_full: Option<(usize, Time)>,
    pub(super) returns: Returns,
}

/// Which places are free, the last one that became so at the end, and how many there are in all.
#[derive(Clone, Default)]
pub(super) struct Places {
    pub(super) free: Vec<u32>,
    pub(super) all: u32,
}

impl Places {
    pub(super) fn take(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            self.all += 1;
            self.all
        })
    }
}

/// Whether a time between permits coming back is known in a scope: pauses of a minute and more are none.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Returns {
    pub(super) last: Option<Time>,
    pub(super) known: bool,
}

impl Returns {
    pub(super) fn note(&mut self, now: Time) {
        self.known |= self.last.is_some_and(|last| now - last < Duration::from_secs(60));
        self.last = Some(now);
    }
}

/// Events, as the statistics count them.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub(crate) struct Events {
    pub(crate) connects: u64,
    pub(crate) connect_failures: u64,
    pub(crate) server_full: u64,
    pub(crate) warm_hits: u64,
    pub(crate) waits: u64,
    pub(crate) waited: Duration,
    pub(crate) hand_overs: u64,
    pub(crate) recycles: u64,
    pub(crate) evictions: u64,
    pub(crate) closed_evict: u64,
    pub(crate) closed_idle: u64,
    pub(crate) closed_lifetime: u64,
    pub(crate) closed_broken: u64,
    pub(crate) refusals: [u64; 5],
    pub(crate) timeouts: u64,
}

impl Permit {
    pub(super) fn is_promised_to(&self, tenant: usize) -> bool {
        matches!(self.state, State::Closing { claim: Claim::Promised { to, .. }, .. } if to == tenant)
    }

    pub(super) fn is_spare(&self) -> bool {
        matches!(self.state, State::Closing { claim: Claim::Spare, .. })
    }
}
