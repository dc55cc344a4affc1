//! Days of a manager in seconds: the real ledger under virtual time, with crowds of callers, servers that are slow, fail and
//! restart, and operators. Start with [`Plan`]; [`Plan::run`] plays it, and two runs of one plan are the same to the last event.
//!
//! At every event connections are counted from outside, from the start of their connect to the end of their close, and held
//! against every cap; none is handed out too old, or unseen for too long; no caller waits past its deadline or without being
//! woken; nobody connects for a tenant whose callers were told to stay away; at the end everything is free. The ledger
//! recounts itself (`Ledger::check`), and its statistics are compared with what is there, at every event of a small run and
//! now and then in a large one; where that fails, the run is repeated with a recount at every event, so that
//! the [`Violation`] is where it began.
//!
//! Inside: `engine.rs` is the loop, `callers.rs`, `sockets.rs` and `trouble.rs` are those who act in it, `outside.rs` counts,
//! `desk.rs` is the way to the ledger, and `fifo.rs` the reference with one line for all.

mod agenda;
mod callers;
mod chance;
mod chaos;
mod desk;
mod engine;
mod fifo;
mod log;
mod outside;
mod plan;
mod report;
mod server;
mod sockets;
mod trouble;

pub use self::chance::Lasts;
pub use self::plan::{Breakage, Bursts, Crowd, Fault, Limits, Operation, Pace, Plan, Retries, Server, Trouble, Whom};
pub use self::report::{Measures, Report, Violation};

impl Plan {
    /// Plays it with the real ledger.
    ///
    /// # Errors
    /// The first thing that did not hold.
    pub fn run(&self) -> Result<Report, Violation> {
        engine::run::<desk::LedgerDesk>(self)
    }

    /// Plays it with one first-come-first-served line for everybody in the ledger's place, to compare with. Only for plans
    /// without faults, operators, pool leases and connections that come back other than clean.
    ///
    /// # Errors
    /// The first thing that did not hold.
    pub fn run_in_one_line(&self) -> Result<Report, Violation> {
        engine::run::<fifo::OneLine>(self)
    }
}
