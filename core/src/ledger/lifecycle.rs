//! What operators do: drain and resume a tenant, evict its idle connections, close everything. Each may be called again
//! and again.

use super::budget::State;
use super::queue::Answer;
use super::refusal::Refusal;
use super::tenants::Mode;
use super::{Ledger, Time};
use crate::ServerId;

impl<C, E> Ledger<C, E> {
    /// Active -> draining: nothing is handed out or opened any more; everybody in line is answered at once; what is idle
    /// closes. What is out closes when it comes back. Again and again is once.
    pub fn drain(&mut self, name: &str, now: Time) -> bool {
        let Some(tenant) = self.find(name) else {
            return false;
        };
        if self.tenants[tenant].mode == Mode::Active {
            self.tenants[tenant].mode = Mode::Draining;
            self.clear_out(tenant, || Refusal::Draining, now);
        }
        self.settle(tenant, now);
        true
    }

    /// Draining -> active, on the server that the factory now names. True where the tenant was draining.
    pub fn resume(&mut self, name: &str, server: &ServerId, now: Time) -> bool {
        let Some(tenant) = self.find(name) else {
            return false;
        };
        if self.tenants[tenant].mode != Mode::Draining {
            return false;
        }
        let server = self.admit_server(server);
        self.with_reserve(tenant, |ledger| ledger.tenants[tenant].server = server);
        self.tenants[tenant].mode = Mode::Active;
        self.settle(tenant, now);
        true
    }

    /// Closes a tenant's idle connections; says how many.
    pub fn evict(&mut self, name: &str, now: Time) -> u32 {
        let Some(tenant) = self.find(name) else {
            return 0;
        };
        let mut closed = 0;
        while let Some(permit) = self.tenants[tenant].idle.oldest() {
            self.close_idle(permit, now);
            closed += 1;
        }
        self.counters.closed_evict += u64::from(closed);
        self.serve(now);
        closed
    }

    /// Answers a tenant's line and its uncollected grants, and closes what is idle.
    pub(super) fn clear_out(&mut self, tenant: u32, refusal: impl Fn() -> Refusal<E>, now: Time) {
        self.answer_line(tenant, &refusal, now);
        for permit in self.permits.indices() {
            if self.permits[permit].tenant == tenant && matches!(self.permits[permit].state, State::Granted(..)) {
                self.revoke(permit, refusal(), now);
            }
        }
        while let Some(permit) = self.tenants[tenant].idle.oldest() {
            self.close_idle(permit, now);
        }
        self.serve(now);
    }

    /// granted -> closing: the grant is taken back and its waiter refused.
    fn revoke(&mut self, permit: u32, refusal: Refusal<E>, now: Time) {
        let State::Granted(connection, waiter) = self.enter(permit, State::InUse, now) else {
            return;
        };
        if let Some(waiter) = self.waiters.find(waiter) {
            // It was woken when it was granted, and has not looked yet.
            self.waiters[waiter].answer = Some(Answer::Refused(refusal));
        }
        self.begin_close(permit, connection, now);
    }

    /// Ends it all: nothing opens any more, every waiter is told, what is idle closes, what is out closes when it comes
    /// back. Again and again is once.
    pub fn close(&mut self, now: Time) {
        if std::mem::replace(&mut self.closed, true) {
            return;
        }
        for tenant in self.tenants.indices() {
            let entry = &self.tenants[tenant];
            if entry.waiters > 0 || entry.counts.all() > 0 {
                self.answer_line(tenant, || Refusal::Closed, now);
            }
        }
        for permit in self.permits.indices() {
            match self.permits[permit].state {
                State::Idle(_) => self.close_idle(permit, now),
                State::Granted(..) => self.revoke(permit, Refusal::Closed, now),
                _ => {}
            }
        }
    }
}
