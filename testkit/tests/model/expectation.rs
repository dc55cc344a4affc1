//! What the reference hands to the one that drives the ledger: the commands to call, and what must come of each.

use std::time::Duration;

use tenantry_core::{FailureKind, Health, LimitScope, Phase, Settings};

use super::operations::Trouble;

/// A command of the ledger with what it acts on. Permits, waiters and connections go by the reference's numbers.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Admit { tenant: usize, server: usize },
    Acquire { tenant: usize, pool: u32, background: bool, caller: u64 },
    AcquireWarm { tenant: usize, background: bool, caller: u64 },
    TryAcquire { tenant: usize, caller: u64 },
    Poll { waiter: u32 },
    Cancel { waiter: u32 },
    GiveUp { waiter: u32 },
    Release { permit: u32, health: Health },
    Opened { permit: u32, connection: u32, random: u64 },
    OpenFailed { permit: u32, trouble: Trouble, error: u32, random: u64 },
    Recycled { permit: u32 },
    FoundLost { permit: u32 },
    RecycleFailed { permit: u32 },
    Closed { permit: u32 },
    ClosingPool { permits: Vec<u32> },
    FreePool { permits: Vec<u32> },
    Tick,
    Drain { tenant: usize },
    Resume { tenant: usize, server: usize },
    Remove { tenant: usize },
    DropBegins { tenant: usize },
    DropEnds { tenant: usize, server: usize },
    Created { tenant: usize },
    Pause { server: usize },
    Unpause { server: usize },
    SetLimits(Box<Settings>),
    Evict { tenant: usize },
    Renew { tenant: Option<usize> },
    Close,
}

#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) command: Command,
    pub(crate) expected: Expected,
}

/// All that can be seen of one command.
#[derive(Clone, Debug, Default)]
pub(crate) struct Expected {
    pub(crate) reply: Reply,
    /// The permits that were taken for opens, and for whom.
    pub(crate) opens: Vec<(u32, usize)>,
    /// The permits whose connections are to be closed, and these.
    pub(crate) closes: Vec<(u32, u32)>,
    pub(crate) recycles: Vec<(u32, u32)>,
    pub(crate) woken: Vec<u32>,
}

#[derive(Clone, PartialEq, Debug, Default)]
pub(crate) enum Reply {
    #[default]
    Nothing,
    Unknown,
    Waits(u32),
    Pending,
    Connection {
        permit: u32,
        connection: u32,
    },
    Pool(Vec<u32>),
    Refused(Refusal),
    NotIdle,
    /// Whether a tenant was known or draining, or a server paused.
    Was(bool),
    Evicted(u32),
    /// The tenants of leases that were out for long, and for how long.
    LongLeases(Vec<(usize, Duration)>),
}

/// What a waiter was given.
#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Answer {
    Connection(u32),
    Pool,
    Refused(Refusal),
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) enum Refusal {
    Limit(Shortage),
    Timeout { phase: Phase, waited: Duration },
    Connect { kind: FailureKind, error: u32 },
    Unavailable { kind: FailureKind, retry_after: Duration, error: Option<u32> },
    Draining,
    Removed,
    Closed,
}

#[derive(Clone, PartialEq, Debug)]
pub(crate) struct Shortage {
    pub(crate) scope: LimitScope,
    pub(crate) limit: u32,
    pub(crate) open: u32,
    pub(crate) waiting: u32,
    pub(crate) waited: Duration,
    pub(crate) retry: Retry,
    /// By tenant, the largest first; in which order equals stand is left open.
    pub(crate) holders: Vec<(usize, u32)>,
    pub(crate) held_by_caller: u32,
}

/// How much the rules say of `retry_after`: how the average is made is left open.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Retry {
    /// No retry can succeed.
    Never,
    /// Nothing came back in this scope yet.
    AfterAcquireTimeout,
    /// Within 1 ms and 60 s.
    Estimated,
}
