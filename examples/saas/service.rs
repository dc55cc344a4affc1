//! The service: notes over HTTP, each tenant's in a database of its own. A handler acquires, asks, and lets go.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tenantry::{AcquireError, FailureKind, PoolFactory, TenantPools};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::database::Factory;

pub(crate) type Pools = TenantPools<Factory>;
type ConnectError = <Factory as PoolFactory>::Error;

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

fn router(pools: Pools) -> Router {
    Router::new().route("/{tenant}/notes", get(list)).route("/{tenant}/notes/{key}", put(write)).with_state(pools)
}

async fn list(
    State(pools): State<Pools>,
    Path(tenant): Path<String>,
    Query(page): Query<Page>,
) -> Result<Json<Vec<Note>>, Failure> {
    let mut lease = pools.acquire(tenant).await?;
    let notes = sqlx::query_as("SELECT key, text FROM notes WHERE key > $1 ORDER BY key LIMIT $2")
        .bind(page.after)
        .bind(i64::from(page.limit))
        .fetch_all(&mut *lease)
        .await?;
    Ok(Json(notes))
}

async fn write(
    State(pools): State<Pools>,
    Path((tenant, key)): Path<(String, String)>,
    text: String,
) -> Result<StatusCode, Failure> {
    let mut lease = pools.acquire(tenant).await?;
    sqlx::query("INSERT INTO notes (key, text) VALUES ($1, $2) ON CONFLICT (key) DO UPDATE SET text = excluded.text")
        .bind(key)
        .bind(text)
        .execute(&mut *lease)
        .await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Why a request got no answer.
enum Failure {
    Acquire(AcquireError<ConnectError>),
    Query(sqlx::Error),
}

impl From<AcquireError<ConnectError>> for Failure {
    fn from(error: AcquireError<ConnectError>) -> Self {
        Self::Acquire(error)
    }
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Query(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self {
            Self::Acquire(error) => refusal(&error),
            Self::Query(error) => internal(&error),
        }
    }
}

/// What a client is told: come back in so many seconds, or do not.
fn refusal(error: &AcquireError<ConnectError>) -> Response {
    if let Some(wait) = error.retry_after() {
        return later(wait);
    }
    match error {
        AcquireError::InvalidTenant(_) => StatusCode::BAD_REQUEST.into_response(),
        AcquireError::Connect { kind: FailureKind::NoSuchTenant | FailureKind::InvalidName, .. }
        | AcquireError::Removed { .. } => StatusCode::NOT_FOUND.into_response(),
        AcquireError::Draining { .. } | AcquireError::Closed => later(Duration::from_secs(1)),
        error => internal(error),
    }
}

/// 503; the header counts whole seconds, and a client that comes back early is refused again, so it is rounded up.
fn later(wait: Duration) -> Response {
    let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, seconds.to_string())]).into_response()
}

/// The reason is for the one who runs the service, not for the client.
fn internal(error: &dyn std::error::Error) -> Response {
    eprintln!("answered 500: {error}");
    StatusCode::INTERNAL_SERVER_ERROR.into_response()
}

/// The service while it runs.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: oneshot::Sender<()>,
    served: JoinHandle<std::io::Result<()>>,
}

impl Server {
    /// Listens on a free port of this machine.
    pub(crate) async fn start(pools: Pools) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen")?;
        let address = listener.local_addr()?;
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = axum::serve(listener, router(pools)).with_graceful_shutdown(async {
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
