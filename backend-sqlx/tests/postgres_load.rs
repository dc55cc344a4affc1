//! The budget under load, as PostgreSQL counts it: 200 tasks at 50 databases, with callers that go away, queries that are
//! cut off and transactions that nobody ends (tenantry's testkit has the crowd).

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, Executor};
use support::polled_once;
use support::postgres::options;
use tenantry_core::{Lease, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::conformance::Trouble;
use tenantry_testkit::load::{self, Crowd, PostgresView, postgres_server};

/// Connections of a pool lease.
const POOL: u32 = 3;

struct Sqlx {
    server: Arc<PrivatePostgres>,
    tenants: Vec<String>,
    /// One in twenty asks for a pool of its own.
    with_pools: bool,
}

impl Sqlx {
    async fn new(with_pools: bool) -> Arc<Self> {
        let (server, tenants) = postgres_server().await.expect("a server");
        Arc::new(Self { server, tenants, with_pools })
    }
}

impl Crowd for Sqlx {
    type Factory = PostgresFactory;
    type View = PostgresView;

    fn backend(&self) -> &'static str {
        if self.with_pools { "sqlx, PostgreSQL, with pools" } else { "sqlx, PostgreSQL" }
    }

    fn factory(&self, limited: bool) -> PostgresFactory {
        PostgresFactory::new(options(&self.server).username(load::user(limited)).password(load::password()))
    }

    fn tenants(&self) -> &[String] {
        &self.tenants
    }

    async fn view(&self, limited: bool) -> Result<PostgresView, Trouble> {
        PostgresView::new(&self.server, limited).await
    }

    fn factory_sees_all(&self) -> bool {
        !self.with_pools
    }

    async fn visit(&self, mut lease: Lease<PostgresFactory>, random: &mut fastrand::Rng) -> Result<(), String> {
        let said = |error: sqlx::Error| error.to_string();
        let database: String =
            sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut *lease).await.map_err(said)?;
        if database != lease.tenant().as_str() {
            return Err(format!("{} was given {database}", lease.tenant()));
        }
        match random.u32(..10) {
            0 => {
                // A query that is cut off.
                let sleep = format!("SELECT pg_sleep({})", random.f64() * 0.02);
                let patience = Duration::from_micros(random.u64(..10_000));
                let query = sqlx::raw_sql(AssertSqlSafe(sleep)).execute(&mut *lease);
                tokio::time::timeout(patience, query).await.unwrap_or(Ok(Default::default())).map_err(said)?;
            }
            1 => drop(polled_once(lease.begin())),
            2 => drop(lease.begin().await.map_err(said)?),
            3 => {
                let mut rows = sqlx::query("SELECT generate_series(1, 1000)").fetch(&mut *lease);
                rows.next().await.expect("the first of many").map_err(said)?;
            }
            4 => lease.discard(),
            5 => {
                lease.execute("BEGIN").await.map_err(said)?;
            }
            _ => {}
        }
        Ok(())
    }

    async fn instead(
        &self,
        pools: &TenantPools<PostgresFactory>,
        tenant: &str,
        random: &mut fastrand::Rng,
    ) -> Option<Result<(), String>> {
        let asks = self.with_pools && random.u32(..20) == 0;
        if asks { Some(use_a_pool(pools, tenant, random.bool()).await) } else { None }
    }
}

/// More at once than the pool has connections, one of them cut off.
async fn use_a_pool(pools: &TenantPools<PostgresFactory>, tenant: &str, close: bool) -> Result<(), String> {
    let lease = pools.acquire_pool(tenant, POOL).await.map_err(|error| error.to_string())?;
    let ask = || sqlx::query_scalar::<_, String>("SELECT current_database()::text").fetch_one(&*lease);
    polled_once(ask());
    for answer in join_all((0..POOL + 2).map(|_| ask())).await {
        let database = answer.map_err(|error| error.to_string())?;
        if database != tenant {
            return Err(format!("{tenant} was given {database}"));
        }
    }
    if close {
        lease.close().await;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_counts_no_more_than_the_budget_and_refuses_next_to_nobody_where_it_has_just_as_many_places() {
    load::assert_the_cap_holds(&Sqlx::new(false).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_counts_no_more_than_the_budget_and_refuses_next_to_nobody_with_pools_in_it() {
    load::assert_the_cap_holds(&Sqlx::new(true).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_of_two_more_than_the_server_has_places_is_found_out() {
    load::assert_a_budget_too_large_is_found_out(&Sqlx::new(false).await).await;
}
