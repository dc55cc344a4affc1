//! The feature `tracing`: spans around what takes time, a line for what goes wrong, and never a flood of them.

#![allow(missing_docs, reason = "tests")]
#![allow(clippy::unwrap_used, reason = "the helpers of tests are tests")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenantry::{AcquireOptions, FailureKind, Health, PoolFactory, ServerId, TenantId, TenantPools};
use tenantry_testkit::{Behavior, Call, FakeFactory};
use tokio::time::sleep;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Event, Level, Metadata, Subscriber, span};

type Fields = BTreeMap<&'static str, String>;

#[derive(Debug, Clone)]
struct Line {
    level: Level,
    /// The span in which it was written.
    within: Option<&'static str>,
    fields: Fields,
}

#[derive(Debug, Default)]
struct Seen {
    spans: Vec<(&'static str, Fields)>,
    /// Indices of those that are entered.
    entered: Vec<usize>,
    lines: Vec<Line>,
}

/// Keeps every span and line of this thread.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Seen>>);

struct Fill<'a>(&'a mut Fields);

impl Visit for Fill<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }
}

impl Capture {
    fn start() -> (Self, DefaultGuard) {
        let capture = Self::default();
        let guard = tracing::subscriber::set_default(capture.clone());
        (capture, guard)
    }

    fn spans(&self, name: &str) -> Vec<Fields> {
        let seen = self.0.lock().unwrap();
        seen.spans.iter().filter(|(one, _)| *one == name).map(|(_, fields)| fields.clone()).collect()
    }

    /// Lines with that in their message.
    fn lines(&self, message: &str) -> Vec<Line> {
        let seen = self.0.lock().unwrap();
        seen.lines.iter().filter(|line| line.fields["message"].contains(message)).cloned().collect()
    }
}

impl Subscriber for Capture {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tenantry") || metadata.target().starts_with("tracing")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut seen = self.0.lock().unwrap();
        let mut fields = Fields::new();
        attributes.record(&mut Fill(&mut fields));
        seen.spans.push((attributes.metadata().name(), fields));
        span::Id::from_u64(seen.spans.len() as u64)
    }

    fn record(&self, id: &span::Id, values: &span::Record<'_>) {
        let mut seen = self.0.lock().unwrap();
        let index = usize::try_from(id.into_u64()).unwrap() - 1;
        values.record(&mut Fill(&mut seen.spans[index].1));
    }

    fn event(&self, event: &Event<'_>) {
        let mut seen = self.0.lock().unwrap();
        let within = seen.entered.last().map(|&index| seen.spans[index].0);
        let mut fields = Fields::new();
        event.record(&mut Fill(&mut fields));
        seen.lines.push(Line { level: *event.metadata().level(), within, fields });
    }

    fn enter(&self, id: &span::Id) {
        self.0.lock().unwrap().entered.push(usize::try_from(id.into_u64()).unwrap() - 1);
    }

    fn exit(&self, _: &span::Id) {
        self.0.lock().unwrap().entered.pop();
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
}

fn pools(fake: &FakeFactory, budget: u32) -> TenantPools<FakeFactory> {
    TenantPools::builder(fake.clone()).max_connections(budget).max_connecting(budget).build().unwrap()
}

fn field<'a>(fields: &'a Fields, name: &str) -> &'a str {
    fields.get(name).map_or("", String::as_str)
}

#[tokio::test(start_paused = true)]
async fn an_acquire_that_waits_has_a_span_that_says_how_it_ended() {
    let (capture, _guard) = Capture::start();
    let fake = FakeFactory::new();
    let pools = pools(&fake, 1);
    fake.on(Call::Connect).next(Behavior::after(Duration::from_millis(250)));
    let lease = pools.acquire("acme").await.unwrap();
    let short = AcquireOptions::new().timeout(Duration::from_millis(500));
    assert!(pools.acquire_with("other", short).await.is_err());
    let spans = capture.spans("tenantry.acquire");
    let [served, refused] = &spans[..] else { panic!("{spans:?}") };
    for (name, value) in [("tenant", "acme"), ("outcome", "served"), ("waited", "0.25"), ("background", "false")] {
        assert_eq!(field(served, name), value, "{served:?}");
    }
    for (name, value) in [("tenant", "other"), ("outcome", "limit"), ("phase", "Total"), ("waited", "0.5")] {
        assert_eq!(field(refused, name), value, "{refused:?}");
    }
    drop(lease);
    drop(pools.acquire("acme").await.unwrap());
    assert_eq!(capture.spans("tenantry.acquire").len(), 2, "what is warm takes no time, and has none");
    let refused = capture.lines("refused for a limit");
    assert_eq!((refused.len(), refused[0].level), (1, Level::WARN));
}

/// What a driver writes while it connects is within the connect's span.
#[tokio::test(start_paused = true)]
async fn a_connect_has_a_span_of_its_own_around_the_driver() {
    struct Writes;
    impl PoolFactory for Writes {
        type Connection = ();
        type Error = Infallible;

        fn server(&self, _: &TenantId) -> ServerId {
            "east".into()
        }

        async fn connect(&self, _: &TenantId) -> Result<(), Infallible> {
            sleep(Duration::from_millis(1)).await;
            tracing::info!("the driver's own");
            Ok(())
        }

        fn health(&self, (): &mut ()) -> Health {
            Health::Clean
        }

        async fn recycle(&self, (): &mut ()) -> Result<(), Infallible> {
            Ok(())
        }

        async fn close(&self, (): (), _: Duration) {}

        fn classify(&self, never: &Infallible) -> FailureKind {
            match *never {}
        }
    }
    let (capture, _guard) = Capture::start();
    let pools = TenantPools::builder(Writes).max_connections(2).build().unwrap();
    drop(pools.acquire("acme").await.unwrap());
    let spans = capture.spans("tenantry.connect");
    let [connect] = &spans[..] else { panic!("{spans:?}") };
    for (name, value) in [("tenant", "acme"), ("server", "east"), ("outcome", "Opened")] {
        assert_eq!(field(connect, name), value, "{connect:?}");
    }
    assert_eq!(capture.lines("the driver's own")[0].within, Some("tenantry.connect"));
}

#[tokio::test(start_paused = true)]
async fn an_eviction_says_who_made_room_for_whom_and_for_which_limit() {
    let (capture, _guard) = Capture::start();
    let pools = pools(&FakeFactory::new(), 1);
    for tenant in ["a", "b"] {
        drop(pools.acquire(tenant).await.unwrap());
    }
    let lines = capture.lines("makes room");
    let [line] = &lines[..] else { panic!("{lines:?}") };
    assert_eq!(line.level, Level::DEBUG);
    for (name, value) in [("tenant", "a"), ("for_whom", "b"), ("limit", "Total")] {
        assert_eq!(field(&line.fields, name), value, "{line:?}");
    }
}

/// 10,000 failures in twenty seconds.
#[tokio::test(start_paused = true)]
async fn a_broken_tenant_in_a_tight_loop_writes_a_line_a_second_that_counts_the_others() {
    let (capture, _guard) = Capture::start();
    let fake = FakeFactory::new();
    let pools = pools(&fake, 8);
    fake.on(Call::Connect).always(Behavior::fails(FailureKind::Unreachable));
    for round in 0..2_000 {
        for tenant in 0..5 {
            assert!(pools.acquire(format!("broken-{round}-{tenant}")).await.is_err());
        }
        sleep(Duration::from_millis(10)).await;
    }
    let failures = fake.calls(Call::Connect).started;
    let lines = capture.lines("connect failed");
    assert!((19..=22).contains(&lines.len()), "{} lines of {failures} failures", lines.len());
    assert!(lines.iter().all(|line| line.level == Level::WARN && field(&line.fields, "kind") == "Unreachable"));
    let told: u64 = lines.iter().map(|line| 1 + field(&line.fields, "others").parse::<u64>().unwrap()).sum();
    assert!(told <= failures && failures - told <= 600, "{told} of {failures}: none but the last second's is untold");
    let all = capture.0.lock().unwrap().lines.len();
    assert!(all <= lines.len() + 5, "{all} lines in all");
}

/// What is held back for the rate is said without another event, by the next tick.
#[tokio::test(start_paused = true)]
async fn what_was_held_back_is_said_a_second_later() {
    let (capture, _guard) = Capture::start();
    let fake = FakeFactory::new();
    let pools = pools(&fake, 8);
    let held = pools.acquire("held").await.unwrap();
    for _ in 0..3 {
        let now = AcquireOptions::new().timeout(Duration::ZERO);
        fake.on_tenant(Call::Connect, "slow").next(Behavior::after(Duration::from_secs(1)));
        assert!(pools.acquire_with("slow", now).await.is_err());
    }
    assert_eq!(capture.lines("no connection in time").len(), 1);
    sleep(Duration::from_secs(3)).await;
    let lines = capture.lines("no connection in time");
    assert_eq!((lines.len(), field(&lines[1].fields, "others")), (2, "1"));
    drop(held);
}
