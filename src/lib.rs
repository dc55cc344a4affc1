//! tenantry.
