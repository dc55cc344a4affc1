//! The rules of reserves when they change while connections are open (rule 4).

use super::rig::Rig;
use crate::{Health, Settings, TenantId, TenantLimits};

#[test]
fn a_smaller_reserve_closes_its_own_tenants_idle_connections_and_nobody_elses() {
    let mut settings = Settings::new(4);
    for tenant in ["a", "b"] {
        let tenant = TenantId::new(tenant).expect("valid");
        settings.tenants.insert(tenant, TenantLimits::new().reserve(1));
    }
    let mut rig = Rig::new(settings);
    for tenant in ["a", "b", "c"] {
        let held = rig.lease(tenant);
        rig.release(held, Health::Clean);
    }
    let mut fewer = rig.ledger.settings().clone();
    fewer.tenants.insert(TenantId::new("b").expect("valid"), TenantLimits::new());
    rig.step(|ledger, now| ledger.set_limits(fewer, now));
    assert_eq!(rig.closed().tenant, "b");
    assert_eq!((rig.counts()[1], rig.counts()[3]), (2, 0), "those of a and c stay");
}
