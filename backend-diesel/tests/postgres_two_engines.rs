//! Small tenants in SQLite files, large ones on a PostgreSQL server, under one budget; and one that grows moves over.
#![cfg(all(feature = "postgres", feature = "sqlite"))]
#![allow(missing_docs, reason = "tests")]

use std::collections::HashSet;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use diesel::QueryableByName;
use diesel::sql_types::Text;
use diesel_async::{RunQueryDsl as _, SimpleAsyncConnection as _};
use tenantry_core::{Created, DynConnection, DynFactory, TenantPools};
use tenantry_diesel::{PostgresConnection, PostgresFactory, SqliteConnection, SqliteFactory};
use tenantry_testkit::PrivatePostgres;
use tenantry_testkit::servers::patient;

const LONG: Duration = Duration::from_secs(60);
const BUDGET: u32 = 2;

#[derive(QueryableByName)]
struct Note {
    #[diesel(sql_type = Text)]
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Engine {
    Sqlite,
    Postgres,
}

/// Runs the same on either engine's connection: diesel's queries are typed by engine, its texts are not.
macro_rules! on_either {
    ($connection:expr, |$it:ident, $engine:ident| $work:expr) => {
        if let Some($it) = $connection.downcast_mut::<SqliteConnection>() {
            let $engine = Engine::Sqlite;
            $work
        } else {
            let $it = $connection.downcast_mut::<PostgresConnection>().expect("one of the two");
            let $engine = Engine::Postgres;
            $work
        }
    };
}

async fn add(connection: &mut DynConnection, text: &str) -> Engine {
    let make = "CREATE TABLE IF NOT EXISTS note (text TEXT NOT NULL)";
    let insert = format!("INSERT INTO note VALUES ('{text}')");
    on_either!(connection, |it, engine| {
        it.batch_execute(make).await.expect("a table");
        diesel::sql_query(insert).execute(it).await.expect("inserts");
        engine
    })
}

async fn notes(connection: &mut DynConnection) -> (Engine, Vec<String>) {
    let query = diesel::sql_query("SELECT text FROM note ORDER BY 1");
    on_either!(connection, |it, engine| {
        let notes: Vec<Note> = query.load(it).await.expect("an answer");
        (engine, notes.into_iter().map(|note| note.text).collect())
    })
}

struct Service {
    server: PrivatePostgres,
    folder: tempfile::TempDir,
    large: Arc<Mutex<HashSet<String>>>,
    pools: TenantPools<DynFactory>,
}

impl Service {
    fn start() -> Self {
        let server = PrivatePostgres::new().expect("a server");
        let folder = tempfile::tempdir().expect("a folder");
        let sqlite = DynFactory::with_provision(SqliteFactory::new(folder.path()));
        let postgres = DynFactory::with_provision(PostgresFactory::new(server.config("postgres")));
        let large = Arc::new(Mutex::new(HashSet::from(["large-1".to_owned(), "large-2".to_owned()])));
        let is_large = Arc::clone(&large);
        let factory = DynFactory::route(move |tenant| {
            let large = is_large.lock().expect("no panic").contains(tenant.as_str());
            if large { &postgres } else { &sqlite }.clone()
        });
        let pools = patient(TenantPools::builder(factory)).max_connections(BUDGET).max_connections_per_tenant(1);
        Self { server, folder, large, pools: pools.build().expect("settings") }
    }

    /// What both engines count.
    async fn open(&self) -> u64 {
        let sample = self.server.sample().await.expect("a sample");
        let sessions: u64 = ["large-1", "large-2", "small-1"].iter().map(|tenant| sample.in_database(tenant)).sum();
        sessions + open_databases(self.folder.path())
    }
}

/// How many databases of this folder this process has open.
fn open_databases(folder: &Path) -> u64 {
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let targets = descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    targets.filter(|target| target.starts_with(folder) && target.extension().is_some_and(|it| it == "db")).count()
        as u64
}

#[tokio::test]
async fn tenants_of_two_engines_share_one_budget_and_move_between_them() {
    let service = Service::start();
    let pools = &service.pools;
    let tenants = [
        ("small-1", Engine::Sqlite),
        ("large-1", Engine::Postgres),
        ("small-2", Engine::Sqlite),
        ("large-2", Engine::Postgres),
    ];
    for (tenant, _) in tenants {
        assert_eq!(pools.create(tenant).await.expect("made where it belongs"), Created::New);
    }
    for round in 1..=5 {
        for (tenant, engine) in tenants {
            let mut lease = pools.acquire(tenant).await.expect("a lease");
            assert_eq!(add(&mut lease, &format!("{tenant}-{round}")).await, engine);
            let open = service.open().await;
            assert!(open <= u64::from(BUDGET), "{open} are open");
        }
    }

    // It has grown: nobody uses it while its notes are carried over.
    let mut lease = pools.acquire("small-1").await.expect("a lease");
    let (engine, before) = notes(&mut lease).await;
    assert_eq!((engine, before.len()), (Engine::Sqlite, 5));
    drop(lease);
    assert!(pools.drain("small-1", LONG).await.is_complete());
    service.large.lock().expect("no panic").insert("small-1".to_owned());
    assert_eq!(pools.create("small-1").await.expect("made on the server"), Created::New);
    pools.resume("small-1");
    let mut lease = pools.acquire("small-1").await.expect("a lease");
    for note in &before {
        assert_eq!(add(&mut lease, note).await, Engine::Postgres);
    }
    assert_eq!(notes(&mut lease).await, (Engine::Postgres, before));
    drop(lease);

    pools.close().await;
    assert_eq!(service.open().await, 0);
}
