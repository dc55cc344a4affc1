//! Three threads, with at most three preemptions.

use tenantry_core::AcquireError;

use crate::support::{World, block_on, poll_once, run_all, three_threads};

#[test]
fn three_acquires_of_one_tenant_share_one_permit() {
    three_threads(|| {
        let world = World::new(1);
        world.warm("a");
        world.race([world.acquire("a"), world.acquire("a"), world.acquire("a")]);
        assert_eq!(world.seen.connects(), 1);
        world.end();
    });
}

#[test]
fn three_tenants_share_one_permit() {
    three_threads(|| {
        let world = World::new(1);
        world.race([world.acquire("a"), world.acquire("b"), world.acquire("c")]);
        world.end();
    });
}

#[test]
fn three_tenants_share_two_permits() {
    three_threads(|| {
        let world = World::new(2);
        world.race([world.acquire("a"), world.acquire("b"), world.acquire("c")]);
        world.end();
    });
}

#[test]
fn an_acquire_a_release_and_a_cancel_leave_nobody_stranded() {
    three_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        let mut cancelled = world.acquiring("a");
        assert!(poll_once(cancelled.as_mut()).is_pending());
        world.race([Box::new(move || drop(lease)), Box::new(move || drop(cancelled)), world.acquire("a")]);
        world.end();
    });
}

#[test]
fn a_cancelled_grant_reaches_another_tenant() {
    three_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        let mut cancelled = world.acquiring("a");
        assert!(poll_once(cancelled.as_mut()).is_pending());
        world.race([Box::new(move || drop(lease)), Box::new(move || drop(cancelled)), world.acquire("b")]);
        world.end();
    });
}

#[test]
fn an_acquire_a_release_and_a_close_end() {
    three_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        let acquire = world.actor(|pools, tasks| match block_on(&tasks, pools.acquire("a")) {
            Ok(lease) => drop(lease),
            Err(error) => assert!(matches!(error, AcquireError::Closed), "{error}"),
        });
        let close = world.actor(|pools, tasks| block_on(&tasks, pools.close()));
        world.race([Box::new(move || drop(lease)), acquire, close]);
        world.end();
    });
}

#[test]
fn an_evict_and_two_acquires_get_a_connection_each() {
    three_threads(|| {
        let world = World::new(1);
        world.warm("a");
        let evict = world.actor(|pools, _| _ = pools.evict("a"));
        world.race([evict, world.acquire("a"), world.acquire("b")]);
        world.end();
    });
}

#[test]
fn a_pool_lease_is_not_stranded_between_two_acquires() {
    three_threads(|| {
        let world = World::new(2);
        let pool = world.actor(|pools, tasks| drop(block_on(&tasks, pools.acquire_pool("a", 2)).unwrap()));
        world.race([pool, world.acquire("b"), world.acquire("c")]);
        world.end();
    });
}

#[test]
fn two_pool_leases_do_not_block_each_other() {
    three_threads(|| {
        let world = World::new(2);
        let lease = world.lease("c");
        let pool = |tenant: &'static str| {
            world.actor(move |pools, tasks| drop(block_on(&tasks, pools.acquire_pool(tenant, 2)).unwrap()))
        };
        world.race([pool("a"), pool("b"), Box::new(move || drop(lease))]);
        world.end();
    });
}

#[test]
fn a_waiter_that_moves_to_another_task_is_woken_there_by_whoever_releases() {
    three_threads(|| {
        let world = World::new(1);
        let lease = world.lease("a");
        let mut moving = world.acquiring("a");
        assert!(poll_once(moving.as_mut()).is_pending());
        let awaiting = world.actor(move |_, tasks| drop(block_on(&tasks, moving).unwrap()));
        world.race([Box::new(move || drop(lease)), awaiting, world.acquire("a")]);
        world.end();
    });
}

#[test]
fn tasks_of_one_thread_may_run_on_another() {
    three_threads(|| {
        let world = World::slow(1);
        let helping = world.later(|_, tasks| run_all(&tasks));
        world.race([helping, world.acquire("a"), world.acquire("b")]);
        world.end();
    });
}
