//! [`stampede`]: many warm tenants when their server comes back.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tenantry_core::{FailureKind, Health, PoolFactory, ServerId, TenantId, TenantPools};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::visit::{FAILED, GAVE_UP, SERVED, visit};
use super::{CHEAP, Driver, Login, Logins, NEAR, PASSWORD, ROLE, Trouble};
use crate::servers::{PrivatePostgres, Role};

/// Connects under way at once, of all tenants together.
const MAX_CONNECTING: u32 = 4;

/// How long it may take until each tenant is served. Generous, as a machine that runs tests is busy.
const LONG: Duration = Duration::from_secs(60);

/// What a tenant hears of a server that is down, at a try and between tries.
const DOWN: &str = "Connect(Unreachable)";
const RESTING: &str = "Unavailable(Unreachable)";

/// What a restart brought about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stampede {
    /// Tenants, each with one idle connection when the server crashed.
    pub tenants: u64,
    /// The most connects that were under way at the same time since then.
    pub connecting: u64,
    /// Connects that succeeded since then.
    pub connects: u64,
    /// Connects that failed since then.
    pub failures: u64,
    /// Visitors who met a connection that was dead.
    pub met_dead: u64,
}

impl fmt::Display for Stampede {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tenants, connecting, connects, failures, met_dead } = self;
        write!(f, "{tenants} warm tenants: {connects} connects and {failures} that failed, ")?;
        write!(f, "at most {connecting} at once; {met_dead} met a dead connection")
    }
}

/// Has the server of so many warm tenants crash and come back, and all of them visited at once: while it is `down`, and so
/// before and after its start, or only after it. At most 4 connects may be under way at once.
///
/// # Errors
/// When the server does not do as it is told.
///
/// # Panics
/// When a tenant is not served again or hears of anything but a server that is down, when more connects are under way at
/// once than were allowed, or when an invariant of the ledger does not hold.
///
/// # Cancel safety
/// Dropping the future ends the server.
pub async fn stampede<D: Driver>(tenants: u32, down: bool) -> Result<Stampede, Trouble> {
    let builder = PrivatePostgres::builder().max_connections(tenants + 10).setting("password_encryption", CHEAP);
    let mut server = builder.role(Role::new(ROLE, PASSWORD)).start()?;
    let names: Vec<String> = (0..tenants).map(|number| format!("{NEAR}-{number}")).collect();
    // One database for all of them: to the manager they are as different as can be, and making fifty takes its time.
    let login = Login { port: server.port(), database: "postgres".to_owned() };
    let factory = D::factory(Logins(Arc::new(move |_| login.clone())));
    let gauge = Arc::new(Gauge::default());
    let pools = TenantPools::builder(Gauged { inner: factory, gauge: Arc::clone(&gauge) })
        .max_connections(tenants)
        .max_connecting(MAX_CONNECTING)
        .acquire_timeout(Duration::from_secs(60))
        .connect_timeout(Duration::from_secs(60))
        .validate_after_idle(Duration::from_secs(3600))
        .build()?;
    for name in &names {
        pools.warm(name, 1).await?;
    }
    let before = pools.stats();
    assert_eq!(before.idle, u64::from(tenants));
    server.stop_immediate()?;
    gauge.forget_most();
    if !down {
        server.start()?;
    }
    let visitors = visitors::<D>(&pools, names);
    if down {
        let mut failing = gauge.failures.subscribe();
        // Everybody has learned that it is down.
        failing.wait_for(|failures| *failures >= u64::from(tenants)).await?;
        server = tokio::task::spawn_blocking(move || server.start().map(|()| server)).await??;
    }
    let met_dead = visitors.join_all().await.into_iter().sum();
    pools.check();
    let after = pools.stats();
    assert!(pools.close_within(Duration::from_secs(60)).await.is_complete());
    server.until(|now| now.of_role(ROLE) == 0).await?;
    let connecting = gauge.most();
    assert!(connecting <= u64::from(MAX_CONNECTING), "{connecting} connects at once of {MAX_CONNECTING}");
    Ok(Stampede {
        tenants: tenants.into(),
        connecting,
        connects: after.totals.connects - before.totals.connects,
        failures: after.totals.connect_failures - before.totals.connect_failures,
        met_dead,
    })
}

/// One for each tenant, who comes again until served; the number of dead connections that each met.
fn visitors<D: Driver>(pools: &TenantPools<Gauged<D::Factory>>, names: Vec<String>) -> JoinSet<u64> {
    let mut visitors = JoinSet::new();
    for name in names {
        let pools = pools.clone();
        visitors.spawn(async move {
            let (mut met_dead, start) = (0, Instant::now());
            while start.elapsed() < LONG {
                let outcome = visit::<GaugedDriver<D>>(&pools, &name, Duration::from_secs(20)).await;
                match outcome.word.as_str() {
                    SERVED => return met_dead,
                    FAILED | GAVE_UP => met_dead += 1,
                    DOWN | RESTING => sleep(outcome.retry_after.unwrap_or_default()).await,
                    other => panic!("{name} met {other} where a server was down"),
                }
            }
            panic!("{name} is not served again: {:?}", pools.stats());
        });
    }
    visitors
}

/// How many connects are under way.
#[derive(Debug, Default)]
struct Gauge {
    now_and_most: watch::Sender<(u64, u64)>,
    failures: watch::Sender<u64>,
}

impl Gauge {
    fn enter(self: &Arc<Self>) -> Connecting {
        self.now_and_most.send_modify(|(now, most)| {
            *now += 1;
            *most = (*most).max(*now);
        });
        Connecting(Arc::clone(self))
    }

    fn most(&self) -> u64 {
        self.now_and_most.borrow().1
    }

    fn forget_most(&self) {
        self.now_and_most.send_modify(|(now, most)| *most = *now);
    }
}

/// One connect under way.
struct Connecting(Arc<Gauge>);

impl Drop for Connecting {
    fn drop(&mut self) {
        self.0.now_and_most.send_modify(|(now, _)| *now -= 1);
    }
}

/// A factory whose connects are counted.
struct Gauged<F> {
    inner: F,
    gauge: Arc<Gauge>,
}

impl<F: PoolFactory> PoolFactory for Gauged<F> {
    type Connection = F::Connection;
    type Error = F::Error;

    fn server(&self, tenant: &TenantId) -> ServerId {
        self.inner.server(tenant)
    }

    async fn connect(&self, tenant: &TenantId) -> Result<F::Connection, F::Error> {
        let _connecting = self.gauge.enter();
        let connected = self.inner.connect(tenant).await;
        if connected.is_err() {
            self.gauge.failures.send_modify(|failures| *failures += 1);
        }
        connected
    }

    fn health(&self, connection: &mut F::Connection) -> Health {
        self.inner.health(connection)
    }

    async fn recycle(&self, connection: &mut F::Connection) -> Result<(), F::Error> {
        self.inner.recycle(connection).await
    }

    async fn close(&self, connection: F::Connection, within: Duration) {
        self.inner.close(connection, within).await;
    }

    fn classify(&self, error: &F::Error) -> FailureKind {
        self.inner.classify(error)
    }
}

/// The driver with that factory.
struct GaugedDriver<D>(std::marker::PhantomData<fn() -> D>);

impl<D: Driver> Driver for GaugedDriver<D> {
    type Factory = Gauged<D::Factory>;

    fn factory(logins: Logins) -> Self::Factory {
        Gauged { inner: D::factory(logins), gauge: Arc::default() }
    }

    async fn run(connection: &mut super::ConnectionOf<D>, sql: &'static str) -> Result<(), Trouble> {
        D::run(connection, sql).await
    }
}
