//! Nobody else's code runs under the lock: it could come back for the lock, and its thread would wait for itself for ever. In
//! debug builds that is an assertion; in others nothing of this is left, nor in a model, whose threads are all of one thread.

use std::cell::Cell;

const CHECKED: bool = cfg!(all(debug_assertions, not(tenantry_loom)));

thread_local! {
    static HERE: Cell<bool> = const { Cell::new(false) };
}

/// While this lives, this thread is under the lock.
#[must_use]
pub(crate) struct UnderLock(());

impl UnderLock {
    #[inline]
    pub(crate) fn begin() -> Self {
        assert_outside();
        if CHECKED {
            HERE.set(true);
        }
        Self(())
    }
}

impl Drop for UnderLock {
    #[inline]
    fn drop(&mut self) {
        if CHECKED {
            HERE.set(false);
        }
    }
}

/// Called before what may run anybody's code. One panic tells enough; a second would end the process.
#[inline]
pub(crate) fn assert_outside() {
    if CHECKED {
        assert!(!HERE.get() || std::thread::panicking(), "somebody else's code is to run under the lock");
    }
}
