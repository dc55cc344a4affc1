//! The budget under load, as MariaDB counts it: 200 tasks at 50 databases, with callers that go away, queries that are cut
//! off and transactions that nobody ends (tenantry's testkit has the crowd).
#![cfg(feature = "mysql")]
#![allow(missing_docs, reason = "tests")]

#[path = "support/mysql.rs"]
mod support;

use std::sync::Arc;
use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};
use futures_util::TryStreamExt as _;
use support::{cut_off, opts, tenant};
use tenantry_core::{Lease, Provision as _};
use tenantry_diesel::MySqlFactory;
use tenantry_diesel::mysql_async::Conn;
use tenantry_diesel::mysql_async::prelude::Queryable as _;
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::conformance::Trouble;
use tenantry_testkit::load::{self, Client, Crowd, MariaDbView, mariadb_server};

struct Diesel {
    server: PrivateMariaDb,
    tenants: Vec<String>,
}

impl Diesel {
    async fn new() -> Arc<Self> {
        let (server, tenants) = mariadb_server().expect("a server");
        let superuser = MySqlFactory::new(opts(&server)).linger(Duration::ZERO);
        for name in &tenants {
            superuser.create(&tenant(name)).await.expect("a database");
        }
        Arc::new(Self { server, tenants })
    }
}

struct Superuser(Conn);

impl Client for Superuser {
    async fn numbers(&mut self, query: &str) -> Result<Vec<u64>, Trouble> {
        Ok(self.0.query(query).await?)
    }
}

#[derive(QueryableByName)]
struct Database {
    #[diesel(sql_type = Text)]
    name: String,
}

#[derive(QueryableByName)]
struct Number {
    #[diesel(sql_type = BigInt)]
    #[allow(dead_code, reason = "nobody reads on")]
    seq: i64,
}

impl Crowd for Diesel {
    type Factory = MySqlFactory;
    type View = MariaDbView<Superuser>;

    fn backend(&self) -> &'static str {
        "diesel, MariaDB"
    }

    fn factory(&self, limited: bool) -> MySqlFactory {
        MySqlFactory::new(opts(&self.server).user(Some(load::user(limited))).pass(Some(load::password())))
    }

    fn tenants(&self) -> &[String] {
        &self.tenants
    }

    async fn view(&self, limited: bool) -> Result<Self::View, Trouble> {
        let superuser = Conn::new(opts(&self.server).prefer_socket(false)).await?;
        MariaDbView::new(Superuser(superuser), limited).await
    }

    async fn visit(&self, mut lease: Lease<MySqlFactory>, random: &mut fastrand::Rng) -> Result<(), String> {
        let said = |error: diesel::result::Error| error.to_string();
        let ask = diesel::sql_query("SELECT DATABASE() AS name");
        let database: Database = ask.get_result(&mut lease).await.map_err(said)?;
        if database.name != lease.tenant().as_str() {
            return Err(format!("{} was given {}", lease.tenant(), database.name));
        }
        match random.u32(..10) {
            0 => {
                // A query that is cut off.
                let sleep = format!("SELECT SLEEP({})", random.f64() * 0.02);
                let patience = Duration::from_micros(random.u64(..10_000));
                let query = diesel::sql_query(sleep).execute(&mut lease);
                tokio::time::timeout(patience, query).await.unwrap_or(Ok(0)).map_err(said)?;
            }
            1 => drop(cut_off(lease.batch_execute("BEGIN"))),
            2 => {
                let begun = lease.transaction(async |lease| lease.batch_execute("DO 1").await);
                let _ = tokio::time::timeout(Duration::from_micros(random.u64(..1_000)), begun).await;
            }
            3 => {
                let numbers = diesel::sql_query("SELECT CAST(seq AS SIGNED) AS seq FROM seq_1_to_1000");
                let mut rows = numbers.load_stream::<Number>(&mut lease).await.map_err(said)?;
                rows.try_next().await.map_err(said)?;
            }
            4 => lease.discard(),
            5 => lease.batch_execute("BEGIN").await.map_err(said)?,
            6 => lease.batch_execute("SET @left = 1").await.map_err(said)?,
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
