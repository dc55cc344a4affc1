//! Two threads, in every order.

use std::task::Poll;
use std::time::Duration;

use tenantry_core::{AcquireError, AcquireOptions, Health, Priority};

use crate::support::{Acquiring, Actor, World, assert_gone, block_on, poll_once, run_all, two_threads};

/// An acquire, dropped at a stage: 0 before its first poll, 1 in line or with what was idle, 2 after a task has run for
/// it, 3 after all have (it may have been granted a connection and not looked), 4 after it has looked again.
fn cancelled_at(stage: u32, mut acquiring: Acquiring, tasks: &tenantry_core::Tasks) {
    if stage > 0 && poll_once(acquiring.as_mut()).is_ready() {
        return;
    }
    match stage {
        2 => drop(tasks.run_one()),
        3.. => run_all(tasks),
        _ => {}
    }
    if stage == 4 {
        drop(poll_once(acquiring.as_mut()));
    }
}

fn cancelling(world: &World, tenant: &str, stage: u32) -> Actor {
    let acquiring = world.acquiring(tenant);
    world.actor(move |_, tasks| cancelled_at(stage, acquiring, &tasks))
}

fn closing(world: &World) -> Actor {
    world.actor(|pools, tasks| block_on(&tasks, pools.close()))
}

fn releasing(world: &World, tenant: &str) -> Actor {
    let lease = world.lease(tenant);
    Box::new(move || drop(lease))
}

/// Served, or told that the manager is closed.
fn acquiring_or_closed(world: &World, tenant: &'static str) -> Actor {
    world.actor(move |pools, tasks| match block_on(&tasks, pools.acquire(tenant)) {
        Ok(lease) => drop(lease),
        Err(error) => assert!(matches!(error, AcquireError::Closed), "{error}"),
    })
}

#[test]
fn a_warm_acquire_and_an_evict_never_get_the_same_connection() {
    two_threads(|| {
        let world = World::new(1);
        world.warm("a");
        let evicting = world.actor(|pools, _| _ = pools.evict("a"));
        world.race([evicting, world.acquire("a")]);
        world.end();
    });
}

#[test]
fn a_cold_acquire_is_served_beside_an_evict() {
    two_threads(|| {
        let world = World::slow(1);
        let evicting = world.actor(|pools, _| _ = pools.evict("a"));
        world.race([evicting, world.acquire("a")]);
        world.end();
    });
}

#[test]
fn two_acquires_of_one_tenant_share_one_permit() {
    two_threads(|| {
        let world = World::new(1);
        world.race([world.acquire("a"), world.acquire("a")]);
        assert_eq!(world.seen.connects(), 1, "the second gets what the first gave back");
        world.end();
    });
}

#[test]
fn two_tenants_share_one_permit() {
    two_threads(|| {
        let world = World::new(1);
        world.race([world.acquire("a"), world.acquire("b")]);
        world.end();
    });
}

#[test]
fn a_victim_is_not_handed_out_while_it_is_closed() {
    two_threads(|| {
        let world = World::slow(1);
        world.warm("a");
        world.race([world.acquire("a"), world.acquire("b")]);
        world.end();
    });
}

#[test]
fn an_acquire_beside_close_is_served_or_told() {
    two_threads(|| {
        let world = World::new(1);
        world.race([closing(&world), acquiring_or_closed(&world, "a")]);
        world.end();
    });
}

#[test]
fn a_warm_acquire_beside_close_is_served_or_told() {
    two_threads(|| {
        let world = World::new(1);
        world.warm("a");
        world.race([closing(&world), acquiring_or_closed(&world, "a")]);
        world.end();
    });
}

#[test]
fn an_acquire_beside_a_release_gets_the_same_connection() {
    two_threads(|| {
        let world = World::new(2);
        let lease = world.lease("a");
        let others = world.lease("b");
        let id = lease.id();
        let acquire = world.actor(move |pools, tasks| {
            assert_eq!(block_on(&tasks, pools.acquire("a")).unwrap().id(), id);
        });
        world.race([Box::new(move || drop(lease)), acquire]);
        drop(others);
        world.end();
    });
}

#[test]
fn an_acquire_beside_the_release_of_a_broken_connection_gets_a_new_one() {
    for health in [Health::Broken, Health::Lost] {
        two_threads(move || {
            let world = World::new(1);
            let mut lease = world.lease("a");
            lease.health = health;
            world.race([Box::new(move || drop(lease)), world.acquire("a")]);
            assert_eq!(world.seen.connects(), 2);
            world.end();
        });
    }
}

#[test]
fn an_acquire_beside_the_release_of_a_dirty_connection_gets_it_clean() {
    two_threads(|| {
        let world = World::new(1);
        let mut lease = world.lease("a");
        lease.mark_dirty();
        world.race([Box::new(move || drop(lease)), world.acquire("a")]);
        assert_eq!(world.seen.connects(), 1);
        world.end();
    });
}

#[test]
fn an_acquire_cancelled_at_any_stage_beside_a_release_leaves_nothing_behind() {
    for stage in 0..=4 {
        two_threads(move || {
            let world = World::new(1);
            let release = releasing(&world, "a");
            world.race([release, cancelling(&world, "a", stage)]);
            world.end();
        });
    }
}

#[test]
fn an_acquire_cancelled_at_any_stage_beside_another_tenants_leaves_it_the_permit() {
    // The others are other ways to the same commands, at thousands of schedules each.
    for stage in [1, 3] {
        two_threads(move || {
            let world = World::new(1);
            world.race([world.acquire("b"), cancelling(&world, "a", stage)]);
            world.end();
        });
    }
}

#[test]
fn an_acquire_cancelled_at_any_stage_beside_close_leaves_nothing_behind() {
    for stage in 0..=4 {
        two_threads(move || {
            let world = World::slow(1);
            world.race([closing(&world), cancelling(&world, "a", stage)]);
            world.end();
        });
    }
}

#[test]
fn a_grant_that_its_waiter_drops_goes_to_the_next_in_line() {
    two_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        let mut first = world.acquiring("a");
        assert!(poll_once(first.as_mut()).is_pending());
        let second = world.actor(move |pools, tasks| {
            let second = pools.acquire("a");
            // Granted at this release, or not yet in line for it.
            drop(lease);
            drop(block_on(&tasks, second).unwrap());
        });
        world.race([Box::new(move || drop(first)), second]);
        world.end();
    });
}

#[test]
fn an_acquire_that_moves_between_tasks_is_woken_where_it_is() {
    two_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        let mut moving = world.acquiring("a");
        // Polled here first, with a waker that nobody hears; then awaited elsewhere.
        assert!(poll_once(moving.as_mut()).is_pending());
        let awaiting = world.actor(move |_, tasks| drop(block_on(&tasks, moving).unwrap()));
        world.race([Box::new(move || drop(lease)), awaiting]);
        world.end();
    });
}

#[test]
fn close_ends_when_the_last_lease_comes_back() {
    two_threads(|| {
        let world = World::slow(1);
        let release = releasing(&world, "a");
        world.race([release, closing(&world)]);
        world.end();
    });
}

#[test]
fn dropping_the_last_handle_beside_a_release_closes_the_connection() {
    two_threads(|| {
        let World { pools, tasks, seen } = World::new(1);
        let lease = block_on(&tasks, pools.acquire("a")).unwrap();
        let thread = loom::thread::spawn({
            let tasks = tasks.clone();
            move || {
                drop(lease);
                run_all(&tasks);
            }
        });
        drop(pools);
        run_all(&tasks);
        thread.join().unwrap();
        tasks.pass(Duration::from_secs(1));
        run_all(&tasks);
        assert_eq!(seen.dropped(), 0);
        assert_gone(&tasks, &seen);
    });
}

#[test]
fn a_pending_acquire_is_told_when_the_last_handle_is_dropped() {
    two_threads(|| {
        let World { pools, tasks, seen } = World::new(1);
        let lease = block_on(&tasks, pools.acquire("a")).unwrap();
        let acquiring = pools.acquire("a");
        let thread = loom::thread::spawn({
            let tasks = tasks.clone();
            move || {
                let answer = block_on(&tasks, acquiring);
                assert!(matches!(answer, Err(AcquireError::Closed)));
                run_all(&tasks);
            }
        });
        drop(pools);
        drop(lease);
        run_all(&tasks);
        thread.join().unwrap();
        tasks.pass(Duration::from_secs(1));
        run_all(&tasks);
        assert_eq!(seen.dropped(), 0);
        assert_gone(&tasks, &seen);
    });
}

#[test]
fn a_connect_that_ends_after_close_is_closed_again() {
    two_threads(|| {
        let world = World::slow(1);
        let mut abandoned = world.acquiring("a");
        assert!(poll_once(abandoned.as_mut()).is_pending());
        let running = world.later(|_, tasks| run_all(&tasks));
        world.race([running, closing(&world)]);
        assert!(matches!(poll_once(abandoned.as_mut()), Poll::Ready(Err(AcquireError::Closed))));
        drop(abandoned);
        world.end();
    });
}

#[test]
fn a_lease_dropped_on_another_thread_serves_the_one_who_waits() {
    two_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        // Of another tenant: the connection has to close, in a task that the dropping thread starts.
        world.race([Box::new(move || drop(lease)), world.acquire("b")]);
        world.end();
    });
}

#[test]
fn a_pool_lease_and_an_acquire_of_one_tenant_follow_each_other() {
    two_threads(|| {
        let world = World::with(2, false, |builder| builder.max_connections_per_tenant(2));
        let pool = world.actor(|pools, tasks| {
            let lease = block_on(&tasks, pools.acquire_pool("a", 2)).unwrap();
            block_on(&tasks, lease.close());
        });
        world.race([pool, world.acquire("a")]);
        world.end();
    });
}

#[test]
fn a_pool_lease_takes_the_place_of_an_idle_connection() {
    two_threads(|| {
        let world = World::new(2);
        world.warm("b");
        let pool = world.actor(|pools, tasks| drop(block_on(&tasks, pools.acquire_pool("a", 2)).unwrap()));
        world.race([pool, world.acquire("b")]);
        world.end();
    });
}

#[test]
fn a_cancelled_pool_lease_gives_its_permits_back() {
    two_threads(|| {
        let world = World::new(2);
        let lease = world.lease("b");
        let cancelled = world.actor(|pools, tasks| {
            let mut pool = Box::pin(pools.acquire_pool("a", 2));
            if poll_once(pool.as_mut()).is_pending() {
                run_all(&tasks);
                drop(poll_once(pool.as_mut()));
            }
        });
        world.race([cancelled, Box::new(move || drop(lease))]);
        world.end();
    });
}

#[test]
fn a_pool_lease_beside_close_is_served_or_told() {
    two_threads(|| {
        let world = World::new(2);
        let pool = world.actor(|pools, tasks| match block_on(&tasks, pools.acquire_pool("a", 2)) {
            Ok(lease) => drop(lease),
            Err(error) => assert!(matches!(error, AcquireError::Closed), "{error}"),
        });
        world.race([pool, closing(&world)]);
        world.end();
    });
}

/// An acquire of background work, to its end.
fn background(world: &World, tenant: &'static str) -> Actor {
    world.actor(move |pools, tasks| {
        let options = AcquireOptions::new().priority(Priority::Background);
        drop(block_on(&tasks, pools.acquire_with(tenant, options)).unwrap());
    })
}

#[test]
fn background_work_and_an_acquire_of_one_tenant_share_one_permit() {
    two_threads(|| {
        let world = World::new(1);
        world.race([background(&world, "a"), world.acquire("a")]);
        world.end();
    });
}

#[test]
fn what_background_work_borrows_is_lost_to_nobody_beside_an_evict() {
    two_threads(|| {
        let world = World::new(2);
        world.warm("a");
        let evicting = world.actor(|pools, _| _ = pools.evict("a"));
        world.race([evicting, background(&world, "a")]);
        world.end();
    });
}

#[test]
fn a_deadline_beside_a_release_is_served_or_refused() {
    two_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        let second = Duration::from_secs(1);
        let patient = world.actor(move |pools, tasks| {
            let options = AcquireOptions::new().timeout(second);
            match block_on(&tasks, pools.acquire_with("a", options)) {
                Ok(lease) => drop(lease),
                Err(error) => {
                    assert!(error.is_limit(), "{error}");
                    assert_eq!(pools.stats().totals.hand_overs, 0, "what was granted at the last moment is taken");
                }
            }
        });
        let release = world.later(move |_, tasks| {
            tasks.pass(second);
            drop(lease);
        });
        world.race([patient, release]);
        world.end();
    });
}

#[test]
fn a_drain_beside_an_acquire_leaves_the_tenant_without_a_connection() {
    two_threads(|| {
        let world = World::new(1);
        let acquire = world.actor(|pools, tasks| match block_on(&tasks, pools.acquire("a")) {
            Ok(lease) => drop(lease),
            Err(error) => assert!(matches!(error, AcquireError::Draining { .. }), "{error}"),
        });
        let drain = world.actor(|pools, tasks| {
            assert!(block_on(&tasks, pools.drain("a", Duration::from_secs(60))).is_complete());
        });
        world.race([acquire, drain]);
        assert_eq!(world.seen.open(), 0);
        assert!(world.pools.resume("a"));
        world.warm("a");
        world.end();
    });
}

#[test]
fn a_resume_beside_a_release_serves_the_tenant_again() {
    two_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        let mut drain = Box::pin(world.pools.drain("a", Duration::from_secs(60)));
        assert!(poll_once(drain.as_mut()).is_pending());
        drop(drain);
        let resume = world.actor(|pools, tasks| {
            assert!(pools.resume("a"));
            drop(block_on(&tasks, pools.acquire("a")).unwrap());
        });
        world.race([Box::new(move || drop(lease)), resume]);
        world.end();
    });
}

#[test]
fn a_runtime_that_goes_away_tells_everybody_and_loses_no_permit() {
    two_threads(|| {
        let world = World::slow(1);
        let acquire = acquiring_or_closed(&world, "a");
        let shutdown = world.later(|_, tasks| tasks.shut_down());
        world.race([acquire, shutdown]);
        world.at_rest();
        world.gone();
    });
}

#[test]
fn a_lease_released_beside_the_end_of_the_runtime_is_dropped_in_place() {
    two_threads(|| {
        let world = World::new(1);
        let release = releasing(&world, "a");
        let shutdown = world.later(|_, tasks| tasks.shut_down());
        world.race([release, shutdown]);
        world.at_rest();
        world.gone();
    });
}
