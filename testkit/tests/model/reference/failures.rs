//! Rules 9 and 10: what is remembered of connects that failed.

use std::time::Duration;

use tenantry_core::{FailureKind, Phase};

use super::super::expectation::{Answer, Command, Refusal, Reply};
use super::super::operations::Trouble;
use super::super::world::{MS, SERVERS, TENANTS};
use super::{Mode, Reference, State, Time};

/// Two tenants that are told "full" within this time mean the server. The rules leave the window open.
const FULL_WINDOW: Duration = Duration::from_secs(10);
/// How long a server is below its cap after the last "full", and the longest backoff. The rules leave both open.
const LONGEST: Duration = Duration::from_secs(30);

/// A tenant's failures since its last success.
#[derive(Clone, Debug)]
pub(super) struct Memory {
    failures: u32,
    /// How often in a row its server said that it is full.
    full: u32,
    /// No open before this time...
    retry_at: Time,
    failed_at: Time,
    /// Somebody was refused for it since.
    asked: bool,
    /// ...and before it was noticed that it came.
    resting: bool,
    kind: FailureKind,
    error: Option<u32>,
}

impl Memory {
    /// Whether its tenant's database does not exist, as far as is known.
    pub(super) fn is_strangers(&self) -> bool {
        self.failures > 0 && matches!(self.kind, FailureKind::NoSuchTenant | FailureKind::InvalidName)
    }

    pub(super) fn finds_unreachable(&self) -> bool {
        self.failures > 0 && self.kind == FailureKind::Unreachable
    }

    /// Whether its open circuit keeps a tenant known. What does not exist is not worth remembering.
    pub(super) fn keeps_known(&self) -> bool {
        self.failures > 0 && self.resting && !self.is_strangers()
    }
}

/// A server that said it is full.
#[derive(Clone, Debug)]
pub(super) struct Full {
    /// How many connections it has proved to take since.
    limit: u32,
    /// Probes refused in a row.
    failures: u32,
    refused_at: Time,
    probe_at: Time,
    /// One more than `limit` may be tried.
    probing: bool,
}

/// What is known of a tenant's connects, but for the times.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Circuit {
    Closed,
    Open(FailureKind),
    HalfOpen(FailureKind),
    ServerFull,
}

/// Exponential with jitter; how exactly is left open: from 1 ms to 100 ms, doubling with each failure in a row.
fn backoff(failures: u32, random: u64) -> Duration {
    let ceiling = (100_000_u64 << (failures - 1).min(16)).min(LONGEST.as_micros() as u64);
    MS + Duration::from_micros(random % ceiling)
}

impl Reference {
    /// What a server takes at present (rule 10).
    pub(crate) fn cap_of(&self, server: usize) -> u32 {
        if self.servers[server].paused {
            return 0;
        }
        let usual = self.world.server_cap(server);
        self.servers[server].full.as_ref().map_or(usual, |full| usual.min(full.limit + u32::from(full.probing)))
    }

    /// Its server said that it is full, and it has not got through since.
    pub(super) fn was_told_full(&self, tenant: usize) -> bool {
        self.tenant(tenant).memory.as_ref().is_some_and(|memory| memory.full > 0)
    }

    pub(crate) fn circuit(&self, tenant: usize) -> Circuit {
        match &self.tenant(tenant).memory {
            None => Circuit::Closed,
            Some(memory) if memory.failures == 0 => Circuit::ServerFull,
            Some(memory) if memory.resting => Circuit::Open(memory.kind),
            Some(memory) => Circuit::HalfOpen(memory.kind),
        }
    }

    /// How many opens of one tenant may be under way: half of its server's, at least one; one at a time after a failure;
    /// none in a backoff (rule 9).
    pub(super) fn opening_slots(&self, tenant: usize) -> u32 {
        match &self.tenant(tenant).memory {
            Some(memory) if memory.resting => 0,
            Some(_) => 1,
            None => (self.world.max_connecting(self.server_of(tenant)) / 2).max(1),
        }
    }

    /// Callers of a tenant whose circuit is open, or whose probe is under way, are told at once.
    pub(super) fn refuse_by_circuit(&mut self, tenant: usize) -> Option<Refusal> {
        self.end_backoff(tenant);
        if self.line_len(tenant) < self.recyclings_of(tenant) {
            // One that is being validated may yet serve this caller.
            return None;
        }
        let probing = self.opening_soon(tenant) + self.line_len(tenant) > 0;
        let now = self.now;
        let memory = self.tenant_mut(tenant).memory.as_mut()?;
        let open = memory.failures > 0 && (memory.resting || probing);
        memory.asked |= open;
        open.then(|| Refusal::Unavailable {
            kind: memory.kind,
            // The end of a probe has no time of its own; 10 ms is the least that is told.
            retry_after: memory.retry_at.saturating_sub(now).max(MS * 10),
            error: memory.error,
        })
    }

    /// A connection that was to serve the line is lost. Those for whom nothing else is on its way are told, where nothing
    /// may be opened for them.
    pub(super) fn refuse_uncovered(&mut self, tenant: usize) {
        let Some(memory) = self.tenant(tenant).memory.as_ref().filter(|memory| memory.failures > 0 && memory.resting)
        else {
            return;
        };
        let retry_after = memory.retry_at.saturating_sub(self.now);
        let refusal = Refusal::Unavailable { kind: memory.kind, retry_after, error: memory.error };
        while self.line_len(tenant) > self.opening_soon(tenant) + self.recyclings_of(tenant) {
            let last = self.line(tenant).last().expect("somebody waits").id;
            self.stop_gathering(last);
            self.answer(last, Answer::Refused(refusal.clone()));
        }
    }

    /// opening -> free.
    pub(super) fn open_failed(&mut self, permit: u32, trouble: Trouble, random: u64) {
        let (tenant, server) = (self.permit(permit).tenant, self.permit(permit).server);
        // Of a server that it has left since, a tenant learns nothing (rule 9).
        let concerns = server == self.server_of(tenant);
        let error = self.next_id();
        self.free(&[permit]);
        self.events.connect_failures += 1;
        match trouble {
            Trouble::Error(FailureKind::ServerFull) => {
                self.said_full(server, tenant, random);
                if concerns {
                    self.told_full(tenant, random);
                }
            }
            _ if !concerns => {}
            Trouble::Error(kind) => self.open_circuit(tenant, kind, Some(error), false, random),
            Trouble::TimedOut => self.open_circuit(tenant, FailureKind::Unreachable, None, true, random),
            Trouble::Panicked => self.open_circuit(tenant, FailureKind::Other, None, false, random),
        }
        self.settle_with(tenant);
        self.call(Command::OpenFailed { permit, trouble, error, random }, Reply::Nothing);
    }

    fn memory(&mut self, tenant: usize) -> &mut Memory {
        self.tenant_mut(tenant).memory.get_or_insert(Memory {
            failures: 0,
            full: 0,
            retry_at: Time::ZERO,
            failed_at: Time::ZERO,
            asked: false,
            resting: false,
            kind: FailureKind::Other,
            error: None,
        })
    }

    fn open_circuit(&mut self, tenant: usize, kind: FailureKind, error: Option<u32>, timed_out: bool, random: u64) {
        let now = self.now;
        // A rest whose time is over is none, noticed or not.
        self.end_backoff(tenant);
        let memory = self.memory(tenant);
        (memory.kind, memory.error, memory.failed_at, memory.asked) = (kind, error, now, false);
        // Connects that were under way together and fail together are one failure.
        if !memory.resting {
            memory.failures += 1;
            memory.resting = true;
            memory.retry_at = memory.retry_at.max(now + backoff(memory.failures, random));
        }
        memory.failures = memory.failures.max(1);
        let unavailable = Refusal::Unavailable { kind, retry_after: memory.retry_at.saturating_sub(now), error };
        // Nothing is opened for a pool lease, nor for those behind one.
        let first = self.plain_head(tenant);
        let line: Vec<u32> = self.line(tenant).map(|waiter| waiter.id).collect();
        for waiter in line {
            let waited = now - self.waiter(waiter).since;
            let refusal = match error {
                Some(error) if first == Some(waiter) => Refusal::Connect { kind, error },
                None if first == Some(waiter) && timed_out => {
                    self.events.timeouts += 1;
                    Refusal::Timeout { phase: Phase::Connecting, waited }
                }
                _ => unavailable.clone(),
            };
            self.stop_gathering(waiter);
            self.answer(waiter, Answer::Refused(refusal));
        }
    }

    /// A full server is nobody's failure: everybody keeps their place. Refusals that come in together are one.
    fn told_full(&mut self, tenant: usize, random: u64) {
        let now = self.now;
        // A rest whose time is over is none, noticed or not.
        self.end_backoff(tenant);
        let memory = self.memory(tenant);
        if !memory.resting {
            memory.full += 1;
            memory.resting = true;
            memory.retry_at = memory.retry_at.max(now + backoff(memory.full, random));
        }
        memory.full = memory.full.max(1);
    }

    /// What a server says of itself counts, whoever was told.
    fn said_full(&mut self, server: usize, tenant: usize, random: u64) {
        self.events.server_full += 1;
        let now = self.now;
        let open = self.count(|permit| permit.server == server && permit.state != State::Opening);
        let entry = &mut self.servers[server];
        let before = entry.told_full.replace((tenant, now));
        let by_another = before.is_some_and(|(other, at)| other != tenant && now - at <= FULL_WINDOW);
        if !by_another && entry.full.is_none() {
            return;
        }
        let new = Full { limit: open, failures: 0, refused_at: now, probe_at: now, probing: true };
        let full = entry.full.get_or_insert(new);
        (full.limit, full.refused_at) = (full.limit.min(open), now);
        if full.probing {
            full.probing = false;
            full.failures += 1;
            full.probe_at = now + backoff(full.failures, random.rotate_right(32));
        }
    }

    /// A connect succeeded on a server below its cap.
    pub(super) fn server_took_one(&mut self, server: usize) {
        let open = self.count(|permit| permit.server == server && permit.state != State::Opening);
        let cap = self.world.server_cap(server);
        let entry = &mut self.servers[server];
        if let Some(full) = &mut entry.full {
            full.failures = 0;
            full.limit = full.limit.max(open);
            if full.limit >= cap {
                entry.full = None;
            }
        }
    }

    fn end_backoff(&mut self, tenant: usize) {
        let now = self.now;
        let server = self.tenants[tenant].as_ref().map(|tenant| tenant.server);
        let reached_again = server.map_or(Time::ZERO, |server| self.servers[server].reached_again);
        if let Some(memory) = self.tenants[tenant].as_mut().and_then(|tenant| tenant.memory.as_mut()) {
            let over = memory.finds_unreachable() && memory.failed_at < reached_again;
            if memory.resting && (now >= memory.retry_at || over) {
                memory.resting = false;
                memory.retry_at = memory.retry_at.min(now);
            }
        }
    }

    /// What becomes possible again, in the order of its time.
    pub(super) fn end_backoffs(&mut self) {
        let now = self.now;
        let of_tenant = |tenant: usize| {
            let entry = self.tenants[tenant].as_ref()?;
            let memory = entry.memory.as_ref().filter(|memory| memory.resting)?;
            Some((memory.retry_at, 0, entry.place as usize, tenant))
        };
        let of_server = |server: usize| {
            let full = self.servers[server].full.as_ref()?;
            Some([(full.probe_at, 1, server, server), (full.refused_at + LONGEST, 2, server, server)])
        };
        let servers = (0..SERVERS).filter_map(of_server).flatten();
        let mut due: Vec<_> = (0..TENANTS).filter_map(of_tenant).chain(servers).filter(|due| due.0 <= now).collect();
        due.sort_unstable();
        for (_, kind, _, which) in due {
            match (kind, &mut self.servers[which % SERVERS].full) {
                (0, _) => {
                    self.end_backoff(which);
                    self.probe(which);
                    self.note_who_is_quiet();
                }
                (1, Some(full)) => full.probing = true,
                (_, full) => *full = None,
            }
        }
    }

    /// Where somebody was refused meanwhile and a permit is free, the manager itself finds out whether the tenant is back.
    fn probe(&mut self, tenant: usize) {
        let asked = self.tenant(tenant).memory.as_ref().is_some_and(|memory| memory.asked && !memory.is_strangers());
        let idle = self.line_len(tenant) == 0 && self.opening_soon(tenant) == 0;
        if asked && idle && !self.closed && self.mode(tenant) == Some(Mode::Active) && self.may_open(tenant) {
            self.start_open(tenant, false);
        }
    }
}
