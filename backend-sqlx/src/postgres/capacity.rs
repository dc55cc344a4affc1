//! What a PostgreSQL server says of its limits.

use sqlx::Row as _;
use tenantry_core::{Capacity, ServerCapacity};

use super::PostgresFactory;
use crate::connection::Connection;
use crate::error::{During, Error};

/// Everything in one question, by the simple protocol, which leaves no statement behind. `reserved_connections`, and the
/// role that may have those, are there from version 16 on. -1 is no limit; -2 is that of a database that is being dropped.
const ASK: &str = "
    SELECT current_setting('max_connections')::int4,
           current_setting('superuser_reserved_connections')::int4,
           coalesce(current_setting('reserved_connections', true), '0')::int4,
           login.rolsuper,
           EXISTS (SELECT FROM pg_roles special WHERE special.rolname = 'pg_use_reserved_connections'
                   AND pg_has_role(login.oid, special.oid, 'USAGE')),
           login.rolconnlimit,
           place.datconnlimit,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int4
    FROM pg_roles login, pg_database place
    WHERE login.rolname = session_user AND place.datname = current_database()";

impl Capacity for PostgresFactory {
    async fn capacity(&self, connection: &mut Connection<sqlx::Postgres>) -> Result<ServerCapacity, Error> {
        let failed = |source| Error::Sqlx { during: During::Preflight, source };
        let row = sqlx::Executor::fetch_one(connection, ASK).await.map_err(failed)?;
        let number = |column: usize| row.try_get::<i32, _>(column).map(|number| u32::try_from(number).ok());
        let flag = |column: usize| row.try_get::<bool, _>(column);
        let read = || {
            let (for_superusers, for_some) = (number(1)?.unwrap_or(0), number(2)?.unwrap_or(0));
            let (superuser, may_use_reserved) = (flag(3)?, flag(4)?);
            let mut capacity = ServerCapacity::default();
            capacity.max_connections = number(0)?;
            capacity.open_now = number(7)?;
            // Superusers are exempt from all but the server's own limit.
            if !superuser {
                capacity.reserved = if may_use_reserved { for_superusers } else { for_superusers + for_some };
                capacity.login_limit = number(5)?;
                capacity.database_limit = number(6)?;
            }
            Ok(capacity)
        };
        read().map_err(failed)
    }
}
