//! The rules of pool leases: what they may take, how their permits are gathered, and what becomes of those (rule 11).

use std::time::Duration;

use super::rig::{MS, Rig};
use super::rules::reserving;
use crate::ledger::{Ask, Decision, Polled, Refusal};
use crate::{FailureKind, Health, Settings};

#[test]
fn a_pool_larger_than_what_others_reserves_leave_is_refused_at_once() {
    let mut rig = reserving(10, 3);
    let Decision::Refuse(Refusal::Limit(shortage)) = rig.ask("a", Ask { pool: 8, ..Ask::default() }) else {
        panic!("eight of ten with three reserved")
    };
    assert_eq!(shortage.retry_after, None);
    rig.wait_pool("a", 7);
    rig.wait_pool("system", 10);
}

#[test]
fn a_pools_own_idle_connections_make_room_for_it_pins_included() {
    let mut rig = reserving(4, 2);
    let held = [rig.lease("system"), rig.lease("system"), rig.lease("system"), rig.lease("system")];
    let ids = [0, 1, 2, 3].map(|at: usize| held[at].connection.id);
    for held in held {
        rig.release(held, Health::Clean);
    }
    let pool = rig.wait_pool("system", 4);
    assert_eq!(rig.closes.iter().map(|(_, connection)| connection.id).collect::<Vec<_>>(), ids);
    for _ in 0..4 {
        rig.closed();
    }
    let Polled::Pool(permits) = rig.poll(pool) else { panic!("all of them are free") };
    assert_eq!(permits.len(), 4);
}

#[test]
fn permits_freed_for_a_pool_go_to_nobody_else() {
    let mut rig = Rig::with(3, 3);
    for held in [rig.lease("a"), rig.lease("a"), rig.lease("a")] {
        rig.release(held, Health::Clean);
    }
    let pool = rig.wait_pool("a", 3);
    rig.wait("b");
    for _ in 0..3 {
        rig.closed();
        assert_eq!(rig.opens.len(), 0);
    }
    let Polled::Pool(permits) = rig.poll(pool) else { panic!("all three were freed for it") };
    rig.step(|ledger, now| ledger.free_pool(&permits, now));
    assert_eq!(rig.opens.len(), 1);
}

#[test]
fn one_pool_gathers_at_a_time_and_a_cancelled_one_gives_back_what_it_has() {
    let mut rig = Rig::with(4, 4);
    let leases = [rig.lease("x"), rig.lease("x")];
    let (first, second) = (rig.wait_pool("a", 3), rig.wait_pool("b", 3));
    assert_eq!(rig.counts(), [0, 0, 2, 0, 2], "the first has two of three");
    rig.cancel(first);
    assert_eq!(rig.counts(), [0, 0, 2, 0, 2], "now the second");
    let [x, _other] = leases;
    rig.release(x, Health::Clean);
    rig.closed();
    let Polled::Pool(permits) = rig.poll(second) else { panic!("three are free") };
    assert_eq!(permits.len(), 3);
}

#[test]
fn a_pool_that_gives_up_gives_back_what_it_has() {
    let mut rig = Rig::with(2, 2);
    let _lease = rig.lease("x");
    let pool = rig.wait_pool("a", 2);
    let plain = rig.wait("b");
    let _late = rig.give_up(pool);
    rig.opened();
    let _ = rig.granted(plain);
}

#[test]
fn nothing_is_opened_for_a_pool_that_stands_behind_a_caller() {
    let mut rig = Rig::with(3, 3);
    rig.wait("a");
    rig.wait_pool("a", 2);
    assert_eq!(rig.counts(), [1, 0, 0, 0, 0]);
}

#[test]
fn hand_overs_of_others_keep_no_pool_from_its_last_permit_for_longer_than_the_bound() {
    let mut settings = Settings::new(3);
    settings.max_connections_per_tenant = 3;
    settings.handover_bound = Some(MS * 10);
    let mut rig = Rig::new(settings);
    let mut lease = rig.lease("busy");
    let pool = rig.wait_pool("a", 3);
    for _ in 0..3 {
        let next = rig.wait("busy");
        rig.pass(MS * 5);
        rig.release(lease, Health::Clean);
        if rig.closes.len() == 1 {
            rig.closed();
            let Polled::Pool(_) = rig.poll(pool) else { panic!("three are free") };
            return;
        }
        lease = rig.granted(next);
    }
    panic!("after 15 ms it still holds {:?} and has no use of it", rig.counts());
}

#[test]
fn permits_to_come_for_a_pool_take_no_opening_slot_from_others() {
    let mut settings = Settings::new(8);
    settings.max_connections_per_tenant = 8;
    settings.max_connecting = Some(2);
    let mut rig = Rig::new(settings);
    let leases: Vec<_> = (0..8).map(|n| rig.lease(&format!("warm-{n}"))).collect();
    for lease in leases {
        rig.release(lease, Health::Clean);
    }
    rig.wait_pool("a", 4);
    rig.wait("b");
    assert_eq!(rig.counts(), [0, 3, 0, 5, 0]);
}

#[test]
fn a_pool_at_its_tenants_cap_counts_on_what_is_closing_there() {
    let mut rig = Rig::with(1, 1);
    let held = rig.lease("a");
    let pool = rig.wait_pool("a", 1);
    rig.release(held, Health::Broken);
    rig.wait("b");
    rig.closed();
    let Polled::Pool(_) = rig.poll(pool) else { panic!("it was the first to wait for that permit") };
}

#[test]
fn what_a_caller_was_promised_is_not_gathered() {
    let mut rig = Rig::with(3, 3);
    rig.warm_up("victim");
    let held = rig.lease("x");
    let _out = rig.lease("x");
    let caller = rig.wait("b");
    rig.release(held, Health::Broken);
    let pool = rig.wait_pool("a", 2);
    let victim = rig.closes.remove(0);
    rig.closed();
    assert_eq!(rig.counts(), [0, 0, 1, 1, 1], "it gathers: one of two");
    rig.closes.push(victim);
    rig.closed();
    rig.opened();
    let _ = rig.granted(caller);
    rig.pending(pool);
}

#[test]
fn a_pool_that_gathers_nothing_yet_passes_nobody_over() {
    let mut settings = Settings::new(2);
    settings.handover_bound = Some(Duration::ZERO);
    let mut rig = Rig::new(settings);
    let (held, had) = (rig.lease("a"), rig.lease("b"));
    rig.release(had, Health::Broken);
    rig.closed();
    let _out = rig.lease("x");
    let next = rig.wait("a");
    rig.wait_pool("b", 1);
    rig.release(held, Health::Clean);
    // It is the turn of `a`, which had its last one before `b`.
    let _ = rig.granted(next);
}

#[test]
fn a_pool_rests_with_its_tenants_circuit() {
    let mut rig = Rig::with(1, 1);
    let waiter = rig.wait("a");
    rig.cancel(waiter);
    let pool = rig.wait_pool("a", 1);
    rig.open_failed(FailureKind::ServerFull);
    rig.pending(pool);
    assert_eq!(rig.counts(), [0; 5]);
    rig.pass(MS * 200);
    let Polled::Pool(_) = rig.poll(pool) else { panic!("the rest is over") };
}

#[test]
fn pool_leases_of_two_tenants_take_turns() {
    let mut rig = Rig::with(2, 2);
    let out = [rig.lease("x"), rig.lease("x")];
    let lines = ["a", "b"].map(|tenant| [rig.wait_pool(tenant, 2), rig.wait_pool(tenant, 2), rig.wait_pool(tenant, 2)]);
    for held in out {
        rig.release(held, Health::Broken);
    }
    rig.closed();
    rig.closed();
    for turn in 0..6 {
        let waiter = lines[turn % 2][turn / 2];
        let Polled::Pool(permits) = rig.poll(waiter) else { panic!("turn {turn}") };
        rig.step(|ledger, now| ledger.free_pool(&permits, now));
    }
}

#[test]
fn a_pool_has_one_turn_for_what_it_is_promised_and_gets() {
    let mut rig = Rig::with(3, 3);
    let [first, second, third] = ["x", "y", "z"].map(|tenant| rig.lease(tenant));
    let pools = [rig.wait_pool("a", 1), rig.wait_pool("a", 1)];
    let callers = [rig.wait("b"), rig.wait("b")];
    rig.release(first, Health::Broken);
    rig.release(second, Health::Broken);
    rig.closed();
    rig.closed();
    rig.opened();
    let Polled::Pool(_) = rig.poll(pools[0]) else { panic!("it was the first to wait") };
    let _held = rig.granted(callers[0]);
    rig.release(third, Health::Broken);
    rig.closed();
    let Polled::Pool(_) = rig.poll(pools[1]) else { panic!("each had one turn, and `a` was the first") };
}

#[test]
fn a_permit_that_was_promised_to_a_pool_opens_nothing_without_a_slot() {
    let mut settings = Settings::new(2);
    settings.max_connecting = Some(1);
    let mut rig = Rig::new(settings);
    rig.warm_up("victim");
    let first = rig.wait("b");
    let pool = rig.wait_pool("a", 1);
    let second = rig.wait("a");
    assert_eq!(rig.closes.len(), 1);
    rig.cancel(pool);
    rig.closed();
    assert_eq!(rig.opens.len(), 1, "only `b`'s is under way");
    rig.opened();
    let _ = rig.granted(first);
    rig.opened();
    let _ = rig.granted(second);
}

/// On a small stack.
#[test]
fn a_pool_lease_of_thousands_that_is_given_up_gives_all_its_promises_back() {
    const MANY: u32 = 2_000;
    let run = || {
        let mut rig = Rig::with(MANY, MANY);
        rig.recounts = false;
        let held: Vec<_> = (0..MANY).map(|_| rig.lease("a")).collect();
        held.into_iter().for_each(|held| rig.release(held, Health::Clean));
        let pool = rig.wait_pool("b", MANY);
        assert_eq!(rig.closes.len(), MANY as usize, "each makes room for it");
        rig.cancel(pool);
        rig.ledger.check();
        let waiter = rig.wait("c");
        rig.closed();
        rig.opened();
        let _ = rig.granted(waiter);
    };
    std::thread::Builder::new().stack_size(512 << 10).spawn(run).unwrap().join().unwrap();
}
