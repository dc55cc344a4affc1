//! The table of routes: the router is built from it, and whoever wants to know what there is reads it.

use std::future::Future;
use std::pin::Pin;

use axum::extract::Request;
use axum::response::Response;

use super::authorization::Role;
use super::{Admin, calls};
use crate::http::Problem;

type Call = for<'a> fn(&'a Admin, Request) -> Pin<Box<dyn Future<Output = Result<Response, Problem>> + Send + 'a>>;

/// A route of the admin router.
pub struct Route {
    path: &'static str,
    writes: bool,
    role: Role,
    call: Call,
}

impl Route {
    /// Its path within the router.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.path
    }

    /// Whether it changes something, and so is a `POST`; the others are `GET` (and `HEAD`).
    #[must_use]
    pub fn writes(&self) -> bool {
        self.writes
    }

    /// What it takes.
    #[must_use]
    pub fn role(&self) -> Role {
        self.role
    }

    pub(super) async fn call(&self, admin: &Admin, request: Request) -> Result<Response, Problem> {
        (self.call)(admin, request).await
    }
}

impl std::fmt::Debug for Route {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let verb = if self.writes { "POST" } else { "GET" };
        write!(f, "{verb} {} ({:?})", self.path, self.role)
    }
}

const fn get(path: &'static str, role: Role, call: Call) -> Route {
    Route { path, writes: false, role, call }
}

const fn post(path: &'static str, call: Call) -> Route {
    Route { path, writes: true, role: Role::Admin, call }
}

/// All of them. `routes.md` says what each takes and answers.
static ROUTES: &[Route] = &[
    get("/", Role::Read, |admin, request| Box::pin(calls::page(admin, request))),
    get("/api/stats", Role::Read, |admin, request| Box::pin(calls::stats(admin, request))),
    get("/api/tenants", Role::Admin, |admin, request| Box::pin(calls::tenants(admin, request))),
    get("/api/tenant", Role::Admin, |admin, request| Box::pin(calls::tenant(admin, request))),
    get("/api/top", Role::Admin, |admin, request| Box::pin(calls::top(admin, request))),
    #[cfg(feature = "metrics")]
    get("/metrics", Role::Read, |admin, request| Box::pin(calls::metrics(admin, request))),
    post("/api/drain", |admin, request| Box::pin(calls::drain(admin, request))),
    post("/api/resume", |admin, request| Box::pin(calls::resume(admin, request))),
    post("/api/evict", |admin, request| Box::pin(calls::evict(admin, request))),
    post("/api/warm", |admin, request| Box::pin(calls::warm(admin, request))),
];

/// The routes of the admin router.
#[must_use]
pub fn routes() -> &'static [Route] {
    ROUTES
}
