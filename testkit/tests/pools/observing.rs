//! What an observer is told, and that nobody pays for one that panics.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tenantry_core::{CloseReason, ConnectOutcome, Event, FailureKind, Health, LimitScope, Observer, Phase, TenantId};
use tenantry_testkit::{Behavior, Call, FakeFactory};

use crate::support::{assert_nothing_lost, hold, limit, manager, ms, secs, settle, within};

/// Keeps what it is told.
#[derive(Clone, Default)]
struct Notes(Arc<Mutex<Vec<Event>>>);

impl Observer for Notes {
    fn on(&self, event: &Event) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Notes {
    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    /// In short words.
    fn words(&self) -> Vec<String> {
        self.take().iter().map(in_words).collect()
    }
}

fn in_words(event: &Event) -> String {
    match event {
        Event::Acquired { tenant, waited, .. } => format!("{tenant} acquired after {waited:?}"),
        Event::Refused { tenant, scope, waited, .. } => format!("{tenant} refused for {scope:?} after {waited:?}"),
        Event::TimedOut { tenant, phase, waited, .. } => format!("{tenant} timed out {phase:?} after {waited:?}"),
        Event::Released { tenant, used, health, .. } => format!("{tenant} released {health:?} after {used:?}"),
        Event::Connected { tenant, took, outcome, .. } => format!("{tenant} connected {outcome:?} in {took:?}"),
        Event::Evicted { tenant, for_whom, limit, .. } => {
            let for_whom = for_whom.as_ref().map_or("the server", TenantId::as_str);
            format!("{tenant} made room for {for_whom} under {limit:?}")
        }
        Event::Closed { tenant, reason, .. } => format!("{tenant} closed {reason:?}"),
        Event::ServerFull { tenant, .. } => format!("full, {tenant} was told"),
        Event::CircuitOpened { tenant, kind, failures, .. } => format!("{tenant} opened {kind:?} {failures}"),
        Event::CircuitClosed { tenant, .. } => format!("{tenant} closed its circuit"),
        other => format!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_observer_is_told_the_life_of_a_connection_with_its_times() {
    let (fake, notes) = (FakeFactory::new(), Notes::default());
    let pools = manager(&fake, 2).observer(notes.clone()).build().unwrap();
    fake.on(Call::Connect).always(Behavior::after(ms(7)));
    let lease = pools.acquire("acme").await.unwrap();
    tokio::time::sleep(ms(30)).await;
    drop(lease);
    assert_eq!(
        notes.words(),
        ["acme connected Opened in 7ms", "acme acquired after 7ms", "acme released Clean after 30ms"]
    );
    let lease = pools.acquire("acme").await.unwrap();
    tokio::time::sleep(ms(3)).await;
    lease.discard();
    let closed = format!("acme closed {:?}", CloseReason::Broken);
    assert_eq!(notes.words(), ["acme acquired after 0ns", "acme released Broken after 3ms", &closed]);
    pools.close().await;
    fake.assert_no_misuse();
}

#[tokio::test(start_paused = true)]
async fn an_eviction_says_who_made_room_for_whom_and_for_which_limit() {
    let (fake, notes) = (FakeFactory::new(), Notes::default());
    fake.place_with(|tenant| if tenant.as_str().starts_with("east") { "east".into() } else { "west".into() });
    let pools = manager(&fake, 3).max_connections_on("east", 1).observer(notes.clone()).build().unwrap();
    let evictions = || {
        let words = notes.words();
        words.into_iter().filter(|word| word.contains("made room")).collect::<Vec<String>>()
    };
    for tenant in ["east-1", "east-2"] {
        drop(pools.acquire(tenant).await.unwrap());
    }
    assert_eq!(evictions(), ["east-1 made room for east-2 under Server"]);
    for tenant in ["west-1", "west-2", "west-3"] {
        drop(pools.acquire(tenant).await.unwrap());
    }
    assert_eq!(evictions(), ["east-2 made room for west-3 under Total"]);
    assert!(pools.create("west-4").await.is_ok());
    assert_eq!(evictions(), ["west-1 made room for the server under Total"]);
    drop(pools.acquire_pool("west-2", 3).await.unwrap());
    assert_eq!(evictions().last().map(String::as_str), Some("west-3 made room for west-2 under Total"));
    settle().await;
    pools.close().await;
    fake.assert_no_misuse();
}

#[tokio::test(start_paused = true)]
async fn refusals_failures_and_full_servers_are_told() {
    let (fake, notes) = (FakeFactory::new(), Notes::default());
    let builder = manager(&fake, 1).connect_timeout(ms(20)).observer(notes.clone());
    let pools = builder.build().unwrap();
    let held = hold(&pools, ["held"]).await;
    notes.take();
    assert_eq!(limit(pools.acquire_with("other", within(ms(5))).await).scope, LimitScope::Total);
    assert_eq!(notes.words(), ["other refused for Total after 5ms"]);
    held.into_iter().for_each(tenantry_core::Lease::discard);
    settle().await;
    notes.take();
    fake.on_tenant(Call::Connect, "bad").next(Behavior::fails(FailureKind::Auth));
    assert!(pools.acquire("bad").await.is_err());
    let failed = ConnectOutcome::Failed(FailureKind::Auth);
    assert_eq!(notes.words(), [format!("bad connected {failed:?} in 0ns"), "bad opened Auth 1".to_owned()]);
    tokio::time::sleep(secs(1)).await;
    drop(pools.acquire("bad").await.unwrap());
    assert!(notes.words().contains(&"bad closed its circuit".to_owned()));
    fake.on_tenant(Call::Connect, "slow").next(Behavior::hangs());
    assert!(pools.acquire("slow").await.is_err());
    let slow = notes.words();
    let timed_out = format!("slow timed out {:?} after 20ms", Phase::Connecting);
    assert!(slow.contains(&"slow connected TimedOut in 20ms".to_owned()) && slow.contains(&timed_out), "{slow:?}");
    fake.on_tenant(Call::Connect, "full").next(Behavior::fails(FailureKind::ServerFull));
    drop(pools.acquire("full").await.unwrap());
    assert!(notes.words().contains(&"full, full was told".to_owned()));
    assert_nothing_lost(&pools, &fake).await;
}

/// Told what it is, in whatever a caller was doing: a release while panicking among it.
#[tokio::test(start_paused = true)]
async fn an_observer_that_panics_costs_nobody_anything() {
    struct Panics;
    impl Observer for Panics {
        fn on(&self, event: &Event) {
            panic!("told of {event:?}");
        }
    }
    let (fake, notes) = (FakeFactory::new(), Notes::default());
    let pools = manager(&fake, 2).observer(Panics).observer(notes.clone()).build().unwrap();
    let mut lease = pools.acquire("acme").await.unwrap();
    assert!(lease.query().await.is_ok());
    drop(lease);
    let lease = pools.acquire("acme").await.unwrap();
    let task = tokio::spawn(async move {
        let _lease = lease;
        panic!("a user's");
    });
    assert!(task.await.is_err_and(|error| error.is_panic()));
    fake.on_tenant(Call::Connect, "bad").next(Behavior::fails(FailureKind::Auth));
    assert!(pools.acquire("bad").await.is_err());
    drop(hold(&pools, ["b", "c"]).await);
    settle().await;
    assert!(notes.take().len() > 10, "those behind it are told all the same");
    assert_nothing_lost(&pools, &fake).await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_used_for_as_long_as_it_was_out_whoever_had_the_connection_before() {
    let (fake, notes) = (FakeFactory::new(), Notes::default());
    let pools = manager(&fake, 1).observer(notes.clone()).build().unwrap();
    let first = pools.acquire("acme").await.unwrap();
    let second = tokio::spawn(pools.acquire("acme"));
    tokio::time::sleep(ms(40)).await;
    drop(first);
    let second = second.await.unwrap().unwrap();
    tokio::time::sleep(ms(5)).await;
    drop(second);
    let used: Vec<Duration> = notes
        .take()
        .iter()
        .filter_map(|event| match event {
            Event::Released { used, health: Health::Clean, .. } => Some(*used),
            _ => None,
        })
        .collect();
    assert_eq!(used, [ms(40), ms(5)]);
    assert_nothing_lost(&pools, &fake).await;
}
