//! What a few of the planted bugs of `core/src/seeded.rs` need inside the ledger. Not in any build that is used.

use std::task::Waker;

use super::queue::Lane;
use super::{Ledger, WaiterKey};

impl<C, E> Ledger<C, E> {
    /// `WakerInASecondPlace`: stores a waker without a look at the answer.
    pub fn put_waker(&mut self, waiter: WaiterKey, waker: Waker) {
        if let Some(index) = self.waiters.find(waiter) {
            self.waiters[index].waker = Some(waker);
        }
    }

    /// `OneMoreUnderPoolLeases`.
    pub(super) fn allows_one_more(&self, lane: Lane) -> bool {
        lane == Lane::Pool && self.total.counts.all() == self.total.cap
    }

    /// `LruByCreation`.
    pub(super) fn sort_victims_by_creation(&mut self) {
        let lists = self.servers.iter().map(|server| server.victims.idle.iter(&self.permits));
        let mut victims: Vec<u32> = lists.flatten().collect();
        victims.sort_by_key(|&victim| (self.permits[victim].expires_at, victim));
        for victim in victims {
            let server = self.permits[victim].server as usize;
            self.order += 1;
            self.permits[victim].order = self.order;
            self.servers[server].victims.idle.remove(&mut self.permits, victim);
            self.servers[server].victims.idle.push(&mut self.permits, victim);
        }
    }
}
