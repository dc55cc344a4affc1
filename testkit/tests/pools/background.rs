//! Background work: its share, what it leaves to users, and sweeps over many tenants.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use tenantry_core::{AcquireError, AcquireOptions, FailureKind, LimitScope, Priority, SweepError};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::support::{
    assert_about, assert_closes_clean, assert_nothing_lost, limit, manager, ms, secs, settle, warm, within,
};

fn in_background() -> AcquireOptions {
    AcquireOptions::new().priority(Priority::Background)
}

fn names(count: u32) -> Vec<String> {
    (0..count).map(|number| format!("tenant-{number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn background_work_never_holds_more_than_its_share_warm_or_cold() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).background_share(5).build().unwrap();
    for tenant in names(10) {
        warm(&pools, &tenant).await;
    }
    let (held, most) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut tasks = JoinSet::new();
    for tenant in names(40) {
        let (pools, held, most) = (pools.clone(), held.clone(), most.clone());
        tasks.spawn(async move {
            let lease = pools.acquire_with(tenant, in_background().timeout(secs(60))).await.unwrap();
            most.fetch_max(held.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            assert!(pools.stats().background <= 5);
            sleep(ms(10)).await;
            held.fetch_sub(1, Ordering::Relaxed);
            drop(lease);
        });
    }
    tasks.join_all().await;
    assert_eq!(most.load(Ordering::Relaxed), 5);
    let least = names(10).iter().all(|tenant| pools.tenant_stats(tenant).unwrap().idle == 1);
    assert!(least, "what was warm is warm");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn who_waits_for_the_share_is_told_of_it() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 8).background_share(1).build().unwrap();
    let held = pools.acquire_with("a", in_background()).await.unwrap();
    let error = limit(pools.acquire_with("b", in_background().timeout(ms(50))).await);
    assert_eq!((error.scope, error.limit, error.open), (LimitScope::Background, 1, 1));
    assert!(error.retry_after.is_some());
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

/// 200 tenants polled one after the other, again and again, beside five whose users keep them busy, in 30 connections. How
/// many of 1,000 acquires of those users found their connection there.
async fn hits_beside_a_poller(priority: Priority) -> u32 {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(ms(3)));
    let pools = manager(&fake, 30).build().unwrap();
    let (all, hits) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let mut tasks = JoinSet::new();
    for user in names(5) {
        let (pools, all, hits) = (pools.clone(), all.clone(), hits.clone());
        tasks.spawn(async move {
            warm(&pools, &user).await;
            loop {
                // Away for long enough that a sweep without manners takes the connection.
                sleep(ms(450)).await;
                let start = Instant::now();
                let lease = pools.acquire(&user).await.unwrap();
                all.fetch_add(1, Ordering::Relaxed);
                hits.fetch_add(u32::from(start.elapsed().is_zero()), Ordering::Relaxed);
                sleep(ms(5)).await;
                drop(lease);
            }
        });
    }
    tasks.spawn({
        let pools = pools.clone();
        async move {
            loop {
                for tenant in names(200) {
                    drop(pools.acquire_with(tenant, AcquireOptions::new().priority(priority)).await.unwrap());
                    sleep(ms(10)).await;
                }
            }
        }
    });
    sleep(secs(120)).await;
    tasks.shutdown().await;
    settle().await;
    assert_nothing_lost(&pools, &fake).await;
    hits.load(Ordering::Relaxed) * 1_000 / all.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn a_poller_over_two_hundred_tenants_leaves_the_busy_ones_warm() {
    let hits = hits_beside_a_poller(Priority::Background).await;
    assert!(hits >= 990, "{hits} of 1,000");
    let hits = hits_beside_a_poller(Priority::Foreground).await;
    assert!(hits < 500, "the same sweep in the foreground is felt: {hits} of 1,000");
}

#[tokio::test(start_paused = true)]
async fn a_sweep_works_once_for_each_tenant_and_never_for_more_at_once_than_it_may() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(ms(3)));
    let pools = manager(&fake, 16).background_share(8).build().unwrap();
    let (worked, running) = (Arc::new(Mutex::new(HashMap::<String, u32>::new())), Arc::new(AtomicU32::new(0)));
    let most = Arc::new(AtomicU32::new(0));
    let told = Arc::new(Mutex::new(Vec::new()));
    let report = pools
        .for_each_tenant(names(100), 6, {
            let (worked, running, most) = (worked.clone(), running.clone(), most.clone());
            move |lease| {
                let (worked, running, most) = (worked.clone(), running.clone(), most.clone());
                async move {
                    most.fetch_max(running.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
                    sleep(ms(7)).await;
                    *worked.lock().unwrap().entry(lease.tenant().to_string()).or_default() += 1;
                    running.fetch_sub(1, Ordering::Relaxed);
                    Ok::<(), Infallible>(())
                }
            }
        })
        .on_progress({
            let told = told.clone();
            move |progress| told.lock().unwrap().push((progress.finished, progress.failed, progress.total))
        })
        .await;
    assert!(report.is_complete() && report.done == 100, "{report:?}");
    let worked = std::mem::take(&mut *worked.lock().unwrap());
    assert!(worked.len() == 100 && worked.values().all(|&times| times == 1));
    assert_eq!(most.load(Ordering::Relaxed), 6);
    assert_eq!(*told.lock().unwrap(), (1..=100).map(|finished| (finished, 0, 100)).collect::<Vec<_>>());
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_that_fails_is_written_down_and_the_sweep_goes_on() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    fake.on_tenant(Call::Connect, "tenant-1").always(Behavior::fails(FailureKind::Auth));
    let mut tenants = names(6);
    tenants.push(String::new());
    let failures = Arc::new(Mutex::new(Vec::new()));
    let told = failures.clone();
    let report = pools
        .for_each_tenant(tenants, 1, |lease| async move {
            match lease.tenant().as_str() {
                "tenant-2" => Err("no such table"),
                "tenant-3" => panic!("a bug"),
                _ => Ok(()),
            }
        })
        .on_progress(move |progress| told.lock().unwrap().push(progress.failed))
        .await;
    assert_eq!(report.done, 3);
    assert!(!report.is_complete());
    assert_eq!(*failures.lock().unwrap(), [0, 1, 2, 3, 3, 3, 4]);
    assert_eq!(report.unfinished(), ["tenant-1", "tenant-2", "tenant-3", ""]);
    let errors: Vec<_> = report.failed.iter().map(|(_, error)| error).collect();
    assert!(matches!(errors[0], SweepError::Acquire(AcquireError::Connect { kind: FailureKind::Auth, .. })));
    assert!(matches!(errors[1], SweepError::Work("no such table")));
    assert!(matches!(errors[2], SweepError::Panicked));
    assert!(matches!(errors[3], SweepError::Acquire(AcquireError::InvalidTenant(_))));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_is_stopped_finishes_what_it_began_and_goes_on_from_there() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 8).background_share(4).build().unwrap();
    let worked = Arc::new(Mutex::new(Vec::new()));
    let work = {
        let worked = worked.clone();
        move |lease: crate::support::FakeLease| {
            let worked = worked.clone();
            async move {
                sleep(ms(10)).await;
                worked.lock().unwrap().push(lease.tenant().to_string());
                Ok::<(), Infallible>(())
            }
        }
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let stopped = async move { drop(stopped.await) };
    let sweep = tokio::spawn(pools.for_each_tenant(names(20), 4, work.clone()).stop_when(stopped).into_future());
    sleep(ms(15)).await;
    drop(stop);
    let report = sweep.await.unwrap();
    assert_eq!((report.done, report.remaining.len()), (8, 12), "two rounds were begun");
    assert!(!report.is_complete());
    let report = pools.for_each_tenant(report.unfinished(), 4, work).await;
    assert!(report.is_complete());
    let mut worked = std::mem::take(&mut *worked.lock().unwrap());
    worked.sort();
    let mut all = names(20);
    all.sort();
    assert_eq!(worked, all);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_is_stopped_before_it_begins_begins_with_nobody() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 8).background_share(4).build().unwrap();
    let sweep = pools.for_each_tenant(names(5), 4, |_| async { Ok::<(), Infallible>(()) });
    let report = sweep.stop_when(async {}).await;
    assert_eq!((report.done, report.remaining), (0, names(5)));
    assert_eq!(fake.calls(Call::Connect).started, 0);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_that_is_dropped_leaves_nothing_behind() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(ms(3)));
    let pools = manager(&fake, 8).background_share(4).build().unwrap();
    for at in 0..10 {
        let sweep = pools.for_each_tenant(names(20), 4, |lease| async move {
            sleep(ms(4)).await;
            drop(lease);
            Ok::<(), Infallible>(())
        });
        drop(tokio::time::timeout(ms(at), sweep.into_future()).await);
    }
    settle().await;
    assert_eq!(pools.stats().in_use, 0);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn users_go_first_while_a_sweep_runs() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(ms(3)));
    let pools = manager(&fake, 2).background_share(2).build().unwrap();
    let sweep = tokio::spawn(
        pools
            .for_each_tenant(names(50), 4, |lease| async move {
                sleep(ms(20)).await;
                drop(lease);
                Ok::<(), Infallible>(())
            })
            .into_future(),
    );
    sleep(ms(5)).await;
    for user in 0..10 {
        // At worst both connections have just begun their 20 ms.
        let lease = pools.acquire_with(format!("user-{user}"), within(ms(30))).await.unwrap();
        sleep(ms(5)).await;
        drop(lease);
    }
    let report = sweep.await.unwrap();
    assert!(report.is_complete(), "{report:?}");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_waits_five_minutes_for_a_tenant_and_goes_on() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).max_connections_per_tenant(1).build().unwrap();
    let held = pools.acquire("tenant-0").await.unwrap();
    let start = Instant::now();
    let report = pools.for_each_tenant(names(2), 1, |_| async { Ok::<(), Infallible>(()) }).await;
    assert_about(start.elapsed(), secs(300));
    assert_eq!((report.done, report.unfinished()), (1, names(1)));
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_sweep_over_a_closed_manager_says_so_for_each_tenant() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    assert_closes_clean(&pools, &fake).await;
    let report = pools.for_each_tenant(names(3), 2, |_| async { Ok::<(), Infallible>(()) }).await;
    assert_eq!((report.done, report.failed.len()), (0, 3));
    assert!(report.failed.iter().all(|(_, error)| matches!(error, SweepError::Acquire(AcquireError::Closed))));
}
