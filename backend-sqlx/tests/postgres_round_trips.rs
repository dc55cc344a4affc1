//! What tenantry adds to the wire: nothing. Counted by a proxy between the driver and the server.

mod support;

use std::future::Future;
use std::time::Duration;

use sqlx::Executor;
use support::in_time;
use support::postgres::{Cluster, options};
use tenantry_core::{Lease, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::proxy::Proxy;
use tenantry_testkit::servers::patient;

const TIMES: u64 = 100;
const QUERY: &str = "SELECT count(*) FROM note";

/// A server, a proxy before it, and one connection through that.
struct Wire {
    pools: TenantPools<PostgresFactory>,
    proxy: Proxy,
    _cluster: Cluster,
}

impl Wire {
    async fn new() -> Self {
        let cluster = Cluster::new().await;
        cluster.server.run("acme", "CREATE UNIQUE INDEX ON note (text)").await.expect("an index");
        let host: std::net::IpAddr = cluster.server.host().parse().expect("an address");
        let proxy = Proxy::start((host, cluster.server.port()).into()).await.expect("a proxy");
        let factory = PostgresFactory::new(options(&cluster.server).port(proxy.address().port()));
        let pools = patient(TenantPools::builder(factory))
            .max_connections(1)
            .validate_after_idle(Duration::from_secs(3600))
            .build()
            .expect("good settings");
        let wire = Self { pools, proxy, _cluster: cluster };
        // The first one connects and prepares.
        wire.query().await;
        wire
    }

    async fn lease(&self) -> Lease<PostgresFactory> {
        in_time(self.pools.acquire("acme")).await.expect("a lease")
    }

    async fn query(&self) {
        sqlx::query(QUERY).execute(&mut *self.lease().await).await.expect("an answer");
    }

    async fn transaction(&self) {
        let mut lease = self.lease().await;
        let mut transaction = lease.begin().await.expect("begins");
        transaction.execute(sqlx::query(QUERY)).await.expect("an answer");
        transaction.commit().await.expect("commits");
    }

    async fn violation(&self) {
        let insert = sqlx::query("INSERT INTO note (text) VALUES ($1)").bind("once");
        insert.execute(&mut *self.lease().await).await.expect_err("it is there already");
    }

    /// What the client sent meanwhile, in segments; each was answered before the next.
    async fn segments(&self, what: impl Future<Output = ()>) -> u64 {
        let before = self.proxy.traffic();
        in_time(what).await;
        let after = self.proxy.traffic();
        let segments = after.client_segments - before.client_segments;
        assert_eq!(after.round_trips - before.round_trips, segments);
        assert_eq!(after.connections, 1, "all of it on one connection");
        segments
    }
}

#[tokio::test]
async fn a_warm_lease_costs_its_querys_own_round_trip() {
    let wire = Wire::new().await;
    let asked = async {
        for _ in 0..TIMES {
            wire.query().await;
        }
    };
    assert_eq!(wire.segments(asked).await, TIMES);
}

#[tokio::test]
async fn a_transaction_costs_its_begin_its_query_and_its_commit() {
    let wire = Wire::new().await;
    let asked = async {
        for _ in 0..TIMES {
            wire.transaction().await;
        }
    };
    assert_eq!(wire.segments(asked).await, 3 * TIMES);
}

#[tokio::test]
async fn twenty_unique_violations_cost_twenty_round_trips_and_one_to_prepare() {
    let wire = Wire::new().await;
    wire.lease().await.execute("INSERT INTO note (text) VALUES ('once')").await.expect("a row");
    let asked = async {
        for _ in 0..20 {
            wire.violation().await;
        }
    };
    assert_eq!(wire.segments(asked).await, 21);
}

/// That the three above can fail: what a health check would cost is seen.
#[tokio::test]
async fn one_ping_among_a_hundred_queries_is_seen() {
    let wire = Wire::new().await;
    let asked = async {
        for time in 0..TIMES {
            wire.query().await;
            if time == 50 {
                wire.lease().await.ping().await.expect("an answer");
            }
        }
    };
    assert_eq!(wire.segments(asked).await, TIMES + 1);
}

#[tokio::test]
async fn cleaning_what_was_left_costs_one_round_trip() {
    let wire = Wire::new().await;
    for left in ["SET work_mem = '64kB'", "BEGIN", "CREATE TEMP TABLE scratch (id INT); LISTEN news"] {
        let mut lease = wire.lease().await;
        lease.execute(left).await.expect(left);
        let cleaned = async {
            drop(lease);
            drop(wire.lease().await);
        };
        assert_eq!(wire.segments(cleaned).await, 1, "{left}");
    }
}
