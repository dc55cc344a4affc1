//! [`LeaseTransaction`]: a transaction that holds its lease, as a pool's transaction holds its connection.

use std::fmt;
use std::ops::{Deref, DerefMut};

use sqlx::{Database, SqlStr};
use sqlx_core::transaction::TransactionManager;
use tenantry_core::{Lease, TenantId};

use crate::executor::tracked;
use crate::handle::SqlxFactory;

type Raw<F> = <<F as SqlxFactory>::Database as Database>::Connection;
type Manager<F> = <<F as SqlxFactory>::Database as Database>::TransactionManager;

/// A transaction on a lease of its own, from [`TenantHandle::begin`](crate::TenantHandle::begin). Queries go to
/// `&mut *transaction`. Dropped without [`commit`](Self::commit), it is rolled back before anyone else has the connection.
///
/// sqlx's `Transaction` can hold a connection of sqlx's own pool or borrow one, and nothing else; this one is the same
/// with a lease. For a savepoint: `sqlx::Connection::begin(&mut *transaction)`.
#[must_use = "a transaction that is dropped is rolled back"]
pub struct LeaseTransaction<F: SqlxFactory> {
    lease: Lease<F>,
    open: bool,
}

impl<F: SqlxFactory> LeaseTransaction<F> {
    pub(crate) async fn begin(mut lease: Lease<F>, statement: Option<SqlStr>) -> Result<Self, sqlx::Error> {
        lease.open_transaction(statement).await?;
        Ok(Self { lease, open: true })
    }

    /// Whose database it is.
    #[must_use]
    pub fn tenant(&self) -> &TenantId {
        self.lease.tenant()
    }

    /// Commits.
    ///
    /// # Errors
    /// Whatever the database or the network says; the connection is then recycled or closed.
    ///
    /// # Cancel safety
    /// Dropping the future leaves it unknown whether the transaction was committed.
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        let (raw, track) = self.lease.parts();
        tracked::<F::Database, _>(track, Manager::<F>::commit(raw)).await?;
        self.open = false;
        Ok(())
    }

    /// Rolls back, and waits for the answer.
    ///
    /// # Errors
    /// As [`commit`](Self::commit).
    ///
    /// # Cancel safety
    /// The transaction is rolled back all the same, before anyone else has the connection.
    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        let (raw, track) = self.lease.parts();
        tracked::<F::Database, _>(track, Manager::<F>::rollback(raw)).await?;
        self.open = false;
        Ok(())
    }
}

impl<F: SqlxFactory> Drop for LeaseTransaction<F> {
    fn drop(&mut self) {
        if self.open {
            Manager::<F>::start_rollback(self.lease.parts().0);
        }
    }
}

impl<F: SqlxFactory> Deref for LeaseTransaction<F> {
    type Target = Raw<F>;

    fn deref(&self) -> &Raw<F> {
        &self.lease
    }
}

impl<F: SqlxFactory> DerefMut for LeaseTransaction<F> {
    fn deref_mut(&mut self) -> &mut Raw<F> {
        self.lease.parts().0
    }
}

impl<F: SqlxFactory> fmt::Debug for LeaseTransaction<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeaseTransaction")
            .field("database", &F::Database::NAME)
            .field("tenant", self.tenant())
            .field("open", &self.open)
            .finish_non_exhaustive()
    }
}
