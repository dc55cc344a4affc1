//! diesel-async drivers for tenantry.
