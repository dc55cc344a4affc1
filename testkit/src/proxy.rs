//! A TCP proxy that counts what passes and disturbs it when told: [`Proxy`]. One connection of it is in
//! `proxy/lane.rs`.

mod lane;
#[cfg(test)]
mod tests;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use lane::Relay;

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server.
    ToServer,
    /// From the server to the client.
    ToClient,
}

/// How bytes of one direction are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flow {
    /// At once.
    #[default]
    Pass,
    /// This much later. What comes meanwhile waits and is then passed on in one piece.
    Delay(Duration),
    /// Not at all, the end of the stream included, until told otherwise: as in a network that drops every packet,
    /// where what was sent comes through once it heals.
    BlackHole,
}

/// What has passed, over all connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Traffic {
    /// Connections accepted.
    pub connections: u64,
    /// Pieces read from clients. A client's write is one, unless it is larger than the system's buffers, or follows
    /// another one so closely that both are read together.
    pub client_segments: u64,
    /// Pieces read from the server.
    pub server_segments: u64,
    /// How often the server spoke after the client: the round trips, for a protocol of questions and answers.
    pub round_trips: u64,
    /// Bytes read from clients.
    pub client_bytes: u64,
    /// Bytes read from the server.
    pub server_bytes: u64,
    /// Sockets that were reset by order.
    pub resets: u64,
    /// Directions that were ended by order.
    pub half_closes: u64,
}

#[derive(Debug, Default)]
struct Counters {
    connections: AtomicU64,
    open: watch::Sender<u64>,
    client_segments: AtomicU64,
    server_segments: AtomicU64,
    round_trips: AtomicU64,
    client_bytes: AtomicU64,
    server_bytes: AtomicU64,
    resets: AtomicU64,
    half_closes: AtomicU64,
}

/// What the test wants now. The counts are of orders given; a connection carries out those given after its start.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    to_server: Way,
    to_client: Way,
    refuse: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Way {
    flow: Flow,
    resets: u64,
    half_closes: u64,
}

impl Orders {
    fn way(&self, direction: Direction) -> Way {
        match direction {
            Direction::ToServer => self.to_server,
            Direction::ToClient => self.to_client,
        }
    }

    fn way_mut(&mut self, direction: Direction) -> &mut Way {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// A proxy in front of one server, on a port of 127.0.0.1. Dropping it breaks every connection through it.
///
/// It works on real sockets, so use it with tokio's real clock.
///
/// ```no_run
/// # #[tokio::main] async fn main() -> std::io::Result<()> {
/// use tenantry_testkit::{Direction, Flow, Proxy};
///
/// let proxy = Proxy::start(([127, 0, 0, 1], 5432).into()).await?;
/// // ... connect to proxy.address() ...
/// proxy.set_flow(Direction::ToClient, Flow::BlackHole);
/// // ... the server's answers are lost ...
/// proxy.reset(Direction::ToClient);
/// println!("{} round trips", proxy.traffic().round_trips);
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    counters: Arc<Counters>,
    orders: watch::Sender<Orders>,
    task: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a free port and passes every connection on to `server`.
    ///
    /// # Errors
    /// When no port can be had. A server that is not there shows in each connection, which is then reset.
    ///
    /// # Cancel safety
    /// Dropping the future starts nothing.
    pub async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (counters, orders) = (Arc::new(Counters::default()), watch::Sender::new(Orders::default()));
        let task = tokio::spawn(accept(listener, server, Arc::clone(&counters), orders.subscribe()));
        Ok(Self { address, counters, orders, task })
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has passed so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        Traffic {
            connections: read(&self.counters.connections),
            client_segments: read(&self.counters.client_segments),
            server_segments: read(&self.counters.server_segments),
            round_trips: read(&self.counters.round_trips),
            client_bytes: read(&self.counters.client_bytes),
            server_bytes: read(&self.counters.server_bytes),
            resets: read(&self.counters.resets),
            half_closes: read(&self.counters.half_closes),
        }
    }

    /// Connections that neither side has ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        *self.counters.open.borrow()
    }

    /// Resolves when exactly `count` connections are open.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn until_open(&self, count: u64) {
        // The sender lives as long as `self`.
        let _ = self.counters.open.subscribe().wait_for(|open| *open == count).await;
    }

    /// Changes how bytes of one direction are passed on, of connections that are there and of those that will come.
    pub fn set_flow(&self, direction: Direction, flow: Flow) {
        self.orders.send_modify(|orders| orders.way_mut(direction).flow = flow);
    }

    /// [`set_flow`](Self::set_flow) of both directions.
    pub fn set_flows(&self, flow: Flow) {
        self.set_flow(Direction::ToServer, flow);
        self.set_flow(Direction::ToClient, flow);
    }

    /// Breaks every connection there is: whoever the direction leads to gets a reset (RST). The other side is told
    /// nothing, and what it sends is lost. Done a moment later, as [`Traffic::resets`] tells.
    pub fn reset(&self, direction: Direction) {
        self.orders.send_modify(|orders| orders.way_mut(direction).resets += 1);
    }

    /// [`reset`](Self::reset) of both sides.
    pub fn reset_all(&self) {
        self.reset(Direction::ToServer);
        self.reset(Direction::ToClient);
    }

    /// Ends one direction of every connection there is (FIN). Bytes of the other one still pass. Done a moment later, as
    /// [`Traffic::half_closes`] tells.
    pub fn half_close(&self, direction: Direction) {
        self.orders.send_modify(|orders| orders.way_mut(direction).half_closes += 1);
    }

    /// Whether to reset every new connection, as if nobody listened.
    pub fn set_refuse(&self, refuse: bool) {
        self.orders.send_modify(|orders| orders.refuse = refuse);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends with its task; the connections are in a set of its own, so they end with it.
async fn accept(listener: TcpListener, server: SocketAddr, counters: Arc<Counters>, orders: watch::Receiver<Orders>) {
    let mut connections = JoinSet::new();
    loop {
        let client = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        // An accept that fails concerns a client that is already gone.
        let Ok((client, _)) = client else { continue };
        counters.connections.fetch_add(1, Ordering::SeqCst);
        let mut orders = orders.clone();
        let start = *orders.borrow_and_update();
        if start.refuse {
            let _ = client.set_zero_linger();
            continue;
        }
        counters.open.send_modify(|open| *open += 1);
        let open = Open(Arc::clone(&counters));
        connections.spawn(async move {
            match TcpStream::connect(server).await {
                Ok(server) => Relay::new(client, server, orders, start, open).run().await,
                Err(_) => drop(client.set_zero_linger()),
            }
        });
    }
}

/// Counts one connection as open.
#[derive(Debug)]
struct Open(Arc<Counters>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| *open -= 1);
    }
}
