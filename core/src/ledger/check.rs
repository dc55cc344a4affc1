//! The invariants, numbered. [`Ledger::check`] recounts everything from the entries alone and compares. Tests and models
//! call it after every step; documentation and tests cite the numbers.

use std::collections::HashMap;

use super::Ledger;
use super::budget::{Claim, Counts, Place, State};
use super::moment::Moment;
use super::queue::Answer;
use super::tenants::Mode;

impl<C, E> Ledger<C, E> {
    /// Recounts everything.
    ///
    /// 1. Permits by state add up, for each tenant, each server and the total.
    /// 2. Permits never exceed a cap, except what a lowered cap found already taken, which only falls.
    /// 3. An idle connection stands in its tenant's list, and unless pinned in its server's, those of background work apart;
    ///    nothing else does, but that one lent to background keeps its place in the latter. Each list is ordered by when its
    ///    entries were last used, oldest first, and so are the entries of all servers' lists by their `order`.
    /// 4. A closing whose permit is spare stands in the lists of closings, in the order in which they began to close, a promised
    ///    one in its tenant's list of promises; nothing else does. Nobody is promised more than its line can use.
    /// 5. A waiter is in its tenant's line or among its answered, never both; lines are in order of arrival, foreground first.
    /// 6. A grant belongs to a waiter that has it as its answer, and the other way round; it counts as in use.
    /// 7. No servable waiter waits: after a command no ready tenant has a permit to be had, free or evictable, the first of
    ///    a lane or not. No waiter for a connection waits beside an idle one of its own tenant that it may have, unless one is
    ///    being recycled for it.
    /// 8. A tenant stands among its server's ready exactly while another permit would help it, at the place that it has now.
    /// 9. What tenants with a reserve lack is kept free, and pins are as many as the reserve wants and the open connections allow.
    /// 10. Promises, recyclings and answers are counted where they are read.
    /// 11. At most one waiter gathers permits for a pool lease; what is gathered is in the state `Pool`.
    /// 12. Closed means that nobody waits and nothing is idle or granted; nobody waits for a tenant that is not active.
    /// 13. A tenant is in the table under its name, and in the list of the quiet exactly while it holds nothing.
    /// 14. The lifetime of every open connection ends.
    /// 15. What is charged to background work is counted, and at most its share, except what a lowered share found taken.
    /// 16. Each connection that was opened is idle or in use, or was closed for one reason. No tenant has counted what the
    ///     totals have not, and those whose last connect failed are as many as are said to be unavailable.
    /// 17. A tenant has affairs exactly while somebody of it waits, or something is on its way.
    ///
    /// # Panics
    /// When one does not hold, with its number.
    pub fn check(&self) {
        self.check_counts();
        self.check_lists();
        self.check_waiters();
        self.check_ready();
        self.check_reserves();
        self.check_promises();
        self.check_table();
        self.check_closed();
        self.check_share();
        self.check_tallies();
        self.check_affairs();
    }

    fn check_counts(&self) {
        let mut tenants: HashMap<u32, Counts> = HashMap::new();
        let mut servers: HashMap<u32, Counts> = HashMap::new();
        let mut total = Counts::default();
        for (_, permit) in self.permits.iter() {
            let place = permit.state.place();
            tenants.entry(permit.tenant).or_default().add(place);
            servers.entry(permit.server).or_default().add(place);
            total.add(place);
        }
        assert_eq!(self.total.counts, total, "1: the total's counts");
        assert!(total.all() <= self.total.tolerated, "2: {} permits of {}", total.all(), self.total.cap);
        for (index, tenant) in self.tenants.iter() {
            let counts = tenants.remove(&index).unwrap_or_default();
            assert_eq!(tenant.counts, counts, "1: the counts of {:?}", tenant.name);
            assert!(
                counts.all() <= tenant.cap || self.limits_changed,
                "2: {} permits of {:?}, {} allowed",
                counts.all(),
                tenant.name,
                tenant.cap
            );
        }
        assert!(tenants.is_empty(), "1: a permit of a tenant that is not known");
        for (index, server) in (0..).zip(&self.servers) {
            let counts = servers.remove(&index).unwrap_or_default();
            assert_eq!(server.scope.counts, counts, "1: the counts of {:?}", server.id);
            assert!(counts.all() <= server.scope.tolerated, "2: {} permits on {:?}", counts.all(), server.id);
        }
    }

    fn check_lists(&self) {
        let idle_of = |wanted: &dyn Fn(u32) -> bool| {
            let mut idle: Vec<u32> =
                self.permits.iter().filter(|(index, _)| wanted(*index)).map(|(index, _)| index).collect();
            idle.sort_unstable();
            idle
        };
        let is_idle = |index: u32| matches!(self.permits[index].state, State::Idle(_));
        let foreground = |index: u32| (is_idle(index) && !self.permits[index].background) || self.permits[index].lent;
        let is_victim = |index: u32| foreground(index) && !self.permits[index].pinned;
        let is_backgrounds = |index: u32| is_idle(index) && self.permits[index].background;
        let is_spare = |index: u32| matches!(self.permits[index].state, State::Closing { claim: Claim::Spare, .. });
        let same = |mut listed: Vec<u32>, expected: Vec<u32>, what: &str| {
            assert!(
                listed.windows(2).all(|pair| self.permits[pair[0]].used_at <= self.permits[pair[1]].used_at),
                "{what}: the oldest first"
            );
            listed.sort_unstable();
            assert_eq!(listed, expected, "{what}");
        };
        for is_listed in [&is_victim as &dyn Fn(u32) -> bool, &is_backgrounds] {
            let mut all = idle_of(is_listed);
            all.sort_by_key(|&index| self.permits[index].order);
            same(all, idle_of(is_listed), "3: the order of all");
        }
        let same_set = |mut listed: Vec<u32>, expected: Vec<u32>, what: &str| {
            listed.sort_unstable();
            assert_eq!(listed, expected, "{what}");
        };
        for (at, server) in (0..).zip(&self.servers) {
            let here = |index: u32| self.permits[index].server == at;
            let victims = &server.victims;
            for list in [&victims.idle, &victims.background, &victims.closing] {
                let order: Vec<u64> = list.iter(&self.permits).map(|index| self.permits[index].order).collect();
                assert!(order.is_sorted(), "3: a server's list is in the order of all");
            }
            same(
                victims.idle.iter(&self.permits).collect(),
                idle_of(&|i| here(i) && is_victim(i)),
                "3: a server's idle",
            );
            let background = victims.background.iter(&self.permits).collect();
            same(background, idle_of(&|i| here(i) && is_backgrounds(i)), "3: the background's idle on a server");
            let spare = idle_of(&|i| here(i) && is_spare(i));
            same_set(victims.closing.iter(&self.permits).collect(), spare, "4: a server's closings");
        }
        for (at, tenant) in self.tenants.iter() {
            let mine = |index: u32| self.permits[index].tenant == at && is_idle(index);
            same(tenant.idle.iter(&self.permits).collect(), idle_of(&mine), "3: a tenant's idle");
            let spare = idle_of(&|index| self.permits[index].tenant == at && is_spare(index));
            let listed: Vec<u32> = self.affairs(at).spare.iter(&self.permits).collect();
            let order = |&index: &u32| self.permits[index].order;
            assert!(listed.is_sorted_by_key(order), "4: a tenant's spare closings, the first to begin first");
            same_set(listed, spare, "4: a tenant's spare closings");
        }
        for (index, permit) in self.permits.iter() {
            let open = matches!(permit.state.place(), Place::Idle | Place::InUse);
            assert!(!open || permit.expires_at < Moment::NEVER, "14: permit {index}, which is open, does not expire");
        }
    }

    fn check_waiters(&self) {
        let (mut queued, mut listed) = (0, 0);
        for (at, tenant) in self.tenants.iter() {
            let affairs = self.affairs(at);
            let line: Vec<u32> = affairs.line.iter(&self.waiters).collect();
            queued += affairs.line.len();
            for &waiter in &line {
                assert_eq!(self.waiters[waiter].tenant.index(), at, "5: a waiter in another's line");
                assert!(self.waiters[waiter].answer.is_none(), "5: a waiter in line has no answer");
            }
            let place = |waiter: u32| (self.waiters[waiter].ask.background, self.waiters[waiter].since);
            let ordered = line.windows(2).all(|pair| place(pair[0]) <= place(pair[1]));
            assert!(ordered, "5: a line is in order of arrival");
            for waiter in affairs.answered.iter(&self.waiters) {
                assert_eq!(self.waiters[waiter].tenant.index(), at, "5: a waiter among another's answered");
                assert!(self.waiters[waiter].answer.is_some(), "5: a waiter among the answered has an answer");
                listed += 1;
            }
            let needy = self.plain_waiter(at).filter(|_| affairs.line.len() > affairs.recycling);
            let idle = needy.and_then(|waiter| self.idle_for(at, self.waiters[waiter].ask.background));
            assert_eq!(idle, None, "7: {:?} waits beside its own idle one", tenant.name);
            let background = line.iter().filter(|&&waiter| self.waiters[waiter].ask.background).count();
            assert_eq!(affairs.background_in_line as usize, background, "10: background work in line");
            let pools = line.iter().filter(|&&waiter| self.waiters[waiter].ask.pool > 0).count();
            assert_eq!(affairs.pools_in_line as usize, pools, "10: pool leases in line of {:?}", tenant.name);
        }
        assert_eq!(self.total.queued, queued, "10: waiters in line");
        let on_servers: u32 = self.servers.iter().map(|server| server.scope.queued).sum();
        assert_eq!(on_servers, queued, "10: waiters in line, by server");
        assert_eq!(self.waiters.len(), listed + queued as usize, "5: every waiter stands in one list");
        let unanswered = self.waiters.iter().filter(|(_, waiter)| waiter.answer.is_none()).count();
        assert_eq!(queued as usize, unanswered, "5: a waiter without an answer is in line");
        for (index, permit) in self.permits.iter() {
            if let State::Granted(_, waiter) = permit.state {
                let waiter = self.waiters.find(waiter).expect("6: a grant's waiter exists");
                let mine = matches!(self.waiters[waiter].answer, Some(Answer::Connection(key)) if self.permits.find(key) == Some(index));
                assert!(mine, "6: a grant is its waiter's answer");
            }
        }
        for (index, waiter) in self.waiters.iter() {
            if let Some(Answer::Connection(key)) = waiter.answer {
                let permit = self.permits.find(key).expect("6: an answer's permit exists");
                let State::Granted(_, key) = self.permits[permit].state else {
                    panic!("6: an answer's permit is granted")
                };
                assert_eq!(self.waiters.find(key), Some(index), "6: to this waiter");
            }
            let gathers = !waiter.gathered.is_empty() && waiter.answer.is_none();
            assert!(!gathers || self.gathering == Some(index), "11: only one gathers");
            for &key in &waiter.gathered {
                let permit = self.permits.find(key).expect("11: a gathered permit exists");
                assert!(matches!(self.permits[permit].state, State::Pool), "11: a gathered permit is set aside");
            }
        }
    }

    fn check_ready(&self) {
        assert!(!self.can_serve(), "7: a servable waiter waits");
        let mut ready = 0;
        for (index, tenant) in self.tenants.iter() {
            let now = self.lane(index).map(|lane| (lane, self.turn_of(index)));
            assert_eq!(self.affairs(index).ready, now, "8: {:?} among the ready", tenant.name);
            if let Some((lane, turn)) = now {
                let gathers = self.gathering.is_none_or(|waiter| self.waiters[waiter].tenant.index() == index);
                let servable = (gathers || !lane.is_pool()) && self.source(index, lane).is_some();
                assert!(!servable, "7: {:?} could be served in {lane:?}", tenant.name);
                ready += 1;
                let here = self.servers[tenant.server as usize].ready.lanes[lane as usize].contains(&turn);
                assert!(here, "8: {:?} in its lane", tenant.name);
            }
        }
        let listed: usize = self.servers.iter().flat_map(|server| &server.ready.lanes).map(|lane| lane.len()).sum();
        assert_eq!((ready, ready), (self.ready as usize, listed), "8: how many are ready");
    }

    fn check_reserves(&self) {
        let mut unfilled = 0;
        let mut unfilled_on: HashMap<u32, u32> = HashMap::new();
        for (index, tenant) in self.tenants.iter() {
            unfilled += tenant.unfilled();
            *unfilled_on.entry(tenant.server).or_default() += tenant.unfilled();
            let pinned = self.permits.iter().filter(|(_, permit)| permit.tenant == index && permit.pinned).count();
            assert_eq!(tenant.pins as usize, pinned, "9: the pins of {:?}", tenant.name);
            assert!(tenant.pins <= tenant.reserve, "9: {:?} has more pins than reserve", tenant.name);
            let unpinned = tenant.idle.iter(&self.permits).any(|permit| !self.permits[permit].pinned);
            assert!(
                tenant.pins == tenant.reserve || !unpinned,
                "9: {:?} lacks a pin beside an unpinned idle one",
                tenant.name
            );
        }
        assert_eq!(self.total.unfilled, unfilled, "9: what the reserves lack");
        let free = self.total.cap.saturating_sub(self.total.counts.all());
        assert!(free >= unfilled || self.limits_changed, "9: a reserve is not kept free");
        for (index, server) in (0..).zip(&self.servers) {
            assert_eq!(
                server.scope.unfilled,
                unfilled_on.remove(&index).unwrap_or(0),
                "9: what the reserves lack on {:?}",
                server.id
            );
        }
    }

    fn check_promises(&self) {
        let mut overdue = 0;
        for (index, tenant) in self.tenants.iter() {
            let (key, affairs) = (self.tenants.key(index), self.affairs(index));
            let promised = self.permits.iter().filter(
                |(_, permit)| matches!(permit.state, State::Closing { claim: Claim::Promised(to), .. } if to.tenant == key),
            );
            assert_eq!(affairs.promises.len() as usize, promised.count(), "4: promises to {:?}", tenant.name);
            let listed = affairs.promises.iter(&self.permits).count();
            assert_eq!(affairs.promises.len() as usize, listed, "4: the list of promises to {:?}", tenant.name);
            let own = affairs.promises.iter(&self.permits).filter(|&closing| self.permits[closing].tenant == index);
            assert_eq!(affairs.promised_own as usize, own.count(), "10: promises of its own to {:?}", tenant.name);
            assert!(!affairs.line.is_empty() || listed == 0, "4: {:?} was promised more than it can use", tenant.name);
            let recycling = self.permits.iter().filter(|(_, permit)| {
                permit.tenant == index && matches!(permit.state, State::Recycling) && !permit.away
            });
            assert_eq!(affairs.recycling as usize, recycling.count(), "10: recyclings of {:?}", tenant.name);
            let opening = self.permits.iter().filter(|(_, permit)| {
                permit.tenant == index && matches!(permit.state, State::Opening) && permit.server == tenant.server
            });
            assert_eq!(affairs.opening as usize, opening.count(), "10: opens of {:?}", tenant.name);
        }
        for (index, server) in (0..).zip(&self.servers) {
            let promised = self.permits.iter().filter(|(_, permit)| {
                matches!(permit.state, State::Closing { claim: Claim::Promised(to), .. } if to.opens && to.server == index)
            });
            assert_eq!(server.promised as usize, promised.count(), "10: opens promised on {:?}", server.id);
        }
        for (_, permit) in self.permits.iter() {
            overdue += u32::from(matches!(permit.state, State::Closing { overdue: true, .. }));
        }
        assert_eq!(self.overdue, overdue, "10: overdue closes");
    }

    fn check_table(&self) {
        assert_eq!(self.by_name.len(), self.tenants.len(), "13: names and tenants");
        for (index, tenant) in self.tenants.iter() {
            assert_eq!(self.find(tenant.name.as_str()), Some(index), "13: {:?} under its name", tenant.name);
            let quiet = tenant.is_quiet(self.affairs(index));
            assert_eq!(quiet, tenant.is_listed_quiet(), "13: {:?} among the quiet", tenant.name);
        }
        let listed = self.quiet.iter(&self.tenants).count() + self.strangers.iter(&self.tenants).count();
        assert_eq!((self.quiet.len() + self.strangers.len()) as usize, listed, "13: the lists of the quiet");
    }

    fn check_share(&self) {
        let taken = self.permits.iter().filter(|(_, permit)| permit.background).count();
        assert_eq!(self.share.taken as usize, taken, "15: permits of background work");
        let promised = self.permits.iter().filter(
            |(_, permit)| matches!(permit.state, State::Closing { claim: Claim::Promised(to), .. } if to.background),
        );
        assert_eq!(self.share.promised as usize, promised.count(), "15: permits promised to background work");
        let all = self.share.taken + self.share.promised;
        assert!(all <= self.background_share() || self.limits_changed, "15: background work passes its share");
        for (_, permit) in self.permits.iter() {
            assert!(permit.background || !permit.lent, "15: what is lent is charged");
        }
    }

    fn check_closed(&self) {
        let drained =
            self.tenants.iter().all(|(at, tenant)| tenant.mode == Mode::Active || self.affairs(at).line.is_empty());
        assert!(drained, "12: a tenant that is not active has an empty line");
        if !self.closed {
            return;
        }
        assert_eq!(self.total.queued, 0, "12: closed, and somebody waits");
        assert_eq!(self.total.counts.of(Place::Idle), 0, "12: closed, and a connection is idle");
        let granted = self.permits.iter().any(|(_, permit)| matches!(permit.state, State::Granted(..)));
        assert!(!granted, "12: closed, and a grant is open");
        let pools = self.waiters.iter().any(|(_, waiter)| matches!(waiter.answer, Some(Answer::Pool)));
        assert!(!pools, "12: closed, and permits are granted");
    }
}
