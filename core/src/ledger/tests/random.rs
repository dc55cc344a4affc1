//! Anything, in any order: the invariants hold after every step, and in the end every permit is free.

use super::rig::{Conn, MS, Rig};
use crate::ledger::{Ask, Decision, Failure, Held, PermitKey, Polled, TryDecision, WaiterKey};
use crate::{FailureKind, Health, ServerId, Settings, TenantId, TenantLimits};

#[derive(Default)]
struct Hands {
    leases: Vec<Held<Conn>>,
    waiters: Vec<WaiterKey>,
    pools: Vec<Vec<PermitKey>>,
    closing_pools: Vec<Vec<PermitKey>>,
    background: bool,
}

const TENANTS: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "system"];
const HEALTHS: [Health; 5] = [Health::Clean, Health::Clean, Health::Dirty, Health::Broken, Health::Lost];
const KINDS: [FailureKind; 4] =
    [FailureKind::ServerFull, FailureKind::NoSuchTenant, FailureKind::Unreachable, FailureKind::Auth];

fn pick<T>(random: &mut fastrand::Rng, from: &mut Vec<T>) -> Option<T> {
    (!from.is_empty()).then(|| from.swap_remove(random.usize(..from.len())))
}

fn settings(random: &mut fastrand::Rng) -> Settings {
    let total = random.u32(2..8);
    let mut settings = Settings::new(total);
    settings.max_connections_per_tenant = random.u32(1..=total);
    settings.max_waiters = random.u32(0..20);
    settings.max_waiters_per_tenant = random.u32(0..=settings.max_waiters);
    settings.max_connecting = [None, Some(1), Some(total)][random.usize(..3)];
    settings.handover_bound = [None, Some(std::time::Duration::ZERO), Some(MS * 5)][random.usize(..3)];
    settings.max_known_tenants = if random.bool() { total + settings.max_waiters } else { 1_000 };
    settings.forget_after = MS * random.u32(1..5_000);
    settings.max_lifetime = MS * random.u32(20..2_000);
    settings.idle_timeout = MS * random.u32(20..2_000);
    settings.validate_after_idle = MS * random.u32(0..1_000);
    settings.close_timeout = MS * random.u32(1..300);
    settings.background_share = [None, Some(random.u32(1..=total))][random.usize(..2)];
    settings.background_steals_after = MS * [0, 100, 10_000][random.usize(..3)];
    if random.bool() {
        settings.servers.insert("two".into(), random.u32(1..=total));
    }
    if random.bool() {
        let (max, weight) = (random.u32(1..=total), random.u32(1..4));
        let limits = TenantLimits::new().max(max).weight(weight).reserve(random.u32(0..=max.min(total - 1)));
        settings.tenants.insert(TenantId::new("system").expect("valid"), limits);
    }
    settings
}

fn server_of(tenant: &str) -> ServerId {
    ServerId::from(if tenant < "d" { "two" } else { "" })
}

fn one_step(rig: &mut Rig, hands: &mut Hands, random: &mut fastrand::Rng) {
    let tenant = TENANTS[random.usize(..TENANTS.len())];
    match random.u32(..if hands.background { 37 } else { 30 }) {
        0..=6 => asked(hands, rig.acquire(tenant)),
        7 => {
            if let Decision::Wait(waiter) =
                rig.ask(tenant, Ask { pool: random.u32(1..4), caller: 7, background: false })
            {
                hands.waiters.push(waiter);
            }
        }
        // In some worlds a fifth of the work is background work.
        30..=36 => asked(hands, rig.ask(tenant, Ask { background: true, ..Ask::default() })),
        8 => {
            if let TryDecision::Take(held) = rig.try_acquire(tenant) {
                hands.leases.push(held);
            }
        }
        9..=13 => {
            if let Some(held) = pick(random, &mut hands.leases) {
                rig.release(held, HEALTHS[random.usize(..HEALTHS.len())]);
            }
        }
        14..=16 => {
            let index = if hands.waiters.is_empty() {
                return;
            } else {
                random.usize(..hands.waiters.len())
            };
            let polled = rig.poll(hands.waiters[index]);
            if !matches!(polled, Polled::Pending(_)) {
                hands.waiters.swap_remove(index);
            }
            collect(hands, polled);
        }
        17 => {
            if let Some(waiter) = pick(random, &mut hands.waiters) {
                rig.cancel(waiter);
            }
        }
        18 => {
            if let Some(waiter) = pick(random, &mut hands.waiters) {
                let polled = rig.step(|ledger, now| ledger.give_up(waiter, now));
                collect(hands, polled);
            }
        }
        19 => operate(rig, random, tenant),
        20 => {
            rig.step(|ledger, now| ledger.resume(tenant, &server_of(tenant), now));
        }
        21 => {
            let renewed = random.bool();
            rig.step(|ledger, now| if renewed { ledger.renew(Some(tenant), now) } else { ledger.evict(tenant, now) });
        }
        22 => {
            if let Some(permits) = pick(random, &mut hands.pools) {
                rig.step(|ledger, now| ledger.closing_pool(&permits, now));
                hands.closing_pools.push(permits);
            }
        }
        23 => {
            if let Some(permits) = pick(random, &mut hands.closing_pools) {
                rig.step(|ledger, now| permits.iter().for_each(|&permit| ledger.closed(permit, now)));
            }
        }
        24 => rig.pass(MS * random.u32(..400)),
        _ => one_answer(rig, random),
    }
}

fn asked(hands: &mut Hands, decision: Decision<Conn, super::rig::Oops>) {
    match decision {
        Decision::Take(held) => hands.leases.push(held),
        Decision::Wait(waiter) => hands.waiters.push(waiter),
        Decision::Refuse(_) => {}
        Decision::Unknown => panic!("the rig admits who is not known"),
    }
}

fn operate(rig: &mut Rig, random: &mut fastrand::Rng, tenant: &str) {
    match random.u32(..12) {
        0 | 1 => {
            rig.step(|ledger, now| ledger.drain(tenant, now));
        }
        2 => {
            rig.step(|ledger, now| ledger.remove(tenant, now));
        }
        3 | 4 => rig.step(|ledger, now| ledger.created(tenant, now)),
        5 => rig.step(|ledger, now| ledger.pause(&server_of(tenant), now)),
        6..=8 => {
            rig.step(|ledger, now| ledger.unpause(&server_of(tenant), now));
        }
        9 => {
            let new = settings(random);
            rig.step(|ledger, now| ledger.set_limits(new, now));
        }
        _ => {}
    }
}

fn collect(hands: &mut Hands, polled: Polled<Conn, super::rig::Oops>) {
    match polled {
        Polled::Connection(held) => hands.leases.push(held),
        Polled::Pool(permits) => hands.pools.push(permits),
        Polled::Pending(_) | Polled::Refused(_) => {}
    }
}

fn one_answer(rig: &mut Rig, random: &mut fastrand::Rng) {
    rig.now += MS * random.u32(..3);
    match random.u32(..4) {
        0 if !rig.opens.is_empty() => {
            let at = random.usize(..rig.opens.len());
            rig.opens.swap(0, at);
            rig.opened();
        }
        1 if !rig.opens.is_empty() => {
            let (permit, _) = rig.opens.swap_remove(random.usize(..rig.opens.len()));
            let kind = KINDS[random.usize(..KINDS.len())];
            let failure = match random.u32(..4) {
                0 => Failure::Panicked,
                1 => Failure::TimedOut,
                _ => Failure::Error { kind, source: std::sync::Arc::new(super::rig::Oops) },
            };
            let chance = random.u64(..);
            rig.step(|ledger, now| ledger.open_failed(permit, failure, chance, now));
        }
        2 if !rig.closes.is_empty() => {
            let at = random.usize(..rig.closes.len());
            rig.closes.swap(0, at);
            rig.closed();
        }
        3 if !rig.recycles.is_empty() => {
            let (permit, connection) = rig.recycles.swap_remove(random.usize(..rig.recycles.len()));
            if random.u32(..3) > 0 {
                rig.step(|ledger, now| ledger.recycled(permit, connection, now));
            } else {
                rig.step(|ledger, now| ledger.recycle_failed(permit, now));
                rig.closes.push((permit, connection));
            }
        }
        _ => {}
    }
}

/// Everything comes back; then nothing may be left.
fn wind_down(rig: &mut Rig, hands: &mut Hands, close_first: bool) {
    if close_first {
        rig.step(|ledger, now| ledger.close(now));
    }
    for _ in 0..10_000 {
        if let Some(held) = hands.leases.pop() {
            rig.release(held, Health::Clean);
        } else if let Some(waiter) = hands.waiters.pop() {
            rig.cancel(waiter);
        } else if let Some(permits) = hands.pools.pop().or_else(|| hands.closing_pools.pop()) {
            rig.step(|ledger, now| ledger.free_pool(&permits, now));
        } else if !rig.opens.is_empty() {
            rig.opened();
        } else if !rig.recycles.is_empty() {
            rig.recycled();
        } else if !rig.closes.is_empty() {
            rig.closed();
        } else {
            break;
        }
    }
    rig.step(|ledger, now| ledger.close(now));
    while !rig.closes.is_empty() {
        rig.closed();
    }
    assert_eq!(rig.counts(), [0; 5], "every permit comes back");
    assert_eq!(rig.ledger.stats().waiting, 0);
}

fn run(seed: u64, steps: u32) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut rig = Rig::new(settings(&mut random));
    rig.server_of = server_of;
    if rig.ledger.settings.tenants.len() == 1 {
        let name = TenantId::new("system").expect("valid");
        rig.step(|ledger, now| ledger.admit(name, &server_of("system"), now));
    }
    let mut hands = Hands { background: random.bool(), ..Hands::default() };
    for _ in 0..steps {
        one_step(&mut rig, &mut hands, &mut random);
    }
    wind_down(&mut rig, &mut hands, random.bool());
}

#[test]
fn anything_in_any_order_keeps_the_invariants_and_loses_no_permit() {
    for seed in 0..400 {
        let result = std::panic::catch_unwind(|| run(seed, 400));
        assert!(result.is_ok(), "seed {seed} failed");
    }
}
