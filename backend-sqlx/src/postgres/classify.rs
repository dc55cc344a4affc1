//! What an error of sqlx means, whether the server said it or a PgBouncer in between.

use sqlx::postgres::PgDatabaseError;
use tenantry_core::FailureKind;

/// What sqlx makes of a server that ends the connection instead of an answer to its first question, which is for TLS, as
/// one does that stops, and a proxy whose server is gone: it takes the missing answer for a zero. No server says that.
const ENDED_AT_ONCE: &str = "unexpected response from SSLRequest: 0x00";

pub(super) fn classify(error: &sqlx::Error) -> FailureKind {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => FailureKind::Unreachable,
        sqlx::Error::Protocol(text) if text.starts_with(ENDED_AT_ONCE) => FailureKind::Unreachable,
        error => match code_of(error) {
            Some("3D000") => FailureKind::NoSuchTenant,
            Some("53300") => FailureKind::ServerFull,
            Some("08P01") => classify_pgbouncer(error.as_database_error().map_or("", |error| error.message())),
            // Bad credentials, or a role that may not connect to this database.
            Some(code) if code.starts_with("28") || code == "42501" => FailureKind::Auth,
            // The session was ended, the server stops or starts, or the connection broke.
            Some(code) if code.starts_with("57P") || code.starts_with("08") => FailureKind::Unreachable,
            _ => FailureKind::Other,
        },
    }
}

/// PgBouncer has one code for everything, its own refusals and the server's alike, which it passes on by their text.
fn classify_pgbouncer(message: &str) -> FailureKind {
    if message.starts_with("database \"") && message.ends_with("does not exist") {
        FailureKind::NoSuchTenant
    } else if message.contains("authentication failed") {
        FailureKind::Auth
    } else if message.starts_with("no more connections allowed") || message.contains("too many c") {
        FailureKind::ServerFull
    } else {
        FailureKind::Unreachable
    }
}

pub(super) fn code_of(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_pgbouncer_says_is_told_apart_by_its_text() {
        for (message, kind) in [
            ("database \"acme\" does not exist", FailureKind::NoSuchTenant),
            ("SASL authentication failed", FailureKind::Auth),
            ("password authentication failed for user \"shop\"", FailureKind::Auth),
            ("no more connections allowed (max_client_conn)", FailureKind::ServerFull),
            ("too many connections for role \"shop\"", FailureKind::ServerFull),
            ("sorry, too many clients already", FailureKind::ServerFull),
            ("query_wait_timeout", FailureKind::Unreachable),
            ("server login has been failing, try again later (server_login_retry)", FailureKind::Unreachable),
            ("", FailureKind::Unreachable),
        ] {
            assert_eq!(classify_pgbouncer(message), kind, "{message}");
        }
    }
}
