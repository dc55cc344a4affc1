//! [`Problem`]: what a client is told when it gets no connection, after RFC 9457. `problems.md` is the table.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::time::Duration;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::{AcquireError, FailureKind, InvalidTenant, LimitError, LimitScope, ProvisionError, TryAcquireError};

/// Before each name of ours.
const TYPES: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/src/http/problems.md#");

/// Where the state may be another one soon, and nobody knows when.
const SOON: Duration = Duration::from_secs(1);

/// A problem document (RFC 9457): the answer to a request that could not be served, and an error type for handlers.
///
/// It is made of a status and of fixed texts, never of a driver's, so that nothing in it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    status: StatusCode,
    kind: Cow<'static, str>,
    title: Cow<'static, str>,
    detail: Option<Cow<'static, str>>,
    scope: Option<&'static str>,
    retry_after: Option<u64>,
}

/// Its form on the wire.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'a str,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
}

impl Problem {
    /// A problem of your own. `kind` is the document's `type`: an address that names this kind of problem, or
    /// `about:blank`; `title` says it to a person, the same for all of a kind.
    #[must_use]
    pub fn new(status: StatusCode, kind: impl Into<Cow<'static, str>>, title: impl Into<Cow<'static, str>>) -> Self {
        Self { status, kind: kind.into(), title: title.into(), detail: None, scope: None, retry_after: None }
    }

    /// Says more about this one case. Clients see it.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Tells clients when to come back: in whole seconds, rounded up, at least 1.
    #[must_use]
    pub fn retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some((wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1));
        self
    }

    /// 500 for whatever else went wrong, which is logged; the client is told nothing of it.
    ///
    /// ```
    /// # use tenantry::http::Problem;
    /// fn handler(text: &str) -> Result<u32, Problem> {
    ///     text.parse().map_err(Problem::internal)
    /// }
    /// ```
    #[must_use]
    pub fn internal(error: impl fmt::Display) -> Self {
        tracing::error!(%error, "answered 500");
        Self::of(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Something went wrong")
    }

    /// The problem of the first error in this chain that tenantry made, as `E`'s: `E` is the factory's error, and may be any
    /// type where only a [`LimitError`] is looked for. None where there is none in it.
    ///
    /// ```
    /// # use tenantry::{AcquireError, http::Problem};
    /// # type ConnectError = std::io::Error;
    /// fn answer(error: &anyhow::Error) -> Problem {
    ///     Problem::in_chain::<ConnectError>(error.as_ref()).unwrap_or_else(|| Problem::internal(error))
    /// }
    /// # let error = anyhow::Error::new(AcquireError::<ConnectError>::Closed).context("reading notes");
    /// # assert_eq!(answer(&error).status(), 503);
    /// ```
    #[must_use]
    pub fn in_chain<E: Error + 'static>(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<AcquireError<E>>() {
                return Some(error.into());
            } else if let Some(error) = error.downcast_ref::<ProvisionError<E>>() {
                return Some(error.into());
            } else if let Some(error) = error.downcast_ref::<LimitError>() {
                return Some(error.into());
            } else if let Some(error) = error.downcast_ref::<TryAcquireError>() {
                return Some(error.into());
            } else if let Some(error) = error.downcast_ref::<InvalidTenant>() {
                return Some(error.into());
            }
            // Drivers' errors have a place for an I/O error and none for ours; its source is not what it wraps.
            next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
                Some(wrapped) => Some(wrapped),
                None => error.source(),
            };
        }
        None
    }

    /// The answer's status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The document's `type`.
    #[must_use]
    pub fn kind(&self) -> &str {
        &self.kind
    }

    /// The header `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after_seconds(&self) -> Option<u64> {
        self.retry_after
    }

    /// One of the table's.
    pub(crate) fn of(status: StatusCode, name: &str, title: &'static str) -> Self {
        Self::new(status, format!("{TYPES}{name}"), title)
    }

    pub(crate) fn missing(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::of(StatusCode::BAD_REQUEST, "tenant-missing", "The request names no tenant").detail(detail)
    }

    fn invalid() -> Self {
        Self::of(StatusCode::BAD_REQUEST, "tenant-invalid", "This cannot be a tenant's name")
    }

    fn unavailable(retry_after: Duration) -> Self {
        let title = "The tenant's database cannot be reached";
        Self::of(StatusCode::SERVICE_UNAVAILABLE, "unavailable", title).retry_after(retry_after)
    }

    fn timeout() -> Self {
        let title = "The tenant's database did not answer in time";
        Self::of(StatusCode::SERVICE_UNAVAILABLE, "timeout", title).retry_after(SOON)
    }

    fn draining() -> Self {
        let title = "The tenant is out of service for a moment";
        Self::of(StatusCode::SERVICE_UNAVAILABLE, "tenant-draining", title).retry_after(SOON)
    }

    fn removed() -> Self {
        Self::of(StatusCode::GONE, "tenant-removed", "The tenant was removed")
    }

    /// Retrying is for another process, or for this one's successor.
    pub(crate) fn closed() -> Self {
        Self::of(StatusCode::SERVICE_UNAVAILABLE, "closed", "The service is stopping").retry_after(SOON)
    }

    /// A connect that failed, or is not tried at present.
    fn failure(kind: FailureKind, retry_after: Duration) -> Self {
        match kind {
            FailureKind::NoSuchTenant => Self::of(StatusCode::NOT_FOUND, "tenant-unknown", "There is no such tenant"),
            FailureKind::InvalidName => Self::invalid(),
            FailureKind::Auth => {
                Self::of(StatusCode::BAD_GATEWAY, "refused", "The database refuses the service's credentials")
            }
            _ => Self::unavailable(retry_after),
        }
    }
}

impl From<InvalidTenant> for Problem {
    fn from(invalid: InvalidTenant) -> Self {
        Self::from(&invalid)
    }
}

impl From<&InvalidTenant> for Problem {
    fn from(invalid: &InvalidTenant) -> Self {
        // Its text is ours and does not repeat the name.
        Self::invalid().detail(invalid.to_string())
    }
}

impl From<LimitError> for Problem {
    fn from(limit: LimitError) -> Self {
        Self::from(&limit)
    }
}

impl From<&LimitError> for Problem {
    fn from(limit: &LimitError) -> Self {
        let (scope, detail) = match limit.scope {
            LimitScope::Tenant => ("tenant", "the tenant uses all the connections that it may have"),
            LimitScope::Server => ("server", "the tenant's database server has no room"),
            LimitScope::Total => ("total", "all connections are in use"),
            LimitScope::Queue => ("queue", "too many requests wait already"),
            LimitScope::Background => ("background", "background work uses all that it may have"),
            _ => ("other", "a limit was reached"),
        };
        let title = "Too many connections are in use";
        let problem =
            Self { scope: Some(scope), ..Self::of(StatusCode::SERVICE_UNAVAILABLE, "limit", title) }.detail(detail);
        match limit.retry_after {
            Some(wait) => problem.retry_after(wait),
            None => problem,
        }
    }
}

impl<E> From<AcquireError<E>> for Problem {
    fn from(error: AcquireError<E>) -> Self {
        Self::from(&error)
    }
}

impl<E> From<&AcquireError<E>> for Problem {
    fn from(error: &AcquireError<E>) -> Self {
        match error {
            AcquireError::InvalidTenant(invalid) => invalid.into(),
            AcquireError::Limit(limit) => limit.into(),
            AcquireError::Timeout { .. } => Self::timeout(),
            AcquireError::Connect { kind, .. } => Self::failure(*kind, SOON),
            AcquireError::Unavailable { kind, retry_after, .. } => Self::failure(*kind, *retry_after),
            AcquireError::Draining { .. } => Self::draining(),
            AcquireError::Removed { .. } => Self::removed(),
            AcquireError::Closed => Self::closed(),
            _ => Self::unavailable(SOON),
        }
    }
}

impl<E> From<ProvisionError<E>> for Problem {
    fn from(error: ProvisionError<E>) -> Self {
        Self::from(&error)
    }
}

impl<E> From<&ProvisionError<E>> for Problem {
    fn from(error: &ProvisionError<E>) -> Self {
        match error {
            ProvisionError::Permit(error) => error.into(),
            ProvisionError::Failed { kind, .. } => Self::failure(*kind, SOON),
            _ => Self::timeout(),
        }
    }
}

impl From<TryAcquireError> for Problem {
    fn from(error: TryAcquireError) -> Self {
        Self::from(&error)
    }
}

impl From<&TryAcquireError> for Problem {
    fn from(error: &TryAcquireError) -> Self {
        match error {
            TryAcquireError::InvalidTenant(invalid) => invalid.into(),
            TryAcquireError::Draining => Self::draining(),
            TryAcquireError::Removed => Self::removed(),
            TryAcquireError::Closed => Self::closed(),
            _ => Self::of(StatusCode::SERVICE_UNAVAILABLE, "limit", "No connection is idle").retry_after(SOON),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.title)
    }
}

impl Error for Problem {}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let Self { status, kind, title, detail, scope, retry_after } = &self;
        let detail = detail.as_deref();
        let body =
            Body { r#type: kind, title, status: status.as_u16(), detail, scope: *scope, retry_after: *retry_after };
        // Texts and numbers: there is no case in which this fails.
        let body = serde_json::to_vec(&body).unwrap_or_default();
        let headers = [(header::CONTENT_TYPE, "application/problem+json"), (header::CACHE_CONTROL, "no-store")];
        let mut response = (*status, headers, body).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(*seconds));
        }
        response
    }
}
