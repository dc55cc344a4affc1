//! Log lines, of each kind at most one a second: the first of those that had none, and how many others there were.
//!
//! Two kinds are always there, both about a caller's mistake: leases that are out for long, and tasks that wait for themselves.
//! The feature `tracing` adds those of [`events`], and the spans of [`spans`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::ledger::{LongLease, Time};
use crate::observe::Attention;
use crate::{Event, TenantId};

const PERIOD: Duration = Duration::from_secs(1);

/// Lines of one kind.
struct Limited<T> {
    next: Time,
    first: Option<T>,
    others: u64,
}

impl<T> Default for Limited<T> {
    fn default() -> Self {
        Self { next: Time::ZERO, first: None, others: 0 }
    }
}

impl<T> Limited<T> {
    fn add(&mut self, line: T) {
        match self.first {
            None => self.first = Some(line),
            Some(_) => self.others += 1,
        }
    }

    /// The line to be written now, if one is, and how many others it speaks for.
    fn due(&mut self, now: Time) -> Option<(T, u64)> {
        if now < self.next {
            return None;
        }
        let first = self.first.take()?;
        self.next = now + PERIOD;
        Some((first, std::mem::take(&mut self.others)))
    }
}

/// A task that holds leases was refused another one.
struct SelfMade {
    tenant: TenantId,
    held: u32,
    waited: Duration,
}

#[derive(Default)]
struct Lines {
    leases: Limited<LongLease>,
    self_made: Limited<SelfMade>,
    #[cfg(feature = "tracing")]
    events: events::Lines,
}

/// One manager's log.
#[derive(Default)]
pub(crate) struct Log(Mutex<Lines>);

impl Log {
    /// What it wants to be told of.
    pub(crate) const ATTENTION: Attention = if cfg!(feature = "tracing") { Attention::Rare } else { Attention::None };

    /// Lets `change` write down what there is to say, and says what is due. The subscriber is others' code: no lock is held
    /// while it runs.
    fn say(&self, now: Time, change: impl FnOnce(&mut Lines)) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lines);
        let (lease, self_made) = (lines.leases.due(now), lines.self_made.due(now));
        #[cfg(feature = "tracing")]
        let events = lines.events.due(now);
        drop(lines);
        if let Some((LongLease { tenant, held }, others)) = lease {
            tracing::warn!(%tenant, ?held, others, "a lease has been out for longer than lease_warn_after");
        }
        if let Some((SelfMade { tenant, held: held_by_caller, waited }, others)) = self_made {
            tracing::warn!(
                %tenant, held_by_caller, ?waited, others,
                "a task that holds leases was refused another one: it may have waited for itself; pass the lease down"
            );
        }
        #[cfg(feature = "tracing")]
        events.into_iter().for_each(events::write);
    }

    /// Leases that have been out for long, and whatever else is due.
    pub(crate) fn tick(&self, long: Vec<LongLease>, now: Time) {
        self.say(now, |lines| long.into_iter().for_each(|lease| lines.leases.add(lease)));
    }

    pub(crate) fn waited_for_itself(&self, tenant: &TenantId, held: u32, waited: Duration, now: Time) {
        self.say(now, |lines| lines.self_made.add(SelfMade { tenant: tenant.clone(), held, waited }));
    }

    /// What happened. Nothing without the feature.
    #[cfg_attr(not(feature = "tracing"), expect(unused_variables, clippy::unused_self, reason = "nothing without it"))]
    pub(crate) fn event(&self, event: &Event, now: impl FnOnce() -> Time) {
        #[cfg(feature = "tracing")]
        {
            events::at_once(event);
            if let Some(kind) = events::kind(event) {
                self.say(now(), |lines| lines.events.add(kind, event));
            }
        }
    }
}

/// What goes wrong, and what is closed.
#[cfg(feature = "tracing")]
mod events {
    use super::{Limited, Time};
    use crate::{CloseReason, Event, TenantId};

    const KINDS: usize = 5;

    /// A line for each kind of event that can come in a flood.
    #[derive(Default)]
    pub(super) struct Lines([Limited<Event>; KINDS]);

    impl Lines {
        pub(super) fn add(&mut self, kind: usize, event: &Event) {
            self.0[kind].add(event.clone());
        }

        pub(super) fn due(&mut self, now: Time) -> Vec<(Event, u64)> {
            self.0.iter_mut().filter_map(|lines| lines.due(now)).collect()
        }
    }

    pub(super) fn kind(event: &Event) -> Option<usize> {
        match event {
            Event::Refused { .. } => Some(0),
            Event::TimedOut { .. } => Some(1),
            Event::ServerFull { .. } => Some(2),
            Event::CircuitOpened { .. } => Some(3),
            Event::CircuitClosed { .. } => Some(4),
            _ => None,
        }
    }

    /// What is part of a day's work is written as it comes, for those who look at it closely (DEBUG).
    pub(super) fn at_once(event: &Event) {
        match event {
            Event::Evicted { tenant, server, for_whom, limit } => {
                let for_whom = for_whom.as_ref().map_or("work on the server", TenantId::as_str);
                tracing::debug!(
                    target: "tenantry", %tenant, %server, for_whom, ?limit,
                    "an idle connection makes room for another tenant"
                );
            }
            Event::Closed { tenant, server, reason: CloseReason::Broken } => {
                tracing::debug!(target: "tenantry", %tenant, %server, "a connection that is broken is closed");
            }
            Event::Closed { tenant, server, reason } => {
                tracing::trace!(target: "tenantry", %tenant, %server, ?reason, "a connection is closed");
            }
            _ => {}
        }
    }

    pub(super) fn write((event, others): (Event, u64)) {
        match event {
            Event::Refused { tenant, scope, waited } => {
                tracing::warn!(target: "tenantry", %tenant, ?scope, ?waited, others, "an acquire was refused for a limit");
            }
            Event::TimedOut { tenant, phase, waited } => {
                tracing::warn!(target: "tenantry", %tenant, ?phase, ?waited, others, "an acquire had no connection in time");
            }
            Event::ServerFull { server, tenant } => {
                tracing::warn!(target: "tenantry", %server, %tenant, others, "a server says that it is full");
            }
            Event::CircuitOpened { tenant, kind, failures, retry_after } => {
                tracing::warn!(
                    target: "tenantry", %tenant, ?kind, failures, ?retry_after, others,
                    "a tenant's connect failed, the next has to wait"
                );
            }
            Event::CircuitClosed { tenant } => {
                tracing::info!(target: "tenantry", %tenant, others, "a tenant whose connects failed is back");
            }
            _ => {}
        }
    }
}

/// Spans around what takes time: one for each acquire that is not served at once, one for each connect. Without the feature they
/// are nothing.
pub(crate) mod spans {
    use std::fmt::Debug;
    use std::time::Duration;

    use tracing::Span;
    use tracing::field::Empty;

    use crate::ledger::{Failure, Refusal};
    use crate::{AcquireOptions, ConnectOutcome, Priority, ServerId, TenantId};

    /// `line` is the tenant's name, or that of a line for work on a server.
    pub(crate) fn acquire(line: &str, permits: u32, options: AcquireOptions) -> Span {
        if !cfg!(feature = "tracing") {
            return Span::none();
        }
        let tenant = if line.starts_with('\u{1}') { "" } else { line };
        let background = options.priority == Priority::Background;
        tracing::info_span!(
            target: "tenantry", "tenantry.acquire",
            tenant, permits = permits.max(1), background, outcome = Empty, phase = Empty, waited = Empty
        )
    }

    /// How it ended: in seconds, and where it was refused what it was waiting for.
    pub(crate) fn ended<E>(span: &Span, refusal: Option<&Refusal<E>>, waited: Duration) {
        if span.is_disabled() {
            return;
        }
        let (outcome, phase) = match refusal {
            None => ("served", None),
            Some(Refusal::Limit(shortage)) => ("limit", Some(tracing::field::debug(&shortage.scope as &dyn Debug))),
            Some(Refusal::Timeout { phase, .. }) => ("timeout", Some(tracing::field::debug(phase as &dyn Debug))),
            Some(Refusal::Connect { kind, .. }) => ("failed", Some(tracing::field::debug(kind as &dyn Debug))),
            Some(Refusal::Unavailable { kind, .. }) => ("unavailable", Some(tracing::field::debug(kind as &dyn Debug))),
            Some(Refusal::Draining) => ("draining", None),
            Some(Refusal::Removed) => ("removed", None),
            Some(Refusal::Closed) => ("closed", None),
        };
        span.record("outcome", outcome).record("waited", waited.as_secs_f64());
        if let Some(phase) = phase {
            span.record("phase", phase);
        }
    }

    pub(crate) fn connect(tenant: &TenantId, server: impl FnOnce() -> Option<ServerId>) -> Span {
        if !cfg!(feature = "tracing") {
            return Span::none();
        }
        let server = server().unwrap_or_default();
        tracing::info_span!(
            target: "tenantry", parent: None, "tenantry.connect", %tenant, server = server.as_str(), outcome = Empty
        )
    }

    pub(crate) fn connected<E>(span: &Span, failure: Option<&Failure<E>>) {
        if !span.is_disabled() {
            let outcome = failure.map_or(ConnectOutcome::Opened, Failure::outcome);
            span.record("outcome", tracing::field::debug(outcome));
        }
    }
}
