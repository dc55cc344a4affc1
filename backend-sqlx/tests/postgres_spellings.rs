//! How sqlx is written against a lease, each way inside of a spawned task: that it compiles is most of the test.

mod support;

use futures_util::StreamExt;
use sqlx::{Acquire, Executor, FromRow, Postgres, QueryBuilder};
use support::in_time;
use support::postgres::Cluster;
use tenantry_core::{Health, Lease, PoolFactory, TenantPools};
use tenantry_sqlx::PostgresFactory;
use tenantry_testkit::servers::patient;

#[derive(Debug, FromRow)]
struct Note {
    id: i32,
    text: String,
}

/// A lease as users have it. It outlives its manager.
async fn lease(factory: &PostgresFactory) -> Lease<PostgresFactory> {
    let pools = patient(TenantPools::builder(factory.clone())).max_connections(2).build().expect("good settings");
    in_time(pools.acquire("acme")).await.expect("a lease")
}

async fn over_an_executor<'c, E>(executor: E) -> Result<i64, sqlx::Error>
where
    E: Executor<'c, Database = Postgres>,
{
    sqlx::query_scalar("SELECT count(*) FROM note").fetch_one(executor).await
}

async fn over_acquire<'c, A>(acquire: A) -> Result<(), sqlx::Error>
where
    A: Acquire<'c, Database = Postgres> + Send,
{
    let mut transaction = acquire.begin().await?;
    sqlx::query("INSERT INTO note (text) VALUES ('over acquire')").execute(&mut *transaction).await?;
    transaction.commit().await
}

async fn over_the_drivers_own(connection: &mut sqlx::PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM note").fetch_one(connection).await
}

#[tokio::test]
async fn every_spelling_of_a_query_works_in_a_spawned_task() {
    let cluster = Cluster::new().await;
    let mut lease = lease(&cluster.factory).await;
    let task = tokio::spawn(async move {
        sqlx::query("INSERT INTO note (text) VALUES ($1)").bind("one").execute(&mut *lease).await?;
        let count = sqlx::query!("SELECT count(*) AS \"count!\" FROM note").fetch_one(&mut *lease).await?;
        assert_eq!(count.count, 1);
        let note = sqlx::query_as!(Note, "SELECT id, text FROM note WHERE id = $1", 1).fetch_one(&mut *lease).await?;
        assert_eq!((note.id, note.text.as_str()), (1, "one"));
        let mut notes = sqlx::query_as::<_, Note>("SELECT id, text FROM note").fetch(&mut *lease);
        while let Some(note) = notes.next().await {
            assert_eq!(note?.id, 1);
        }
        drop(notes);
        assert_eq!(sqlx::query("SELECT 1").fetch_all(&mut *lease).await?.len(), 1);
        assert_eq!(lease.fetch_all("SELECT 1").await?.len(), 1);
        sqlx::raw_sql("SELECT 1").execute(&mut *lease).await?;
        QueryBuilder::<Postgres>::new("INSERT INTO note (text) ")
            .push_values(["two", "three"], |mut row, text| {
                row.push_bind(text);
            })
            .build()
            .execute(&mut *lease)
            .await?;
        let mut transaction = lease.begin().await?;
        sqlx::query("DELETE FROM note WHERE id = 3").execute(&mut *transaction).await?;
        assert_eq!(over_an_executor(&mut *transaction).await?, 2);
        transaction.commit().await?;
        assert_eq!(over_an_executor(&mut *lease).await?, 2);
        over_acquire(&mut *lease).await?;
        Ok::<_, sqlx::Error>(lease)
    });
    let mut lease = in_time(task).await.unwrap().unwrap();
    assert_eq!(cluster.factory.health(&mut lease), Health::Clean, "none of these leaves anything");

    let mut lease = in_time(tokio::spawn(async move {
        assert_eq!(over_the_drivers_own(&mut lease).await?, 3);
        Ok::<_, sqlx::Error>(lease)
    }))
    .await
    .unwrap()
    .unwrap();
    assert_eq!(cluster.factory.health(&mut lease), Health::Dirty);
}

#[tokio::test]
async fn migrations_run_in_a_spawned_task() {
    static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!("tests/migrations");
    let cluster = Cluster::new().await;
    let mut lease = lease(&cluster.factory).await;
    in_time(tokio::spawn(async move { lease.migrate(&MIGRATOR).await })).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_stream_and_a_transaction_may_end_in_an_error() {
    let cluster = Cluster::new().await;
    let mut lease = lease(&cluster.factory).await;
    let task = tokio::spawn(async move {
        let mut rows = sqlx::query("SELECT 1 / (2 - a) FROM generate_series(1, 3) a").fetch(&mut *lease);
        assert!(rows.next().await.unwrap().is_ok());
        assert!(rows.next().await.unwrap().is_err());
        drop(rows);
        lease
    });
    let mut lease = in_time(task).await.unwrap();
    assert_eq!(cluster.factory.health(&mut lease), Health::Clean);
}
