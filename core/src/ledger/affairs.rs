//! What stands beside a tenant only while somebody of it waits, or something of it is being opened, cleaned or closed, or its
//! database dropped. Most tenants have none of it at most times, so that it stands in a table of its own, whose places are used
//! again: a tenant at rest costs no memory for it, and a wait no allocation.

use super::Ledger;
use super::budget::InTenant;
use super::lru::List;
use super::queue::{InLine, Lane, Turn, Waiters};

/// See the module.
pub(super) struct Affairs {
    /// Its waiters, first come first.
    pub(super) line: List<InLine>,
    /// How many of them want a pool lease.
    pub(super) pools_in_line: u32,
    /// How many of them are background work. They stand behind the others.
    pub(super) background_in_line: u32,
    /// Waiters with an answer that is not collected yet.
    pub(super) answered: List<InLine>,
    /// Closings of others or its own whose permits are for it.
    pub(super) promises: List<InTenant>,
    /// How many of them are its own.
    pub(super) promised_own: u32,
    /// Its own connections that are being closed and that nobody counts on yet.
    pub(super) spare: List<InTenant>,
    /// How many times in a row a promise to it took too long.
    pub(super) lateness: u8,
    /// How many connections are being opened for its line. What is opened on a server that it has left is not among them.
    pub(super) opening: u32,
    /// How many of its connections are being cleaned or validated, likewise.
    pub(super) recycling: u32,
    /// How many drops of its database are under way.
    pub(super) drops: u32,
    /// Where it stands among the ready; None while another permit would not help it.
    pub(super) ready: Option<(Lane, Turn)>,
}

/// In place of an index: the tenant is at rest.
pub(super) const NO_AFFAIRS: u32 = u32::MAX;

static AT_REST: Affairs = Affairs::new();

impl Affairs {
    const fn new() -> Self {
        Self {
            line: List::new(),
            pools_in_line: 0,
            background_in_line: 0,
            answered: List::new(),
            promises: List::new(),
            promised_own: 0,
            spare: List::new(),
            lateness: 0,
            opening: 0,
            recycling: 0,
            drops: 0,
            ready: None,
        }
    }

    /// Whether somebody in the line comes before a new acquire of this kind.
    #[inline]
    pub(super) fn stands_before(&self, background: bool) -> bool {
        self.line.len() > if background { 0 } else { self.background_in_line }
    }

    /// Waiters for a connection for whom one is being opened, recycled, or has a permit promised.
    #[inline]
    pub(super) fn coming(&self) -> u32 {
        self.opening_soon() + self.recycling
    }

    /// The opens that are under way or have a permit promised.
    #[inline]
    pub(super) fn opening_soon(&self) -> u32 {
        self.opening + self.promises.len()
    }

    /// The first in line, if it wants a connection and not a pool lease.
    #[inline]
    pub(super) fn plain_waiter<E>(&self, waiters: &Waiters<E>) -> Option<u32> {
        self.line.oldest().filter(|&waiter| waiters[waiter].ask.pool == 0)
    }

    /// The first in line, if it wants a pool lease.
    #[inline]
    pub(super) fn pool_at_head<E>(&self, waiters: &Waiters<E>) -> Option<u32> {
        let first = if self.pools_in_line > 0 { self.line.oldest() } else { None };
        first.filter(|&waiter| waiters[waiter].ask.pool > 0)
    }

    /// How many waiters at the head of the line want a connection. Those behind a pool lease have to wait for it.
    #[inline]
    fn plain_run<E>(&self, waiters: &Waiters<E>) -> u32 {
        if self.pools_in_line == 0 {
            return self.line.len();
        }
        let run = self.line.iter(waiters).take_while(|&waiter| waiters[waiter].ask.pool == 0);
        u32::try_from(run.count()).unwrap_or(u32::MAX)
    }

    /// How many promises the line can use.
    #[inline]
    pub(super) fn promises_wanted<E>(&self, waiters: &Waiters<E>) -> u32 {
        match self.pool_at_head(waiters).map(|waiter| &waiters[waiter]) {
            Some(pool) => pool.ask.pool - u32::try_from(pool.gathered.len()).unwrap_or(u32::MAX),
            None => self.plain_run(waiters).saturating_sub(self.opening + self.recycling),
        }
    }

    /// How many more permits the waiters can use, beyond those on their way to them.
    #[inline]
    pub(super) fn wants<E>(&self, waiters: &Waiters<E>) -> u32 {
        self.promises_wanted(waiters).saturating_sub(self.promises.len())
    }

    /// Whether the next of the waiters that nothing is on its way to, of whom there is one, is background work.
    #[inline]
    pub(super) fn next_is_background(&self) -> bool {
        self.coming() >= self.line.len() - self.background_in_line
    }

    /// Whether nothing here has to be remembered.
    #[inline]
    pub(super) fn are_over(&self) -> bool {
        self.line.is_empty()
            && self.answered.is_empty()
            && self.promises.is_empty()
            && self.spare.is_empty()
            && (self.opening, self.recycling, self.drops) == (0, 0, 0)
            && self.ready.is_none()
    }
}

impl<C, E> Ledger<C, E> {
    #[inline]
    pub(super) fn affairs(&self, tenant: u32) -> &Affairs {
        match self.tenants[tenant].affairs {
            NO_AFFAIRS => &AT_REST,
            affairs => &self.affairs[affairs],
        }
    }

    /// The index of the tenant's affairs, which begin here if it was at rest. [`refresh`](Self::refresh) ends them.
    #[inline]
    pub(super) fn affairs_at(&mut self, tenant: u32) -> u32 {
        let affairs = &mut self.tenants[tenant].affairs;
        if *affairs == NO_AFFAIRS {
            *affairs = self.affairs.insert(Affairs::new());
        }
        *affairs
    }

    #[inline]
    pub(super) fn affairs_mut(&mut self, tenant: u32) -> &mut Affairs {
        let affairs = self.affairs_at(tenant);
        &mut self.affairs[affairs]
    }

    /// Puts a tenant to rest, if it may.
    #[inline]
    pub(super) fn end_affairs(&mut self, tenant: u32) {
        let affairs = &mut self.tenants[tenant].affairs;
        if *affairs != NO_AFFAIRS && self.affairs[*affairs].are_over() {
            self.affairs.remove(std::mem::replace(affairs, NO_AFFAIRS));
        }
    }

    /// Invariant 17.
    pub(super) fn check_affairs(&self) {
        let busy = self.tenants.iter().filter(|(_, tenant)| tenant.affairs != NO_AFFAIRS);
        let busy = busy.inspect(|&(index, tenant)| {
            assert!(!self.affairs(index).are_over(), "17: {:?} is at rest, and has affairs", tenant.name);
        });
        assert_eq!(busy.count(), self.affairs.len(), "17: affairs of nobody");
    }
}
