//! The rules of whose turn it is: within one tenant first come, first served; between tenants by share, and among
//! equals by turns; and how long a connection may be handed on within its tenant while others wait (rule 6).

use std::time::Duration;

use super::rig::{Conn, MS, Rig};
use crate::ledger::{Held, Polled, WaiterKey};
use crate::{Health, Settings, TenantId, TenantLimits};

/// Tenants with lines that never end: whoever is served waits again.
struct Crowd {
    rig: Rig,
    tenants: Vec<String>,
    /// Of each tenant.
    waiting: Vec<Vec<WaiterKey>>,
    served: Vec<u32>,
    /// Leases that are out, with their tenant.
    out: Vec<(usize, Held<Conn>)>,
}

impl Crowd {
    /// All permits are out; then each tenant joins with a line, in order; then the permits come back.
    fn new(settings: Settings, lines: &[usize]) -> Self {
        let total = settings.max_connections;
        let mut rig = Rig::new(settings);
        let held: Vec<_> = (0..total).map(|_| rig.lease("before")).collect();
        let tenants: Vec<String> = (0..lines.len()).map(|n| format!("tenant-{n}")).collect();
        let wait = |(tenant, &line): (&String, &usize)| (0..line).map(|_| rig.wait(tenant)).collect();
        let waiting = std::iter::zip(&tenants, lines).map(wait).collect();
        let mut crowd = Self { rig, served: vec![0; tenants.len()], tenants, waiting, out: Vec::new() };
        for held in held {
            crowd.rig.release(held, Health::Broken);
        }
        crowd.settle();
        crowd
    }

    /// Ends all closes and opens, and collects what was granted.
    fn settle(&mut self) {
        while !self.rig.closes.is_empty() || !self.rig.opens.is_empty() {
            if self.rig.closes.is_empty() {
                self.rig.opened();
            } else {
                self.rig.closed();
            }
        }
        for tenant in 0..self.tenants.len() {
            self.collect(tenant);
        }
    }

    fn collect(&mut self, tenant: usize) {
        for waiter in std::mem::take(&mut self.waiting[tenant]) {
            match self.rig.poll(waiter) {
                Polled::Connection(held) => {
                    self.served[tenant] += 1;
                    self.out.push((tenant, held));
                    let again = self.rig.wait(&self.tenants[tenant]);
                    self.waiting[tenant].push(again);
                }
                Polled::Pending(_) => self.waiting[tenant].push(waiter),
                other => panic!("{other:?}"),
            }
        }
    }

    /// The oldest lease comes back, and somebody gets its permit.
    fn turn(&mut self) {
        self.rig.now += MS;
        let (_, held) = self.out.remove(0);
        self.rig.release(held, Health::Clean);
        self.settle();
    }

    fn held(&self, tenant: usize) -> usize {
        self.out.iter().filter(|(holder, _)| *holder == tenant).count()
    }
}

fn settings(total: u32, bound: Duration) -> Settings {
    let mut settings = Settings::new(total);
    settings.max_connections_per_tenant = total;
    settings.max_connecting = Some(total * 2);
    settings.handover_bound = Some(bound);
    settings
}

#[test]
fn a_line_is_served_in_the_order_of_arrival() {
    let mut rig = Rig::with(1, 1);
    let mut lease = rig.lease("a");
    let line: Vec<_> = (0..5).map(|_| rig.wait("a")).collect();
    for at in 0..5 {
        rig.release(lease, Health::Clean);
        for &later in &line[at + 1..] {
            rig.pending(later);
        }
        lease = rig.granted(line[at]);
    }
}

#[test]
fn nobody_overtakes_a_line_that_waits_for_a_connection_of_its_own() {
    let mut rig = Rig::with(1, 1);
    rig.warm_up("a");
    rig.now += MS * 600;
    let first = rig.wait("a");
    let second = rig.wait("a");
    assert!(matches!(rig.try_acquire("a"), crate::ledger::TryDecision::NotIdle));
    rig.recycled();
    rig.pending(second);
    let _ = rig.granted(first);
}

#[test]
fn nobody_takes_what_is_idle_while_the_line_waits_for_another_to_be_validated() {
    let mut rig = Rig::with(2, 2);
    for lease in [rig.lease("a"), rig.lease("a")] {
        rig.release(lease, Health::Clean);
    }
    rig.now += MS * 600;
    let first = rig.wait("a");
    assert_eq!(rig.counts(), [0, 1, 1, 0, 0]);
    assert!(matches!(rig.try_acquire("a"), crate::ledger::TryDecision::NotIdle));
    rig.recycled();
    let _ = rig.granted(first);
    assert!(matches!(rig.try_acquire("a"), crate::ledger::TryDecision::Take(_)), "whose age it does not mind");
}

#[test]
fn three_hundred_turns_are_shared_equally() {
    for tenants in 2..=6_u32 {
        let mut crowd = Crowd::new(settings(1, Duration::ZERO), &vec![3; tenants as usize]);
        for _ in 1..300 {
            crowd.turn();
        }
        assert_eq!(crowd.served, vec![300 / tenants; tenants as usize], "{tenants} tenants");
    }
}

#[test]
fn turns_are_shared_equally_where_several_permits_go_round() {
    let mut crowd = Crowd::new(settings(3, Duration::ZERO), &[2; 7]);
    for _ in 0..(700 - 3) {
        crowd.turn();
    }
    let (least, most) = (crowd.served.iter().min(), crowd.served.iter().max());
    assert!(least >= Some(&99) && most <= Some(&101), "{:?}", crowd.served);
}

#[test]
fn sixty_four_waiters_of_one_tenant_get_no_more_than_one_of_another() {
    let mut crowd = Crowd::new(settings(1, Duration::ZERO), &[64, 1, 1, 1]);
    for _ in 1..400 {
        crowd.turn();
    }
    assert_eq!(crowd.served, [100; 4]);
}

#[test]
fn turns_go_round_by_weight_where_there_are_fewer_permits_than_tenants() {
    // A connection that stays with its tenant as it is the tenant's turn is a turn as well.
    let mut settings = settings(1, Duration::ZERO);
    settings.max_connecting = Some(2);
    let heavy = TenantId::new("tenant-0").expect("valid");
    settings.tenants.insert(heavy, TenantLimits::new().weight(3));
    let mut crowd = Crowd::new(settings, &[3, 3, 3]);
    for _ in 1..500 {
        crowd.turn();
    }
    assert_eq!(crowd.served, [300, 100, 100]);
}

#[test]
fn the_permit_of_a_victim_goes_to_the_one_it_was_taken_for() {
    let mut rig = Rig::with(1, 1);
    let lease = rig.lease("x");
    let (first, second) = (rig.wait("a"), rig.wait("b"));
    rig.release(lease, Health::Clean);
    rig.closed();
    rig.opened();
    let held = rig.granted(first);
    rig.release(held, Health::Clean);
    rig.closed();
    rig.opened();
    let _ = rig.granted(second);
}

#[test]
fn permits_are_held_in_proportion_to_weights() {
    let mut settings = settings(8, Duration::ZERO);
    let heavy = TenantId::new("tenant-0").expect("valid");
    settings.tenants.insert(heavy, TenantLimits::new().weight(3));
    let mut crowd = Crowd::new(settings, &[10, 10]);
    for turn in 0..200 {
        crowd.turn();
        assert_eq!((crowd.held(0), crowd.held(1)), (6, 2), "after turn {turn}");
    }
}

#[test]
fn equals_keep_the_order_in_which_they_came_from_turn_to_turn() {
    let mut rig = Rig::new(settings(1, Duration::ZERO));
    // Known first, and second to wait.
    rig.admit("later");
    let mut held = rig.lease("before");
    let [early, later] = ["early", "later"].map(|tenant| [rig.wait(tenant), rig.wait(tenant)]);
    for waiter in [early[0], later[0], early[1], later[1]] {
        rig.release(held, Health::Broken);
        rig.closed();
        rig.opened();
        held = rig.granted(waiter);
    }
}

#[test]
fn a_tenant_with_less_than_its_share_comes_first_however_late() {
    let mut rig = Rig::with(2, 2);
    let leases = [rig.lease("a"), rig.lease("a")];
    let more = rig.wait("a");
    rig.pass(MS * 100);
    let late = rig.wait("b");
    let [first, second] = leases;
    rig.release(first, Health::Broken);
    rig.closed();
    rig.opened();
    let _ = rig.granted(late);
    rig.pending(more);
    rig.release(second, Health::Clean);
    let _ = rig.granted(more);
}

/// How many times in a row a connection is handed on within `a`, every `step`, after `b` began to wait.
fn run(bound: Option<Duration>, connect_time: Duration, step: Duration) -> usize {
    let mut settings = settings(1, Duration::ZERO);
    settings.handover_bound = bound;
    let mut rig = Rig::new(settings);
    let first = rig.wait("a");
    rig.now += connect_time;
    rig.opened();
    let mut lease = rig.granted(first);
    rig.wait("b");
    for run in 0..1_000 {
        let next = rig.wait("a");
        rig.now += step;
        rig.release(lease, Health::Clean);
        if !rig.closes.is_empty() {
            return run;
        }
        lease = rig.granted(next);
    }
    1_000
}

#[test]
fn a_run_of_hand_overs_ends_at_the_bound() {
    assert_eq!(run(Some(MS * 10), MS, MS), 9, "from when b became the first in line");
    assert_eq!(run(Some(MS * 10), MS, MS * 4), 2);
    assert_eq!(run(Some(MS * 10), MS, MS * 100), 0);
}

#[test]
fn each_connection_has_a_run_of_its_own() {
    // Two go round within `a`, every 4 ms, while `b` and `c` wait: each stays for the bound and no longer, so that they do not
    // wait for one bound after the other.
    let mut settings = settings(2, MS * 10);
    settings.max_connecting = Some(2);
    let mut rig = Rig::new(settings);
    let leases = [rig.lease("a"), rig.lease("a")];
    rig.wait("b");
    rig.wait("c");
    let mut out = Vec::from(leases);
    for _ in 0..2 {
        rig.now += MS * 4;
        for lease in std::mem::take(&mut out) {
            let next = rig.wait("a");
            rig.release(lease, Health::Clean);
            out.push(rig.granted(next));
        }
    }
    rig.now += MS * 4;
    for lease in out {
        rig.wait("a");
        rig.release(lease, Health::Clean);
    }
    assert_eq!(rig.closes.len(), 2, "one for b, one for c");
}

#[test]
fn a_run_is_forgotten_when_its_connection_rests() {
    let mut rig = Rig::new(settings(1, MS * 10));
    let mut lease = rig.lease("a");
    for _ in 0..3 {
        rig.now += MS * 20;
        rig.release(lease, Health::Clean);
        lease = rig.warm("a");
    }
    rig.wait("b");
    let next = rig.wait("a");
    rig.now += MS * 5;
    rig.release(lease, Health::Clean);
    let _ = rig.granted(next);
}

#[test]
fn a_bound_of_zero_turns_hand_overs_off() {
    assert_eq!(run(Some(Duration::ZERO), MS * 100, MS), 0);
}

#[test]
fn by_default_a_run_lasts_twice_as_long_as_a_connect_took() {
    assert_eq!(run(None, MS * 5, MS), 9);
    assert_eq!(run(None, MS * 20, MS), 39);
}

#[test]
fn how_long_a_connect_takes_is_an_average_in_which_the_last_one_counts_an_eighth() {
    let mut rig = Rig::with(2, 2);
    for took in [8, 16] {
        rig.wait("a");
        rig.now += MS * took;
        rig.opened();
    }
    assert_eq!(rig.ledger.stats().servers[0].connect_time, Some(MS * 9));
}

#[test]
fn hand_overs_go_on_for_ever_where_nobody_else_waits_or_could_be_served() {
    let mut settings = settings(2, MS);
    settings.max_connections_per_tenant = 1;
    let mut rig = Rig::new(settings);
    let _out = rig.lease("b");
    rig.wait("b");
    let mut lease = rig.lease("a");
    for _ in 0..100 {
        let next = rig.wait("a");
        rig.now += MS * 10;
        rig.release(lease, Health::Clean);
        lease = rig.granted(next);
    }
    assert_eq!(rig.ledger.stats().totals.hand_overs, 100);
}

#[test]
fn a_run_is_charged_so_that_the_passed_over_have_as_many_turns() {
    let mut crowd = Crowd::new(settings(1, MS * 5), &[10, 10, 10]);
    for _ in 0..900 {
        crowd.turn();
    }
    let (least, most) = (crowd.served.iter().min(), crowd.served.iter().max());
    assert!(least >= Some(&295) && most <= Some(&306), "{:?}", crowd.served);
    assert!(crowd.rig.ledger.stats().totals.hand_overs > 600, "most of them are hand-overs");
}

#[test]
fn time_that_goes_back_a_little_changes_nothing() {
    let mut rig = Rig::with(2, 2);
    rig.now += MS * 1_800_000;
    let early = rig.now - MS * 3;
    rig.warm_up("a");
    let lease = rig.lease("b");
    rig.now = early;
    rig.release(lease, Health::Clean);
    let held = rig.warm("a");
    rig.release(held, Health::Clean);
    rig.wait("c");
    rig.closed();
    rig.opened();
    rig.pass(MS);
    assert_eq!(rig.counts(), [0, 1, 1, 0, 0]);
}
