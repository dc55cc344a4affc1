//! What is around every answer of the admin router: who may have it, and the headers that keep it where it belongs.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use super::authorization::Role;
use super::{Admin, page};
use crate::http::Problem;

/// Nothing of an answer that is no page may be run, shown in a frame or kept.
const HEADERS: [(HeaderName, &str); 8] = [
    (header::CACHE_CONTROL, "no-store"),
    (header::CONTENT_SECURITY_POLICY, "default-src 'none'; frame-ancestors 'none'"),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("x-robots-tag"), "noindex"),
];

/// Asks who it is before anything else looks at the request.
pub(super) async fn guard(State(admin): State<Arc<Admin>>, request: Request, next: Next) -> Response {
    let (mut head, body) = request.into_parts();
    let mut response = match admin.authorization.role(&head).await {
        Some(role) => {
            head.extensions.insert(role);
            next.run(Request::from_parts(head, body)).await
        }
        // A browser that is sent here has no token yet: it gets the page, where one can be given, and nothing else.
        None if head.method == Method::GET && head.uri.path() == "/" => {
            unauthorized((StatusCode::UNAUTHORIZED, page::response()).into_response())
        }
        None => unauthorized(
            Problem::new(StatusCode::UNAUTHORIZED, "about:blank", "Authorization is needed").into_response(),
        ),
    };
    protect(response.headers_mut());
    response
}

fn unauthorized(mut response: Response) -> Response {
    let challenge = HeaderValue::from_static("Bearer realm=\"tenantry\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}

fn protect(headers: &mut HeaderMap) {
    for (name, value) in HEADERS {
        // The page has a policy of its own.
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
}

/// What the guard found out.
pub(super) fn role_of(request: &Request) -> Option<Role> {
    request.extensions().get().copied()
}

pub(super) fn forbidden() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "about:blank", "This takes another role")
}

pub(super) async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "about:blank", "There is nothing here")
}
