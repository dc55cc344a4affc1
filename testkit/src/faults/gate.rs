//! [`Gate`]: holds a session of somebody else's where it is, and tells when it is there.

use std::time::Duration;

use tokio_postgres::{Client, SimpleQueryMessage};

use super::{Trouble, VICTIM};
use crate::servers::PrivatePostgres;

/// The statement that a gate holds. Sessions of one database share advisory locks.
pub(super) const GATED: &str = "SELECT pg_advisory_xact_lock(7)";

/// Sessions that wait for a lock, whichever: nobody else does here.
const WAITING: &str = "SELECT pid FROM pg_catalog.pg_locks WHERE NOT granted";

/// A server that is in trouble does not open it any more, and need not: it holds nobody then.
const OPENS_WITHIN: Duration = Duration::from_secs(1);

/// A superuser's session with a lock that others wait for. Dropped, it opens.
pub(super) struct Gate {
    client: Client,
}

impl Gate {
    /// Holds whoever runs [`GATED`] in the victim's database.
    pub(super) async fn for_queries(server: &PrivatePostgres) -> Result<Self, Trouble> {
        Self::with(server, VICTIM, "SELECT pg_advisory_lock(7)").await
    }

    /// Holds whoever logs in, after the password and before the session is ready: a session reads its settings there.
    pub(super) async fn for_logins(server: &PrivatePostgres) -> Result<Self, Trouble> {
        let lock = "BEGIN; LOCK TABLE pg_catalog.pg_db_role_setting IN ACCESS EXCLUSIVE MODE";
        Self::with(server, "postgres", lock).await
    }

    async fn with(server: &PrivatePostgres, database: &str, lock: &str) -> Result<Self, Trouble> {
        let (client, _) = crate::servers::connect(&server.config(database)).await?;
        client.batch_execute(lock).await?;
        Ok(Self { client })
    }

    /// Resolves when somebody stands before it.
    pub(super) async fn reached(&self) -> Result<(), Trouble> {
        loop {
            let answer = self.client.simple_query(WAITING).await?;
            if answer.iter().any(|message| matches!(message, SimpleQueryMessage::Row(_))) {
                return Ok(());
            }
        }
    }

    /// Ends the sessions that stand before it.
    pub(super) async fn end_who_waits(&self) -> Result<(), Trouble> {
        let end = format!("SELECT pg_terminate_backend(pid, 60000) FROM ({WAITING}) AS waiting");
        self.client.batch_execute(&end).await?;
        Ok(())
    }

    /// Lets go of everybody.
    pub(super) async fn open(self) {
        let open = self.client.batch_execute("ROLLBACK; SELECT pg_advisory_unlock_all()");
        // It may be ended itself by now, or its server frozen.
        let _ = tokio::time::timeout(OPENS_WITHIN, open).await;
    }
}
