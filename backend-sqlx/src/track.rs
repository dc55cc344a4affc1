//! What a connection's user has done to it, as flags. Written by `executor.rs` and `connection.rs`, read by
//! [`Connection::health`](crate::Connection::health).

use std::sync::atomic::{AtomicU8, Ordering};

use tenantry_core::Health;

/// A query, stream or `begin` is under way, or was forgotten (`mem::forget`) before it ended.
const BUSY: u8 = 1;
/// One was dropped before it ended: the server may still work on it, and its answers are still to be read.
const ABANDONED: u8 = 1 << 1;
/// Something may be left on the session, until it is recycled.
const DIRTY: u8 = 1 << 2;
/// The connection cannot be used again.
const BROKEN: u8 = 1 << 3;
/// The server or the network ended it.
const LOST: u8 = 1 << 4;

/// How a query ended, for the one who uses the connection next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The session is as before; a plain error from the database ends a query so too.
    Clean,
    /// Nobody can say what is left.
    Dirty,
    /// This connection is of no more use, which says nothing about others.
    Broken,
    /// The server or the network ended the session.
    Lost,
}

/// The flags. Atomics, since a running query holds `&Track` beside `&mut` of the driver's connection, and its future
/// must be `Send`; nothing is ever written from two threads at once, so `Relaxed` does.
#[derive(Debug, Default)]
pub(crate) struct Track(AtomicU8);

impl Track {
    fn set(&self, flags: u8) -> u8 {
        self.0.fetch_or(flags, Ordering::Relaxed)
    }

    fn has(&self, flags: u8) -> bool {
        self.0.load(Ordering::Relaxed) & flags != 0
    }

    pub(crate) fn mark_dirty(&self) {
        self.set(DIRTY);
    }

    pub(crate) fn mark(&self, ending: Ending) {
        self.set(match ending {
            Ending::Clean => 0,
            Ending::Dirty => DIRTY,
            Ending::Broken => BROKEN,
            Ending::Lost => LOST,
        });
    }

    /// True when answers may still be on their way, so that a polite end needs a round trip first.
    pub(crate) fn is_unfinished(&self) -> bool {
        self.has(BUSY | ABANDONED)
    }

    /// What the flags alone say, where each of the two that may be mended makes `abandoned` and `changed` of the
    /// connection; the driver's own signs come on top of it.
    pub(crate) fn health(&self, abandoned: Health, changed: Health) -> Health {
        let unfinished = self.is_unfinished();
        if self.has(LOST) {
            Health::Lost
        } else if self.has(BROKEN) || unfinished && abandoned == Health::Broken {
            Health::Broken
        } else if self.has(DIRTY) {
            changed
        } else if unfinished {
            abandoned
        } else {
            Health::Clean
        }
    }

    /// After a recycle: whatever was dirty is clean. What was broken or lost stays so.
    pub(crate) fn cleaned(&self) {
        self.0.fetch_and(BROKEN | LOST, Ordering::Relaxed);
    }
}

/// One query, stream or `begin` from its first poll to its end. Dropped in between, it leaves [`ABANDONED`] behind;
/// dropped before the first poll, nothing, since nothing was sent.
#[must_use]
pub(crate) struct Running<'t> {
    track: &'t Track,
    started: bool,
    ended: bool,
}

impl<'t> Running<'t> {
    pub(crate) fn new(track: &'t Track) -> Self {
        Self { track, started: false, ended: false }
    }

    /// Call before each poll of what runs.
    pub(crate) fn start(&mut self) {
        if !self.started {
            self.started = true;
            // Busy already means that an earlier one was forgotten, not dropped.
            if self.track.set(BUSY) & BUSY != 0 {
                self.track.set(ABANDONED);
            }
        }
    }

    pub(crate) fn end(&mut self, ending: Ending) {
        self.ended = true;
        self.track.mark(ending);
        self.track.0.fetch_and(!BUSY, Ordering::Relaxed);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.started && !self.ended {
            self.track.set(ABANDONED);
            self.track.0.fetch_and(!BUSY, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(track: &Track) -> Health {
        track.health(Health::Dirty, Health::Dirty)
    }

    #[test]
    fn what_ends_is_clean_and_what_is_dropped_half_way_is_not() {
        let track = Track::default();
        let mut running = Running::new(&track);
        running.start();
        assert_eq!(health(&track), Health::Dirty);
        running.end(Ending::Clean);
        drop(running);
        assert_eq!(health(&track), Health::Clean);
        assert!(!track.is_unfinished());

        let mut running = Running::new(&track);
        running.start();
        drop(running);
        assert_eq!(health(&track), Health::Dirty);
        assert!(track.is_unfinished());
        track.cleaned();
        assert_eq!(health(&track), Health::Clean);
    }

    #[test]
    fn what_was_never_polled_leaves_nothing() {
        let track = Track::default();
        drop(Running::new(&track));
        assert_eq!(health(&track), Health::Clean);
    }

    #[test]
    fn what_was_forgotten_is_never_clean_again() {
        let track = Track::default();
        let mut forgotten = Running::new(&track);
        forgotten.start();
        std::mem::forget(forgotten);
        assert_eq!(health(&track), Health::Dirty);

        let mut next = Running::new(&track);
        next.start();
        next.end(Ending::Clean);
        assert_eq!(health(&track), Health::Dirty, "a later query must not hide it");
    }

    #[test]
    fn where_nothing_can_undo_it_a_connection_is_broken() {
        let track = Track::default();
        track.mark_dirty();
        assert_eq!(track.health(Health::Dirty, Health::Broken), Health::Broken);
        let mut running = Running::new(&track);
        running.start();
        drop(running);
        assert_eq!(track.health(Health::Broken, Health::Dirty), Health::Broken);
    }

    #[test]
    fn a_recycle_mends_no_broken_or_lost_connection() {
        let track = Track::default();
        track.mark(Ending::Broken);
        track.cleaned();
        assert_eq!(health(&track), Health::Broken);
        track.mark(Ending::Lost);
        track.cleaned();
        assert_eq!(health(&track), Health::Lost);
    }
}
