//! Fakes and suites for code that uses tenantry.
