//! Faults and operators.

use std::time::Duration;

use super::chance::between;
use super::desk::Desk;
use super::engine::{Engine, Event};
use super::log::What;
use super::plan::{Operation, Trouble};

/// The way back from what an operator did comes within this time, and much sooner in a short run.
const LONGEST_MEDDLING: Duration = Duration::from_secs(20);

impl<D: Desk> Engine<'_, D> {
    pub(super) fn fault_begins(&mut self, fault: usize) {
        let (server, takes_sessions) = match self.plan.faults[fault].what {
            Trouble::Down { server, hangs } => {
                self.servers[server].down = Some(hangs);
                (server, true)
            }
            Trouble::Slow { server, times } => {
                self.servers[server].slowness = times;
                (server, false)
            }
            Trouble::Strangers { server, places } => {
                self.servers[server].strangers = places;
                (server, false)
            }
            Trouble::Tenant { tenant, how } => {
                self.broken.insert(tenant, how);
                (self.homes[tenant as usize], false)
            }
        };
        self.log.note(What::FaultBegins, fault as u64, server as u64);
        if takes_sessions {
            self.lose_sessions(server);
        }
    }

    pub(super) fn fault_ends(&mut self, fault: usize) {
        let server = match self.plan.faults[fault].what {
            Trouble::Down { server, .. } => {
                self.servers[server].down = None;
                server
            }
            Trouble::Slow { server, .. } => {
                self.servers[server].slowness = 1.0;
                server
            }
            Trouble::Strangers { server, .. } => {
                self.servers[server].strangers = 0;
                server
            }
            Trouble::Tenant { tenant, .. } => {
                self.broken.remove(&tenant);
                self.homes[tenant as usize]
            }
        };
        self.log.note(What::FaultEnds, fault as u64, server as u64);
    }

    pub(super) fn operates(&mut self, operation: Operation) {
        let (code, about, home) = match operation {
            Operation::Drain(tenant) => (0, tenant, self.homes[tenant as usize]),
            Operation::Resume(tenant, server) => (1, tenant, server),
            Operation::Remove(tenant) => (2, tenant, self.homes[tenant as usize]),
            Operation::Created(tenant) => (3, tenant, self.homes[tenant as usize]),
            Operation::Evict(tenant) => (4, tenant, self.homes[tenant as usize]),
            Operation::Pause(server) => (5, server_number(server), server),
            Operation::Unpause(server) => (6, server_number(server), server),
            Operation::Budget(budget) => (7, budget, 0),
            Operation::PerTenant(cap) => (8, cap, 0),
        };
        self.log.note(What::Operates, code, about.into());
        self.outside.operates(operation, self.now);
        if let Operation::Budget(budget) = operation {
            for (index, _) in self.plan.servers.iter().enumerate().filter(|(_, server)| server.cap.is_none()) {
                self.outside.server_without_cap(index, budget, self.plan.settings.max_connecting);
            }
        }
        let done = self.desk.operate(operation, home, self.now);
        if let Operation::Resume(tenant, server) = operation
            && done
        {
            self.homes[tenant as usize] = server;
        }
    }

    /// Anything to anybody, and the way back from it after a while.
    pub(super) fn meddles(&mut self) {
        let Some(pace) = self.plan.meddling else { return };
        if self.ended {
            return;
        }
        let pause = pace.draw(&mut self.rng);
        self.agenda.put(self.now + pause, Event::Meddles);
        // The busy ones are the first.
        let tenant = self.rng.u32(0..self.plan.tenants.min(20));
        let server = self.rng.usize(0..self.servers.len());
        let budget = self.plan.settings.max_connections;
        let per_tenant = self.plan.settings.max_connections_per_tenant;
        let least = self.least_budget();
        let (now, back) = match self.rng.u32(0..7) {
            0 | 1 => (Operation::Drain(tenant), Some(Operation::Resume(tenant, server))),
            2 => (Operation::Remove(tenant), Some(Operation::Created(tenant))),
            3 => (Operation::Pause(server), Some(Operation::Unpause(server))),
            4 => (Operation::Budget(self.rng.u32(least..=budget)), Some(Operation::Budget(budget))),
            5 => (Operation::PerTenant(self.rng.u32(1..=per_tenant)), Some(Operation::PerTenant(per_tenant))),
            _ => (Operation::Evict(tenant), None),
        };
        self.operates(now);
        if let Some(back) = back {
            let after = between(&mut self.rng, Duration::ZERO, (self.plan.lasts / 8).min(LONGEST_MEDDLING));
            self.agenda.put(self.now + after, Event::Operates(back));
        }
    }

    /// No cap of a server or a tenant, and not all reserves together, may be above the budget.
    fn least_budget(&self) -> u32 {
        let reserved: u32 = self.plan.limits.values().map(|limits| limits.reserve).sum();
        let servers = self.plan.servers.iter().filter_map(|server| server.cap);
        let tenants = self.plan.limits.values().filter_map(|limits| limits.max);
        let caps = servers.chain(tenants).chain([self.plan.settings.max_connections_per_tenant, reserved]);
        let connecting = self.plan.settings.max_connecting.unwrap_or(1);
        caps.max().unwrap_or(1).max(connecting).min(self.plan.settings.max_connections)
    }
}

fn server_number(server: usize) -> u32 {
    u32::try_from(server).unwrap_or(u32::MAX)
}
