//! Behind a real PgBouncer: each row of `docs/pgbouncer.md` is a test here, by the same words.

mod support;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection as _, Executor};
use support::postgres::options;
use support::subject::Cluster;
use support::tenant;
use tenantry_core::{Created, Dropped, FailureKind, Health, PoolFactory, Provision, TenantPools};
use tenantry_sqlx::{Error, PostgresFactory};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::conformance::{Subject, Suite};
use tenantry_testkit::servers::{PoolMode, PrivatePgBouncer, patient};

/// A PostgreSQL whose logins cost little, and a PgBouncer before it. The latter is named first, as its end comes first.
fn start(mode: PoolMode, settings: &[(&str, &str)]) -> (PrivatePgBouncer, PrivatePostgres) {
    let server = PrivatePostgres::builder().setting("password_encryption", "md5").start().expect("a server");
    let settings: Vec<_> =
        [("query_wait_timeout", "10"), ("server_login_retry", "0")].iter().chain(settings).copied().collect();
    (PrivatePgBouncer::start(&server, mode, &[], &settings).expect("a PgBouncer"), server)
}

fn through(bouncer: &PrivatePgBouncer, server: &PrivatePostgres) -> PgConnectOptions {
    options(server).host(bouncer.host()).port(bouncer.port())
}

fn factory(bouncer: &PrivatePgBouncer, server: &PrivatePostgres) -> PostgresFactory {
    PostgresFactory::new(through(bouncer, server)).behind_pgbouncer()
}

/// In transaction mode with this, each transaction has another connection to the server, so that what would go wrong now and
/// then goes wrong every time.
const ALWAYS_ANOTHER: (&str, &str) = ("server_lifetime", "0");

fn code(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|error| error.code()).unwrap_or_default().into_owned()
}

#[tokio::test]
async fn session_mode_keeps_the_contract_of_a_driver() {
    let cluster = Cluster::behind_pgbouncer().await;
    for tenant in cluster.tenants() {
        cluster.factory.create(&tenant).await.expect("a database");
    }
    let report = Suite::of(&cluster).run().await;
    report.assert_passed();
    assert_eq!(report.not_made().len(), 1, "all but the full server: {report}");
}

#[tokio::test]
async fn without_the_switch_pgbouncer_refuses_sqlx_and_a_statement_timeout_at_start_in_any_case() {
    let (bouncer, server) = start(PoolMode::Session, &[]);
    let plain = PostgresFactory::new(through(&bouncer, &server));
    let timed = factory(&bouncer, &server).statement_timeout(Duration::from_secs(5));
    for (factory, parameter) in [(plain, "extra_float_digits"), (timed, "options")] {
        let refused = factory.connect(&tenant("postgres")).await.expect_err("refused");
        let Error::Sqlx { source, .. } = &refused else { panic!("{refused:?}") };
        assert_eq!(code(source), "08P01");
        assert!(source.to_string().contains(parameter), "{source}");
    }
}

#[tokio::test]
async fn session_mode_with_a_limit_for_the_user_is_a_budget_for_all_databases_and_all_processes() {
    const LIMIT: u64 = 4;
    let (bouncer, server) = start(PoolMode::Session, &[("max_user_connections", "4")]);
    let factory = factory(&bouncer, &server);
    let names: Vec<String> = (0..8).map(|number| format!("tenant-{number}")).collect();
    support::postgres::make_databases(&server, &names).await;
    let patience = Duration::from_secs(60);
    let process = || {
        let builder = patient(TenantPools::builder(factory.clone())).max_connections(2).acquire_timeout(patience);
        builder.connect_timeout(patience).build().expect("good settings")
    };
    let processes = [process(), process()];
    let mut tasks = tokio::task::JoinSet::new();
    for (number, name) in names.iter().cycle().take(48).enumerate() {
        let (pools, name) = (processes[number % 2].clone(), name.clone());
        tasks.spawn(async move {
            let mut lease = pools.acquire(&name).await.expect("its turn comes");
            let database: String =
                sqlx::query_scalar("SELECT current_database()::text").fetch_one(&mut *lease).await.expect("an answer");
            assert_eq!(database, name);
            lease.discard();
        });
    }
    let mut most = 0;
    while let Some(done) = tasks.join_next().await {
        done.expect("all are served");
        let sample = server.sample().await.expect("a count");
        most = most.max(names.iter().map(|name| sample.in_database(name)).sum());
    }
    assert!((1..=LIMIT).contains(&most), "{most}");
    for pools in processes {
        pools.close().await;
    }
}

#[tokio::test]
async fn a_database_that_is_missing_and_a_wrong_password_are_called_so() {
    let (bouncer, server) = start(PoolMode::Session, &[]);
    let good = factory(&bouncer, &server);
    let wrong = PostgresFactory::new(through(&bouncer, &server).password("mark3r-wrong")).behind_pgbouncer();
    for (factory, kind) in [(good, FailureKind::NoSuchTenant), (wrong, FailureKind::Auth)] {
        let refused = factory.connect(&tenant("missing")).await.expect_err("refused");
        assert_eq!(factory.classify(&refused), kind, "{refused:?}");
        assert!(!format!("{refused:?}").contains("mark3r"));
    }
}

#[tokio::test]
async fn databases_are_made_and_dropped_although_pgbouncer_keeps_sessions_in_them() {
    for mode in [PoolMode::Session, PoolMode::Transaction] {
        let (bouncer, server) = start(mode, &[("query_wait_timeout", "3")]);
        let (factory, acme) = (factory(&bouncer, &server), tenant("acme"));
        assert_eq!(factory.create(&acme).await.expect("made"), Created::New);
        assert_eq!(factory.create(&acme).await.expect("there"), Created::AlreadyThere);
        let mut connection = factory.connect(&acme).await.expect("it is there");
        connection.execute(sqlx::raw_sql("SELECT 1")).await.expect("an answer");
        factory.close(connection, Duration::from_secs(5)).await;
        assert_eq!(server.sample().await.expect("a count").in_database("acme"), 1, "kept by PgBouncer");
        let plain = factory.clone().force_drop(false).drop_database(&acme).await;
        assert!(plain.is_err(), "it is in use");
        assert_eq!(factory.drop_database(&acme).await.expect("dropped"), Dropped::Gone);
        // PgBouncer remembers the database, and finds out with the first statement.
        if let Ok(mut connection) = factory.connect(&acme).await {
            connection.execute(sqlx::raw_sql("SELECT 1")).await.expect_err("it is gone");
            assert_ne!(factory.health(&mut connection), Health::Clean);
        }
    }
}

#[tokio::test]
async fn transaction_mode_loses_prepared_statements_between_transactions_with_and_without_a_cache() {
    let (bouncer, server) = start(PoolMode::Transaction, &[ALWAYS_ANOTHER]);
    for capacity in [100, 0] {
        let options = through(&bouncer, &server).extra_float_digits(None).statement_cache_capacity(capacity);
        let mut connection = PgConnection::connect_with(&options).await.expect("lets in");
        let refused = sqlx::query_scalar::<_, i32>("SELECT $1").bind(1).fetch_one(&mut connection).await;
        assert_eq!(code(&refused.expect_err("prepared on another connection")), "26000", "{capacity}");
    }
}

#[tokio::test]
async fn transaction_mode_serves_explicit_transactions_and_statements_without_parameters() {
    let (bouncer, server) = start(PoolMode::Transaction, &[ALWAYS_ANOTHER]);
    let options = through(&bouncer, &server).statement_cache_capacity(0);
    let factory = PostgresFactory::new(options).behind_pgbouncer();
    let pools = patient(TenantPools::builder(factory)).max_connections(2).build().expect("good settings");
    pools.create("acme").await.expect("a database");
    for number in 0..5 {
        let mut lease = pools.acquire("acme").await.expect("a connection");
        lease
            .execute(sqlx::raw_sql("CREATE TABLE IF NOT EXISTS note (number INT)"))
            .await
            .expect("the simple protocol");
        let mut transaction = lease.begin().await.expect("begins");
        let insert = sqlx::query("INSERT INTO note VALUES ($1)").persistent(false).bind(number);
        insert.execute(&mut *transaction).await.expect("the same connection all along");
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM note").persistent(false);
        assert_eq!(count.fetch_one(&mut *transaction).await.expect("an answer"), i64::from(number) + 1);
        transaction.commit().await.expect("commits");
    }
    pools.close().await;
}

#[tokio::test]
async fn transaction_mode_keeps_nothing_of_a_session_and_says_nothing_of_it() {
    let (bouncer, server) = start(PoolMode::Transaction, &[ALWAYS_ANOTHER]);
    let options = through(&bouncer, &server).extra_float_digits(None);
    let mut connection = PgConnection::connect_with(&options).await.expect("lets in");
    for (leave, look) in [
        ("SET search_path = elsewhere", "current_setting('search_path') = 'elsewhere'"),
        ("SELECT pg_advisory_lock(7)", "EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')"),
        ("CREATE TEMP TABLE scratch (id INT)", "to_regclass('pg_temp.scratch') IS NOT NULL"),
        ("LISTEN news", "EXISTS (SELECT pg_listening_channels())"),
        ("PREPARE one AS SELECT 1", "EXISTS (SELECT FROM pg_prepared_statements WHERE name = 'one')"),
        ("DECLARE scroll CURSOR WITH HOLD FOR SELECT 1", "EXISTS (SELECT FROM pg_cursors)"),
    ] {
        connection.execute(sqlx::raw_sql(leave)).await.expect("it is taken");
        let look = sqlx::raw_sql(AssertSqlSafe(format!("SELECT 1 WHERE {look}")));
        assert!(connection.fetch_optional(look).await.expect("an answer").is_none(), "{leave}");
    }
}
