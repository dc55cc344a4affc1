//! `SqliteFactory`: files are made by `create` only, freed by `close`, and named so that no two tenants share one.

mod support;

use std::collections::HashSet;
use std::error::Error as _;

use sqlx::Row;
use support::sqlite::{Folder, files, open_files};
use support::{PATIENCE, in_time, tenant};
use tenantry_core::{Created, Dropped, FailureKind, NativePool, PoolFactory, Provision};
use tenantry_sqlx::{Error, InvalidName, SqliteFactory};

#[tokio::test]
async fn connecting_never_makes_a_file() {
    let directory = tempfile::tempdir().unwrap();
    let factory = SqliteFactory::new(directory.path());
    let error = factory.connect(&tenant("stranger")).await.expect_err("no such tenant");
    assert!(matches!(error, Error::NoSuchTenant { .. }), "{error:?}");
    assert_eq!(factory.classify(&error), FailureKind::NoSuchTenant);
    assert!(error.source().unwrap().downcast_ref::<sqlx::Error>().is_some());
    let error = factory.open_pool(&tenant("stranger"), 2).await.expect_err("no such tenant");
    assert_eq!(factory.classify(&error), FailureKind::NoSuchTenant);
    assert_eq!(files(&directory), [""; 0]);
}

#[tokio::test]
async fn a_folder_that_is_missing_is_unreachable_and_not_a_missing_tenant() {
    let directory = tempfile::tempdir().unwrap();
    let factory = SqliteFactory::new(directory.path().join("not-mounted"));
    let error = factory.connect(&tenant("acme")).await.unwrap_err();
    assert_eq!(factory.classify(&error), FailureKind::Unreachable, "{error:?}");

    assert_eq!(factory.create(&tenant("acme")).await.unwrap(), Created::New, "creating makes the folder");
    factory.connect(&tenant("acme")).await.unwrap();
}

#[tokio::test]
async fn a_database_is_made_once_and_dropped_with_all_its_files() {
    let folder = Folder::new().await;
    assert_eq!(folder.factory.create(&folder.acme).await.unwrap(), Created::AlreadyThere);
    let mut lease = folder.lease().await;
    sqlx::query("INSERT INTO note (text) VALUES ('kept')").execute(&mut *lease).await.unwrap();
    assert!(folder.files().contains(&"acme.db-wal".to_owned()), "{:?}", folder.files());

    assert_eq!(folder.factory.drop_database(&folder.acme).await.unwrap(), Dropped::Gone);
    assert_eq!(folder.files(), [""; 0]);
    assert_eq!(folder.factory.drop_database(&folder.acme).await.unwrap(), Dropped::WasAbsent);
    folder.factory.close(lease.into_inner(), PATIENCE).await;
    assert_eq!(folder.files(), [""; 0], "a late close brings nothing back");
    folder.factory.connect(&folder.acme).await.expect_err("it is gone");
}

#[tokio::test]
async fn what_a_cut_short_drop_left_never_reaches_a_new_database() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    sqlx::query("INSERT INTO note (text) VALUES ('secret')").execute(&mut *lease).await.unwrap();
    // As if the process had died between the two removals, and the log still held the row.
    std::fs::remove_file(folder.directory.path().join("acme.db")).unwrap();
    std::mem::forget(lease);
    assert!(folder.files().contains(&"acme.db-wal".to_owned()));

    assert_eq!(folder.factory.create(&folder.acme).await.unwrap(), Created::New);
    let mut lease = folder.lease().await;
    let tables = sqlx::query("SELECT name FROM sqlite_schema").fetch_all(&mut *lease).await.unwrap();
    assert!(tables.is_empty());
}

#[tokio::test]
async fn of_many_who_create_at_once_one_is_told_new() {
    let directory = tempfile::tempdir().unwrap();
    let tasks: Vec<_> = (0..25)
        .map(|_| {
            // A factory of its own, as in another process.
            let factory = SqliteFactory::new(directory.path());
            tokio::spawn(async move { factory.create(&tenant("acme")).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += u32::from(task.await.unwrap() == Created::New);
    }
    assert_eq!(new, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_drop_never_takes_the_log_of_a_database_made_anew() {
    let directory = tempfile::tempdir().unwrap();
    let acme = tenant("acme");
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (factory, acme) = (SqliteFactory::new(directory.path()), acme.clone());
            tokio::spawn(async move {
                for _ in 0..25 {
                    match task % 2 {
                        0 => drop(factory.create(&acme).await.expect("nothing in the way")),
                        _ => drop(factory.drop_database(&acme).await.expect("nothing in the way")),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        in_time(task).await.unwrap();
    }
}

#[tokio::test]
async fn names_that_could_meet_in_one_file_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let factory = SqliteFactory::new(directory.path().join("tenants"));
    for name in ["../acme", "a/b", "a\\b", "Acme", "ACME", "café", "con", ".", "..", "a.", "a:b", "x%"] {
        for error in [
            factory.connect(&tenant(name)).await.expect_err(name),
            factory.create(&tenant(name)).await.expect_err(name),
            factory.drop_database(&tenant(name)).await.expect_err(name),
            factory.open_pool(&tenant(name), 1).await.expect_err(name),
        ] {
            assert!(matches!(error, Error::InvalidName(_)), "{name}: {error:?}");
            assert_eq!(factory.classify(&error), FailureKind::InvalidName);
            let told = error.source().unwrap().to_string();
            assert!(!error.to_string().contains(&told), "{told} is said twice");
        }
    }
    let Err(Error::InvalidName(name)) = factory.connect(&tenant("Acme")).await else { panic!("upper case") };
    assert!(matches!(name, InvalidName::UpperCase { .. }));
    assert_eq!(files(&directory), [""; 0]);
}

#[tokio::test]
async fn encoded_names_take_any_tenant_each_to_its_own_file() {
    let directory = tempfile::tempdir().unwrap();
    let factory = SqliteFactory::new(directory.path().join("tenants")).encoded_names(true);
    let names =
        ["acme", "Acme", "ACME", "../acme", "a/b", "a\\b", "café", "cafe\u{301}", "con", "..", "%41cme", "日本"];
    for name in names {
        assert_eq!(factory.create(&tenant(name)).await.unwrap(), Created::New, "{name}");
        let connection = factory.connect(&tenant(name)).await.unwrap();
        factory.close(connection, PATIENCE).await;
    }
    let found = std::fs::read_dir(directory.path().join("tenants")).unwrap();
    let folded: HashSet<String> =
        found.map(|e| e.unwrap().file_name().into_string().unwrap().to_ascii_lowercase()).collect();
    assert_eq!(folded.len(), names.len());
    assert_eq!(files(&directory), ["tenants"], "nothing left the folder");
}

#[tokio::test]
async fn a_connection_is_opened_with_the_settings_promised() {
    let folder = Folder::new().await;
    let mut lease = folder.lease().await;
    let row = sqlx::query(
        "SELECT (SELECT journal_mode FROM pragma_journal_mode), (SELECT foreign_keys FROM pragma_foreign_keys),
                (SELECT timeout FROM pragma_busy_timeout)",
    )
    .fetch_one(&mut *lease)
    .await
    .unwrap();
    assert_eq!((row.get::<String, _>(0).as_str(), row.get::<i64, _>(1), row.get::<i64, _>(2)), ("wal", 1, 5000));
    assert_eq!(folder.factory.max_per_tenant(), Some(1));
}

#[tokio::test]
async fn closing_frees_the_file_at_once() {
    let folder = Folder::new().await;
    for _ in 0..50 {
        let mut lease = folder.lease().await;
        sqlx::query("INSERT INTO note (text) VALUES ('a')").execute(&mut *lease).await.unwrap();
        in_time(folder.factory.close(lease.into_inner(), PATIENCE)).await;
        assert_eq!(folder.files(), ["acme.db"]);
        assert_eq!(open_files(folder.directory.path()), 0);
    }
}

#[tokio::test]
async fn a_failing_hook_fails_the_connect_and_frees_the_file() {
    let folder = Folder::new().await;
    let factory = folder.factory.clone().after_connect(|raw, _| {
        Box::pin(async move { sqlx::raw_sql("SELECT * FROM nowhere").execute(raw).await.map(drop) })
    });
    let error = factory.connect(&folder.acme).await.unwrap_err();
    assert!(matches!(error, Error::Sqlx { during: tenantry_sqlx::During::AfterConnect, .. }), "{error:?}");
    assert_eq!(factory.classify(&error), FailureKind::Other);
    assert_eq!(open_files(folder.directory.path()), 0);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_of_its_own() {
    let directory = tempfile::tempdir().unwrap();
    let factory = SqliteFactory::new(directory.path());
    std::fs::write(directory.path().join("acme.db"), "not a database, but long enough to be looked at. ".repeat(50))
        .unwrap();
    let error = factory.connect(&tenant("acme")).await.unwrap_err();
    assert_eq!(factory.classify(&error), FailureKind::Other, "{error:?}");
    assert_eq!(error.code().as_deref(), Some("26"));
}

#[tokio::test]
async fn a_pool_of_sqlxs_own_holds_no_more_than_asked_for_and_is_empty_when_closed() {
    let folder = Folder::new().await;
    let pool = folder.factory.open_pool(&folder.acme, 2).await.unwrap();
    let mut one = pool.acquire().await.unwrap();
    let two = pool.acquire().await.unwrap();
    assert!(pool.try_acquire().is_none());
    assert_eq!(pool.size(), 2);
    sqlx::query("INSERT INTO note (text) VALUES ('a')").execute(&mut *one).await.unwrap();
    drop(two);

    let closing = tokio::spawn({
        let (factory, pool) = (folder.factory.clone(), pool.clone());
        async move { factory.close_pool(pool).await }
    });
    in_time(pool.close_event()).await;
    assert!(!closing.is_finished(), "one connection is still in use");
    drop(one);
    in_time(closing).await.unwrap();
    assert_eq!(open_files(folder.directory.path()), 0);
}

#[test]
fn no_setting_of_a_connection_shows_in_debug() {
    let factory = SqliteFactory::new("/srv").connect_options(|options| options.pragma("key", "'hunter2'"));
    assert!(!format!("{factory:?}").contains("hunter2"));
}
