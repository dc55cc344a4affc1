//! Which kind of connection a connect is to open. The ledger says for which tenant, and knows no kinds; so whoever asks
//! through a view says it here. It is a hint and no count: a wrong one costs an exchange (`search.rs`), never a permit.

use std::collections::HashMap;

use super::Side;
use crate::TenantId;
use crate::sync::{Mutex, MutexGuard, lock};

/// Those who wait for a connection of their kind, by tenant, in the order in which they asked.
#[derive(Default)]
pub(super) struct Asks(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    by_tenant: HashMap<TenantId, Vec<Ask>>,
    asked: u64,
}

struct Ask {
    number: u64,
    side: Side,
    /// One is being opened, or was opened, for it.
    served: bool,
}

impl Waiting {
    fn find(&mut self, tenant: &TenantId, number: u64) -> Option<&mut Ask> {
        self.by_tenant.get_mut(tenant)?.iter_mut().find(|ask| ask.number == number)
    }
}

impl Asks {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        lock(&self.0)
    }

    /// Somebody waits for a connection of this kind, until the answer is dropped.
    pub(super) fn ask<'a>(&'a self, tenant: &'a TenantId, side: Side) -> Asking<'a> {
        let mut waiting = self.waiting();
        waiting.asked += 1;
        let number = waiting.asked;
        waiting.by_tenant.entry(tenant.clone()).or_default().push(Ask { number, side, served: false });
        drop(waiting);
        Asking { asks: self, tenant, number }
    }

    /// A connect begins: for the first for whom none was begun, as the ledger serves a tenant's line in order.
    pub(super) fn begin<'a>(&'a self, tenant: &'a TenantId) -> Opening<'a> {
        let mut waiting = self.waiting();
        let asks = waiting.by_tenant.get_mut(tenant).map_or(&mut [][..], Vec::as_mut_slice);
        let next = asks.iter_mut().find(|ask| !ask.served).map(|ask| {
            ask.served = true;
            (ask.side, Some(ask.number))
        });
        let (side, number) = next.unwrap_or((asks.first().map_or(Side::Left, |ask| ask.side), None));
        drop(waiting);
        Opening { asks: self, tenant, side, number }
    }
}

/// A place among those who wait.
#[must_use]
pub(super) struct Asking<'a> {
    asks: &'a Asks,
    tenant: &'a TenantId,
    number: u64,
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        let mut waiting = self.asks.waiting();
        if let Some(asks) = waiting.by_tenant.get_mut(self.tenant) {
            asks.retain(|ask| ask.number != self.number);
            if asks.is_empty() {
                waiting.by_tenant.remove(self.tenant);
            }
        }
    }
}

/// A connect. Unless it [succeeded](Self::succeeded), the next one is for the same ask.
#[must_use]
pub(super) struct Opening<'a> {
    asks: &'a Asks,
    tenant: &'a TenantId,
    side: Side,
    /// None where it is for nobody known.
    number: Option<u64>,
}

impl Opening<'_> {
    pub(super) fn side(&self) -> Side {
        self.side
    }

    pub(super) fn succeeded(mut self) {
        self.number = None;
    }
}

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && let Some(ask) = self.asks.waiting().find(self.tenant, number)
        {
            ask.served = false;
        }
    }
}

#[cfg(all(test, not(tenantry_loom)))]
mod tests {
    use super::*;

    fn named(name: &str) -> TenantId {
        let Ok(tenant) = TenantId::new(name) else { panic!("a bad name in a test") };
        tenant
    }

    fn side(asks: &Asks, tenant: &TenantId) -> Side {
        let opening = asks.begin(tenant);
        let side = opening.side();
        opening.succeeded();
        side
    }

    #[test]
    fn connects_are_for_those_who_ask_in_their_order() {
        let (asks, tenant, other) = (Asks::default(), named("acme"), named("other"));
        assert_eq!(side(&asks, &tenant), Side::Left, "for nobody known");
        let first = asks.ask(&tenant, Side::Right);
        let _second = asks.ask(&tenant, Side::Left);
        assert_eq!(side(&asks, &other), Side::Left);
        assert_eq!(side(&asks, &tenant), Side::Right);
        assert_eq!(side(&asks, &tenant), Side::Left);
        drop(first);
        assert_eq!(side(&asks, &tenant), Side::Left, "all have theirs: as the first one who still waits");
    }

    #[test]
    fn after_a_failed_connect_the_next_is_for_the_same_ask() {
        let (asks, tenant) = (Asks::default(), named("acme"));
        let _first = asks.ask(&tenant, Side::Right);
        let _second = asks.ask(&tenant, Side::Left);
        drop(asks.begin(&tenant));
        assert_eq!(side(&asks, &tenant), Side::Right);
    }

    #[test]
    fn nothing_is_kept_of_those_who_went_away() {
        let (asks, tenant) = (Asks::default(), named("acme"));
        let ask = asks.ask(&tenant, Side::Right);
        let opening = asks.begin(&tenant);
        drop(ask);
        drop(opening);
        assert!(asks.waiting().by_tenant.is_empty());
    }
}
