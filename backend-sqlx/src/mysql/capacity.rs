//! What a MySQL or MariaDB server says of its limits.

use sqlx::{Executor as _, Row as _};
use tenantry_core::{Capacity, ServerCapacity};

use super::MySqlFactory;
use crate::connection::Connection;
use crate::error::{During, Error};
use crate::executor::tracked;

/// The session's `max_user_connections` is the account's own limit, or else the server's for every account; 0 is none. Only
/// an administrator's session gets in beyond `max_connections`, so nothing of it is reserved.
const ASK: &str = "SELECT CAST(@@max_connections AS SIGNED), CAST(@@max_user_connections AS SIGNED)";

/// Every client's, whatever the account may see in the list of them.
const OPEN: &str = "SHOW GLOBAL STATUS LIKE 'Threads_connected'";

impl Capacity for MySqlFactory {
    async fn capacity(&self, connection: &mut Connection<sqlx::MySql>) -> Result<ServerCapacity, Error> {
        let failed = |source| Error::Sqlx { during: During::Preflight, source };
        let (raw, track) = connection.parts();
        let both = async {
            let limits = raw.fetch_one(ASK).await?;
            Ok((limits, raw.fetch_one(OPEN).await?))
        };
        // Both leave nothing behind, though a SHOW of anybody else's counts as if it did.
        let (limits, open) = tracked::<sqlx::MySql, _>(track, both).await.map_err(failed)?;
        let number = |column: usize| limits.try_get::<i64, _>(column).map(|number| u32::try_from(number).ok());
        let read = || {
            let mut capacity = ServerCapacity::default();
            capacity.max_connections = number(0)?;
            capacity.login_limit = number(1)?.filter(|limit| *limit > 0);
            capacity.open_now = open.try_get::<String, _>(1)?.parse().ok();
            Ok(capacity)
        };
        read().map_err(failed)
    }
}
