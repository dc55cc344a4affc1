//! [`Sampler`]: asks a server again and again who is connected, and keeps the most that it saw.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, Statement};

use super::PrivatePostgres;
use super::postgres::{PostgresError, connect};

/// Client sessions by role and database, this one excepted. A session that is still logging in has neither.
const QUERY: &str = "SELECT coalesce(usename, ''), coalesce(datname, ''), count(*) FROM pg_stat_activity \
                     WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() GROUP BY 1, 2";

/// Who was connected at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    counts: Vec<(String, String, u64)>,
}

impl Sample {
    /// Client sessions, the sampler's own excepted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().map(|(_, _, count)| count).sum()
    }

    /// Client sessions of one role.
    #[must_use]
    pub fn of_role(&self, role: &str) -> u64 {
        self.counts.iter().filter(|(name, _, _)| name == role).map(|(_, _, count)| count).sum()
    }

    /// Client sessions in one database.
    #[must_use]
    pub fn in_database(&self, database: &str) -> u64 {
        self.counts.iter().filter(|(_, name, _)| name == database).map(|(_, _, count)| count).sum()
    }
}

/// What a sampler saw: for each count, the most at one moment.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Seen {
    /// How many samples were taken. A test that asserts a maximum asserts this as well.
    pub samples: u64,
    /// The most client sessions in all.
    pub most: u64,
    /// The most of each role.
    pub most_of_role: HashMap<String, u64>,
    /// The most in each database.
    pub most_in_database: HashMap<String, u64>,
}

impl Seen {
    fn add(&mut self, sample: &Sample) {
        self.samples += 1;
        self.most = self.most.max(sample.total());
        for (role, database, _) in &sample.counts {
            let most = self.most_of_role.entry(role.clone()).or_default();
            *most = sample.of_role(role).max(*most);
            let most = self.most_in_database.entry(database.clone()).or_default();
            *most = sample.in_database(database).max(*most);
        }
    }
}

/// Asks a server's `pg_stat_activity` in a task, on a superuser's connection of its own, until it is stopped.
///
/// It sees moments: what opens and closes between two of them is missed. It is a witness against a budget that is
/// broken for longer than its period, not a proof.
#[derive(Debug)]
pub struct Sampler {
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<Seen, tokio_postgres::Error>>,
}

impl Sampler {
    /// Starts to ask, with a pause of `every` between an answer and the next question.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] when the server lets the sampler not in.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing.
    pub async fn start(server: &PrivatePostgres, every: Duration) -> Result<Self, PostgresError> {
        let mut watcher = Watcher::new(server).await?;
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            loop {
                seen.add(&watcher.sample().await?);
                if tokio::time::timeout(every, &mut stopped).await.is_ok() {
                    seen.add(&watcher.sample().await?);
                    return Ok(seen);
                }
            }
        });
        Ok(Self { stop, task })
    }

    /// Takes a last sample and returns what was seen.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] when the server stopped answering.
    ///
    /// # Panics
    /// When the runtime is shutting down.
    ///
    /// # Cancel safety
    /// The sampler ends all the same, and what it saw is lost.
    pub async fn stop(self) -> Result<Seen, PostgresError> {
        // The task is gone only where it had an error, which comes next.
        let _ = self.stop.send(());
        match self.task.await {
            Ok(seen) => Ok(seen?),
            Err(error) => panic!("the sampler's task did not end: {error}"),
        }
    }
}

/// One connection that takes samples.
pub(crate) struct Watcher {
    client: Client,
    statement: Statement,
}

impl fmt::Debug for Watcher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watcher").finish_non_exhaustive()
    }
}

impl Watcher {
    pub(crate) async fn new(server: &PrivatePostgres) -> Result<Self, tokio_postgres::Error> {
        let (client, _) = connect(&server.config(server.superuser())).await?;
        let statement = client.prepare(QUERY).await?;
        Ok(Self { client, statement })
    }

    pub(crate) async fn sample(&mut self) -> Result<Sample, tokio_postgres::Error> {
        let rows = self.client.query(&self.statement, &[]).await?;
        let count = |row: &tokio_postgres::Row| u64::try_from(row.get::<_, i64>(2)).unwrap_or(0);
        Ok(Sample { counts: rows.iter().map(|row| (row.get(0), row.get(1), count(row))).collect() })
    }
}

impl PrivatePostgres {
    /// Who is connected now, the question itself excepted.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] with what the server said.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn sample(&self) -> Result<Sample, PostgresError> {
        Ok(Watcher::new(self).await?.sample().await?)
    }

    /// Asks until `done` says yes to who is connected: to wait for sessions to come or go.
    ///
    /// # Errors
    /// [`PostgresError::Sql`] with what the server said.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn until(&self, done: impl Fn(&Sample) -> bool) -> Result<Sample, PostgresError> {
        let mut watcher = Watcher::new(self).await?;
        loop {
            let sample = watcher.sample().await?;
            if done(&sample) {
                return Ok(sample);
            }
        }
    }
}
