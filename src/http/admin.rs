//! An admin router: statistics, the tenants, what an operator does with them, and a page that shows all of it.
//!
//! It cannot be had without saying who may use it:
//!
//! ```
//! use axum::Router;
//! use tenantry::http::admin::{self, Authorization, Role, WeakToken};
//! use tenantry::{PoolFactory, TenantPools};
//!
//! fn with_admin<F: PoolFactory>(app: Router, pools: &TenantPools<F>, token: &str) -> Result<Router, WeakToken> {
//!     let authorization = Authorization::tokens([(Role::Admin, token)])?;
//!     let admin: Router = admin::router(pools, authorization);
//!     Ok(app.nest_service("/admin", admin))
//! }
//! ```
//!
//! The page is then at `/admin` and at `/admin/` (with axum's `nest` it is at `/admin` alone). Serve it over TLS, or on an
//! address that only operators reach: tokens travel with each request.
//!
#![doc = include_str!("admin/routes.md")]

mod authorization;
mod calls;
mod guard;
mod manager;
mod page;
mod table;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::from_fn_with_state;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, on};

use crate::http::Problem;
#[cfg(feature = "metrics")]
use crate::metrics::Prometheus;
use crate::{PoolFactory, TenantPools};

pub use authorization::{Authorization, Role, WeakToken};
pub use table::{Route, routes};

use guard::{guard, not_found, role_of};
use manager::Manager;

/// What the handlers have in common.
pub(crate) struct Admin {
    manager: Box<dyn Manager>,
    authorization: Authorization,
    #[cfg(feature = "metrics")]
    prometheus: Prometheus,
}

/// The admin router of a manager, to be nested where you like. It holds the manager [weakly](TenantPools::weak): when the
/// last other handle is dropped the manager closes, and the router says so.
///
/// Every route, and every path and verb that is none, answers 401 to whom `authorization` does not know, and 403 to whom
/// it gives too little. There is no way around it:
///
/// ```compile_fail
/// # fn f<F: tenantry::PoolFactory>(pools: &tenantry::TenantPools<F>) {
/// let router: axum::Router = tenantry::http::admin::router(pools);
/// # }
/// ```
pub fn router<F, S>(pools: &TenantPools<F>, authorization: Authorization) -> Router<S>
where
    F: PoolFactory,
    S: Clone + Send + Sync + 'static,
{
    build(Admin {
        manager: Box::new(pools.weak()),
        authorization,
        #[cfg(feature = "metrics")]
        prometheus: Prometheus::new("tenants"),
    })
}

/// The same, with the metrics of that `prometheus` at `/metrics`: the one whose observer the manager was built with, so that its
/// histograms are among them. [`router`] serves what can be read without an observer, for a pool named `tenants`.
///
/// Tenants that it names ([`Prometheus::top_tenants`]) are named to admins only: a scraper with a reader's token gets totals and
/// servers.
#[cfg(feature = "metrics")]
pub fn router_with_metrics<F, S>(
    pools: &TenantPools<F>,
    authorization: Authorization,
    prometheus: Prometheus,
) -> Router<S>
where
    F: PoolFactory,
    S: Clone + Send + Sync + 'static,
{
    build(Admin { manager: Box::new(pools.weak()), authorization, prometheus })
}

fn build<S: Clone + Send + Sync + 'static>(admin: Admin) -> Router<S> {
    let admin = Arc::new(admin);
    let mut router = Router::new();
    for route in routes() {
        let serve = async move |State(admin): State<Arc<Admin>>, request: Request| answer(&admin, route, request).await;
        let filter = if route.writes() { MethodFilter::POST } else { MethodFilter::GET };
        router = router.route(route.path(), on(filter, serve));
    }
    // Of its own, so that the layer is around it as well where this is nested.
    router.fallback(not_found).layer(from_fn_with_state(admin.clone(), guard)).with_state(admin)
}

/// The role first, then everything else.
async fn answer(admin: &Admin, route: &'static Route, request: Request) -> Response {
    if role_of(&request).is_none_or(|role| role < route.role()) {
        return guard::forbidden().into_response();
    }
    route.call(admin, request).await.unwrap_or_else(Problem::into_response)
}
