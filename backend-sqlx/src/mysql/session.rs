//! Cleaning and closing one MySQL connection.

use std::time::Duration;

use sqlx::mysql::MySqlConnection;
use sqlx::{Connection as _, MySql};
use tenantry_core::Health;

use crate::connection::Connection;

/// What can be undone. MySQL's own reset of a session is a message of the protocol that sqlx does not send.
const CLEAN: &str = "ROLLBACK; UNLOCK TABLES; DO RELEASE_ALL_LOCKS()";

/// More errors than this in answers still to be read are not believed.
const MAX_PENDING_ERRORS: u32 = 16;

/// Ends what a user left open on a connection whose settings are as they were.
pub(super) async fn clean(raw: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    drain(raw).await?;
    sqlx::raw_sql(CLEAN).execute(raw).await.map(drop)
}

/// Sends what is still to be sent (the ROLLBACK of a dropped transaction) and reads what is still to be read.
async fn drain(raw: &mut MySqlConnection) -> Result<(), sqlx::Error> {
    for _ in 0..MAX_PENDING_ERRORS {
        match raw.flush().await {
            // The error of a query nobody waits for.
            Err(sqlx::Error::Database(_)) => {}
            other => return other,
        }
    }
    Err(sqlx::Error::Protocol("too many errors in answers to cancelled queries".into()))
}

/// Closes a connection of ours in order, as far as it is able to.
pub(super) async fn close(mut connection: Connection<MySql>, linger: Duration) {
    if connection.health() == Health::Lost {
        // Nobody is there to say goodbye to.
        let _ = connection.into_raw().close_hard().await;
        return;
    }
    // Until the server is done with a cancelled query, as it would read no goodbye before. For one that was dropped with its
    // transaction while it was prepared, sqlx awaits an answer to what was never sent: that ends when the close's time
    // does.
    let _ = drain(connection.parts().0).await;
    say_goodbye(connection.into_raw(), linger).await;
}

/// Closes a connection that is at rest. The server has let go of it a moment after the goodbye.
pub(super) async fn say_goodbye(raw: MySqlConnection, linger: Duration) {
    let _ = raw.close().await;
    tokio::time::sleep(linger).await;
}
