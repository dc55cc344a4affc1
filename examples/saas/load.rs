//! The load: real HTTP clients, each asking one thing after another, most of them of a few tenants (zipf).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::{Result, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use hdrhistogram::Histogram;
use reqwest::header::RETRY_AFTER;
use reqwest::{Client, RequestBuilder, Response, StatusCode};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use crate::service::{Note, Page};
use crate::tenants;

/// One request in so many is a write.
const WRITES: u32 = 4;

/// How often a client comes back after a 503 before it gives up.
const TRIES: u32 = 10;

/// What the clients share.
pub(crate) struct Load {
    pub(crate) http: Client,
    pub(crate) url: String,
    pub(crate) tenants: Vec<String>,
    /// At each tenant, the share of the requests that goes to it or to one before it.
    zipf: Vec<f64>,
    pub(crate) answered: AtomicU64,
    pub(crate) refused: AtomicU64,
    pub(crate) stop: AtomicBool,
}

/// What a client has done.
pub(crate) struct Record {
    /// Microseconds from the first try to the answer.
    pub(crate) latency: Histogram<u64>,
    /// The writes that the service acknowledged: a tenant's number and a key.
    pub(crate) written: Vec<(usize, String)>,
    pub(crate) errors: Vec<String>,
    /// Notes that an answer had from another tenant's database.
    pub(crate) strayed: u64,
}

impl Record {
    fn new() -> Result<Self> {
        let latency = Histogram::new_with_bounds(1, 3_600_000_000, 2)?;
        Ok(Self { latency, written: Vec::new(), errors: Vec::new(), strayed: 0 })
    }

    fn add(&mut self, other: Self) -> Result<()> {
        self.latency.add(other.latency)?;
        self.written.extend(other.written);
        self.errors.extend(other.errors);
        self.strayed += other.strayed;
        Ok(())
    }
}

impl Load {
    pub(crate) fn new(url: String, tenants: Vec<String>) -> Result<Self> {
        // No proxy of the environment: the service is on this machine.
        let http = Client::builder().no_proxy().timeout(Duration::from_secs(60)).build()?;
        let weight = |rank: usize| 1.0 / rank as f64;
        let all: f64 = (1..=tenants.len()).map(weight).sum();
        let mut share = 0.0;
        let mut zipf = Vec::with_capacity(tenants.len());
        for rank in 1..=tenants.len() {
            share += weight(rank) / all;
            zipf.push(share);
        }
        let (answered, refused, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { http, url, tenants, zipf, answered, refused, stop })
    }

    /// The part of the requests that goes to the so many busiest tenants.
    pub(crate) fn busiest(&self, tenants: usize) -> f64 {
        self.zipf[tenants.min(self.zipf.len()) - 1]
    }

    /// Runs so many clients until `stop` is set; each finishes what it is at.
    pub(crate) async fn run(self: &Arc<Self>, clients: usize) -> Result<Record> {
        let mut running = JoinSet::new();
        for number in 0..clients {
            running.spawn(Arc::clone(self).client(number));
        }
        let mut record = Record::new()?;
        while let Some(client) = running.join_next().await {
            record.add(client??)?;
        }
        Ok(record)
    }

    async fn client(self: Arc<Self>, number: usize) -> Result<Record> {
        let mut random = fastrand::Rng::with_seed(number as u64);
        let mut record = Record::new()?;
        let mut writes = 0;
        while !self.stop.load(Relaxed) {
            let place = random.f64();
            let tenant = self.zipf.partition_point(|share| *share < place).min(self.tenants.len() - 1);
            let start = Instant::now();
            let answer = if random.u32(..WRITES) == 0 {
                writes += 1;
                let key = format!("client-{number:03}-{writes:06}");
                self.write(tenant, &key).await.map(|()| record.written.push((tenant, key)))
            } else {
                self.read(tenant).await.map(|strayed| record.strayed += strayed)
            };
            match answer {
                Ok(()) => record.latency.saturating_record(start.elapsed().as_micros() as u64),
                Err(error) => record.errors.push(error.to_string()),
            }
            self.answered.fetch_add(1, Relaxed);
        }
        Ok(record)
    }

    async fn write(&self, tenant: usize, key: &str) -> Result<()> {
        let tenant = &self.tenants[tenant];
        let request = self.http.put(format!("{}/{tenant}/notes/{key}", self.url));
        self.ask(&request.body(tenants::text(tenant, key))).await?;
        Ok(())
    }

    /// Reads a page, and counts the notes on it that are not this tenant's.
    async fn read(&self, tenant: usize) -> Result<u64> {
        let notes = self.page(tenant, String::new(), 10).await?;
        let tenant = &self.tenants[tenant];
        Ok(notes.iter().filter(|note| note.text != tenants::text(tenant, &note.key)).count() as u64)
    }

    async fn page(&self, tenant: usize, after: String, limit: u32) -> Result<Vec<Note>> {
        let request = self.http.get(format!("{}/{}/notes", self.url, self.tenants[tenant]));
        Ok(self.ask(&request.query(&Page { after, limit })).await?.json().await?)
    }

    /// Asks, and comes back when it is told to.
    async fn ask(&self, request: &RequestBuilder) -> Result<Response> {
        for _ in 0..TRIES {
            let Some(request) = request.try_clone() else { bail!("a request that cannot be sent twice") };
            let answer = request.send().await?;
            if answer.status() != StatusCode::SERVICE_UNAVAILABLE {
                return Ok(answer.error_for_status()?);
            }
            self.refused.fetch_add(1, Relaxed);
            let seconds = answer.headers().get(RETRY_AFTER).and_then(|seconds| seconds.to_str().ok()?.parse().ok());
            sleep(Duration::from_secs(seconds.unwrap_or(1))).await;
        }
        bail!("refused {TRIES} times");
    }

    /// How many of the acknowledged writes are no longer there, or not as they were written.
    pub(crate) async fn lost(&self, written: &[(usize, String)]) -> Result<usize> {
        let mut keys = vec![Vec::new(); self.tenants.len()];
        for (tenant, key) in written {
            keys[*tenant].push(key.as_str());
        }
        let checks = keys.into_iter().enumerate().filter(|(_, keys)| !keys.is_empty());
        let checks = stream::iter(checks).map(|(tenant, keys)| self.lost_of(tenant, keys)).buffer_unordered(16);
        checks.try_fold(0, async |sum, lost| Ok(sum + lost)).await
    }

    async fn lost_of(&self, tenant: usize, mut keys: Vec<&str>) -> Result<usize> {
        const LIMIT: u32 = 1_000;
        keys.sort_unstable();
        let mut found = 0;
        let mut after = String::new();
        loop {
            let notes = self.page(tenant, after, LIMIT).await?;
            let kept = |note: &&Note| note.text == tenants::text(&self.tenants[tenant], &note.key);
            found += notes.iter().filter(kept).filter(|note| keys.binary_search(&note.key.as_str()).is_ok()).count();
            match notes.into_iter().nth(LIMIT as usize - 1) {
                Some(last) => after = last.key,
                None => return Ok(keys.len() - found),
            }
        }
    }
}
