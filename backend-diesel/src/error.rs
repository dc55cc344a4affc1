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
    /// Cleaning a connection for its next user.
    Recycle,
    /// Making a tenant's database.
    Create,
    /// Dropping a tenant's database.
    Drop,
}

impl During {
    fn text(self) -> &'static str {
        match self {
            Self::Connect => "connecting to a tenant's database failed",
            Self::Recycle => "a connection could not be cleaned for its next user",
            Self::Create => "a tenant's database could not be created",
            Self::Drop => "a tenant's database could not be dropped",
        }
    }
}

/// Why a factory of this crate failed.
///
/// Neither its text nor its `Debug` holds a URL or a password, and its text does not repeat that of its
/// [`source`](StdError::source). What the source says is the server's: it may name a user or a host.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The tenant's name cannot be the name of a database of this kind.
    InvalidName(InvalidName),
    /// There is no such tenant: the resolver of connect options does not know it, or its file is not there.
    NoSuchTenant,
    /// The server refused, or the driver did.
    #[cfg(feature = "postgres")]
    #[non_exhaustive]
    Postgres {
        /// What was being done.
        during: During,
        /// What went wrong.
        source: tokio_postgres::Error,
    },
    /// The server refused, or the driver did.
    #[cfg(feature = "mysql")]
    #[non_exhaustive]
    MySql {
        /// What was being done.
        during: During,
        /// What went wrong.
        source: mysql_async::Error,
    },
    /// The server could not be reached.
    #[non_exhaustive]
    Io {
        /// What was being done.
        during: During,
        /// What went wrong.
        source: io::Error,
    },
    /// No encrypted connection came about, and one in the clear was not to be: the server does not speak TLS, its
    /// certificate is not vouched for or is for another name, or the factory was not told whom to believe. Counts as
    /// [`Unreachable`](tenantry_core::FailureKind::Unreachable), as nobody was there who proved to be the server.
    #[cfg(feature = "postgres")]
    #[non_exhaustive]
    Tls {
        /// What was being done.
        during: During,
        /// What went wrong. Where it was the handshake, the error in it is rustls's.
        source: io::Error,
    },
    /// A file or its folder could not be had.
    #[cfg(feature = "sqlite")]
    #[non_exhaustive]
    File {
        /// What was being done.
        during: During,
        /// What the system said.
        source: io::Error,
    },
    /// diesel could not set a new connection up.
    SetUp(diesel::ConnectionError),
    /// A statement that cleans the connection failed.
    Recycle(diesel::result::Error),
    /// The server could not be asked for its limits.
    Preflight(diesel::result::Error),
    /// The server or the network ended the connection.
    Lost,
    /// The resolver of connect options failed.
    Resolver(Box<dyn StdError + Send + Sync>),
}

impl Error {
    /// What a resolver returns when it fails. The text of `source` ends up in logs: keep secrets out of it.
    #[must_use]
    pub fn resolver(source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Resolver(source.into())
    }

    /// The server's SQLSTATE for the error, if it gave one and the driver passed it on.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres { source, .. } => source.code().map(|code| code.code()),
            #[cfg(feature = "mysql")]
            Self::MySql { source: mysql_async::Error::Server(error), .. } => Some(&error.state),
            _ => None,
        }
    }

    /// MySQL's own number for the error, if the server gave one.
    #[cfg(feature = "mysql")]
    #[must_use]
    pub fn number(&self) -> Option<u16> {
        match self {
            Self::MySql { source: mysql_async::Error::Server(error), .. } => Some(error.code),
            _ => None,
        }
    }
}

impl From<InvalidName> for Error {
    fn from(source: InvalidName) -> Self {
        Self::InvalidName(source)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidName(_) => f.write_str("a tenant's name cannot be used for a database"),
            Self::NoSuchTenant => f.write_str("there is no such tenant"),
            #[cfg(feature = "postgres")]
            Self::Postgres { during, .. } => {
                f.write_str(during.text())?;
                self.code().map_or(Ok(()), |code| write!(f, " (SQLSTATE {code})"))
            }
            #[cfg(feature = "mysql")]
            Self::MySql { during, .. } => {
                f.write_str(during.text())?;
                self.number().map_or(Ok(()), |number| write!(f, " (error {number})"))
            }
            #[cfg(feature = "postgres")]
            Self::Tls { during, .. } => write!(f, "{}: no encrypted connection came about", during.text()),
            Self::Io { during, .. } => write!(f, "{}: the server could not be reached", during.text()),
            #[cfg(feature = "sqlite")]
            Self::File { during, .. } => write!(f, "{}: its file or folder could not be had", during.text()),
            Self::SetUp(_) => f.write_str("a new connection to a tenant's database could not be set up"),
            Self::Recycle(_) => f.write_str(During::Recycle.text()),
            Self::Preflight(_) => f.write_str("the server could not be asked for its limits"),
            Self::Lost => f.write_str("the server or the network ended the connection"),
            Self::Resolver(_) => f.write_str("the connect options of a tenant could not be found out"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::InvalidName(source) => Some(source),
            #[cfg(feature = "postgres")]
            Self::Postgres { source, .. } => Some(source),
            #[cfg(feature = "mysql")]
            Self::MySql { source, .. } => Some(source),
            Self::Io { source, .. } => Some(source),
            #[cfg(feature = "postgres")]
            Self::Tls { source, .. } => Some(source),
            #[cfg(feature = "sqlite")]
            Self::File { source, .. } => Some(source),
            Self::SetUp(source) => Some(source),
            Self::Recycle(source) | Self::Preflight(source) => Some(source),
            Self::Resolver(source) => Some(source.as_ref()),
            Self::NoSuchTenant | Self::Lost => None,
        }
    }
}
