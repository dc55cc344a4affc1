//! What each route does. The role was looked at before.

use std::time::Duration;

use axum::body::to_bytes;
use axum::extract::{Query, Request};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde::de::{Deserialize, DeserializeOwned};
use serde_json::json;

use super::{Admin, guard, page};
use crate::http::Problem;
use crate::{Stats, TenantId, TenantPage, TopBy};

type Answer = Result<Response, Problem>;

/// The most bytes of a body: a tenant's name takes 255, each up to 6 in JSON.
const BODY: usize = 4_096;

/// The most tenants of one answer.
const MOST_TENANTS: usize = 200;

/// The longest that a drain waits, in seconds.
const LONGEST_DRAIN: u64 = 60;

/// The most connections that one call warms.
const MOST_WARMED: u32 = 100;

/// The page; what it shows it asks for itself.
pub(super) async fn page(_: &Admin, _: Request) -> Answer {
    Ok(page::response())
}

/// What is known is told when the manager is closed or gone as well.
pub(super) async fn stats(admin: &Admin, request: Request) -> Answer {
    #[derive(Serialize)]
    struct Picture {
        available: bool,
        role: &'static str,
        #[serde(flatten)]
        stats: Stats,
    }
    let stats = admin.manager.stats();
    let role = match guard::role_of(&request) {
        Some(super::Role::Admin) => "admin",
        _ => "read",
    };
    json(&Picture { available: !stats.closed, role, stats })
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Listing {
    containing: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

pub(super) async fn tenants(admin: &Admin, request: Request) -> Answer {
    let Listing { containing, after, limit } = query(&request)?;
    let mut wanted = TenantPage::new().limit(within("limit", limit.unwrap_or(50), MOST_TENANTS)?);
    if let Some(text) = containing {
        wanted = wanted.containing(text);
    }
    if let Some(cursor) = after {
        wanted = wanted.after(cursor.parse().map_err(|_| bad("`after` is no end of a page"))?);
    }
    json(&admin.manager.tenants(wanted).await)
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    name: String,
}

pub(super) async fn tenant(admin: &Admin, request: Request) -> Answer {
    let Named { name } = query(&request)?;
    let name = TenantId::new(name)?;
    match admin.manager.tenant(name.as_str()) {
        Some(tenant) => json(&tenant),
        None => Err(Problem::of(StatusCode::NOT_FOUND, "tenant-unknown", "There is no such tenant")
            .detail("nobody has asked for it lately; whether it has a database is not looked at here")),
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Ranking {
    by: Option<TopBy>,
    limit: Option<usize>,
}

pub(super) async fn top(admin: &Admin, request: Request) -> Answer {
    let Ranking { by, limit } = query(&request)?;
    let most = within("limit", limit.unwrap_or(10), MOST_TENANTS)?;
    json(&json!({ "tenants": admin.manager.top(most, by.unwrap_or(TopBy::InUse)).await }))
}

/// Readers get no tenant's name, whatever the metrics are set to name.
#[cfg(feature = "metrics")]
pub(super) async fn metrics(admin: &Admin, request: Request) -> Answer {
    let text = match guard::role_of(&request) {
        Some(super::Role::Admin) => admin.manager.metrics(&admin.prometheus).await,
        _ => admin.prometheus.render_stats(&admin.manager.stats(), &[]),
    };
    Ok(([(header::CONTENT_TYPE, crate::metrics::Prometheus::CONTENT_TYPE)], text).into_response())
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Drain {
    tenant: TenantId,
    within_seconds: Option<u64>,
}

pub(super) async fn drain(admin: &Admin, request: Request) -> Answer {
    let Drain { tenant, within_seconds } = body(admin, request).await?;
    let seconds = within_seconds.unwrap_or(5);
    if seconds > LONGEST_DRAIN {
        return Err(bad(format!("`within_seconds` is at most {LONGEST_DRAIN}")));
    }
    tracing::info!(%tenant, "an admin drains a tenant");
    let left = admin.manager.drain(tenant.clone(), Duration::from_secs(seconds)).await;
    json(&json!({
        "tenant": tenant,
        "complete": left.is_complete(),
        "in_use": left.in_use,
        "opening": left.opening,
        "closing": left.closing,
        "pool_leased": left.pool_leased,
    }))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Only {
    tenant: TenantId,
}

pub(super) async fn resume(admin: &Admin, request: Request) -> Answer {
    let Only { tenant } = body(admin, request).await?;
    let resumed = admin.manager.resume(&tenant);
    tracing::info!(%tenant, resumed, "an admin resumes a tenant");
    json(&json!({ "tenant": tenant, "resumed": resumed }))
}

pub(super) async fn evict(admin: &Admin, request: Request) -> Answer {
    let Only { tenant } = body(admin, request).await?;
    let closed = admin.manager.evict(&tenant);
    tracing::info!(%tenant, closed, "an admin evicts a tenant's idle connections");
    json(&json!({ "tenant": tenant, "closed": closed }))
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Warm {
    tenant: TenantId,
    connections: Option<u32>,
}

pub(super) async fn warm(admin: &Admin, request: Request) -> Answer {
    let Warm { tenant, connections } = body(admin, request).await?;
    let connections = connections.unwrap_or(1);
    if connections > MOST_WARMED {
        return Err(bad(format!("`connections` is at most {MOST_WARMED}")));
    }
    tracing::info!(%tenant, connections, "an admin warms a tenant");
    admin.manager.warm(tenant.clone(), connections).await?;
    json(&json!({ "tenant": tenant, "connections": connections }))
}

fn json(value: &impl Serialize) -> Answer {
    // A number that JSON cannot say would be a mistake of ours.
    let body = serde_json::to_vec(value).map_err(Problem::internal)?;
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

fn bad(detail: impl Into<std::borrow::Cow<'static, str>>) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, "about:blank", "The request cannot be read").detail(detail)
}

fn within(name: &str, value: usize, most: usize) -> Result<usize, Problem> {
    if (1..=most).contains(&value) { Ok(value) } else { Err(bad(format!("`{name}` is 1 to {most}"))) }
}

fn query<T: DeserializeOwned>(request: &Request) -> Result<T, Problem> {
    match Query::try_from_uri(request.uri()) {
        Ok(Query(query)) => Ok(query),
        Err(_) => Err(bad("the query has a part that this route does not know, or cannot read")),
    }
}

/// The body of a write: JSON that says so, which no form of another site's page can send; and none when it is too late.
async fn body<T: for<'de> Deserialize<'de>>(admin: &Admin, request: Request) -> Result<T, Problem> {
    let kind = request.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let title = "The body has to be application/json";
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "about:blank", title));
    }
    let Ok(bytes) = to_bytes(request.into_body(), BODY).await else {
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "about:blank", "The body is too large"));
    };
    let body = serde_json::from_slice(&bytes)
        .map_err(|_| bad("the body is not the JSON that this route takes, or its tenant cannot be one"))?;
    if admin.manager.stats().closed {
        return Err(Problem::closed());
    }
    Ok(body)
}
