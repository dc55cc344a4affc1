//! Checks of making and dropping databases.

use tenantry_core::{Created, Dropped, FailureKind, PoolFactory, Provision, TenantId};

use super::Subject;
use super::steps::{Step, close, connect, ensure, ensure_server_side_is_free, fail, refused};

/// Names that a rule which folds case, replaces or cuts would take for one another.
const NEARLY_THE_SAME: [&str; 6] = ["nearly-a", "nearly_a", "nearly a", "Nearly-a", "nearly-a ", "nearly.a"];

async fn create<S: Subject<Factory: Provision>>(subject: &S, tenant: &TenantId) -> Step<Created> {
    match subject.factory().create(tenant).await {
        Ok(created) => Ok(created),
        Err(error) => fail(format!("cannot create {tenant:?}: {error:?}")),
    }
}

async fn drop_database<S: Subject<Factory: Provision>>(subject: &S, tenant: &TenantId) -> Step<Dropped> {
    match subject.factory().drop_database(tenant).await {
        Ok(dropped) => Ok(dropped),
        Err(error) => fail(format!("cannot drop {tenant:?}: {error:?}")),
    }
}

pub(super) async fn creating_twice_is_new_then_already_there<S: Subject<Factory: Provision>>(subject: &S) -> Step {
    let missing = subject.missing_tenant();
    let (first, second) = (create(subject, &missing).await?, create(subject, &missing).await?);
    ensure!((first, second) == (Created::New, Created::AlreadyThere), "creating twice is {first:?}, then {second:?}");
    let mut connection = connect(subject, &missing).await?;
    subject.keep(&mut connection, "kept").await?;
    close(subject, connection).await;
    create(subject, &missing).await?;
    let mut connection = connect(subject, &missing).await?;
    let words = subject.words(&mut connection).await?;
    close(subject, connection).await;
    ensure!(words == ["kept"], "creating a database that is there changed what is in it: {words:?}");
    drop_database(subject, &missing).await?;
    Ok(())
}

pub(super) async fn dropping_twice_is_gone_then_was_absent<S: Subject<Factory: Provision>>(subject: &S) -> Step {
    let missing = subject.missing_tenant();
    create(subject, &missing).await?;
    let (first, second) = (drop_database(subject, &missing).await?, drop_database(subject, &missing).await?);
    ensure!((first, second) == (Dropped::Gone, Dropped::WasAbsent), "dropping twice is {first:?}, then {second:?}");
    let (kind, error) = refused(subject.factory(), &missing).await?;
    ensure!(
        kind == FailureKind::NoSuchTenant,
        "a connect to a dropped database is {kind:?}, not NoSuchTenant: {error:?}"
    );
    Ok(())
}

pub(super) async fn names_that_nearly_collide_have_databases_of_their_own<S: Subject<Factory: Provision>>(
    subject: &S,
) -> Step {
    let mut made = Vec::new();
    for name in NEARLY_THE_SAME {
        let tenant = match TenantId::new(name) {
            Ok(tenant) => tenant,
            Err(error) => return fail(format!("{name:?} is no tenant: {error}")),
        };
        match subject.factory().create(&tenant).await {
            Ok(Created::New) => {}
            Ok(Created::AlreadyThere) => return fail(format!("{name:?} has the database of another tenant")),
            // Refusing a name is right where it could collide.
            Err(error) if subject.factory().classify(&error) == FailureKind::InvalidName => continue,
            Err(error) => return fail(format!("cannot create {name:?}: {error:?}")),
        }
        let mut connection = connect(subject, &tenant).await?;
        subject.keep(&mut connection, name).await?;
        close(subject, connection).await;
        made.push(tenant);
    }
    ensure!(!made.is_empty(), "every name was refused, {NEARLY_THE_SAME:?}");
    for tenant in &made {
        let mut connection = connect(subject, tenant).await?;
        let words = subject.words(&mut connection).await?;
        close(subject, connection).await;
        ensure!(words == [tenant.as_str()], "the database of {tenant:?} holds {words:?}");
    }
    for tenant in &made {
        let dropped = drop_database(subject, tenant).await?;
        ensure!(dropped == Dropped::Gone, "the database of {tenant:?} went with that of another one");
    }
    Ok(())
}

pub(super) async fn making_and_dropping_leave_no_connection<S: Subject<Factory: Provision>>(subject: &S) -> Step {
    let missing = subject.missing_tenant();
    create(subject, &missing).await?;
    ensure_server_side_is_free(subject, &missing, true, "a create").await?;
    drop_database(subject, &missing).await?;
    ensure_server_side_is_free(subject, &missing, true, "a drop").await
}
