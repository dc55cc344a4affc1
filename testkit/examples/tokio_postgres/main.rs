//! tokio-postgres with a factory of your own: `cargo run -p tenantry-testkit --features postgres,proxy --example
//! tokio_postgres`. The factory is `factory.rs`, under 80 lines; `proof.rs` shows that it keeps the contract. Take the
//! factory into your service and adapt it; `own_backend.rs` says more about each method.
#![allow(clippy::print_stdout, reason = "an example talks")]

mod factory;
#[cfg(test)]
mod proof;

use factory::Factory;
use tenantry_core::TenantPools;
use tenantry_testkit::PrivatePostgres;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = PrivatePostgres::new()?; // yours runs already
    let pools = TenantPools::builder(Factory(server.config("postgres"))).max_connections(2).build()?;
    for tenant in ["acme", "globex", "initech"] {
        server.run("postgres", &format!("CREATE DATABASE {tenant}")).await?;
        let mut lease = pools.acquire(tenant).await?;
        let transaction = lease.client().transaction().await?;
        transaction.batch_execute("CREATE TABLE visit (who TEXT); INSERT INTO visit VALUES ('ann')").await?;
        transaction.commit().await?;
        drop(lease); // cleaned by a task, then idle
        let rows = pools.acquire(tenant).await?.query("SELECT count(*) FROM visit", &[]).await?;
        println!("{tenant} has had {} visit", rows[0].get::<_, i64>(0));
    }
    println!("three tenants, {} connections", pools.stats().open());
    pools.close().await;
    Ok(())
}

#[test]
fn the_example_runs() {
    main().expect("it works");
}
