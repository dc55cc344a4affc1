//! The service: notes over HTTP, each tenant's in a database of its own. A handler acquires, asks, and lets go.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use axum::extract::{Path, Query};
use axum::http::StatusCode;
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tenantry::TenantPools;
use tenantry::http::admin::{self, Authorization};
use tenantry::http::{Problem, Tenant, TenantConnection, TenantLayer, TenantSource, Tenants};
use tenantry::metrics::Prometheus;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::database::Factory;

pub(crate) type Pools = TenantPools<Factory>;

/// A note, as it is stored and as it is sent.
#[derive(Serialize, Deserialize, sqlx::FromRow)]
pub(crate) struct Note {
    pub(crate) key: String,
    pub(crate) text: String,
}

/// Which part of the notes: those after a key, in the keys' order.
#[derive(Serialize, Deserialize)]
pub(crate) struct Page {
    pub(crate) after: String,
    pub(crate) limit: u32,
}

/// Who may use the admin's routes, and what Prometheus finds there.
pub(crate) struct Operators {
    pub(crate) authorization: Authorization,
    pub(crate) prometheus: Prometheus,
}

/// The notes, and the admin's page and routes. Those are often better on a port of their own, that only operators reach.
fn router(pools: Pools, operators: Operators) -> Router {
    let admin: Router = admin::router_with_metrics(&pools, operators.authorization, operators.prometheus);
    let source = TenantSource::path("tenant");
    Router::new()
        .route("/{tenant}/notes", get(list))
        .route("/{tenant}/notes/{key}", put(write))
        .layer(TenantLayer::new(source.clone()))
        .with_state(Tenants::new(pools, source))
        .nest_service("/admin", admin)
}

async fn list(mut connection: TenantConnection<Factory>, Query(page): Query<Page>) -> Result<Json<Vec<Note>>, Problem> {
    let notes = sqlx::query_as("SELECT key, text FROM notes WHERE key > $1 ORDER BY key LIMIT $2")
        .bind(page.after)
        .bind(i64::from(page.limit))
        .fetch_all(&mut *connection)
        .await
        .map_err(Problem::internal)?;
    Ok(Json(notes))
}

/// No connection waits for a slow client's body: it is acquired when that is there.
async fn write(
    tenant: Tenant<Factory>,
    Path((_, key)): Path<(String, String)>,
    text: String,
) -> Result<StatusCode, Problem> {
    let mut lease = tenant.acquire().await?;
    sqlx::query("INSERT INTO notes (key, text) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET text = excluded.text")
        .bind(key)
        .bind(text)
        .execute(&mut *lease)
        .await
        .map_err(Problem::internal)?;
    Ok(StatusCode::NO_CONTENT)
}

/// The service while it runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Listens on a free port of this machine.
    pub(crate) async fn start(pools: Pools, operators: Operators) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, router(pools, operators)).with_graceful_shutdown(async {
            // An error means that the sender is gone, and then nobody wants the service any more either.
            let _ = stopped.await;
        });
        Ok(Self { address, stop, served: tokio::spawn(async { serve.await }) })
    }

    /// Accepts nothing new and finishes the requests under way.
    pub(crate) async fn stop(self) -> Result<()> {
        // An error means that the server has ended by itself; the next line says why.
        let _ = self.stop.send(());
        self.served.await?.context("the server ended")
    }
}
