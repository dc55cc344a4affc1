//! What the model has found in the ledger, each as the sequence of operations that showed it. Seeds of cases are of no use
//! once a strategy changes; these stay.

use std::time::Duration;

use tenantry_core::{FailureKind, Health};

use super::operations::Operation::{self, *};
use super::operations::Trouble;
use super::reference::Reference;
use super::world::{Change, Limits, MS, TENANTS, World};
use super::{Driver, compare, play};

const A: usize = 0;
const B: usize = 1;
const C: usize = 2;
const D: usize = 3;
const E: usize = 4;

/// Room for everything, and nobody is in a hurry.
fn roomy(total: u32) -> World {
    let hour = MS * 3_600_000;
    World {
        total,
        servers: [None, None],
        tenants: std::array::from_fn(|_| Limits { max: total, reserve: 0, weight: 1, home: 0 }),
        max_waiters: 100,
        max_waiters_per_tenant: 100,
        max_connecting: Some(total),
        handover_bound: Some(Duration::ZERO),
        background_share: None,
        background_steals_after: hour,
        idle_timeout: hour,
        max_lifetime: hour,
        validate_after_idle: MS * 500,
        close_timeout: hour,
        acquire_timeout: MS,
        lease_warn_after: hour,
        forget_after: hour,
        tombstone_ttl: hour,
        max_known_tenants: 100_000,
    }
}

fn with(world: World, change: impl FnOnce(&mut World)) -> World {
    let mut world = world;
    change(&mut world);
    world
}

fn agree(world: World, operations: &[Operation]) {
    let mut reference = Reference::new(world);
    let mut driver = Driver::new(&reference.world);
    play(&mut driver, &reference);
    for &operation in operations {
        reference = reference.apply(operation);
        // A change of the rules must not empty a case unseen.
        let acts = !reference.calls.is_empty() || matches!(operation, Wait { .. });
        assert!(acts, "there is nothing for {operation:?} to act on");
        play(&mut driver, &reference);
        compare::same_statistics(&driver, &reference);
    }
}

fn acquire(tenant: usize) -> Operation {
    Acquire { tenant, pool: 0, background: false, caller: 0, polled: false }
}

fn acquire_pool(tenant: usize, pool: u32) -> Operation {
    Acquire { tenant, pool, background: false, caller: 0, polled: false }
}

fn opened(open: usize) -> Operation {
    Opened { open, random: 0 }
}

fn fails(open: usize, kind: FailureKind) -> Operation {
    OpenFailed { open, trouble: Trouble::Error(kind), random: 0 }
}

fn release(lease: usize, health: Health) -> Operation {
    Release { lease, health }
}

#[test]
fn a_reserve_that_moves_away_leaves_room_for_who_waits() {
    let world = with(roomy(6), |world| {
        world.servers[0] = Some(3);
        world.tenants[D].reserve = 2;
    });
    agree(world, &[acquire_pool(A, 2), Drain { tenant: D }, Resume { tenant: D, server: 1 }]);
}

#[test]
fn permits_of_a_pool_that_nobody_collected_are_taken_back_at_the_end() {
    for end in [Close, Drain { tenant: B }] {
        agree(roomy(1), &[acquire_pool(B, 1), end, Poll { waiter: 0 }]);
    }
}

#[test]
fn nothing_is_opened_for_a_pool_that_stands_in_line() {
    agree(roomy(4), &[acquire(A), acquire_pool(A, 1)]);
}

#[test]
fn a_full_server_is_probed_after_the_backoff_of_the_last_refusal() {
    let full = |open, random| OpenFailed { open, trouble: Trouble::Error(FailureKind::ServerFull), random };
    let start = [acquire(A), acquire(B), full(0, 0), Tick { millis: 1 }];
    let again = [full(2, 245_742_302_473_337_765), full(0, 1_693_616_610_245_473_992), Tick { millis: 49 }];
    agree(with(roomy(2), |world| world.max_connecting = None), &[start.as_slice(), &again].concat());
}

#[test]
fn an_open_circuit_keeps_a_tenant_known_and_its_quiet_time_comes_after() {
    let failed = OpenFailed { open: 0, trouble: Trouble::Error(FailureKind::Auth), random: 724_208_510_622_530_001 };
    let world = with(roomy(2), |world| world.forget_after = MS * 389);
    agree(world, &[acquire(A), Cancel { waiter: 0 }, failed, Tick { millis: 420 }, Tick { millis: 389 }]);
}

#[test]
fn what_has_just_come_back_is_young_and_the_others_are_not() {
    let world = with(roomy(5), |world| world.validate_after_idle = Duration::ZERO);
    agree(
        world.clone(),
        &[acquire(A), opened(0), Poll { waiter: 0 }, release(0, Health::Dirty), Recycled { recycling: 0 }],
    );
    let three_idle = [acquire(B), acquire(B), opened(0), acquire(B), Poll { waiter: 0 }, opened(0)];
    let two_wait = [
        release(0, Health::Clean),
        opened(0),
        Poll { waiter: 0 },
        Cancel { waiter: 0 },
        release(0, Health::Clean),
        acquire(B),
        acquire(B),
        Recycled { recycling: 0 },
    ];
    agree(world, &[three_idle.as_slice(), &two_wait].concat());
}

#[test]
fn a_server_without_a_cap_is_no_limit_to_a_pool() {
    agree(with(roomy(1), |world| world.tenants[C].reserve = 1), &[acquire_pool(D, 1)]);
}

#[test]
fn a_dirty_connection_that_covers_its_line_gives_a_promise_back() {
    let world = with(roomy(5), |world| {
        world.max_connecting = None;
        world.tenants[B].max = 2;
        (world.tenants[D].max, world.tenants[D].reserve) = (2, 2);
        for tenant in [A, C, E] {
            world.tenants[tenant].max = 1;
        }
    });
    let start = [acquire(E), acquire(B), acquire(C), opened(0), acquire(B), opened(2), Poll { waiter: 0 }];
    let rest = [release(0, Health::Clean), Poll { waiter: 0 }, acquire(A), release(0, Health::Dirty)];
    agree(world, &[start.as_slice(), &rest].concat());
}

#[test]
fn nothing_opens_while_all_is_closed() {
    let world = with(roomy(4), |world| {
        (world.tenants[B].max, world.tenants[B].reserve) = (2, 1);
        world.tenants[C].home = 1;
    });
    let start = [acquire(D), acquire_pool(B, 2), opened(1), acquire(C), opened(1), acquire(C)];
    agree(world, &[start.as_slice(), &[Close]].concat());
}

#[test]
fn a_waiter_gets_an_idle_connection_although_another_is_being_cleaned_for_it() {
    let start = [acquire(C), opened(0), Poll { waiter: 0 }, acquire(C), release(0, Health::Dirty)];
    agree(roomy(2), &[start.as_slice(), &[opened(0)]].concat());
    let world = with(roomy(2), |world| world.max_lifetime = MS * 20);
    let rest = [Wait { millis: 127 }, opened(0), Recycled { recycling: 0 }];
    agree(world, &[start.as_slice(), &rest].concat());
}

#[test]
fn what_has_outlived_its_time_closes_in_the_order_in_which_that_ended() {
    let world = with(roomy(4), |world| {
        world.max_lifetime = MS * 20;
        for (tenant, limits) in world.tenants.iter_mut().enumerate() {
            limits.max = if tenant == A { 3 } else { 1 };
        }
    });
    // The second to be opened ends first, the one after it last.
    let first = [acquire(A), Opened { open: 0, random: 1 }, acquire(A), Opened { open: 0, random: 0 }];
    let idle = [Poll { waiter: 0 }, acquire(A), Cancel { waiter: 0 }, release(0, Health::Clean)];
    let over = [Opened { open: 0, random: 1 }, Wait { millis: 154 }, acquire(B), Tick { millis: 42 }];
    agree(world, &[first.as_slice(), &idle, &over, &[acquire(C), Closed { closing: 0 }]].concat());
}

#[test]
fn one_tenant_that_was_forgotten_meanwhile_is_not_two() {
    let world = with(roomy(3), |world| world.forget_after = MS);
    let full = fails(0, FailureKind::ServerFull);
    agree(world, &[acquire(C), Cancel { waiter: 0 }, full, Tick { millis: 22 }, acquire(C), full]);
}

#[test]
fn what_is_opened_on_a_server_that_was_left_is_for_nobody() {
    agree(roomy(2), &[acquire(D), Drain { tenant: D }, Resume { tenant: D, server: 1 }, acquire(D)]);
}

#[test]
fn what_a_server_says_that_was_left_is_no_news_of_the_new_one() {
    let moved = [acquire(D), Drain { tenant: D }, Collect { answered: 0 }, Resume { tenant: D, server: 1 }, acquire(D)];
    for kind in [FailureKind::Auth, FailureKind::ServerFull] {
        let failed = [fails(0, kind), acquire(D), opened(0), Collect { answered: 0 }];
        agree(roomy(2), &[moved.as_slice(), &failed].concat());
    }
    agree(roomy(2), &[moved.as_slice(), &[fails(1, FailureKind::Auth), opened(0), acquire(D)]].concat());
}

#[test]
fn a_connect_for_somebody_else_does_not_fail_for_a_pool() {
    let failed = fails(0, FailureKind::Auth);
    agree(roomy(2), &[acquire(B), Cancel { waiter: 0 }, acquire_pool(B, 1), failed, Poll { waiter: 0 }]);
}

#[test]
fn what_is_kept_for_one_reserve_is_not_kept_for_another() {
    let moved = with(roomy(4), |world| {
        world.servers[0] = Some(3);
        (world.tenants[A].reserve, world.tenants[A].home) = (1, 1);
        world.tenants[E].reserve = 2;
    });
    agree(moved, &[acquire(B), Drain { tenant: A }, Resume { tenant: A, server: 0 }, acquire(A), acquire(E)]);
    let new = Change { total: 3, servers: [None, None], tenant: E, max: 1, reserve: 1, weight: 1 };
    let world = with(roomy(3), |world| world.tenants[D].reserve = 2);
    agree(world, &[acquire(A), SetLimits(new), acquire(E), acquire(D)]);
}

#[test]
fn a_promise_is_not_kept_above_a_cap_that_was_lowered() {
    let world = with(roomy(2), |world| world.max_lifetime = MS * 40);
    let lowered = Change { total: 5, servers: [None, None], tenant: A, max: 1, reserve: 0, weight: 1 };
    let start = [acquire(C), opened(0), acquire(A), Collect { answered: 0 }, opened(0), Tick { millis: 44 }];
    let rest = [Poll { waiter: 0 }, release(0, Health::Clean), release(0, Health::Clean), acquire(A)];
    for closing in [0, 1] {
        let end = [SetLimits(lowered), Closed { closing }];
        agree(world.clone(), &[start.as_slice(), &rest, &end].concat());
    }
}

#[test]
fn one_that_was_told_full_makes_no_room_that_a_lowered_total_needs() {
    let world = with(roomy(5), |world| {
        world.servers[0] = Some(3);
        world.max_connecting = None;
        world.tenants[C].home = 1;
        for tenant in 0..TENANTS {
            world.tenants[tenant].max = 2;
        }
        world.tenants[A].max = 1;
    });
    let start =
        [acquire(D), opened(0), acquire(D), acquire(C), fails(2, FailureKind::ServerFull), acquire(E), opened(0)];
    let held = [acquire(E), opened(0), acquire(A), acquire(C), Wait { millis: 1 }, Collect { answered: 2 }, acquire(D)];
    let lowered = Change { total: 4, servers: [None, None], tenant: A, max: 1, reserve: 0, weight: 1 };
    let end = [SetLimits(lowered), release(0, Health::Clean)];
    agree(world, &[start.as_slice(), &held, &end].concat());
}

#[test]
fn a_server_that_said_full_again_is_full_for_longer() {
    let full = |open| OpenFailed { open, trouble: Trouble::Error(FailureKind::ServerFull), random: 0 };
    let fails = |open, random| OpenFailed { open, trouble: Trouble::Error(FailureKind::Auth), random };
    let told = [acquire(A), acquire(B), full(0), full(0), Cancel { waiter: 0 }, Cancel { waiter: 0 }];
    let again = [Tick { millis: 10_000 }, acquire(A), full(0), Cancel { waiter: 0 }, Tick { millis: 1_000 }];
    let fail = [Wait { millis: 28_900 }, acquire(C), fails(0, 0), acquire(D), fails(0, 1)];
    let asked = [acquire(C), acquire(D), Tick { millis: 1_000 }];
    agree(roomy(4), &[told.as_slice(), &again, &fail, &asked].concat());
}

#[test]
fn rests_that_end_within_one_tick_end_in_the_order_of_their_times() {
    let world = with(roomy(3), |world| {
        world.max_connecting = None;
        world.tenants[B].max = 2;
    });
    let fails = |open, random| OpenFailed { open, trouble: Trouble::Error(FailureKind::Auth), random };
    let history = [acquire(A), fails(0, 0), Created { tenant: A }];
    let out = [acquire(B), opened(0), Collect { answered: 1 }, acquire(C)];
    let first = [acquire(B), fails(1, 0), acquire(B)];
    let second = [acquire(A), fails(1, 1), acquire(A)];
    agree(world, &[history.as_slice(), &out, &first, &second, &[Tick { millis: 2 }]].concat());
}

#[test]
fn what_began_to_close_first_is_promised_first_whoever_had_it_promised_before() {
    let world = with(roomy(4), |world| {
        world.max_connecting = None;
        world.tenants[A].max = 3;
        world.tenants[B].max = 2;
    });
    let background = Acquire { tenant: A, pool: 0, background: true, caller: 0, polled: false };
    let closing = [acquire(B), opened(0), acquire(B), acquire(A), background, Remove { tenant: B }];
    let another = [Created { tenant: B }, acquire(C), opened(0), acquire_pool(A, 2), opened(0)];
    let given_back = [acquire(B), Remove { tenant: A }, Closed { closing: 0 }];
    agree(world, &[closing.as_slice(), &another, &given_back].concat());
}

#[test]
fn a_promise_goes_back_as_soon_as_another_is_being_validated_for_its_line() {
    let world = with(roomy(5), |world| {
        (world.max_connecting, world.validate_after_idle) = (None, MS);
        (world.tenants[A].max, world.tenants[B].max) = (2, 3);
    });
    let background = |tenant| Acquire { tenant, pool: 0, background: true, caller: 0, polled: false };
    let idle = [background(A), acquire_pool(B, 1), acquire(B), opened(0), opened(0)];
    let collected = [Poll { waiter: 0 }, release(0, Health::Clean), GiveUp { waiter: 1 }];
    let promised = [background(B), release(0, Health::Clean), Tick { millis: 1 }, background(A)];
    agree(world, &[idle.as_slice(), &collected, &promised, &[acquire(B), acquire(A)]].concat());
}

#[test]
fn a_promise_that_goes_back_leaves_its_part_of_the_share_to_the_next_at_once() {
    let background = Acquire { tenant: B, pool: 0, background: true, caller: 0, polled: false };
    let open = [acquire(B), opened(0), acquire(B), opened(0), acquire(C), opened(0)];
    let out = [Collect { answered: 0 }, Collect { answered: 0 }, Collect { answered: 0 }];
    let promised = [release(2, Health::Lost), release(0, Health::Dirty), background, background];
    // Of an older epoch, so that it has to be validated for the one who is left.
    agree(roomy(3), &[open.as_slice(), &out, &promised, &[release(0, Health::Clean), Cancel { waiter: 0 }]].concat());
}
