//! What the checks are made of: how one stops, and the calls of a factory with what each must answer.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tenantry_core::{FailureKind, Health, PoolFactory, TenantId};

use super::{ConnectionOf, NotPossible, Subject, Trouble, Verdict};

/// A check goes on, or stops here.
pub(super) type Step<T = ()> = Result<T, Stop>;

/// How a check stops before its end.
pub(super) enum Stop {
    Failed(String),
    NotMade(&'static str),
}

impl From<Stop> for Verdict {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Failed(why) => Self::Failed(why),
            Stop::NotMade(why) => Self::NotMade(why),
        }
    }
}

impl From<NotPossible> for Stop {
    fn from(NotPossible(why): NotPossible) -> Self {
        Self::NotMade(why)
    }
}

/// A check's own helper failed.
impl From<Trouble> for Stop {
    fn from(trouble: Trouble) -> Self {
        Self::Failed(format!("the test's own helper failed: {trouble:?}"))
    }
}

pub(super) fn fail<T>(why: impl Into<String>) -> Step<T> {
    Err(Stop::Failed(why.into()))
}

/// Fails with the text unless the condition holds.
macro_rules! ensure {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return $crate::conformance::steps::fail(format!($($why)+));
        }
    };
}
pub(super) use ensure;

/// The longest that a server gets to notice that a connection is gone, where nobody can know.
const SOON: Duration = Duration::from_secs(30);

/// The close of a connection gets this long, unless its time is what is checked: the default of `close_timeout`. A driver
/// may use all of it for a connection whose last answer never comes.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// How often a server is asked what it counts. Nothing tells when that changes.
const ASK_EVERY: Duration = Duration::from_millis(1);

pub(super) async fn connect<S: Subject>(subject: &S, tenant: &TenantId) -> Step<ConnectionOf<S>> {
    match subject.factory().connect(tenant).await {
        Ok(connection) => Ok(connection),
        Err(error) => fail(format!("cannot connect to {tenant:?}, whose database is there: {error:?}")),
    }
}

pub(super) async fn close<S: Subject>(subject: &S, connection: ConnectionOf<S>) {
    subject.factory().close(connection, CLOSE_WITHIN).await;
}

/// A connect that has to fail.
pub(super) async fn refused<F: PoolFactory>(factory: &F, tenant: &TenantId) -> Step<(FailureKind, F::Error)> {
    match factory.connect(tenant).await {
        Ok(_) => fail(format!("a connect to {tenant:?} succeeded that had to fail")),
        Err(error) => Ok((factory.classify(&error), error)),
    }
}

pub(super) fn health<S: Subject>(subject: &S, connection: &mut ConnectionOf<S>) -> Health {
    subject.factory().health(connection)
}

pub(super) async fn recycle<S: Subject>(subject: &S, connection: &mut ConnectionOf<S>) -> Step {
    match subject.factory().recycle(connection).await {
        Ok(()) => Ok(()),
        Err(error) => fail(format!("a recycle failed that had no reason to: {error:?}")),
    }
}

pub(super) async fn ensure_nothing_left<S: Subject>(
    subject: &S,
    connection: &mut ConnectionOf<S>,
    after: &str,
) -> Step {
    let left = subject.left(connection).await?;
    ensure!(left.is_empty(), "after {after} this is left on the connection: {left:?}");
    Ok(())
}

/// The server counts no connection of the tenant: now, or soon.
pub(super) async fn ensure_server_side_is_free<S: Subject>(
    subject: &S,
    tenant: &TenantId,
    now: bool,
    after: &str,
) -> Step {
    if now {
        let count = subject.server_side(tenant).await?;
        ensure!(count == 0, "after {after} the server still counts {count} connections");
        return Ok(());
    }
    let gone = async {
        while subject.server_side(tenant).await? != 0 {
            tokio::time::sleep(ASK_EVERY).await;
        }
        Ok::<_, Trouble>(())
    };
    match tokio::time::timeout(SOON, gone).await {
        Ok(answer) => Ok(answer?),
        Err(_) => fail(format!("{SOON:?} after {after} the server still counts connections")),
    }
}

/// How long a future is waited for that is to be dropped half-way, and does not ask to be polled again.
const HALF_WAY: Duration = Duration::from_millis(20);

/// Polls a future at most `times` times, each time when it asks for it, and then drops it.
pub(super) async fn drop_after<T>(times: usize, future: impl Future<Output = T>) {
    let mut future = pin!(future);
    let mut left = times;
    let polls = poll_fn(|cx| {
        left -= 1;
        let ready = future.as_mut().poll(cx).is_ready();
        // After the last poll there is no reason to wait for the next wake-up.
        if ready || left == 0 { Poll::Ready(()) } else { Poll::Pending }
    });
    let _ = tokio::time::timeout(HALF_WAY, polls).await;
}

/// A future whose panic is an answer.
pub(super) struct Guarded<'a, T>(Pin<Box<dyn Future<Output = T> + 'a>>);

impl<'a, T> Guarded<'a, T> {
    pub(super) fn new(future: Pin<Box<dyn Future<Output = T> + 'a>>) -> Self {
        Self(future)
    }
}

impl<T> Future for Guarded<'_, T> {
    type Output = Result<T, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // It is never polled again after a panic, so nothing half-done is seen.
        match catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx))) {
            Ok(step) => step.map(Ok),
            Err(panic) => Poll::Ready(Err(text_of(panic.as_ref()))),
        }
    }
}

fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a value that is no text").to_owned()
}
