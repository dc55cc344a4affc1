//! [`Cross`]: one fault met by a connection at one moment, from calm to recovery, and what must hold whatever the driver.

use std::fmt;
use std::marker::PhantomData;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use tenantry_core::{Lease, PoolFactory, TenantPools, TenantStats};
use tokio::sync::{Mutex, oneshot};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout};

use super::bystanders::{Bystanders, ON_EACH, Seen};
use super::gate::{GATED, Gate};
use super::visit::{FAILED, GAVE_UP, HANGING, Outcome, SERVED, acquire, visit};
use super::{CHEAP, Driver, FAR, Fault, Login, Logins, Moment, NEAR, PASSWORD, ROLE, Trouble, VICTIM};
use crate::proxy::{Direction, Flow, Proxy};
use crate::servers::{PostgresError, PrivatePostgres, Role, Strangers};

const PER_TENANT: u32 = 3;
const BUDGET: u32 = (2 * ON_EACH + 1) * PER_TENANT;
const ON_NEAR: u32 = (ON_EACH + 1) * PER_TENANT;

/// The near server's `max_connections`, 3 of them for superusers: few, as strangers have to fill it.
const SERVER_MAX: u32 = ON_NEAR + 6;

/// Who takes every place of the near server.
const STRANGER: &str = "stranger";

/// How long a connection may take to be cleaned, and to be closed.
const SHORT: Duration = Duration::from_millis(300);

/// How long something may take that is not up to the one who waits, on a busy machine.
const LONG: Duration = Duration::from_secs(60);

/// Two servers and a proxy before one of them: the far one is always well, the near one and the proxy have the faults.
pub struct Cross<D> {
    near: Arc<Mutex<PrivatePostgres>>,
    far: PrivatePostgres,
    proxy: Proxy,
    logins: Logins,
    seen: Seen,
    driver: PhantomData<fn() -> D>,
}

/// What came of one fault at one moment. Its `Display` is a line of a table.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Crossing {
    /// What happened.
    pub fault: Fault,
    /// What the connection did then.
    pub moment: Moment,
    /// What came of that use: `served`, `closed`, `query failed`, `gave up` (after a while without an answer), or the error
    /// of the acquire, such as `Connect(Unreachable)`.
    pub outcome: String,
    /// What the next caller met while the fault lasted.
    pub next: String,
    /// What callers met after it, until one was served.
    pub recovery: Vec<String>,
    /// Connects that were begun for that, those that failed included.
    pub connects: u64,
}

impl Crossing {
    /// Users who met a connection that was dead, but for the one who used it when that happened.
    #[must_use]
    pub fn met_dead(&self) -> usize {
        let first = Some(&self.outcome).filter(|_| self.moment != Moment::InUse);
        let met = first.into_iter().chain([&self.next]).chain(&self.recovery);
        met.filter(|word| [FAILED, GAVE_UP].contains(&word.as_str())).count()
    }
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fault, moment, outcome, next, recovery, connects } = self;
        let recovery = recovery.join(", ");
        write!(f, "{fault:20} | {moment:9} | {outcome:20} | {next:25} | {recovery} ({connects} connects)")
    }
}

/// What the victim's connection is at when the fault begins.
enum Use {
    Running { task: JoinHandle<Outcome>, begun: oneshot::Sender<()> },
    Resting,
    Closing,
}

impl<D: Driver> Cross<D> {
    /// Starts the servers and makes the databases.
    ///
    /// # Errors
    /// When a server cannot be had.
    ///
    /// # Cancel safety
    /// Dropping the future ends what was started.
    pub async fn new() -> Result<Self, Trouble> {
        let role = || Role::new(ROLE, PASSWORD);
        let server = || PrivatePostgres::builder().setting("password_encryption", CHEAP).role(role());
        // A server that is told to stop waits that long for who has just come and said nothing yet.
        let near = server().max_connections(SERVER_MAX).setting("authentication_timeout", "5s");
        let near = near.role(Role::new(STRANGER, PASSWORD)).start()?;
        let far = server().start()?;
        near.run("postgres", &format!("CREATE DATABASE {VICTIM}")).await?;
        for number in 0..ON_EACH {
            near.run("postgres", &format!("CREATE DATABASE \"{NEAR}-{number}\"")).await?;
            far.run("postgres", &format!("CREATE DATABASE \"{FAR}-{number}\"")).await?;
        }
        let proxy = Proxy::start((Ipv4Addr::LOCALHOST, near.port()).into()).await?;
        let (near_port, far_port, proxy_port) = (near.port(), far.port(), proxy.address().port());
        let logins = Logins(Arc::new(move |tenant| {
            let port = match tenant.as_str() {
                VICTIM => proxy_port,
                name if name.starts_with(FAR) => far_port,
                _ => near_port,
            };
            Login { port, database: tenant.as_str().to_owned() }
        }));
        Ok(Self { near: Arc::new(Mutex::new(near)), far, proxy, logins, seen: Seen::default(), driver: PhantomData })
    }

    /// Makes a crossing for each line, compares what came of it and returns that as a table. A line is a moment, what comes
    /// of that use and what the next caller meets (words as in [`Crossing`], with `|` between those that may be, as chance
    /// has it), and how many users at most meet a connection that is dead, the one who used it when that happened not
    /// counted.
    ///
    /// # Errors
    /// As [`make`](Self::make).
    ///
    /// # Panics
    /// As [`make`](Self::make), and when something else came of it.
    ///
    /// # Cancel safety
    /// As [`make`](Self::make).
    pub async fn assert(&mut self, fault: Fault, lines: &[(Moment, &str, &str, usize)]) -> Result<String, Trouble> {
        let (mut table, mut wrong) = (String::new(), Vec::new());
        for &(moment, outcome, next, most_dead) in lines {
            let made = self.make(fault, moment).await?;
            table.push_str(&format!("{made}\n"));
            let is_among = |word: &str, expected: &str| expected.split('|').any(|expected| expected == word);
            let as_expected = is_among(&made.outcome, outcome)
                && is_among(&made.next, next)
                && made.met_dead() <= most_dead
                && made.connects <= u64::from(PER_TENANT);
            if !as_expected {
                wrong.push(format!("expected {outcome}, then {next}, at most {most_dead} dead: {made}"));
            }
        }
        table.push_str(&format!("{fault}: {}", self.bystanders()));
        assert!(wrong.is_empty(), "{table}\n{}", wrong.join("\n"));
        Ok(table)
    }

    /// Has the fault happen to a connection at that moment, under load of other tenants, and lets it pass.
    ///
    /// What must hold for every driver is asserted here: every call ends by itself, the ledger's invariants hold after each
    /// step, other tenants notice nothing (those on the same server if the fault is not the whole server's), the victim
    /// is served again soon after the end, then the whole budget can be had, and at last nothing is open on either side.
    ///
    /// # Errors
    /// When a server does not do as it is told.
    ///
    /// # Panics
    /// When one of those does not hold.
    ///
    /// # Cancel safety
    /// The servers are of no use after it was dropped half-way.
    pub async fn make(&mut self, fault: Fault, moment: Moment) -> Result<Crossing, Trouble> {
        let pools = self.pools(fault, moment);
        let bystanders = Bystanders::start::<D>(&pools, fault);
        bystanders.calm().await;
        let (user, mut gate) = self.prepare(&pools, fault, moment).await?;
        let strangers = self.begin(fault, gate.as_ref()).await?;
        if fault != Fault::Freeze {
            open(&mut gate).await;
        }
        let outcome = Self::end_of(user, &pools, fault.patience()).await?;
        pools.check();
        let next = visit::<D>(&pools, VICTIM, fault.patience()).await;
        pools.check();
        self.end(fault, strangers).await?;
        open(&mut gate).await;
        let connects = |stats: &TenantStats| stats.totals.connects + stats.totals.connect_failures;
        let before = victim(&pools, connects);
        let recovery = Self::recover(&pools, fault, moment).await;
        let connects = victim(&pools, connects) - before;
        let seen = bystanders.stop().await?;
        let crossing = Crossing { fault, moment, outcome: outcome.word, next: next.word, recovery, connects };
        audit(&crossing, &seen);
        self.seen.add(seen);
        whole_budget(&pools).await;
        self.clear_up(pools).await?;
        Ok(crossing)
    }

    /// What the other tenants noticed of all the crossings that were made, as a line: what 99 of 100 of their visits took
    /// at most, before the faults and during them. On a busy machine such times tell little; failures are counted.
    pub fn bystanders(&mut self) -> String {
        self.seen.line()
    }

    fn pools(&self, fault: Fault, moment: Moment) -> TenantPools<D::Factory> {
        let (connect, acquire) = fault.timeouts();
        let idle = if moment == Moment::Idle { Duration::ZERO } else { Duration::from_secs(3600) };
        let builder = TenantPools::builder(D::factory(self.logins.clone()))
            .max_connections(BUDGET)
            .max_connections_on(NEAR, ON_NEAR)
            .max_connections_per_tenant(PER_TENANT)
            .connect_timeout(connect)
            .acquire_timeout(acquire)
            .recycle_timeout(SHORT)
            .close_timeout(SHORT)
            .validate_after_idle(idle);
        builder.build().unwrap_or_else(|error| panic!("{error}"))
    }

    /// Brings the victim's connection to where the fault is to meet it.
    async fn prepare(
        &self,
        pools: &TenantPools<D::Factory>,
        fault: Fault,
        moment: Moment,
    ) -> Result<(Use, Option<Gate>), Trouble> {
        let near = self.near.lock().await;
        let (begun, fault_begun) = oneshot::channel();
        match moment {
            Moment::Opening => {
                let gate = if fault == Fault::Terminate { Some(Gate::for_logins(&near).await?) } else { None };
                let segments = self.proxy.traffic().client_segments;
                if gate.is_none() {
                    self.proxy.set_flow(Direction::ToServer, Flow::BlackHole);
                }
                let task = {
                    let pools = pools.clone();
                    tokio::spawn(async move { visit::<D>(&pools, VICTIM, fault.patience()).await })
                };
                match &gate {
                    Some(gate) => gate.reached().await?,
                    None => until(|| self.proxy.traffic().client_segments > segments).await,
                }
                assert_eq!(victim(pools, |stats| stats.opening), 1, "it is being opened");
                Ok((Use::Running { task, begun }, gate))
            }
            Moment::JustUsed | Moment::Idle => {
                let leases = all_of_victim(pools).await;
                drop(leases);
                Ok((Use::Resting, None))
            }
            Moment::InUse => {
                let gate = Gate::for_queries(&near).await?;
                let lease = lease(pools).await;
                let task = tokio::spawn(gated_query::<D>(lease, fault_begun, fault.patience()));
                gate.reached().await?;
                Ok((Use::Running { task, begun }, Some(gate)))
            }
            Moment::Closing => {
                let gate = Gate::for_queries(&near).await?;
                let mut lease = lease(pools).await;
                {
                    let mut query = pin!(D::run(&mut lease, GATED));
                    tokio::select! {
                        ended = &mut query => panic!("a query that is held ended: {ended:?}"),
                        reached = gate.reached() => reached?,
                    }
                }
                // Neither a goodbye nor a request to cancel the query comes through.
                self.proxy.set_flow(Direction::ToServer, Flow::BlackHole);
                lease.discard();
                assert_eq!(victim(pools, |stats| stats.closing), 1, "it is being closed");
                Ok((Use::Closing, Some(gate)))
            }
        }
    }

    async fn begin(&self, fault: Fault, gate: Option<&Gate>) -> Result<Option<Strangers>, Trouble> {
        let mut strangers = None;
        match fault {
            Fault::Delay(_) | Fault::BlackHole(_) => {}
            Fault::Reset(direction) => {
                let (before, open) = (self.proxy.traffic().resets, self.proxy.open());
                self.proxy.reset(direction);
                until(|| self.proxy.traffic().resets >= before + open).await;
            }
            Fault::HalfClose(direction) => {
                let (before, open) = (self.proxy.traffic().half_closes, self.proxy.open());
                self.proxy.half_close(direction);
                until(|| self.proxy.traffic().half_closes >= before + open).await;
            }
            Fault::Terminate => {
                match gate {
                    Some(gate) => gate.end_who_waits().await?,
                    None => drop(self.near.lock().await.end_sessions(ROLE, VICTIM).await?),
                };
            }
            Fault::Freeze => self.at_server(PrivatePostgres::freeze).await?,
            Fault::Crash => self.at_server(PrivatePostgres::stop_immediate).await?,
            Fault::Full => strangers = Some(self.near.lock().await.fill(STRANGER, PASSWORD).await?),
            Fault::DropDatabase => self.near.lock().await.drop_database(VICTIM).await?,
            Fault::NewPassword => self.near.lock().await.set_password(ROLE, "mark3r-another").await?,
        }
        // Last: what is held by the network meets the fault and not the moment before it.
        let (to_server, to_client) = fault.flows();
        self.proxy.set_flow(Direction::ToServer, to_server);
        self.proxy.set_flow(Direction::ToClient, to_client);
        Ok(strangers)
    }

    async fn end(&self, fault: Fault, strangers: Option<Strangers>) -> Result<(), Trouble> {
        self.proxy.set_flows(Flow::Pass);
        if let Some(strangers) = strangers {
            drop(strangers);
            self.near.lock().await.until(|now| now.of_role(STRANGER) == 0).await?;
        }
        match fault {
            Fault::Freeze => self.at_server(PrivatePostgres::thaw).await?,
            Fault::Crash => self.at_server(PrivatePostgres::start).await?,
            Fault::DropDatabase => {
                self.near.lock().await.run("postgres", &format!("CREATE DATABASE {VICTIM}")).await?;
            }
            Fault::NewPassword => self.near.lock().await.set_password(ROLE, PASSWORD).await?,
            _ => {}
        }
        Ok(())
    }

    /// Does something that blocks where it holds nobody up.
    async fn at_server(&self, act: fn(&mut PrivatePostgres) -> Result<(), PostgresError>) -> Result<(), Trouble> {
        let mut near = Arc::clone(&self.near).lock_owned().await;
        Ok(tokio::task::spawn_blocking(move || act(&mut near)).await??)
    }

    /// What came of the use that met the fault.
    async fn end_of(user: Use, pools: &TenantPools<D::Factory>, patience: Duration) -> Result<Outcome, Trouble> {
        match user {
            Use::Running { task, begun } => {
                // A task that has ended does not listen any more.
                let _ = begun.send(());
                Ok(task.await?)
            }
            Use::Resting => Ok(visit::<D>(pools, VICTIM, patience).await),
            Use::Closing => {
                until(|| victim(pools, |stats| stats.closing) == 0).await;
                Ok("closed".into())
            }
        }
    }

    /// Visits until one is served; what each met. In time, not in visits: while a connect is under way to find out whether
    /// the server is back, others are told to come again in 10 ms, and on a busy machine it may take many of those.
    async fn recover(pools: &TenantPools<D::Factory>, fault: Fault, moment: Moment) -> Vec<String> {
        let (mut met, start) = (Vec::new(), Instant::now());
        while met.last().is_none_or(|word| word != SERVED) {
            assert!(start.elapsed() < LONG, "{fault}, {moment}: not served again: {met:?}");
            let outcome = visit::<D>(pools, VICTIM, fault.patience()).await;
            pools.check();
            if outcome.word != SERVED {
                sleep(outcome.retry_after.unwrap_or_default()).await;
            }
            met.push(outcome.word);
        }
        met
    }

    /// Closes everything; neither the manager nor a server may have anything left.
    async fn clear_up(&self, pools: TenantPools<D::Factory>) -> Result<(), Trouble> {
        assert!(pools.close_within(LONG).await.is_complete(), "a permit is lost: {:?}", pools.stats());
        pools.check();
        assert_eq!(pools.stats().open(), 0);
        drop(pools);
        // Where a network broke one side only, the other one waits for ever.
        self.proxy.reset_all();
        timeout(LONG, self.proxy.until_open(0)).await?;
        let near = self.near.lock().await;
        for server in [&*near, &self.far] {
            timeout(LONG, server.until(|now| now.of_role(ROLE) == 0)).await??;
        }
        Ok(())
    }
}

impl<D> fmt::Debug for Cross<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cross").field("far", &self.far).field("proxy", &self.proxy).finish_non_exhaustive()
    }
}

/// What must hold, whatever the driver.
fn audit(crossing: &Crossing, seen: &Seen) {
    let Crossing { fault, outcome, next, recovery, .. } = crossing;
    let mut met = [outcome, next].into_iter().chain(recovery);
    assert!(met.all(|word| word != HANGING), "an acquire has no end: {crossing}");
    let (near, far) = (&seen.near.failures, &seen.far.failures);
    assert!(far.is_empty(), "tenants of another server notice: {far:?}: {crossing}");
    let may_notice = fault.hits_the_whole_server();
    assert!(may_notice || near.is_empty(), "other tenants of the server notice: {near:?}: {crossing}");
}

async fn open(gate: &mut Option<Gate>) {
    if let Some(gate) = gate.take() {
        gate.open().await;
    }
}

/// Runs a query that is held, and leaves where there is no answer for long after the fault began.
async fn gated_query<D: Driver>(
    mut lease: Lease<D::Factory>,
    begun: oneshot::Receiver<()>,
    patience: Duration,
) -> Outcome {
    let patience = async {
        // A test that failed does not say so.
        let _ = begun.await;
        sleep(patience).await;
    };
    tokio::select! {
        answer = D::run(&mut lease, GATED) => match answer {
            Ok(()) => SERVED.into(),
            Err(_) => FAILED.into(),
        },
        () = patience => GAVE_UP.into(),
    }
}

async fn lease<F: PoolFactory>(pools: &TenantPools<F>) -> Lease<F> {
    patient(pools, VICTIM).await.unwrap_or_else(|met| panic!("all is well, and the victim gets {met:?}"))
}

/// A lease after some tries: on a busy machine a connect may take too long, and a tenant that failed may have to rest.
async fn patient<F: PoolFactory>(pools: &TenantPools<F>, tenant: &str) -> Result<Lease<F>, Vec<String>> {
    let mut met = Vec::new();
    let trying = async {
        loop {
            match acquire(pools, tenant).await {
                Ok(lease) => return lease,
                Err(outcome) => {
                    sleep(outcome.retry_after.unwrap_or_default()).await;
                    met.push(outcome.word);
                }
            }
        }
    };
    timeout(LONG, trying).await.map_err(|_| met)
}

/// A count of the victim's; nothing is counted of one that is not known yet.
fn victim<F: PoolFactory>(pools: &TenantPools<F>, count: impl Fn(&TenantStats) -> u64) -> u64 {
    pools.tenant_stats(VICTIM).as_ref().map_or(0, count)
}

async fn all_of_victim<F: PoolFactory>(pools: &TenantPools<F>) -> Vec<Lease<F>> {
    let mut leases = Vec::new();
    for _ in 0..PER_TENANT {
        leases.push(lease(pools).await);
    }
    leases
}

/// Every permit can be had at the same time: none was lost.
async fn whole_budget<F: PoolFactory>(pools: &TenantPools<F>) {
    let bystanders =
        [NEAR, FAR].into_iter().flat_map(|side| (0..ON_EACH).map(move |number| format!("{side}-{number}")));
    let mut tasks = JoinSet::new();
    for tenant in bystanders.chain([VICTIM.to_owned()]).flat_map(|tenant| vec![tenant; PER_TENANT as usize]) {
        let pools = pools.clone();
        tasks.spawn(async move {
            let lease = patient(&pools, &tenant).await;
            lease.unwrap_or_else(|met| panic!("a permit is lost: {tenant} gets {met:?}: {:?}", pools.stats()))
        });
    }
    let leases = tasks.join_all().await;
    assert_eq!((leases.len(), pools.stats().in_use), (BUDGET as usize, u64::from(BUDGET)));
    pools.check();
}

/// Resolves when it is so. Nothing tells, so it is looked at again and again.
async fn until(is_so: impl Fn() -> bool) {
    let looking = async {
        while !is_so() {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(LONG, looking).await.unwrap_or_else(|_| panic!("still not so after {LONG:?}"));
}
