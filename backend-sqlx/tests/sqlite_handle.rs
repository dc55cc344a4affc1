//! A tenant's handle in the place of a `SqlitePool`.

mod support;

use sqlx::Executor;
use support::in_time;
use support::sqlite::Folder;
use tenantry_core::TenantPools;
use tenantry_sqlx::TenantHandle;

#[tokio::test]
async fn queries_and_transactions_on_a_handle_share_the_one_connection() {
    let folder = Folder::new().await;
    let pools = TenantPools::builder(folder.factory.clone()).max_connections(1).build().expect("good settings");
    let acme = TenantHandle::new(&pools, folder.acme.clone());
    let count = || async { in_time(sqlx::query_scalar::<_, i64>("SELECT count(*) FROM note").fetch_one(&acme)).await };

    in_time(sqlx::query("INSERT INTO note (text) VALUES ('one')").execute(&acme)).await.unwrap();
    let mut transaction = in_time(acme.begin()).await.unwrap();
    transaction.execute("INSERT INTO note (text) VALUES ('two')").await.unwrap();
    transaction.commit().await.unwrap();
    let mut transaction = in_time(acme.begin_with("BEGIN IMMEDIATE")).await.unwrap();
    transaction.execute("INSERT INTO note (text) VALUES ('three')").await.unwrap();
    drop(transaction);
    assert_eq!(count().await.unwrap(), 2);
    assert_eq!(pools.stats().totals.connects, 1);
}
