//! What happened: a digest of all of it, by which two runs are compared, and the last of it, which a violation shows.

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

/// One thing that happened to two others, by their numbers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Note {
    event: u64,
    at: Duration,
    what: What,
    subject: u64,
    object: u64,
}

/// What may happen. The doc says what the two numbers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// request, tenant
    Asks,
    /// request, connection
    Takes,
    /// request, permits
    TakesPool,
    /// request, tenant
    Waits,
    /// request, tenant
    IsWoken,
    /// request, a number for why
    IsRefused,
    /// request, tenant
    GivesUp,
    /// request, tenant
    Cancels,
    /// request, connection
    Releases,
    /// request, connection
    ReleasesDirty,
    /// request, connection
    ReleasesBroken,
    /// request, connection
    ReleasesLost,
    /// request, connection
    MeetsDead,
    /// request, permits
    ClosesPool,
    /// connection, tenant
    Opens,
    /// connection, server
    IsOpen,
    /// connection, a number for why
    FailsToOpen,
    /// connection, tenant
    Recycles,
    /// connection, tenant
    IsRecycled,
    /// connection, tenant
    FailsToRecycle,
    /// connection, tenant
    Closes,
    /// connection, tenant
    IsClosed,
    /// fault, its place in the plan
    FaultBegins,
    /// fault, its place in the plan
    FaultEnds,
    /// a number for the operation, what it is about
    Operates,
    /// connections, waiters
    AllGoHome,
    /// connections, waiters
    ManagerCloses,
}

impl What {
    /// What the two numbers are, and whether the first one acts.
    fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Asks | Self::Waits | Self::IsWoken | Self::GivesUp | Self::Cancels => ("request", "tenant"),
            Self::Takes
            | Self::Releases
            | Self::ReleasesDirty
            | Self::ReleasesBroken
            | Self::ReleasesLost
            | Self::MeetsDead => ("request", "connection"),
            Self::TakesPool | Self::ClosesPool => ("request", "permits"),
            Self::IsRefused => ("request", "reason"),
            Self::FailsToOpen => ("connection", "reason"),
            Self::IsOpen => ("connection", "server"),
            Self::Opens | Self::Recycles | Self::IsRecycled | Self::FailsToRecycle | Self::Closes | Self::IsClosed => {
                ("connection", "tenant")
            }
            Self::FaultBegins | Self::FaultEnds => ("fault", "server"),
            Self::Operates => ("operation", "about"),
            Self::AllGoHome | Self::ManagerCloses => ("connections", "waiters"),
        }
    }
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { event, at, what, subject, object } = *self;
        let (first, second) = what.words();
        write!(f, "event {event:>9}  {:>14.6} s  {first} {subject} {what:?} ({second} {object})", at.as_secs_f64())
    }
}

pub(super) struct Log {
    pub(super) event: u64,
    pub(super) at: Duration,
    pub(super) digest: u64,
    last: VecDeque<Note>,
    keeps: usize,
}

impl Log {
    pub(super) fn new(keeps: usize) -> Self {
        // FNV-1a's start.
        Self { event: 0, at: Duration::ZERO, digest: 0xcbf2_9ce4_8422_2325, last: VecDeque::new(), keeps: keeps.max(1) }
    }

    pub(super) fn note(&mut self, what: What, subject: u64, object: u64) {
        let note = Note { event: self.event, at: self.at, what, subject, object };
        let nanos = u64::try_from(self.at.as_nanos()).unwrap_or(u64::MAX);
        for word in [nanos, what as u64, subject, object] {
            // FNV-1a by words instead of bytes: it only has to tell two runs apart.
            self.digest = (self.digest ^ word).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(29);
        }
        if self.last.len() == self.keeps {
            self.last.pop_front();
        }
        self.last.push_back(note);
    }

    pub(super) fn last(&self) -> Vec<String> {
        self.last.iter().map(Note::to_string).collect()
    }
}
