//! Which connections a MySQL factory calls clean, what is left on one that it has recycled, and what diesel's code sees.
#![cfg(feature = "mysql")]
#![allow(missing_docs, reason = "tests")]

#[path = "support/mysql.rs"]
mod support;

use std::time::Duration;

use diesel::mysql::data_types::{MysqlTime, MysqlTimestampType};
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel::{ExpressionMethods as _, QueryDsl as _};
use diesel_async::{AsyncConnection as _, RunQueryDsl as _, SimpleAsyncConnection as _};
use futures_util::TryStreamExt as _;
use support::{Server, ask, cut_off, in_time, kill, number, opts, plain_query, tenant};
use tenantry_core::{FailureKind, Health, PoolFactory as _, TenantPools};
use tenantry_diesel::{MySqlConnection, MySqlFactory};
use tenantry_testkit::PrivateMariaDb;
use tenantry_testkit::servers::{User, patient};

diesel::table! {
    note (id) {
        id -> Integer,
        text -> Text,
    }
}

diesel::table! {
    kinds (id) {
        id -> Integer,
        tiny -> TinyInt,
        small -> SmallInt,
        big -> BigInt,
        tiny_up -> Unsigned<TinyInt>,
        small_up -> Unsigned<SmallInt>,
        plain_up -> Unsigned<Integer>,
        big_up -> Unsigned<BigInt>,
        real_one -> Float,
        double_one -> Double,
        flag -> Bool,
        word -> Nullable<Text>,
        bytes -> Blob,
        at -> Datetime,
        clock -> Time,
    }
}

const NOTE: &str = "CREATE TABLE note (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200) NOT NULL UNIQUE)";

const KINDS: &str = "CREATE TABLE kinds (id INT PRIMARY KEY, tiny TINYINT NOT NULL, small SMALLINT NOT NULL, \
                     big BIGINT NOT NULL, tiny_up TINYINT UNSIGNED NOT NULL, small_up SMALLINT UNSIGNED NOT NULL, \
                     plain_up INT UNSIGNED NOT NULL, big_up BIGINT UNSIGNED NOT NULL, real_one FLOAT NOT NULL, \
                     double_one DOUBLE NOT NULL, flag BOOL NOT NULL, word TEXT, bytes BLOB NOT NULL, \
                     at DATETIME(6) NOT NULL, clock TIME(6) NOT NULL) CHARSET utf8mb4";

impl Server {
    async fn with_note() -> (Self, MySqlConnection) {
        let server = Self::new().await;
        let mut connection = server.connect().await;
        connection.batch_execute(NOTE).await.expect("a table");
        server.recycle(&mut connection).await;
        (server, connection)
    }
}

async fn count(connection: &mut MySqlConnection) -> i64 {
    note::table.count().get_result(connection).await.expect("a count")
}

async fn insert(connection: &mut MySqlConnection, text: &str) -> Result<usize, DieselError> {
    diesel::insert_into(note::table).values(note::text.eq(text)).execute(connection).await
}

#[tokio::test]
async fn queries_failed_statements_and_resolved_transactions_leave_a_connection_clean() {
    let (server, mut connection) = Server::with_note().await;
    plain_query(&mut connection).await;
    assert_eq!(insert(&mut connection, "a").await.expect("a new one"), 1);
    let error = insert(&mut connection, "a").await.expect_err("it is unique");
    assert!(matches!(error, DieselError::DatabaseError(DatabaseErrorKind::UniqueViolation, _)), "{error:?}");
    assert_eq!(server.factory.health(&mut connection), Health::Clean);
    for keep in [true, false] {
        let answer: Result<(), DieselError> = connection
            .transaction(async |connection| {
                insert(connection, "b").await?;
                let inner: Result<(), _> = connection
                    .transaction(async |connection| {
                        insert(connection, "c").await?;
                        Err(DieselError::RollbackTransaction)
                    })
                    .await;
                assert_eq!(inner, Err(DieselError::RollbackTransaction));
                if keep { Ok(()) } else { Err(DieselError::RollbackTransaction) }
            })
            .await;
        assert_eq!(answer.is_ok(), keep);
        assert_eq!(server.factory.health(&mut connection), Health::Clean);
        diesel::delete(note::table.filter(note::text.eq("b"))).execute(&mut connection).await.expect("deletes");
    }
    assert_eq!(count(&mut connection).await, 1);
    let text: Vec<String> = note::table.select(note::text).load(&mut connection).await.expect("rows");
    assert_eq!(text, ["a"]);
    assert_eq!(server.factory.health(&mut connection), Health::Clean);
}

#[tokio::test]
async fn an_open_transaction_is_rolled_back_however_it_was_begun() {
    let (server, mut connection) = Server::with_note().await;
    for begin in ["BEGIN", "START TRANSACTION", "SET autocommit = 0", "/* of mine */ BEGIN"] {
        connection.batch_execute(begin).await.expect(begin);
        insert(&mut connection, "lost").await.expect("inserts");
        // An error of a statement leaves the transaction open.
        insert(&mut connection, "lost").await.expect_err("it is unique");
        server.recycle(&mut connection).await;
        assert_eq!(count(&mut connection).await, 0, "{begin}");
    }
    // One whose future is dropped at each of its steps.
    for polls in 1..40 {
        let mut connection = server.connect().await;
        let mut transaction = Box::pin(connection.transaction::<(), DieselError, _>(async |connection| {
            insert(connection, "lost").await?;
            number(connection, "SLEEP(0.001)").await;
            Err(DieselError::RollbackTransaction)
        }));
        for _ in 0..polls {
            if tokio::time::timeout(Duration::from_micros(100), &mut transaction).await.is_ok() {
                break;
            }
        }
        drop(transaction);
        match server.factory.health(&mut connection) {
            Health::Clean | Health::Broken => {}
            _ => in_time(server.factory.recycle(&mut connection)).await.expect("recycles"),
        }
        if server.factory.health(&mut connection) == Health::Clean {
            assert_eq!(number(&mut connection, "@@in_transaction").await, 0);
            assert_eq!(count(&mut connection).await, 0);
        }
        in_time(server.factory.close(connection, support::PATIENCE)).await;
    }
}

#[tokio::test]
async fn a_question_that_was_dropped_half_way_is_asked_to_its_end_before_anything_else() {
    let (server, mut connection) = Server::with_note().await;
    let slow = "INSERT INTO note (text) SELECT 'late' FROM dual WHERE SLEEP(0.1) = 0";
    assert!(cut_off(diesel::sql_query(slow).execute(&mut connection)));
    assert_eq!(server.factory.health(&mut connection), Health::Dirty);
    // The same user goes on: what was asked comes first.
    assert_eq!(in_time(count(&mut connection)).await, 1);
    assert_eq!(server.factory.health(&mut connection), Health::Clean);

    assert!(cut_off(number(&mut connection, "SLEEP(0.1)")));
    server.recycle(&mut connection).await;
    assert!(cut_off(connection.batch_execute("BEGIN")));
    in_time(async {
        while !matches!(server.factory.health(&mut connection), Health::Dirty) {
            tokio::task::yield_now().await;
        }
    })
    .await;
    server.recycle(&mut connection).await;
    assert_eq!(number(&mut connection, "@@in_transaction").await, 0);

    // A close waits until it is done. How long the session outlives the goodbye is up to the server.
    let id = number(&mut connection, "CONNECTION_ID()").await;
    assert!(cut_off(number(&mut connection, "SLEEP(0.2)")));
    in_time(server.factory.close(connection, support::PATIENCE)).await;
    let there: Vec<u64> = ask(
        &server.server,
        &format!("SELECT count(*) FROM information_schema.processlist WHERE id = {id} AND command = 'Query'"),
    )
    .await;
    assert_eq!(there, [0]);
}

#[tokio::test]
async fn rows_come_as_they_are_taken_and_what_is_left_of_them_is_read_away() {
    let (server, mut connection) = Server::with_note().await;
    let numbers = "INSERT INTO note (text) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900) \
                   SELECT CONCAT('note ', i) FROM n";
    connection.batch_execute(numbers).await.expect("inserts");
    server.factory.recycle(&mut connection).await.expect("recycles");
    let all: Vec<(i32, String)> = note::table.order(note::id).load(&mut connection).await.expect("rows");
    assert_eq!(all.len(), 900);
    assert_eq!(all[899].1, "note 900");
    assert_eq!(server.factory.health(&mut connection), Health::Clean);

    for taken in [0, 1, 63, 64, 65, 899, 900] {
        let rows = note::table.select(note::text).order(note::id).load_stream::<String>(&mut connection).await;
        let mut rows = rows.expect("a stream");
        for number in 1..=taken {
            assert_eq!(rows.try_next().await.expect("no error"), Some(format!("note {number}")));
        }
        drop(rows);
        plain_query(&mut connection).await;
        assert_eq!(server.factory.health(&mut connection), Health::Clean, "after {taken} rows");
    }
    // An error comes where it happens.
    let broken: Result<Vec<(i32, String)>, _> =
        diesel::dsl::sql::<(diesel::sql_types::Integer, diesel::sql_types::Text)>("SELECT nothing FROM nowhere")
            .load(&mut connection)
            .await;
    broken.expect_err("no such table");
    assert_eq!(server.factory.health(&mut connection), Health::Clean);
}

#[tokio::test]
async fn values_of_every_kind_come_back_as_they_went_in() {
    let server = Server::new().await;
    let mut connection = server.connect().await;
    connection.batch_execute(KINDS).await.expect("a table");
    let date = |year, month, day, [hour, minute, second]: [u32; 3], micros| {
        let kind = MysqlTimestampType::MYSQL_TIMESTAMP_DATETIME;
        MysqlTime::new(year, month, day, hour, minute, second, micros, false, kind, 0)
    };
    let least = (1, i8::MIN, i16::MIN, i64::MIN, 0_u8, 0_u16, 0_u32, 0_u64, -1.5_f32, f64::MIN, false);
    let most = (2, i8::MAX, i16::MAX, i64::MAX, u8::MAX, u16::MAX, u32::MAX, u64::MAX, f32::MAX, f64::MAX, true);
    let texts = [(None, vec![0_u8, 255]), (Some("né'\"\\ 🦀".to_owned()), Vec::new())];
    let times = [date(1000, 1, 1, [0, 0, 0], 0), date(9999, 12, 31, [23, 59, 59], 999_999)];
    for ((numbers, (word, bytes)), at) in [least, most].into_iter().zip(texts.clone()).zip(times) {
        let clock = MysqlTime::new(
            0,
            0,
            0,
            at.hour,
            at.minute,
            at.second,
            at.second_part,
            false,
            MysqlTimestampType::MYSQL_TIMESTAMP_TIME,
            0,
        );
        let row = (
            (kinds::id.eq(numbers.0), kinds::tiny.eq(numbers.1), kinds::small.eq(numbers.2), kinds::big.eq(numbers.3)),
            (kinds::tiny_up.eq(numbers.4), kinds::small_up.eq(numbers.5), kinds::plain_up.eq(numbers.6)),
            (kinds::big_up.eq(numbers.7), kinds::real_one.eq(numbers.8), kinds::double_one.eq(numbers.9)),
            (kinds::flag.eq(numbers.10), kinds::word.eq(word), kinds::bytes.eq(bytes)),
            (kinds::at.eq(at), kinds::clock.eq(clock)),
        );
        diesel::insert_into(kinds::table).values(row).execute(&mut connection).await.expect("inserts");
    }
    type Numbers = (i32, i8, i16, i64, u8, u16, u32, u64, f32, f64, bool);
    let numbers = (
        kinds::id,
        kinds::tiny,
        kinds::small,
        kinds::big,
        kinds::tiny_up,
        kinds::small_up,
        kinds::plain_up,
        kinds::big_up,
        kinds::real_one,
        kinds::double_one,
        kinds::flag,
    );
    let found: Vec<Numbers> = kinds::table.select(numbers).order(kinds::id).load(&mut connection).await.expect("rows");
    assert_eq!(found, [least, most]);
    let found: Vec<(Option<String>, Vec<u8>)> =
        kinds::table.select((kinds::word, kinds::bytes)).order(kinds::id).load(&mut connection).await.expect("rows");
    assert_eq!(found, texts);
    let found: Vec<(MysqlTime, MysqlTime)> =
        kinds::table.select((kinds::at, kinds::clock)).order(kinds::id).load(&mut connection).await.expect("rows");
    for ((at, clock), was) in found.iter().zip(times) {
        let parts = |time: &MysqlTime| (time.hour, time.minute, time.second, time.second_part);
        assert_eq!((at.year, at.month, at.day, parts(at)), (was.year, was.month, was.day, parts(&was)));
        assert_eq!(parts(clock), parts(&was));
    }
    // Looked for by value: what is sent is of the right type, too.
    let same =
        kinds::table.filter(kinds::big_up.eq(u64::MAX)).filter(kinds::at.eq(times[1])).filter(kinds::flag.eq(true));
    assert_eq!(same.count().get_result::<i64>(&mut connection).await.expect("a count"), 1);
}

#[tokio::test]
async fn a_session_that_the_server_ended_is_lost_and_failures_are_told_apart() {
    let user = User::new("u@`s'er", "hunter2").owns("acme").max_user_connections(1);
    let server = Server::on(PrivateMariaDb::builder().user(user)).await;
    let mut connection = server.connect().await;
    let id = number(&mut connection, "CONNECTION_ID()").await;
    kill(&server.server, id).await;
    diesel::sql_query("SELECT 1").execute(&mut connection).await.expect_err("it was ended");
    assert_eq!(server.factory.health(&mut connection), Health::Lost);
    in_time(server.factory.close(connection, support::PATIENCE)).await;

    let limited = MySqlFactory::new(opts(&server.server).user(Some("u@`s'er")).pass(Some("hunter2")));
    let first = limited.connect(&server.acme).await.expect("the one place");
    let error = limited.connect(&server.acme).await.expect_err("it is taken");
    assert_eq!(limited.classify(&error), FailureKind::ServerFull, "{error:?}");
    assert!(matches!(error.number(), Some(1203 | 1226)) && error.code().is_some());
    limited.close(first, support::PATIENCE).await;
    let error = limited.connect(&tenant("other")).await.expect_err("not its own");
    assert_eq!(limited.classify(&error), FailureKind::Auth, "{error:?}");
    assert!(!format!("{limited:?} {error:?} {error}").contains("hunter2"));
    let connection = server.connect().await;
    assert!(!format!("{connection:?}").contains(server.server.password()));
}

#[tokio::test]
async fn what_a_preflight_says_is_what_the_server_lets_in() {
    let limited = User::new("limited", "word").owns("acme").max_user_connections(3);
    let server = Server::on(PrivateMariaDb::builder().max_connections(12).user(limited)).await;
    let login = opts(&server.server).user(Some("limited")).pass(Some("word"));
    let pools =
        patient(TenantPools::builder(MySqlFactory::new(login))).max_connections(2).build().expect("good settings");
    let preflight = pools.preflight("acme").await.expect("an answer");
    assert_eq!((preflight.capacity.for_this_login(), preflight.capacity.max_connections), (Some(3), Some(12)));
    assert!(preflight.capacity.open_now.is_some_and(|open| open >= 1), "{preflight:?}");
    assert_eq!(pools.stats().idle, 1, "it is clean");
    in_time(pools.close()).await;
}

/// The driver would otherwise open a second connection beside each first, to see whether the server has a Unix socket.
#[tokio::test]
async fn a_connection_is_one_connection() {
    let user = User::new("one", "word").owns("acme").max_user_connections(1);
    let server = Server::on(PrivateMariaDb::builder().user(user)).await;
    let limited = MySqlFactory::new(opts(&server.server).user(Some("one")).pass(Some("word")));
    let connections = "SELECT variable_value FROM information_schema.global_status \
                       WHERE variable_name IN ('CONNECTIONS', 'ABORTED_CONNECTS') ORDER BY variable_name";
    let before: Vec<u64> = ask(&server.server, connections).await;
    let connection = limited.connect(&server.acme).await.expect("the one place");
    let after: Vec<u64> = ask(&server.server, connections).await;
    // The second is the question's own.
    assert_eq!([after[0] - before[0], after[1] - before[1]], [0, 2]);
    limited.close(connection, support::PATIENCE).await;
}

#[tokio::test]
async fn a_lease_is_a_connection_of_diesel() {
    let (server, connection) = Server::with_note().await;
    server.factory.close(connection, support::PATIENCE).await;
    let pools =
        patient(TenantPools::builder(server.factory.clone())).max_connections(2).build().expect("good settings");
    let spawned = tokio::spawn({
        let pools = pools.clone();
        async move {
            let mut lease = pools.acquire("acme").await.expect("there is room");
            lease.transaction(async |lease| insert(lease, "kept").await).await.expect("commits");
            let count: i64 = note::table.count().get_result(&mut lease).await.expect("a count");
            count
        }
    });
    assert_eq!(in_time(spawned).await.expect("no panic"), 1);
    assert_eq!(pools.stats().totals.recycles, 0, "nothing was left");
    in_time(pools.close()).await;
}
