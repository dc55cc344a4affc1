//! Names that are no tenant's, and tenants that have no database.

use tenantry_core::{AcquireError, FailureKind, InvalidTenant, ProvisionError, TryAcquireError};
use tenantry_testkit::{Behavior, Call, FakeFactory};

use crate::support::{assert_nothing_lost, manager, ms, secs, warm};

/// What is no name, and a part of what the caller is told.
fn bad_names() -> Vec<(String, &'static str)> {
    vec![
        (String::new(), "needs 1 to 255 bytes"),
        ("x".repeat(256), "has 256 bytes; at most 255"),
        ("x".repeat(300), "has 300 bytes; at most 255"),
        ("ä".repeat(128), "has 256 bytes"),
        ("\0".into(), "control character at byte 0"),
        ("acme\0".into(), "control character at byte 4"),
        ("two\nlines".into(), "control character at byte 3"),
        ("tab\t".into(), "control character at byte 3"),
        ("del\u{7f}".into(), "control character at byte 3"),
        ("ä\u{85}".into(), "control character at byte 2"),
    ]
}

#[tokio::test(start_paused = true)]
async fn a_name_that_is_no_tenants_is_refused_everywhere_and_never_reaches_the_driver() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 2).build().unwrap();
    for (name, told) in bad_names() {
        let error = pools.acquire(&name).await.unwrap_err();
        assert!(matches!(error, AcquireError::InvalidTenant(_)), "{error}");
        assert!(error.to_string().contains(told), "{error}");
        assert!(error.tenant().is_none() && error.retry_after().is_none() && !error.is_limit());
        let error = pools.try_acquire(&name).unwrap_err();
        assert!(matches!(error, TryAcquireError::InvalidTenant(_)) && error.to_string().contains(told), "{error}");
        let error = pools.acquire_pool(&name, 1).await.unwrap_err();
        assert!(matches!(error, AcquireError::InvalidTenant(_)), "{error}");
        for error in [pools.create(&name).await.unwrap_err(), pools.drop_database(&name).await.unwrap_err()] {
            assert!(matches!(error, ProvisionError::Permit(AcquireError::InvalidTenant(_))), "{error}");
            assert!(error.to_string().contains(told), "{error}");
        }
        assert_eq!(pools.evict(&name), 0);
        assert!(pools.drain(&name, secs(1)).await.is_complete());
        assert!(!pools.resume(&name));
        assert!(pools.tenant_stats(&name).is_none());
    }
    assert_eq!(pools.stats().tenants, 0);
    assert!(fake.events().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_invalid_name_says_what_is_wrong_in_its_type() {
    let pools = manager(&FakeFactory::new(), 2).build().unwrap();
    let invalid = |name: &str| match pools.try_acquire(name).unwrap_err() {
        TryAcquireError::InvalidTenant(invalid) => invalid,
        other => panic!("{other}"),
    };
    assert!(matches!(invalid(""), InvalidTenant::Empty));
    assert!(matches!(invalid(&"x".repeat(300)), InvalidTenant::TooLong { bytes: 300, .. }));
    assert!(matches!(invalid("a\0b"), InvalidTenant::ControlCharacter { at: 1, .. }));
}

#[tokio::test(start_paused = true)]
async fn names_of_every_allowed_length_and_script_are_told_apart() {
    let fake = FakeFactory::new();
    let pools = manager(&fake, 20).build().unwrap();
    let mut names: Vec<String> = [1, 2, 63, 64, 65, 254, 255].into_iter().map(|bytes| "x".repeat(bytes)).collect();
    names.extend(["a-b", "a_b", "A-B", "a b", " a-b", "../a", "a/b", "größe", "テナント", "🦀"].map(String::from));
    let mut leases = Vec::new();
    for name in &names {
        let lease = pools.acquire(name).await.unwrap();
        assert_eq!(lease.tenant().as_str(), name);
        drop(lease.use_for(name));
        leases.push(lease);
    }
    assert_eq!(fake.open().now, names.len() as u64, "no two of them share a connection");
    drop(leases);
    for name in &names {
        drop(pools.try_acquire(name).unwrap().use_for(name));
    }
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_without_a_database_fails_as_such_and_none_is_made() {
    let fake = FakeFactory::new();
    fake.set_databases(["acme"]);
    let pools = manager(&fake, 2).build().unwrap();
    let error = pools.acquire("stranger").await.unwrap_err();
    assert!(matches!(error, AcquireError::Connect { kind: FailureKind::NoSuchTenant, .. }), "{error}");
    assert!(error.to_string().contains("does not exist; create it first"), "{error}");
    assert_eq!(error.tenant().unwrap().as_str(), "stranger");
    assert!(!fake.has_database("stranger"));
    assert_eq!((fake.calls(Call::Create).started, fake.open().now), (0, 0));
    drop(pools.acquire("acme").await.unwrap());
}

/// A stranger's name costs the server one connect per backoff, however often it is asked for.
#[tokio::test(start_paused = true)]
async fn a_tenant_without_a_database_is_refused_at_once_until_its_next_try() {
    let fake = FakeFactory::new();
    fake.set_databases(["acme"]);
    let pools = manager(&fake, 2).build().unwrap();
    assert!(pools.acquire("stranger").await.is_err());
    for _ in 0..100 {
        let error = pools.acquire("stranger").await.unwrap_err();
        assert!(matches!(error, AcquireError::Unavailable { kind: FailureKind::NoSuchTenant, .. }), "{error}");
        assert!(error.retry_after().is_some());
    }
    assert_eq!(fake.calls(Call::Connect).started, 1);
    fake.set_databases(["acme", "stranger"]);
    tokio::time::sleep(ms(150)).await;
    drop(pools.acquire("stranger").await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_the_driver_cannot_use_fails_as_such() {
    let fake = FakeFactory::new();
    fake.on_tenant(Call::Connect, "Acme").always(Behavior::fails(FailureKind::InvalidName));
    let pools = manager(&fake, 2).build().unwrap();
    let error = pools.acquire("Acme").await.unwrap_err();
    assert!(matches!(error, AcquireError::Connect { kind: FailureKind::InvalidName, .. }), "{error}");
    warm(&pools, "acme").await;
    assert_nothing_lost(&pools, &fake).await;
}
