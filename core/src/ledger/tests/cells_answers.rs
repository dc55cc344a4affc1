//! What comes back, in every state that it can come back to: a lease that ends, and the answers to actions. The stage
//! and the words are in `cells.rs`.

use super::cells::cells;

/// The states in which something can come back, alone and with others who wait for it.
mod states {
    use super::super::cells::Stage;
    pub(super) use super::super::cells::states::*;
    use super::super::rig::MS;

    fn and(mut stage: Stage, then: impl FnOnce(&mut Stage)) -> Stage {
        then(&mut stage);
        stage
    }

    fn and_waits(stage: Stage, tenant: &'static str) -> Stage {
        and(stage, |stage| stage.wait(tenant))
    }

    fn and_draining(stage: Stage) -> Stage {
        and(stage, |stage| assert!(stage.rig.step(|ledger, now| ledger.drain("a", now))))
    }

    fn and_closed(stage: Stage) -> Stage {
        and(stage, |stage| stage.rig.step(|ledger, now| ledger.close(now)))
    }

    pub(super) fn in_use_with_own_waiter() -> Stage {
        and_waits(in_use(), "a")
    }

    pub(super) fn in_use_with_anothers_waiter() -> Stage {
        and_waits(in_use(), "b")
    }

    /// Both hold nothing beside it, and its own tenant came first.
    pub(super) fn in_use_with_both() -> Stage {
        and_waits(in_use_with_own_waiter(), "b")
    }

    /// The other tenant came first; a run of hand-overs may last twice a connect's time, which was nothing.
    pub(super) fn in_use_with_another_first() -> Stage {
        and_waits(in_use_with_anothers_waiter(), "a")
    }

    pub(super) fn in_use_with_own_pool_waiting() -> Stage {
        and(in_use(), |stage| assert_eq!(stage.ask("a", 1), ""))
    }

    pub(super) fn in_use_past_its_lifetime() -> Stage {
        and(in_use_with_own_waiter(), |stage| stage.rig.now += MS * 30 * 60_000)
    }

    pub(super) fn in_use_while_draining() -> Stage {
        and_draining(in_use_with_own_waiter())
    }

    pub(super) fn in_use_after_close() -> Stage {
        and_closed(in_use_with_own_waiter())
    }

    pub(super) fn in_use_and_pinned() -> Stage {
        let mut stage = pinned();
        assert_eq!(stage.ask("a", 0), "takes 1");
        and_waits(stage, "b")
    }

    pub(super) fn opening_with_two_waiters() -> Stage {
        and_waits(opening(), "a")
    }

    pub(super) fn opening_with_anothers_waiter() -> Stage {
        and_waits(opening_for_nobody(), "b")
    }

    pub(super) fn opening_with_own_pool_waiting() -> Stage {
        and(opening_for_nobody(), |stage| assert_eq!(stage.ask("a", 1), ""))
    }

    pub(super) fn opening_while_draining() -> Stage {
        and_draining(opening())
    }

    pub(super) fn opening_after_close() -> Stage {
        and_closed(opening())
    }

    pub(super) fn cleaned_with_both() -> Stage {
        and_waits(and_waits(cleaned(), "a"), "b")
    }

    pub(super) fn validated_for_two() -> Stage {
        and_waits(validated(), "a")
    }

    pub(super) fn validated_for_nobody() -> Stage {
        and(validated(), |stage| {
            let (_, waiter) = stage.waiters.remove(0);
            stage.rig.cancel(waiter);
        })
    }

    pub(super) fn validated_while_draining() -> Stage {
        and_draining(validated())
    }

    pub(super) fn validated_after_close() -> Stage {
        and_closed(validated())
    }

    pub(super) fn victim_after_close() -> Stage {
        and_closed(victim_of_another())
    }

    pub(super) fn pool_leased_with_anothers_waiter() -> Stage {
        and_waits(pool_leased(), "b")
    }

    pub(super) fn pool_leased_while_draining() -> Stage {
        and_draining(pool_leased())
    }

    pub(super) fn pool_leased_after_close() -> Stage {
        and_closed(pool_leased())
    }

    pub(super) fn pool_closing_with_anothers_waiter() -> Stage {
        and_waits(pool_closing(), "b")
    }
}

mod commands {
    use super::super::cells::Stage;
    use crate::ledger::Failure;
    use crate::{FailureKind, Health};

    fn release(stage: &mut Stage, health: Health) -> String {
        stage.release(health);
        String::new()
    }

    pub(super) fn release_clean(stage: &mut Stage) -> String {
        release(stage, Health::Clean)
    }

    pub(super) fn release_dirty(stage: &mut Stage) -> String {
        release(stage, Health::Dirty)
    }

    pub(super) fn release_broken(stage: &mut Stage) -> String {
        release(stage, Health::Broken)
    }

    pub(super) fn release_lost(stage: &mut Stage) -> String {
        release(stage, Health::Lost)
    }

    pub(super) fn opened(stage: &mut Stage) -> String {
        stage.rig.opened();
        String::new()
    }

    fn failed(stage: &mut Stage, kind: FailureKind) -> String {
        stage.rig.open_failed(kind);
        String::new()
    }

    pub(super) fn open_failed_as_the_server_is_full(stage: &mut Stage) -> String {
        failed(stage, FailureKind::ServerFull)
    }

    pub(super) fn open_failed_for_no_such_tenant(stage: &mut Stage) -> String {
        failed(stage, FailureKind::NoSuchTenant)
    }

    pub(super) fn open_failed_for_its_name(stage: &mut Stage) -> String {
        failed(stage, FailureKind::InvalidName)
    }

    pub(super) fn open_failed_for_its_password(stage: &mut Stage) -> String {
        failed(stage, FailureKind::Auth)
    }

    pub(super) fn open_failed_unreachable(stage: &mut Stage) -> String {
        failed(stage, FailureKind::Unreachable)
    }

    pub(super) fn open_failed_otherwise(stage: &mut Stage) -> String {
        failed(stage, FailureKind::Other)
    }

    fn failed_without_error(stage: &mut Stage, failure: Failure<super::super::rig::Oops>) -> String {
        let (permit, _) = stage.rig.opens.remove(0);
        stage.rig.step(|ledger, now| ledger.open_failed(permit, failure, 0, now));
        String::new()
    }

    pub(super) fn open_timed_out(stage: &mut Stage) -> String {
        failed_without_error(stage, Failure::TimedOut)
    }

    pub(super) fn open_panicked(stage: &mut Stage) -> String {
        failed_without_error(stage, Failure::Panicked)
    }

    pub(super) fn recycled(stage: &mut Stage) -> String {
        stage.rig.recycled();
        String::new()
    }

    /// The task that recycled it closes it.
    pub(super) fn recycle_failed(stage: &mut Stage) -> String {
        let (permit, connection) = stage.rig.recycles.remove(0);
        stage.rig.step(|ledger, now| ledger.recycle_failed(permit, now));
        stage.rig.closes.push((permit, connection));
        String::new()
    }

    /// And once more, which changes nothing.
    pub(super) fn closed(stage: &mut Stage) -> String {
        let permit = match stage.pools.pop() {
            Some(permits) => permits[0],
            None => stage.rig.closes.remove(0).0,
        };
        stage.rig.step(|ledger, now| ledger.closed(permit, now));
        let after = stage.rig.counts();
        stage.rig.step(|ledger, now| ledger.closed(permit, now));
        assert_eq!(stage.rig.counts(), after, "a second answer changes nothing");
        String::new()
    }

    pub(super) fn free_pool(stage: &mut Stage) -> String {
        let permits = stage.pools.remove(0);
        stage.rig.step(|ledger, now| ledger.free_pool(&permits, now));
        let after = stage.rig.counts();
        stage.rig.step(|ledger, now| ledger.free_pool(&permits, now));
        assert_eq!(stage.rig.counts(), after, "a second answer changes nothing");
        String::new()
    }

    pub(super) fn closing_pool(stage: &mut Stage) -> String {
        let permits = stage.pools[0].clone();
        stage.rig.step(|ledger, now| ledger.closing_pool(&permits, now));
        String::new()
    }
}

cells! {
    release_clean:
    in_use => "1 idle",
    in_use_with_own_waiter => "1 in use; a gets 1",
    in_use_with_anothers_waiter => "1 closing; closes 1; b waits; then b gets 2",
    in_use_with_both => "1 closing; closes 1; a waits; b waits; then b gets 2, a gets 3",
    in_use_with_another_first => "1 closing; closes 1; b waits; a waits; then b gets 2, a gets 3",
    in_use_with_own_pool_waiting => "1 closing; closes 1; a waits; then a gets a pool of 1",
    in_use_past_its_lifetime => "1 closing; closes 1; a waits; then a gets 2",
    in_use_while_draining => "1 closing; closes 1; a is told Draining",
    in_use_after_close => "1 closing; closes 1; a is told Closed",
    in_use_and_pinned => "1 idle; b waits; then b waits on",
}

cells! {
    release_dirty:
    in_use => "1 in use; recycles 1",
    in_use_with_own_waiter => "1 in use; recycles 1; a waits; then a gets 1",
    in_use_with_anothers_waiter => "1 in use; recycles 1; b waits; then b gets 2",
    in_use_with_both => "1 in use; recycles 1; a waits; b waits; then b gets 2, a gets 3",
    in_use_with_another_first => "1 in use; recycles 1; b waits; a waits; then b gets 2, a gets 3",
    in_use_with_own_pool_waiting => "1 in use; recycles 1; a waits; then a gets a pool of 1",
    in_use_past_its_lifetime => "1 closing; closes 1; a waits; then a gets 2",
    in_use_while_draining => "1 closing; closes 1; a is told Draining",
    in_use_after_close => "1 closing; closes 1; a is told Closed",
    in_use_and_pinned => "1 in use; recycles 1; b waits; then b waits on",
}

cells! {
    release_broken:
    in_use => "1 closing; closes 1",
    in_use_with_own_waiter => "1 closing; closes 1; a waits; then a gets 2",
    in_use_with_anothers_waiter => "1 closing; closes 1; b waits; then b gets 2",
    in_use_with_both => "1 closing; closes 1; a waits; b waits; then b gets 2, a gets 3",
    in_use_with_another_first => "1 closing; closes 1; b waits; a waits; then b gets 2, a gets 3",
    in_use_with_own_pool_waiting => "1 closing; closes 1; a waits; then a gets a pool of 1",
    in_use_past_its_lifetime => "1 closing; closes 1; a waits; then a gets 2",
    in_use_while_draining => "1 closing; closes 1; a is told Draining",
    in_use_after_close => "1 closing; closes 1; a is told Closed",
    in_use_and_pinned => "1 closing; closes 1; b waits; then b waits on",
}

cells! {
    release_lost:
    in_use => "1 closing; closes 1",
    in_use_with_own_waiter => "1 closing; closes 1; a waits; then a gets 2",
    in_use_with_anothers_waiter => "1 closing; closes 1; b waits; then b gets 2",
    in_use_with_both => "1 closing; closes 1; a waits; b waits; then b gets 2, a gets 3",
    in_use_with_another_first => "1 closing; closes 1; b waits; a waits; then b gets 2, a gets 3",
    in_use_with_own_pool_waiting => "1 closing; closes 1; a waits; then a gets a pool of 1",
    in_use_past_its_lifetime => "1 closing; closes 1; a waits; then a gets 2",
    in_use_while_draining => "1 closing; closes 1; a is told Draining",
    in_use_after_close => "1 closing; closes 1; a is told Closed",
    in_use_and_pinned => "1 closing; closes 1; b waits; then b waits on",
}

cells! {
    opened:
    opening => "1 in use; a gets 1",
    opening_for_nobody => "1 idle",
    opening_with_two_waiters => "1 in use; a gets 1; a waits; then a gets 1",
    opening_with_anothers_waiter => "1 closing; closes 1; b waits; then b gets 2",
    opening_with_own_pool_waiting => "1 closing; closes 1; a waits; then a gets a pool of 1",
    opening_while_draining => "1 closing; closes 1; a is told Draining",
    opening_after_close => "1 closing; closes 1; a is told Closed",
}

cells! {
    open_failed_as_the_server_is_full:
    opening => "all free; a waits; then a gets 1",
    opening_for_nobody => "all free",
    opening_with_two_waiters => "all free; a waits; a waits; then a gets 1, a gets 1",
    opening_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    opening_with_own_pool_waiting => "all free; a waits; then a gets a pool of 1",
    opening_while_draining => "all free; a is told Draining",
    opening_after_close => "all free; a is told Closed",
}

cells! {
    open_failed_for_no_such_tenant:
    opening => "all free; a is told Connect NoSuchTenant",
    opening_for_nobody => "all free",
    opening_with_two_waiters => "all free; a is told Connect NoSuchTenant; a is told Unavailable NoSuchTenant",
    opening_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    opening_with_own_pool_waiting => "all free; a is told Unavailable NoSuchTenant",
    opening_while_draining => "all free; a is told Draining",
    opening_after_close => "all free; a is told Closed",
}

cells! {
    open_failed_for_its_name:
    opening => "all free; a is told Connect InvalidName",
    opening_for_nobody => "all free",
    opening_with_two_waiters => "all free; a is told Connect InvalidName; a is told Unavailable InvalidName",
    opening_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    opening_with_own_pool_waiting => "all free; a is told Unavailable InvalidName",
    opening_while_draining => "all free; a is told Draining",
    opening_after_close => "all free; a is told Closed",
}

cells! {
    open_failed_for_its_password:
    opening => "all free; a is told Connect Auth",
    opening_for_nobody => "all free",
    opening_with_two_waiters => "all free; a is told Connect Auth; a is told Unavailable Auth",
    opening_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    opening_with_own_pool_waiting => "all free; a is told Unavailable Auth",
    opening_while_draining => "all free; a is told Draining",
    opening_after_close => "all free; a is told Closed",
}

cells! {
    open_failed_unreachable:
    opening => "all free; a is told Connect Unreachable",
    opening_for_nobody => "all free",
    opening_with_two_waiters => "all free; a is told Connect Unreachable; a is told Unavailable Unreachable",
    opening_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    opening_with_own_pool_waiting => "all free; a is told Unavailable Unreachable",
    opening_while_draining => "all free; a is told Draining",
    opening_after_close => "all free; a is told Closed",
}

cells! {
    open_failed_otherwise:
    opening => "all free; a is told Connect Other",
    opening_for_nobody => "all free",
    opening_with_two_waiters => "all free; a is told Connect Other; a is told Unavailable Other",
    opening_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    opening_with_own_pool_waiting => "all free; a is told Unavailable Other",
    opening_while_draining => "all free; a is told Draining",
    opening_after_close => "all free; a is told Closed",
}

cells! {
    open_timed_out:
    opening => "all free; a is told Timeout Connecting",
    opening_for_nobody => "all free",
    opening_with_two_waiters => "all free; a is told Timeout Connecting; a is told Unavailable Unreachable",
    opening_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    opening_with_own_pool_waiting => "all free; a is told Unavailable Unreachable",
    opening_while_draining => "all free; a is told Draining",
    opening_after_close => "all free; a is told Closed",
}

cells! {
    open_panicked:
    opening => "all free; a is told Unavailable Other",
    opening_for_nobody => "all free",
    opening_with_two_waiters => "all free; a is told Unavailable Other; a is told Unavailable Other",
    opening_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    opening_with_own_pool_waiting => "all free; a is told Unavailable Other",
    opening_while_draining => "all free; a is told Draining",
    opening_after_close => "all free; a is told Closed",
}

cells! {
    recycled:
    cleaned => "1 idle",
    validated => "1 in use; a gets 1",
    cleaned_with_both => "1 closing; closes 1; a waits; b waits; then b gets 2, a gets 3",
    validated_for_two => "1 in use; a gets 1; a waits; then a gets 1",
    validated_for_nobody => "1 idle",
    validated_while_draining => "1 closing; closes 1; a is told Draining",
    validated_after_close => "1 closing; closes 1; a is told Closed",
}

cells! {
    recycle_failed:
    cleaned => "1 closing; closes 1",
    validated => "1 closing; closes 1; a waits; then a gets 2",
    cleaned_with_both => "1 closing; closes 1; a waits; b waits; then b gets 2, a gets 3",
    validated_for_two => "1 closing; closes 1; a waits; a waits; then a gets 2, a gets 2",
    validated_for_nobody => "1 closing; closes 1",
    validated_while_draining => "1 closing; closes 1; a is told Draining",
    validated_after_close => "1 closing; closes 1; a is told Closed",
}

cells! {
    closed:
    closing => "all free",
    victim_of_another => "1 opening; opens b; b waits; then b gets 2",
    promised_to_another => "1 opening; opens b; b waits; then b gets 2",
    closing_with_own_waiter => "1 opening; opens a; a waits; then a gets 2",
    late => "all free",
    late_for_another => "1 opening; opens b; b waits; then b gets 2",
    overdue => "all free",
    victim_after_close => "all free; b is told Closed",
    pool_closing => "all free",
    pool_overdue => "all free",
    pool_closing_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
}

cells! {
    free_pool:
    pool_leased => "all free",
    pool_leased_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
    pool_leased_while_draining => "all free",
    pool_leased_after_close => "all free",
    pool_closing => "all free",
    pool_overdue => "all free",
    pool_closing_with_anothers_waiter => "1 opening; opens b; b waits; then b gets 1",
}

cells! {
    closing_pool:
    pool_leased => "1 closing",
    pool_leased_with_anothers_waiter => "1 closing; b waits; then b gets 1",
    pool_leased_while_draining => "1 closing",
    pool_leased_after_close => "1 closing",
}
