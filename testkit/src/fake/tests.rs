//! That the fake does what it is told, counts what is there, and catches misuse.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use tokio::time::Instant;

use super::*;

const LONG: Duration = Duration::from_secs(3600);

fn tenant(name: &str) -> TenantId {
    named(name)
}

/// Polls once, without any runtime.
fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => Some(answer),
        Poll::Pending => None,
    }
}

fn connection(fake: &FakeFactory, name: &str) -> FakeConnection {
    at_once(fake.connect(&tenant(name))).expect("instant").expect("connects")
}

fn kind<T: std::fmt::Debug>(answer: Option<Result<T, FakeError>>) -> FailureKind {
    answer.expect("instant").expect_err("fails").kind
}

fn panics<T>(action: impl FnOnce() -> T) -> bool {
    catch_unwind(AssertUnwindSafe(action)).is_err()
}

/// A test that waits for a call which never comes is told so, and does not hang.
#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told() {
    let fake = FakeFactory::new();
    let (gate, other) = (fake.hold_connects("a"), fake.clone());
    let at_the_gate = tokio::spawn(async move { gate.reached(1).await });
    let in_all = tokio::spawn(async move { other.ended(Call::Connect, 1).await });
    assert!(at_the_gate.await.unwrap_err().is_panic() && in_all.await.unwrap_err().is_panic());
}

#[test]
fn without_a_script_everything_succeeds_at_once_and_needs_no_runtime() {
    let fake = FakeFactory::new();
    let mut one = connection(&fake, "a");
    assert_eq!(fake.health(&mut one), Health::Clean);
    assert_eq!(at_once(one.query()), Some(Ok(())));
    assert_eq!(at_once(fake.recycle(&mut one)), Some(Ok(())));
    assert_eq!(at_once(fake.close(one, LONG)), Some(()));
    let (a, id) = (tenant("a"), 1);
    let expected = [
        Event::ConnectStarted { tenant: a.clone(), id },
        Event::Connected { tenant: a.clone(), id },
        Event::RecycleStarted { tenant: a.clone(), id },
        Event::Recycled { tenant: a.clone(), id },
        Event::CloseStarted { tenant: a.clone(), id },
        Event::Closed { tenant: a, id },
    ];
    assert_eq!(fake.take_events(), expected);
    assert_eq!(fake.events(), []);
}

#[test]
fn one_shots_come_before_standing_behaviour_and_the_tenants_own_before_all_tenants() {
    let fake = FakeFactory::new();
    let fails = Behavior::fails;
    fake.on(Call::Connect).next(fails(FailureKind::Other)).always(fails(FailureKind::Unreachable));
    fake.on_tenant(Call::Connect, "a").next_few(2, fails(FailureKind::Auth)).always(Behavior::instant());
    let connect = |name: &str| at_once(fake.connect(&tenant(name)));
    assert_eq!(kind(connect("a")), FailureKind::Auth);
    assert_eq!(kind(connect("a")), FailureKind::Auth);
    assert_eq!(kind(connect("a")), FailureKind::Other);
    assert!(connect("a").expect("instant").is_ok());
    assert_eq!(kind(connect("b")), FailureKind::Unreachable);
    fake.on(Call::Connect).reset();
    assert!(connect("b").expect("instant").is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_delay_is_exact_under_a_paused_clock() {
    let fake = FakeFactory::new();
    fake.on(Call::Connect).always(Behavior::after(Duration::from_millis(20)));
    fake.on(Call::Close).always(Behavior::after(Duration::from_millis(30)));
    let start = Instant::now();
    let one = fake.connect(&tenant("a")).await.expect("connects");
    assert_eq!(start.elapsed(), Duration::from_millis(20));
    fake.close(one, LONG).await;
    assert_eq!(start.elapsed(), Duration::from_millis(50));
}

#[tokio::test(start_paused = true)]
async fn a_close_ends_at_its_bound_unless_it_is_stubborn_or_held() {
    let fake = FakeFactory::new();
    let bound = Duration::from_secs(5);
    fake.on(Call::Close).next(Behavior::hangs()).next(Behavior::after(LONG).stubborn());
    let start = Instant::now();
    fake.close(connection(&fake, "a"), bound).await;
    assert_eq!(start.elapsed(), bound);
    assert!(fake.take_events().contains(&Event::ClosedAtTheBound { tenant: tenant("a"), id: 1 }));
    assert_eq!(fake.open().now, 0);

    let start = Instant::now();
    fake.close(connection(&fake, "a"), bound).await;
    assert_eq!(start.elapsed(), LONG);

    let gate = fake.hold_closes("a");
    let mut close = pin!(fake.close(connection(&fake, "a"), bound));
    let held = tokio::time::timeout(LONG, close.as_mut()).await;
    assert!(held.is_err(), "it waits for the test, however long");
    assert_eq!(fake.open().now, 1);
    gate.release();
    close.await;
    assert_eq!(fake.open().now, 0);
}

#[tokio::test(start_paused = true)]
async fn a_gate_lets_calls_through_one_by_one_and_then_all() {
    let fake = FakeFactory::new();
    let gate = fake.hold_connects("a");
    let connect = |name: &'static str| {
        let fake = fake.clone();
        tokio::spawn(async move { fake.connect(&tenant(name)).await })
    };
    let waiting = [connect("a"), connect("a"), connect("a")];
    gate.reached(3).await;
    assert!(connect("b").await.expect("no panic").is_ok(), "another tenant is not held");
    gate.release_one();
    fake.ended(Call::Connect, 2).await;
    assert_eq!(gate.waiting(), 2);
    gate.release();
    for task in waiting {
        assert!(task.await.expect("no panic").is_ok());
    }
    assert_eq!(gate.waiting(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_and_waits_work_on_real_threads_and_a_dropped_gate_is_open() {
    let fake = FakeFactory::new();
    let gate = fake.on(Call::Connect).hold();
    let connects: Vec<_> = (0..8)
        .map(|n| {
            let fake = fake.clone();
            tokio::spawn(async move { fake.connect(&tenant(&format!("t{}", n % 3))).await })
        })
        .collect();
    fake.connects_reached(8).await;
    assert_eq!((fake.open().now, fake.calls(Call::Connect).running()), (8, 8));
    drop(gate);
    for connect in connects {
        drop(connect.await.expect("no panic").expect("connects"));
    }
    fake.until(|fake| fake.open().now == 0).await;
    assert_eq!(fake.open_of("t0").most, 3);
    assert_eq!(fake.calls(Call::Connect).most_at_once, 8);
}

#[test]
fn a_connect_that_fails_panics_or_is_abandoned_gives_its_place_back() {
    let fake = FakeFactory::new();
    let a = tenant("a");
    let script = fake.on_tenant(Call::Connect, "a");
    script.next(Behavior::fails(FailureKind::Auth)).next(Behavior::panics()).next(Behavior::hangs());
    let error = at_once(fake.connect(&a)).expect("instant").expect_err("fails");
    assert_eq!(fake.classify(&error), FailureKind::Auth);
    assert!(panics(|| at_once(fake.connect(&a))));
    {
        let mut hanging = pin!(fake.connect(&a));
        assert!(hanging.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert_eq!(fake.open_of("a").now, 1, "it counts while it hangs");
    }
    assert_eq!(fake.open_of("a"), Places { now: 0, most: 1 });
    let calls = fake.calls(Call::Connect);
    assert_eq!((calls.started, calls.ended, calls.running()), (3, 3, 0));
    let ends: Vec<_> = fake.events().into_iter().filter(|e| !matches!(e, Event::ConnectStarted { .. })).collect();
    let expected = [
        Event::ConnectFailed { tenant: a.clone(), id: 1, kind: FailureKind::Auth },
        Event::ConnectAbandoned { tenant: a.clone(), id: 2 },
        Event::ConnectAbandoned { tenant: a, id: 3 },
    ];
    assert_eq!(ends, expected);
}

#[test]
fn places_count_from_the_start_of_the_connect_to_the_end_of_the_close_in_every_scope() {
    let fake = FakeFactory::new();
    let (east, west) = (ServerId::from("east"), ServerId::from("west"));
    fake.place("b", west.clone());
    fake.place_with(|_| ServerId::from("east"));
    let (one, two, other) = (connection(&fake, "a"), connection(&fake, "a"), connection(&fake, "b"));
    assert_eq!((fake.open().now, fake.open_of("a").now, fake.open_of("b").now), (3, 2, 1));
    assert_eq!((fake.open_on(&east).now, fake.open_on(&west).now), (2, 1));
    drop(one);
    let gate = fake.hold_closes("a");
    let mut close = pin!(fake.close(two, LONG));
    let mut context = Context::from_waker(Waker::noop());
    assert!(close.as_mut().poll(&mut context).is_pending());
    assert_eq!(fake.open_on(&east).now, 1, "a closing connection still counts");
    gate.release();
    assert!(close.as_mut().poll(&mut context).is_ready());
    drop(other);
    assert_eq!(fake.open(), Places { now: 0, most: 3 });
    assert_eq!(fake.open_on(&east), Places { now: 0, most: 2 });
    fake.reset_high_water();
    assert_eq!(fake.open(), Places::default());
    assert_eq!(fake.calls_on(Call::Connect, &west).started, 1);
}

#[test]
fn a_dropped_connection_is_told_from_a_closed_one() {
    let fake = FakeFactory::new();
    let one = connection(&fake, "a");
    let handle = one.handle();
    fake.on(Call::Close).next(Behavior::panics());
    drop(connection(&fake, "a"));
    assert!(panics(|| at_once(fake.close(one, LONG))));
    assert!(!handle.is_open());
    let a = tenant("a");
    let events = fake.take_events();
    assert_eq!(events[4], Event::Dropped { tenant: a.clone(), id: 2 });
    let last = [Event::CloseAbandoned { tenant: a.clone(), id: 1 }, Event::Dropped { tenant: a, id: 1 }];
    assert!(last.iter().all(|event| events[6..].contains(event)), "{events:?}");
    assert_eq!(fake.open().now, 0);
}

#[test]
fn a_full_server_refuses_and_outsiders_take_room() {
    let fake = FakeFactory::new();
    let server = ServerId::default();
    fake.set_server_limit(&server, Some(2));
    fake.set_outsiders(&server, 1);
    let one = connection(&fake, "a");
    assert_eq!(kind(at_once(fake.connect(&tenant("b")))), FailureKind::ServerFull);
    drop(one);
    drop(connection(&fake, "b"));
    fake.set_outsiders(&server, 2);
    assert_eq!(kind(at_once(fake.connect(&tenant("b")))), FailureKind::ServerFull);
}

#[test]
fn a_database_is_made_and_dropped_only_when_asked() {
    let fake = FakeFactory::new();
    fake.set_databases(["a"]);
    let b = tenant("b");
    assert_eq!(kind(at_once(fake.connect(&b))), FailureKind::NoSuchTenant);
    assert!(!fake.has_database("b"), "a connect never makes one");
    assert_eq!(at_once(fake.create(&b)), Some(Ok(Created::New)));
    assert_eq!(at_once(fake.create(&b)), Some(Ok(Created::AlreadyThere)));
    let mut there = connection(&fake, "b");
    assert_eq!(at_once(fake.drop_database(&b)), Some(Ok(Dropped::Gone)));
    assert_eq!(at_once(fake.drop_database(&b)), Some(Ok(Dropped::WasAbsent)));
    assert_eq!(kind(at_once(there.query())), FailureKind::Unreachable);
    assert_eq!(kind(at_once(fake.connect(&b))), FailureKind::NoSuchTenant);
    assert_eq!(fake.open_of("b").most, 2, "making and dropping takes a place of its own");
}

#[test]
fn a_cut_connection_looks_clean_until_the_first_round_trip() {
    let fake = FakeFactory::new();
    let (mut one, mut two) = (connection(&fake, "a"), connection(&fake, "b"));
    assert_eq!(fake.cut_all_on(&ServerId::default()), 2);
    assert_eq!(fake.health(&mut one), Health::Clean);
    assert_eq!(kind(at_once(one.query())), FailureKind::Unreachable);
    assert_eq!(fake.health(&mut one), Health::Lost);
    assert_eq!(kind(at_once(fake.recycle(&mut two))), FailureKind::Unreachable);
    assert_eq!(fake.health(&mut two), Health::Lost);
    let mut three = connection(&fake, "a");
    assert_eq!(at_once(three.query()), Some(Ok(())), "a later one is whole");
    three.mark_lost();
    assert_eq!(fake.health(&mut three), Health::Lost);
}

#[test]
fn a_query_dropped_half_way_leaves_the_connection_dirty() {
    let fake = FakeFactory::new();
    let mut one = connection(&fake, "a");
    fake.on(Call::Query).next(Behavior::hangs());
    assert_eq!(at_once(one.query()), None);
    assert_eq!(fake.health(&mut one), Health::Dirty);
    assert_eq!(at_once(fake.recycle(&mut one)), Some(Ok(())));
    assert_eq!(fake.health(&mut one), Health::Clean);
}

#[test]
fn what_is_left_behind_stays_until_a_recycle_succeeds() {
    let fake = FakeFactory::new();
    let mut one = connection(&fake, "a");
    one.leave_behind("search_path");
    assert_eq!(fake.health(&mut one), Health::Dirty);
    fake.on(Call::Recycle).next(Behavior::fails(FailureKind::Other));
    assert_eq!(kind(at_once(fake.recycle(&mut one))), FailureKind::Other);
    assert_eq!(one.left_behind(), ["search_path"]);
    assert_eq!(at_once(fake.recycle(&mut one)), Some(Ok(())));
    assert_eq!(one.left_behind(), [] as [String; 0]);
}

#[test]
fn health_is_what_the_test_says() {
    let fake = FakeFactory::new();
    let mut one = connection(&fake, "a");
    for health in [Health::Dirty, Health::Broken, Health::Lost, Health::Clean] {
        one.set_health(health);
        assert_eq!(fake.health(&mut one), health);
    }
    one.panic_when_asked();
    assert!(panics(|| fake.health(&mut one)));
}

#[test]
fn use_after_close_by_two_holders_or_for_another_tenant_is_caught() {
    let fake = FakeFactory::new();
    let one = connection(&fake, "a");
    drop(one.use_it());
    drop(one.use_for("a"));
    fake.assert_no_misuse();

    assert!(panics(|| one.use_for("b")));
    let first = one.use_it();
    assert!(panics(|| one.use_it()));
    drop(first);
    let handle = one.handle();
    at_once(fake.close(one, LONG));
    assert!(panics(|| handle.use_it()));
    let expected = [
        "connection 1 of tenant a is used as one of tenant b",
        "connection 1 of tenant a is used by two holders at once",
        "connection 1 of tenant a is used after it was closed",
    ];
    assert_eq!(fake.misuses(), expected);
    assert!(panics(|| fake.assert_no_misuse()));
}

#[test]
fn closing_under_a_user_is_caught() {
    let fake = FakeFactory::new();
    let one = connection(&fake, "a");
    let _using = one.use_it();
    assert!(panics(|| at_once(fake.close(one, LONG))));
    assert_eq!(fake.misuses(), ["connection 1 of tenant a is closed under its user"]);
}

#[tokio::test(start_paused = true)]
async fn a_pool_counts_with_all_its_places_until_its_last_connection_is_back() {
    let fake = FakeFactory::new();
    let pool = fake.open_pool(&tenant("a"), 3).await.expect("opens");
    assert_eq!((fake.open().now, pool.max()), (3, 3));
    let kept = pool.clone();
    let out = kept.get().await.expect("a connection");
    let mut close = pin!(fake.close_pool(pool));
    assert!(tokio::time::timeout(LONG, close.as_mut()).await.is_err());
    assert_eq!(fake.open().now, 3);
    drop(out);
    close.await;
    assert_eq!(fake.open(), Places { now: 0, most: 3 });
    assert!(kept.get().await.is_err(), "a closed pool gives nothing");
    drop(kept);
    let last = fake.take_events().pop();
    assert_eq!(last, Some(Event::PoolClosed { tenant: tenant("a"), id: 1 }));
}

#[test]
fn a_dropped_pool_stops_counting_and_is_told_from_a_closed_one() {
    let fake = FakeFactory::new();
    let pool = at_once(fake.open_pool(&tenant("a"), 2)).expect("instant").expect("opens");
    let clone = pool.clone();
    drop(pool);
    assert_eq!(fake.open().now, 2);
    drop(clone);
    assert_eq!(fake.open().now, 0);
    assert_eq!(fake.events().pop(), Some(Event::PoolDropped { tenant: tenant("a"), id: 1 }));
}

#[test]
fn only_the_latest_events_are_kept() {
    let fake = FakeFactory::new();
    fake.keep_events(1);
    let one = connection(&fake, "a");
    assert_eq!(fake.events(), [Event::Connected { tenant: tenant("a"), id: 1 }]);
    fake.keep_events(0);
    assert_eq!(fake.events(), []);
    drop(one);
    assert_eq!(fake.open().now, 0);
}
