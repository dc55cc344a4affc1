//! How a refusal and the statistics of the ledger are compared with what the reference expects.

use std::time::Duration;

use tenantry_core::ledger::{Refusal as Refused, Shortage as Short};
use tenantry_core::{CircuitState, TenantId};

use super::driver::{Driver, Oops};
use super::expectation::{Refusal, Retry, Shortage};
use super::reference::{Circuit, Events, Mode, Reference, State};
use super::world::{SERVERS, TENANTS, server_id, tenant_id};

pub(crate) fn same_refusal(seen: &Refused<Oops>, expected: &Refusal, acquire_timeout: Duration) {
    let same = match (seen, expected) {
        (Refused::Limit(seen), Refusal::Limit(expected)) => return same_shortage(seen, expected, acquire_timeout),
        (Refused::Timeout { phase, waited }, Refusal::Timeout { phase: in_phase, waited: for_long }) => {
            phase == in_phase && waited == for_long
        }
        (Refused::Connect { kind, source }, Refusal::Connect { kind: of_kind, error }) => {
            kind == of_kind && source.number == *error
        }
        (
            Refused::Unavailable { kind, retry_after, source },
            Refusal::Unavailable { kind: of_kind, retry_after: later, error },
        ) => kind == of_kind && retry_after == later && source.as_ref().map(|source| source.number) == *error,
        (Refused::Draining, Refusal::Draining) | (Refused::Removed, Refusal::Removed) => true,
        (Refused::Closed, Refusal::Closed) => true,
        _ => false,
    };
    assert!(same, "refused with {seen:?}, expected was {expected:?}");
}

fn same_shortage(seen: &Short, expected: &Shortage, acquire_timeout: Duration) {
    let numbers = (seen.scope, seen.limit, seen.open, seen.waiting, seen.waited, seen.held_by_caller);
    let Shortage { scope, limit, open, waiting, waited, held_by_caller, .. } = *expected;
    assert_eq!(
        numbers,
        (scope, limit, open, waiting, waited, held_by_caller),
        "a refusal's scope, limit, open, waiting, waited and held_by_caller"
    );
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(60));
    match (expected.retry, seen.retry_after) {
        (Retry::Never, None) => {}
        (Retry::AfterAcquireTimeout, Some(after)) => {
            assert_eq!(after, acquire_timeout.clamp(least, most), "nothing came back in this scope yet");
        }
        (Retry::Estimated, Some(after)) => assert!((least..=most).contains(&after), "retry after {after:?}"),
        (expected, seen) => panic!("a retry after {seen:?}, expected was {expected:?}"),
    }
    let held: Vec<u32> = seen.holders.iter().map(|holder| holder.connections).collect();
    let largest: Vec<u32> = expected.holders.iter().take(5).map(|&(_, held)| held).collect();
    assert_eq!(held, largest, "the largest holders");
    for holder in &seen.holders {
        let known = |&(tenant, held): &(usize, u32)| tenant_id(tenant) == holder.tenant && held == holder.connections;
        assert!(expected.holders.iter().any(known), "{holder:?} among {:?}", expected.holders);
    }
}

/// Permits by state: opening, idle, in use, closing, pool.
fn places<'a>(states: impl Iterator<Item = &'a State>) -> [u64; 5] {
    let mut places = [0; 5];
    for state in states {
        let place = match state {
            State::Opening => 0,
            State::Idle => 1,
            State::Leased | State::Granted(_) | State::Recycling => 2,
            State::Closing { .. } => 3,
            State::Pool => 4,
        };
        places[place] += 1;
    }
    places
}

/// Everything that the statistics say.
pub(crate) fn same_statistics(driver: &Driver, expected: &Reference) {
    let stats = driver.ledger.stats();
    let permits = &expected.permits;
    assert_eq!(
        [stats.opening, stats.idle, stats.in_use, stats.closing, stats.pool_leased],
        places(permits.iter().map(|permit| &permit.state)),
        "all that are opening, idle, in use, closing, of pools"
    );
    let overdue = |state: &State| matches!(state, State::Closing { overdue: true, .. });
    let overdue = permits.iter().filter(|permit| overdue(&permit.state)).count();
    assert_eq!(stats.overdue, overdue as u64, "overdue closes");
    let share = (u64::from(expected.charged()), u64::from(expected.world.background_share()));
    assert_eq!((stats.background, stats.background_share), share, "what background work holds, and may");
    assert_eq!(stats.waiting, expected.waiting() as u64, "waiters in line");
    let known: Vec<TenantId> = (0..TENANTS).filter(|&tenant| expected.is_known(tenant)).map(tenant_id).collect();
    let listed = (0..TENANTS).map(tenant_id).filter(|name| driver.ledger.tenant_stats(name.as_str()).is_some());
    assert_eq!(listed.collect::<Vec<_>>(), known, "who is known");
    assert_eq!(stats.tenants, known.len() as u64, "how many are known");
    assert_eq!(stats.closed, expected.closed, "closed");
    for tenant in (0..TENANTS).filter(|&tenant| expected.is_known(tenant)) {
        same_tenant(driver, expected, tenant);
    }
    for server in 0..SERVERS {
        let Some(seen) = stats.servers.iter().find(|seen| seen.server == server_id(server)) else { continue };
        let there = permits.iter().filter(|permit| permit.server == server).map(|permit| &permit.state);
        let [opening, idle, ..] = places(there.clone());
        assert_eq!(
            (seen.open, seen.idle, seen.opening, seen.effective_max, seen.epoch),
            (there.count() as u64, idle, opening, expected.cap_of(server).into(), expected.epoch(server).into()),
            "open, idle, opening, the effective cap and the epoch of server {server}"
        );
    }
    let totals = stats.totals;
    let events = Events {
        connects: totals.connects,
        connect_failures: totals.connect_failures,
        server_full: totals.server_full,
        warm_hits: totals.warm_hits,
        waits: totals.waits,
        waited: totals.waited,
        hand_overs: totals.hand_overs,
        recycles: totals.recycles,
        evictions: totals.evictions,
        closed_evict: totals.closed_evict,
        closed_idle: totals.closed_idle,
        closed_lifetime: totals.closed_lifetime,
        closed_broken: totals.closed_broken,
        refusals: totals.refusals,
        timeouts: totals.timeouts,
    };
    assert_eq!(events, expected.events, "the events so far");
}

fn same_tenant(driver: &Driver, expected: &Reference, tenant: usize) {
    let name = tenant_id(tenant);
    let seen = driver.ledger.tenant_stats(name.as_str()).expect("it is known");
    let theirs = expected.permits.iter().filter(|permit| permit.tenant == tenant);
    assert_eq!(
        [seen.opening, seen.idle, seen.in_use, seen.closing, seen.pool_leased],
        places(theirs.map(|permit| &permit.state)),
        "{name:?}: opening, idle, in use, closing, of pools"
    );
    assert_eq!(seen.waiting, expected.waiting_of(tenant) as u64, "{name:?}: waiters in line");
    let modes = (expected.is_draining(tenant), expected.mode(tenant) == Some(Mode::Removed));
    assert_eq!((seen.draining, seen.removed), modes, "{name:?}: draining, removed");
    assert_eq!(seen.server, server_id(expected.server_of(tenant)), "{name:?}: its server");
    let circuit = match seen.circuit {
        CircuitState::Open { kind, .. } => Circuit::Open(kind),
        CircuitState::HalfOpen { kind, .. } => Circuit::HalfOpen(kind),
        CircuitState::ServerFull { .. } => Circuit::ServerFull,
        _ => Circuit::Closed,
    };
    assert_eq!(circuit, expected.circuit(tenant), "{name:?}: its circuit");
}
