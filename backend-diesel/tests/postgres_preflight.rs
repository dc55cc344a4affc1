//! What a preflight says of a PostgreSQL server is what the server does.

mod support;

use support::Cluster;
use tenantry_core::{Replicas, TenantPools};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::{Role, patient};

#[tokio::test]
async fn what_it_says_is_what_the_server_lets_in() {
    let limited = Role::new("limited", "mark3r-role").connection_limit(4);
    let server = PrivatePostgres::builder().max_connections(12).role(Role::new("app", "mark3r-role")).role(limited);
    let cluster = Cluster::on(server.start().expect("a server")).await;
    for (role, max) in [("app", 9), ("limited", 4)] {
        let factory = cluster.factory_as(role, "mark3r-role");
        let pools = patient(TenantPools::builder(factory)).max_connections(2).build().expect("good settings");
        let preflight = pools.preflight("acme").await.expect("an answer");
        assert_eq!(preflight.capacity.for_this_login(), Some(max), "{preflight:?}");
        assert_eq!(preflight.fits(Replicas { running: 2, surge: 1 }).is_ok(), max >= 6);
        // Idle, or still saying goodbye to its statement.
        assert_eq!((pools.stats().open(), pools.stats().totals.connects), (1, 1), "one of the budget");
        drop(pools.acquire("acme").await.expect("the same connection"));
        assert_eq!((pools.stats().totals.connects, pools.stats().totals.closed_broken), (1, 0));
        pools.close().await;
        let strangers = cluster.server.fill(role, "mark3r-role").await.expect("until it is full");
        assert_eq!(strangers.count(), usize::try_from(max).expect("a few"));
        drop(strangers);
        while cluster.server.sample().await.expect("a count").of_role(role) > 0 {
            tokio::task::yield_now().await;
        }
    }
}
