//! What the statistics tell of each tenant and each server, and how many tenants are listed.

use std::collections::BTreeSet;

use tenantry_core::{CircuitState, Counters, FailureKind, LimitScope, ServerId, TenantPage, TopBy};
use tenantry_testkit::{Behavior, Call, FakeFactory};

use crate::support::{Pools, assert_nothing_lost, hold, limit, manager, ms, secs, settle, warm, within};

fn totals(pools: &Pools, tenant: &str) -> Counters {
    pools.tenant_stats(tenant).unwrap().totals
}

/// What all tenants have counted together.
async fn sum(pools: &Pools) -> Counters {
    let mut sum = Counters::default();
    for tenant in pools.tenants(TenantPage::new().limit(1_000)).await.tenants {
        sum += tenant.totals;
    }
    sum
}

/// Review, finding 6: for each tenant, and in total.
#[tokio::test(start_paused = true)]
async fn each_reason_for_a_close_is_counted_for_its_tenant_and_in_total() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).idle_timeout(secs(10)).max_lifetime(secs(100)).build().unwrap();
    drop(hold(&pools, ["room", "evict", "idle", "lifetime"]).await);
    drop(hold(&pools, ["other"]).await);
    assert_eq!((totals(&pools, "room").evictions, totals(&pools, "room").closed()), (1, 1), "the oldest made room");
    assert_eq!((pools.evict("evict"), totals(&pools, "evict").closed_evict), (1, 1));
    assert_eq!((pools.renew("lifetime"), totals(&pools, "lifetime").closed_lifetime), (1, 1));
    hold(&pools, ["broken"]).await.pop().unwrap().discard();
    assert_eq!(totals(&pools, "broken").closed_broken, 1);
    drop(hold(&pools, ["drained"]).await);
    assert!(pools.drain("drained", secs(1)).await.is_complete());
    assert_eq!(totals(&pools, "drained").closed_ended, 1);
    tokio::time::sleep(secs(11)).await;
    assert_eq!((totals(&pools, "idle").closed_idle, totals(&pools, "other").closed_idle), (1, 1));
    let stats = pools.stats();
    assert_eq!((stats.open(), stats.totals.connects, stats.totals.closed()), (0, 7, 7));
    assert_eq!(sum(&pools).await, stats.totals);
    pools.resume("drained");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn what_acquires_come_to_is_counted_for_their_tenant_and_in_total() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).max_connections_per_tenant(1).connect_timeout(secs(1)).build().unwrap();
    let lease = pools.acquire("a").await.unwrap();
    assert_eq!(limit(pools.acquire_with("a", within(ms(5))).await).scope, LimitScope::Tenant);
    let waiting = tokio::spawn(pools.acquire("a"));
    settle().await;
    drop(lease);
    drop(waiting.await.unwrap().unwrap());
    drop(warm(&pools, "a").await);
    let mut dirty = pools.acquire("a").await.unwrap();
    dirty.mark_dirty();
    drop(dirty);
    settle().await;
    fake.on_tenant(Call::Connect, "b").next(Behavior::fails(FailureKind::Auth));
    for _ in 0..2 {
        assert!(pools.acquire("b").await.is_err());
    }
    fake.on_tenant(Call::Connect, "slow").next(Behavior::hangs());
    assert!(pools.acquire("slow").await.is_err());
    fake.on_tenant(Call::Connect, "full").next(Behavior::fails(FailureKind::ServerFull));
    drop(pools.acquire("full").await.unwrap());

    let a = totals(&pools, "a");
    assert_eq!((a.refused(LimitScope::Tenant), a.hand_overs, a.warm_hits, a.recycles), (1, 1, 2, 1), "{a:?}");
    let b = totals(&pools, "b");
    assert_eq!((b.connects, b.connect_failures, b.unavailable), (0, 1, 2), "one was told, one not tried");
    assert_eq!((totals(&pools, "slow").timeouts, totals(&pools, "slow").unavailable), (1, 0));
    assert_eq!((totals(&pools, "full").server_full, totals(&pools, "full").connect_failures), (1, 1));
    let stats = pools.stats();
    assert_eq!((sum(&pools).await, stats.unavailable), (stats.totals, 2));
    let server = &stats.servers[0];
    assert_eq!((server.connects, server.connect_failures, server.server_full), (2, 3, 1));
    tokio::time::sleep(secs(60)).await;
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn what_a_forgotten_tenant_has_counted_stays_in_the_totals() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).idle_timeout(secs(1)).forget_after(secs(5)).build().unwrap();
    for tenant in ["a", "b", "c"] {
        drop(pools.acquire(tenant).await.unwrap());
    }
    tokio::time::sleep(secs(3)).await;
    let before = pools.stats().totals;
    assert_eq!((before.connects, before.closed_idle + before.evictions), (3, 3));
    assert_eq!(totals(&pools, "a").connects, 1, "its connection is gone, its counters are not");
    tokio::time::sleep(secs(10)).await;
    assert_eq!((pools.stats().tenants, pools.stats().totals), (0, before));
    drop(hold(&pools, ["a"]).await);
    assert_eq!((totals(&pools, "a").connects, pools.stats().totals.connects), (1, 4), "it begins anew");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_says_what_is_known_of_its_connects_and_when_they_are_tried_again() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    let circuit = |tenant: &str| pools.tenant_stats(tenant).unwrap().circuit;
    drop(hold(&pools, ["acme"]).await);
    assert_eq!(circuit("acme"), CircuitState::Closed);
    fake.on_tenant(Call::Connect, "broken").next(Behavior::fails(FailureKind::Unreachable));
    assert!(pools.acquire("broken").await.is_err());
    let CircuitState::Open { kind, retry_after, .. } = circuit("broken") else { panic!("{:?}", circuit("broken")) };
    assert!(kind == FailureKind::Unreachable && retry_after <= ms(101), "{retry_after:?}");
    assert_eq!(pools.stats().unavailable, 1);
    // Nobody asked meanwhile, so that nobody probes.
    tokio::time::sleep(ms(200)).await;
    assert!(matches!(circuit("broken"), CircuitState::HalfOpen { kind: FailureKind::Unreachable, .. }));
    drop(pools.acquire("broken").await.unwrap());
    assert_eq!((circuit("broken"), pools.stats().unavailable), (CircuitState::Closed, 0));
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_says_that_it_is_paused_or_full_and_who_waits_for_it() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).build().unwrap();
    pools.pause("");
    let waiting = tokio::spawn(pools.acquire("acme"));
    settle().await;
    let stats = pools.stats().servers[0].clone();
    assert_eq!((stats.server, stats.paused, stats.effective_max), (ServerId::default(), true, 0));
    assert_eq!((stats.waiting, stats.full, pools.tenant_stats("acme").unwrap().waiting), (1, None, 1));
    assert!(pools.unpause(""));
    drop(waiting.await.unwrap().unwrap());
    let held = hold(&pools, ["acme", "b"]).await;
    fake.on(Call::Connect).always(Behavior::fails(FailureKind::ServerFull));
    let waiting = ["c", "d"].map(|tenant| tokio::spawn(pools.acquire(tenant)));
    settle().await;
    let stats = pools.stats();
    let server = &stats.servers[0];
    assert!(!server.paused && server.server_full >= 2 && server.waiting == 2, "{server:?}");
    assert!(server.full.is_some_and(|rest| rest <= ms(101)), "{:?}", server.full);
    let rests = || pools.stats().servers[0].full.unwrap();
    let before = rests();
    // Between two ticks, while nobody asks for anything.
    tokio::time::advance(ms(1)).await;
    assert_eq!(rests(), before.saturating_sub(ms(1)));
    assert!(matches!(pools.tenant_stats("c").unwrap().circuit, CircuitState::ServerFull { .. }));
    assert_eq!(stats.unavailable, 0, "a full server is nobody's failure");
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    drop(held);
    pools.close().await;
}

/// More than one stretch of the table, and pages that end in the middle of one.
#[tokio::test(start_paused = true)]
async fn over_all_pages_each_tenant_is_listed_once_although_others_come_and_go() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 4).idle_timeout(ms(50)).forget_after(secs(60)).build().unwrap();
    let name = |number: u32| format!("stays-{number:04}");
    for number in 0..1_300 {
        drop(pools.acquire(name(number)).await.unwrap());
    }
    let (mut seen, mut page, mut others) = (Vec::new(), TenantPage::new().limit(37), 0);
    loop {
        let list = pools.tenants(page.clone()).await;
        assert!(list.tenants.len() == 37 || list.next.is_none());
        seen.extend(list.tenants.into_iter().map(|tenant| tenant.tenant.to_string()));
        let Some(next) = list.next else { break };
        page = page.after(next.to_string().parse().unwrap());
        drop(pools.acquire(format!("comes-{others}")).await.unwrap());
        others += 1;
    }
    let staying: Vec<&String> = seen.iter().filter(|name| name.starts_with("stays")).collect();
    let once: BTreeSet<&String> = staying.iter().copied().collect();
    assert_eq!((staying.len(), once.len()), (1_300, 1_300));
    let found = pools.tenants(TenantPage::new().containing("ays-12").limit(2_000)).await;
    assert_eq!((found.tenants.len(), found.next), (100, None));
    assert!(found.tenants.iter().all(|tenant| tenant.tenant.as_str().starts_with("stays-12")));
    assert_eq!(pools.tenants(TenantPage::new().limit(0)).await.tenants.len(), 1, "a page has a tenant");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_walk_over_many_tenants_rests_and_a_page_does_not() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).build().unwrap();
    for number in 0..2_100 {
        drop(pools.acquire(format!("tenant-{number}")).await.unwrap());
    }
    let start = tokio::time::Instant::now();
    let time = || start.elapsed().as_millis();
    pools.tenants(TenantPage::new()).await;
    assert_eq!(time(), 0, "a page of 100");
    pools.tenants(TenantPage::new().containing("nobody")).await;
    assert_eq!(time(), 1, "a search: five stretches of 512");
    pools.top_tenants(3, TopBy::Waiting).await;
    assert_eq!(time(), 2, "the top of all");
}

#[tokio::test(start_paused = true)]
async fn the_top_tenants_are_those_with_the_most_the_first_one_first() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).build().unwrap();
    for number in 0..700 {
        drop(pools.acquire(format!("quiet-{number}")).await.unwrap());
    }
    let held = hold(&pools, ["two", "three", "two", "three", "three", "one"]).await;
    let names = |found: Vec<tenantry_core::TenantStats>| -> Vec<String> {
        found.into_iter().map(|tenant| tenant.tenant.to_string()).collect()
    };
    assert_eq!(names(pools.top_tenants(2, TopBy::InUse).await), ["three", "two"]);
    assert_eq!(names(pools.top_tenants(9, TopBy::InUse).await), ["three", "two", "one"], "who has none is not listed");
    assert_eq!(pools.top_tenants(0, TopBy::Connects).await, []);
    assert_eq!(names(pools.top_tenants(1, TopBy::Connects).await), ["three"]);
    assert_eq!(pools.top_tenants(5_000, TopBy::Evictions).await.len(), 686, "all but the last ones");
    assert_eq!(pools.top_tenants(5, TopBy::Waiting).await, []);
    drop(held);
    assert_nothing_lost(&pools, &fake).await;
}
