//! The part of a load that is the same for each driver of MySQL.

use std::fmt;
use std::future::Future;

use super::{PLACES, ServerView, TENANTS, password, user};
use crate::conformance::Trouble;
use crate::servers::{MariaDbError, PrivateMariaDb, User};

/// A server with the two users, and the names of the databases, which are still to be made.
///
/// # Errors
/// When it cannot be had.
pub fn mariadb_server() -> Result<(PrivateMariaDb, Vec<String>), MariaDbError> {
    let tenants: Vec<_> = (0..TENANTS).map(|number| format!("tenant-{number:02}")).collect();
    let owner = |limited| tenants.iter().fold(User::new(user(limited), password()), |user, tenant| user.owns(tenant));
    let users = [owner(true).max_user_connections(PLACES), owner(false)];
    let [limited, free] = users;
    Ok((PrivateMariaDb::builder().user(limited).user(free).start()?, tenants))
}

/// A client of the test's own, logged in as the superuser.
pub trait Client {
    /// The one column of numbers that a query gives.
    fn numbers(&mut self, query: &str) -> impl Future<Output = Result<Vec<u64>, Trouble>>;
}

/// The server's list of threads, and its counters. These are of all users, so that nobody else may log in.
pub struct MariaDbView<C> {
    client: C,
    user: &'static str,
    before: (u64, u64),
}

impl<C> fmt::Debug for MariaDbView<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MariaDbView").field("user", &self.user).finish_non_exhaustive()
    }
}

impl<C: Client> MariaDbView<C> {
    /// Begins to look at one of the two users of [`mariadb_server`].
    ///
    /// # Errors
    /// The client's.
    ///
    /// # Cancel safety
    /// Dropping it changes nothing.
    pub async fn new(client: C, limited: bool) -> Result<Self, Trouble> {
        let mut view = Self { client, user: user(limited), before: (0, 0) };
        view.before = view.counted().await?;
        Ok(view)
    }

    /// Connects, and those that were not let in.
    async fn counted(&mut self) -> Result<(u64, u64), Trouble> {
        let query = "SELECT CAST(variable_value AS UNSIGNED) FROM information_schema.global_status \
                     WHERE variable_name IN ('CONNECTIONS', 'ABORTED_CONNECTS') ORDER BY variable_name DESC";
        match *self.client.numbers(query).await? {
            [connects, refused] => Ok((connects, refused)),
            ref other => Err(format!("two counters, not {other:?}").into()),
        }
    }
}

impl<C: Client> ServerView for MariaDbView<C> {
    async fn sessions(&mut self) -> Result<u64, Trouble> {
        let query = format!(
            "SELECT CAST(count(*) AS UNSIGNED) FROM information_schema.processlist WHERE user = '{}'",
            self.user
        );
        Ok(self.client.numbers(&query).await?.into_iter().sum())
    }

    async fn connects(&mut self) -> Result<(u64, u64), Trouble> {
        let (connects, refused) = self.counted().await?;
        Ok((connects - self.before.0, refused - self.before.1))
    }
}
