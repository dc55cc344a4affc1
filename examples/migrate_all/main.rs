//! Migrates the databases of all tenants while users are at work: `cargo run --release --features sqlx-sqlite --example
//! migrate_all`.
//!
//! `sweep` is what a service would write. The sweep is stopped half way, as by a deployment, and goes on with what is left.
//! Around it stand users who read and write all the while, and a check at the end: every database is migrated once, and no user
//! was refused.
#![allow(clippy::print_stdout, reason = "a demonstration talks")]

use std::future::{Future, pending};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use sqlx::migrate::{MigrateError, Migrator};
use tenantry::sqlx::SqliteFactory;
use tenantry::{PoolFactory, SweepReport, TenantPools};
use tokio::sync::Notify;
use tokio::task::JoinSet;

type Pools = TenantPools<SqliteFactory>;
type Report = SweepReport<<SqliteFactory as PoolFactory>::Error, MigrateError>;

static MIGRATIONS: Migrator = sqlx::migrate!("examples/migrate_all/migrations");

const TENANTS: usize = 300;
const BUDGET: u32 = 24;
/// How many databases are migrated at once.
const AT_ONCE: usize = 4;
const USERS: usize = 16;

#[tokio::main]
async fn main() -> ExitCode {
    match run(TENANTS, &ProgressBar::new(0)).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Migrates those tenants, in the background, until told to stop.
async fn sweep(
    pools: &Pools,
    tenants: Vec<String>,
    bar: &ProgressBar,
    stop: impl Future<Output = ()> + Send + 'static,
) -> Report {
    bar.set_length(tenants.len() as u64);
    bar.reset();
    let bar = bar.clone();
    pools
        .for_each_tenant(tenants, AT_ONCE, |mut lease| async move { lease.migrate(&MIGRATIONS).await })
        .on_progress(move |progress| {
            bar.set_position(progress.finished as u64);
            bar.set_message(progress.tenant.to_owned());
        })
        .stop_when(stop)
        .await
}

async fn run(tenants: usize, bar: &ProgressBar) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("tenantry-migrate-").tempdir()?;
    let names = make(folder.path(), tenants).await?;
    let pools = TenantPools::builder(SqliteFactory::new(folder.path())).max_connections(BUDGET).build()?;
    bar.set_style(ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}")?);

    let users = Users::start(&pools, &names);
    // A deployment comes when it comes.
    let deployment = {
        let bar = bar.clone();
        async move {
            while bar.position() < (tenants / 2) as u64 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let first = sweep(&pools, names.clone(), bar, deployment).await;
    let (done, rest) = (first.done, first.unfinished());
    let second = sweep(&pools, rest, bar, pending()).await;
    bar.finish_and_clear();
    let served = users.stop().await?;
    println!(
        "{done} databases before the stop, {} after it; {served} requests of users meanwhile, none refused",
        second.done
    );
    for (tenant, error) in &second.failed {
        println!("{tenant}: {error}");
    }
    ensure!(second.is_complete() && done + second.done == tenants, "not every database was migrated");
    for name in &names {
        let mut lease = pools.acquire(name).await?;
        let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM _sqlx_migrations").fetch_one(&mut *lease).await?;
        ensure!(applied == 2, "{name} has {applied} migrations");
    }
    ensure!(pools.close_within(Duration::from_secs(10)).await.is_complete(), "connections were left behind");
    Ok(())
}

/// The databases as the last release left them: without the last migration.
async fn make(folder: &Path, tenants: usize) -> Result<Vec<String>> {
    let pools = TenantPools::builder(SqliteFactory::new(folder)).max_connections(BUDGET).build()?;
    let last_release = Migrator { migrations: MIGRATIONS.iter().take(1).cloned().collect(), ..Migrator::DEFAULT };
    let names: Vec<String> = (0..tenants).map(|number| format!("tenant-{number:03}")).collect();
    for name in &names {
        pools.create(name).await.with_context(|| format!("cannot make {name}"))?;
        pools.acquire(name).await?.migrate(&last_release).await?;
    }
    pools.close().await;
    Ok(names)
}

/// Those whom the migration must not disturb.
struct Users {
    tasks: JoinSet<Result<()>>,
    served: Arc<AtomicU64>,
    home_time: Arc<Notify>,
}

impl Users {
    fn start(pools: &Pools, names: &[String]) -> Self {
        let (mut tasks, served, home_time) = (JoinSet::new(), Arc::new(AtomicU64::new(0)), Arc::new(Notify::new()));
        for user in 0..USERS {
            let (pools, served, home_time) = (pools.clone(), served.clone(), home_time.clone());
            let mine: Vec<String> = names.iter().skip(user).step_by(USERS).cloned().collect();
            tasks.spawn(async move {
                let mut go_home = std::pin::pin!(home_time.notified());
                go_home.as_mut().enable();
                for (key, tenant) in mine.iter().cycle().enumerate() {
                    let mut lease = pools.acquire(tenant).await?;
                    sqlx::query("INSERT INTO notes (key, text) VALUES (?, 'as always')")
                        .bind(format!("{user}-{key}"))
                        .execute(&mut *lease)
                        .await?;
                    drop(lease);
                    served.fetch_add(1, Relaxed);
                    let pause = tokio::time::sleep(Duration::from_millis(2));
                    tokio::select! {
                        () = pause => {}
                        () = &mut go_home => break,
                    }
                }
                Ok(())
            });
        }
        Self { tasks, served, home_time }
    }

    async fn stop(mut self) -> Result<u64> {
        self.home_time.notify_waiters();
        while let Some(ended) = self.tasks.join_next().await {
            ended??;
        }
        Ok(self.served.load(Relaxed))
    }
}

#[tokio::test]
async fn every_database_is_migrated_once_while_users_work() {
    run(40, &ProgressBar::hidden()).await.unwrap();
}
