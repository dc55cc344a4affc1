//! The rules of refusals: which limit, who holds it, when to retry (rules 5 and 19).

use std::time::Duration;

use super::rig::{Conn, MS, Oops, Rig};
use super::rules::reserving;
use crate::error::LimitScope;
use crate::ledger::{Ask, Decision, Held, Polled, Refusal, Shortage, TryDecision, WaiterKey};
use crate::{Health, Settings};

fn shortage(refusal: Refusal<Oops>) -> Shortage {
    match refusal {
        Refusal::Limit(shortage) => *shortage,
        other => panic!("should be a limit, not {other:?}"),
    }
}

fn give_up(rig: &mut Rig, waiter: WaiterKey) -> Shortage {
    let refusal = rig.give_up(waiter);
    shortage(refusal)
}

fn refused(rig: &mut Rig, tenant: &str) -> Shortage {
    let refusal = rig.refused(tenant);
    shortage(refusal)
}

fn with_lines(total: u32, waiters: u32, of_one_tenant: u32) -> Rig {
    let mut settings = Settings::new(total);
    settings.max_connections_per_tenant = 1;
    settings.max_waiters = waiters;
    settings.max_waiters_per_tenant = of_one_tenant;
    Rig::new(settings)
}

#[test]
fn a_refusal_names_the_narrowest_limit_that_was_short() {
    for (of_tenant, on_server, total, scope, limit) in [
        (1, None, 1, LimitScope::Tenant, 1),
        (2, Some(1), 1, LimitScope::Server, 1),
        (2, Some(2), 1, LimitScope::Total, 1),
        (2, None, 1, LimitScope::Total, 1),
    ] {
        let mut settings = Settings::new(total);
        settings.max_connections_per_tenant = of_tenant;
        settings.servers.extend(on_server.map(|cap| (Default::default(), cap)));
        let mut rig = Rig::new(settings);
        let _out = rig.lease("a");
        let waiter = rig.wait("a");
        rig.now += MS * 70;
        let short = give_up(&mut rig, waiter);
        assert_eq!((short.scope, short.limit, short.open, short.waiting), (scope, limit, 1, 1));
        assert_eq!(short.waited, MS * 70);
        assert_eq!(rig.ledger.stats().totals.refused(scope), 1);
    }
}

#[test]
fn a_pool_above_a_cap_is_refused_at_once_by_the_narrowest() {
    for (of_tenant, on_server, scope, limit) in
        [(3, None, LimitScope::Tenant, 3), (5, Some(2), LimitScope::Server, 2), (5, None, LimitScope::Tenant, 5)]
    {
        let mut settings = Settings::new(5);
        settings.max_connections_per_tenant = of_tenant;
        settings.servers.extend(on_server.map(|cap| (Default::default(), cap)));
        let mut rig = Rig::new(settings);
        let Decision::Refuse(refusal) = rig.ask("a", Ask { pool: limit + 1, ..Ask::default() }) else {
            panic!("too many")
        };
        let short = shortage(refusal);
        assert_eq!((short.scope, short.limit, short.retry_after), (scope, limit, None));
        rig.wait_pool("a", limit);
    }
}

#[test]
fn a_reserve_is_no_limit_of_a_server_that_has_none() {
    let mut rig = reserving(1, 1);
    let Decision::Refuse(refusal) = rig.ask("a", Ask { pool: 1, ..Ask::default() }) else { panic!("nothing is left") };
    assert_eq!(shortage(refusal).scope, LimitScope::Total);
}

#[test]
fn lines_are_as_long_as_the_limits_say() {
    let mut rig = with_lines(1, 5, 3);
    let _out = rig.lease("a");
    let line: Vec<_> = (0..3).map(|_| rig.wait("a")).collect();
    let short = refused(&mut rig, "a");
    assert_eq!((short.scope, short.limit), (LimitScope::Queue, 3));
    rig.wait("b");
    rig.wait("b");
    let short = refused(&mut rig, "c");
    assert_eq!((short.scope, short.limit), (LimitScope::Queue, 5));
    assert_eq!(rig.ledger.stats().waiting, 5);
    rig.cancel(line[1]);
    rig.wait("c");
}

#[test]
fn a_full_line_is_nothing_to_those_who_need_not_stand_in_it() {
    let mut rig = with_lines(10, 2, 2);
    let _out = rig.lease("greedy");
    rig.wait("greedy");
    rig.wait("greedy");
    rig.wait("other");
    rig.opened();
    assert_eq!(refused(&mut rig, "greedy").scope, LimitScope::Queue);
}

#[test]
fn without_a_line_there_are_still_connections() {
    let mut rig = with_lines(2, 0, 0);
    let held = rig.lease("a");
    assert_eq!(refused(&mut rig, "a").scope, LimitScope::Queue);
    rig.release(held, Health::Clean);
    let _warm = rig.warm("a");
    let _cold = rig.lease("b");
    assert_eq!(rig.counts(), [0, 0, 2, 0, 0]);
}

#[test]
fn a_refused_caller_leaves_nothing_behind() {
    let mut rig = with_lines(1, 0, 0);
    let held = rig.lease("a");
    let before = rig.ledger.stats();
    refused(&mut rig, "a");
    let after = rig.ledger.stats();
    assert_eq!((before.open(), before.waiting), (after.open(), after.waiting));
    rig.release(held, Health::Clean);
    assert_eq!(rig.counts(), [0, 1, 0, 0, 0]);
}

/// The lease comes back and goes to the next of its tenant, `times` times, every `step`; the last one's lease.
fn pace(rig: &mut Rig, tenant: &str, mut lease: Held<Conn>, times: u32, step: Duration) -> Held<Conn> {
    for _ in 0..times {
        let next = rig.wait(tenant);
        rig.now += step;
        rig.release(lease, Health::Clean);
        lease = rig.granted(next);
    }
    lease
}

#[test]
fn retry_after_is_the_place_in_line_times_the_time_between_returns_and_a_time_of_ones_own() {
    let mut settings = Settings::new(2);
    settings.max_connections_per_tenant = 1;
    let mut rig = Rig::new(settings);
    let lease = rig.lease("a");
    let lease = pace(&mut rig, "a", lease, 10, MS * 20);
    let line: Vec<_> = (0..4).map(|_| rig.wait("a")).collect();
    let first = give_up(&mut rig, line[0]);
    assert_eq!((first.scope, first.retry_after), (LimitScope::Tenant, Some(MS * 20)));
    assert_eq!(give_up(&mut rig, line[3]).retry_after, Some(MS * 60), "the third by now");
    assert_eq!(give_up(&mut rig, line[1]).retry_after, Some(MS * 100), "two steps after the last that was told");
    rig.pass(MS * 70);
    assert_eq!(give_up(&mut rig, line[2]).retry_after, Some(MS * 70), "the same, seen 70 ms later");
    rig.release(lease, Health::Clean);
}

#[test]
fn a_connection_that_makes_room_came_back_once() {
    // One permit, two tenants, 20 ms each: a permit is free every 20 ms, though each time one lease and one close end.
    let mut settings = Settings::new(1);
    settings.handover_bound = Some(Duration::ZERO);
    let mut rig = Rig::new(settings);
    let mut lease = rig.lease("a");
    for turn in 0..20 {
        let next = rig.wait(if turn % 2 == 0 { "b" } else { "a" });
        rig.now += MS * 20;
        rig.release(lease, Health::Clean);
        rig.closed();
        rig.opened();
        lease = rig.granted(next);
    }
    let late = rig.wait("c");
    assert_eq!(give_up(&mut rig, late).retry_after, Some(MS * 20));
    rig.release(lease, Health::Clean);
}

#[test]
fn retry_after_is_acquire_timeout_before_anything_came_back() {
    let mut rig = Rig::with(1, 1);
    let _out = rig.lease("a");
    let waiter = rig.wait("a");
    assert_eq!(give_up(&mut rig, waiter).retry_after, Some(Duration::from_secs(5)));
}

#[test]
fn retry_after_is_between_a_millisecond_and_a_minute() {
    for (step, expected) in [(Duration::from_micros(3), MS), (Duration::from_secs(50), Duration::from_secs(60))] {
        let mut rig = Rig::with(1, 1);
        let lease = rig.lease("a");
        let lease = pace(&mut rig, "a", lease, 10, step);
        let (_first, second) = (rig.wait("a"), rig.wait("a"));
        assert_eq!(give_up(&mut rig, second).retry_after, Some(expected));
        rig.release(lease, Health::Clean);
    }
}

#[test]
fn quiet_times_are_no_part_of_the_pace() {
    for scope in [LimitScope::Tenant, LimitScope::Server, LimitScope::Total] {
        let mut settings = Settings::new(2);
        settings.max_connections_per_tenant = if scope == LimitScope::Tenant { 1 } else { 2 };
        settings.validate_after_idle = Duration::from_secs(86_400);
        settings.max_lifetime = Duration::from_secs(86_400);
        if scope == LimitScope::Server {
            settings.servers.insert(Default::default(), 1);
        } else if scope == LimitScope::Total {
            settings.max_connections = 1;
        }
        let mut rig = Rig::new(settings);
        let mut lease = rig.lease("a");
        for _ in 0..3 {
            rig.release(lease, Health::Clean);
            rig.pass(Duration::from_secs(200));
            lease = rig.warm("a");
        }
        let line: Vec<_> = (0..5).map(|_| rig.wait("a")).collect();
        for &next in &line[..4] {
            rig.now += MS * 10;
            rig.release(lease, Health::Clean);
            rig.pass(Duration::ZERO);
            lease = rig.granted(next);
        }
        let short = give_up(&mut rig, line[4]);
        assert_eq!((short.scope, short.retry_after), (scope, Some(MS * 10)));
        rig.release(lease, Health::Clean);
    }
}

#[test]
fn a_full_line_of_one_tenant_goes_by_its_own_pace() {
    let mut settings = Settings::new(2);
    settings.max_connections_per_tenant = 1;
    settings.max_waiters_per_tenant = 3;
    let mut rig = Rig::new(settings);
    let slow = rig.lease("slow");
    let quick = rig.lease("quick");
    let (mut slow, mut quick) = (slow, quick);
    for _ in 0..10 {
        quick = pace(&mut rig, "quick", quick, 99, MS);
        slow = pace(&mut rig, "slow", slow, 1, MS);
    }
    for _ in 0..3 {
        rig.wait("slow");
    }
    let short = refused(&mut rig, "slow");
    assert_eq!((short.scope, short.retry_after), (LimitScope::Queue, Some(MS * 400)), "three wait, each 100 ms");
    rig.release(slow, Health::Clean);
    rig.release(quick, Health::Clean);
}

#[test]
fn a_refusal_names_the_five_largest_holders_the_largest_first() {
    let mut settings = Settings::new(27);
    settings.max_connections_per_tenant = 7;
    settings.max_connecting = Some(54);
    let mut rig = Rig::new(settings);
    let mut out = Vec::new();
    for (tenant, count) in [("one", 1), ("six", 6), ("two", 2), ("five", 5), ("another", 2), ("four", 4), ("seven", 7)]
    {
        for _ in 0..count {
            out.push(rig.lease(tenant));
        }
    }
    let waiter = rig.wait("one");
    let short = give_up(&mut rig, waiter);
    let holders: Vec<_> = short.holders.iter().map(|holder| (holder.tenant.as_str(), holder.connections)).collect();
    assert_eq!(holders[..4], [("seven", 7), ("six", 6), ("five", 5), ("four", 4)]);
    assert_eq!((holders.len(), holders[4].1), (5, 2));
}

#[test]
fn holders_are_counted_anew_when_they_were_counted_ten_milliseconds_ago() {
    let mut rig = Rig::with(2, 2);
    let holders = |rig: &mut Rig| {
        let waiter = rig.wait("c");
        give_up(rig, waiter).holders.iter().map(|holder| holder.connections).collect::<Vec<_>>()
    };
    let (_first, other) = (rig.lease("a"), rig.lease("b"));
    assert_eq!(holders(&mut rig), [1, 1]);
    rig.release(other, Health::Broken);
    rig.closed();
    let _second = rig.lease("a");
    rig.now += MS * 9;
    assert_eq!(holders(&mut rig), [1, 1]);
    rig.now += MS;
    assert_eq!(holders(&mut rig), [2]);
}

#[test]
fn a_refusal_counts_the_leases_of_the_task_that_asks_and_no_others() {
    let mut rig = Rig::with(3, 3);
    let by = |rig: &mut Rig, tenant: &str, caller: u64| {
        let Decision::Wait(waiter) = rig.ask(tenant, Ask { caller, ..Ask::default() }) else { panic!("cold") };
        waiter
    };
    let mine = [by(&mut rig, "a", 7), by(&mut rig, "b", 7)];
    let another = by(&mut rig, "c", 8);
    for _ in 0..3 {
        rig.opened();
    }
    let [kept, returned] = mine.map(|waiter| rig.granted(waiter));
    let _another = rig.granted(another);
    let waiter = by(&mut rig, "d", 7);
    assert_eq!(give_up(&mut rig, waiter).held_by_caller, 2);
    rig.now += MS * 20;
    rig.release(returned, Health::Dirty);
    let waiter = by(&mut rig, "d", 7);
    assert_eq!(give_up(&mut rig, waiter).held_by_caller, 1, "what it gave back is not its own");
    let waiter = by(&mut rig, "d", 0);
    assert_eq!(give_up(&mut rig, waiter).held_by_caller, 0, "nobody knows");
    rig.release(kept, Health::Clean);
}

#[test]
fn a_lease_that_was_there_at_once_counts_for_the_task_that_took_it() {
    let mut rig = Rig::with(1, 1);
    rig.warm_up("a");
    let tried = rig.step(|ledger, now| ledger.try_acquire("a", 7, now));
    assert!(matches!(tried, TryDecision::Take(_)));
    let Decision::Wait(waiter) = rig.ask("a", Ask { caller: 7, ..Ask::default() }) else { panic!("it is out") };
    assert_eq!(give_up(&mut rig, waiter).held_by_caller, 1);
}

#[test]
fn close_ends_everything_and_is_over_when_the_last_permit_is_free() {
    let mut rig = Rig::with(3, 3);
    rig.warm_up("idle");
    let lease = rig.lease("a");
    let opening = rig.wait("b");
    let pool = rig.wait_pool("c", 2);
    rig.step(|ledger, now| ledger.close(now));
    assert!(matches!(rig.refusal(opening), Refusal::Closed) && matches!(rig.refusal(pool), Refusal::Closed));
    assert!(matches!(rig.acquire("a"), Decision::Refuse(Refusal::Closed)));
    rig.opened();
    rig.release(lease, Health::Clean);
    while !rig.closes.is_empty() {
        assert!(!rig.ledger.is_quiet());
        rig.closed();
    }
    assert!(rig.ledger.is_quiet() && rig.opens.is_empty());
}

#[test]
fn a_deadline_that_meets_a_grant_takes_it() {
    let mut rig = Rig::with(1, 1);
    let waiter = rig.wait("a");
    rig.opened();
    let Polled::Connection(_) = rig.step(|ledger, now| ledger.give_up(waiter, now)) else { panic!("it was granted") };
}

#[test]
fn new_settings_say_from_when_on_what_is_idle_is_asked_first() {
    let mut rig = Rig::with(1, 1);
    rig.warm_up("a");
    let mut settings = rig.ledger.settings().clone();
    settings.validate_after_idle = MS;
    rig.step(|ledger, now| ledger.set_limits(settings, now));
    rig.pass(MS);
    rig.wait("a");
    assert_eq!(rig.recycles.len(), 1);
}
