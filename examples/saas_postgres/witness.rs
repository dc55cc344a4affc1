//! The witness: counts the role's sessions as the server sees them, over a connection of its own that it does not count.

use std::time::Duration;

use anyhow::Result;
use sqlx::postgres::PgConnection;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Those that are still logging in have no role yet; they count.
const SESSIONS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' \
                        AND pid <> pg_backend_pid() AND (usename = current_user OR usename IS NULL)";

/// Between two looks; a look takes less.
const PAUSE: Duration = Duration::from_millis(2);

/// How long a session may still be seen after its end.
const LINGER: Duration = Duration::from_secs(5);

/// What the witness has seen so far.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) looks: u64,
    /// The most sessions at one moment.
    pub(crate) most: usize,
    /// The sessions at the last look.
    pub(crate) last: usize,
}

/// The task that looks.
pub(crate) struct Witness {
    seen: watch::Receiver<Seen>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<Result<()>>,
}

impl Witness {
    /// Starts to look.
    pub(crate) fn start(mut connection: PgConnection) -> Result<Self> {
        let (tell, seen) = watch::channel(Seen::default());
        let (stop, mut stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut seen = Seen::default();
            while timeout(PAUSE, &mut stopped).await.is_err() {
                let count: i64 = sqlx::query_scalar(SESSIONS).fetch_one(&mut connection).await?;
                seen.looks += 1;
                seen.last = usize::try_from(count)?;
                seen.most = seen.most.max(seen.last);
                tell.send_replace(seen);
            }
            Ok(())
        });
        Ok(Self { seen, stop, task })
    }

    /// Resolves when two more looks were made, the second of which began after this was called.
    pub(crate) async fn two_more_looks(&self) -> Result<()> {
        let mut seen = self.seen.clone();
        let before = seen.borrow().looks;
        seen.wait_for(|seen| seen.looks >= before + 2).await?;
        Ok(())
    }

    /// Ends the task; what it saw.
    pub(crate) async fn finish(mut self) -> Result<Seen> {
        self.two_more_looks().await?;
        // If they do not go, the last look says so.
        let _ = timeout(LINGER, self.seen.wait_for(|seen| seen.last == 0)).await;
        drop(self.stop);
        self.task.await??;
        let seen = *self.seen.borrow();
        Ok(seen)
    }
}
