//! The reference for throughput: the same budget with one first-come-first-served line for everybody. It knows nothing of caps,
//! shares, failures or time, and opens as many connections at once as it has permits for.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::rc::Rc;
use std::time::Duration;

use tenantry_core::{Health, LimitScope, TenantId};

use super::desk::{Answer, Desk, Flop, No, RequestKey, Seen, SocketKey, Wish, Work};
use super::plan::{Operation, Plan};

#[derive(Default)]
pub(super) struct OneLine {
    permits: Vec<Permit>,
    free: Vec<u32>,
    line: VecDeque<(RequestKey, u32)>,
    /// Waiters that were given a permit, and those whose connection is there.
    given: HashMap<RequestKey, u32>,
    /// Each tenant's idle connections, and all of them by age.
    idle: HashMap<u32, Vec<u32>>,
    by_age: BTreeSet<(u64, u32)>,
    turns: u64,
    closed: bool,
    work: Vec<Work<u32>>,
}

struct Permit {
    tenant: u32,
    socket: Option<SocketKey>,
    /// For whom it is.
    owner: Option<RequestKey>,
    idle_since: u64,
    ready: bool,
}

impl OneLine {
    fn serve(&mut self) {
        while let Some(&(request, tenant)) = self.line.front() {
            let Some(permit) = self.permit_for(tenant) else { return };
            self.line.pop_front();
            self.given.insert(request, permit);
            let entry = &mut self.permits[permit as usize];
            entry.owner = Some(request);
            if entry.ready {
                self.work.push(Work::Wake(request));
            }
        }
    }

    /// The tenant's own connection, else a free permit, else that of the least recently used idle one.
    fn permit_for(&mut self, tenant: u32) -> Option<u32> {
        if let Some(permit) = self.idle.get_mut(&tenant).and_then(Vec::pop) {
            self.by_age.remove(&(self.permits[permit as usize].idle_since, permit));
            self.permits[permit as usize].ready = true;
            return Some(permit);
        }
        if let Some(permit) = self.free.pop() {
            self.open(permit, tenant);
            return Some(permit);
        }
        let (_, permit) = self.by_age.pop_first()?;
        let entry = &mut self.permits[permit as usize];
        let socket = entry.socket.take()?;
        let owner = entry.tenant;
        entry.tenant = tenant;
        entry.ready = false;
        if let Some(idle) = self.idle.get_mut(&owner) {
            idle.retain(|&other| other != permit);
        }
        self.work.push(Work::Close { permit, socket });
        Some(permit)
    }

    fn open(&mut self, permit: u32, tenant: u32) {
        let entry = &mut self.permits[permit as usize];
        (entry.tenant, entry.ready) = (tenant, false);
        self.work.push(Work::Open { permit, tenant });
    }

    fn rest(&mut self, permit: u32) {
        self.turns += 1;
        let entry = &mut self.permits[permit as usize];
        (entry.owner, entry.ready, entry.idle_since) = (None, false, self.turns);
        self.by_age.insert((self.turns, permit));
        self.idle.entry(entry.tenant).or_default().push(permit);
        self.serve();
    }
}

impl Desk for OneLine {
    type Permit = u32;
    type Waiter = RequestKey;

    fn new(plan: &Plan, _: Rc<[TenantId]>) -> Self {
        let budget = plan.settings.max_connections;
        let permit = |_| Permit { tenant: 0, socket: None, owner: None, idle_since: 0, ready: false };
        Self { permits: (0..budget).map(permit).collect(), free: (0..budget).rev().collect(), ..Self::default() }
    }

    fn acquire(&mut self, wish: Wish, _: Duration) -> Answer<Self> {
        assert_eq!(wish.pool, 0, "the line is for connections only");
        let request = wish.request;
        self.line.push_back((request, wish.tenant));
        self.serve();
        Answer::Waits(request)
    }

    fn poll(&mut self, request: RequestKey, _: RequestKey, _: Duration) -> Answer<Self> {
        let permit = self.given.get(&request).copied().filter(|&permit| self.permits[permit as usize].ready);
        match permit.and_then(|permit| Some((permit, self.permits[permit as usize].socket.take()?))) {
            Some((permit, socket)) => {
                self.given.remove(&request);
                self.work.retain(|work| !matches!(work, Work::Wake(woken) if *woken == request));
                Answer::Socket(permit, socket)
            }
            None => Answer::Waits(request),
        }
    }

    fn give_up(&mut self, request: RequestKey, now: Duration) -> Answer<Self> {
        self.cancel(request, now);
        Answer::No(No::Limit(LimitScope::Total, None, 0))
    }

    fn cancel(&mut self, request: RequestKey, _: Duration) {
        self.line.retain(|(other, _)| *other != request);
        if let Some(permit) = self.given.remove(&request) {
            self.permits[permit as usize].owner = None;
            if self.permits[permit as usize].ready {
                self.rest(permit);
            }
        }
    }

    fn release(&mut self, permit: u32, socket: SocketKey, health: Health, _: Duration) {
        assert_eq!(health, Health::Clean, "the line knows no trouble");
        self.permits[permit as usize].socket = Some(socket);
        self.rest(permit);
    }

    fn opened(&mut self, permit: u32, socket: SocketKey, _: u64, _: Duration) {
        let entry = &mut self.permits[permit as usize];
        (entry.socket, entry.ready) = (Some(socket), true);
        match entry.owner {
            Some(owner) => self.work.push(Work::Wake(owner)),
            None => self.rest(permit),
        }
    }

    fn closed(&mut self, permit: u32, _: Duration) {
        if !self.closed {
            self.open(permit, self.permits[permit as usize].tenant);
        }
    }

    fn open_failed(&mut self, _: u32, flop: Flop, _: u64, _: Duration) {
        unreachable!("the line knows no trouble: {flop:?}")
    }

    fn recycled(&mut self, _: u32, _: SocketKey, _: Duration) {
        unreachable!("the line recycles nothing")
    }

    fn recycle_failed(&mut self, _: u32, _: Duration) {
        unreachable!("the line recycles nothing")
    }

    fn closing_pool(&mut self, _: &[u32], _: Duration) {
        unreachable!("the line is for connections only")
    }

    fn free_pool(&mut self, _: &[u32], _: Duration) {
        unreachable!("the line is for connections only")
    }

    fn tick(&mut self, _: Duration) {}

    fn operate(&mut self, operation: Operation, _: usize, _: Duration) -> bool {
        unreachable!("the line has no operators: {operation:?}")
    }

    fn close(&mut self, _: Duration) {
        self.closed = true;
        for (_, permit) in std::mem::take(&mut self.by_age) {
            if let Some(socket) = self.permits[permit as usize].socket.take() {
                self.work.push(Work::Close { permit, socket });
            }
        }
    }

    fn work(&mut self, into: &mut Vec<Work<u32>>) {
        into.append(&mut self.work);
    }

    fn is_quiet(&self) -> bool {
        true
    }

    fn check(&self, _: Seen) {}

    fn counts(&self) -> (u64, u64) {
        (0, self.line.len() as u64)
    }
}
