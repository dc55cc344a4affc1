//! [`TenantSource`]: where in a request its tenant is named.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use axum::http::{HeaderName, header};

use crate::TenantId;
use crate::http::Problem;

type Found = Pin<Box<dyn Future<Output = Result<TenantId, Problem>> + Send>>;

/// Where a request names its tenant. Cheap to clone.
///
/// Whoever sends the request chooses what stands there, so a service that has users checks that this one may use this
/// tenant, in a layer before the handlers or in a [`resolver`](Self::resolver) that asks the session instead of the request.
#[derive(Clone)]
pub struct TenantSource(Arc<Place>);

enum Place {
    Header(HeaderName),
    Subdomain(String),
    Path(String),
    Resolver(Box<dyn Fn(&Parts) -> Found + Send + Sync>),
}

/// The tenant that a layer found, for the extractors behind it.
#[derive(Clone)]
struct Remembered {
    source: TenantSource,
    tenant: TenantId,
}

impl TenantSource {
    /// The value of a header, which has to be there exactly once, in UTF-8.
    ///
    /// # Panics
    /// Where the name cannot be a header's in lower case.
    #[must_use]
    pub fn header(name: &'static str) -> Self {
        Self(Arc::new(Place::Header(HeaderName::from_static(name))))
    }

    /// The one label before this domain, in lower case: `acme` of `acme.example.com` for `example.com`. It is read from the
    /// request's authority or its header `Host`; what a proxy writes elsewhere is for a [`resolver`](Self::resolver).
    #[must_use]
    pub fn subdomain(domain: &str) -> Self {
        Self(Arc::new(Place::Subdomain(domain.trim_matches('.').to_ascii_lowercase())))
    }

    /// A parameter of the route's path, as `tenant` in `/{tenant}/notes`.
    #[must_use]
    pub fn path(parameter: &str) -> Self {
        Self(Arc::new(Place::Path(parameter.to_owned())))
    }

    /// What your function says: from a session that a layer put into the extensions, by asking a table of domains, and so on.
    /// It takes what it needs from the request's head and answers with a name, or with the [`Problem`] that the client gets.
    ///
    /// ```
    /// use tenantry::http::{Problem, TenantSource};
    ///
    /// #[derive(Clone)]
    /// struct User {
    ///     company: String,
    /// }
    ///
    /// let source = TenantSource::resolver(|head| {
    ///     let user = head.extensions.get::<User>().cloned();
    ///     async {
    ///         let user = user.ok_or_else(|| Problem::new(http::StatusCode::UNAUTHORIZED, "about:blank", "Log in first"))?;
    ///         Ok(user.company)
    ///     }
    /// });
    /// # use axum::http;
    /// ```
    #[must_use]
    pub fn resolver<A, N>(resolver: impl Fn(&Parts) -> A + Send + Sync + 'static) -> Self
    where
        A: Future<Output = Result<N, Problem>> + Send + 'static,
        N: AsRef<str>,
    {
        let resolver = move |parts: &Parts| -> Found {
            let answer = resolver(parts);
            Box::pin(async move { Ok(TenantId::new(answer.await?)?) })
        };
        Self(Arc::new(Place::Resolver(Box::new(resolver))))
    }

    /// The request's tenant.
    ///
    /// # Errors
    /// The problem to answer with: no tenant, one that cannot be, or what the resolver says.
    pub async fn tenant(&self, head: &mut Parts) -> Result<TenantId, Problem> {
        if let Some(remembered) = head.extensions.get::<Remembered>()
            && Arc::ptr_eq(&remembered.source.0, &self.0)
        {
            return Ok(remembered.tenant.clone());
        }
        let found = match &*self.0 {
            Place::Header(name) => in_header(name, head)?,
            Place::Subdomain(domain) => in_host(domain, head)?,
            Place::Path(parameter) => return in_path(parameter, head).await,
            Place::Resolver(resolver) => {
                let answer = resolver(head);
                return answer.await;
            }
        };
        Ok(TenantId::new(found)?)
    }

    /// Leaves what was found for [`tenant`](Self::tenant) of this same source.
    pub(crate) fn remember(&self, tenant: TenantId, head: &mut Parts) {
        head.extensions.insert(Remembered { source: self.clone(), tenant });
    }
}

/// The only value of that header. Two are not one to choose from: proxies and services choose differently.
fn only<'a>(name: &HeaderName, head: &'a Parts) -> Result<&'a str, Problem> {
    let mut values = head.headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Err(Problem::missing(format!("the header `{name}` is missing"))),
        (Some(_), Some(_)) => Err(Problem::missing(format!("the header `{name}` is there more than once"))),
        (Some(value), None) => std::str::from_utf8(value.as_bytes())
            .map_err(|_| Problem::missing(format!("the header `{name}` is not in UTF-8"))),
    }
}

fn in_header(name: &HeaderName, head: &Parts) -> Result<String, Problem> {
    only(name, head).map(str::to_owned)
}

fn in_host(domain: &str, head: &Parts) -> Result<String, Problem> {
    let host = match head.uri.authority() {
        Some(authority) => authority.as_str(),
        None => only(&header::HOST, head)?,
    };
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = host.split_once(':').map_or(host, |(host, _)| host).to_ascii_lowercase();
    let label = host.trim_end_matches('.').strip_suffix(domain).and_then(|label| label.strip_suffix('.'));
    match label {
        Some(label) if !label.is_empty() && !label.contains('.') => Ok(label.to_owned()),
        _ => Err(Problem::missing("the host is not one name before this service's domain")),
    }
}

async fn in_path(parameter: &str, head: &mut Parts) -> Result<TenantId, Problem> {
    let Ok(parameters) = RawPathParams::from_request_parts(head, &()).await else {
        return Err(Problem::missing("the path is not in UTF-8"));
    };
    match parameters.iter().find(|(name, _)| *name == parameter) {
        Some((_, tenant)) => Ok(TenantId::new(tenant)?),
        None => Err(Problem::internal(format_args!("the route has no parameter `{parameter}` to name its tenant"))),
    }
}

impl fmt::Debug for TenantSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            Place::Header(name) => write!(f, "TenantSource(header {name})"),
            Place::Subdomain(domain) => write!(f, "TenantSource(subdomain of {domain})"),
            Place::Path(parameter) => write!(f, "TenantSource(path {{{parameter}}})"),
            Place::Resolver(_) => f.write_str("TenantSource(resolver)"),
        }
    }
}
