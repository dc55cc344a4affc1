//! A service under load, over a driver in memory.

use std::time::Duration;

use anyhow::Result;
use axum::Router;
use tenantry::TenantPools;
use tenantry::http::admin::{self, Authorization, Role};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

/// The token that may do everything.
pub const ADMIN: &str = "the-admin-token-of-a-test";

/// The token that may read.
pub const READER: &str = "the-reader-token-of-a-test";

/// More than a page of the table shows.
const TENANTS: usize = 60;

/// A manager of 8 connections, 16 tasks that use them for 60 tenants, and the admin router on a free port.
pub struct Service {
    /// The manager.
    pub pools: TenantPools<FakeFactory>,
    /// The page's address.
    pub url: String,
    server: JoinHandle<std::io::Result<()>>,
    load: JoinSet<()>,
}

impl Service {
    /// Starts it.
    ///
    /// # Errors
    /// Where there is no port to listen on.
    pub async fn start() -> Result<Self> {
        let fake = FakeFactory::new();
        fake.keep_events(0);
        fake.on(Call::Connect).always(Behavior::after(Duration::from_millis(3)));
        let pools = TenantPools::builder(fake).max_connections(8).build()?;
        let authorization = Authorization::tokens([(Role::Admin, ADMIN), (Role::Read, READER)])?;
        let admin: Router = admin::router(&pools, authorization);
        let app: Router = Router::new().nest_service("/admin", admin);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/admin", listener.local_addr()?);
        let server = tokio::spawn(async { axum::serve(listener, app).await });
        // All of them are known before anybody looks.
        for number in 0..TENANTS {
            pools.warm(name(number), 1).await?;
        }
        let mut load = JoinSet::new();
        for _ in 0..16 {
            load.spawn(ask(pools.clone()));
        }
        Ok(Self { pools, url, server, load })
    }

    /// Whether a tenant is out of service, as the manager says.
    #[must_use]
    pub fn is_draining(&self, tenant: &str) -> bool {
        self.pools.tenant_stats(tenant).is_some_and(|tenant| tenant.draining)
    }

    /// Nobody asks any more.
    pub async fn stop_load(&mut self) {
        self.load.shutdown().await;
    }

    /// The process that served the page is gone, as far as a browser can tell.
    pub async fn vanish(self) {
        self.server.abort();
        // It was just told to end, which is what it reports.
        let _ = self.server.await;
    }
}

fn name(number: usize) -> String {
    format!("tenant-{number:04}")
}

/// Uses connections of tenants, the first ones most, for as long as there are any.
async fn ask(pools: TenantPools<FakeFactory>) {
    let mut random = fastrand::Rng::new();
    loop {
        let number = random.usize(..TENANTS).min(random.usize(..TENANTS));
        let lease = pools.acquire(name(number)).await;
        // The work; a drained tenant's callers do something else meanwhile.
        tokio::time::sleep(Duration::from_millis(2)).await;
        drop(lease);
    }
}
