//! The naive reference: flat vectors of permits, waiters and tenants, and every question answered by looking at all of
//! them. Written from the rules, it shares no code and no structure with the ledger: no lists, no counts that are kept,
//! no lanes. Its commands are in `reference/commands.rs` (callers), `reference/answers.rs` (tasks, and time) and
//! `reference/operators.rs`; who is served is in `reference/turns.rs`, what failed connects do in `reference/failures.rs`,
//! who is remembered in `reference/known.rs`, how a "no" is made in `reference/refusals.rs`.

mod answers;
mod background;
mod commands;
mod entries;
mod failures;
mod known;
mod operators;
mod refusals;
mod turns;

use std::fmt;
use std::time::Duration;

use self::entries::{Claim, Fitness, Permit, Places, PoolLease, Quiet, Returns, Server, Tenant, Waiter};
pub(crate) use self::entries::{Events, Mode, State};
pub(crate) use self::failures::Circuit;
use super::expectation::{Answer, Call, Command, Expected, Reply};
use super::operations::{Exists, Operation};
use super::world::{SERVERS, TENANTS, World};
use tenantry_core::ledger::Ask;

pub(crate) type Time = Duration;

#[derive(Clone)]
pub(crate) struct Reference {
    pub(crate) world: World,
    pub(crate) now: Time,
    pub(crate) permits: Vec<Permit>,
    waiters: Vec<Waiter>,
    tenants: [Option<Tenant>; TENANTS],
    servers: [Server; SERVERS],
    pools: Vec<PoolLease>,
    /// The waiter for a pool lease that permits are being set aside for.
    gathering: Option<u32>,
    pub(crate) closed: bool,
    pub(crate) events: Events,
    returns: Returns,
    /// What was idle since before is idle for long, as the last tick saw it.
    idle_for_long: Option<Time>,
    /// Who held how many when a refusal last looked.
    holders: Option<(Time, [u32; TENANTS])>,
    permit_places: Places,
    tenant_places: Places,
    /// Counts everything that has an order.
    order: u64,
    /// Virtual time, in which tenants take turns.
    clock: u64,
    ids: u32,
    /// What the last operation is to call on the ledger, and what must come of it.
    pub(crate) calls: Vec<Call>,
    /// What the command at hand asks for.
    expected: Expected,
}

/// A case is its world; the rest follows from the operations.
impl fmt::Debug for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.world)
    }
}

impl Reference {
    pub(crate) fn new(world: World) -> Self {
        let mut reference = Self {
            now: Duration::from_secs(1),
            permits: Vec::new(),
            waiters: Vec::new(),
            tenants: Default::default(),
            servers: Default::default(),
            pools: Vec::new(),
            gathering: None,
            closed: false,
            events: Events::default(),
            returns: Returns::default(),
            idle_for_long: None,
            holders: None,
            permit_places: Places::default(),
            tenant_places: Places::default(),
            order: 0,
            clock: 0,
            ids: 0,
            calls: Vec::new(),
            expected: Expected::default(),
            world,
        };
        // A reserve is kept from the start, so its tenant is known from the start.
        for tenant in 0..TENANTS {
            if reference.reserve(tenant) > 0 {
                reference.admit(tenant);
            }
        }
        reference
    }

    /// What the next operation may act on.
    pub(crate) fn exists(&self) -> Exists {
        let any = |wanted: &dyn Fn(State) -> bool| self.permits.iter().any(|permit| wanted(permit.state));
        Exists {
            waiting: self.waiting() > 0,
            answered: self.waiters.iter().any(|waiter| waiter.answer.is_some()),
            lease: any(&|state| state == State::Leased),
            open: any(&|state| state == State::Opening),
            recycling: any(&|state| state == State::Recycling),
            closing: any(&|state| matches!(state, State::Closing { .. })),
            pool: !self.pools.is_empty(),
            draining: (0..TENANTS).any(|tenant| self.is_draining(tenant)),
            dropping: !self.dropping().is_empty(),
            removed: (0..TENANTS).any(|tenant| self.mode(tenant) == Some(Mode::Removed)),
            paused: self.servers.iter().any(|server| server.paused),
        }
    }

    pub(crate) fn apply(mut self, operation: Operation) -> Self {
        self.calls.clear();
        self.run(operation);
        self
    }

    fn run(&mut self, operation: Operation) {
        use Operation::*;
        match operation {
            Acquire { tenant, pool, background, caller, polled } => {
                self.acquire(tenant, Ask { pool, background, caller }, polled);
            }
            TryAcquire { tenant, caller } => self.try_acquire(tenant, caller),
            Poll { waiter } => self.with_waiter(waiter, Self::poll),
            Collect { answered } => {
                let answered_ones = |waiter: &&Waiter| waiter.answer.is_some();
                let ids: Vec<u32> = self.waiters.iter().filter(answered_ones).map(|waiter| waiter.id).collect();
                if !ids.is_empty() {
                    self.poll(ids[answered % ids.len()]);
                }
            }
            Cancel { waiter } => self.with_waiter(waiter, Self::cancel),
            GiveUp { waiter } => self.with_waiter(waiter, Self::give_up),
            Release { lease, health } => self.with_permit(State::Leased, lease, |me, id| me.release(id, health)),
            Opened { open, random } => self.with_permit(State::Opening, open, |me, id| me.opened(id, random)),
            OpenFailed { open, trouble, random } => {
                self.with_permit(State::Opening, open, |me, id| me.open_failed(id, trouble, random));
            }
            Recycled { recycling } => self.with_permit(State::Recycling, recycling, Self::recycled),
            RecycleFailed { recycling, lost } => {
                self.with_permit(State::Recycling, recycling, |me, id| me.recycle_failed(id, lost));
            }
            Closed { closing } => self.closing_ended(closing),
            ClosingPool { pool } => self.with_pool(pool, Some(false), Self::closing_pool),
            ClosedPool { pool } => self.with_pool(pool, Some(true), Self::closed_pool),
            FreePool { pool } => self.with_pool(pool, None, Self::free_pool),
            Wait { millis } => self.now += Duration::from_millis(millis),
            Tick { millis } => {
                self.now += Duration::from_millis(millis);
                self.tick();
            }
            Drain { tenant } => self.drain(tenant),
            Resume { tenant, server } => self.resume(tenant, server),
            Remove { tenant } => self.remove(tenant),
            DropBegins { tenant } => self.drop_begins(tenant),
            DropEnds { dropping, server } => {
                let tenants = self.dropping();
                if !tenants.is_empty() {
                    self.drop_ends(tenants[dropping % tenants.len()], server);
                }
            }
            Created { tenant } => self.created(tenant),
            Pause { server } => self.pause(server),
            Unpause { server } => self.unpause(server),
            SetLimits(change) => self.set_limits(&change),
            Evict { tenant } => self.evict(tenant),
            Renew { tenant } => self.renew(tenant),
            Close => self.close(),
        }
    }

    fn with_waiter(&mut self, at: usize, act: impl FnOnce(&mut Self, u32)) {
        if !self.waiters.is_empty() {
            act(self, self.waiters[at % self.waiters.len()].id);
        }
    }

    fn with_permit(&mut self, state: State, at: usize, act: impl FnOnce(&mut Self, u32)) {
        let ids: Vec<u32> =
            self.permits.iter().filter(|permit| permit.state == state).map(|permit| permit.id).collect();
        if !ids.is_empty() {
            act(self, ids[at % ids.len()]);
        }
    }

    /// The pools whose close has begun, has not, or both.
    fn with_pool(&mut self, at: usize, closing: Option<bool>, act: impl FnOnce(&mut Self, usize)) {
        let wanted = |pool: &PoolLease| closing.is_none_or(|closing| pool.closing == closing);
        let pools: Vec<usize> = (0..self.pools.len()).filter(|&pool| wanted(&self.pools[pool])).collect();
        if !pools.is_empty() {
            act(self, pools[at % pools.len()]);
        }
    }

    /// Ends a command: what it asked for is what the ledger must ask for.
    fn call(&mut self, command: Command, reply: Reply) {
        self.note_who_is_quiet();
        let mut expected = std::mem::take(&mut self.expected);
        expected.reply = reply;
        self.calls.push(Call { command, expected });
    }

    fn next_order(&mut self) -> u64 {
        self.order += 1;
        self.order
    }

    fn next_id(&mut self) -> u32 {
        self.ids += 1;
        self.ids
    }

    // What is known of permits: all of it by counting.

    fn at(&self, id: u32) -> usize {
        self.permits.iter().position(|permit| permit.id == id).expect("a permit that exists")
    }

    pub(crate) fn permit(&self, id: u32) -> &Permit {
        &self.permits[self.at(id)]
    }

    fn permit_mut(&mut self, id: u32) -> &mut Permit {
        let at = self.at(id);
        &mut self.permits[at]
    }

    fn enter(&mut self, id: u32, state: State) {
        let (since, order) = (self.now, self.next_order());
        let permit = self.permit_mut(id);
        (permit.state, permit.since, permit.order) = (state, since, order);
    }

    fn count(&self, wanted: impl Fn(&Permit) -> bool) -> u32 {
        self.permits.iter().filter(|permit| wanted(permit)).count() as u32
    }

    fn all_of(&self, tenant: usize) -> u32 {
        self.count(|permit| permit.tenant == tenant)
    }

    fn all_on(&self, server: usize) -> u32 {
        self.count(|permit| permit.server == server)
    }

    /// Those that will serve its line; what is on a server that the tenant has left will not.
    fn openings_of(&self, tenant: usize) -> u32 {
        self.count(|permit| permit.tenant == tenant && permit.state == State::Opening && self.is_at_home(permit))
    }

    fn recyclings_of(&self, tenant: usize) -> u32 {
        self.count(|permit| permit.tenant == tenant && permit.state == State::Recycling && self.is_at_home(permit))
    }

    fn is_at_home(&self, permit: &Permit) -> bool {
        permit.server == self.server_of(permit.tenant)
    }

    fn promised_to(&self, tenant: usize) -> u32 {
        self.count(|permit| permit.is_promised_to(tenant))
    }

    /// The idle connections of a tenant, the one that was used last at the end.
    fn idle_of(&self, tenant: usize) -> Vec<u32> {
        let mut idle = self.in_order(|permit| permit.tenant == tenant && permit.state == State::Idle);
        idle.sort_by_key(|&idle| self.permit(idle).used_at);
        idle
    }

    /// Idle connections that may be victims, of background or of foreground work, the least recently used first.
    fn evictable(&self, background: bool) -> Vec<u32> {
        let idle = |permit: &Permit| permit.state == State::Idle && !permit.pinned && permit.background == background;
        let mut idle = self.in_order(idle);
        idle.sort_by_key(|&idle| self.permit(idle).used_order);
        idle
    }

    /// What counts against the share of background work (rule 7).
    pub(crate) fn charged(&self) -> u32 {
        self.count(|permit| permit.background)
    }

    fn has_share(&self) -> bool {
        let promised = |permit: &Permit| {
            matches!(permit.state, State::Closing { claim: Claim::Promised { background: true, .. }, .. })
        };
        self.charged() + self.count(promised) < self.world.background_share()
    }

    /// Permits in the order of their places.
    fn by_place(&self, wanted: impl Fn(&Permit) -> bool) -> Vec<u32> {
        let mut found: Vec<&Permit> = self.permits.iter().filter(|permit| wanted(permit)).collect();
        found.sort_by_key(|permit| permit.place);
        found.into_iter().map(|permit| permit.id).collect()
    }

    /// Permits in the order in which they entered their state.
    fn in_order(&self, wanted: impl Fn(&Permit) -> bool) -> Vec<u32> {
        let mut found: Vec<&Permit> = self.permits.iter().filter(|permit| wanted(permit)).collect();
        found.sort_by_key(|permit| permit.order);
        found.into_iter().map(|permit| permit.id).collect()
    }

    // What is known of tenants.

    fn tenant(&self, tenant: usize) -> &Tenant {
        self.tenants[tenant].as_ref().expect("a tenant that is known")
    }

    fn tenant_mut(&mut self, tenant: usize) -> &mut Tenant {
        self.tenants[tenant].as_mut().expect("a tenant that is known")
    }

    fn reserve(&self, tenant: usize) -> u32 {
        self.world.tenants[tenant].reserve
    }

    /// What a tenant's reserve still lacks, which is kept free for it.
    fn lacks(&self, tenant: usize) -> u32 {
        self.reserve(tenant).saturating_sub(self.all_of(tenant))
    }

    /// The waiters in a tenant's line, first come first, background work behind all others.
    fn line(&self, tenant: usize) -> impl Iterator<Item = &Waiter> {
        let waits = move |waiter: &&Waiter| waiter.tenant == tenant && waiter.answer.is_none();
        let of_kind = move |background: bool| {
            self.waiters.iter().filter(waits).filter(move |waiter| waiter.background == background)
        };
        of_kind(false).chain(of_kind(true))
    }

    fn line_len(&self, tenant: usize) -> u32 {
        self.line(tenant).count() as u32
    }

    fn waiter(&self, id: u32) -> &Waiter {
        self.waiters.iter().find(|waiter| waiter.id == id).expect("a waiter that exists")
    }

    fn waiter_mut(&mut self, id: u32) -> &mut Waiter {
        self.waiters.iter_mut().find(|waiter| waiter.id == id).expect("a waiter that exists")
    }

    pub(crate) fn waiting(&self) -> usize {
        self.waiters.iter().filter(|waiter| waiter.answer.is_none()).count()
    }

    pub(crate) fn waiting_of(&self, tenant: usize) -> usize {
        self.line(tenant).count()
    }

    pub(crate) fn is_known(&self, tenant: usize) -> bool {
        self.tenants[tenant].is_some()
    }

    pub(crate) fn mode(&self, tenant: usize) -> Option<Mode> {
        self.tenants[tenant].as_ref().map(|tenant| tenant.mode)
    }

    pub(crate) fn is_draining(&self, tenant: usize) -> bool {
        matches!(self.mode(tenant), Some(Mode::Draining | Mode::Dropping))
    }

    /// Those whose database is being dropped.
    fn dropping(&self) -> Vec<usize> {
        (0..TENANTS).filter(|&tenant| self.tenants[tenant].as_ref().is_some_and(|tenant| tenant.drops > 0)).collect()
    }

    pub(crate) fn server_of(&self, tenant: usize) -> usize {
        self.tenant(tenant).server
    }

    pub(crate) fn epoch(&self, server: usize) -> u32 {
        self.servers[server].epoch
    }

    /// Takes a waiter out of its line with an answer. One that has looked is woken.
    fn answer(&mut self, waiter: u32, answer: Answer) {
        let waited = self.now - self.waiter(waiter).since;
        self.events.waited += waited;
        let order = self.next_order();
        let entry = self.waiter_mut(waiter);
        let (tenant, polled) = (entry.tenant, entry.polled);
        (entry.answer, entry.answered) = (Some(answer), order);
        if polled {
            self.expected.woken.push(waiter);
        }
        self.left_the_line(tenant);
    }

    /// Somebody has left it.
    fn left_the_line(&mut self, tenant: usize) {
        if self.line_len(tenant) == 0 {
            let entry = self.tenant_mut(tenant);
            entry.lateness = 0;
        }
        self.withdraw_promises();
    }
}
