//! What came of a run: a [`Report`], or the first [`Violation`].

use std::fmt;
use std::time::Duration;

use hdrhistogram::Histogram;

/// What a run showed.
#[derive(Clone, Debug)]
pub struct Report {
    /// The plan's.
    pub seed: u64,
    /// How long it went on, from the first event to the last, in the simulation's time.
    pub simulated: Duration,
    /// How many events it had.
    pub events: u64,
    /// How often the ledger recounted itself.
    pub checks: u64,
    /// The same for two runs exactly where they were the same.
    pub digest: u64,
    /// One for each crowd.
    pub crowds: Vec<Measures>,
    /// Connects that succeeded.
    pub connects: u64,
    /// Connects that did not.
    pub connect_failures: u64,
    /// Callers who were given a connection that was dead.
    pub met_dead: u64,
    /// The most connections at once.
    pub most_open: u32,
    /// The most connects under way at once on one server.
    pub most_connecting: u32,
    /// Connections that callers held, on average, while it was measured.
    pub busy: f64,
    /// Connections that were not idle, on average, while it was measured.
    pub occupied: f64,
    /// Every connect: when it began, for whom. Kept only where the plan has at most 10,000 of them.
    pub connect_log: Vec<(Duration, u32)>,
}

/// What one crowd saw, while it was measured.
#[derive(Clone, Debug)]
pub struct Measures {
    /// The crowd's name.
    pub name: &'static str,
    /// How often it asked.
    pub asked: u64,
    /// How often it got what it asked for.
    pub granted: u64,
    /// How often of these a connection was there at once.
    pub at_once: u64,
    /// From asking to getting, in microseconds.
    pub waits: Histogram<u64>,
    /// Refused for a limit that was short until the deadline.
    pub late: u64,
    /// Refused at once: no place in line, or more asked for than there can be.
    pub no_place: u64,
    /// Refused for a limit without being told when to come again.
    pub unguided: u64,
    /// Refused for a limit and told that the caller itself holds connections.
    pub held_by_caller: u64,
    /// The time for a connect or a recycling was over.
    pub timeouts: u64,
    /// Its own connect failed.
    pub connect_errors: u64,
    /// Its tenant's connects fail.
    pub unavailable: u64,
    /// Drained, removed or closed.
    pub sent_away: u64,
    /// Given up.
    pub cancelled: u64,
    /// Came back for the first time after a refusal, as told.
    pub first_retries: u64,
    /// Of those, served.
    pub first_retries_served: u64,
}

impl Measures {
    pub(super) fn new(name: &'static str) -> Self {
        let waits = Histogram::new_with_bounds(1, 3_600_000_000, 3);
        Self {
            name,
            asked: 0,
            granted: 0,
            at_once: 0,
            // The bounds are constants that the library accepts.
            waits: waits.unwrap_or_else(|error| unreachable!("{error}")),
            late: 0,
            no_place: 0,
            unguided: 0,
            held_by_caller: 0,
            timeouts: 0,
            connect_errors: 0,
            unavailable: 0,
            sent_away: 0,
            cancelled: 0,
            first_retries: 0,
            first_retries_served: 0,
        }
    }

    /// The wait that all but one in a hundred stay below.
    #[must_use]
    pub fn p99(&self) -> Duration {
        self.percentile(99.0)
    }

    /// The wait that so many of a hundred stay below.
    #[must_use]
    pub fn percentile(&self, percentile: f64) -> Duration {
        Duration::from_micros(self.waits.value_at_percentile(percentile))
    }

    /// The part of the grants for which a connection was there at once.
    #[must_use]
    pub fn hit_ratio(&self) -> f64 {
        self.at_once as f64 / self.granted.max(1) as f64
    }

    /// All refusals.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.late + self.no_place + self.timeouts + self.connect_errors + self.unavailable + self.sent_away
    }
}

impl Report {
    /// The crowd of this name.
    ///
    /// # Panics
    /// Where there is none.
    #[must_use]
    pub fn crowd(&self, name: &str) -> &Measures {
        let found = self.crowds.iter().find(|crowd| crowd.name == name);
        found.unwrap_or_else(|| panic!("no crowd is called {name:?}"))
    }

    /// All grants.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.crowds.iter().map(|crowd| crowd.granted).sum()
    }

    /// The part of all grants that went to this crowd.
    ///
    /// # Panics
    /// Where there is none of that name.
    #[must_use]
    pub fn share(&self, name: &str) -> f64 {
        self.crowd(name).granted as f64 / self.granted().max(1) as f64
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}: {:.3} h simulated, {} events, {} recounts, digest {:016x}",
            self.seed,
            self.simulated.as_secs_f64() / 3600.0,
            self.events,
            self.checks,
            self.digest
        )?;
        writeln!(
            f,
            "  at most {} open, {} connecting; {} connects, {} failed; {} dead ones met; {:.1} busy on average",
            self.most_open, self.most_connecting, self.connects, self.connect_failures, self.met_dead, self.busy
        )?;
        writeln!(
            f,
            "  {:12}{:>9}{:>9}{:>11}{:>11}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
            "crowd",
            "asked",
            "granted",
            "p50 ms",
            "p99 ms",
            "late",
            "no room",
            "timeout",
            "failed",
            "unavail",
            "away",
            "cancel"
        )?;
        for crowd in &self.crowds {
            writeln!(
                f,
                "  {:12}{:>9}{:>9}{:>11.3}{:>11.3}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}{:>8}",
                crowd.name,
                crowd.asked,
                crowd.granted,
                crowd.percentile(50.0).as_secs_f64() * 1e3,
                crowd.p99().as_secs_f64() * 1e3,
                crowd.late,
                crowd.no_place,
                crowd.timeouts,
                crowd.connect_errors,
                crowd.unavailable,
                crowd.sent_away,
                crowd.cancelled
            )?;
        }
        Ok(())
    }
}

/// The first thing that did not hold.
#[derive(Clone, Debug)]
pub struct Violation {
    /// The plan's.
    pub seed: u64,
    /// Which event it was found after.
    pub event: u64,
    /// When that was.
    pub at: Duration,
    /// What did not hold.
    pub what: String,
    /// What happened before, the last at the end.
    pub last: Vec<String>,
    /// Of everything until then.
    pub digest: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.last {
            writeln!(f, "{line}")?;
        }
        let Self { seed, event, at, what, digest, .. } = self;
        write!(f, "seed {seed}, event {event}, at {:.6} s, digest {digest:016x}: {what}", at.as_secs_f64())
    }
}

impl std::error::Error for Violation {}
