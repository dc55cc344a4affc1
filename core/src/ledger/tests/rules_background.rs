//! Background work (rule 7): what it may hold, whose connections it closes, and that users do not notice it.

use super::rig::{Conn, MS, Rig};
use crate::error::LimitScope;
use crate::ledger::{Ask, Decision, Held, Refusal, WaiterKey};
use crate::{Health, Settings, TenantId, TenantLimits};

const BACKGROUND: Ask = Ask { pool: 0, background: true, caller: 0 };

impl Rig {
    fn background(&mut self, tenant: &str) -> WaiterKey {
        match self.ask(tenant, BACKGROUND) {
            Decision::Wait(waiter) => waiter,
            other => panic!("background work for {tenant} should wait, not {other:?}"),
        }
    }

    fn borrowed(&mut self, tenant: &str) -> Held<Conn> {
        match self.ask(tenant, BACKGROUND) {
            Decision::Take(held) => held,
            other => panic!("background work for {tenant} should borrow, not {other:?}"),
        }
    }

    /// A connection that background work opened and left idle.
    fn left_idle(&mut self, tenant: &str) {
        let waiter = self.background(tenant);
        self.opened();
        let held = self.granted(waiter);
        self.release(held, Health::Clean);
    }

    /// What is being closed, in the order in which it was begun.
    fn closing(&self) -> Vec<&str> {
        self.closes.iter().map(|(_, connection)| connection.tenant.as_str()).collect()
    }

    fn charged(&self) -> u64 {
        self.ledger.stats().background
    }
}

fn rig(total: u32, share: u32) -> Rig {
    let mut settings = Settings::new(total);
    settings.max_connections_per_tenant = total;
    settings.max_connecting = Some(total * 2);
    settings.background_share = Some(share);
    Rig::new(settings)
}

#[test]
fn the_share_is_a_quarter_of_the_budget_and_at_least_one() {
    for (total, share) in [(1, 1), (3, 1), (8, 2), (100, 25)] {
        assert_eq!(Rig::with(total, 1).ledger.stats().background_share, share);
    }
}

#[test]
fn background_work_opens_as_many_as_its_share_and_no_more() {
    let mut rig = rig(8, 2);
    let waiters = ["a", "b", "c", "d"].map(|tenant| rig.background(tenant));
    assert_eq!((rig.opens.len(), rig.charged()), (2, 2), "though eight are free");
    rig.opened();
    let first = rig.granted(waiters[0]);
    assert_eq!(rig.opens.len(), 1);
    let refusal = rig.give_up(waiters[3]);
    let Refusal::Limit(shortage) = refusal else { panic!("{refusal:?}") };
    assert_eq!((shortage.scope, shortage.limit, shortage.open), (LimitScope::Background, 2, 2));
    rig.release(first, Health::Clean);
    assert_eq!(rig.closing(), ["a"], "its own idle one makes room for its next");
    rig.opened();
    rig.closed();
    assert_eq!(rig.opens[0].1.as_str(), "c");
}

#[test]
fn a_sweep_closes_nothing_that_users_keep_warm() {
    let mut rig = rig(4, 2);
    ["a", "b", "c"].into_iter().for_each(|tenant| rig.warm_up(tenant));
    for tenant in 0..20 {
        let waiter = rig.background(&format!("swept-{tenant}"));
        if !rig.closes.is_empty() {
            rig.closed();
        }
        rig.opened();
        let held = rig.granted(waiter);
        rig.release(held, Health::Clean);
        rig.pass(MS * 100);
    }
    for tenant in ["a", "b", "c"] {
        assert_eq!(rig.ledger.tenant_stats(tenant).map(|stats| stats.idle), Some(1), "{tenant}");
    }
}

#[test]
fn below_its_share_background_work_takes_what_was_idle_for_long() {
    let mut rig = rig(2, 1);
    rig.warm_up("old");
    rig.pass(MS * 6_000);
    rig.warm_up("young");
    let waiter = rig.background("sweep");
    rig.pass(MS * 3_900);
    assert!(rig.closes.is_empty(), "idle for 9.9 s");
    rig.pass(MS * 100);
    assert_eq!(rig.closing(), ["old"]);
    rig.closed();
    rig.opened();
    let _sweeping = rig.granted(waiter);
    rig.background("another");
    rig.pass(MS * 60_000);
    assert_eq!(rig.ledger.tenant_stats("young").map(|stats| stats.idle), Some(1), "the share is taken");
}

#[test]
fn what_is_borrowed_is_as_old_as_before() {
    let mut rig = rig(3, 1);
    ["a", "b", "c"].into_iter().for_each(|tenant| {
        rig.warm_up(tenant);
        rig.now += MS * 10;
    });
    for _ in 0..3 {
        let held = rig.borrowed("a");
        rig.now += MS * 10;
        rig.release(held, Health::Clean);
    }
    rig.wait("d");
    assert_eq!(rig.closing(), ["a"]);
    // The same through a cleaning.
    let held = rig.borrowed("b");
    rig.release(held, Health::Dirty);
    rig.recycled();
    rig.wait("e");
    assert_eq!(rig.closing(), ["a", "b"]);
}

#[test]
fn what_is_borrowed_stands_where_it_was_within_its_tenant() {
    let mut rig = rig(4, 2);
    let leases = [rig.lease("a"), rig.lease("a")];
    let [older, newer] = leases;
    let (old, new) = (older.connection.id, newer.connection.id);
    rig.release(older, Health::Clean);
    rig.now += MS;
    rig.release(newer, Health::Clean);
    let (first, second) = (rig.borrowed("a"), rig.borrowed("a"));
    assert_eq!((first.connection.id, second.connection.id), (new, old));
    rig.now += MS;
    rig.release(first, Health::Clean);
    rig.now += MS;
    rig.release(second, Health::Clean);
    assert_eq!(rig.warm("a").connection.id, new, "the one that users used last");
}

#[test]
fn what_is_borrowed_stays_the_newest_of_those_that_came_back_in_one_moment() {
    let mut rig = rig(4, 1);
    for held in [rig.lease("a"), rig.lease("a")] {
        rig.release(held, Health::Clean);
    }
    let held = rig.borrowed("a");
    let newest = held.connection.id;
    rig.release(held, Health::Clean);
    assert_eq!(rig.warm("a").connection.id, newest);
}

#[test]
fn borrowed_connections_count_against_the_share() {
    let mut rig = rig(4, 1);
    ["a", "b"].into_iter().for_each(|tenant| rig.warm_up(tenant));
    let held = rig.borrowed("a");
    let waiter = rig.background("b");
    rig.pending(waiter);
    rig.release(held, Health::Clean);
    let held = rig.granted(waiter);
    assert_eq!(rig.charged(), 1);
    rig.release(held, Health::Clean);
    assert_eq!(rig.charged(), 0);
}

#[test]
fn what_background_left_idle_makes_room_for_what_it_borrows() {
    let mut rig = rig(4, 1);
    rig.warm_up("warm");
    rig.left_idle("swept");
    let held = rig.borrowed_after_waiting("warm");
    assert_eq!((rig.closing(), rig.charged()), (vec!["swept"], 1));
    rig.release(held, Health::Clean);
    assert_eq!(rig.charged(), 0);
}

impl Rig {
    fn borrowed_after_waiting(&mut self, tenant: &str) -> Held<Conn> {
        let waiter = self.background(tenant);
        self.granted(waiter)
    }
}

#[test]
fn what_is_borrowed_is_nobodys_victim() {
    let mut rig = rig(2, 1);
    rig.warm_up("a");
    rig.now += MS;
    rig.warm_up("b");
    let held = rig.borrowed("a");
    rig.pass(MS * 400_000);
    assert_eq!(rig.closing(), ["b"], "idle for longer than idle_timeout; `a` is in use");
    rig.closed();
    rig.release(held, Health::Clean);
    rig.pass(MS * 1_000);
    assert_eq!(rig.closing(), ["a"], "borrowing is no use that would keep it");
}

#[test]
fn what_background_left_idle_makes_room_before_what_users_left() {
    let mut rig = rig(2, 1);
    rig.warm_up("user");
    rig.now += MS * 1_000;
    rig.left_idle("swept");
    rig.wait("newcomer");
    assert_eq!(rig.closing(), ["swept"], "though it is the younger one");
}

#[test]
fn a_user_takes_over_what_background_left_idle() {
    let mut rig = rig(4, 1);
    rig.left_idle("a");
    assert_eq!(rig.charged(), 1);
    let held = rig.warm("a");
    assert_eq!(rig.charged(), 0);
    rig.release(held, Health::Clean);
    assert_eq!(rig.charged(), 0, "it is the user's from now on");
    rig.background("b");
    assert_eq!(rig.opens.len(), 1, "the share is free");
}

#[test]
fn users_come_first_within_a_tenant_and_between_tenants() {
    let mut rig = rig(1, 1);
    let held = rig.lease("before");
    let swept = rig.background("a");
    let of_another = rig.background("b");
    let user = rig.wait("a");
    let another = rig.wait("c");
    rig.release(held, Health::Broken);
    rig.closed();
    rig.opened();
    let held = rig.granted(user);
    rig.release(held, Health::Clean);
    assert_eq!(
        rig.closing(),
        ["a"],
        "`c` before the background of `a`, to which the connection could have gone at once"
    );
    rig.closed();
    rig.opened();
    let held = rig.granted(another);
    rig.pending(swept);
    rig.pending(of_another);
    rig.release(held, Health::Broken);
    rig.closed();
    rig.opened();
    let _ = rig.granted(of_another);
}

#[test]
fn a_user_passes_background_work_that_waits_beside_an_idle_connection() {
    let mut rig = rig(4, 1);
    let _held = {
        rig.warm_up("other");
        rig.borrowed("other")
    };
    rig.warm_up("a");
    rig.background("a");
    for _ in 0..4 {
        let held = rig.warm("a");
        rig.release(held, Health::Clean);
    }
}

#[test]
fn a_user_who_comes_while_background_connects_gets_its_connection() {
    let mut rig = rig(4, 1);
    let swept = rig.background("a");
    let user = rig.wait("a");
    rig.opened();
    let held = rig.granted(user);
    assert_eq!(rig.charged(), 1, "one more is opened for the background");
    rig.opened();
    let _ = rig.granted(swept);
    rig.release(held, Health::Clean);
}

#[test]
fn background_work_leaves_its_tenants_reserve_alone() {
    let mut settings = Settings::new(2);
    settings.max_connections_per_tenant = 2;
    settings.max_connecting = Some(4);
    settings.background_share = Some(2);
    let system = TenantId::new("system").expect("valid");
    settings.tenants.insert(system, TenantLimits::new().reserve(1));
    let mut rig = Rig::new(settings);
    rig.admit("system");
    rig.background("system");
    let second = rig.background("system");
    rig.opened();
    rig.background("other");
    assert_eq!(rig.opens.len(), 1, "both are free for the second: the reserve is filled by the first");
    rig.cancel(second);
}

#[test]
fn no_pool_lease_is_background_work() {
    let mut rig = rig(4, 2);
    let Decision::Refuse(Refusal::Limit(shortage)) = rig.ask("a", Ask { pool: 1, ..BACKGROUND }) else {
        panic!("it should be refused")
    };
    assert_eq!((shortage.scope, shortage.limit, shortage.retry_after), (LimitScope::Background, 0, None));
}

#[test]
fn a_lent_connection_that_is_lost_leaves_nothing_behind() {
    for health in [Health::Broken, Health::Lost] {
        let mut rig = rig(2, 1);
        rig.warm_up("a");
        let held = rig.borrowed("a");
        rig.release(held, health);
        rig.closed();
        assert_eq!((rig.charged(), rig.counts()), (0, [0; 5]));
    }
}

#[test]
fn a_lowered_share_closes_what_background_left_idle() {
    let mut rig = rig(4, 2);
    rig.left_idle("a");
    rig.left_idle("b");
    let mut settings = rig.ledger.settings.clone();
    settings.background_share = Some(1);
    rig.step(|ledger, now| ledger.set_limits(settings, now));
    assert_eq!((rig.closing(), rig.charged()), (vec!["a"], 1));
}

#[test]
fn a_lowered_budget_closes_what_background_left_idle_before_what_users_left() {
    let mut rig = rig(4, 1);
    rig.warm_up("a");
    rig.left_idle("b");
    let mut settings = rig.ledger.settings.clone();
    settings.max_connections = 1;
    rig.step(|ledger, now| ledger.set_limits(settings, now));
    assert_eq!(rig.closing(), ["b"], "though it was used later");
}

#[test]
fn a_close_that_hangs_is_charged_until_it_ends() {
    let mut rig = rig(4, 1);
    let waiter = rig.background("a");
    rig.opened();
    let held = rig.granted(waiter);
    rig.release(held, Health::Broken);
    rig.background("b");
    assert!(rig.opens.is_empty(), "what the server may still hold is background's");
    rig.closed();
    assert_eq!(rig.opens.len(), 1);
}

#[test]
fn no_more_is_validated_for_background_work_than_waits() {
    let mut rig = rig(8, 4);
    let both = [rig.lease("a"), rig.lease("a")];
    both.into_iter().for_each(|held| rig.release(held, Health::Clean));
    rig.now += rig.ledger.settings().validate_after_idle;
    let waiter = rig.background("a");
    assert_eq!((rig.recycles.len(), rig.counts()[1]), (1, 1));
    rig.recycled();
    assert_eq!(rig.granted(waiter).connection.tenant, "a");
}
