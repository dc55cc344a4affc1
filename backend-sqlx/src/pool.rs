//! Closing a pool of sqlx's so that it is empty when we say so.

use sqlx::{Database, Pool};

/// Closes the pool and resolves when its last connection is closed.
///
/// `Pool::close` alone waits for every connection in use before it closes the idle ones, so those go first.
pub(crate) async fn close<DB: Database>(pool: &Pool<DB>) {
    // Bounded: others may go on using the pool meanwhile.
    for _ in 0..pool.options().get_max_connections() {
        match pool.try_acquire() {
            Some(idle) => {
                let _ = idle.close().await;
            }
            None => break,
        }
    }
    pool.close().await;
}
