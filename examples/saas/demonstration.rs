//! The demonstration from its start to its end: the same for every database. Read `run` for the order of starting, and
//! `shutdown.rs` for that of stopping. What the database has its own way for is in `crate::database`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use sqlx::Connection;
use tenantry::TenantPools;
use tenantry::http::admin::{Authorization, Role};
use tenantry::metrics::Prometheus;
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::database::{self, Place, Witness};
use crate::load::{Load, Record};
use crate::report::{Live, Report};
use crate::service::{Operators, Pools, Server};
use crate::{shutdown, tenants};

/// One database per tenant under one budget of connections, with real HTTP clients.
#[derive(Parser)]
pub(crate) struct Args {
    /// How many tenants, and so databases
    #[arg(long, default_value_t = database::TENANTS, value_parser = clap::value_parser!(u32).range(1..=9_999))]
    tenants: u32,
    /// How many connections may be open at once
    #[arg(long, default_value_t = database::BUDGET, value_parser = clap::value_parser!(u32).range(1..=400))]
    budget: u32,
    /// How long the clients ask; 0 for no clients
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    seconds: u64,
    /// How many clients ask at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=400))]
    clients: u32,
    /// Stays up afterwards, until Ctrl-C
    #[arg(long)]
    serve: bool,
    /// Opens one database outside of the budget, which the witness must see: a check that cannot fail proves nothing
    #[arg(long, hide = true)]
    break_the_budget: bool,
}

/// Runs it; 0 when all is well, 1 when something was lost or the budget was passed, 2 when it could not run.
pub(crate) async fn demonstrate() -> ExitCode {
    match run(&Args::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(2)
        }
    }
}

/// Starts, asks, checks and stops. The order in which any service stops is in `shutdown.rs`.
async fn run(args: &Args) -> Result<bool> {
    let place = Place::new()?;
    let witness = place.witness().await?;
    let prometheus = Prometheus::new("notes");
    let pools = TenantPools::builder(place.factory()).max_connections(args.budget);
    let pools = pools.observer(prometheus.observer()).build()?;

    let start = Instant::now();
    let tenants = tenants::names(args.tenants as usize);
    tenants::make(&pools, &tenants).await?;
    println!("made, migrated and filled {} databases in {:.1} s", tenants.len(), start.elapsed().as_secs_f32());
    if args.break_the_budget {
        break_the_budget(&pools, args.budget as usize, &tenants, &place, witness.as_ref()).await?;
    }

    // Thrown away with the process; a service has its token from its secrets.
    let token: String = std::iter::repeat_with(fastrand::alphanumeric).take(24).collect();
    let authorization = Authorization::tokens([(Role::Admin, &token)])?;
    let server = Server::start(pools.clone(), Operators { authorization, prometheus }).await?;
    let url = format!("http://{}", server.address);
    println!("admin page at {url}/admin, for which the token is {token}");
    println!("metrics for Prometheus at {url}/admin/metrics, with the header `Authorization: Bearer {token}`");
    println!("serving notes at {url}/{}/notes?after=&limit=10", tenants[0]);
    let load = Arc::new(Load::new(url, tenants)?);
    let mut record = None;
    let mut lost = 0;
    let mut counted = [pools.stats().totals; 2];
    if args.seconds > 0 {
        let done = ask(&load, args, &pools).await?;
        counted[1] = pools.stats().totals;
        lost = load.lost(&done.written).await.context("cannot read back what was written")?;
        record = Some(done);
    }
    if args.serve {
        println!("up until Ctrl-C");
        shutdown::asked_to_stop().await?;
    }

    let refused = load.refused.load(Relaxed);
    let busiest = load.busiest(args.budget as usize);
    drop(load);
    let stopped = shutdown::stop(server, &pools).await?;
    let seen = match witness {
        Some(witness) => Some(witness.finish().await?),
        None => None,
    };
    Ok(Report { budget: args.budget, record, refused, lost, counted, busiest, stopped, seen }.print())
}

/// Lets the clients ask until the time is over or someone presses Ctrl-C.
async fn ask(load: &Arc<Load>, args: &Args, pools: &Pools) -> Result<Record> {
    let mut live = Live::start(args.seconds, pools.stats().totals);
    let mut ticks = interval(Live::TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let end = Instant::now() + Duration::from_secs(args.seconds);
    let clients = load.run(args.clients as usize);
    let mut ctrl_c = std::pin::pin!(shutdown::asked_to_stop());
    let mut clients = std::pin::pin!(clients);
    let record = loop {
        tokio::select! {
            record = &mut clients => break record?,
            pressed = &mut ctrl_c, if !load.stop.load(Relaxed) => {
                pressed?;
                load.stop.store(true, Relaxed);
            }
            _ = ticks.tick() => {
                live.tick(load.answered.load(Relaxed), &pools.stats());
                if Instant::now() >= end {
                    load.stop.store(true, Relaxed);
                }
            }
        }
    };
    live.finish();
    Ok(record)
}

/// Holds all connections of the budget, each to another database, and opens one more behind tenantry's back.
async fn break_the_budget(
    pools: &Pools,
    budget: usize,
    tenants: &[String],
    place: &Place,
    witness: Option<&Witness>,
) -> Result<()> {
    ensure!(tenants.len() >= budget, "breaking the budget takes as many tenants as connections");
    let witness = witness.context("there is no witness on this system")?;
    let mut leases = Vec::new();
    for tenant in &tenants[..budget] {
        leases.push(pools.acquire(tenant).await?);
    }
    let outside = place.connect_outside().await?;
    witness.two_more_looks().await?;
    outside.close().await?;
    Ok(())
}
