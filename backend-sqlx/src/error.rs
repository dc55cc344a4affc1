//! [`Error`]: why a factory could not open, clean, make or drop something. [`InvalidName`] says what names are allowed.

use std::error::Error as StdError;
use std::{fmt, io};

use tenantry_core::InvalidName;

/// What a factory was doing when it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum During {
    /// Opening a connection.
    Connect,
    /// The hook given to `after_connect`.
    AfterConnect,
    /// Cleaning a connection for its next user.
    Recycle,
    /// Making a tenant's database.
    Create,
    /// Dropping a tenant's database.
    Drop,
    /// Asking the server for its limits.
    Preflight,
}

impl During {
    fn text(self) -> &'static str {
        match self {
            Self::Connect => "connecting to a tenant's database failed",
            Self::AfterConnect => "the after_connect hook failed on a new connection",
            Self::Recycle => "a connection could not be cleaned for its next user",
            Self::Create => "a tenant's database could not be created",
            Self::Drop => "a tenant's database could not be dropped",
            Self::Preflight => "the server could not be asked for its limits",
        }
    }
}

/// Why a factory of this crate failed.
///
/// Neither its text nor its `Debug` holds a URL, a user or a password, and its text does not repeat that of its
/// [`source`](StdError::source), which is sqlx's error where there is one. What the source says is the server's: it may
/// name a user or a host.
#[non_exhaustive]
pub enum Error {
    /// The tenant's name cannot be the name of a database of this kind.
    InvalidName(InvalidName),
    /// The tenant's database does not exist. It is made by `create`, never by an acquire.
    #[non_exhaustive]
    NoSuchTenant {
        /// What said so, if it was the database.
        source: Option<sqlx::Error>,
    },
    /// sqlx or the database failed.
    #[non_exhaustive]
    Sqlx {
        /// What was being done.
        during: During,
        /// What went wrong.
        source: sqlx::Error,
    },
    /// The file system failed (SQLite).
    #[non_exhaustive]
    File {
        /// What was being done.
        during: During,
        /// What went wrong.
        source: io::Error,
    },
    /// Something was left on the connection that cannot be undone, so it is closed.
    #[non_exhaustive]
    LeftBehind {
        /// What it is, such as "a setting that differs from how the connection was opened".
        what: &'static str,
    },
    /// The resolver of connect options failed.
    Resolver(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// What a resolver of connect options returns for a tenant that it does not know.
    #[must_use]
    pub fn no_such_tenant() -> Self {
        Self::NoSuchTenant { source: None }
    }

    /// What a resolver of connect options returns when it fails. The text of `source` ends up in logs: keep secrets
    /// out of it.
    #[must_use]
    pub fn resolver(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Resolver(source.into())
    }

    /// The database's code for the error: an SQLSTATE, or SQLite's extended result code.
    #[must_use]
    pub fn code(&self) -> Option<String> {
        match self {
            Self::Sqlx { source, .. } | Self::NoSuchTenant { source: Some(source) } => {
                source.as_database_error()?.code().map(Into::into)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName(_) => f.write_str("a tenant's name cannot be used for a database"),
            Self::NoSuchTenant { .. } => {
                f.write_str("the tenant's database does not exist; create it first, an acquire never does")
            }
            Self::Sqlx { during, .. } | Self::File { during, .. } => {
                f.write_str(during.text())?;
                match self.code() {
                    Some(code) => write!(f, " (code {code})"),
                    None => Ok(()),
                }
            }
            Self::LeftBehind { what } => write!(f, "{}: {what}", During::Recycle.text()),
            Self::Resolver(_) => f.write_str("the connect options of a tenant could not be found out"),
        }
    }
}

/// Shows what was done and the code, and of the source no more than its kind when it came from a server, whose words
/// may name a user.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName(name) => f.debug_tuple("InvalidName").field(name).finish(),
            Self::NoSuchTenant { .. } => f.debug_struct("NoSuchTenant").field("code", &self.code()).finish(),
            Self::Sqlx { during, source: sqlx::Error::Database(_) } => {
                f.debug_struct("Sqlx").field("during", during).field("code", &self.code()).finish_non_exhaustive()
            }
            Self::Sqlx { during, source } => {
                f.debug_struct("Sqlx").field("during", during).field("source", source).finish()
            }
            Self::File { during, source } => {
                f.debug_struct("File").field("during", during).field("source", source).finish()
            }
            Self::LeftBehind { what } => f.debug_struct("LeftBehind").field("what", what).finish(),
            Self::Resolver(_) => f.debug_tuple("Resolver").finish_non_exhaustive(),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::InvalidName(name) => Some(name),
            Self::NoSuchTenant { source } => source.as_ref().map(|source| source as _),
            Self::Sqlx { source, .. } => Some(source),
            Self::File { source, .. } => Some(source),
            Self::LeftBehind { .. } => None,
            Self::Resolver(source) => Some(source.as_ref()),
        }
    }
}

impl From<InvalidName> for Error {
    fn from(name: InvalidName) -> Self {
        Self::InvalidName(name)
    }
}
