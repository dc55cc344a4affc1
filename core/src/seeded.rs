//! Bugs planted on purpose, to prove that the tests can fail. `cargo xtask seeded` switches on one after the other; what
//! each does wrong is said in its list (`xtask/src/seeded.rs`).
//!
//! They exist only under `--cfg tenantry_seeded`, where the variable `TENANTRY_FAULT` names the one that is on. In any other
//! build `seeded!(Fault)` is the word `false`, and `seeded!(Fault => bug)` is nothing at all.

#[cfg(not(tenantry_seeded))]
macro_rules! seeded {
    ($fault:ident) => {
        false
    };
    ($fault:ident => $($bug:tt)*) => {};
}

#[cfg(tenantry_seeded)]
macro_rules! seeded {
    ($fault:ident) => {
        $crate::seeded::is_on(stringify!($fault))
    };
    ($fault:ident => $($bug:tt)*) => {
        if seeded!($fault) {
            $($bug)*
        }
    };
}

#[cfg(tenantry_seeded)]
pub(crate) use edge::{is_on, keep_waker, look_up};

/// The switch, and what the bugs outside of the ledger need; `ledger/seeded.rs` has what those inside do.
#[cfg(tenantry_seeded)]
mod edge {
    use std::sync::OnceLock;
    use std::task::Context;

    use crate::factory::PoolFactory;
    use crate::ledger::WaiterKey;
    use crate::pools::Shared;
    use crate::sync::Arc;

    /// Whether this fault was chosen.
    pub(crate) fn is_on(fault: &str) -> bool {
        static CHOSEN: OnceLock<Option<String>> = OnceLock::new();
        CHOSEN.get_or_init(|| std::env::var("TENANTRY_FAULT").ok()).as_deref() == Some(fault)
    }

    /// `WakerInASecondPlace`.
    pub(crate) fn keep_waker<F: PoolFactory>(shared: &Arc<Shared<F>>, waiter: WaiterKey, context: &Context<'_>) {
        shared.with_now(|ledger, _| ledger.put_waker(waiter, context.waker().clone()));
    }

    /// `EvictedAfterLookUp`.
    pub(crate) fn look_up<F: PoolFactory>(shared: &Arc<Shared<F>>, name: &str) {
        let idle = |ledger: &crate::pools::ConnectionLedger<F>| ledger.tenant_stats(name).map_or(0, |stats| stats.idle);
        if shared.with(|ledger, _| idle(ledger)) > 0 {
            shared.with(|ledger, _| assert!(idle(ledger) > 0, "it was idle a moment ago"));
        }
    }
}
