//! The budget under load, as PostgreSQL counts it: 200 tasks at 50 databases, with callers that go away, queries that are
//! cut off and transactions that nobody ends (tenantry's testkit has the crowd).
#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "tests")]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{Integer, Text};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};
use futures_util::TryStreamExt as _;
use tenantry_core::Lease;
use tenantry_diesel::PostgresFactory;
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::conformance::Trouble;
use tenantry_testkit::load::{self, Crowd, PostgresView, postgres_server};

struct Diesel {
    server: Arc<PrivatePostgres>,
    tenants: Vec<String>,
}

impl Diesel {
    async fn new() -> Arc<Self> {
        let (server, tenants) = postgres_server().await.expect("a server");
        Arc::new(Self { server, tenants })
    }
}

#[derive(QueryableByName)]
struct Database {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = Integer)]
    #[allow(dead_code, reason = "nobody reads on")]
    n: i32,
}

impl Crowd for Diesel {
    type Factory = PostgresFactory;
    type View = PostgresView;

    fn backend(&self) -> &'static str {
        "diesel, PostgreSQL"
    }

    fn factory(&self, limited: bool) -> PostgresFactory {
        let mut config = self.server.config("postgres");
        config.user(load::user(limited)).password(load::password());
        PostgresFactory::new(config)
    }

    fn tenants(&self) -> &[String] {
        &self.tenants
    }

    async fn view(&self, limited: bool) -> Result<PostgresView, Trouble> {
        PostgresView::new(&self.server, limited).await
    }

    async fn visit(&self, mut lease: Lease<PostgresFactory>, random: &mut fastrand::Rng) -> Result<(), String> {
        let said = |error: diesel::result::Error| error.to_string();
        let ask = diesel::sql_query("SELECT current_database()::text AS name");
        let database: Database = ask.get_result(&mut lease).await.map_err(said)?;
        if database.name != lease.tenant().as_str() {
            return Err(format!("{} was given {}", lease.tenant(), database.name));
        }
        match random.u32(..10) {
            0 => {
                // A query that is cut off.
                let sleep = format!("SELECT pg_sleep({})", random.f64() * 0.02);
                let patience = Duration::from_micros(random.u64(..10_000));
                let query = diesel::sql_query(sleep).execute(&mut lease);
                tokio::time::timeout(patience, query).await.unwrap_or(Ok(0)).map_err(said)?;
            }
            1 => {
                // As a timeout does, at the first moment.
                let _ = pin!(lease.batch_execute("BEGIN")).poll(&mut Context::from_waker(Waker::noop()));
            }
            2 => {
                let begun = lease.transaction(async |lease| lease.batch_execute("SELECT 1").await);
                let _ = tokio::time::timeout(Duration::from_micros(random.u64(..1_000)), begun).await;
            }
            3 => {
                let numbers = diesel::sql_query("SELECT generate_series(1, 1000) AS n");
                let mut rows = numbers.load_stream::<Number>(&mut lease).await.map_err(said)?;
                rows.try_next().await.map_err(said)?;
            }
            4 => lease.discard(),
            5 => lease.batch_execute("BEGIN").await.map_err(said)?,
            6 => lease.batch_execute("SET search_path TO pg_catalog").await.map_err(said)?,
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_counts_no_more_than_the_budget_and_refuses_next_to_nobody_where_it_has_just_as_many_places() {
    load::assert_the_cap_holds(&Diesel::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_of_two_more_than_the_server_has_places_is_found_out() {
    load::assert_a_budget_too_large_is_found_out(&Diesel::new().await).await;
}
