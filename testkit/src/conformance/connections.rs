//! Checks of connections that can be had: clean and dirty, used half-way, lost, closed and dropped.

use std::time::Duration;

use tenantry_core::{FailureKind, Health, PoolFactory};
use tokio::time::Instant;

use super::Subject;
use super::steps::{
    CLOSE_WITHIN, Step, close, connect, drop_after, ensure, ensure_nothing_left, ensure_server_side_is_free, fail,
    health, recycle,
};

/// Points at which something is dropped: polls of its future.
const POINTS: [usize; 6] = [1, 2, 3, 4, 6, 9];

/// What a recycle is given where a query may be in its way.
const RECYCLE_WITHIN: Duration = Duration::from_secs(2);

/// What a silent server's connection is given to close.
const SHORT: Duration = Duration::from_millis(50);

/// How far past its time a close may come back on a busy machine.
const SLACK: Duration = Duration::from_secs(10);

pub(super) async fn a_new_connection_is_clean_and_answers<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    let mut connection = connect(subject, &tenant).await?;
    let found = health(subject, &mut connection);
    ensure!(found == Health::Clean, "a new connection is {found:?}, not Clean");
    ensure_nothing_left(subject, &mut connection, "a connect").await?;
    subject.ask(&mut connection).await?;
    let count = subject.server_side(&tenant).await?;
    ensure!(count == 1, "one connect made {count} connections on the server");
    close(subject, connection).await;
    Ok(())
}

pub(super) async fn tenants_do_not_see_each_other<S: Subject>(subject: &S) -> Step {
    let [one, other] = subject.tenants();
    let mut of_one = connect(subject, &one).await?;
    let mut of_other = connect(subject, &other).await?;
    subject.keep(&mut of_one, "word-of-one").await?;
    let seen = subject.words(&mut of_other).await?;
    ensure!(
        !seen.iter().any(|word| word == "word-of-one"),
        "{other:?} sees what {one:?} kept: two tenants, one database"
    );
    let mut again = connect(subject, &one).await?;
    let seen = subject.words(&mut again).await?;
    ensure!(
        seen.iter().any(|word| word == "word-of-one"),
        "a second connection of {one:?} does not see what the first kept"
    );
    for connection in [of_one, of_other, again] {
        close(subject, connection).await;
    }
    Ok(())
}

pub(super) async fn a_clean_use_leaves_a_connection_clean<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    let mut connection = connect(subject, &tenant).await?;
    for _ in 0..3 {
        subject.ask(&mut connection).await?;
        let found = health(subject, &mut connection);
        ensure!(
            found == Health::Clean,
            "after a use that leaves nothing it is {found:?}: every release would cost a recycle"
        );
    }
    close(subject, connection).await;
    Ok(())
}

pub(super) async fn what_is_left_is_seen_and_a_recycle_clears_it<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    for way in subject.ways_to_leave() {
        let mut connection = connect(subject, &tenant).await?;
        subject.leave(&mut connection, way).await?;
        match health(subject, &mut connection) {
            Health::Clean => return fail(format!("with {way:?} left on it, a connection is called Clean")),
            Health::Lost => return fail(format!("with {way:?} left on it, a connection is called Lost")),
            // Closing it is a way to be clean as well, if a costly one.
            Health::Broken => {}
            Health::Dirty => {
                recycle(subject, &mut connection).await?;
                ensure_nothing_left(subject, &mut connection, "a recycle").await?;
                let found = health(subject, &mut connection);
                ensure!(found == Health::Clean, "after {way:?} and a recycle it is {found:?}, not Clean");
                subject.ask(&mut connection).await?;
            }
        }
        close(subject, connection).await;
    }
    Ok(())
}

pub(super) async fn a_recycle_keeps_a_clean_connection_usable<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    let mut connection = connect(subject, &tenant).await?;
    for _ in 0..2 {
        subject.ask(&mut connection).await?;
        recycle(subject, &mut connection).await?;
    }
    subject.ask(&mut connection).await?;
    let found = health(subject, &mut connection);
    ensure!(found == Health::Clean, "after recycles of a clean connection it is {found:?}");
    close(subject, connection).await;
    Ok(())
}

pub(super) async fn a_use_dropped_half_way_never_reaches_the_next_user<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    for point in POINTS {
        let mut connection = connect(subject, &tenant).await?;
        drop_after(point, subject.interruptible(&mut connection)).await;
        match health(subject, &mut connection) {
            Health::Broken | Health::Lost => {}
            found => {
                if found == Health::Dirty {
                    let recycled = tokio::time::timeout(RECYCLE_WITHIN, recycle(subject, &mut connection)).await;
                    let Ok(recycled) = recycled else {
                        // As a manager does with one that takes too long.
                        close(subject, connection).await;
                        continue;
                    };
                    recycled?;
                }
                let after = format!("a use dropped after {point} polls, which made it {found:?},");
                ensure_nothing_left(subject, &mut connection, &after).await?;
                subject.ask(&mut connection).await?;
                ensure_nothing_left(subject, &mut connection, &after).await?;
            }
        }
        close(subject, connection).await;
    }
    Ok(())
}

pub(super) async fn a_killed_connection_is_lost<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    let mut connection = connect(subject, &tenant).await?;
    subject.kill(&mut connection).await?;
    // It may be seen by itself or only when it is asked.
    match subject.factory().recycle(&mut connection).await {
        Ok(()) => return fail("a recycle of a connection that the server has ended succeeded"),
        Err(error) => {
            let kind = subject.factory().classify(&error);
            ensure!(
                kind == FailureKind::Unreachable,
                "recycling an ended connection is {kind:?}, not Unreachable: {error:?}"
            );
        }
    }
    let found = health(subject, &mut connection);
    ensure!(
        found == Health::Lost,
        "a connection that the server has ended is {found:?}, not Lost, after a use has shown it"
    );
    close(subject, connection).await;
    Ok(())
}

pub(super) async fn a_close_frees_the_server_side<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    for _ in 0..20 {
        let mut connection = connect(subject, &tenant).await?;
        subject.ask(&mut connection).await?;
        close(subject, connection).await;
        ensure_server_side_is_free(subject, &tenant, subject.knows_when_the_server_lets_go(), "a close").await?;
    }
    Ok(())
}

pub(super) async fn a_close_after_a_dropped_use_frees_the_server_side<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    for point in POINTS {
        let mut connection = connect(subject, &tenant).await?;
        drop_after(point, subject.interruptible(&mut connection)).await;
        let start = Instant::now();
        close(subject, connection).await;
        let took = start.elapsed();
        ensure!(took <= CLOSE_WITHIN + SLACK, "a close after a use dropped half-way took {took:?} of {CLOSE_WITHIN:?}");
        ensure_server_side_is_free(subject, &tenant, subject.knows_when_the_server_lets_go(), "such a close").await?;
    }
    Ok(())
}

pub(super) async fn a_drop_frees_the_server_side_soon<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    let mut connection = connect(subject, &tenant).await?;
    subject.ask(&mut connection).await?;
    drop(connection);
    ensure_server_side_is_free(subject, &tenant, false, "a drop").await
}

pub(super) async fn a_connect_dropped_half_way_leaves_nothing<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    for point in POINTS {
        drop_after(point, subject.factory().connect(&tenant)).await;
    }
    ensure_server_side_is_free(subject, &tenant, false, "connects dropped half-way").await
}

pub(super) async fn a_close_ends_within_its_time_when_the_server_is_silent<S: Subject>(subject: &S) -> Step {
    let [tenant, _] = subject.tenants();
    for is_at_rest in [true, false] {
        let mut connection = connect(subject, &tenant).await?;
        subject.ask(&mut connection).await?;
        subject.silence(true).await?;
        if !is_at_rest {
            // Its answer will never come, and a driver that reads on until it is at rest has to stop at its bound.
            drop_after(2, subject.interruptible(&mut connection)).await;
        }
        let closed = tokio::time::timeout(SHORT + SLACK, subject.factory().close(connection, SHORT)).await;
        subject.silence(false).await?;
        let what = if is_at_rest { "a close" } else { "a close after a use dropped half-way" };
        ensure!(
            closed.is_ok(),
            "{what} that was given {SHORT:?} had not ended {SLACK:?} later, with a server that is silent"
        );
        ensure_server_side_is_free(subject, &tenant, false, "a close at its bound").await?;
    }
    Ok(())
}
