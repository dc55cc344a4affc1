//! diesel for the old half of a service and sqlx for the new: two drivers, one budget, on a server that lets in exactly that
//! many, for tenants that both halves serve.
#![cfg(feature = "postgres")]
#![allow(missing_docs, reason = "tests")]

use std::time::Duration;

use diesel::sql_types::Text;
use diesel_async::RunQueryDsl as _;
use futures_core::future::BoxFuture;
use sqlx::Postgres;
use sqlx::postgres::PgConnectOptions;
use tenantry_core::{DynFactory, EitherFactory, PoolFactory, TenantId, TenantPools};
use tenantry_diesel::PostgresConnection;
use tenantry_diesel::tokio_postgres::Config;
use tenantry_testkit::servers::{Role, patient};
use tenantry_testkit::{PrivatePostgres, Sampler};
use tokio::task::JoinSet;

const BUDGET: u32 = 8;
const TENANTS: usize = 6;
const TASKS: usize = 16;
const ROUNDS: usize = 125;

/// Where the server says how many connections a role may have, one more is refused with these words.
const REFUSAL: &str = "too many connections for role";

#[derive(diesel::QueryableByName)]
struct Database {
    #[diesel(sql_type = Text)]
    name: String,
}

/// The same server, by each driver.
struct Cluster {
    server: PrivatePostgres,
    diesel: tenantry_diesel::PostgresFactory,
    sqlx: tenantry_sqlx::PostgresFactory,
}

impl Cluster {
    async fn new() -> Self {
        let role = Role::new("service", "mark3r-role").connection_limit(BUDGET);
        let server = PrivatePostgres::builder().setting("password_encryption", "md5").role(role).start();
        let server = server.expect("a server");
        for number in 0..TENANTS {
            server.run("postgres", &format!("CREATE DATABASE \"tenant-{number}\"")).await.expect("a new database");
        }
        let mut config = Config::new();
        config.host(server.host()).port(server.port()).user("service").password("mark3r-role").dbname("postgres");
        let options = PgConnectOptions::new_without_pgpass().host(server.host()).port(server.port());
        let options = options.username("service").password("mark3r-role").database("postgres");
        Self {
            server,
            diesel: tenantry_diesel::PostgresFactory::new(config),
            sqlx: tenantry_sqlx::PostgresFactory::new(options),
        }
    }

    /// Runs `ask` from sixteen tasks, each at one tenant after the other: a tenant, and a number that is anything. Returns
    /// what the server saw of it.
    async fn under_load<F: PoolFactory>(&self, pools: &TenantPools<F>, ask: Ask<F>) -> String {
        let sampler = Sampler::start(&self.server, Duration::from_millis(1)).await.expect("starts");
        let refused_before = self.refused();
        let mut tasks = JoinSet::new();
        for number in 0..TASKS {
            let pools = pools.clone();
            tasks.spawn(async move {
                for round in 0..ROUNDS {
                    let tenant = format!("tenant-{}", (number * 3 + round * 5) % TENANTS);
                    let database = ask(pools.clone(), tenant.clone(), number * ROUNDS + round).await;
                    assert_eq!(database, tenant, "a lease of one tenant is in the database of another");
                }
            });
        }
        while let Some(ended) = tasks.join_next().await {
            ended.expect("every acquire is served");
            pools.check();
        }
        let (seen, refused) = (sampler.stop().await.expect("what it saw"), self.refused() - refused_before);
        let most = seen.most_of_role["service"];
        assert!(seen.samples > 10 && most <= u64::from(BUDGET), "{seen:?}");
        let totals = pools.stats().totals;
        assert!(pools.close_within(Duration::from_secs(60)).await.is_complete());
        self.server.until(|now| now.of_role("service") == 0).await.expect("nothing is left open");
        let acquires = TASKS * ROUNDS;
        format!("{acquires} acquires, at most {most} of {BUDGET} sessions, {refused} refused; {totals:?}")
    }

    fn refused(&self) -> usize {
        self.server.log().matches(REFUSAL).count()
    }
}

type Ask<F> = fn(TenantPools<F>, String, usize) -> BoxFuture<'static, String>;

const DATABASE: &str = "SELECT current_database()::text AS name";

async fn by_diesel(connection: &mut PostgresConnection) -> String {
    diesel::sql_query(DATABASE).get_result::<Database>(connection).await.expect("an answer").name
}

async fn by_sqlx(connection: &mut tenantry_sqlx::Connection<Postgres>) -> String {
    sqlx::query_scalar(DATABASE).fetch_one(connection).await.expect("an answer")
}

fn builder<F: PoolFactory>(factory: F, per_tenant: u32) -> TenantPools<F> {
    patient(TenantPools::builder(factory))
        .max_connections(BUDGET)
        .max_connections_per_tenant(per_tenant)
        .acquire_timeout(Duration::from_secs(120))
        .build()
        .expect("good settings")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_views_of_every_tenant_keep_one_budget() {
    let cluster = Cluster::new().await;
    for per_tenant in [1, 3] {
        let pools = builder(EitherFactory::new(cluster.diesel.clone(), cluster.sqlx.clone()), per_tenant);
        let ask: Ask<_> = |pools, tenant, number| {
            Box::pin(async move {
                // Without a pattern that the tasks could fall into step with.
                if number.wrapping_mul(2_654_435_761) % 1009 < 505 {
                    by_diesel(&mut pools.left().acquire(&tenant).await.expect("a lease")).await
                } else {
                    by_sqlx(&mut pools.right().acquire(&tenant).await.expect("a lease")).await
                }
            })
        };
        println!("{per_tenant} a tenant: {}", cluster.under_load(&pools, ask).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_for_each_tenant_keeps_one_budget() {
    let cluster = Cluster::new().await;
    let (old, new) = (DynFactory::new(cluster.diesel.clone()), DynFactory::new(cluster.sqlx.clone()));
    let is_old = |tenant: &TenantId| tenant.as_str().ends_with(['0', '2', '4']);
    let factory = DynFactory::route(move |tenant| if is_old(tenant) { old.clone() } else { new.clone() });
    let ask: Ask<DynFactory> = |pools, tenant, _| {
        Box::pin(async move {
            let mut lease = pools.acquire(&tenant).await.expect("a lease");
            if let Some(connection) = lease.downcast_mut::<PostgresConnection>() {
                return by_diesel(connection).await;
            }
            by_sqlx(lease.downcast_mut().expect("sqlx's, if not diesel's")).await
        })
    };
    println!("{}", cluster.under_load(&builder(factory, 3), ask).await);
}
