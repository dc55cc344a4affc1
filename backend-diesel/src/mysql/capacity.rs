//! What a MySQL or MariaDB server says of its limits.

use diesel::sql_types::Text;
use diesel::{QueryableByName, sql_query};
use diesel_async::RunQueryDsl as _;
use tenantry_core::{Capacity, ServerCapacity};

use super::{MySqlConnection, MySqlFactory};
use crate::error::Error;

/// The session's `max_user_connections` is the account's own limit, or else the server's for every account; 0 is none. Only
/// an administrator's session gets in beyond `max_connections`, so nothing of it is reserved.
const LIMITS: &str = "SHOW SESSION VARIABLES WHERE Variable_name IN ('max_connections', 'max_user_connections')";

/// Every client's, whatever the account may see in the list of them.
const OPEN: &str = "SHOW GLOBAL STATUS LIKE 'Threads_connected'";

#[derive(QueryableByName)]
struct Named {
    #[diesel(sql_type = Text, column_name = "Variable_name")]
    name: String,
    #[diesel(sql_type = Text, column_name = "Value")]
    value: String,
}

impl Capacity for MySqlFactory {
    async fn capacity(&self, connection: &mut MySqlConnection) -> Result<ServerCapacity, Error> {
        let mut capacity = ServerCapacity::default();
        for question in [LIMITS, OPEN] {
            let answers: Vec<Named> = sql_query(question).load(connection).await.map_err(Error::Preflight)?;
            for Named { name, value } in answers {
                let number = value.parse().ok();
                match name.as_str() {
                    "max_connections" => capacity.max_connections = number,
                    "max_user_connections" => capacity.login_limit = number.filter(|limit| *limit > 0),
                    _ => capacity.open_now = number,
                }
            }
        }
        Ok(capacity)
    }
}
