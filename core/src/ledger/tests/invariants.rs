//! The recount can fail: each invariant of `check.rs` is broken by hand, and names itself.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::rig::{Conn, MS, Oops, Rig};
use crate::ledger::budget::{Claim, Place, Scope, State};
use crate::ledger::queue::Answer;
use crate::ledger::tenants::Mode;
use crate::ledger::{Ledger, Moment, Refusal};
use crate::{Health, Settings, TenantId, TenantLimits};

type Broken = Ledger<Conn, Oops>;

/// Two connections of `a` are idle.
fn idle() -> Rig {
    let mut rig = Rig::with(4, 4);
    let (first, second) = (rig.lease("a"), rig.lease("a"));
    rig.release(first, Health::Clean);
    rig.now += MS;
    rig.release(second, Health::Clean);
    rig
}

/// The only permit is out, and two of `b` wait for it.
fn waiting() -> Rig {
    let mut rig = Rig::with(1, 1);
    let _out = rig.lease("a");
    rig.wait("b");
    rig.now += MS;
    rig.wait("b");
    rig
}

/// One of `a` was granted a connection that it has not collected.
fn granted() -> Rig {
    let mut rig = Rig::with(4, 4);
    rig.wait("a");
    rig.opened();
    rig
}

/// A broken connection of `a` is being closed; nobody counts on its permit.
fn closing() -> Rig {
    let mut rig = Rig::with(4, 4);
    let held = rig.lease("a");
    rig.release(held, Health::Broken);
    rig
}

/// Two of them.
fn two_closing() -> Rig {
    let mut rig = Rig::with(4, 4);
    let (first, second) = (rig.lease("a"), rig.lease("a"));
    rig.release(first, Health::Broken);
    rig.release(second, Health::Broken);
    rig
}

/// An idle connection of `a` is being closed for `b`.
fn promised() -> Rig {
    let mut rig = Rig::with(1, 1);
    rig.warm_up("a");
    rig.wait("b");
    rig
}

/// A pool lease of `a` has gathered one permit of two.
fn gathering() -> Rig {
    let mut rig = Rig::with(2, 2);
    let _out = rig.lease("b");
    rig.wait_pool("a", 2);
    rig
}

/// A connection of `a` within its reserve of two is idle.
fn reserved() -> Rig {
    let mut settings = Settings::new(4);
    settings.tenants.insert(TenantId::new("a").expect("valid"), TenantLimits::new().reserve(2));
    let mut rig = Rig::new(settings);
    rig.warm_up("a");
    rig
}

fn tenant(ledger: &Broken, name: &str) -> u32 {
    ledger.find(name).expect("it is known")
}

fn first_in_line(ledger: &Broken, name: &str) -> u32 {
    ledger.affairs(tenant(ledger, name)).line.oldest().expect("somebody waits")
}

/// One that is taken.
fn permit(ledger: &Broken) -> u32 {
    let (index, _) = ledger.permits.iter().next().expect("a permit is taken");
    index
}

/// Tolerates nothing above it.
fn hard_cap(scope: &mut Scope, cap: u32) {
    (scope.cap, scope.tolerated) = (cap, cap);
}

/// What the check must say, where it begins, what is done.
type Case = (&'static str, fn() -> Rig, fn(&mut Broken));

const CASES: &[Case] = &[
    ("1: the total's counts", idle, |l| l.total.counts.add(Place::Idle)),
    ("1: the counts of \"a\"", idle, |l| {
        let a = tenant(l, "a");
        l.tenants[a].counts.add(Place::Idle);
    }),
    ("1: the counts of \"\"", idle, |l| l.servers[0].scope.counts.add(Place::Idle)),
    ("2: 2 permits of 1", idle, |l| hard_cap(&mut l.total, 1)),
    ("2: 2 permits on \"\"", idle, |l| hard_cap(&mut l.servers[0].scope, 1)),
    ("2: 2 permits of \"a\", 1 allowed", idle, |l| {
        let a = tenant(l, "a");
        l.tenants[a].cap = 1;
    }),
    ("3: a server's idle", idle, |l| {
        let index = permit(l);
        l.servers[0].victims.idle.remove(&mut l.permits, index);
    }),
    ("3: a tenant's idle", reserved, |l| {
        let (a, index) = (tenant(l, "a"), permit(l));
        l.tenants[a].idle.remove(&mut l.permits, index);
    }),
    ("3: the order of all: the oldest first", idle, |l| {
        let oldest = l.servers[0].victims.idle.oldest().expect("two are idle");
        l.permits[oldest].used_at = Moment::NEVER;
    }),
    ("3: a server's list is in the order of all", idle, |l| {
        let list: Vec<u32> = l.servers[0].victims.idle.iter(&l.permits).collect();
        list.iter().for_each(|&index| (l.permits[index].used_at, l.permits[index].order) = (Moment::START, 1));
        l.permits[list[1]].order = 0;
    }),
    ("4: a server's closings", closing, |l| {
        let index = permit(l);
        l.servers[0].victims.closing.remove(&mut l.permits, index);
    }),
    ("4: a tenant's spare closings\n", closing, |l| {
        let (a, index) = (l.affairs_at(tenant(l, "a")), permit(l));
        l.affairs[a].spare.remove(&mut l.permits, index);
    }),
    ("4: a tenant's spare closings, the first to begin first", two_closing, |l| {
        let (a, first) = (l.affairs_at(tenant(l, "a")), permit(l));
        l.affairs[a].spare.remove(&mut l.permits, first);
        l.affairs[a].spare.push(&mut l.permits, first);
    }),
    ("4: promises to \"b\"", promised, |l| {
        let index = permit(l);
        l.permits[index].state = State::Closing { claim: Claim::Uncounted, overdue: false };
    }),
    ("4: \"b\" was promised more than it can use", promised, |l| {
        let (b, waiter) = (tenant(l, "b"), first_in_line(l, "b"));
        let affairs = l.affairs_at(b);
        l.affairs[affairs].line.remove(&mut l.waiters, waiter);
        l.waiters.remove(waiter);
        (l.total.queued, l.servers[0].scope.queued, l.ready) = (0, 0, 0);
    }),
    ("5: a waiter in line has no answer", waiting, |l| {
        let waiter = first_in_line(l, "b");
        l.waiters[waiter].answer = Some(Answer::Refused(Refusal::Closed));
    }),
    ("5: a line is in order of arrival", waiting, |l| {
        let waiter = first_in_line(l, "b");
        l.waiters[waiter].since = Moment::NEVER;
    }),
    ("5: a waiter among the answered has an answer", granted, |l| {
        let (waiter, _) = l.waiters.iter().next().expect("one was granted");
        l.waiters[waiter].answer = None;
    }),
    ("6: a grant is its waiter's answer", granted, |l| {
        let (waiter, _) = l.waiters.iter().next().expect("one was granted");
        l.waiters[waiter].answer = Some(Answer::Refused(Refusal::Closed));
    }),
    ("6: an answer's permit is granted", granted, |l| {
        let index = permit(l);
        l.permits[index].state = State::IN_USE;
    }),
    ("7: a servable waiter waits", waiting, |l| {
        hard_cap(&mut l.total, 2);
        hard_cap(&mut l.servers[0].scope, 2);
    }),
    ("8: \"b\" among the ready", waiting, |l| {
        let b = tenant(l, "b");
        l.affairs_mut(b).ready = None;
    }),
    ("8: \"b\" in its lane", waiting, |l| l.servers[0].ready.lanes.iter_mut().for_each(|lane| lane.clear())),
    ("8: how many are ready", waiting, |l| l.ready += 1),
    ("9: the pins of \"a\"", reserved, |l| {
        let a = tenant(l, "a");
        l.tenants[a].pins = 0;
    }),
    ("9: what the reserves lack", reserved, |l| l.total.unfilled = 0),
    ("10: waiters in line", waiting, |l| l.total.queued += 1),
    ("10: waiters in line, by server", waiting, |l| l.servers[0].scope.queued += 1),
    ("10: recyclings of \"a\"", idle, |l| {
        let a = tenant(l, "a");
        l.affairs_mut(a).recycling += 1;
    }),
    ("10: opens of \"a\"", idle, |l| {
        let a = tenant(l, "a");
        l.affairs_mut(a).opening += 1;
    }),
    ("10: pool leases in line of \"a\"", gathering, |l| {
        let a = tenant(l, "a");
        l.affairs_mut(a).pools_in_line = 0;
    }),
    ("10: opens promised on", promised, |l| l.servers[0].promised = 0),
    ("10: overdue closes", closing, |l| l.overdue += 1),
    ("11: only one gathers", gathering, |l| l.gathering = None),
    ("11: a gathered permit is set aside", gathering, |l| {
        let waiter = first_in_line(l, "a");
        let gathered = l.permits.find(l.waiters[waiter].gathered[0]).expect("one was gathered");
        l.enter(gathered, State::IN_USE, Moment::START);
        l.permits[gathered].expires_at = Moment::START;
    }),
    ("12: closed, and a connection is idle", idle, |l| l.closed = true),
    ("12: closed, and somebody waits", waiting, |l| l.closed = true),
    ("12: closed, and a grant is open", granted, |l| l.closed = true),
    ("12: a tenant that is not active has an empty line", waiting, |l| {
        let b = tenant(l, "b");
        l.tenants[b].mode = Mode::Removed;
        l.refresh(b);
    }),
    ("13: \"a\" among the quiet", idle, |l| {
        let a = tenant(l, "a");
        l.quiet.push(&mut l.tenants, a);
    }),
    ("13: names and tenants", idle, |l| l.by_name.clear()),
    ("14: permit 0, which is open, does not expire", idle, |l| {
        let index = permit(l);
        l.permits[index].expires_at = Moment::NEVER;
    }),
    ("15: permits of background work", idle, |l| l.share.taken += 1),
    ("15: permits promised to background work", idle, |l| l.share.promised += 1),
    ("15: what is lent is charged", idle, |l| {
        let index = permit(l);
        l.permits[index].lent = true;
    }),
    ("16: each connection is open or was closed for a reason", idle, |l| l.counters.connects += 1),
    ("16: tenants have counted", idle, |l| {
        let a = tenant(l, "a");
        l.tenants[a].tally.warm_hit();
    }),
    ("16: tenants whose last connect failed", idle, |l| l.unavailable += 1),
    ("17: \"a\" is at rest, and has affairs", idle, |l| {
        let a = tenant(l, "a");
        l.affairs_at(a);
    }),
    ("17: affairs of nobody", idle, |l| {
        let a = tenant(l, "a");
        l.affairs_at(a);
        l.tenants[a].affairs = crate::ledger::affairs::NO_AFFAIRS;
    }),
];

#[test]
fn each_invariant_that_is_broken_is_named_by_the_recount() {
    let mut wrong = Vec::new();
    for (expected, begin, plant) in CASES {
        let mut rig = begin();
        plant(&mut rig.ledger);
        let found = match catch_unwind(AssertUnwindSafe(|| rig.ledger.check())) {
            Ok(()) => "nothing".to_owned(),
            Err(panic) => panic
                .downcast_ref::<String>()
                .cloned()
                .or_else(|| panic.downcast_ref::<&str>().map(|s| s.to_string()))
                .unwrap_or_default(),
        };
        if !found.contains(expected) {
            wrong.push(format!("{expected}: it found {found}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for number in 1..=17 {
        assert!(CASES.iter().any(|(expected, ..)| expected.starts_with(&format!("{number}:"))), "none breaks {number}");
    }
}
