//! What time does to connections: idle timeout, lifetime, validation before hand-out, and the epoch of a server.

use tenantry_core::{Health, ServerId, TenantLimits};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{
    assert_closes_clean, assert_nothing_lost, hold, hold_many, manager, ms, secs, settle, soon, warm,
};

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_idle_for_too_long_is_closed_and_no_sooner() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).idle_timeout(secs(60)).build().unwrap();
    drop(hold(&pools, ["a", "b"]).await);
    sleep(secs(30)).await;
    warm(&pools, "b").await;
    sleep(ms(29_900)).await;
    assert_eq!(fake.open().now, 2);
    sleep(secs(1)).await;
    assert_eq!((fake.open_of("a").now, fake.open_of("b").now), (0, 1), "used again is not idle for long");
    sleep(secs(30)).await;
    assert_eq!((fake.open().now, pools.stats().totals.closed_idle), (0, 2));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_out_is_not_idle_however_long_it_takes() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).idle_timeout(secs(1)).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    sleep(secs(1_000)).await;
    drop(lease.use_it());
    drop(lease);
    sleep(ms(900)).await;
    assert_eq!(fake.open().now, 1, "its idle time starts when it comes back");
    sleep(secs(1)).await;
    assert_eq!(fake.open().now, 0);
}

#[tokio::test(start_paused = true)]
async fn the_connections_of_a_reserve_stay_when_the_others_are_closed() {
    let fake = FakeFactory::new();
    let limits = TenantLimits::new().max(4).reserve(2);
    let pools = manager(&fake, 6).idle_timeout(secs(10)).tenant("system", limits).build().unwrap();
    drop(hold(&pools, ["system", "system", "system", "other"]).await);
    sleep(secs(60)).await;
    assert_eq!((fake.open_of("system").now, fake.open_of("other").now), (2, 0));
    drop(hold_many(&pools, "greedy", 4).await);
    assert_eq!(fake.open_of("system").now, 2, "and no cold tenant takes them");
    assert_closes_clean(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn lifetimes_end_between_nine_tenths_and_all_of_max_lifetime_and_not_together() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 60).max_lifetime(secs(100)).idle_timeout(secs(1_000)).build().unwrap();
    drop(hold_many(&pools, "tenant", 60).await);
    let start = Instant::now();
    let open_at = async |second: f64| {
        sleep(start + std::time::Duration::from_secs_f64(second) - Instant::now()).await;
        fake.open().now
    };
    assert_eq!(open_at(89.9).await, 60);
    // By chance all of 60 fall into one half of the window once in 10^18 runs.
    let half = open_at(95.0).await;
    assert!(half > 0 && half < 60, "{half}");
    assert_eq!(open_at(100.2).await, 0);
    assert_eq!(pools.stats().totals.closed_lifetime, 60);
}

#[tokio::test(start_paused = true)]
async fn a_connection_past_its_lifetime_is_never_closed_under_its_user_and_never_handed_out() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).max_lifetime(secs(10)).build().unwrap();
    let mut lease = pools.acquire("acme").await.unwrap();
    let old = lease.handle();
    sleep(secs(60)).await;
    lease.query().await.unwrap();
    drop(lease);
    soon(fake.ended(Call::Close, 1)).await;
    assert!(!old.is_open());
    assert_ne!(pools.acquire("acme").await.unwrap().id(), old.id());
    assert_nothing_lost(&pools, &fake).await;
}

/// At the end of its life, and not at the next look around. Below 20 ms there is no jitter.
#[tokio::test(start_paused = true)]
async fn a_connection_whose_lifetime_has_just_ended_is_not_handed_out() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).max_lifetime(ms(19)).build().unwrap();
    warm(&pools, "acme").await;
    sleep(ms(18)).await;
    warm(&pools, "acme").await;
    assert_eq!(fake.calls(Call::Connect).started, 1);
    sleep(ms(1)).await;
    // Makes the manager look at the clock.
    pools.evict("nobody");
    assert!(pools.try_acquire("acme").is_err());
    assert_eq!(pools.stats().totals.closed_lifetime, 1);
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_was_idle_for_a_while_is_asked_before_it_is_handed_out_and_a_fresh_one_is_not() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).validate_after_idle(secs(2)).build().unwrap();
    let first = warm(&pools, "acme").await;
    sleep(ms(1_700)).await;
    assert_eq!(warm(&pools, "acme").await.id(), first.id());
    assert_eq!(fake.calls(Call::Recycle).started, 0);
    sleep(ms(2_300)).await;
    assert_eq!(warm(&pools, "acme").await.id(), first.id());
    assert_eq!(fake.calls(Call::Recycle).started, 1);
    warm(&pools, "acme").await;
    assert_eq!(fake.calls(Call::Recycle).started, 1, "just asked");
    assert_nothing_lost(&pools, &fake).await;
}

/// The coarse clock must not sleep through the first second of a manager that was quiet.
#[tokio::test(start_paused = true)]
async fn the_first_connection_of_a_quiet_manager_is_asked_after_its_time_as_well() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).validate_after_idle(ms(200)).build().unwrap();
    settle().await;
    warm(&pools, "acme").await;
    sleep(ms(600)).await;
    warm(&pools, "acme").await;
    assert_eq!(fake.calls(Call::Recycle).started, 1);
}

#[tokio::test(start_paused = true)]
async fn validating_every_time_is_a_choice() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).validate_after_idle(ms(0)).build().unwrap();
    for _ in 0..10 {
        warm(&pools, "acme").await;
    }
    assert_eq!((fake.calls(Call::Recycle).started, fake.calls(Call::Connect).started), (9, 1));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_idle_connection_is_found_by_its_validation_and_replaced_without_the_caller_noticing() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let idle = warm(&pools, "acme").await;
    idle.cut();
    sleep(secs(2)).await;
    let mut lease = pools.acquire("acme").await.unwrap();
    lease.query().await.unwrap();
    assert_ne!(lease.id(), idle.id());
    drop(lease);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn try_acquire_never_waits_for_a_validation_by_age() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 1).build().unwrap();
    let first = warm(&pools, "acme").await;
    sleep(secs(60)).await;
    assert_eq!(pools.try_acquire("acme").unwrap().id(), first.id());
    assert_eq!(fake.calls(Call::Recycle).started, 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_left_behind_never_reaches_the_next_user() {
    let fake = FakeFactory::new();
    fake.on(Call::Recycle).always(Behavior::after(ms(5)));
    let pools = manager(&fake, 1).build().unwrap();
    let lease = pools.acquire("acme").await.unwrap();
    lease.leave_behind("an open transaction");
    let id = lease.id();
    drop(lease);
    assert!(pools.try_acquire("acme").is_err(), "it is being cleaned");
    let next = pools.acquire("acme").await.unwrap();
    assert_eq!((next.id(), next.left_behind().len()), (id, 0));
}

/// A restart of the server with fifty warm tenants: one caller meets it, and nobody else.
#[tokio::test(start_paused = true)]
async fn after_one_lost_connection_fifty_warm_tenants_meet_no_dead_one() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 50).validate_after_idle(secs(1_000)).idle_timeout(secs(2_000)).build().unwrap();
    drop(hold_many(&pools, "tenant", 50).await);
    assert_eq!(fake.cut_all_on(&ServerId::default()), 50);

    let mut unlucky = pools.acquire("tenant-0").await.unwrap();
    assert!(unlucky.query().await.is_err());
    drop(unlucky);
    assert_eq!(pools.stats().servers[0].epoch, 1);

    let mut tasks = JoinSet::new();
    for number in 0..50 {
        let acquire = pools.acquire(format!("tenant-{number}"));
        tasks.spawn(async move { acquire.await.unwrap().query().await });
    }
    while let Some(answer) = tasks.join_next().await {
        answer.unwrap().unwrap();
    }
    assert_eq!((fake.calls(Call::Recycle).started, fake.calls(Call::Connect).started), (49, 100));
    assert!(fake.open().most <= 50);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_lost_connection_of_one_server_casts_no_doubt_on_another() {
    let fake = FakeFactory::new();
    fake.place("east", ServerId::from("east"));
    let pools = manager(&fake, 5).build().unwrap();
    drop(hold(&pools, ["east", "west"]).await);
    let lost = pools.acquire("east").await.unwrap();
    lost.mark_lost();
    drop(lost);
    warm(&pools, "west").await;
    assert_eq!(fake.calls(Call::Recycle).started, 0);
}

#[tokio::test(start_paused = true)]
async fn what_a_validation_found_alive_is_asked_once_per_breakage() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 5).build().unwrap();
    drop(hold(&pools, ["a", "b", "c", "c"]).await);
    let both = hold(&pools, ["a", "b"]).await;
    both.iter().for_each(|lease| lease.mark_lost());
    drop(both);
    assert_eq!(pools.stats().servers[0].epoch, 1, "the second one is no news");
    for _ in 0..3 {
        warm(&pools, "c").await;
    }
    assert_eq!(fake.calls_of(Call::Recycle, "c").started, 2, "each of the two once");
}

#[tokio::test(start_paused = true)]
async fn a_broken_connection_casts_no_doubt_on_the_others() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 5).build().unwrap();
    drop(hold(&pools, ["a", "b"]).await);
    let broken = pools.acquire("a").await.unwrap();
    broken.set_health(Health::Broken);
    drop(broken);
    warm(&pools, "b").await;
    assert_eq!((fake.calls(Call::Recycle).started, pools.stats().servers[0].epoch), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn within_a_tenant_the_newest_idle_connection_is_used_first() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 5).build().unwrap();
    let leases = hold(&pools, ["acme", "acme", "acme"]).await;
    let ids: Vec<u64> = leases.iter().map(|lease| lease.id()).collect();
    leases.into_iter().for_each(drop);
    let again = hold(&pools, ["acme", "acme", "acme"]).await;
    let newest_first: Vec<u64> = ids.into_iter().rev().collect();
    assert_eq!(again.iter().map(|lease| lease.id()).collect::<Vec<_>>(), newest_first);
}

#[tokio::test(start_paused = true)]
async fn renewed_connections_drain_away_and_new_ones_take_their_place() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 6).build().unwrap();
    let (idle, out) = (warm(&pools, "acme").await, pools.acquire("acme").await.unwrap());
    drop(pools.acquire("acme").await.unwrap());
    let other = warm(&pools, "other").await;
    assert_eq!(pools.renew("acme"), 2);
    settle().await;
    let stats = pools.tenant_stats("acme").unwrap();
    assert_eq!((stats.idle, stats.in_use), (0, 1), "the one that is out may be used to the end");
    drop(out);
    settle().await;
    assert_eq!(pools.tenant_stats("acme").unwrap().in_use, 0);
    assert_ne!(warm(&pools, "acme").await.id(), idle.id());
    assert_eq!(warm(&pools, "other").await.id(), other.id(), "others keep theirs");
    assert_eq!(pools.renew_all(), 2);
    assert_eq!(pools.renew("nobody"), 0);
    assert_nothing_lost(&pools, &fake).await;
}
