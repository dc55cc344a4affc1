//! What operators do, and what time alone does, in every state of a permit. The stage and the words are in `cells.rs`.

use super::cells::{cells_of_all_states, states};

mod commands {
    use std::time::Duration;

    use super::super::cells::Stage;
    use super::super::rig::MS;

    pub(super) fn drain(stage: &mut Stage) -> String {
        let known = stage.rig.step(|ledger, now| ledger.drain("a", now));
        if known { String::new() } else { "unknown".into() }
    }

    pub(super) fn drain_another(stage: &mut Stage) -> String {
        let known = stage.rig.step(|ledger, now| ledger.drain("b", now));
        if known { String::new() } else { "unknown".into() }
    }

    /// And what an acquire gets after it.
    pub(super) fn drain_and_resume(stage: &mut Stage) -> String {
        drain(stage);
        let acquired = stage.ask("a", 0);
        assert_eq!(acquired, "refused Draining");
        let tried = stage.try_acquire("a");
        assert_eq!(tried, "Draining");
        let resumed = stage.rig.step(|ledger, now| ledger.resume("a", &Default::default(), now));
        assert!(resumed, "it was draining");
        stage.ask("a", 0)
    }

    pub(super) fn drop_begins(stage: &mut Stage) -> String {
        let known = stage.rig.step(|ledger, now| ledger.drop_begins("a", now));
        if known { String::new() } else { "unknown".into() }
    }

    pub(super) fn resume_undrained(stage: &mut Stage) -> String {
        let resumed = stage.rig.step(|ledger, now| ledger.resume("a", &Default::default(), now));
        assert!(!resumed, "it was not draining");
        String::new()
    }

    pub(super) fn evict(stage: &mut Stage) -> String {
        let evicted = stage.rig.step(|ledger, now| ledger.evict("a", now));
        format!("evicts {evicted}")
    }

    /// Twice, which is once; and what an acquire gets after it.
    pub(super) fn close(stage: &mut Stage) -> String {
        stage.rig.step(|ledger, now| ledger.close(now));
        stage.rig.step(|ledger, now| ledger.close(now));
        let acquired = stage.ask("a", 0);
        assert_eq!(acquired, "refused Closed");
        let tried = stage.try_acquire("a");
        assert_eq!(tried, "Closed");
        String::new()
    }

    fn pass(stage: &mut Stage, time: Duration) -> String {
        stage.rig.now += time;
        let long = stage.rig.step(|ledger, now| ledger.tick(now));
        let again = stage.rig.step(|ledger, now| ledger.tick(now));
        assert_eq!(again, [], "a long lease is reported once");
        let warnings: Vec<String> = long.iter().map(|lease| format!("{} held for long", lease.tenant)).collect();
        warnings.join(", ")
    }

    /// Past the patience with a promised close.
    pub(super) fn a_tenth_of_a_second_passes(stage: &mut Stage) -> String {
        pass(stage, MS * 100)
    }

    /// Past `close_timeout` and `lease_warn_after`.
    pub(super) fn half_a_minute_passes(stage: &mut Stage) -> String {
        pass(stage, Duration::from_secs(30))
    }

    /// Past `idle_timeout`.
    pub(super) fn five_minutes_pass(stage: &mut Stage) -> String {
        pass(stage, Duration::from_secs(5 * 60))
    }

    /// Past `max_lifetime` and `forget_after`.
    pub(super) fn an_hour_passes(stage: &mut Stage) -> String {
        pass(stage, Duration::from_secs(60 * 60))
    }
}

cells_of_all_states! {
    drain:
    opening => "1 opening; a is told Draining",
    opening_for_nobody => "1 opening",
    idle => "1 closing; closes 1",
    pinned => "1 closing; closes 1",
    in_use => "1 in use",
    granted => "1 closing; closes 1; a is told Draining",
    cleaned => "1 in use",
    validated => "1 in use; a is told Draining",
    closing => "1 closing",
    victim_of_another => "1 closing; b waits; then b gets 2",
    promised_to_another => "1 closing; b waits; then b gets 2",
    closing_with_own_waiter => "1 closing; a is told Draining",
    late => "1 closing",
    late_for_another => "1 closing; b waits; then b gets 2",
    overdue => "1 closing, 1 overdue",
    pool_granted => "all free; a is told Draining",
    pool_leased => "1 for pools",
    pool_closing => "1 closing",
    pool_overdue => "1 closing, 1 overdue",
}

cells_of_all_states! {
    drain_another:
    opening => "unknown; 1 opening; a waits; then a gets 1",
    opening_for_nobody => "unknown; 1 opening",
    idle => "unknown; 1 idle",
    pinned => "unknown; 1 idle",
    in_use => "unknown; 1 in use",
    granted => "unknown; 1 in use; a gets 1",
    cleaned => "unknown; 1 in use",
    validated => "unknown; 1 in use; a waits; then a gets 1",
    closing => "unknown; 1 closing",
    victim_of_another => "1 closing; b is told Draining",
    promised_to_another => "1 closing; b is told Draining",
    closing_with_own_waiter => "unknown; 1 closing; a waits; then a gets 2",
    late => "unknown; 1 closing",
    late_for_another => "1 closing; b is told Draining",
    overdue => "unknown; 1 closing, 1 overdue",
    pool_granted => "unknown; 1 for pools; a gets a pool of 1",
    pool_leased => "unknown; 1 for pools",
    pool_closing => "unknown; 1 closing",
    pool_overdue => "unknown; 1 closing, 1 overdue",
}

cells_of_all_states! {
    drain_and_resume:
    opening => "1 opening; a is told Draining; a waits; then a gets 1",
    opening_for_nobody => "1 opening; a waits; then a gets 1",
    idle => "1 closing; closes 1; a waits; then a gets 2",
    pinned => "1 closing; closes 1; a waits; then a gets 2",
    in_use => "1 in use; a waits; then a gets 1",
    granted => "1 closing; closes 1; a is told Draining; a waits; then a gets 2",
    cleaned => "1 in use; a waits; then a gets 1",
    validated => "1 in use; a is told Draining; a waits; then a gets 1",
    closing => "1 closing; a waits; then a gets 2",
    victim_of_another => "1 closing; b waits; a waits; then b gets 2, a gets 3",
    promised_to_another => "1 closing; b waits; a waits; then b gets 2, a gets 3",
    closing_with_own_waiter => "1 closing; a is told Draining; a waits; then a gets 2",
    late => "1 closing; a waits; then a gets 2",
    late_for_another => "1 closing; b waits; a waits; then a gets 2, b gets 3",
    overdue => "1 closing, 1 overdue; a waits; then a gets 2",
    pool_granted => "1 opening; opens a; a is told Draining; a waits; then a gets 1",
    pool_leased => "1 for pools; a waits; then a gets 1",
    pool_closing => "1 closing; a waits; then a gets 1",
    pool_overdue => "1 closing, 1 overdue; a waits; then a gets 1",
}

cells_of_all_states! {
    drop_begins:
    opening => "1 opening; a is told Draining",
    opening_for_nobody => "1 opening",
    idle => "1 closing; closes 1",
    pinned => "1 closing; closes 1",
    in_use => "1 in use",
    granted => "1 closing; closes 1; a is told Draining",
    cleaned => "1 in use",
    validated => "1 in use; a is told Draining",
    closing => "1 closing",
    victim_of_another => "1 closing; b waits; then b gets 2",
    promised_to_another => "1 closing; b waits; then b gets 2",
    closing_with_own_waiter => "1 closing; a is told Draining",
    late => "1 closing",
    late_for_another => "1 closing; b waits; then b gets 2",
    overdue => "1 closing, 1 overdue",
    pool_granted => "all free; a is told Draining",
    pool_leased => "1 for pools",
    pool_closing => "1 closing",
    pool_overdue => "1 closing, 1 overdue",
}

cells_of_all_states! {
    resume_undrained:
    opening => "1 opening; a waits; then a gets 1",
    opening_for_nobody => "1 opening",
    idle => "1 idle",
    pinned => "1 idle",
    in_use => "1 in use",
    granted => "1 in use; a gets 1",
    cleaned => "1 in use",
    validated => "1 in use; a waits; then a gets 1",
    closing => "1 closing",
    victim_of_another => "1 closing; b waits; then b gets 2",
    promised_to_another => "1 closing; b waits; then b gets 2",
    closing_with_own_waiter => "1 closing; a waits; then a gets 2",
    late => "1 closing",
    late_for_another => "1 closing; b waits; then b gets 2",
    overdue => "1 closing, 1 overdue",
    pool_granted => "1 for pools; a gets a pool of 1",
    pool_leased => "1 for pools",
    pool_closing => "1 closing",
    pool_overdue => "1 closing, 1 overdue",
}

cells_of_all_states! {
    evict:
    opening => "evicts 0; 1 opening; a waits; then a gets 1",
    opening_for_nobody => "evicts 0; 1 opening",
    idle => "evicts 1; 1 closing; closes 1",
    pinned => "evicts 1; 1 closing; closes 1",
    in_use => "evicts 0; 1 in use",
    granted => "evicts 0; 1 in use; a gets 1",
    cleaned => "evicts 0; 1 in use",
    validated => "evicts 0; 1 in use; a waits; then a gets 1",
    closing => "evicts 0; 1 closing",
    victim_of_another => "evicts 0; 1 closing; b waits; then b gets 2",
    promised_to_another => "evicts 0; 1 closing; b waits; then b gets 2",
    closing_with_own_waiter => "evicts 0; 1 closing; a waits; then a gets 2",
    late => "evicts 0; 1 closing",
    late_for_another => "evicts 0; 1 closing; b waits; then b gets 2",
    overdue => "evicts 0; 1 closing, 1 overdue",
    pool_granted => "evicts 0; 1 for pools; a gets a pool of 1",
    pool_leased => "evicts 0; 1 for pools",
    pool_closing => "evicts 0; 1 closing",
    pool_overdue => "evicts 0; 1 closing, 1 overdue",
}

cells_of_all_states! {
    close:
    opening => "1 opening; a is told Closed",
    opening_for_nobody => "1 opening",
    idle => "1 closing; closes 1",
    pinned => "1 closing; closes 1",
    in_use => "1 in use",
    granted => "1 closing; closes 1; a is told Closed",
    cleaned => "1 in use",
    validated => "1 in use; a is told Closed",
    closing => "1 closing",
    victim_of_another => "1 closing; b is told Closed",
    promised_to_another => "1 closing; b is told Closed",
    closing_with_own_waiter => "1 closing; a is told Closed",
    late => "1 closing",
    late_for_another => "1 closing; b is told Closed",
    overdue => "1 closing, 1 overdue",
    pool_granted => "all free; a is told Closed",
    pool_leased => "1 for pools",
    pool_closing => "1 closing",
    pool_overdue => "1 closing, 1 overdue",
}

cells_of_all_states! {
    a_tenth_of_a_second_passes:
    opening => "1 opening; a waits; then a gets 1",
    opening_for_nobody => "1 opening",
    idle => "1 idle",
    pinned => "1 idle",
    in_use => "1 in use",
    granted => "1 in use; a gets 1",
    cleaned => "1 in use",
    validated => "1 in use; a waits; then a gets 1",
    closing => "1 closing",
    victim_of_another => "1 closing; b waits; then b gets 2",
    promised_to_another => "1 closing; b waits; then b gets 2",
    closing_with_own_waiter => "1 closing; a waits; then a gets 2",
    late => "1 closing",
    late_for_another => "1 closing; b waits; then b gets 2",
    overdue => "1 closing, 1 overdue",
    pool_granted => "1 for pools; a gets a pool of 1",
    pool_leased => "1 for pools",
    pool_closing => "1 closing",
    pool_overdue => "1 closing, 1 overdue",
}

cells_of_all_states! {
    half_a_minute_passes:
    opening => "1 opening; a waits; then a gets 1",
    opening_for_nobody => "1 opening",
    idle => "1 idle",
    pinned => "1 idle",
    in_use => "a held for long; 1 in use",
    granted => "1 in use; a gets 1",
    cleaned => "1 in use",
    validated => "1 in use; a waits; then a gets 1",
    closing => "1 closing, 1 overdue",
    victim_of_another => "1 closing, 1 overdue; b waits; then b gets 2",
    promised_to_another => "1 closing, 1 overdue; b waits; then b gets 2",
    closing_with_own_waiter => "1 closing, 1 overdue; a waits; then a gets 2",
    late => "1 closing, 1 overdue",
    late_for_another => "1 closing, 1 overdue; b waits; then b gets 2",
    overdue => "1 closing, 1 overdue",
    pool_granted => "1 for pools; a gets a pool of 1",
    pool_leased => "1 for pools",
    pool_closing => "1 closing, 1 overdue",
    pool_overdue => "1 closing, 1 overdue",
}

cells_of_all_states! {
    five_minutes_pass:
    opening => "1 opening; a waits; then a gets 1",
    opening_for_nobody => "1 opening",
    idle => "1 closing; closes 1",
    pinned => "1 idle",
    in_use => "a held for long; 1 in use",
    granted => "1 in use; a gets 1",
    cleaned => "1 in use",
    validated => "1 in use; a waits; then a gets 1",
    closing => "1 closing, 1 overdue",
    victim_of_another => "1 closing, 1 overdue; b waits; then b gets 2",
    promised_to_another => "1 closing, 1 overdue; b waits; then b gets 2",
    closing_with_own_waiter => "1 closing, 1 overdue; a waits; then a gets 2",
    late => "1 closing, 1 overdue",
    late_for_another => "1 closing, 1 overdue; b waits; then b gets 2",
    overdue => "1 closing, 1 overdue",
    pool_granted => "1 for pools; a gets a pool of 1",
    pool_leased => "1 for pools",
    pool_closing => "1 closing, 1 overdue",
    pool_overdue => "1 closing, 1 overdue",
}

cells_of_all_states! {
    an_hour_passes:
    opening => "1 opening; a waits; then a gets 1",
    opening_for_nobody => "1 opening",
    idle => "1 closing; closes 1",
    pinned => "1 closing; closes 1",
    in_use => "a held for long; 1 in use",
    granted => "1 in use; a gets 1",
    cleaned => "1 in use",
    validated => "1 in use; a waits; then a gets 2",
    closing => "1 closing, 1 overdue",
    victim_of_another => "1 closing, 1 overdue; b waits; then b gets 2",
    promised_to_another => "1 closing, 1 overdue; b waits; then b gets 2",
    closing_with_own_waiter => "1 closing, 1 overdue; a waits; then a gets 2",
    late => "1 closing, 1 overdue",
    late_for_another => "1 closing, 1 overdue; b waits; then b gets 2",
    overdue => "1 closing, 1 overdue",
    pool_granted => "1 for pools; a gets a pool of 1",
    pool_leased => "1 for pools",
    pool_closing => "1 closing, 1 overdue",
    pool_overdue => "1 closing, 1 overdue",
}
