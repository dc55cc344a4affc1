//! What callers do, in every state of a permit. The stage and the words are in `cells.rs`.

use super::cells::{cells_of_all_states, states};

mod commands {
    use super::super::cells::Stage;

    /// Tenant `a`, whose permit it is.
    pub(super) fn acquire(stage: &mut Stage) -> String {
        stage.ask("a", 0)
    }

    pub(super) fn acquire_by_another(stage: &mut Stage) -> String {
        stage.ask("b", 0)
    }

    pub(super) fn try_acquire(stage: &mut Stage) -> String {
        stage.try_acquire("a")
    }

    pub(super) fn try_acquire_by_another(stage: &mut Stage) -> String {
        stage.try_acquire("b")
    }

    /// The waiter that is there; where none is, one of tenant `b` that came meanwhile.
    fn waiter(stage: &mut Stage) {
        if stage.waiters.is_empty() {
            stage.wait("b");
        }
    }

    pub(super) fn cancel(stage: &mut Stage) -> String {
        waiter(stage);
        let (_, waiter) = stage.waiters.remove(0);
        stage.rig.cancel(waiter);
        String::new()
    }

    pub(super) fn give_up(stage: &mut Stage) -> String {
        waiter(stage);
        let (tenant, waiter) = stage.waiters.remove(0);
        let polled = stage.rig.step(|ledger, now| ledger.give_up(waiter, now));
        stage.gets(tenant, polled)
    }

    pub(super) fn ask_for_a_pool(stage: &mut Stage) -> String {
        stage.ask("a", 1)
    }

    pub(super) fn ask_for_a_pool_by_another(stage: &mut Stage) -> String {
        stage.ask("b", 1)
    }

    pub(super) fn ask_for_too_large_a_pool(stage: &mut Stage) -> String {
        stage.ask("a", 2)
    }
}

cells_of_all_states! {
    acquire:
    opening => "1 opening; a waits; a waits; then a gets 1, a gets 1",
    opening_for_nobody => "1 opening; a waits; then a gets 1",
    idle => "takes 1; 1 in use",
    pinned => "takes 1; 1 in use",
    in_use => "1 in use; a waits; then a gets 1",
    granted => "1 in use; a gets 1; a waits; then a gets 1",
    cleaned => "1 in use; a waits; then a gets 1",
    validated => "1 in use; a waits; a waits; then a gets 1, a gets 1",
    closing => "1 closing; a waits; then a gets 2",
    victim_of_another => "1 closing; b waits; a waits; then b gets 2, a gets 3",
    promised_to_another => "1 closing; b waits; a waits; then b gets 2, a gets 3",
    closing_with_own_waiter => "1 closing; a waits; a waits; then a gets 2, a gets 2",
    late => "1 closing; a waits; then a gets 2",
    late_for_another => "1 closing; b waits; a waits; then a gets 2, b gets 3",
    overdue => "1 closing, 1 overdue; a waits; then a gets 2",
    pool_granted => "1 for pools; a gets a pool of 1; a waits; then a gets 1",
    pool_leased => "1 for pools; a waits; then a gets 1",
    pool_closing => "1 closing; a waits; then a gets 1",
    pool_overdue => "1 closing, 1 overdue; a waits; then a gets 1",
}

cells_of_all_states! {
    acquire_by_another:
    opening => "1 opening; a waits; b waits; then a gets 1, b gets 2",
    opening_for_nobody => "1 opening; b waits; then b gets 2",
    idle => "1 closing; closes 1; b waits; then b gets 2",
    pinned => "1 idle; b waits; then b waits on",
    in_use => "1 in use; b waits; then b gets 2",
    granted => "1 in use; a gets 1; b waits; then b gets 2",
    cleaned => "1 in use; b waits; then b gets 2",
    validated => "1 in use; a waits; b waits; then b gets 2, a gets 3",
    closing => "1 closing; b waits; then b gets 2",
    victim_of_another => "1 closing; b waits; b waits; then b gets 2, b gets 2",
    promised_to_another => "1 closing; b waits; b waits; then b gets 2, b gets 2",
    closing_with_own_waiter => "1 closing; a waits; b waits; then a gets 2, b gets 3",
    late => "1 closing; b waits; then b gets 2",
    late_for_another => "1 closing; b waits; b waits; then b gets 2, b gets 2",
    overdue => "1 closing, 1 overdue; b waits; then b gets 2",
    pool_granted => "1 for pools; a gets a pool of 1; b waits; then b gets 1",
    pool_leased => "1 for pools; b waits; then b gets 1",
    pool_closing => "1 closing; b waits; then b gets 1",
    pool_overdue => "1 closing, 1 overdue; b waits; then b gets 1",
}

cells_of_all_states! {
    try_acquire:
    opening => "NotIdle; 1 opening; a waits; then a gets 1",
    opening_for_nobody => "NotIdle; 1 opening",
    idle => "takes 1; 1 in use",
    pinned => "takes 1; 1 in use",
    in_use => "NotIdle; 1 in use",
    granted => "NotIdle; 1 in use; a gets 1",
    cleaned => "NotIdle; 1 in use",
    validated => "NotIdle; 1 in use; a waits; then a gets 1",
    closing => "NotIdle; 1 closing",
    victim_of_another => "NotIdle; 1 closing; b waits; then b gets 2",
    promised_to_another => "NotIdle; 1 closing; b waits; then b gets 2",
    closing_with_own_waiter => "NotIdle; 1 closing; a waits; then a gets 2",
    late => "NotIdle; 1 closing",
    late_for_another => "NotIdle; 1 closing; b waits; then b gets 2",
    overdue => "NotIdle; 1 closing, 1 overdue",
    pool_granted => "NotIdle; 1 for pools; a gets a pool of 1",
    pool_leased => "NotIdle; 1 for pools",
    pool_closing => "NotIdle; 1 closing",
    pool_overdue => "NotIdle; 1 closing, 1 overdue",
}

cells_of_all_states! {
    try_acquire_by_another:
    opening => "NotIdle; 1 opening; a waits; then a gets 1",
    opening_for_nobody => "NotIdle; 1 opening",
    idle => "NotIdle; 1 idle",
    pinned => "NotIdle; 1 idle",
    in_use => "NotIdle; 1 in use",
    granted => "NotIdle; 1 in use; a gets 1",
    cleaned => "NotIdle; 1 in use",
    validated => "NotIdle; 1 in use; a waits; then a gets 1",
    closing => "NotIdle; 1 closing",
    victim_of_another => "NotIdle; 1 closing; b waits; then b gets 2",
    promised_to_another => "NotIdle; 1 closing; b waits; then b gets 2",
    closing_with_own_waiter => "NotIdle; 1 closing; a waits; then a gets 2",
    late => "NotIdle; 1 closing",
    late_for_another => "NotIdle; 1 closing; b waits; then b gets 2",
    overdue => "NotIdle; 1 closing, 1 overdue",
    pool_granted => "NotIdle; 1 for pools; a gets a pool of 1",
    pool_leased => "NotIdle; 1 for pools",
    pool_closing => "NotIdle; 1 closing",
    pool_overdue => "NotIdle; 1 closing, 1 overdue",
}

cells_of_all_states! {
    cancel:
    opening => "1 opening",
    opening_for_nobody => "1 opening",
    idle => "1 closing; closes 1",
    pinned => "1 idle",
    in_use => "1 in use",
    granted => "1 idle",
    cleaned => "1 in use",
    validated => "1 in use",
    closing => "1 closing",
    victim_of_another => "1 closing",
    promised_to_another => "1 closing",
    closing_with_own_waiter => "1 closing",
    late => "1 closing",
    late_for_another => "1 closing",
    overdue => "1 closing, 1 overdue",
    pool_granted => "all free",
    pool_leased => "1 for pools",
    pool_closing => "1 closing",
    pool_overdue => "1 closing, 1 overdue",
}

cells_of_all_states! {
    give_up:
    opening => "a is told Timeout Connecting; 1 opening",
    opening_for_nobody => "b is told Total limit 1; 1 opening",
    idle => "b is told Total limit 1; 1 closing; closes 1",
    pinned => "b is told Total limit 1; 1 idle",
    in_use => "b is told Total limit 1; 1 in use",
    granted => "a gets 1; 1 in use",
    cleaned => "b is told Total limit 1; 1 in use",
    validated => "a is told Timeout Recycling; 1 in use",
    closing => "b is told Total limit 1; 1 closing",
    victim_of_another => "b is told Total limit 1; 1 closing",
    promised_to_another => "b is told Total limit 1; 1 closing",
    closing_with_own_waiter => "a is told Tenant limit 1; 1 closing",
    late => "b is told Total limit 1; 1 closing",
    late_for_another => "b is told Total limit 1; 1 closing",
    overdue => "b is told Total limit 1; 1 closing, 1 overdue",
    pool_granted => "a gets a pool of 1; 1 for pools",
    pool_leased => "b is told Total limit 1; 1 for pools",
    pool_closing => "b is told Total limit 1; 1 closing",
    pool_overdue => "b is told Total limit 1; 1 closing, 1 overdue",
}

cells_of_all_states! {
    ask_for_a_pool:
    opening => "1 opening; a waits; a waits; then a gets 1, a gets a pool of 1",
    opening_for_nobody => "1 opening; a waits; then a gets a pool of 1",
    idle => "1 closing; closes 1; a waits; then a gets a pool of 1",
    pinned => "1 closing; closes 1; a waits; then a gets a pool of 1",
    in_use => "1 in use; a waits; then a gets a pool of 1",
    granted => "1 in use; a gets 1; a waits; then a gets a pool of 1",
    cleaned => "1 in use; a waits; then a gets a pool of 1",
    validated => "1 in use; a waits; a waits; then a gets 1, a gets a pool of 1",
    closing => "1 closing; a waits; then a gets a pool of 1",
    victim_of_another => "1 closing; b waits; a waits; then b gets 2, a gets a pool of 1",
    promised_to_another => "1 closing; b waits; a waits; then b gets 2, a gets a pool of 1",
    closing_with_own_waiter => "1 closing; a waits; a waits; then a gets 2, a gets a pool of 1",
    late => "1 closing; a waits; then a gets a pool of 1",
    late_for_another => "1 closing; b waits; a waits; then a gets a pool of 1, b gets 2",
    overdue => "1 closing, 1 overdue; a waits; then a gets a pool of 1",
    pool_granted => "1 for pools; a gets a pool of 1; a waits; then a gets a pool of 1",
    pool_leased => "1 for pools; a waits; then a gets a pool of 1",
    pool_closing => "1 closing; a waits; then a gets a pool of 1",
    pool_overdue => "1 closing, 1 overdue; a waits; then a gets a pool of 1",
}

cells_of_all_states! {
    ask_for_a_pool_by_another:
    opening => "1 opening; a waits; b waits; then a gets 1, b gets a pool of 1",
    opening_for_nobody => "1 opening; b waits; then b gets a pool of 1",
    idle => "1 closing; closes 1; b waits; then b gets a pool of 1",
    pinned => "refused Total limit 0; 1 idle",
    in_use => "1 in use; b waits; then b gets a pool of 1",
    granted => "1 in use; a gets 1; b waits; then b gets a pool of 1",
    cleaned => "1 in use; b waits; then b gets a pool of 1",
    validated => "1 in use; a waits; b waits; then b gets a pool of 1, a gets 2",
    closing => "1 closing; b waits; then b gets a pool of 1",
    victim_of_another => "1 closing; b waits; b waits; then b gets 2, b gets a pool of 1",
    promised_to_another => "1 closing; b waits; b waits; then b gets 2, b gets a pool of 1",
    closing_with_own_waiter => "1 closing; a waits; b waits; then a gets 2, b gets a pool of 1",
    late => "1 closing; b waits; then b gets a pool of 1",
    late_for_another => "1 closing; b waits; b waits; then b gets 2, b gets a pool of 1",
    overdue => "1 closing, 1 overdue; b waits; then b gets a pool of 1",
    pool_granted => "1 for pools; a gets a pool of 1; b waits; then b gets a pool of 1",
    pool_leased => "1 for pools; b waits; then b gets a pool of 1",
    pool_closing => "1 closing; b waits; then b gets a pool of 1",
    pool_overdue => "1 closing, 1 overdue; b waits; then b gets a pool of 1",
}

cells_of_all_states! {
    ask_for_too_large_a_pool:
    opening => "refused Tenant limit 1; 1 opening; a waits; then a gets 1",
    opening_for_nobody => "refused Tenant limit 1; 1 opening",
    idle => "refused Tenant limit 1; 1 idle",
    pinned => "refused Tenant limit 1; 1 idle",
    in_use => "refused Tenant limit 1; 1 in use",
    granted => "refused Tenant limit 1; 1 in use; a gets 1",
    cleaned => "refused Tenant limit 1; 1 in use",
    validated => "refused Tenant limit 1; 1 in use; a waits; then a gets 1",
    closing => "refused Tenant limit 1; 1 closing",
    victim_of_another => "refused Tenant limit 1; 1 closing; b waits; then b gets 2",
    promised_to_another => "refused Tenant limit 1; 1 closing; b waits; then b gets 2",
    closing_with_own_waiter => "refused Tenant limit 1; 1 closing; a waits; then a gets 2",
    late => "refused Tenant limit 1; 1 closing",
    late_for_another => "refused Tenant limit 1; 1 closing; b waits; then b gets 2",
    overdue => "refused Tenant limit 1; 1 closing, 1 overdue",
    pool_granted => "refused Tenant limit 1; 1 for pools; a gets a pool of 1",
    pool_leased => "refused Tenant limit 1; 1 for pools",
    pool_closing => "refused Tenant limit 1; 1 closing",
    pool_overdue => "refused Tenant limit 1; 1 closing, 1 overdue",
}

/// The same with a second permit, which is free: nobody waits for a permit that is taken.
mod with_room {
    use super::super::cells::cells;

    mod states {
        use super::super::super::cells::Stage;
        use super::super::super::rig::MS;
        use crate::Health;

        fn stage() -> Stage {
            Stage::new(2, 0)
        }

        pub(super) fn opening() -> Stage {
            let mut stage = stage();
            stage.wait("a");
            stage
        }

        pub(super) fn opening_for_nobody() -> Stage {
            let mut stage = opening();
            let (_, waiter) = stage.waiters.remove(0);
            stage.rig.cancel(waiter);
            stage
        }

        pub(super) fn idle() -> Stage {
            let mut stage = stage();
            stage.rig.warm_up("a");
            stage
        }

        pub(super) fn in_use() -> Stage {
            let mut stage = stage();
            stage.lease("a");
            stage
        }

        pub(super) fn granted() -> Stage {
            let mut stage = opening();
            stage.rig.opened();
            stage
        }

        pub(super) fn cleaned() -> Stage {
            let mut stage = in_use();
            stage.release(Health::Dirty);
            stage
        }

        pub(super) fn validated() -> Stage {
            let mut stage = idle();
            stage.rig.now += MS * 501;
            stage.wait("a");
            stage
        }

        pub(super) fn closing() -> Stage {
            let mut stage = in_use();
            stage.release(Health::Broken);
            stage
        }

        pub(super) fn late() -> Stage {
            let mut stage = closing();
            stage.rig.pass(MS * 100);
            stage
        }

        pub(super) fn pool_leased() -> Stage {
            let mut stage = stage();
            assert_eq!(stage.ask("a", 1), "");
            stage.poll_all();
            stage
        }
    }

    mod commands {
        use super::super::super::cells::Stage;
        pub(super) use super::super::commands::*;

        pub(super) fn ask_for_a_pool_of_two(stage: &mut Stage) -> String {
            stage.ask("a", 2)
        }

        pub(super) fn ask_for_a_pool_of_two_by_another(stage: &mut Stage) -> String {
            stage.ask("b", 2)
        }
    }

    cells! {
        acquire:
        opening => "2 opening; opens a; a waits; a waits; then a gets 1, a gets 1",
        opening_for_nobody => "1 opening; a waits; then a gets 1",
        idle => "takes 1; 1 in use",
        in_use => "1 opening, 1 in use; opens a; a waits; then a gets 1",
        granted => "1 opening, 1 in use; opens a; a gets 1; a waits; then a gets 1",
        cleaned => "1 in use; a waits; then a gets 1",
        validated => "1 opening, 1 in use; opens a; a waits; a waits; then a gets 1, a gets 1",
        closing => "1 opening, 1 closing; opens a; a waits; then a gets 2",
        late => "1 opening, 1 closing; opens a; a waits; then a gets 2",
        pool_leased => "1 opening, 1 for pools; opens a; a waits; then a gets 1",
    }

    cells! {
        acquire_by_another:
        opening => "2 opening; opens b; a waits; b waits; then a gets 1, b gets 2",
        opening_for_nobody => "2 opening; opens b; b waits; then b gets 2",
        idle => "1 opening, 1 idle; opens b; b waits; then b gets 2",
        in_use => "1 opening, 1 in use; opens b; b waits; then b gets 2",
        granted => "1 opening, 1 in use; opens b; a gets 1; b waits; then b gets 2",
        cleaned => "1 opening, 1 in use; opens b; b waits; then b gets 2",
        validated => "1 opening, 1 in use; opens b; a waits; b waits; then a gets 1, b gets 2",
        closing => "1 opening, 1 closing; opens b; b waits; then b gets 2",
        late => "1 opening, 1 closing; opens b; b waits; then b gets 2",
        pool_leased => "1 opening, 1 for pools; opens b; b waits; then b gets 1",
    }

    cells! {
        ask_for_a_pool_of_two:
        opening => "1 opening; a waits; a waits; then a gets 1, a gets a pool of 2",
        opening_for_nobody => "1 opening, 1 for pools; a waits; then a gets a pool of 2",
        idle => "1 closing, 1 for pools; closes 1; a waits; then a gets a pool of 2",
        in_use => "1 in use, 1 for pools; a waits; then a gets a pool of 2",
        granted => "1 in use, 1 for pools; a gets 1; a waits; then a gets a pool of 2",
        cleaned => "1 in use, 1 for pools; a waits; then a gets a pool of 2",
        validated => "1 in use; a waits; a waits; then a gets 1, a gets a pool of 2",
        closing => "1 closing, 1 for pools; a waits; then a gets a pool of 2",
        late => "1 closing, 1 for pools; a waits; then a gets a pool of 2",
        pool_leased => "2 for pools; a waits; then a gets a pool of 2",
    }

    cells! {
        ask_for_a_pool_of_two_by_another:
        opening => "1 opening, 1 for pools; a waits; b waits; then a gets 1, b gets a pool of 2",
        opening_for_nobody => "1 opening, 1 for pools; b waits; then b gets a pool of 2",
        idle => "1 closing, 1 for pools; closes 1; b waits; then b gets a pool of 2",
        in_use => "1 in use, 1 for pools; b waits; then b gets a pool of 2",
        granted => "1 in use, 1 for pools; a gets 1; b waits; then b gets a pool of 2",
        cleaned => "1 in use, 1 for pools; b waits; then b gets a pool of 2",
        validated => "1 in use, 1 for pools; a waits; b waits; then b gets a pool of 2, a gets 2",
        closing => "1 closing, 1 for pools; b waits; then b gets a pool of 2",
        late => "1 closing, 1 for pools; b waits; then b gets a pool of 2",
        pool_leased => "2 for pools; b waits; then b gets a pool of 2",
    }
}
