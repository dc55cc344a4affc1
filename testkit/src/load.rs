//! A crowd on a real server under a budget, counted by the server: [`run`]. Many tasks at many databases, with callers that
//! go away, queries that are cut off and transactions that nobody ends; what is found wrong is a list of words.
//!
//! A driver takes part by a [`Crowd`]: how to log in, what its users do with a lease, and what its server says of it.

#[cfg(all(unix, feature = "mariadb"))]
mod mariadb;
#[cfg(all(unix, feature = "postgres"))]
mod postgres;

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tenantry_core::{Lease, PoolFactory, Stats, TenantPools};
use tokio::task::JoinSet;

use crate::conformance::Trouble;

#[cfg(all(unix, feature = "mariadb"))]
pub use mariadb::{Client, MariaDbView, mariadb_server};
#[cfg(all(unix, feature = "postgres"))]
pub use postgres::{PostgresView, postgres_server};

/// How many databases there are.
#[cfg(all(unix, any(feature = "mariadb", feature = "postgres")))]
const TENANTS: usize = 50;

/// How many tasks there are.
pub const TASKS: u64 = 200;

/// The connections that a [`Crowd`]'s limited user may have, and its budget.
pub const PLACES: u32 = 20;

/// The name that a load logs in with: of the user with a limit of [`PLACES`], or of the one without.
#[must_use]
pub fn user(limited: bool) -> &'static str {
    if limited { "limited" } else { "free" }
}

/// The password of both.
#[must_use]
pub fn password() -> &'static str {
    "mark3r-role"
}

/// How often each task asks where less than 4,000 acquires in all show it as well.
const FEW_ROUNDS: u32 = 5;

/// How long the server is asked to let go of the last ones. Generous, as a machine that runs tests is busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// The pause between an answer of the server and the next question.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Who loads, and which server. Nobody else may log in as its user while a load runs.
pub trait Crowd: Send + Sync + 'static {
    /// The driver.
    type Factory: PoolFactory;
    /// The server's own view, over a connection that is not the user's.
    type View: ServerView;

    /// The driver and the database, as the line names them that a load prints.
    fn backend(&self) -> &'static str;

    /// A factory that logs in as the user whom the server lets in [`PLACES`] times at once, or as one without a limit.
    fn factory(&self, limited: bool) -> Self::Factory;

    /// The databases, which are there; more than [`PLACES`].
    fn tenants(&self) -> &[String];

    /// Begins to look at that user.
    fn view(&self, limited: bool) -> impl Future<Output = Result<Self::View, Trouble>>;

    /// Uses a connection, leaves it in one of many ways, and says if it was another tenant's, or if there was an error
    /// that has no reason.
    fn visit(
        &self,
        lease: Lease<Self::Factory>,
        random: &mut fastrand::Rng,
    ) -> impl Future<Output = Result<(), String>> + Send;

    /// What is done in place of an acquire, if `random` says so. Default: nothing.
    fn instead(
        &self,
        _pools: &TenantPools<Self::Factory>,
        _tenant: &str,
        _random: &mut fastrand::Rng,
    ) -> impl Future<Output = Option<Result<(), String>>> + Send {
        std::future::ready(None)
    }

    /// Whether all connects are the factory's own, so that it knows as many as the server does. Default: yes. What a
    /// driver's own pool is told, it keeps to itself.
    fn factory_sees_all(&self) -> bool {
        true
    }
}

/// What the server says of one user.
pub trait ServerView {
    /// Sessions now.
    fn sessions(&mut self) -> impl Future<Output = Result<u64, Trouble>>;

    /// Connects since the view began, the refused ones among them, and those.
    fn connects(&mut self) -> impl Future<Output = Result<(u64, u64), Trouble>>;
}

/// How a crowd loads.
#[derive(Debug, Clone, Copy)]
pub struct Plan {
    /// The pools' budget.
    pub budget: u32,
    /// As the user with a limit of [`PLACES`], or as the one without.
    pub limited: bool,
    /// How often each task asks.
    pub rounds: u32,
}

impl Default for Plan {
    /// As many as the server lets in; 4,000 acquires.
    fn default() -> Self {
        Self { budget: PLACES, limited: true, rounds: 20 }
    }
}

/// What a load left behind. Displayed, it is one line that begins with the backend.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome {
    backend: &'static str,
    plan: Plan,
    factory_sees_all: bool,
    /// How often a connection was asked for.
    pub acquires: u64,
    /// Errors that a caller saw.
    pub surfaced: Vec<String>,
    /// How often the server was asked.
    pub samples: u64,
    /// The most sessions at once, as the server saw them.
    pub most: u64,
    /// At the end, when nothing is out any more.
    pub stats: Stats,
    /// Connects as the server counts them, the refused ones among them.
    pub connects: u64,
    /// Those that the server says it refused.
    pub refused: u64,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { backend, plan, acquires, samples, most, stats, connects, refused, .. } = self;
        let limit = if plan.limited { PLACES.to_string() } else { "none".to_owned() };
        let (budget, told) = (plan.budget, stats.totals.server_full);
        write!(
            f,
            "{backend}: limit {limit}, budget {budget}, {acquires} acquires, at most {most} on the server in {samples} \
             samples; refusals: {told} seen by the factory, {refused} by the server; {connects} connects"
        )
    }
}

impl Outcome {
    /// What is wrong, in words, where so many connections are allowed.
    #[must_use]
    pub fn faults(&self, allowed: u32) -> Vec<String> {
        let mut faults = Vec::new();
        let mut expect = |holds: bool, fault: String| {
            if !holds {
                faults.push(fault);
            }
        };
        let Self { most, refused, connects, samples, stats, .. } = self;
        let told = stats.totals.server_full;
        expect(*samples > 10, format!("only {samples} samples"));
        expect(*most > u64::from(allowed) / 2, format!("no load: {most} connections at most"));
        expect(*most <= u64::from(allowed), format!("{most} connections at once, {allowed} allowed"));
        expect(self.surfaced.is_empty(), format!("callers saw {:?}", self.surfaced));
        expect(refused * 100 <= *connects, format!("{refused} of {connects} connects refused"));
        if self.factory_sees_all {
            let saw = (stats.totals.connects + stats.totals.connect_failures, told);
            let server = (*connects, *refused);
            expect(saw == server, format!("connects and refusals: {saw:?} by the factory, {server:?} by the server"));
        }
        expect(told <= *refused, format!("{told} refusals, {refused} of them known to the server"));
        expect(stats.open() == 0, format!("{} permits did not come back", stats.open()));
        faults
    }
}

/// Runs a load, and says what it left behind.
///
/// # Panics
/// When a task panics, the server stops answering, or holds on to connections for a minute after the pools are closed.
///
/// # Cancel safety
/// Dropping it leaves the tasks running until they are done.
pub async fn run<C: Crowd>(crowd: &Arc<C>, plan: Plan) -> Outcome {
    let pools = TenantPools::builder(crowd.factory(plan.limited))
        .max_connections(plan.budget)
        // Nobody is to be refused because the machine is slow.
        .acquire_timeout(Duration::from_secs(600))
        .connect_timeout(Duration::from_secs(60))
        .recycle_timeout(Duration::from_secs(60))
        .build()
        .expect("good settings");
    let mut view = crowd.view(plan.limited).await.expect("the server shows itself");
    let (mut most, mut samples) = (0, 0);

    let mut tasks = JoinSet::new();
    for seed in 0..TASKS {
        tasks.spawn(task(Arc::clone(crowd), pools.clone(), seed, plan.rounds));
    }
    let mut surfaced = Vec::new();
    while !tasks.is_empty() {
        most = view.sessions().await.expect("the server answers").max(most);
        samples += 1;
        if let Ok(Some(saw)) = tokio::time::timeout(LOOK_EVERY, tasks.join_next()).await {
            surfaced.extend(saw.expect("no panic"));
        }
    }
    // Every permit can be had again, all of them at once.
    let places = if plan.limited { PLACES.min(plan.budget) } else { plan.budget };
    let mut all = Vec::new();
    for tenant in &crowd.tenants()[..places as usize] {
        match pools.acquire(tenant).await {
            Ok(lease) => all.push(lease),
            Err(error) => surfaced.push(error.to_string()),
        }
    }
    most = view.sessions().await.expect("the server answers").max(most);
    drop(all);
    pools.close().await;
    let gone = async {
        while view.sessions().await.expect("the server answers") > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.expect("the server lets go of the last ones");
    let (connects, refused) = view.connects().await.expect("the server answers");
    Outcome {
        backend: crowd.backend(),
        plan,
        factory_sees_all: crowd.factory_sees_all(),
        acquires: TASKS * u64::from(plan.rounds),
        surfaced,
        samples,
        most,
        stats: pools.stats(),
        connects,
        refused,
    }
}

/// One user after another, as the seed will have it; the errors that they saw.
async fn task<C: Crowd>(crowd: Arc<C>, pools: TenantPools<C::Factory>, seed: u64, rounds: u32) -> Vec<String> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut surfaced = Vec::new();
    for _ in 0..rounds {
        let tenant = &crowd.tenants()[random.usize(..crowd.tenants().len())];
        if let Some(done) = crowd.instead(&pools, tenant, &mut random).await {
            surfaced.extend(done.err());
            continue;
        }
        let acquire = pools.acquire(tenant);
        let lease = if random.u32(..8) == 0 {
            // The caller goes away, at any moment of it.
            let patience = Duration::from_micros(random.u64(..20_000));
            let Ok(lease) = tokio::time::timeout(patience, acquire).await else { continue };
            lease
        } else {
            acquire.await
        };
        match lease {
            Ok(lease) => surfaced.extend(crowd.visit(lease, &mut random).await.err()),
            Err(error) => surfaced.push(error.to_string()),
        }
    }
    surfaced
}

/// That the server counts no more than the budget, and refuses next to nobody where it has just as many places. Prints
/// `hard cap: ` and the outcome at that limit on standard error.
///
/// # Panics
/// When that does not hold, with what is wrong.
///
/// # Cancel safety
/// As [`run`].
pub async fn assert_the_cap_holds<C: Crowd>(crowd: &Arc<C>) {
    let limited = run(crowd, Plan::default()).await;
    eprintln!("hard cap: {limited}");
    assert_eq!(limited.faults(PLACES), [""; 0], "{limited}");
    // What a server refuses does not reach its count, so it is also looked at where it would refuse nothing.
    let free = run(crowd, Plan { limited: false, rounds: FEW_ROUNDS, ..Plan::default() }).await;
    assert_eq!(free.faults(PLACES), [""; 0], "{free}");
}

/// That the checks can fail, by a budget of two more than the server has places: the server refuses, which the factory sees
/// and no caller does, or the samples show that it does not.
///
/// # Panics
/// When that is not found out.
///
/// # Cancel safety
/// As [`run`].
pub async fn assert_a_budget_too_large_is_found_out<C: Crowd>(crowd: &Arc<C>) {
    let limited = run(crowd, Plan { budget: PLACES + 2, limited: true, rounds: FEW_ROUNDS }).await;
    // MariaDB counts a connection to its user's limit no more once it was reset.
    assert!(limited.refused > 0 || limited.most > u64::from(PLACES), "{limited}");
    if limited.factory_sees_all {
        assert_eq!(limited.stats.totals.server_full, limited.refused, "{limited}");
    }
    assert_eq!(limited.surfaced, [""; 0]);
    assert_eq!(limited.stats.open(), 0);

    let free = run(crowd, Plan { budget: PLACES + 2, limited: false, rounds: FEW_ROUNDS }).await;
    let faults = free.faults(PLACES);
    assert!(faults.contains(&format!("{} connections at once, {PLACES} allowed", PLACES + 2)), "{faults:?}");
}
