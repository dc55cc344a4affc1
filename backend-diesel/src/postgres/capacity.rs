//! What a PostgreSQL server says of its limits.

use diesel::sql_types::{Bool, Integer};
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl as _;
use tenantry_core::{Capacity, ServerCapacity};

use super::{PostgresConnection, PostgresFactory};
use crate::error::Error;

/// `reserved_connections`, and the role that may have those, are there from version 16 on. -1 is no limit; -2 is that of a
/// database that is being dropped.
const ASK: &str = "
    SELECT current_setting('max_connections')::int4 AS max_connections,
           current_setting('superuser_reserved_connections')::int4 AS for_superusers,
           coalesce(current_setting('reserved_connections', true), '0')::int4 AS for_some,
           login.rolsuper AS superuser,
           EXISTS (SELECT FROM pg_roles special WHERE special.rolname = 'pg_use_reserved_connections'
                   AND pg_has_role(login.oid, special.oid, 'USAGE')) AS may_use_reserved,
           login.rolconnlimit AS login_limit,
           place.datconnlimit AS database_limit,
           (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')::int4 AS open_now
    FROM pg_roles login, pg_database place
    WHERE login.rolname = session_user AND place.datname = current_database()";

#[derive(QueryableByName)]
struct Answer {
    #[diesel(sql_type = Integer)]
    max_connections: i32,
    #[diesel(sql_type = Integer)]
    for_superusers: i32,
    #[diesel(sql_type = Integer)]
    for_some: i32,
    #[diesel(sql_type = Bool)]
    superuser: bool,
    #[diesel(sql_type = Bool)]
    may_use_reserved: bool,
    #[diesel(sql_type = Integer)]
    login_limit: i32,
    #[diesel(sql_type = Integer)]
    database_limit: i32,
    #[diesel(sql_type = Integer)]
    open_now: i32,
}

impl Capacity for PostgresFactory {
    async fn capacity(&self, connection: &mut PostgresConnection) -> Result<ServerCapacity, Error> {
        let answer: Answer = sql_query(ASK).get_result(connection).await.map_err(Error::Preflight)?;
        let limit = |number: i32| u32::try_from(number).ok();
        let (for_superusers, for_some) =
            (limit(answer.for_superusers).unwrap_or(0), limit(answer.for_some).unwrap_or(0));
        let mut capacity = ServerCapacity::default();
        capacity.max_connections = limit(answer.max_connections);
        capacity.open_now = limit(answer.open_now);
        // Superusers are exempt from all but the server's own limit.
        if !answer.superuser {
            capacity.reserved = if answer.may_use_reserved { for_superusers } else { for_superusers + for_some };
            capacity.login_limit = limit(answer.login_limit);
            capacity.database_limit = limit(answer.database_limit);
        }
        Ok(capacity)
    }
}
