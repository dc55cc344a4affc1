//! [`Fault`] and [`Moment`]: what happens, and what the connection does at that time.

use std::fmt;
use std::time::Duration;

use crate::proxy::{Direction, Flow};

/// What happens to the victim's connections, to its database or to its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fault {
    /// The network takes 20 ms longer, in this direction.
    Delay(Direction),
    /// The network drops everything, in this direction.
    BlackHole(Direction),
    /// The network breaks the connections: whoever the direction leads to gets a reset (RST), the other side learns
    /// nothing. Once; later connections are well.
    Reset(Direction),
    /// One direction of the connections ends (FIN), the other one does not. Once; later connections are well.
    HalfClose(Direction),
    /// An administrator ends the tenant's sessions (`pg_terminate_backend`). Once; later connections are well.
    Terminate,
    /// The server's processes are stopped where they are (`SIGSTOP`), and go on at the end.
    Freeze,
    /// The server crashes (`pg_ctl stop -m immediate`), and is started at the end.
    Crash,
    /// Strangers take every place that the server has left, until the end.
    Full,
    /// The database is dropped with all who are in it (`DROP DATABASE .. WITH (FORCE)`), and made anew at the end.
    DropDatabase,
    /// The role has another password, until the end.
    NewPassword,
}

impl Fault {
    /// Whether the server's other tenants meet it as well.
    pub(super) fn hits_the_whole_server(self) -> bool {
        matches!(self, Self::Freeze | Self::Crash)
    }

    /// What the network does while it lasts, to the server and to the client.
    pub(super) fn flows(self) -> (Flow, Flow) {
        let (direction, flow) = match self {
            Self::Delay(direction) => (direction, Flow::Delay(Duration::from_millis(20))),
            Self::BlackHole(direction) => (direction, Flow::BlackHole),
            _ => return (Flow::Pass, Flow::Pass),
        };
        match direction {
            Direction::ToServer => (flow, Flow::Pass),
            Direction::ToClient => (Flow::Pass, flow),
        }
    }

    /// Whether nothing but time ends the waiting for an answer.
    fn is_silent(self) -> bool {
        matches!(self, Self::BlackHole(_) | Self::Reset(Direction::ToServer) | Self::Freeze)
    }

    /// `connect_timeout` and `acquire_timeout`. Short where they alone end the waiting, and long where somebody answers,
    /// so that a busy machine is not taken for a fault.
    pub(super) fn timeouts(self) -> (Duration, Duration) {
        let (connect, acquire) = match self {
            _ if self.is_silent() => (1_000, 3_000),
            Self::Full => (3_000, 3_000),
            _ => (10_000, 10_000),
        };
        (Duration::from_millis(connect), Duration::from_millis(acquire))
    }

    /// How long the user of a connection waits for an answer to a query before going away: chosen likewise.
    pub(super) fn patience(self) -> Duration {
        Duration::from_secs(if self.is_silent() { 1 } else { 20 })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, direction) = match self {
            Self::Delay(direction) => ("delay", Some(direction)),
            Self::BlackHole(direction) => ("black hole", Some(direction)),
            Self::Reset(direction) => ("reset", Some(direction)),
            Self::HalfClose(direction) => ("half-close", Some(direction)),
            Self::Terminate => ("sessions ended", None),
            Self::Freeze => ("freeze", None),
            Self::Crash => ("crash", None),
            Self::Full => ("server full", None),
            Self::DropDatabase => ("database dropped", None),
            Self::NewPassword => ("new password", None),
        };
        let text = match direction {
            Some(Direction::ToServer) => format!("{name} to server"),
            Some(Direction::ToClient) => format!("{name} to client"),
            None => name.to_owned(),
        };
        f.pad(&text)
    }
}

/// What the victim's connection does when the fault begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Moment {
    /// It is being opened: the client has spoken, and the server has not heard it yet. For [`Fault::Terminate`]: the
    /// session is logged in and not ready yet.
    Opening,
    /// Three are idle, used a moment ago: they will be handed out as they are.
    JustUsed,
    /// Three are idle for longer than `validate_after_idle`: each is asked before it is handed out.
    Idle,
    /// A query is under way. It would end by itself now.
    InUse,
    /// A query was dropped half-way and the connection discarded, and the server has not heard of that yet.
    Closing,
}

impl Moment {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Opening, Self::JustUsed, Self::Idle, Self::InUse, Self::Closing];
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Opening => "opening",
            Self::JustUsed => "just used",
            Self::Idle => "idle",
            Self::InUse => "in use",
            Self::Closing => "closing",
        })
    }
}
