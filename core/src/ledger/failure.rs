//! What is remembered of connects that failed: a tenant's circuit (rule 9) and a server that said it is full (rule 10).

use std::sync::Arc;
use std::time::Duration;

use super::budget::{Permit, Place, State};
use super::moment::Moment;
use super::queue::{Answer, Lane};
use super::refusal::Refusal;
use super::tally::Count;
use super::tenants::{Mode, Tenant};
use super::{Action, Ledger, PermitKey, Time};
use crate::FailureKind;
use crate::observe::{Attention, ConnectOutcome, Event};
use crate::stats::CircuitState;

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

impl<E> Failure<E> {
    pub(crate) fn outcome(&self) -> ConnectOutcome {
        match self {
            Self::Error { kind, .. } => ConnectOutcome::Failed(*kind),
            Self::TimedOut => ConnectOutcome::TimedOut,
            Self::Panicked => ConnectOutcome::Panicked,
        }
    }
}

/// A tenant's failures since its last success.
pub(super) struct Circuit<E> {
    failures: u32,
    /// Refusals of a full server in a row; those are not the tenant's failures.
    full: u32,
    failed_at: Moment,
    retry_at: Moment,
    /// No open is started until the backoff is over.
    resting: bool,
    /// Somebody was refused for it since the last failure.
    asked: bool,
    /// Of the last failure; `Other` before the first.
    kind: FailureKind,
    pub(super) source: Option<Arc<E>>,
}

impl<E> Circuit<E> {
    /// Whether its tenant is to be remembered for it. What does not exist is not.
    pub(super) fn is_open(&self) -> bool {
        self.failures > 0 && self.resting && !self.is_strangers()
    }

    /// Whether its tenant's last connect failed, for another reason than a full server, although its database exists as far as
    /// is known.
    pub(super) fn is_unavailable(&self) -> bool {
        self.failures > 0 && !self.is_strangers()
    }

    fn finds_unreachable(&self) -> bool {
        self.kind == FailureKind::Unreachable
    }

    /// Whether the tenant's database does not exist, as far as is known.
    pub(super) fn is_strangers(&self) -> bool {
        matches!(self.kind, FailureKind::NoSuchTenant | FailureKind::InvalidName)
    }
}

/// A server that said it is full: it takes what is open, and one more at a time, until it has not said so for
/// [`BACKOFF_MAX`].
pub(super) struct ServerFull {
    /// How many connections it has proved to take since.
    limit: u32,
    /// Probes refused in a row.
    failures: u32,
    refused_at: Moment,
    retry_at: Moment,
    /// One more than `limit` may be tried.
    probing: bool,
}

impl ServerFull {
    /// The time until one more than it has proved to take may be tried.
    pub(super) fn rests(&self, now: Moment) -> Duration {
        if self.probing { Duration::ZERO } else { self.retry_at.since(now) }
    }
}

/// What becomes possible when its time comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Due {
    Tenant(u32),
    Server(u32),
    /// The end of a server's being full, unless it said so again.
    ServerAgain(u32),
}

/// Exponential with full jitter: anything from 1 ms to the ceiling.
fn backoff(failures: u32, random: u64) -> Duration {
    let ceiling = BACKOFF_BASE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(BACKOFF_MAX);
    let ceiling = u64::try_from(ceiling.as_micros()).unwrap_or(u64::MAX);
    Duration::from_millis(1) + Duration::from_micros(random % ceiling)
}

impl<C, E> Ledger<C, E> {
    /// What the server takes at present: its cap, less after it said "full", nothing while it is paused.
    pub(super) fn server_cap(&self, server: u32) -> u32 {
        let entry = &self.servers[server as usize];
        if entry.paused {
            return 0;
        }
        let full = entry.full.as_ref().map_or(u32::MAX, |full| full.limit + u32::from(full.probing));
        entry.scope.cap.min(full)
    }

    /// How many opens of one tenant may be under way at once.
    pub(super) fn opening_slots(&self, tenant: u32) -> u32 {
        let entry = &self.tenants[tenant];
        match &entry.circuit {
            Some(circuit) if circuit.resting && !seeded!(CircuitNeverRests) => 0,
            Some(_) => 1,
            None => (self.servers[entry.server as usize].max_connecting / 2).max(1),
        }
    }

    pub(super) fn circuit_state(&self, tenant: &Tenant<E>) -> CircuitState {
        let Some(circuit) = &tenant.circuit else { return CircuitState::Closed };
        let (kind, retry_after) = (circuit.kind, circuit.retry_at.since(self.latest));
        match (circuit.failures > 0, circuit.resting) {
            (true, true) => CircuitState::Open { kind, retry_after },
            (true, false) => CircuitState::HalfOpen { kind },
            (false, _) => CircuitState::ServerFull { retry_after },
        }
    }

    /// Whether the tenant was told that its server is full, and has not got through since. It makes room itself.
    pub(super) fn was_told_full(&self, tenant: u32) -> bool {
        self.tenants[tenant].circuit.as_ref().is_some_and(|circuit| circuit.full > 0)
    }

    /// The refusal of a cold acquire whose tenant's circuit is open, or half open with its probe under way. After the
    /// backoff the first caller's own connect is the probe.
    pub(super) fn refuse_by_circuit(&mut self, tenant: u32, now: Moment) -> Option<Refusal<E>> {
        self.end_rest(tenant, now);
        let entry = self.affairs(tenant);
        // Connections that are being validated may yet serve that many.
        if entry.line.len() < entry.recycling {
            return None;
        }
        let probing = entry.opening_soon() > 0 || !entry.line.is_empty();
        let circuit = self.tenants[tenant].circuit.as_mut()?;
        if circuit.failures == 0 || !(circuit.resting || probing) {
            return None;
        }
        circuit.asked = true;
        let retry_after = circuit.retry_at.since(now).max(BACKOFF_BASE / 10);
        let refusal = Refusal::Unavailable { kind: circuit.kind, retry_after, source: circuit.source.clone() };
        self.count(tenant, Count::Unavailable);
        Some(refusal)
    }

    /// The backoff is over, if it is: by its time, or as another tenant found that the server can be reached again.
    fn end_rest(&mut self, tenant: u32, now: Moment) {
        let entry = &mut self.tenants[tenant];
        let reached_again = self.servers[entry.server as usize].reached_again;
        if let Some(circuit) = &mut entry.circuit
            && circuit.resting
            && (now >= circuit.retry_at || (circuit.finds_unreachable() && circuit.failed_at < reached_again))
        {
            circuit.resting = false;
            circuit.retry_at = circuit.retry_at.min(now);
            self.touch(tenant, now);
        }
    }

    /// After a rest: where somebody asked meanwhile and a permit is free, a connect of the manager's own finds out whether the
    /// tenant is back, so that no caller has to wait for that. Otherwise the next caller's connect is the probe.
    fn probe(&mut self, tenant: u32, now: Moment) {
        let entry = &self.tenants[tenant];
        let asked = entry.circuit.as_ref().is_some_and(|circuit| circuit.asked && !circuit.is_strangers());
        let affairs = self.affairs(tenant);
        let idle = affairs.line.is_empty() && affairs.opening_soon() == 0;
        if asked
            && idle
            && !self.closed
            && entry.mode == Mode::Active
            && entry.counts.all() < entry.cap
            && self.has_slot(tenant, Lane::Common)
            && self.has_room(tenant, Lane::Common)
        {
            self.start_open(tenant, false, now);
        }
    }

    /// A connection that was to serve the tenant's line is lost. Those for whom nothing else is coming are told, where
    /// nothing may be opened for them.
    pub(super) fn refuse_uncovered(&mut self, tenant: u32, now: Moment) {
        let entry = &self.tenants[tenant];
        let Some(circuit) = entry.circuit.as_ref().filter(|circuit| circuit.failures > 0 && circuit.resting) else {
            return;
        };
        let (kind, retry_after) = (circuit.kind, circuit.retry_at.since(now));
        while self.affairs(tenant).line.len() > self.affairs(tenant).coming()
            && let Some(last) = self.affairs(tenant).line.newest()
        {
            let source = self.tenants[tenant].circuit.as_ref().and_then(|circuit| circuit.source.clone());
            self.give_up_gathering(last, now);
            self.count(tenant, Count::Unavailable);
            self.answer(last, Answer::Refused(Refusal::Unavailable { kind, retry_after, source }), now);
        }
    }

    /// opening -> free. The first in line is told why, the tenant's others that it is unavailable; a full server
    /// is nobody's failure, and everybody keeps their place. What a server says that the tenant has left is no news of the
    /// tenant.
    pub fn open_failed(&mut self, permit: PermitKey, failure: Failure<E>, random: u64, now: Time) {
        let now = self.advance(now);
        let Some(index) = self.permits.find(permit) else { return };
        debug_assert!(matches!(self.permits[index].state, State::Opening));
        let Permit { tenant, server, since, away, .. } = self.permits[index];
        let took = now.since(since);
        self.tell(Attention::All, |ledger| Event::Connected {
            tenant: ledger.name(tenant),
            server: ledger.servers[server as usize].id.clone(),
            took,
            outcome: failure.outcome(),
        });
        self.free_permit(index, now);
        self.count(tenant, Count::ConnectFailure);
        self.servers[server as usize].connect_failures += 1;
        match failure {
            Failure::Error { kind: FailureKind::ServerFull, source } => {
                self.actions.push(Action::DropError(source));
                self.server_full(tenant, server, random, now);
                if !away {
                    self.told_full(tenant, random, now);
                }
            }
            failure if !away => self.connect_failed(tenant, failure, random, now),
            Failure::Error { source, .. } => self.actions.push(Action::DropError(source)),
            Failure::TimedOut | Failure::Panicked => {}
        }
        self.serve_line_and_others(tenant, now);
    }

    fn circuit(&mut self, tenant: u32) -> &mut Circuit<E> {
        self.tenants[tenant].circuit.get_or_insert_with(|| {
            Box::new(Circuit {
                failures: 0,
                full: 0,
                failed_at: Moment::START,
                retry_at: Moment::START,
                resting: false,
                asked: false,
                kind: FailureKind::Other,
                source: None,
            })
        })
    }

    fn connect_failed(&mut self, tenant: u32, failure: Failure<E>, random: u64, now: Moment) {
        let (kind, source) = match &failure {
            Failure::Error { kind, source } => (*kind, Some(source.clone())),
            Failure::TimedOut => (FailureKind::Unreachable, None),
            Failure::Panicked => (FailureKind::Other, None),
        };
        self.end_rest(tenant, now);
        let circuit = self.circuit(tenant);
        let (first_failure, was_unavailable) = (circuit.failures == 0, circuit.is_unavailable());
        (circuit.kind, circuit.failed_at, circuit.asked) = (kind, now, false);
        let before = std::mem::replace(&mut circuit.source, source.clone());
        let opens = !circuit.resting;
        if opens {
            // Connects that were under way together and fail together are one failure.
            circuit.resting = true;
            circuit.failures = circuit.failures.saturating_add(1);
            circuit.retry_at = circuit.retry_at.max(now + backoff(circuit.failures, random));
        }
        // It may rest as the server was full; now it has failed as well.
        circuit.failures = circuit.failures.max(1);
        let (retry_at, failures, is_unavailable) = (circuit.retry_at, circuit.failures, circuit.is_unavailable());
        self.unavailable = self.unavailable + u32::from(is_unavailable) - u32::from(was_unavailable);
        if opens || first_failure {
            self.tell(Attention::Rare, |ledger| {
                let retry_after = retry_at.since(now);
                Event::CircuitOpened { tenant: ledger.name(tenant), kind, failures, retry_after }
            });
        }
        self.due.insert((retry_at, Due::Tenant(tenant)));
        self.actions.extend(before.map(Action::DropError));
        self.refresh(tenant);
        let unavailable = || Refusal::Unavailable { kind, retry_after: retry_at.since(now), source: source.clone() };
        // Nothing was opened for a pool lease, nor for those behind one.
        if let Some(first) = self.plain_waiter(tenant) {
            let refusal = match failure {
                Failure::Error { kind, source } => Refusal::Connect { kind, source },
                Failure::TimedOut => self.timed_out_connecting(first, now),
                Failure::Panicked => unavailable(),
            };
            if !matches!(refusal, Refusal::Timeout { .. }) {
                self.count(tenant, Count::Unavailable);
            }
            self.give_up_gathering(first, now);
            self.answer(first, Answer::Refused(refusal), now);
        }
        for _ in 0..self.affairs(tenant).line.len() {
            self.count(tenant, Count::Unavailable);
        }
        self.answer_line(tenant, unavailable, now);
        // A stranger is quiet in another list.
        self.settle_anew(tenant, now);
    }

    /// A connect succeeded. Where its tenant had found the server unreachable, the others who did need not wait for their own
    /// backoff: after an outage all are back at once.
    pub(super) fn server_reached(&mut self, tenant: u32, server: u32, now: Moment) {
        if self.tenants[tenant].circuit.as_ref().is_some_and(|circuit| circuit.finds_unreachable()) {
            self.servers[server as usize].reached_again = now;
        }
    }

    /// A connect succeeded: the tenant's failures are history.
    pub(super) fn close_circuit(&mut self, tenant: u32) {
        let circuit = self.tenants[tenant].circuit.take();
        self.unavailable -= u32::from(circuit.as_ref().is_some_and(|circuit| circuit.is_unavailable()));
        if circuit.as_ref().is_some_and(|circuit| circuit.failures > 0) {
            self.tell(Attention::Rare, |ledger| Event::CircuitClosed { tenant: ledger.name(tenant) });
        }
        self.actions.extend(circuit.and_then(|circuit| circuit.source).map(Action::DropError));
        self.refresh(tenant);
    }

    /// A server said that it is full: where it said so to two within a while, it is, whoever asks.
    fn server_full(&mut self, tenant: u32, server: u32, random: u64, now: Moment) {
        self.count(tenant, Count::ServerFull);
        self.servers[server as usize].said_full += 1;
        self.tell(Attention::Rare, |ledger| Event::ServerFull {
            server: ledger.servers[server as usize].id.clone(),
            tenant: ledger.name(tenant),
        });
        let name = self.tenants[tenant].name.clone();
        let entry = &mut self.servers[server as usize];
        let another = entry.full_seen.as_ref().filter(|(other, _)| *other != name);
        let by_another = another.is_some_and(|&(_, at)| now.since(at) <= FULL_WINDOW);
        entry.full_seen = Some((name, now));
        if by_another || entry.full.is_some() {
            // The low bits choose the tenant's wait.
            self.lower_limit(server, random.rotate_right(32), now);
        }
    }

    /// The tenant's server told it that it is full: it opens nothing for a while.
    fn told_full(&mut self, tenant: u32, random: u64, now: Moment) {
        self.end_rest(tenant, now);
        let circuit = self.circuit(tenant);
        if !circuit.resting {
            circuit.resting = true;
            circuit.full = circuit.full.saturating_add(1);
            circuit.retry_at = circuit.retry_at.max(now + backoff(circuit.full, random));
        }
        circuit.full = circuit.full.max(1);
        let retry_at = circuit.retry_at;
        self.due.insert((retry_at, Due::Tenant(tenant)));
        self.settle_anew(tenant, now);
    }

    /// The server takes what is open, and a probe after a while.
    fn lower_limit(&mut self, server: u32, random: u64, now: Moment) {
        let entry = &mut self.servers[server as usize];
        let counts = &entry.scope.counts;
        let limit = counts.all() - counts.of(Place::Opening);
        if entry.full.is_none() {
            self.due.insert((now + BACKOFF_MAX, Due::ServerAgain(server)));
        }
        let full = entry.full.get_or_insert(ServerFull {
            limit,
            failures: 0,
            refused_at: now,
            retry_at: Moment::START,
            probing: true,
        });
        (full.limit, full.refused_at) = (full.limit.min(limit), now);
        if std::mem::take(&mut full.probing) {
            // Refusals of connects that were under way together are one.
            full.failures = full.failures.saturating_add(1);
            full.retry_at = now + backoff(full.failures, random);
            self.due.insert((full.retry_at, Due::Server(server)));
        }
    }

    /// A connect succeeded on a server that is below its limit: the next may be tried at once, one at a time.
    pub(super) fn server_took_one(&mut self, server: u32) {
        let entry = &mut self.servers[server as usize];
        let open = entry.scope.counts.all() - entry.scope.counts.of(Place::Opening);
        if let Some(full) = &mut entry.full {
            full.failures = 0;
            full.limit = full.limit.max(open);
            if full.limit >= entry.scope.cap {
                entry.full = None;
            }
        }
    }

    /// Lets go of what waited for its time, at most `most` of it, in the order of the times. An entry whose wait was
    /// prolonged or begun anew since says nothing: there is a later one for it.
    pub(super) fn pop_due(&mut self, now: Moment, most: u32) {
        for _ in 0..most {
            let Some(&(at, due)) = self.due.first() else { return };
            if at > now {
                return;
            }
            self.due.pop_first();
            match due {
                Due::Tenant(tenant) if self.tenants.live(tenant) => {
                    let circuit = self.tenants[tenant].circuit.as_ref();
                    if circuit.is_some_and(|circuit| circuit.resting && at >= circuit.retry_at) {
                        self.end_rest(tenant, now);
                        self.probe(tenant, now);
                    }
                }
                Due::Tenant(_) => {}
                Due::Server(server) => {
                    if let Some(full) = &mut self.servers[server as usize].full {
                        full.probing |= at >= full.retry_at;
                    }
                }
                Due::ServerAgain(server) => {
                    let entry = &mut self.servers[server as usize];
                    let again = entry.full.as_ref().map(|full| full.refused_at + BACKOFF_MAX);
                    match again.filter(|&again| again > at) {
                        Some(again) => drop(self.due.insert((again, due))),
                        None => entry.full = None,
                    }
                }
            }
        }
    }
}
