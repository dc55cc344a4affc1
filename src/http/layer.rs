//! [`TenantLayer`]: the tenant's name in every span and event of its requests.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::http::Request;
use tower_layer::Layer;
use tower_service::Service;
use tracing::{Instrument, Span, info_span};

use crate::http::TenantSource;

/// Runs each request in a span `tenant_request` (level info) with its tenant in the field `tenant`, so that whatever is
/// logged for it says whose it is. The extractors of the same source take the tenant from here and do not look for it again.
///
/// A request without a tenant goes on without a span; a name is never in it before it was checked.
/// Put it on routes with [`Router::layer`](axum::Router::layer), where the path's parameters are known. A body that is sent after
/// the handler has ended is not in the span.
#[derive(Debug, Clone)]
pub struct TenantLayer {
    source: TenantSource,
}

impl TenantLayer {
    /// Spans with the tenants that `source` finds; give it a clone of what [`Tenants`](crate::http::Tenants) has.
    #[must_use]
    pub fn new(source: TenantSource) -> Self {
        Self { source }
    }
}

impl<S> Layer<S> for TenantLayer {
    type Service = TenantService<S>;

    fn layer(&self, inner: S) -> TenantService<S> {
        TenantService { inner, source: self.source.clone() }
    }
}

/// What [`TenantLayer`] makes of a service.
#[derive(Debug, Clone)]
pub struct TenantService<S> {
    inner: S,
    source: TenantSource,
}

impl<S, B> Service<Request<B>> for TenantService<S>
where
    S: Service<Request<B>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        // The one that said it is ready is the one to call.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let source = self.source.clone();
        Box::pin(async move {
            let (mut head, body) = request.into_parts();
            // The extractor answers for a request without one.
            let span = match source.tenant(&mut head).await {
                Ok(tenant) => {
                    let span = info_span!("tenant_request", %tenant);
                    source.remember(tenant, &mut head);
                    span
                }
                Err(_) => Span::none(),
            };
            let answer = span.in_scope(|| inner.call(Request::from_parts(head, body)));
            answer.instrument(span).await
        })
    }
}
