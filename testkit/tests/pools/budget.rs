//! The budget as the fake counts it.

use std::time::Duration;

use tenantry_core::TenantPools;
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::task::JoinSet;

#[tokio::test(start_paused = true)]
async fn fifty_first_acquires_of_one_tenant_open_no_more_than_its_cap_and_are_all_served() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(Duration::from_millis(5)));
    let pools = TenantPools::builder(fake.clone())
        .max_connections(20)
        .max_connections_per_tenant(3)
        .max_connecting(20)
        .acquire_timeout(Duration::from_secs(60))
        .build()
        .unwrap();
    let mut tasks = JoinSet::new();
    for _ in 0..50 {
        let acquire = pools.acquire("acme");
        tasks.spawn(async move {
            let lease = acquire.await.unwrap();
            let _use = lease.use_it();
            tokio::time::sleep(Duration::from_millis(20)).await;
        });
    }
    let served = tasks.join_all().await.len();
    assert_eq!(served, 50);
    assert_eq!(fake.calls(Call::Connect).started, 3);
    fake.assert_no_misuse();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn random_cancellations_never_pass_the_budget_and_lose_no_permit() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(Duration::from_millis(1)));
    fake.on(Call::Close).always(Behavior::after(Duration::from_millis(1)));
    let pools = TenantPools::builder(fake.clone()).max_connections(13).build().unwrap();
    let mut tasks = JoinSet::new();
    for task in 0..300_u64 {
        let pools = pools.clone();
        tasks.spawn(async move {
            let mut random = fastrand::Rng::with_seed(task);
            for _ in 0..20 {
                let tenant = format!("tenant-{}", random.u32(..40));
                let patience = Duration::from_micros(random.u64(..5_000));
                if let Ok(Ok(lease)) = tokio::time::timeout(patience, pools.acquire(&tenant)).await {
                    let using = lease.use_for(&tenant);
                    if random.bool() {
                        tokio::time::sleep(Duration::from_micros(random.u64(..500))).await;
                    }
                    drop(using);
                    if random.u32(..10) == 0 {
                        lease.discard();
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    assert!(fake.open().most <= 13, "{} places of 13", fake.open().most);
    let mut leases = Vec::new();
    for tenant in 0..13 {
        leases.push(pools.acquire(format!("held-{tenant}")).await.unwrap());
    }
    assert_eq!(fake.open().now, 13);
    drop(leases);
    fake.assert_no_misuse();
    assert!(pools.close_within(Duration::from_secs(5)).await.is_complete());
    assert_eq!(fake.open().now, 0);
}
