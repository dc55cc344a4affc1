//! The MySQL driver against a private MariaDB: what a lease's user leaves, and what the driver makes of it.

mod support;

use sqlx::{Acquire, AssertSqlSafe, Connection as _, Executor, MySql, MySqlConnection, QueryBuilder};
use support::mysql::{Lease, Server, options};
use support::{PATIENCE, in_time, polled_once, tenant};
use tenantry_core::{Created, Dropped, FailureKind, Health, NativePool, PoolFactory, Provision, TenantPools};
use tenantry_sqlx::{Error, MySqlFactory};
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::servers::{User, patient};

async fn count(lease: &mut Lease) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM note").fetch_one(&mut **lease).await.expect("a count")
}

async fn over_acquire<'c, A: Acquire<'c, Database = MySql> + Send>(acquire: A) -> Result<(), sqlx::Error> {
    let mut transaction = acquire.begin().await?;
    sqlx::query("INSERT INTO note (text) VALUES ('a')").execute(&mut *transaction).await?;
    transaction.commit().await
}

#[tokio::test]
async fn plain_statements_and_resolved_transactions_leave_a_connection_clean() {
    let server = Server::new().await;
    let mut lease = server.lease().await;
    let task = tokio::spawn(async move {
        sqlx::query("INSERT INTO note (text) VALUES (?)").bind("a;b").execute(&mut *lease).await?;
        sqlx::query("INSERT IGNORE INTO note (id, text) VALUES (1, 'a')").execute(&mut *lease).await?;
        QueryBuilder::<MySql>::new("DELETE FROM note WHERE id = ").push_bind(1).build().execute(&mut *lease).await?;
        sqlx::query("SELECT * FROM nowhere").execute(&mut *lease).await.unwrap_err();
        sqlx::raw_sql("SELECT * FROM nowhere").execute(&mut *lease).await.unwrap_err();
        over_acquire(&mut *lease).await?;
        lease.begin().await?.rollback().await?;
        lease.ping().await?;
        Ok::<_, sqlx::Error>(lease)
    });
    let mut lease = in_time(task).await.unwrap().unwrap();
    assert_eq!(server.factory.health(&mut lease), Health::Clean);
    assert_eq!(count(&mut lease).await, 1);
    in_time(server.factory.recycle(&mut lease)).await.expect("validated");
    assert_eq!(server.factory.health(&mut lease), Health::Clean);
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_before_the_next_user() {
    let server = Server::new().await;
    let mut lease = server.lease().await;
    let mut transaction = lease.begin().await.unwrap();
    sqlx::query("INSERT INTO note (text) VALUES ('lost')").execute(&mut *transaction).await.unwrap();
    drop(transaction);
    assert_eq!(server.factory.health(&mut lease), Health::Dirty);
    in_time(server.factory.recycle(&mut lease)).await.unwrap();
    assert_eq!(server.factory.health(&mut lease), Health::Clean);
    assert_eq!(count(&mut lease).await, 0);
}

#[tokio::test]
async fn what_cannot_be_undone_is_closed() {
    let server = Server::new().await;
    for change in [
        "SET @a = 1",
        "SET SESSION sql_mode = ''",
        "SELECT @a := 1",
        "SELECT 1 INTO @a",
        "SELECT GET_LOCK('a', 0)",
        "SELECT 1; SET @a = 1",
        "/*!SET @a = 1*/",
        "CREATE TEMPORARY TABLE scratch (id INT)",
        "BEGIN",
        "LOCK TABLES note WRITE",
        "PREPARE mine FROM 'SELECT 1'",
    ] {
        let mut lease = server.lease().await;
        lease.execute(change).await.expect(change);
        assert_eq!(server.factory.health(&mut lease), Health::Broken, "{change}");
        assert!(matches!(server.factory.recycle(&mut lease).await, Err(Error::LeftBehind { .. })), "{change}");
        in_time(server.factory.close(lease.into_inner(), PATIENCE)).await;
    }
    for cancelled in 0..3 {
        let mut lease = server.lease().await;
        assert!(match cancelled {
            0 => polled_once(sqlx::query("SELECT SLEEP(0.1)").execute(&mut *lease)),
            1 => polled_once(lease.execute("SELECT SLEEP(0.1)")),
            _ => polled_once(lease.migrate(&sqlx::migrate!("tests/migrations"))),
        });
        assert_eq!(server.factory.health(&mut lease), Health::Broken);
        in_time(server.factory.close(lease.into_inner(), PATIENCE)).await;
    }
    let mut lease = server.lease().await;
    (&mut *lease).acquire().await.unwrap();
    assert_eq!(server.factory.health(&mut lease), Health::Broken);
    let mut lease = server.lease().await;
    std::mem::forget(lease.begin().await.unwrap());
    assert_eq!(server.factory.health(&mut lease), Health::Broken);
}

#[tokio::test]
async fn a_session_that_the_server_ended_is_lost() {
    let server = Server::new().await;
    let mut lease = server.lease().await;
    let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut *lease).await.unwrap();
    let mut other = server.lease().await;
    sqlx::raw_sql(AssertSqlSafe(format!("KILL {id}"))).execute(&mut *other).await.unwrap();
    // The kill is carried out at the next statement, if it is not yet.
    let failed = in_time(async {
        loop {
            if let Err(error) = sqlx::query("SELECT 1").execute(&mut *lease).await {
                return error;
            }
        }
    });
    failed.await;
    assert_eq!(server.factory.health(&mut lease), Health::Lost);
}

#[tokio::test]
async fn errors_are_told_apart() {
    let server = Server::new().await;
    let missing = tenant("tenantry-test-missing");
    let error = server.factory.connect(&missing).await.unwrap_err();
    assert_eq!(server.factory.classify(&error), FailureKind::NoSuchTenant);
    let error = server.factory.open_pool(&missing, 1).await.unwrap_err();
    assert_eq!(server.factory.classify(&error), FailureKind::NoSuchTenant);
    assert_eq!(server.factory.drop_database(&missing).await.unwrap(), Dropped::WasAbsent);
    assert_eq!(server.factory.create(&server.acme).await.unwrap(), Created::AlreadyThere);

    let wrong = MySqlFactory::new(options(&server.server).username("nobody-of-that-name").password("hunter2"));
    let error = wrong.connect(&server.acme).await.unwrap_err();
    assert_eq!(wrong.classify(&error), FailureKind::Auth, "{error:?}");
    assert!(!format!("{error} {error:?}").contains("nobody") && !format!("{error:?}").contains("hunter2"));
    let nowhere = MySqlFactory::new(options(&server.server).host("127.0.0.1").port(1));
    let error = nowhere.connect(&server.acme).await.unwrap_err();
    assert_eq!(nowhere.classify(&error), FailureKind::Unreachable);
}

#[tokio::test]
async fn any_password_works_and_a_full_server_says_so() {
    const PASSWORD: &str = "p@/#%:?' \"\\$&=+mark3r";
    let user = User::new("u@`s'er", PASSWORD).owns("acme").max_user_connections(1);
    let server = Server::on(PrivateMariaDb::builder().user(user)).await;
    let options = options(&server.server).username("u@`s'er").password(PASSWORD);
    let factory = MySqlFactory::new(options);
    let first = factory.connect(&server.acme).await.unwrap();
    let error = factory.connect(&server.acme).await.unwrap_err();
    assert_eq!(factory.classify(&error), FailureKind::ServerFull, "{error:?}");
    factory.close(first, PATIENCE).await;
}

#[tokio::test]
async fn a_close_says_goodbye_when_a_cancelled_query_has_ended() {
    let server = Server::new().await;
    let mut watcher = MySqlConnection::connect_with(&options(&server.server)).await.unwrap();
    for _ in 0..5 {
        let mut lease = server.lease().await;
        let id: u64 = sqlx::query_scalar("SELECT CONNECTION_ID()").fetch_one(&mut *lease).await.unwrap();
        assert!(polled_once(lease.execute("SELECT SLEEP(0.3)")));
        in_time(server.factory.close(lease.into_inner(), PATIENCE)).await;
        let mut count = async |of: &'static str| {
            let sql = format!("SELECT count(*) FROM information_schema.processlist WHERE id = {id} {of}");
            sqlx::query_scalar::<_, i64>(AssertSqlSafe(sql)).fetch_one(&mut watcher).await.unwrap()
        };
        assert_eq!(count("AND command = 'Query'").await, 0, "it has ended");
        // The goodbye was heard: how long a session outlives that is up to the server.
        in_time(async { while count("").await > 0 {} }).await;
    }
}

#[tokio::test]
async fn leases_and_pools_of_many_tasks_stay_within_the_budget() {
    let server = Server::new().await;
    let pools = patient(TenantPools::builder(server.factory.clone())).max_connections(3).build().unwrap();
    let tasks: Vec<_> = (0..12)
        .map(|task| {
            let (pools, acme) = (pools.clone(), server.acme.clone());
            tokio::spawn(async move {
                let mut lease = in_time(pools.acquire(&acme)).await.unwrap();
                match task % 3 {
                    0 => over_acquire(&mut *lease).await.unwrap(),
                    1 => drop(lease.begin().await.unwrap()),
                    _ => drop(lease.execute("SET @a = 1").await.unwrap()),
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let lease = in_time(pools.acquire_pool(&server.acme, 2)).await.unwrap();
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM note").fetch_one(&*lease).await.unwrap();
    assert_eq!(rows, 4);
    in_time(lease.close()).await;
    in_time(pools.close()).await;
}
