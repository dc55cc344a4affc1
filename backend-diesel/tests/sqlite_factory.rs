//! `SqliteFactory`: files are made by `create` only, freed by `close`, and named as the other driver names them.
#![cfg(feature = "sqlite")]
#![allow(missing_docs, reason = "tests")]

#[path = "support/sqlite.rs"]
mod support;

use std::error::Error as _;

use diesel::connection::SimpleConnection as _;
use diesel_async::SimpleAsyncConnection as _;
use support::{Folder, LONG, files, notes, number, open_files, tenant, texts};
use tenantry_core::{Created, Dropped, EitherFactory, FailureKind, PoolFactory as _, Provision as _, TenantPools};
use tenantry_diesel::{Error, InvalidName, SqliteFactory};

#[tokio::test]
async fn connecting_never_makes_a_file() {
    let directory = tempfile::tempdir().expect("a folder");
    let factory = SqliteFactory::new(directory.path());
    let error = factory.connect(&tenant("stranger")).await.expect_err("no such tenant");
    assert!(matches!(error, Error::NoSuchTenant), "{error:?}");
    assert_eq!(factory.classify(&error), FailureKind::NoSuchTenant);
    assert_eq!(files(&directory), [""; 0]);
}

#[tokio::test]
async fn a_folder_that_is_missing_is_unreachable_and_not_a_missing_tenant() {
    let directory = tempfile::tempdir().expect("a folder");
    let factory = SqliteFactory::new(directory.path().join("not-mounted"));
    let error = factory.connect(&tenant("acme")).await.expect_err("not there");
    assert_eq!(factory.classify(&error), FailureKind::Unreachable, "{error:?}");
    assert_eq!(factory.drop_database(&tenant("acme")).await.expect("not there"), Dropped::WasAbsent);

    assert_eq!(factory.create(&tenant("acme")).await.expect("makes the folder"), Created::New);
    factory.connect(&tenant("acme")).await.expect("connects");
}

#[tokio::test]
async fn a_database_is_made_once_and_dropped_with_all_its_files() {
    let folder = Folder::new().await;
    assert_eq!(folder.factory.create(&folder.acme).await.expect("is there"), Created::AlreadyThere);
    let mut connection = folder.connect().await;
    connection.batch_execute("INSERT INTO note VALUES ('kept')").await.expect("inserts");
    assert!(folder.files().contains(&"acme.db-wal".to_owned()), "{:?}", folder.files());

    assert_eq!(folder.factory.drop_database(&folder.acme).await.expect("drops"), Dropped::Gone);
    assert_eq!(folder.files(), [""; 0]);
    let error = folder.factory.recycle(&mut connection).await.expect_err("its file is gone");
    assert_eq!(folder.factory.classify(&error), FailureKind::NoSuchTenant);
    folder.factory.close(connection, LONG).await;
    assert_eq!(folder.files(), [""; 0], "a late close brings nothing back");
    folder.factory.connect(&folder.acme).await.expect_err("it is gone");
}

#[tokio::test]
async fn what_a_cut_short_drop_left_never_reaches_a_new_database() {
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    connection.batch_execute("INSERT INTO note VALUES ('secret')").await.expect("inserts");
    // As if the process had died between the two removals, and the log still held the row.
    std::fs::remove_file(folder.directory.path().join("acme.db")).expect("removes");
    std::mem::forget(connection);
    assert!(folder.files().contains(&"acme.db-wal".to_owned()));

    assert_eq!(folder.factory.create(&folder.acme).await.expect("creates"), Created::New);
    let mut connection = folder.connect().await;
    assert_eq!(number(&mut connection, "SELECT count(*) FROM sqlite_schema").await, 0);
}

#[tokio::test]
async fn of_many_who_create_at_once_by_either_driver_one_is_told_new() {
    let directory = tempfile::tempdir().expect("a folder");
    let tasks: Vec<_> = (0..20)
        .map(|task| {
            let (one, two) =
                (SqliteFactory::new(directory.path()), tenantry_sqlx::SqliteFactory::new(directory.path()));
            tokio::spawn(async move {
                match task % 2 {
                    0 => one.create(&tenant("acme")).await.expect("creates"),
                    _ => two.create(&tenant("acme")).await.expect("creates"),
                }
            })
        })
        .collect();
    let mut new = 0;
    for task in tasks {
        new += u32::from(task.await.expect("no panic") == Created::New);
    }
    assert_eq!(new, 1);
}

#[tokio::test]
async fn names_are_allowed_or_refused_and_placed_as_the_other_driver_does() {
    let directory = tempfile::tempdir().expect("a folder");
    let names = [
        "acme",
        "a-b_c",
        "shop.example.com",
        "two words",
        "com10",
        "../acme",
        "a/b",
        "a\\b",
        "Acme",
        "café",
        "cafe\u{301}",
        "con",
        "nul.x",
        "lpt9 .x",
        ".",
        "..",
        "a.",
        " a",
        "a..b",
        "a:b",
        "x%",
        "%41",
        "日本",
        "CON",
    ];
    let long = "a".repeat(245);
    for encoded in [false, true] {
        let one = SqliteFactory::new(directory.path()).encoded_names(encoded);
        let two = tenantry_sqlx::SqliteFactory::new(directory.path()).encoded_names(encoded);
        for name in names.into_iter().chain([&*long, &long[1..]]) {
            match (one.file(&tenant(name)), two.file(&tenant(name))) {
                (Ok(one), Ok(two)) => assert_eq!(one, two, "{name}"),
                (Err(one), Err(two)) => {
                    assert_eq!(one.source().map(ToString::to_string), two.source().map(ToString::to_string), "{name}");
                }
                (one, two) => panic!("{name}: {one:?} and {two:?}"),
            }
        }
    }
    let factory = SqliteFactory::new(directory.path());
    let error = factory.create(&tenant("Acme")).await.expect_err("upper case");
    assert_eq!(factory.classify(&error), FailureKind::InvalidName);
    assert!(matches!(error, Error::InvalidName(InvalidName::UpperCase { at: 0, .. })));
    assert_eq!(files(&directory), [""; 0]);
}

#[tokio::test]
async fn any_name_can_have_a_file_whatever_it_means_in_a_uri() {
    let directory = tempfile::tempdir().expect("a folder");
    let within = directory.path().join("a folder?mode=memory#%41");
    let factory = SqliteFactory::new(&within).encoded_names(true);
    for name in ["acme", "Acme", "a?mode=memory", "a#b", "%41cme", "日本", "../x"] {
        assert_eq!(factory.create(&tenant(name)).await.expect(name), Created::New, "{name}");
        let mut connection = factory.connect(&tenant(name)).await.expect(name);
        let opened = texts(&mut connection, "SELECT file AS value FROM pragma_database_list").await;
        let expected = factory.file(&tenant(name)).expect(name);
        assert_eq!(opened, [expected.to_str().expect("UTF-8")]);
        factory.close(connection, LONG).await;
    }
    assert_eq!(files(&directory), ["a folder?mode=memory#%41"], "nothing left the folder");
}

#[tokio::test]
async fn a_connection_is_opened_with_the_settings_promised() {
    let folder = Folder::new().await;
    let mut connection = folder.connect().await;
    assert_eq!(texts(&mut connection, "SELECT journal_mode AS value FROM pragma_journal_mode").await, ["wal"]);
    assert_eq!(number(&mut connection, "SELECT foreign_keys FROM pragma_foreign_keys").await, 1);
    assert_eq!(number(&mut connection, "SELECT timeout FROM pragma_busy_timeout").await, 5000);
    assert_eq!(folder.factory.max_per_tenant(), Some(1));
}

#[tokio::test]
async fn closing_frees_the_file_at_once() {
    let folder = Folder::new().await;
    for _ in 0..50 {
        let mut connection = folder.connect().await;
        connection.batch_execute("INSERT INTO note VALUES ('a')").await.expect("inserts");
        folder.factory.close(connection, LONG).await;
        assert_eq!(folder.files(), ["acme.db"]);
        assert_eq!(open_files(folder.directory.path()), 0);
    }
}

#[tokio::test]
async fn a_connection_that_is_opened_anew_has_one_descriptor_and_the_hooks_settings() {
    let folder = Folder::new().await;
    let factory = folder
        .factory
        .clone()
        .after_connect(|raw, tenant| raw.batch_execute(&format!("PRAGMA cache_size = {}", tenant.as_str().len())));
    let mut connection = factory.connect(&folder.acme).await.expect("connects");
    for _ in 0..5 {
        connection.batch_execute("PRAGMA cache_size = 100").await.expect("sets");
        factory.recycle(&mut connection).await.expect("recycles");
        assert_eq!(number(&mut connection, "SELECT cache_size FROM pragma_cache_size").await, 4);
        assert_eq!(support::open_databases(&factory.file(&folder.acme).expect("a name")), 1);
    }
}

#[tokio::test]
async fn a_failing_hook_fails_the_connect_and_frees_the_file() {
    let folder = Folder::new().await;
    let factory = folder.factory.clone().after_connect(|raw, _| raw.batch_execute("SELECT * FROM nowhere"));
    let error = factory.connect(&folder.acme).await.expect_err("no such table");
    assert!(matches!(error, Error::SetUp(_)), "{error:?}");
    assert_eq!(factory.classify(&error), FailureKind::Other);
    assert_eq!(open_files(folder.directory.path()), 0);
}

#[tokio::test]
async fn a_file_that_is_no_database_is_an_error_of_its_own() {
    let directory = tempfile::tempdir().expect("a folder");
    let factory = SqliteFactory::new(directory.path());
    let text = "not a database, but long enough to be looked at. ".repeat(50);
    std::fs::write(directory.path().join("acme.db"), text).expect("writes");
    let error = factory.connect(&tenant("acme")).await.expect_err("no database");
    assert_eq!(factory.classify(&error), FailureKind::Other, "{error:?}");
}

#[tokio::test]
async fn a_connect_that_is_dropped_half_way_leaves_nothing_open() {
    let folder = Folder::new().await;
    for _ in 0..20 {
        let mut connect = Box::pin(folder.factory.connect(&folder.acme));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        // Under load its thread may be faster than this one.
        drop(connect.as_mut().poll(&mut context));
    }
    while open_files(folder.directory.path()) > 0 {
        tokio::task::yield_now().await;
    }
}

/// The old half of a service on diesel, the new one on sqlx, one file for each tenant and one budget.
#[tokio::test]
async fn two_drivers_take_turns_on_one_file_under_one_budget() {
    let folder = Folder::new().await;
    let sqlx = tenantry_sqlx::SqliteFactory::new(folder.directory.path());
    let either = EitherFactory::new(folder.factory.clone(), sqlx);
    let pools = TenantPools::builder(either).max_connections(1).build().expect("settings");
    for turn in 1..=5 {
        let mut left = pools.left().acquire("acme").await.expect("a lease");
        left.batch_execute("INSERT INTO note VALUES ('diesel')").await.expect("inserts");
        drop(left);
        let mut right = pools.right().acquire("acme").await.expect("a lease");
        let insert = sqlx::query("INSERT INTO note VALUES ('sqlx')");
        insert.execute(&mut *right).await.expect("inserts");
        let seen: i64 = sqlx::query_scalar("SELECT count(*) FROM note").fetch_one(&mut *right).await.expect("a number");
        assert_eq!(seen, 2 * turn);
        drop(right);
        assert!(support::open_databases(&folder.factory.file(&folder.acme).expect("a name")) <= 1);
    }
    let mut left = pools.left().acquire("acme").await.expect("a lease");
    assert_eq!(notes(&mut left).await, 10);
    drop(left);
    pools.close().await;
    assert_eq!(folder.files(), ["acme.db"]);
}
