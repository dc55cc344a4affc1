//! The log line about a lease that has been out for long.

use std::fmt::{Debug, Write};
use std::sync::{Arc, Mutex};

use tenantry_testkit::FakeFactory;
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber, span};

use crate::support::{hold, hold_many, manager, ms, secs, within};

/// Keeps every event of this thread as a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn start() -> (Self, DefaultGuard) {
        let log = Self::default();
        let guard = tracing::subscriber::set_default(log.clone());
        (log, guard)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {}={value:?}", field.name()).unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn event(&self, event: &Event<'_>) {
        let metadata = event.metadata();
        if metadata.target().starts_with("tenantry_core") {
            let mut line = Line(metadata.level().to_string());
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_out_for_long_is_logged_once_with_its_tenant_and_how_long() {
    let (log, _guard) = Log::start();
    let pools = manager(&FakeFactory::new(), 5).lease_warn_after(secs(30)).build().unwrap();
    let lease = pools.acquire("forgetful").await.unwrap();
    sleep(ms(29_900)).await;
    assert!(log.take().is_empty());
    sleep(secs(2)).await;
    let lines = log.take();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.starts_with(Level::WARN.as_str()), "{line}");
    assert!(line.contains("tenant=forgetful") && line.contains("held=30"), "{line}");
    assert!(line.contains("lease_warn_after"), "the line names the setting: {line}");
    sleep(secs(1_000)).await;
    assert!(log.take().is_empty(), "once");
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn the_same_connection_is_logged_again_for_its_next_long_lease() {
    let (log, _guard) = Log::start();
    let pools = manager(&FakeFactory::new(), 5).lease_warn_after(secs(30)).build().unwrap();
    for _ in 0..3 {
        let lease = pools.acquire("forgetful").await.unwrap();
        sleep(secs(40)).await;
        drop(lease);
        assert_eq!(log.take().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn short_leases_and_idle_connections_are_never_logged() {
    let (log, _guard) = Log::start();
    let pools = manager(&FakeFactory::new(), 5).lease_warn_after(secs(30)).build().unwrap();
    for _ in 0..20 {
        let lease = pools.acquire("busy").await.unwrap();
        sleep(secs(20)).await;
        drop(lease);
    }
    sleep(secs(200)).await;
    assert!(log.take().is_empty());
}

/// How many leases a line speaks of.
fn told(line: &str) -> usize {
    let others = line.split("others=").nth(1).unwrap();
    1 + others.split(' ').next().unwrap().parse::<usize>().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_hundred_long_leases_are_one_line() {
    let (log, _guard) = Log::start();
    let pools = manager(&FakeFactory::new(), 200).lease_warn_after(secs(30)).build().unwrap();
    let _many = hold_many(&pools, "tenant", 100).await;
    sleep(secs(100)).await;
    let lines = log.take();
    assert_eq!(lines.iter().map(|line| told(line)).collect::<Vec<_>>(), [100], "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn long_leases_are_at_most_one_line_a_second() {
    let (log, _guard) = Log::start();
    let pools = manager(&FakeFactory::new(), 200).lease_warn_after(secs(30)).build().unwrap();
    let mut leases = Vec::new();
    for _ in 0..100 {
        leases.push(pools.acquire(format!("tenant-{}", leases.len())).await.unwrap());
        sleep(ms(100)).await;
    }
    sleep(secs(60)).await;
    let lines = log.take();
    assert!(lines.len() >= 10 && lines.len() <= 11, "{lines:#?}");
}

#[tokio::test(start_paused = true)]
async fn no_long_lease_goes_untold_for_the_rate() {
    let (log, _guard) = Log::start();
    let pools = manager(&FakeFactory::new(), 200).lease_warn_after(secs(30)).build().unwrap();
    let _many = hold_many(&pools, "tenant", 100).await;
    sleep(ms(500)).await;
    let _late = hold(&pools, ["late"]).await;
    sleep(secs(100)).await;
    let lines = log.take();
    assert_eq!(lines.iter().map(|line| told(line)).sum::<usize>(), 101, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_waited_for_itself_is_named_in_a_line() {
    let (log, _guard) = Log::start();
    let pools = manager(&FakeFactory::new(), 5).max_connections_per_tenant(1).build().unwrap();
    let held = pools.acquire("acme").await.unwrap();
    // First, as lines are few: after one, none would prove nothing.
    assert!(tokio::spawn(pools.acquire_with("acme", within(ms(100)))).await.unwrap().is_err());
    assert!(log.take().is_empty(), "who holds nothing did not wait for itself");
    let nested = tokio::spawn({
        let pools = pools.clone();
        async move {
            let _own = pools.acquire("other").await.unwrap();
            assert!(pools.acquire_with("acme", within(ms(100))).await.is_err());
        }
    });
    nested.await.unwrap();
    let lines = log.take();
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert!(line.contains("tenant=acme") && line.contains("held_by_caller=1"), "{line}");
    drop(held);
}
