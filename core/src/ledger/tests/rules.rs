//! The rules of who is reused, who is closed, and what is kept. Turns are in `rules_turns.rs`, pool leases in
//! `rules_pools.rs`, failures in `rules_failures.rs`, refusals and forgetting in `rules_limits.rs`.

use super::rig::{MS, Rig};
use crate::ledger::{Polled, TryDecision};
use crate::{FailureKind, Health, ServerId, Settings, TenantId, TenantLimits};

/// `total` permits, all of them for any one tenant, but `reserve` of them for the tenant `system`, which is known.
pub(super) fn reserving(total: u32, reserve: u32) -> Rig {
    let mut settings = Settings::new(total);
    settings.max_connections_per_tenant = total;
    settings.max_connecting = Some(total * 2);
    let system = TenantId::new("system").expect("valid");
    settings.tenants.insert(system, TenantLimits::new().reserve(reserve));
    let mut rig = Rig::new(settings);
    rig.admit("system");
    rig
}

/// The server is what stands before the dash in a tenant's name.
fn by_prefix(tenant: &str) -> ServerId {
    ServerId::from(tenant.split_once('-').map_or("", |(server, _)| server))
}

fn two_servers(total: u32, on_x: u32) -> Rig {
    let mut settings = Settings::new(total);
    settings.max_connections_per_tenant = total;
    settings.max_connecting = Some(total * 2);
    settings.servers.insert("x".into(), on_x);
    let mut rig = Rig::new(settings);
    rig.server_of = by_prefix;
    rig
}

fn victims(rig: &Rig) -> Vec<&str> {
    rig.closes.iter().map(|(_, connection)| connection.tenant.as_str()).collect()
}

#[test]
fn victims_are_taken_in_the_order_of_their_last_use() {
    let mut rig = Rig::with(5, 1);
    for tenant in ["a", "b", "c", "d", "e"] {
        rig.warm_up(tenant);
    }
    for tenant in ["b", "d", "a", "e", "b"] {
        let held = rig.warm(tenant);
        rig.release(held, Health::Clean);
    }
    for cold in ["v", "w", "x", "y", "z"] {
        rig.wait(cold);
    }
    assert_eq!(victims(&rig), ["c", "d", "a", "e", "b"]);
}

#[test]
fn use_is_counted_from_the_end_of_a_lease() {
    let mut rig = Rig::with(2, 1);
    let long = rig.lease("a");
    rig.warm_up("b");
    rig.release(long, Health::Clean);
    rig.wait("c");
    assert_eq!(victims(&rig), ["b"], "a came back last, although it was taken first");
}

#[test]
fn a_tenants_connections_are_reused_newest_first() {
    let mut rig = Rig::with(3, 3);
    let (first, second, third) = (rig.lease("a"), rig.lease("a"), rig.lease("a"));
    let order = [second.connection.id, third.connection.id, first.connection.id];
    for held in [second, third, first] {
        rig.release(held, Health::Clean);
    }
    let again = [rig.warm("a"), rig.warm("a"), rig.warm("a")].map(|held| {
        let id = held.connection.id;
        rig.release(held, Health::Broken);
        id
    });
    assert_eq!(again, [order[2], order[1], order[0]]);
}

#[test]
fn the_oldest_of_a_tenants_connections_is_its_first_victim() {
    let mut rig = Rig::with(3, 3);
    let (first, second, third) = (rig.lease("a"), rig.lease("a"), rig.lease("a"));
    let second_id = second.connection.id;
    for held in [second, first, third] {
        rig.release(held, Health::Clean);
    }
    rig.wait("b");
    assert_eq!(rig.closes[0].1.id, second_id);
}

#[test]
fn a_short_server_gives_a_victim_of_its_own() {
    let mut rig = two_servers(4, 2);
    rig.warm_up("y-old");
    rig.warm_up("x-a");
    rig.warm_up("x-b");
    rig.wait("x-c");
    assert_eq!(victims(&rig), ["x-a"], "another server's oldest would make no room");
}

#[test]
fn a_short_total_gives_the_oldest_of_any_server() {
    let mut rig = two_servers(3, 3);
    rig.warm_up("y-old");
    rig.warm_up("x-a");
    rig.warm_up("x-b");
    rig.wait("x-c");
    assert_eq!(victims(&rig), ["y-old"]);
}

#[test]
fn nothing_is_opened_before_the_victim_has_let_go() {
    let mut rig = Rig::with(1, 1);
    rig.warm_up("a");
    rig.wait("b");
    rig.pass(MS * 5_000);
    assert_eq!((rig.opens.len(), rig.counts()), (0, [0, 0, 0, 1, 0]), "an overdue close holds its permit");
    rig.closed();
    assert_eq!((rig.opens.len(), rig.counts()), (1, [1, 0, 0, 0, 0]));
}

#[test]
fn what_closes_anyway_is_waited_for_before_anything_is_evicted() {
    let mut rig = Rig::with(2, 1);
    rig.warm_up("warm");
    let broken = rig.lease("broken");
    rig.release(broken, Health::Broken);
    rig.wait("a");
    assert_eq!(victims(&rig), ["broken"]);
    rig.wait("b");
    assert_eq!(victims(&rig), ["broken", "warm"]);
}

#[test]
fn a_late_close_is_counted_on_no_more() {
    let mut rig = Rig::with(2, 1);
    let broken = rig.lease("broken");
    rig.warm_up("warm");
    rig.release(broken, Health::Broken);
    let waiter = rig.wait("a");
    rig.pass(MS * 99);
    assert_eq!(victims(&rig), ["broken"]);
    rig.pass(MS);
    assert_eq!(victims(&rig), ["broken", "warm"]);
    let (permit, _) = rig.closes.remove(1);
    rig.step(|ledger, now| ledger.closed(permit, now));
    rig.opened();
    let _ = rig.granted(waiter);
}

#[test]
fn a_close_that_was_late_before_anybody_came_is_not_counted_on_either() {
    let mut rig = Rig::with(2, 1);
    let broken = rig.lease("broken");
    rig.warm_up("warm");
    rig.release(broken, Health::Broken);
    rig.pass(MS * 100);
    rig.wait("a");
    assert_eq!(victims(&rig), ["broken", "warm"]);
}

#[test]
fn hanging_closes_do_not_cost_a_victim_every_tenth_of_a_second() {
    let mut rig = Rig::with(20, 1);
    for n in 0..20 {
        rig.warm_up(&format!("warm-{n}"));
    }
    rig.wait("a");
    for _ in 0..50 {
        rig.pass(MS * 100);
    }
    let taken = rig.closes.len();
    assert!(taken <= 7, "{taken} victims for one waiter in five seconds");
}

/// B8 of the review: each refusal closed one more.
#[test]
fn a_waiter_that_gives_up_costs_no_second_victim() {
    let mut rig = Rig::with(5, 1);
    for tenant in ["a", "b", "c", "d", "e"] {
        rig.warm_up(tenant);
    }
    for tenant in ["v", "w", "x", "y", "z"] {
        let waiter = rig.wait(tenant);
        let _ = rig.give_up(waiter);
    }
    assert_eq!(victims(&rig), ["a"]);
}

#[test]
fn a_cancelled_waiters_victim_serves_the_next() {
    let mut rig = Rig::with(2, 1);
    rig.warm_up("a");
    rig.warm_up("b");
    let waiter = rig.wait("x");
    rig.cancel(waiter);
    rig.wait("y");
    assert_eq!(victims(&rig), ["a"]);
    rig.closed();
    assert_eq!(rig.opens[0].1.as_str(), "y");
}

#[test]
fn a_waiter_served_by_its_own_tenant_leaves_its_victim_to_the_next() {
    let mut rig = Rig::with(3, 2);
    rig.warm_up("a");
    rig.warm_up("b");
    let lease = rig.lease("x");
    let waiter = rig.wait("x");
    rig.release(lease, Health::Clean);
    let _served = rig.granted(waiter);
    rig.wait("y");
    assert_eq!(victims(&rig), ["a"]);
}

#[test]
fn a_failing_tenants_victim_serves_the_next() {
    let mut rig = Rig::with(3, 2);
    rig.warm_up("a");
    rig.warm_up("b");
    let (first, second) = (rig.wait("x"), rig.wait("x"));
    assert_eq!(victims(&rig), ["a"], "one open under way and one to come");
    rig.open_failed(FailureKind::Unreachable);
    let _told = (rig.refusal(first), rig.refusal(second));
    rig.wait("y");
    rig.wait("z");
    assert_eq!(victims(&rig), ["a"], "the failed open's permit and the one on its way are enough");
}

#[test]
fn an_own_closing_is_counted_once_against_the_cap() {
    let mut rig = Rig::with(2, 2);
    let (a, b) = (rig.lease("a"), rig.lease("b"));
    rig.release(a, Health::Broken);
    rig.wait("a");
    rig.wait("a");
    rig.release(b, Health::Broken);
    let (permit, _) = rig.closes.remove(1);
    rig.step(|ledger, now| ledger.closed(permit, now));
    assert_eq!(rig.counts(), [1, 0, 0, 1, 0], "the second waiter uses the free permit");
}

#[test]
fn a_waiter_never_waits_beside_its_tenants_own_idle_connection() {
    let mut rig = Rig::with(2, 2);
    rig.warm_up("x");
    let lease = rig.lease("a");
    let pool = rig.wait_pool("a", 1);
    let waiter = rig.wait("a");
    rig.release(lease, Health::Clean);
    rig.cancel(pool);
    let _ = rig.granted(waiter);
}

#[test]
fn idle_connections_end_after_idle_timeout_the_oldest_first() {
    let mut rig = Rig::with(3, 1);
    rig.warm_up("a");
    rig.now += MS * 1_000;
    rig.warm_up("b");
    rig.pass(MS * 298_999);
    assert_eq!(rig.counts(), [0, 2, 0, 0, 0]);
    rig.pass(MS);
    assert_eq!(victims(&rig), ["a"]);
    rig.pass(MS * 1_000);
    assert_eq!(victims(&rig), ["a", "b"]);
}

#[test]
fn a_lifetime_ends_idle_at_the_tick_and_otherwise_at_the_release_or_the_next_touch() {
    for how in ["tick", "release", "touch"] {
        let mut settings = Settings::new(1);
        settings.max_lifetime = MS * 1_000;
        settings.validate_after_idle = MS * 10_000;
        let mut rig = Rig::new(settings);
        let lease = rig.lease("a");
        if how == "release" {
            rig.pass(MS * 1_000);
            rig.release(lease, Health::Clean);
        } else {
            rig.release(lease, Health::Clean);
            rig.now += MS * 999;
            let early = rig.warm("a");
            rig.release(early, Health::Clean);
            rig.now += MS;
            if how == "tick" {
                rig.step(|ledger, now| ledger.tick(now));
            } else {
                rig.wait("a");
            }
        }
        assert_eq!(victims(&rig), ["a"], "{how}");
    }
}

#[test]
fn lifetimes_of_connections_opened_together_differ_by_up_to_a_tenth() {
    let mut rig = Rig::with(3, 3);
    for random in [0, 179_999, 180_000] {
        rig.wait("a");
        let (permit, tenant) = rig.opens.remove(0);
        let connection = super::rig::Conn { id: 0, tenant: tenant.to_string() };
        rig.step(|ledger, now| ledger.opened(permit, connection, random, now));
    }
    let ends: Vec<_> = rig.ledger.permits.iter().map(|(_, permit)| permit.expires_at.since(rig.now.into())).collect();
    assert_eq!(ends, [MS * 1_800_000, MS * 1_620_001, MS * 1_800_000]);
}

#[test]
fn a_connection_idle_for_long_is_validated_and_try_acquire_takes_it_as_it_is() {
    let mut rig = Rig::with(1, 1);
    rig.warm_up("a");
    rig.now += MS * 499;
    let fresh = rig.warm("a");
    rig.release(fresh, Health::Clean);
    rig.now += MS * 600;
    let TryDecision::Take(as_it_is) = rig.try_acquire("a") else { panic!("it is idle") };
    rig.release(as_it_is, Health::Clean);
    rig.now += MS * 501;
    let waiter = rig.wait("a");
    assert_eq!(rig.recycles.len(), 1);
    rig.recycled();
    let _ = rig.granted(waiter);
}

#[test]
fn one_caller_has_one_connection_validated() {
    let mut rig = Rig::with(3, 3);
    for held in [rig.lease("a"), rig.lease("a"), rig.lease("a")] {
        rig.release(held, Health::Clean);
    }
    rig.now += MS * 600;
    rig.wait("a");
    assert_eq!((rig.recycles.len(), rig.counts()), (1, [0, 2, 1, 0, 0]), "the others keep their place and their age");
}

#[test]
fn a_lost_connection_has_the_idle_ones_of_its_server_validated() {
    let mut rig = two_servers(6, 6);
    for tenant in ["x-a", "x-b", "y-c"] {
        rig.warm_up(tenant);
    }
    let lost = rig.lease("x-lost");
    rig.release(lost, Health::Lost);
    let _unconcerned = rig.warm("y-c");
    let waiters = [rig.wait("x-a"), rig.wait("x-b")];
    assert_eq!(rig.recycles.len(), 2);
    assert!(matches!(rig.try_acquire("x-a"), TryDecision::NotIdle));
    rig.recycled();
    rig.recycled();
    let [a, b] = waiters.map(|waiter| rig.granted(waiter));
    rig.release(a, Health::Clean);
    rig.release(b, Health::Clean);
    let _validated_once = (rig.warm("x-a"), rig.warm("x-b"));
}

#[test]
fn connections_lost_together_are_one_breakage() {
    let mut rig = Rig::with(6, 6);
    let leases: Vec<_> = (0..5).map(|_| rig.lease("a")).collect();
    for lease in leases {
        rig.release(lease, Health::Lost);
    }
    assert_eq!(rig.ledger.stats().servers[0].epoch, 1);
}

#[test]
fn a_connection_older_than_a_breakage_is_validated_before_it_is_handed_over() {
    let mut rig = Rig::with(2, 1);
    let (a, b) = (rig.lease("a"), rig.lease("b"));
    let waiter = rig.wait("a");
    rig.release(b, Health::Lost);
    rig.release(a, Health::Clean);
    rig.pending(waiter);
    rig.recycled();
    let _ = rig.granted(waiter);
}

#[test]
fn a_fit_connection_is_found_behind_one_under_suspicion() {
    let mut rig = Rig::with(4, 4);
    let (old, lost) = (rig.lease("a"), rig.lease("b"));
    rig.release(lost, Health::Lost);
    let fresh = rig.lease("a");
    let id = fresh.connection.id;
    rig.release(fresh, Health::Clean);
    rig.release(old, Health::Clean);
    let TryDecision::Take(held) = rig.try_acquire("a") else { panic!("one is fit") };
    assert_eq!(held.connection.id, id);
}

#[test]
fn a_reserve_is_kept_free_of_others_and_of_their_pool_leases() {
    let mut rig = reserving(5, 2);
    let _leases = [rig.lease("a"), rig.lease("b")];
    let pool = rig.wait_pool("c", 1);
    let Polled::Pool(_) = rig.poll(pool) else { panic!("there is one more") };
    let (plain, pool) = (rig.wait("d"), rig.wait_pool("e", 1));
    assert_eq!(rig.counts(), [0, 0, 2, 0, 1]);
    let (first, second) = (rig.wait("system"), rig.wait("system"));
    rig.opened();
    rig.opened();
    let _reserved = (rig.granted(first), rig.granted(second));
    rig.pending(plain);
    rig.pending(pool);
}

#[test]
fn what_fills_a_reserve_is_no_victim_and_hands_its_pin_on() {
    let mut rig = reserving(2, 1);
    let (first, second) = (rig.lease("system"), rig.lease("system"));
    rig.release(first, Health::Clean);
    rig.release(second, Health::Clean);
    let waiter = rig.wait("a");
    rig.wait("b");
    assert_eq!(victims(&rig), ["system"], "the second one, beyond the reserve");
    rig.closed();
    rig.opened();
    let a = rig.granted(waiter);
    let pinned = rig.warm("system");
    rig.release(pinned, Health::Broken);
    assert_eq!(rig.counts(), [0, 0, 1, 1, 0]);
    rig.closed();
    assert_eq!((rig.opens.len(), rig.counts()), (0, [0, 0, 1, 0, 0]), "its permit is kept for its tenant");
    rig.release(a, Health::Clean);
    rig.warm_up("system");
    assert_eq!(victims(&rig), ["a"], "for b");
}

#[test]
fn a_pin_passes_to_the_tenants_other_connection() {
    for other_is_idle in [true, false] {
        let mut rig = reserving(2, 1);
        let (pinned, other) = (rig.lease("system"), rig.lease("system"));
        rig.release(pinned, Health::Clean);
        let pinned = rig.warm("system");
        let out = if other_is_idle {
            rig.release(other, Health::Clean);
            None
        } else {
            Some(other)
        };
        rig.release(pinned, Health::Broken);
        rig.closed();
        out.into_iter().for_each(|out| rig.release(out, Health::Clean));
        let _out = rig.lease("a");
        rig.wait("b");
        assert_eq!(victims(&rig), [""; 0], "system has one left, and it is reserved");
    }
}

#[test]
fn a_tenant_takes_from_its_reserve_while_others_wait() {
    let mut rig = reserving(3, 1);
    let (system, other) = (rig.lease("system"), rig.lease("b"));
    rig.warm_up("x");
    rig.wait("system");
    rig.wait("c");
    rig.release(system, Health::Broken);
    rig.wait("system");
    rig.wait("system");
    let at = rig.closes.iter().position(|(_, connection)| connection.tenant == "system").expect("it closes");
    let (permit, _) = rig.closes.remove(at);
    rig.step(|ledger, now| ledger.closed(permit, now));
    assert_eq!(rig.opens.len(), 1, "{:?}", rig.counts());
    assert_eq!(rig.opens[0].1.as_str(), "system");
    rig.release(other, Health::Clean);
}

#[test]
fn a_tenant_that_moves_takes_no_others_connections_with_it() {
    let mut rig = Rig::with(4, 4);
    rig.warm_up("a");
    let waiter = rig.wait("b");
    rig.step(|ledger, now| ledger.drain("a", now));
    rig.closed();
    assert!(rig.step(|ledger, now| ledger.resume("a", &"two".into(), now)));
    rig.opened();
    assert_eq!(rig.granted(waiter).connection.tenant, "b");
}
