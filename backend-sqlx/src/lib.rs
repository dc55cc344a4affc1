//! sqlx drivers for tenantry.
