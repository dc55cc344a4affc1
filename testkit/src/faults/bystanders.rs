//! [`Bystanders`]: other tenants, who work all the time and must not notice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tenantry_core::TenantPools;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::visit::{Outcome, SERVED, visit};
use super::{Driver, FAR, Fault, NEAR, Trouble};

/// Tenants on each server, each visited by one task.
pub(super) const ON_EACH: u32 = 2;

/// Visits of all together before a fault begins.
const CALM_VISITS: u64 = 160;

/// How long they wait for an answer that must come.
const LONG: Duration = Duration::from_secs(20);

/// Time to think between two visits, so that the machine is not busy with them alone.
const PAUSE: Duration = Duration::from_millis(2);

pub(super) struct Bystanders {
    tasks: JoinSet<()>,
    tally: Arc<Tally>,
    phase: watch::Sender<Phase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Calm,
    Storm,
    Over,
}

/// What they saw while they worked.
#[derive(Debug, Default)]
struct Tally {
    seen: Mutex<Seen>,
    visits: watch::Sender<u64>,
}

impl Tally {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, side: &str, phase: Phase, word: String, took: Duration) {
        let mut seen = self.seen();
        let there = if side == NEAR { &mut seen.near } else { &mut seen.far };
        match (word.as_str(), phase) {
            (SERVED, Phase::Calm) => there.calm.push(took),
            (SERVED, _) => there.storm.push(took),
            _ => there.failures.push(word),
        }
        drop(seen);
        self.visits.send_modify(|visits| *visits += 1);
    }
}

/// What those on each server saw.
#[derive(Debug, Default)]
pub(super) struct Seen {
    pub(super) near: SeenThere,
    pub(super) far: SeenThere,
}

/// What those on one server saw.
#[derive(Debug, Default)]
pub(super) struct SeenThere {
    calm: Vec<Duration>,
    storm: Vec<Duration>,
    /// What visits ended with that were not served.
    pub(super) failures: Vec<String>,
}

impl SeenThere {
    fn add(&mut self, other: Self) {
        self.calm.extend(other.calm);
        self.storm.extend(other.storm);
        self.failures.extend(other.failures);
    }

    fn line(&mut self) -> String {
        let failures = self.failures.len();
        let [calm, storm] = [&mut self.calm, &mut self.storm].map(|times| {
            times.sort_unstable();
            let p99 = times.get(times.len().saturating_sub(1) * 99 / 100).copied().unwrap_or_default();
            format!("{p99:.1?} ({})", times.len())
        });
        format!("{calm} -> {storm}, {failures} failed")
    }
}

impl Seen {
    pub(super) fn add(&mut self, other: Self) {
        self.near.add(other.near);
        self.far.add(other.far);
    }

    pub(super) fn line(&mut self) -> String {
        let (near, far) = (self.near.line(), self.far.line());
        format!("p99 of other tenants' visits: on the same server {near}; on another one {far}")
    }
}

impl Bystanders {
    /// Starts them.
    pub(super) fn start<D: Driver>(pools: &TenantPools<D::Factory>, fault: Fault) -> Self {
        let (tally, phase) = (Arc::new(Tally::default()), watch::Sender::new(Phase::Calm));
        let mut tasks = JoinSet::new();
        for (side, number) in [NEAR, FAR].into_iter().flat_map(|side| (0..ON_EACH).map(move |number| (side, number))) {
            let (pools, tally, phase) = (pools.clone(), Arc::clone(&tally), phase.subscribe());
            let tenant = format!("{side}-{number}");
            // Whom the fault does not reach is not hurried: a busy machine is no failure.
            let patience = if side == NEAR && fault.hits_the_whole_server() { fault.patience() } else { LONG };
            tasks.spawn(async move {
                // Their connects are not what is measured, and on a busy machine one may take too long.
                while let Outcome { word, retry_after } = visit::<D>(&pools, &tenant, patience).await
                    && word != SERVED
                {
                    tokio::time::sleep(retry_after.unwrap_or_default()).await;
                }
                while *phase.borrow() != Phase::Over {
                    let start = Instant::now();
                    let Outcome { word, .. } = visit::<D>(&pools, &tenant, patience).await;
                    let took = start.elapsed();
                    let phase = *phase.borrow();
                    tally.add(side, phase, word, took);
                    tokio::time::sleep(PAUSE).await;
                }
            });
        }
        Self { tasks, tally, phase }
    }

    /// Resolves when they have worked for a while; a fault may begin then.
    pub(super) async fn calm(&self) {
        // The sender lives as long as `self`.
        let _ = self.tally.visits.subscribe().wait_for(|visits| *visits >= CALM_VISITS).await;
        self.phase.send_replace(Phase::Storm);
    }

    /// Ends their work.
    pub(super) async fn stop(mut self) -> Result<Seen, Trouble> {
        self.phase.send_replace(Phase::Over);
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(std::mem::take(&mut *self.tally.seen()))
    }
}
