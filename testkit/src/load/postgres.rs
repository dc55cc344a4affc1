//! The part of a load that is the same for each driver of PostgreSQL.

use std::sync::Arc;

use super::{PLACES, ServerView, TENANTS, password, user};
use crate::conformance::Trouble;
use crate::servers::{PrivatePostgres, Role, Watcher, connect};

/// A server with the two users and the databases, whose logins cost little: the faster they come, the more load they are.
///
/// # Errors
/// When it cannot be had.
///
/// # Cancel safety
/// Dropping it stops the server.
pub async fn postgres_server() -> Result<(Arc<PrivatePostgres>, Vec<String>), Trouble> {
    let limited = Role::new(user(true), password()).connection_limit(PLACES);
    let server = PrivatePostgres::builder().setting("log_connections", "on").setting("password_encryption", "md5");
    let server = server.role(limited).role(Role::new(user(false), password())).start()?;
    let tenants: Vec<_> = (0..TENANTS).map(|number| format!("tenant-{number:02}")).collect();
    let (client, _) = connect(&server.config("postgres")).await?;
    // Copied file by file: from PostgreSQL 15 on this has to be asked for, and takes a third of the time.
    let version: String = client.query_one("SHOW server_version_num", &[]).await?.get(0);
    let strategy = if version.as_str() < "150000" { "" } else { " STRATEGY file_copy" };
    for tenant in &tenants {
        client.batch_execute(&format!("CREATE DATABASE \"{tenant}\"{strategy}")).await?;
    }
    Ok((Arc::new(server), tenants))
}

/// `pg_stat_activity`, and the server's log.
#[derive(Debug)]
pub struct PostgresView {
    server: Arc<PrivatePostgres>,
    watcher: Watcher,
    user: &'static str,
    before: (u64, u64),
}

impl PostgresView {
    /// Begins to look at one of the two users of [`postgres_server`].
    ///
    /// # Errors
    /// When the server does not let it in.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn new(server: &Arc<PrivatePostgres>, limited: bool) -> Result<Self, Trouble> {
        let watcher = Watcher::new(server).await?;
        let mut view = Self { server: Arc::clone(server), watcher, user: user(limited), before: (0, 0) };
        view.before = view.logged();
        Ok(view)
    }

    /// What the log has of the user: connects, and refusals for its limit.
    fn logged(&self) -> (u64, u64) {
        let (log, user) = (self.server.log(), self.user);
        let count = |words: &str| log.matches(words).count() as u64;
        let connects = count(&format!("connection authorized: user={user} "));
        (connects, count(&format!("FATAL:  too many connections for role \"{user}\"")))
    }
}

impl ServerView for PostgresView {
    async fn sessions(&mut self) -> Result<u64, Trouble> {
        Ok(self.watcher.sample().await?.of_role(self.user))
    }

    async fn connects(&mut self) -> Result<(u64, u64), Trouble> {
        let (connects, refused) = self.logged();
        Ok((connects - self.before.0, refused - self.before.1))
    }
}
