//! A service on actix-web with one SQLite database for each tenant: acquire in a handler, refusals as 503 with
//! `Retry-After`, and the order in which to stop.
//!
//! `cargo run` in this folder, then `curl -X PUT -d hello localhost:8080/acme/notes/1` and `curl localhost:8080/acme/notes`.

use std::fmt;
use std::time::Duration;

use actix_web::dev::ServerHandle;
use actix_web::http::StatusCode;
use actix_web::http::header::RETRY_AFTER;
use actix_web::{App, HttpResponse, HttpServer, ResponseError, web};
use anyhow::Result;
use tenantry::sqlx::SqliteFactory;
use tenantry::{AcquireError, CloseReport, FailureKind, PoolFactory, TenantPools};

type Pools = TenantPools<SqliteFactory>;

/// Seconds that requests under way have when the service is asked to stop.
const REQUESTS: u64 = 15;

/// Why a request got no answer. The reason is for the one who runs the service, not for the client.
#[derive(Debug)]
enum Refusal {
    Acquire(AcquireError<<SqliteFactory as PoolFactory>::Error>),
    Query(sqlx::Error),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.status_code().canonical_reason().unwrap_or("failed"))
    }
}

impl From<AcquireError<<SqliteFactory as PoolFactory>::Error>> for Refusal {
    fn from(error: AcquireError<<SqliteFactory as PoolFactory>::Error>) -> Self {
        Self::Acquire(error)
    }
}

impl From<sqlx::Error> for Refusal {
    fn from(error: sqlx::Error) -> Self {
        Self::Query(error)
    }
}

impl ResponseError for Refusal {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::Acquire(AcquireError::InvalidTenant(_)) => StatusCode::BAD_REQUEST,
            // The second is what a caller is told of the first, for a while.
            Self::Acquire(AcquireError::Connect { kind, .. } | AcquireError::Unavailable { kind, .. }) => match kind {
                FailureKind::NoSuchTenant => StatusCode::NOT_FOUND,
                FailureKind::InvalidName => StatusCode::BAD_REQUEST,
                FailureKind::Auth => StatusCode::BAD_GATEWAY,
                _ => StatusCode::SERVICE_UNAVAILABLE,
            },
            Self::Acquire(AcquireError::Removed { .. }) => StatusCode::GONE,
            Self::Acquire(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Query(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        eprintln!("answered {}: {self:?}", self.status_code());
        let mut response = HttpResponse::build(self.status_code());
        if let (Self::Acquire(error), StatusCode::SERVICE_UNAVAILABLE) = (self, self.status_code()) {
            // Whole seconds, rounded up: who comes back early is refused again.
            let wait = error.retry_after().unwrap_or_default();
            let seconds = (wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).max(1);
            response.insert_header((RETRY_AFTER, seconds));
        }
        response.body(self.to_string())
    }
}

async fn list(pools: web::Data<Pools>, tenant: web::Path<String>) -> Result<String, Refusal> {
    let mut lease = pools.acquire(tenant.as_str()).await?;
    let notes: Vec<String> = sqlx::query_scalar("SELECT text FROM notes ORDER BY key").fetch_all(&mut *lease).await?;
    Ok(notes.join("\n"))
}

async fn write(
    pools: web::Data<Pools>,
    path: web::Path<(String, String)>,
    text: String,
) -> Result<HttpResponse, Refusal> {
    let (tenant, key) = path.into_inner();
    let mut lease = pools.acquire(&tenant).await?;
    sqlx::query("INSERT OR REPLACE INTO notes (key, text) VALUES (?, ?)")
        .bind(key)
        .bind(text)
        .execute(&mut *lease)
        .await?;
    Ok(HttpResponse::NoContent().finish())
}

fn routes(config: &mut web::ServiceConfig) {
    config.route("/{tenant}/notes", web::get().to(list)).route("/{tenant}/notes/{key}", web::put().to(write));
}

/// Makes a tenant's database; an acquire never does.
async fn make(pools: &Pools, tenant: &str) -> Result<()> {
    pools.create(tenant).await?;
    let mut lease = pools.acquire(tenant).await?;
    sqlx::query("CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, text TEXT NOT NULL)")
        .execute(&mut *lease)
        .await?;
    Ok(())
}

/// First no new requests and an end for those under way, which still need connections; then the connections.
async fn stop(server: ServerHandle, pools: &Pools) -> CloseReport {
    server.stop(true).await;
    pools.close_within(Duration::from_secs(10)).await
}

#[actix_web::main]
async fn main() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let pools = TenantPools::builder(SqliteFactory::new(folder.path())).max_connections(32).build()?;
    make(&pools, "acme").await?;
    let data = web::Data::new(pools.clone());
    let server = HttpServer::new(move || App::new().app_data(data.clone()).configure(routes))
        .shutdown_timeout(REQUESTS)
        .disable_signals()
        .bind(("127.0.0.1", 8080))?
        .run();
    let handle = server.handle();
    let serving = actix_web::rt::spawn(server);
    actix_web::rt::signal::ctrl_c().await?;
    println!("{:?}", stop(handle, &pools).await);
    serving.await??;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use super::*;

    fn ask(address: std::net::SocketAddr, request: &str) -> String {
        let mut client = TcpStream::connect(address).expect("it listens");
        client.write_all(request.as_bytes()).expect("sent");
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        answer
    }

    fn get(path: &str) -> String {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    }

    #[actix_web::test]
    async fn tenants_are_served_refusals_are_told_apart_and_a_stop_leaves_nothing_open() -> Result<()> {
        let folder = tempfile::tempdir()?;
        let builder = TenantPools::builder(SqliteFactory::new(folder.path())).max_connections(1);
        let pools = builder.acquire_timeout(Duration::from_millis(50)).build()?;
        make(&pools, "acme").await?;
        let data = web::Data::new(pools.clone());
        let server = HttpServer::new(move || App::new().app_data(data.clone()).configure(routes)).workers(1);
        let server = server.disable_signals().bind(("127.0.0.1", 0))?;
        let address = server.addrs()[0];
        let running = server.run();
        let handle = running.handle();
        let serving = actix_web::rt::spawn(running);

        let asked = move |request: String| actix_web::rt::task::spawn_blocking(move || ask(address, &request));
        let put = "PUT /acme/notes/1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
        assert!(asked(put.to_owned()).await?.starts_with("HTTP/1.1 204"));
        assert!(asked(get("/acme/notes")).await?.ends_with("\r\n\r\nhello"));
        for _ in 0..2 {
            assert!(asked(get("/stranger/notes")).await?.starts_with("HTTP/1.1 404"), "the first time and later");
        }
        assert!(asked(get("/UPPER/notes")).await?.starts_with("HTTP/1.1 400"));
        let held = pools.acquire("acme").await?;
        let refused = asked(get("/acme/notes")).await?;
        assert!(
            refused.starts_with("HTTP/1.1 503") && refused.to_lowercase().contains("retry-after: 1\r\n"),
            "{refused}"
        );
        drop(held);

        let report = stop(handle, &pools).await;
        assert!(report.is_complete(), "{report:?}");
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
        serving.await??;
        Ok(())
    }
}
