//! A preflight asks over an ordinary connection, inside the budget, and knows what the manager may open where.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use tenantry_core::{
    Capacity, FailureKind, Health, Limits, PoolFactory, PreflightError, Replicas, ServerCapacity, ServerId, TenantId,
    TenantLimits, TenantPools,
};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::time::Instant;

use crate::support::secs;

/// The fake, with something to say of its limits: the number for the server, an error, or nothing for ever.
#[derive(Clone)]
struct Asked {
    fake: FakeFactory,
    says: Arc<dyn Fn(&TenantId) -> Says + Send + Sync>,
}

enum Says {
    Limit(u32),
    Failure,
    Nothing,
}

impl PoolFactory for Asked {
    type Connection = (<FakeFactory as PoolFactory>::Connection, TenantId);
    type Error = <FakeFactory as PoolFactory>::Error;

    fn server(&self, tenant: &TenantId) -> ServerId {
        ServerId::from(if tenant.as_str().starts_with("east") { "east" } else { "west" })
    }

    async fn connect(&self, tenant: &TenantId) -> Result<Self::Connection, Self::Error> {
        Ok((self.fake.connect(tenant).await?, tenant.clone()))
    }

    fn health(&self, connection: &mut Self::Connection) -> Health {
        self.fake.health(&mut connection.0)
    }

    async fn recycle(&self, connection: &mut Self::Connection) -> Result<(), Self::Error> {
        self.fake.recycle(&mut connection.0).await
    }

    async fn close(&self, connection: Self::Connection, within: Duration) {
        self.fake.close(connection.0, within).await;
    }

    fn classify(&self, error: &Self::Error) -> FailureKind {
        self.fake.classify(error)
    }
}

impl Capacity for Asked {
    async fn capacity(&self, connection: &mut Self::Connection) -> Result<ServerCapacity, Self::Error> {
        match (self.says)(&connection.1) {
            Says::Limit(limit) => {
                let mut capacity = ServerCapacity::default();
                capacity.max_connections = Some(limit);
                Ok(capacity)
            }
            // The error of a call that fails.
            Says::Failure => Err(self.fake.connect(&"failing".parse().unwrap()).await.unwrap_err()),
            Says::Nothing => pending().await,
        }
    }
}

fn asked(says: impl Fn(&TenantId) -> Says + Send + Sync + 'static) -> Asked {
    Asked { fake: FakeFactory::new(), says: Arc::new(says) }
}

#[tokio::test(start_paused = true)]
async fn it_knows_the_budget_of_the_server_that_answers_as_it_is_now() {
    let asked = asked(|tenant| Says::Limit(if tenant.as_str().starts_with("east") { 30 } else { 60 }));
    let pools = TenantPools::builder(asked.clone())
        .max_connections(40)
        .max_connections_on("east", 15)
        .tenant("east-big", TenantLimits::new().max(12))
        .build()
        .unwrap();
    let east = pools.preflight("east-big").await.unwrap();
    assert_eq!((east.server.as_str(), east.budget, east.per_tenant), ("east", 15, 12));
    east.fits(Replicas { running: 2, surge: 0 }).unwrap();
    assert_eq!(east.spare(Replicas { running: 2, surge: 1 }), Some(-15));
    let west = pools.preflight("west-1").await.unwrap();
    assert_eq!((west.budget, west.per_tenant), (40, 5));
    assert!(west.fits(Replicas { running: 2, surge: 0 }).is_err());
    pools.set_limits(Limits::new().max_connections(30)).unwrap();
    pools.preflight("west-1").await.unwrap().fits(Replicas { running: 2, surge: 0 }).unwrap();
    // Two connections were opened for it, which stay for whoever comes.
    assert_eq!((asked.fake.open().now, pools.stats().idle, pools.stats().totals.connects), (2, 2, 2));
}

#[tokio::test(start_paused = true)]
async fn it_waits_for_a_connection_as_everybody_and_says_why_there_is_none() {
    let pools = TenantPools::builder(asked(|_| Says::Limit(1))).max_connections(1).build().unwrap();
    let held = pools.acquire("other").await.unwrap();
    let error = pools.preflight("acme").await.unwrap_err();
    assert!(matches!(&error, PreflightError::Acquire(acquire) if acquire.is_limit()), "{error}");
    drop(held);
    assert_eq!(pools.preflight("acme").await.unwrap().capacity.max_connections, Some(1));
    assert!(matches!(pools.preflight("").await, Err(PreflightError::Acquire(_))));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_fails_or_never_answers_is_an_error_in_time_and_costs_no_permit() {
    let asked = asked(|tenant| if tenant.as_str() == "silent" { Says::Nothing } else { Says::Failure });
    asked.fake.on_tenant(Call::Connect, "failing").always(Behavior::fails(FailureKind::Auth));
    let pools = TenantPools::builder(asked.clone()).max_connections(1).acquire_timeout(secs(3)).build().unwrap();
    let error = pools.preflight("acme").await.unwrap_err();
    assert!(matches!(error, PreflightError::Failed { kind: FailureKind::Auth, .. }), "{error}");
    let start = Instant::now();
    let error = pools.preflight("silent").await.unwrap_err();
    assert!(matches!(error, PreflightError::NoAnswer { .. }), "{error}");
    assert!(start.elapsed() < secs(4), "{:?}", start.elapsed());
    drop(pools.acquire("acme").await.unwrap());
    pools.close().await;
    assert_eq!(asked.fake.open().now, 0);
}
