//! The rules of caps and reserves that change while connections are open (rules 1 and 4).

use super::rig::Rig;
use crate::{Health, ServerId, Settings, TenantId, TenantLimits};

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

#[test]
fn a_lowered_cap_closes_as_many_idle_connections_as_are_above_it_the_oldest_first() {
    let lowerings: [fn(&mut Settings); 3] = [
        |settings| settings.max_connections_per_tenant = 2,
        |settings| settings.servers.extend([(ServerId::default(), 2)]),
        |settings| settings.max_connections = 2,
    ];
    for (at, lower) in lowerings.into_iter().enumerate() {
        let mut rig = Rig::with(3, 3);
        let leases = [rig.lease("a"), rig.lease("a"), rig.lease("a")];
        let oldest = leases[0].connection.id;
        leases.into_iter().for_each(|held| rig.release(held, Health::Clean));
        let mut lower_by_one = rig.ledger.settings().clone();
        lower(&mut lower_by_one);
        rig.step(|ledger, now| ledger.set_limits(lower_by_one, now));
        let closing: Vec<_> = rig.closes.iter().map(|(_, connection)| connection.id).collect();
        assert_eq!(closing, [oldest], "lowering {at}");
    }
}

/// One cap after the other, of connections that are in use when it is lowered.
#[test]
fn what_comes_back_above_a_lowered_cap_is_closed() {
    let lowerings: [fn(&mut Settings); 3] = [
        |settings| settings.max_connections_per_tenant = 1,
        |settings| settings.servers.extend([(ServerId::default(), 1)]),
        |settings| settings.max_connections = 1,
    ];
    for (at, lower) in lowerings.into_iter().enumerate() {
        let mut rig = Rig::with(3, 3);
        let leases = [rig.lease("a"), rig.lease("a")];
        let mut lowered = rig.ledger.settings().clone();
        lower(&mut lowered);
        rig.step(|ledger, now| ledger.set_limits(lowered, now));
        leases.into_iter().for_each(|held| rig.release(held, Health::Clean));
        assert_eq!(rig.counts(), [0, 1, 0, 1, 0], "lowering {at}");
    }
}
