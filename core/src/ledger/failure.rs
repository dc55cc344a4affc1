//! What is remembered of connects that failed: a tenant's circuit (rule 9) and a server that said it is full (rule 10).

use std::sync::Arc;
use std::time::Duration;

use super::budget::{Place, State};
use super::queue::Answer;
use super::refusal::Refusal;
use super::{Action, Ledger, PermitKey, Time};
use crate::FailureKind;

/// The first backoff's ceiling; it doubles with each failure in a row. Far above a connect (2 to 5 ms measured), far
/// below what a person notices as an outage.
const BACKOFF_BASE: Duration = Duration::from_millis(100);
/// The ceiling of ceilings: how late a recovery may be noticed.
const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// "Full" from two tenants within this time is the server's trouble, not theirs.
const FULL_WINDOW: Duration = Duration::from_secs(10);

/// Why a connect came to nothing.
#[derive(Debug)]
pub enum Failure<E> {
    /// The driver said so.
    Error {
        /// As the factory classified it.
        kind: FailureKind,
        /// The driver's own error.
        source: Arc<E>,
    },
    /// It took longer than `connect_timeout`.
    TimedOut,
    /// It panicked, or its task was dropped with the runtime.
    Panicked,
}

/// A tenant's failures since its last success.
pub(super) struct Circuit<E> {
    failures: u32,
    /// Refusals of a full server in a row; those are not the tenant's failures.
    full: u32,
    retry_at: Time,
    /// No open is started until the backoff is over.
    resting: bool,
    kind: FailureKind,
    pub(super) source: Option<Arc<E>>,
}

impl<E> Circuit<E> {
    /// Whether callers are refused for it. What is remembered of a tenant that does not exist keeps nobody known.
    pub(super) fn is_open(&self, now: Time) -> bool {
        self.failures > 0 && now < self.retry_at && self.kind != FailureKind::NoSuchTenant
    }
}

/// A server below its usual limit.
pub(super) struct ServerFull {
    /// How many connections it took when it last said "full".
    limit: u32,
    failures: u32,
    /// One more than `limit` may be tried.
    probing: bool,
}

/// What becomes possible when its time comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    Tenant(u32),
    Server(u32),
}

/// Exponential with full jitter: anything from 1 ms to the ceiling.
fn backoff(failures: u32, random: u64) -> Duration {
    let ceiling = BACKOFF_BASE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    let ceiling = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
    Duration::from_millis(1) + Duration::from_micros(random % ceiling)
}

impl<C, E> Ledger<C, E> {
    /// What the server takes at present: its cap, or less after it said "full".
    pub(super) fn server_cap(&self, server: u32) -> u32 {
        let entry = &self.servers[server as usize];
        let full = entry.full.as_ref().map_or(u32::MAX, |full| full.limit + u32::from(full.probing));
        entry.scope.cap.min(full)
    }

    pub(super) fn is_server_full(&self, server: u32) -> bool {
        self.servers[server as usize].full.is_some()
    }

    /// How many opens of one tenant may be under way at once.
    pub(super) fn opening_slots(&self, tenant: u32) -> u32 {
        let entry = &self.tenants[tenant];
        match &entry.circuit {
            Some(circuit) if circuit.resting => 0,
            Some(_) => 1,
            None => (self.servers[entry.server as usize].max_connecting / 2).max(1),
        }
    }

    /// The refusal of a cold acquire whose tenant's circuit is open, or half open with its probe under way. After the
    /// backoff the first caller's own connect is the probe.
    pub(super) fn refuse_by_circuit(&mut self, tenant: u32, now: Time) -> Option<Refusal<E>> {
        let probing = {
            let entry = &self.tenants[tenant];
            entry.counts.of(Place::Opening) + entry.promised + entry.line.len() > 0
        };
        let circuit = self.tenants[tenant].circuit.as_mut()?;
        if now >= circuit.retry_at {
            circuit.resting = false;
            self.refresh(tenant);
        }
        let circuit = self.tenants[tenant].circuit.as_ref()?;
        if circuit.failures == 0 || !(circuit.resting || probing) {
            return None;
        }
        let retry_after = circuit.retry_at.saturating_sub(now).max(BACKOFF_BASE / 10);
        Some(Refusal::Unavailable { kind: circuit.kind, retry_after, source: circuit.source.clone() })
    }

    /// opening -> free. The waiter it failed for is told why, the tenant's others that it is unavailable; a full server
    /// is nobody's failure, and everybody keeps their place.
    pub fn open_failed(&mut self, permit: PermitKey, failure: Failure<E>, random: u64, now: Time) {
        let Some(index) = self.permits.find(permit) else {
            return;
        };
        debug_assert!(matches!(self.permits[index].state, State::Opening));
        let (tenant, server) = (self.permits[index].tenant, self.permits[index].server);
        self.free_permit(index, now);
        self.tenants[tenant].counters.connect_failures += 1;
        self.counters.connect_failures += 1;
        let (kind, source) = match failure {
            Failure::Error { kind, source } => (kind, Some(source)),
            Failure::TimedOut => (FailureKind::Unreachable, None),
            Failure::Panicked => (FailureKind::Other, None),
        };
        if kind == FailureKind::ServerFull {
            self.actions.extend(source.map(Action::DropError));
            self.full_seen(tenant, server, random, now);
        } else {
            let timed_out = source.is_none() && kind == FailureKind::Unreachable;
            self.open_circuit(tenant, kind, source, timed_out, random, now);
        }
        self.serve_line_and_others(tenant, now);
    }

    fn circuit(&mut self, tenant: u32) -> &mut Circuit<E> {
        self.tenants[tenant].circuit.get_or_insert_with(|| {
            Box::new(Circuit {
                failures: 0,
                full: 0,
                retry_at: Time::ZERO,
                resting: false,
                kind: FailureKind::Other,
                source: None,
            })
        })
    }

    fn open_circuit(
        &mut self,
        tenant: u32,
        kind: FailureKind,
        source: Option<Arc<E>>,
        timed_out: bool,
        random: u64,
        now: Time,
    ) {
        let circuit = self.circuit(tenant);
        circuit.failures = circuit.failures.saturating_add(1);
        circuit.kind = kind;
        circuit.resting = true;
        circuit.retry_at = now + backoff(circuit.failures, random);
        let (due, retry_after) = (circuit.retry_at, circuit.retry_at - now);
        let before = std::mem::replace(&mut circuit.source, source.clone());
        self.actions.extend(before.map(Action::DropError));
        self.due.insert((due, Due::Tenant(tenant)));
        let unavailable = || Refusal::Unavailable { kind, retry_after, source: source.clone() };
        if let Some(first) = self.tenants[tenant].line.oldest() {
            let refusal = match &source {
                Some(source) => Refusal::Connect { kind, source: source.clone() },
                None if timed_out => self.timed_out_connecting(first, now),
                None => unavailable(),
            };
            self.give_up_gathering(first, now);
            self.answer(first, Answer::Refused(refusal), now);
        }
        self.answer_line(tenant, unavailable, now);
    }

    /// A connect succeeded: the tenant's failures are history.
    pub(super) fn close_circuit(&mut self, tenant: u32) {
        let circuit = self.tenants[tenant].circuit.take();
        self.actions.extend(circuit.and_then(|circuit| circuit.source).map(Action::DropError));
    }

    fn full_seen(&mut self, tenant: u32, server: u32, random: u64, now: Time) {
        self.counters.server_full += 1;
        let key = self.tenants.key(tenant);
        let circuit = self.circuit(tenant);
        circuit.full = circuit.full.saturating_add(1);
        circuit.resting = true;
        let wait = backoff(circuit.full, random);
        circuit.retry_at = circuit.retry_at.max(now + wait);
        let due = circuit.retry_at;
        self.due.insert((due, Due::Tenant(tenant)));
        let entry = &mut self.servers[server as usize];
        let by_another = entry
            .full_seen
            .replace((key, now))
            .is_some_and(|(other, at)| other != key && now.saturating_sub(at) <= FULL_WINDOW);
        if by_another || entry.full.is_some() {
            let counts = &entry.scope.counts;
            let limit = (counts.all() - counts.of(Place::Opening)).max(1);
            let failures = entry.full.as_ref().map_or(1, |full| full.failures.saturating_add(1));
            entry.full = Some(ServerFull { limit, failures, probing: false });
            // The low bits chose the tenant's wait.
            self.due.insert((now + backoff(failures, random.rotate_right(32)), Due::Server(server)));
        }
        self.refresh(tenant);
    }

    /// A connect succeeded on a server that is below its limit: the next may be tried at once, one at a time.
    pub(super) fn server_took_one(&mut self, server: u32) {
        let entry = &mut self.servers[server as usize];
        let counts = &entry.scope.counts;
        let open = counts.all() - counts.of(Place::Opening);
        let cap = entry.scope.cap;
        if let Some(full) = &mut entry.full {
            full.limit = full.limit.max(open);
            if full.limit >= cap {
                entry.full = None;
            }
        }
    }

    /// Lets go of what waited for its time.
    pub(super) fn pop_due(&mut self, now: Time) {
        while let Some(&(at, due)) = self.due.first() {
            if at > now {
                return;
            }
            self.due.pop_first();
            match due {
                Due::Tenant(tenant) if self.tenants.live(tenant) => {
                    if let Some(circuit) = &mut self.tenants[tenant].circuit
                        && now >= circuit.retry_at
                    {
                        circuit.resting = false;
                    }
                    self.refresh(tenant);
                }
                Due::Tenant(_) => {}
                Due::Server(server) => {
                    if let Some(full) = &mut self.servers[server as usize].full {
                        full.probing = true;
                    }
                }
            }
        }
    }
}
