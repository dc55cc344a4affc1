//! What a server does: how long its connects, closes and recyclings take, and what becomes of them.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use tenantry_core::FailureKind;

use super::chance::happens;
use super::desk::Flop;
use super::plan::{Breakage, Server as Plan};

/// Longer than any time that anybody waits.
const NEVER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How soon a socket of a server that is gone is closed, and a connect to one that is down refused.
const AT_ONCE: Duration = Duration::from_micros(100);

/// How a connect goes on: after this time, to this end.
pub(super) type Connect = (Duration, Result<(), Flop>);

pub(super) struct Server {
    plan: Plan,
    rng: Rng,
    /// How often it was restarted; sessions of another one are dead.
    pub(super) incarnation: u32,
    /// Takes no sessions; true where connects hang.
    pub(super) down: Option<bool>,
    pub(super) slowness: f64,
    pub(super) strangers: u32,
    /// The sessions that it counts.
    pub(super) sessions: u32,
}

impl Server {
    pub(super) fn new(plan: &Plan, rng: Rng) -> Self {
        Self { plan: plan.clone(), rng, incarnation: 0, down: None, slowness: 1.0, strangers: 0, sessions: 0 }
    }

    pub(super) fn sees_closed(&self) -> bool {
        self.plan.sees_closed
    }

    pub(super) fn connect(&mut self, tenant: u32, broken: &BTreeMap<u32, Breakage>) -> Connect {
        let takes = self.plan.connect.draw(&mut self.rng).mul_f64(self.slowness);
        match broken.get(&tenant) {
            Some(Breakage::Hangs) => return (NEVER, Ok(())),
            Some(&Breakage::Fails(kind)) => return (takes, Err(Flop::Error(kind))),
            Some(Breakage::Panics) => return (takes, Err(Flop::Panicked)),
            None => {}
        }
        match self.down {
            Some(true) => return (NEVER, Ok(())),
            Some(false) => return (AT_ONCE, Err(Flop::Error(FailureKind::Unreachable))),
            None => {}
        }
        if self.sessions + self.strangers >= self.plan.takes {
            return (takes, Err(Flop::Error(FailureKind::ServerFull)));
        }
        if happens(&mut self.rng, self.plan.connects_hang) {
            return (NEVER, Ok(()));
        }
        if happens(&mut self.rng, self.plan.connects_panic) {
            return (takes, Err(Flop::Panicked));
        }
        if happens(&mut self.rng, self.plan.connects_fail) {
            return (takes, Err(Flop::Error(FailureKind::Other)));
        }
        (takes, Ok(()))
    }

    /// How long a close takes that was given `within`.
    pub(super) fn close(&mut self, alive: bool, within: Duration) -> Duration {
        if !alive {
            return AT_ONCE;
        }
        if happens(&mut self.rng, self.plan.closes_hang) || self.down == Some(true) {
            return if self.rng.u32(0..10) == 0 { within * 2 } else { within };
        }
        self.plan.close.draw(&mut self.rng).mul_f64(self.slowness).min(within)
    }

    pub(super) fn recycle(&mut self, alive: bool) -> (Duration, bool) {
        if !alive {
            return (AT_ONCE, false);
        }
        if happens(&mut self.rng, self.plan.recycles_hang) || self.down == Some(true) {
            return (NEVER, true);
        }
        let takes = self.plan.recycle.draw(&mut self.rng).mul_f64(self.slowness);
        (takes, !happens(&mut self.rng, self.plan.recycles_fail))
    }

    pub(super) fn lingers(&mut self) -> Duration {
        self.plan.lingers.draw(&mut self.rng)
    }
}
