//! The order in which a service stops: no new requests, an end for those under way, which still need connections, then
//! the connections, and a word on what did not end.

use std::time::Duration;

use anyhow::Result;
use tenantry::CloseReport;

use crate::service::{Pools, Server};

/// How long requests under way have, and then how long their connections. Together less than the 30 s after which
/// Kubernetes kills; and a request ends by itself after `acquire_timeout` and what its statements take.
const REQUESTS: Duration = Duration::from_secs(15);
const CONNECTIONS: Duration = Duration::from_secs(10);

/// What had not ended when its time was over.
#[derive(Debug)]
pub(crate) struct Stopped {
    /// Requests were still under way; they are told that the pools are closed when they ask for a connection.
    pub(crate) requests_left: bool,
    /// What became of the connections.
    pub(crate) connections: CloseReport,
}

/// Resolves when the service is asked to stop: Ctrl-C at a terminal, SIGTERM of whatever runs services.
pub(crate) async fn asked_to_stop() -> Result<()> {
    #[cfg(unix)]
    {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            pressed = tokio::signal::ctrl_c() => pressed?,
            _ = term.recv() => {}
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// Stops the service, then closes the pools. Were it the other way round, requests that had been accepted would be refused.
pub(crate) async fn stop(server: Server, pools: &Pools) -> Result<Stopped> {
    stop_within(server, pools, REQUESTS, CONNECTIONS).await
}

async fn stop_within(server: Server, pools: &Pools, requests: Duration, connections: Duration) -> Result<Stopped> {
    let ended = tokio::time::timeout(requests, server.stop()).await;
    let requests_left = ended.is_err();
    let connections = pools.close_within(connections).await;
    ended.unwrap_or(Ok(()))?;
    Ok(Stopped { requests_left, connections })
}

#[cfg(test)]
mod tests {
    use tenantry::http::admin::{Authorization, Role};
    use tenantry::metrics::Prometheus;
    use tenantry::{AcquireError, TenantPools};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;
    use crate::database::Place;
    use crate::service::Operators;
    use crate::tenants;

    /// A service with one tenant, and a request under way: all of it is there but its last byte.
    async fn with_a_request_under_way() -> Result<(Place, Pools, Server, TcpStream)> {
        let place = Place::new()?;
        let pools = TenantPools::builder(place.factory()).max_connections(2).build()?;
        tenants::make(&pools, &["acme".to_owned()]).await?;
        let token = "nobody-asks-for-it-".repeat(4);
        let authorization = Authorization::tokens([(Role::Admin, &token)])?;
        let operators = Operators { authorization, prometheus: Prometheus::new("notes") };
        let server = Server::start(pools.clone(), operators).await?;
        let mut client = TcpStream::connect(server.address).await?;
        let request = "PUT /acme/notes/key HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
        client.write_all(request.as_bytes()).await?;
        // The service asks for the body: the handler runs.
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await?;
        assert_eq!(&answer, b"HTTP/1.1 100");
        client.write_all(b"text").await?;
        Ok((place, pools, server, client))
    }

    #[tokio::test]
    async fn a_request_under_way_is_served_to_its_end_and_nothing_new_is_accepted() -> Result<()> {
        let (_place, pools, server, mut client) = with_a_request_under_way().await?;
        let address = server.address;
        let stopping = tokio::spawn({
            let pools = pools.clone();
            async move { stop(server, &pools).await }
        });
        // A connect is refused as soon as nobody listens any more.
        while TcpStream::connect(address).await.is_ok() {
            tokio::task::yield_now().await;
        }
        assert!(!pools.stats().closed, "the request still needs a connection");
        client.write_all(b"!").await?;
        let mut answer = String::new();
        client.read_to_string(&mut answer).await?;
        assert!(answer.contains("HTTP/1.1 204"), "{answer}");
        let stopped = stopping.await??;
        assert!(!stopped.requests_left && stopped.connections.is_complete(), "{stopped:?}");
        assert_eq!(pools.stats().open(), 0);
        assert!(matches!(pools.acquire("acme").await, Err(AcquireError::Closed)));
        Ok(())
    }

    #[tokio::test]
    async fn a_request_that_does_not_end_and_a_lease_that_is_kept_are_reported_and_stop_nothing() -> Result<()> {
        let (_place, pools, server, client) = with_a_request_under_way().await?;
        let kept = pools.acquire("acme").await?;
        let bound = Duration::from_millis(50);
        let stopped = stop_within(server, &pools, bound, bound).await?;
        assert!(stopped.requests_left, "{stopped:?}");
        assert_eq!(stopped.connections.in_use, 1, "{stopped:?}");
        drop(client);
        drop(kept);
        pools.close().await;
        assert_eq!(pools.stats().open(), 0, "a lease that comes back later is closed");
        Ok(())
    }
}
