//! SeaORM on a tenant's database. SeaORM insists on sqlx's own pool, so it gets one: a pool lease, whose connections are
//! reserved in the budget for as long as it lives.
//!
//! `cargo run --package sea_orm_example`
#![allow(clippy::print_stdout, reason = "an example talks")]

use sea_orm::entity::prelude::*;
use sea_orm::{ActiveValue::Set, DatabaseConnection, DbErr, QueryOrder, SqlxSqliteConnector};
use tenantry::TenantPools;
use tenantry::sqlx::SqliteFactory;

#[allow(unreachable_pub, reason = "the derive asks for it")]
mod invoice {
    use sea_orm::entity::prelude::*;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "invoice")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub customer: String,
        pub cents: i32,
    }

    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}

/// What a service has anyway: code that knows SeaORM and nothing of tenants.
async fn bill(db: &DatabaseConnection, customer: &str, cents: i32) -> Result<Vec<invoice::Model>, DbErr> {
    let invoice = invoice::ActiveModel { customer: Set(customer.to_owned()), cents: Set(cents), ..Default::default() };
    invoice.insert(db).await?;
    invoice::Entity::find()
        .filter(invoice::Column::Customer.eq(customer))
        .order_by_asc(invoice::Column::Id)
        .all(db)
        .await
}

/// One tenant's work over SeaORM, on a pool of one connection.
async fn bill_tenant(
    pools: &TenantPools<SqliteFactory>,
    tenant: &str,
    cents: i32,
) -> Result<Vec<invoice::Model>, Box<dyn std::error::Error>> {
    let lease = pools.acquire_pool(tenant, 1).await?;
    let db = SqlxSqliteConnector::from_sqlx_sqlite_pool(lease.clone());
    db.execute_unprepared(
        "CREATE TABLE IF NOT EXISTS invoice (id INTEGER PRIMARY KEY, customer TEXT NOT NULL, cents INTEGER NOT NULL)",
    )
    .await?;
    let invoices = bill(&db, "Miller", cents).await?;
    // The pool's connections are closed and their permits free when this resolves; dropping the lease does it in a task.
    lease.close().await;
    Ok(invoices)
}

async fn run() -> Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let pools = TenantPools::builder(SqliteFactory::new(folder.path())).max_connections(2).build()?;
    for tenant in ["acme", "globex"] {
        pools.create(tenant).await?;
    }
    for (tenant, cents) in [("acme", 1_200), ("globex", 700), ("acme", 800)] {
        let invoices = bill_tenant(&pools, tenant, cents).await?;
        println!("{tenant}: {} cents in {} invoices", invoices.iter().map(|i| i.cents).sum::<i32>(), invoices.len());
    }
    assert_eq!(pools.stats().open(), 0, "nothing is left of the pools");
    pools.close().await;
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    run().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sea_orm_works_on_a_pool_lease_and_leaves_no_permit_behind() {
        let folder = tempfile::tempdir().unwrap();
        let pools = TenantPools::builder(SqliteFactory::new(folder.path())).max_connections(1).build().unwrap();
        for tenant in ["acme", "globex"] {
            pools.create(tenant).await.unwrap();
        }
        assert_eq!(bill_tenant(&pools, "acme", 5).await.unwrap().len(), 1);
        assert_eq!(bill_tenant(&pools, "globex", 5).await.unwrap().len(), 1);
        let invoices = bill_tenant(&pools, "acme", 7).await.unwrap();
        assert_eq!(invoices.iter().map(|invoice| invoice.cents).collect::<Vec<_>>(), [5, 7]);
        assert_eq!(pools.stats().open(), 0);
    }

    #[tokio::test]
    async fn the_example_runs() {
        run().await.unwrap();
    }
}
