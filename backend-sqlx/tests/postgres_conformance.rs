//! The contract of a driver, proved for PostgreSQL by the suite of tenantry's testkit.

mod support;

use support::subject::Cluster;
use tenantry_core::Provision;
use tenantry_testkit::conformance::{Subject, Suite};

#[tokio::test]
async fn the_driver_keeps_its_contract() {
    let cluster = Cluster::new().await;
    for tenant in cluster.tenants() {
        cluster.factory.create(&tenant).await.unwrap();
    }
    let report = Suite::of(&cluster).provision().native_pool().run().await;
    println!("conformance: sqlx, PostgreSQL: {}", report.summary());
    report.assert_passed();
    assert_eq!(report.not_made(), [""; 0], "{report}");
}
