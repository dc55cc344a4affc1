//! Every command in every state of a permit. This file sets the stage: [`states`] bring one permit into one state, the
//! tables' commands are what is then done, and [`cells!`] makes one test of each pair, `command::state`. What came of
//! it is told in words, so that the tables read as a specification: what the command said, the permits by state, the
//! work that it left, what each waiter got, and after "then" who got what once everything under way had ended. In the
//! end everything is wound down, and every permit has to come back.
//!
//! The tables: `cells_callers.rs` (acquire, cancel, pool leases), `cells_operators.rs` (drain, evict, close, time),
//! `cells_answers.rs` (release, and the answers to actions).

use std::time::Duration;

use super::rig::{Conn, Oops, Rig};
use crate::ledger::{Ask, Decision, Held, PermitKey, Polled, Refusal, TryDecision, WaiterKey};
use crate::{Health, Settings, TenantId, TenantLimits};

/// A ledger, and everything that somebody holds of it.
pub(super) struct Stage {
    pub(super) rig: Rig,
    pub(super) held: Vec<Held<Conn>>,
    pub(super) waiters: Vec<(&'static str, WaiterKey)>,
    pub(super) pools: Vec<Vec<PermitKey>>,
}

impl Stage {
    /// `permits` for everybody, and as many for each tenant; `reserve` of them are tenant `a`'s alone.
    pub(super) fn new(permits: u32, reserve: u32) -> Self {
        let mut settings = Settings::new(permits);
        settings.max_connections_per_tenant = permits;
        settings.max_connecting = Some(permits * 2);
        let name = TenantId::new("a").expect("valid");
        settings.tenants.insert(name.clone(), TenantLimits::new().reserve(reserve));
        let mut rig = Rig::new(settings);
        rig.step(|ledger, now| ledger.admit(name, &Default::default(), now));
        Self { rig, held: Vec::new(), waiters: Vec::new(), pools: Vec::new() }
    }

    pub(super) fn lease(&mut self, tenant: &str) {
        let held = self.rig.lease(tenant);
        self.held.push(held);
    }

    pub(super) fn wait(&mut self, tenant: &'static str) {
        let waiter = self.rig.wait(tenant);
        self.waiters.push((tenant, waiter));
    }

    /// An acquire (`pool` 0) or a request for a pool lease; what it said.
    pub(super) fn ask(&mut self, tenant: &'static str, pool: u32) -> String {
        match self.rig.ask(tenant, Ask { pool, ..Ask::default() }) {
            Decision::Take(held) => self.takes(held),
            Decision::Wait(waiter) => {
                self.waiters.push((tenant, waiter));
                String::new()
            }
            Decision::Refuse(refusal) => format!("refused {}", words(&refusal)),
            Decision::Unknown => "unknown".into(),
        }
    }

    pub(super) fn try_acquire(&mut self, tenant: &str) -> String {
        match self.rig.try_acquire(tenant) {
            TryDecision::Take(held) => self.takes(held),
            other => format!("{other:?}"),
        }
    }

    fn takes(&mut self, held: Held<Conn>) -> String {
        let said = format!("takes {}", held.connection.id);
        self.held.push(held);
        said
    }

    pub(super) fn release(&mut self, health: Health) {
        let held = self.held.remove(0);
        self.rig.release(held, health);
    }

    /// Runs `command`, and tells what it said and what came of it.
    pub(super) fn tell(&mut self, command: impl FnOnce(&mut Self) -> String) -> String {
        let before = self.work();
        let mut told = vec![command(self), self.places()];
        let work = self.work();
        told.extend(work.into_iter().filter(|job| !before.contains(job)).map(|(_, job)| job));
        told.extend(self.poll_all());
        told.retain(|part| !part.is_empty());
        told.join("; ")
    }

    /// What the ledger has asked for and is not answered yet.
    fn work(&self) -> Vec<(PermitKey, String)> {
        let opens = self.rig.opens.iter().map(|(key, tenant)| (*key, format!("opens {tenant}")));
        let recycles = self.rig.recycles.iter().map(|(key, conn)| (*key, format!("recycles {}", conn.id)));
        let closes = self.rig.closes.iter().map(|(key, conn)| (*key, format!("closes {}", conn.id)));
        opens.chain(recycles).chain(closes).collect()
    }

    /// The permits by state, in words.
    fn places(&self) -> String {
        let names = ["opening", "idle", "in use", "closing", "for pools"];
        let counted = std::iter::zip(self.rig.counts(), names).chain([(self.rig.ledger.stats().overdue, "overdue")]);
        let places: Vec<String> =
            counted.filter(|(count, _)| *count > 0).map(|(count, name)| format!("{count} {name}")).collect();
        if places.is_empty() { "all free".into() } else { places.join(", ") }
    }

    /// What each waiter has. One with an answer is gone afterwards.
    pub(super) fn poll_all(&mut self) -> Vec<String> {
        let waiters = std::mem::take(&mut self.waiters);
        let poll = |(tenant, waiter)| {
            let polled = self.rig.poll(waiter);
            if let Polled::Pending(_) = polled {
                self.waiters.push((tenant, waiter));
            }
            self.gets(tenant, polled)
        };
        waiters.into_iter().map(poll).collect()
    }

    pub(super) fn gets(&mut self, tenant: &str, polled: Polled<Conn, Oops>) -> String {
        match polled {
            Polled::Pending(_) => format!("{tenant} waits"),
            Polled::Connection(held) => {
                assert_eq!(held.connection.tenant, tenant, "one tenant's connection went to another");
                let said = format!("{tenant} gets {}", held.connection.id);
                self.held.push(held);
                said
            }
            Polled::Pool(permits) => {
                let said = format!("{tenant} gets a pool of {}", permits.len());
                self.pools.push(permits);
                said
            }
            Polled::Refused(refusal) => format!("{tenant} is told {}", words(&refusal)),
        }
    }

    /// Everything that is out comes back and everything under way ends, one at a time; in the end time passes, once.
    /// Says who got what from it.
    fn play_on(&mut self) -> String {
        let (mut told, mut patient) = (Vec::new(), true);
        loop {
            if !self.held.is_empty() {
                self.release(Health::Clean);
            } else if let Some(permits) = self.pools.pop() {
                self.rig.step(|ledger, now| ledger.free_pool(&permits, now));
            } else if !self.rig.closes.is_empty() {
                self.rig.closed();
            } else if !self.rig.recycles.is_empty() {
                self.rig.recycled();
            } else if !self.rig.opens.is_empty() {
                self.rig.opened();
            } else if patient && !self.waiters.is_empty() {
                patient = false;
                self.rig.pass(Duration::from_secs(30));
            } else {
                break;
            }
            told.extend(self.poll_all().into_iter().filter(|said| !said.ends_with(" waits")));
        }
        told.extend(self.waiters.iter().map(|(tenant, _)| format!("{tenant} waits on")));
        told.join(", ")
    }

    /// Everything ends in its own time. No permit stays behind.
    fn wind_down(mut self) {
        self.rig.step(|ledger, now| ledger.close(now));
        for (_, waiter) in std::mem::take(&mut self.waiters) {
            self.rig.cancel(waiter);
        }
        while !self.held.is_empty() {
            self.release(Health::Clean);
        }
        for permits in std::mem::take(&mut self.pools) {
            self.rig.step(|ledger, now| ledger.free_pool(&permits, now));
        }
        while !self.rig.opens.is_empty() {
            self.rig.opened();
        }
        while !self.rig.recycles.is_empty() {
            self.rig.recycled();
        }
        while !self.rig.closes.is_empty() {
            self.rig.closed();
        }
        assert_eq!(self.places(), "all free", "after everything has ended");
        assert_eq!(self.rig.ledger.stats().waiting, 0, "after everything has ended");
    }
}

/// A refusal in words: what was short or wrong, without times.
pub(super) fn words(refusal: &Refusal<Oops>) -> String {
    match refusal {
        Refusal::Limit(shortage) => format!("{:?} limit {}", shortage.scope, shortage.limit),
        Refusal::Timeout { phase, .. } => format!("Timeout {phase:?}"),
        Refusal::Connect { kind, .. } => format!("Connect {kind:?}"),
        Refusal::Unavailable { kind, .. } => format!("Unavailable {kind:?}"),
        Refusal::Draining => "Draining".into(),
        Refusal::Removed => "Removed".into(),
        Refusal::Closed => "Closed".into(),
    }
}

/// One cell: a state, a command, and what has to come of it.
pub(super) fn cell(name: &str, state: fn() -> Stage, command: fn(&mut Stage) -> String, expected: &str) {
    let mut stage = state();
    let mut told = stage.tell(command);
    let later = stage.play_on();
    if !later.is_empty() {
        told = format!("{told}; then {later}");
    }
    assert_eq!(told, expected, "{name}");
    stage.wind_down();
}

/// `cells! { command: state => "what comes of it", … }`: one test for each line, `command::state`.
macro_rules! cells {
    ($command:ident: $($state:ident => $expected:literal,)+) => {
        mod $command {
            $(
                #[test]
                fn $state() {
                    use super::{commands, states};
                    let name = concat!(stringify!($command), " in the state ", stringify!($state));
                    $crate::ledger::tests::cells::cell(name, states::$state, commands::$command, $expected);
                }
            )+
        }
    };
}

/// The same for a command that makes sense in every state: one that is missing, or out of order, does not compile.
macro_rules! cells_of_all_states {
    (
        $command:ident:
        opening => $e01:literal, opening_for_nobody => $e02:literal, idle => $e03:literal, pinned => $e04:literal,
        in_use => $e05:literal, granted => $e06:literal, cleaned => $e07:literal, validated => $e08:literal,
        closing => $e09:literal, victim_of_another => $e10:literal, promised_to_another => $e11:literal,
        closing_with_own_waiter => $e12:literal, late => $e13:literal, late_for_another => $e14:literal,
        overdue => $e15:literal, pool_granted => $e16:literal, pool_leased => $e17:literal,
        pool_closing => $e18:literal, pool_overdue => $e19:literal,
    ) => {
        $crate::ledger::tests::cells::cells! {
            $command:
            opening => $e01, opening_for_nobody => $e02, idle => $e03, pinned => $e04, in_use => $e05, granted => $e06,
            cleaned => $e07, validated => $e08, closing => $e09, victim_of_another => $e10, promised_to_another => $e11,
            closing_with_own_waiter => $e12, late => $e13, late_for_another => $e14, overdue => $e15,
            pool_granted => $e16, pool_leased => $e17, pool_closing => $e18, pool_overdue => $e19,
        }
    };
}
pub(super) use {cells, cells_of_all_states};

/// The states of tenant `a`'s only permit, which is the only one there is.
pub(super) mod states {
    use super::super::rig::MS;
    use super::{Health, Stage};

    /// A connect is under way for a waiter.
    pub(in super::super) fn opening() -> Stage {
        let mut stage = Stage::new(1, 0);
        stage.wait("a");
        stage
    }

    /// A connect is under way, and the waiter it was started for is gone.
    pub(in super::super) fn opening_for_nobody() -> Stage {
        let mut stage = opening();
        let (_, waiter) = stage.waiters.remove(0);
        stage.rig.cancel(waiter);
        stage
    }

    pub(in super::super) fn idle() -> Stage {
        let mut stage = Stage::new(1, 0);
        stage.rig.warm_up("a");
        stage
    }

    /// Idle, and filling its tenant's reserve.
    pub(in super::super) fn pinned() -> Stage {
        let mut stage = Stage::new(1, 1);
        stage.rig.warm_up("a");
        stage
    }

    pub(in super::super) fn in_use() -> Stage {
        let mut stage = Stage::new(1, 0);
        stage.lease("a");
        stage
    }

    /// Set aside for a waiter that has not collected it yet.
    pub(in super::super) fn granted() -> Stage {
        let mut stage = opening();
        stage.rig.opened();
        stage
    }

    /// Recycling after a dirty lease; nobody waits for it.
    pub(in super::super) fn cleaned() -> Stage {
        let mut stage = in_use();
        stage.release(Health::Dirty);
        stage
    }

    /// Recycling after it was idle for long, for a waiter.
    pub(in super::super) fn validated() -> Stage {
        let mut stage = idle();
        stage.rig.now += MS * 501;
        stage.wait("a");
        stage
    }

    /// Closing, and promised to nobody.
    pub(in super::super) fn closing() -> Stage {
        let mut stage = in_use();
        stage.release(Health::Broken);
        stage
    }

    /// Closing, because another tenant's waiter needs the permit.
    pub(in super::super) fn victim_of_another() -> Stage {
        let mut stage = idle();
        stage.wait("b");
        stage
    }

    /// Closing because it broke, and promised to another tenant's waiter.
    pub(in super::super) fn promised_to_another() -> Stage {
        let mut stage = in_use();
        stage.wait("b");
        stage.release(Health::Broken);
        stage
    }

    /// Closing because it broke, with a waiter of the same tenant.
    pub(in super::super) fn closing_with_own_waiter() -> Stage {
        let mut stage = in_use();
        stage.wait("a");
        stage.release(Health::Broken);
        stage
    }

    /// Closing for so long that nobody counts on it any more.
    pub(in super::super) fn late() -> Stage {
        let mut stage = closing();
        stage.rig.pass(MS * 100);
        stage
    }

    pub(in super::super) fn late_for_another() -> Stage {
        let mut stage = victim_of_another();
        stage.rig.pass(MS * 100);
        stage
    }

    /// Closing for longer than `close_timeout`.
    pub(in super::super) fn overdue() -> Stage {
        let mut stage = closing();
        stage.rig.pass(MS * 5_000);
        stage
    }

    /// Set aside for a pool lease whose caller has not collected it yet.
    pub(in super::super) fn pool_granted() -> Stage {
        let mut stage = Stage::new(1, 0);
        stage.ask("a", 1);
        stage
    }

    pub(in super::super) fn pool_leased() -> Stage {
        let mut stage = pool_granted();
        stage.poll_all();
        stage
    }

    pub(in super::super) fn pool_closing() -> Stage {
        let mut stage = pool_leased();
        let permits = stage.pools[0].clone();
        stage.rig.step(|ledger, now| ledger.closing_pool(&permits, now));
        stage
    }

    pub(in super::super) fn pool_overdue() -> Stage {
        let mut stage = pool_closing();
        stage.rig.pass(MS * 5_000);
        stage
    }
}
