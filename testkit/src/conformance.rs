//! The conformance suite: proves that a [`PoolFactory`] of yours keeps what the trait promises. Begin with [`Subject`],
//! which you implement for your test, and [`Suite`], which runs the checks; those are in `conformance/`.

mod connections;
mod databases;
mod failures;
mod pools;
mod steps;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tenantry_core::{NativePool, PoolFactory, Provision, TenantId};

use steps::{Guarded, Step};

/// How long one check may take before it fails with "it hangs". Generous, as a machine that runs tests is busy.
pub const CHECK_WITHIN: Duration = Duration::from_secs(120);

/// A connection of the factory under test.
pub type ConnectionOf<S> = <<S as Subject>::Factory as PoolFactory>::Connection;

/// Why a subject cannot give what a check needs. The check then counts as not made, which the report says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotPossible(pub &'static str);

/// Whatever went wrong in a test's own helper; it ends up in the report.
pub type Trouble = Box<dyn std::error::Error + Send + Sync>;

/// A factory whose server lets in a small number of connections.
#[derive(Debug)]
pub struct Limited<F> {
    /// The factory.
    pub factory: F,
    /// A tenant with a database there.
    pub tenant: TenantId,
    /// How many connections the server lets in, for all of its tenants together; at least 1.
    pub limit: u32,
}

/// What the suite needs to know of your driver and of the server behind it. A test implements it once.
///
/// Nobody else may use the server's tenants while the suite runs: it counts their connections.
#[allow(async_fn_in_trait, reason = "the suite awaits them where it runs; nothing is spawned")]
pub trait Subject {
    /// The factory under test.
    type Factory: PoolFactory;

    /// The factory.
    fn factory(&self) -> &Self::Factory;

    /// Two tenants whose databases are there.
    fn tenants(&self) -> [TenantId; 2];

    /// A tenant whose database is not there, though the name is a good one.
    fn missing_tenant(&self) -> TenantId;

    /// Texts that must appear in no error: passwords, connection strings.
    fn secrets(&self) -> Vec<String>;

    /// Connections to the tenant's database, as the *server* counts them.
    async fn server_side(&self, tenant: &TenantId) -> Result<u64, Trouble>;

    /// Asks the server something, in a way that leaves nothing behind.
    async fn ask(&self, connection: &mut ConnectionOf<Self>) -> Result<(), Trouble>;

    /// Keeps `word` in the tenant's database for good, so that [`words`](Self::words) finds it on every connection to it.
    async fn keep(&self, connection: &mut ConnectionOf<Self>, word: &str) -> Result<(), Trouble>;

    /// All the words that were kept in the connection's database.
    async fn words(&self, connection: &mut ConnectionOf<Self>) -> Result<Vec<String>, Trouble>;

    /// The ways to leave something on a connection: an open transaction, a setting, a temporary table, ... Each one has to
    /// be of a kind that the driver sees by itself.
    fn ways_to_leave(&self) -> Vec<&'static str>;

    /// Leaves something on the connection, in one of those ways.
    async fn leave(&self, connection: &mut ConnectionOf<Self>, way: &'static str) -> Result<(), Trouble>;

    /// What can be seen of things left on the connection, in any of those ways; nothing on a new one.
    async fn left(&self, connection: &mut ConnectionOf<Self>) -> Result<Vec<String>, Trouble>;

    /// Uses the connection in a way that would leave something if it were dropped half-way, as beginning a transaction
    /// does. The suite drops it at several points.
    async fn interruptible(&self, connection: &mut ConnectionOf<Self>) -> Result<(), Trouble>;

    /// Has the server end this connection, as an administrator or a restart does.
    ///
    /// # Errors
    /// [`NotPossible`] when there is no such thing, as with a file.
    async fn kill(&self, connection: &mut ConnectionOf<Self>) -> Result<(), NotPossible>;

    /// Makes the server behind [`factory`](Self::factory) stop answering (a proxy can swallow its answers), or answer again.
    ///
    /// # Errors
    /// [`NotPossible`] when it cannot be done.
    async fn silence(&self, silent: bool) -> Result<(), NotPossible>;

    /// A factory like the one under test that logs in with a wrong password.
    ///
    /// # Errors
    /// [`NotPossible`] when there are no passwords.
    fn with_wrong_password(&self) -> Result<Self::Factory, NotPossible>;

    /// A factory whose server cannot be reached: a port where nobody listens.
    ///
    /// # Errors
    /// [`NotPossible`] when there is no server.
    fn with_unreachable_server(&self) -> Result<Self::Factory, NotPossible>;

    /// A factory whose server lets in a small number of connections.
    ///
    /// # Errors
    /// [`NotPossible`] when there is no such limit.
    fn with_limited_server(&self) -> Result<Limited<Self::Factory>, NotPossible>;

    /// Whether the end of a close means that the server counts the connection no more, rather than soon no more. The
    /// closer to the truth, the harder the budget.
    fn knows_when_the_server_lets_go(&self) -> bool {
        true
    }
}

/// What the suite needs in addition for a [`NativePool`].
#[allow(async_fn_in_trait, reason = "the suite awaits them where it runs; nothing is spawned")]
pub trait PoolSubject: Subject<Factory: NativePool> {
    /// A connection out of the driver's pool, which goes back when it is dropped.
    type Pooled;

    /// Takes a connection out of the pool, waiting for one if all are out.
    async fn take(&self, pool: &<Self::Factory as NativePool>::Pool) -> Result<Self::Pooled, Trouble>;
}

/// How one check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// The factory does as it should.
    Passed,
    /// It does not; the text says what was expected and what was seen.
    Failed(String),
    /// The subject could not give what the check needs, for this reason.
    NotMade(&'static str),
}

type Making<'a> = Pin<Box<dyn Future<Output = Step> + 'a>>;

struct Check<S> {
    name: &'static str,
    make: for<'a> fn(&'a S) -> Making<'a>,
}

/// A check by its function's name.
macro_rules! check {
    ($module:ident :: $name:ident) => {
        Check { name: stringify!($name), make: |subject| Box::pin($module::$name(subject)) }
    };
}

/// The checks for one subject.
///
/// ```no_run
/// # use tenantry_testkit::conformance::{PoolSubject, Subject, Suite};
/// # async fn example(subject: &(impl PoolSubject + Subject<Factory: tenantry_core::Provision>)) {
/// let report = Suite::of(subject).provision().native_pool().run().await;
/// report.assert_passed();
/// assert_eq!(report.not_made(), [""; 0], "everything was checked");
/// # }
/// ```
pub struct Suite<'a, S> {
    subject: &'a S,
    checks: Vec<Check<S>>,
}

/// Runs every check that holds for any factory; add [`Suite::provision`] and [`Suite::native_pool`] where the factory
/// can do that.
///
/// # Panics
/// When a check fails, with the text of all that did.
///
/// # Cancel safety
/// Dropping it stops the checks; a connection that is open then is dropped.
pub async fn prove<S: Subject>(subject: &S) {
    Suite::of(subject).run().await.assert_passed();
}

impl<'a, S: Subject> Suite<'a, S> {
    /// The checks that hold for any factory.
    #[must_use]
    pub fn of(subject: &'a S) -> Self {
        let checks = vec![
            check!(connections::a_new_connection_is_clean_and_answers),
            check!(connections::tenants_do_not_see_each_other),
            check!(connections::a_clean_use_leaves_a_connection_clean),
            check!(connections::what_is_left_is_seen_and_a_recycle_clears_it),
            check!(connections::a_recycle_keeps_a_clean_connection_usable),
            check!(connections::a_use_dropped_half_way_never_reaches_the_next_user),
            check!(connections::a_killed_connection_is_lost),
            check!(connections::a_close_frees_the_server_side),
            check!(connections::a_close_after_a_dropped_use_frees_the_server_side),
            check!(connections::a_drop_frees_the_server_side_soon),
            check!(connections::a_connect_dropped_half_way_leaves_nothing),
            check!(connections::a_close_ends_within_its_time_when_the_server_is_silent),
            check!(failures::an_unknown_tenant_is_no_such_tenant_and_is_not_created),
            check!(failures::hostile_names_reach_no_database),
            check!(failures::a_wrong_password_is_auth),
            check!(failures::a_server_that_is_not_there_is_unreachable),
            check!(failures::a_full_server_is_server_full_at_once_and_a_close_makes_room),
            check!(failures::no_error_holds_a_secret),
        ];
        Self { subject, checks }
    }

    /// And those for making and dropping databases.
    #[must_use]
    pub fn provision(mut self) -> Self
    where
        S::Factory: Provision,
    {
        self.checks.extend([
            check!(databases::creating_twice_is_new_then_already_there),
            check!(databases::dropping_twice_is_gone_then_was_absent),
            check!(databases::names_that_nearly_collide_have_databases_of_their_own),
            check!(databases::making_and_dropping_leave_no_connection),
        ]);
        self
    }

    /// And those for the driver's own pools.
    #[must_use]
    pub fn native_pool(mut self) -> Self
    where
        S: PoolSubject,
    {
        self.checks.extend([
            check!(pools::a_pool_never_holds_more_than_it_may),
            check!(pools::a_pool_closes_when_its_last_connection_is_back),
            check!(pools::a_pool_for_an_unknown_tenant_fails_or_serves_nobody),
        ]);
        self
    }

    /// Runs the checks one after the other. One that panics or hangs has failed, and the next one is made.
    ///
    /// # Cancel safety
    /// Dropping it stops the checks; a connection that is open then is dropped.
    pub async fn run(self) -> Report {
        let mut verdicts = Vec::new();
        for check in self.checks {
            let made = tokio::time::timeout(CHECK_WITHIN, Guarded::new((check.make)(self.subject))).await;
            let verdict = match made {
                Ok(Ok(Ok(()))) => Verdict::Passed,
                Ok(Ok(Err(stop))) => stop.into(),
                Ok(Err(panic)) => Verdict::Failed(format!("it panicked: {panic}")),
                Err(_) => Verdict::Failed(format!("it hangs: no answer within {CHECK_WITHIN:?}")),
            };
            verdicts.push((check.name, verdict));
        }
        Report { verdicts }
    }
}

impl<S> fmt::Debug for Suite<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.checks.iter().map(|check| check.name)).finish()
    }
}

/// What the checks found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    verdicts: Vec<(&'static str, Verdict)>,
}

impl Report {
    /// Every check by its name, in the order in which they were made.
    #[must_use]
    pub fn verdicts(&self) -> &[(&'static str, Verdict)] {
        &self.verdicts
    }

    /// The names of the checks that failed.
    #[must_use]
    pub fn failed(&self) -> Vec<&'static str> {
        self.named(|verdict| matches!(verdict, Verdict::Failed(_)))
    }

    /// The names of the checks that could not be made.
    #[must_use]
    pub fn not_made(&self) -> Vec<&'static str> {
        self.named(|verdict| matches!(verdict, Verdict::NotMade(_)))
    }

    fn named(&self, concerns: impl Fn(&Verdict) -> bool) -> Vec<&'static str> {
        self.verdicts.iter().filter(|(_, verdict)| concerns(verdict)).map(|(name, _)| *name).collect()
    }

    /// How many checks passed, failed and could not be made, in one line.
    #[must_use]
    pub fn summary(&self) -> String {
        let (failed, not_made) = (self.failed().len(), self.not_made().len());
        let passed = self.verdicts.len() - failed - not_made;
        format!("{passed} passed, {failed} failed, {not_made} not possible there")
    }

    /// # Panics
    /// When a check failed, with the whole report.
    #[track_caller]
    pub fn assert_passed(&self) {
        assert!(self.failed().is_empty(), "the factory does not keep the contract:\n{self}");
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, verdict) in &self.verdicts {
            match verdict {
                Verdict::Passed => writeln!(f, "passed    {name}")?,
                Verdict::Failed(why) => writeln!(f, "FAILED    {name}: {why}")?,
                Verdict::NotMade(why) => writeln!(f, "not made  {name}: {why}")?,
            }
        }
        Ok(())
    }
}
