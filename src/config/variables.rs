//! The table of all variables: the one place that knows their names, and from which the documentation's table is checked.

/// How a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A whole number, at least and at most.
    Number(u32, u32),
    /// A whole number whose bounds the builder knows.
    Checked,
    /// A time whose bounds the builder knows.
    Time,
    /// A time that the builder does not know.
    FreeTime,
    Text,
    SslMode,
    File,
    /// Text that is shown nowhere.
    Secret,
    /// A table of a file, with no place in the environment.
    Table,
}

/// One variable.
#[derive(Debug)]
pub(super) struct Variable {
    /// The field of [`Config`](super::Config) and the key in a file. In the environment: after the prefix, in capitals.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// The method of the builder that it goes to.
    pub(super) builder: Option<&'static str>,
    pub(super) default: &'static str,
    /// For the documentation.
    pub(super) meaning: &'static str,
}

impl Variable {
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        VARIABLES.iter().find(|variable| variable.name == name)
    }

    /// What the environment calls it.
    pub(super) fn spelled(&self, prefix: &str) -> String {
        spelled(prefix, self.name)
    }
}

/// A key of a file as the environment has it.
pub(super) fn spelled(prefix: &str, name: &str) -> String {
    format!("{prefix}_{}", name.to_ascii_uppercase())
}

const fn row(
    name: &'static str,
    kind: Kind,
    builder: Option<&'static str>,
    default: &'static str,
    meaning: &'static str,
) -> Variable {
    Variable { name, kind, builder, default, meaning }
}

use Kind::{Checked, File, FreeTime, Number, Secret, SslMode, Table, Text, Time};

/// What stands for "the builder's own default", which its documentation gives with the reason.
pub(super) const BUILDERS: &str = "the builder's";

/// In the order of the documentation.
pub(super) const VARIABLES: &[Variable] = &[
    row("max_connections", Number(20, 10_000), None, "100", "the budget: all connections of this process"),
    row(
        "max_connections_per_db",
        Number(1, 50),
        Some("max_connections_per_tenant"),
        "3",
        "the same, of one tenant's database; at most the budget",
    ),
    row("connection_max_lifetime", Time, Some("max_lifetime"), "10m", "a connection's age at which it is closed"),
    row("connection_max_idle_time", Time, Some("idle_timeout"), "5m", "how long it may be idle"),
    row("system_tenant", Text, None, "none", "the tenant that is the service's own database"),
    row(
        "system_max_connections",
        Checked,
        None,
        "a tenth of the budget, 5 to 20",
        "the connections it can always have, and no more",
    ),
    row("acquire_timeout", Time, Some("acquire_timeout"), BUILDERS, "time of an acquire in all"),
    row("connect_timeout", Time, Some("connect_timeout"), BUILDERS, "time of one connect"),
    row("recycle_timeout", Time, Some("recycle_timeout"), BUILDERS, "time of cleaning one connection"),
    row("close_timeout", Time, Some("close_timeout"), BUILDERS, "time of one close"),
    row("validate_after_idle", Time, Some("validate_after_idle"), BUILDERS, "idle time after which it is asked first"),
    row("handover_bound", Time, Some("handover_bound"), BUILDERS, "how long a tenant may hand a connection on"),
    row("max_waiters", Checked, Some("max_waiters"), BUILDERS, "acquires in line"),
    row("max_waiters_per_tenant", Checked, Some("max_waiters_per_tenant"), BUILDERS, "the same, of one tenant"),
    row("max_connecting", Checked, Some("max_connecting"), BUILDERS, "connects at once, on each server"),
    row("background_share", Checked, Some("background_share"), BUILDERS, "connections of background work"),
    row(
        "background_steals_after",
        Time,
        Some("background_steals_after"),
        BUILDERS,
        "idle time after which background work may close others' connections",
    ),
    row("lease_warn_after", Time, Some("lease_warn_after"), BUILDERS, "time of a lease after which it is logged"),
    row("forget_after", Time, Some("forget_after"), BUILDERS, "how long a quiet tenant is remembered"),
    row("max_known_tenants", Checked, Some("max_known_tenants"), BUILDERS, "tenants that are remembered"),
    row("tombstone_ttl", Time, Some("tombstone_ttl"), BUILDERS, "how long callers of a removed tenant are told so"),
    row("tenants", Table, None, "none", "limits of single tenants: `[tenants.acme]` with `max`, `reserve`, `weight`"),
    row("servers", Table, None, "none", "caps of servers: `[servers]` with `east = 40`"),
    row("host", Text, None, "localhost", "a name, an address, or the folder of a socket"),
    row("port", Number(1, 65_535), None, "the engine's", "the port"),
    row("user", Text, None, "the driver's", "the login"),
    row("password", Secret, None, "none", "its password, as it is: nothing has to be escaped"),
    row("password_file", File, None, "none", "a file that holds the password, in its place"),
    row(
        "sslmode",
        SslMode,
        None,
        "prefer",
        "`disable`, `allow`, `prefer`, `require`, `verify-ca` or `verify-full`, as PostgreSQL has them",
    ),
    row("sslrootcert", File, None, "the driver's", "the certificates to trust, as PEM"),
    row("prefix", Text, None, "none", "what all tenants' databases' names begin with"),
    row("maintenance_database", Text, None, "`postgres`, `mysql`", "where databases are made and dropped from"),
    row("statement_timeout", FreeTime, None, "the server's", "time of one statement (PostgreSQL)"),
];
