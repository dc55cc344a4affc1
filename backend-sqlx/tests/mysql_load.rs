//! The budget under load, as MariaDB counts it: 200 tasks at 50 databases, with callers that go away, queries that are cut
//! off and transactions that nobody ends (tenantry's testkit has the crowd).

mod support;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use sqlx::{AssertSqlSafe, Connection as _, Executor, MySqlConnection};
use support::mysql::options;
use support::{polled_once, tenant};
use tenantry_core::{Lease, Provision};
use tenantry_sqlx::MySqlFactory;
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::conformance::Trouble;
use tenantry_testkit::load::{self, Client, Crowd, MariaDbView, mariadb_server};

struct Sqlx {
    server: PrivateMariaDb,
    tenants: Vec<String>,
}

impl Sqlx {
    async fn new() -> Arc<Self> {
        let (server, tenants) = mariadb_server().expect("a server");
        let superuser = MySqlFactory::new(options(&server)).linger(Duration::ZERO);
        for name in &tenants {
            superuser.create(&tenant(name)).await.expect("a database");
        }
        Arc::new(Self { server, tenants })
    }
}

struct Superuser(MySqlConnection);

impl Client for Superuser {
    async fn numbers(&mut self, query: &str) -> Result<Vec<u64>, Trouble> {
        Ok(sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut self.0).await?)
    }
}

impl Crowd for Sqlx {
    type Factory = MySqlFactory;
    type View = MariaDbView<Superuser>;

    fn backend(&self) -> &'static str {
        "sqlx, MariaDB"
    }

    fn factory(&self, limited: bool) -> MySqlFactory {
        MySqlFactory::new(options(&self.server).username(load::user(limited)).password(load::password()))
    }

    fn tenants(&self) -> &[String] {
        &self.tenants
    }

    async fn view(&self, limited: bool) -> Result<Self::View, Trouble> {
        let superuser = MySqlConnection::connect_with(&options(&self.server)).await?;
        MariaDbView::new(Superuser(superuser), limited).await
    }

    async fn visit(&self, mut lease: Lease<MySqlFactory>, random: &mut fastrand::Rng) -> Result<(), String> {
        let said = |error: sqlx::Error| error.to_string();
        let database: String = sqlx::query_scalar("SELECT DATABASE()").fetch_one(&mut *lease).await.map_err(said)?;
        if database != lease.tenant().as_str() {
            return Err(format!("{} was given {database}", lease.tenant()));
        }
        match random.u32(..10) {
            0 => {
                // A query that is cut off.
                let sleep = format!("SELECT SLEEP({})", random.f64() * 0.02);
                let patience = Duration::from_micros(random.u64(..10_000));
                let query = sqlx::raw_sql(AssertSqlSafe(sleep)).execute(&mut *lease);
                tokio::time::timeout(patience, query).await.unwrap_or(Ok(Default::default())).map_err(said)?;
            }
            1 => drop(polled_once(lease.begin())),
            2 => drop(lease.begin().await.map_err(said)?),
            3 => {
                let mut rows = sqlx::query("SELECT seq FROM seq_1_to_1000").fetch(&mut *lease);
                rows.next().await.expect("the first of many").map_err(said)?;
            }
            4 => lease.discard(),
            5 => {
                lease.execute("BEGIN").await.map_err(said)?;
            }
            6 => drop(polled_once(sqlx::query("SELECT 1 + ?").bind(1).execute(&mut *lease))),
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_counts_no_more_than_the_budget_and_refuses_next_to_nobody_where_it_has_just_as_many_places() {
    load::assert_the_cap_holds(&Sqlx::new().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_of_two_more_than_the_server_has_places_is_found_out() {
    load::assert_a_budget_too_large_is_found_out(&Sqlx::new().await).await;
}
