//! Checks of connects that have to fail: what they are called, and what they must not do.

use tenantry_core::{FailureKind, PoolFactory, TenantId};

use super::steps::{Step, ensure, fail, refused};
use super::{ConnectionOf, Limited, Subject};

/// Names that reach elsewhere where they are pasted into a URL, a path or SQL.
const HOSTILE: [&str; 16] = [
    "../../etc/passwd",
    "/tmp/elsewhere",
    "..",
    ".",
    "a/b",
    "a\\b",
    "a\"; DROP DATABASE b; --",
    "a'; --",
    "a?host=elsewhere",
    "a#b",
    "user:secret@elsewhere",
    "a%2Fb",
    "file:a?mode=memory",
    ":memory:",
    "$(id)",
    " ",
];

/// A server may cut names at 63 or 64 bytes, a file system at 255.
const LONGEST: usize = 255;

fn tenant(name: &str) -> Step<TenantId> {
    match TenantId::new(name) {
        Ok(tenant) => Ok(tenant),
        Err(error) => fail(format!("{name:?} is no tenant: {error}")),
    }
}

pub(super) async fn an_unknown_tenant_is_no_such_tenant_and_is_not_created<S: Subject>(subject: &S) -> Step {
    let missing = subject.missing_tenant();
    // The second time shows whether the first has made it.
    for time in ["first", "second"] {
        let (kind, error) = refused(subject.factory(), &missing).await?;
        let is_right = kind == FailureKind::NoSuchTenant;
        ensure!(
            is_right,
            "the {time} connect to a database that is not there is {kind:?}, not NoSuchTenant: {error:?}"
        );
    }
    Ok(())
}

pub(super) async fn hostile_names_reach_no_database<S: Subject>(subject: &S) -> Step {
    let missing = subject.missing_tenant();
    let long = missing.as_str().repeat(LONGEST / missing.as_str().len());
    // Trimmed, it would reach the database that is there.
    let [there, _] = subject.tenants();
    let padded = format!("{there}{}", " ".repeat(LONGEST - there.as_str().len()));
    let names = HOSTILE.into_iter().chain([long.as_str(), padded.as_str()]);
    for name in names {
        let (kind, error) = refused(subject.factory(), &tenant(name)?).await?;
        let is_right = matches!(kind, FailureKind::NoSuchTenant | FailureKind::InvalidName);
        ensure!(is_right, "a connect to {name:?} is {kind:?}, neither NoSuchTenant nor InvalidName: {error:?}");
    }
    Ok(())
}

pub(super) async fn a_wrong_password_is_auth<S: Subject>(subject: &S) -> Step {
    let [there, _] = subject.tenants();
    let factory = subject.with_wrong_password()?;
    let (kind, error) = refused(&factory, &there).await?;
    ensure!(kind == FailureKind::Auth, "a connect with a wrong password is {kind:?}, not Auth: {error:?}");
    Ok(())
}

pub(super) async fn a_server_that_is_not_there_is_unreachable<S: Subject>(subject: &S) -> Step {
    let [there, _] = subject.tenants();
    let factory = subject.with_unreachable_server()?;
    let (kind, error) = refused(&factory, &there).await?;
    ensure!(kind == FailureKind::Unreachable, "a connect to nobody is {kind:?}, not Unreachable: {error:?}");
    Ok(())
}

pub(super) async fn a_full_server_is_server_full_at_once_and_a_close_makes_room<S: Subject>(subject: &S) -> Step {
    let Limited { factory, tenant, limit } = subject.with_limited_server()?;
    let mut open: Vec<ConnectionOf<S>> = Vec::new();
    for number in 1..=limit {
        match factory.connect(&tenant).await {
            Ok(connection) => open.push(connection),
            Err(error) => return fail(format!("connect {number} of {limit} that there is room for failed: {error:?}")),
        }
    }
    for _ in 0..10 {
        // A factory that waits for room here would never come back: nobody makes any.
        let (kind, error) = refused(&factory, &tenant).await?;
        ensure!(kind == FailureKind::ServerFull, "a connect to a full server is {kind:?}, not ServerFull: {error:?}");
        let Some(oldest) = open.pop() else { return fail("the limit is 0") };
        factory.close(oldest, super::steps::CLOSE_WITHIN).await;
        let again = if subject.knows_when_the_server_lets_go() {
            factory.connect(&tenant).await
        } else {
            until_let_in(&factory, &tenant).await
        };
        match again {
            Ok(connection) => open.push(connection),
            Err(error) => return fail(format!("a close made no room for a connect right after it: {error:?}")),
        }
    }
    for connection in open {
        factory.close(connection, super::steps::CLOSE_WITHIN).await;
    }
    Ok(())
}

/// Connects again while the server says that it is full; the check's own bound ends it.
async fn until_let_in<F: PoolFactory>(factory: &F, tenant: &TenantId) -> Result<F::Connection, F::Error> {
    loop {
        match factory.connect(tenant).await {
            Err(error) if factory.classify(&error) == FailureKind::ServerFull => tokio::task::yield_now().await,
            answer => return answer,
        }
    }
}

pub(super) async fn no_error_holds_a_secret<S: Subject>(subject: &S) -> Step {
    let [there, _] = subject.tenants();
    let missing = subject.missing_tenant();
    let invalid = tenant(HOSTILE[0])?;
    let mut errors = Vec::new();
    for name in [&missing, &invalid] {
        errors.push(refused(subject.factory(), name).await?.1);
    }
    for factory in [subject.with_wrong_password(), subject.with_unreachable_server()].into_iter().flatten() {
        errors.push(refused(&factory, &there).await?.1);
    }
    for error in &errors {
        let mut texts = vec![format!("{error}"), format!("{error:?}")];
        let mut source = std::error::Error::source(error);
        while let Some(error) = source {
            texts.push(format!("{error}"));
            source = error.source();
        }
        for secret in subject.secrets() {
            let leak = texts.iter().find(|text| text.contains(&secret));
            ensure!(leak.is_none(), "an error holds a secret, which ends up in logs; it begins {:?}", begin(leak));
        }
    }
    Ok(())
}

/// The first words of a text that holds a secret: enough to find the error, most likely without the secret.
fn begin(text: Option<&String>) -> String {
    text.map(|text| text.chars().take(24).collect()).unwrap_or_default()
}
