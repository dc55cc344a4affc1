//! The conformance suite passes on the fake, and fails on factories that break the contract: each fault by its check.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

#[path = "conformance/faulty.rs"]
mod faulty;
#[path = "conformance/subject.rs"]
mod subject;

use faulty::{Fault, Faulty};
use subject::Over;
use tenantry_testkit::conformance::{Report, Suite, prove};

/// Runs the whole suite against a factory with one fault.
async fn run_with(fault: Fault) -> Report {
    let subject = Over::new(move |fake| Faulty::new(fake, fault));
    Suite::of(&subject).provision().native_pool().run().await
}

#[tokio::test(start_paused = true)]
async fn the_fake_keeps_the_contract() {
    let subject = Over::new(|fake| fake);
    let report = Suite::of(&subject).provision().native_pool().run().await;
    report.assert_passed();
    assert_eq!(report.not_made(), [""; 0]);
    assert_eq!(report.verdicts().len(), 25);
    assert_eq!(subject.fake().open().now, 0, "the suite leaves nothing open");
    prove(&subject).await;
}

#[tokio::test(start_paused = true)]
async fn a_wrapper_without_a_fault_keeps_the_contract() {
    run_with(Fault::None).await.assert_passed();
}

/// For each fault, the check that must fail, whichever others do.
macro_rules! faults {
    ($($name:ident: $fault:ident => $check:literal;)+) => {$(
        #[tokio::test(start_paused = true)]
        async fn $name() {
            let report = run_with(Fault::$fault).await;
            assert!(report.failed().contains(&$check), "{report}");
        }
    )+};
}

faults! {
    one_database_for_two_tenants_is_found: SharesADatabase => "tenants_do_not_see_each_other";
    a_new_connection_that_is_dirty_is_found: StartsDirty => "a_new_connection_is_clean_and_answers";
    connecting_twice_is_found: ConnectsTwice => "a_new_connection_is_clean_and_answers";
    calling_everything_dirty_is_found: AlwaysDirty => "a_clean_use_leaves_a_connection_clean";
    calling_everything_clean_is_found: AlwaysClean => "what_is_left_is_seen_and_a_recycle_clears_it";
    calling_a_use_dropped_half_way_clean_is_found: AlwaysClean => "a_use_dropped_half_way_never_reaches_the_next_user";
    a_recycle_that_clears_nothing_is_found: RecyclesNothing => "what_is_left_is_seen_and_a_recycle_clears_it";
    a_recycle_that_breaks_a_clean_connection_is_found: RecycleBreaks => "a_recycle_keeps_a_clean_connection_usable";
    a_recycle_that_asks_nobody_is_found: RecyclesNothing => "a_killed_connection_is_lost";
    calling_the_lost_broken_is_found: LostIsBroken => "a_killed_connection_is_lost";
    a_close_that_comes_back_early_is_found: ClosesEarly => "a_close_frees_the_server_side";
    a_close_that_comes_back_early_makes_no_room: ClosesEarly => "a_full_server_is_server_full_at_once_and_a_close_makes_room";
    a_close_that_leaks_is_found: LeaksOnClose => "a_close_frees_the_server_side";
    a_close_that_leaks_what_was_dropped_half_way_is_found: LeaksOnClose => "a_close_after_a_dropped_use_frees_the_server_side";
    a_close_without_a_bound_is_found: ClosesForEver => "a_close_ends_within_its_time_when_the_server_is_silent";
    a_connection_that_outlives_its_drop_is_found: KeepsTheDropped => "a_drop_frees_the_server_side_soon";
    a_connect_that_goes_on_after_its_drop_is_found: ConnectsOn => "a_connect_dropped_half_way_leaves_nothing";
    making_a_database_on_connect_is_found: CreatesOnConnect => "an_unknown_tenant_is_no_such_tenant_and_is_not_created";
    cutting_names_is_found: CutsNames => "hostile_names_reach_no_database";
    calling_every_failure_other_is_found: EverythingIsOther => "an_unknown_tenant_is_no_such_tenant_and_is_not_created";
    calling_a_wrong_password_other_is_found: EverythingIsOther => "a_wrong_password_is_auth";
    calling_nobody_there_other_is_found: EverythingIsOther => "a_server_that_is_not_there_is_unreachable";
    waiting_for_room_is_found: WaitsForRoom => "a_full_server_is_server_full_at_once_and_a_close_makes_room";
    a_secret_in_an_error_is_found: TellsSecrets => "no_error_holds_a_secret";
    always_new_is_found: AlwaysNew => "creating_twice_is_new_then_already_there";
    always_gone_is_found: AlwaysGone => "dropping_twice_is_gone_then_was_absent";
    a_connection_left_by_a_create_is_found: CreateLeaks => "making_and_dropping_leave_no_connection";
    folding_names_is_found: FoldsNames => "names_that_nearly_collide_have_databases_of_their_own";
    a_pool_that_is_too_large_is_found: PoolIsLarger => "a_pool_never_holds_more_than_it_may";
    a_pool_that_closes_early_is_found: PoolClosesEarly => "a_pool_closes_when_its_last_connection_is_back";
    a_pool_for_nobody_is_found: PoolForAnyone => "a_pool_for_an_unknown_tenant_fails_or_serves_nobody";
    a_panic_is_a_failure: Panics => "a_killed_connection_is_lost";
}
