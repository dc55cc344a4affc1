//! Statistics of many tenants: pages of them, and those with the most of something. A walk looks at a stretch of the
//! table at a time, lets go of the lock between two, and rests after a few, so that no number of tenants keeps anybody waiting.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::factory::PoolFactory;
use crate::ledger::{ROWS, STRETCH, TenantKey};
use crate::pools::TenantPools;
use crate::stats::TenantStats;

/// The most tenants of one page, and of [`TenantPools::top_tenants`].
const MOST: usize = 1_000;

/// After so many stretches, of tens of microseconds each, a walk rests for as long as tokio's timers know. So it has the lock
/// for less than a tenth of the time, also where it has a processor of its own.
const STRETCHES: u32 = 4;
/// See [`STRETCHES`].
const REST: Duration = Duration::from_millis(1);

/// Where a page ended. As text it is short and fit for a URL; it means nothing but the place to go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TenantCursor(u32);

impl fmt::Display for TenantCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl FromStr for TenantCursor {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for TenantCursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Which tenants to list.
#[derive(Debug, Clone)]
#[must_use]
pub struct TenantPage {
    after: TenantCursor,
    limit: usize,
    containing: Option<String>,
}

impl Default for TenantPage {
    fn default() -> Self {
        Self { after: TenantCursor(0), limit: 100, containing: None }
    }
}

impl TenantPage {
    /// The first page of all tenants.
    pub fn new() -> Self {
        Self::default()
    }

    /// The page after one that ended at `cursor` ([`TenantList::next`]). Default: the first.
    pub fn after(mut self, cursor: TenantCursor) -> Self {
        self.after = cursor;
        self
    }

    /// The most tenants on the page. Default: 100. Taken as 1 where it is 0, as 1,000 where it is more.
    pub fn limit(mut self, tenants: usize) -> Self {
        self.limit = tenants.clamp(1, MOST);
        self
    }

    /// Only tenants with this text in their names, case and all. Default: all.
    pub fn containing(mut self, text: impl Into<String>) -> Self {
        self.containing = Some(text.into()).filter(|text| !text.is_empty());
        self
    }
}

/// A page of tenants.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct TenantList {
    /// At most as many as were asked for, in no order that means anything.
    pub tenants: Vec<TenantStats>,
    /// Where the next page begins; None after the last one.
    pub next: Option<TenantCursor>,
}

/// Of what a tenant may have the most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize), serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum TopBy {
    /// Permits that do something: all but the idle.
    InUse,
    /// Acquires in line now.
    Waiting,
    /// Acquires that waited since it became known.
    Waits,
    /// Acquires refused for a limit since it became known.
    Refusals,
    /// Connects since it became known: the tenant that is never warm.
    Connects,
    /// Its idle connections closed to make room, since it became known.
    Evictions,
}

impl<F: PoolFactory> TenantPools<F> {
    /// A page of the tenants known, in no order that means anything.
    ///
    /// The lock is held for a bounded stretch of the table at a time, some tens of microseconds, whatever the number of
    /// tenants, and left alone for a millisecond after every 2,048 tenants that were looked at: a search among 100,000 that
    /// finds nothing takes some 100 ms. So the page is no picture of one moment: each tenant's own numbers are, but two
    /// tenants' may be some milliseconds apart. Over all pages a tenant that is known all the while is listed exactly once;
    /// one that becomes known or is forgotten meanwhile may be missing, and one that is forgotten and comes back may be listed
    /// twice.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn tenants(&self, page: TenantPage) -> TenantList {
        let mut tenants = Vec::with_capacity(page.limit);
        let (mut next, mut done) = (Some(page.after.0), 0);
        while let Some(from) = next
            && tenants.len() < page.limit
        {
            self.give_way(&mut done).await;
            next = self.shared.with_now(|ledger, now| {
                ledger.at(now).tenants_from(from, page.containing.as_deref(), page.limit, &mut tenants)
            });
        }
        TenantList { tenants, next: next.map(TenantCursor) }
    }

    /// The `most` tenants (at most 1,000) with the most of something, the first one first. Who has nothing of it is not
    /// among them.
    ///
    /// Holds the lock as [`tenants`](Self::tenants) does, and with the same consequence: what moves from one tenant to
    /// another during the walk may be seen at both, or at neither.
    ///
    /// # Cancel safety
    /// Dropping the future leaves nothing behind.
    pub async fn top_tenants(&self, most: usize, by: TopBy) -> Vec<TenantStats> {
        let most = most.min(MOST);
        let mut found: Vec<(u64, TenantKey)> = Vec::with_capacity(most + STRETCH as usize);
        let (mut next, mut done) = (Some(0).filter(|_| most > 0), 0);
        while let Some(from) = next {
            self.give_way(&mut done).await;
            let least = found.get(most - 1).map_or(0, |&(least, _)| least);
            next = self.shared.with(|ledger, _| ledger.measure_from(from, by, least, &mut found));
            found.sort_by_key(|&(value, _)| Reverse(value));
            found.truncate(most);
        }
        let mut tenants = Vec::with_capacity(found.len());
        for some in found.chunks(ROWS) {
            self.give_way(&mut done).await;
            self.shared.with_now(|ledger, now| {
                let ledger = ledger.at(now);
                tenants.extend(some.iter().filter_map(|&(_, tenant)| ledger.stats_of(tenant)));
            });
        }
        tenants
    }

    /// Before the next stretch of a walk that has `done` so many.
    async fn give_way(&self, done: &mut u32) {
        match *done {
            0 => {}
            done if done.is_multiple_of(STRETCHES) => self.shared.runtime.sleep(REST).await,
            _ => tokio::task::yield_now().await,
        }
        *done += 1;
    }
}
