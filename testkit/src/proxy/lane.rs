//! One connection through the proxy: two lanes, one for each direction, and the orders that stop them.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::watch;

use super::{Direction, Flow, Open, Orders};

/// As large as a segment may be for it to count as one.
const BUFFER: usize = 64 * 1024;

pub(super) struct Relay {
    client: TcpStream,
    server: TcpStream,
    orders: watch::Receiver<Orders>,
    /// What had been ordered before this connection began, and so does not concern it.
    start: Orders,
    open: Open,
}

/// How the passing on came to its end.
enum Ended {
    BothSides,
    Reset,
}

impl Relay {
    pub(super) fn new(
        client: TcpStream,
        server: TcpStream,
        orders: watch::Receiver<Orders>,
        start: Orders,
        open: Open,
    ) -> Self {
        // A proxy that gathers small pieces would count and delay them wrongly. Nothing else depends on it.
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        Self { client, server, orders, start, open }
    }

    pub(super) async fn run(mut self) {
        if let Ended::BothSides = self.pass_on().await {
            return;
        }
        let now = *self.orders.borrow();
        let was_reset = |direction| now.way(direction).resets > self.start.way(direction).resets;
        let Self { client, server, mut orders, start, open } = self;
        let reset = |socket: TcpStream| {
            // With no time to linger, closing a socket sends a reset.
            let _ = socket.set_zero_linger();
            drop(socket);
            open.0.resets.fetch_add(1, Ordering::SeqCst);
        };
        let (mut left, other) = match (was_reset(Direction::ToClient), was_reset(Direction::ToServer)) {
            (true, false) => {
                reset(client);
                (server, Direction::ToServer)
            }
            (false, true) => {
                reset(server);
                (client, Direction::ToClient)
            }
            _ => {
                reset(client);
                return reset(server);
            }
        };
        // The other side learns nothing: its socket stays until it leaves by itself, or is reset too.
        let before = start.way(other).resets;
        let mut ignored = vec![0; BUFFER];
        tokio::select! {
            _ = orders.wait_for(|now| now.way(other).resets > before) => {
                reset(left);
            }
            () = async { while left.read(&mut ignored).await.is_ok_and(|read| read > 0) {} } => {}
        }
    }

    async fn pass_on(&mut self) -> Ended {
        let client_spoke = AtomicBool::new(false);
        let (client_reads, client_writes) = self.client.split();
        let (server_reads, server_writes) = self.server.split();
        let lane = |direction, from, to| Lane {
            direction,
            from,
            to,
            orders: self.orders.clone(),
            start: self.start,
            open: &self.open,
            client_spoke: &client_spoke,
        };
        let up = lane(Direction::ToServer, client_reads, server_writes);
        let down = lane(Direction::ToClient, server_reads, client_writes);
        let (up, down) = (up.run(), down.run());
        let mut orders = self.orders.clone();
        let start = self.start;
        let any_reset = move |now: &Orders| {
            now.to_client.resets > start.to_client.resets || now.to_server.resets > start.to_server.resets
        };
        tokio::select! {
            biased;
            // An error means that the proxy is gone, which aborts this task as well.
            _ = orders.wait_for(any_reset) => Ended::Reset,
            ((), ()) = async { tokio::join!(up, down) } => Ended::BothSides,
        }
    }
}

/// One direction of one connection.
struct Lane<'a> {
    direction: Direction,
    from: ReadHalf<'a>,
    to: WriteHalf<'a>,
    orders: watch::Receiver<Orders>,
    start: Orders,
    open: &'a Open,
    /// Whether the client has said something that the server has not answered yet.
    client_spoke: &'a AtomicBool,
}

impl Lane<'_> {
    /// Passes bytes on until the stream ends, then its end. An error of either side ends it, as there is nobody to
    /// tell: the same socket's other lane sees it too.
    async fn run(mut self) {
        let mut buffer = vec![0; BUFFER];
        let mut ended = false;
        while !ended {
            tokio::select! {
                biased;
                () = half_closed(self.orders.clone(), self.start, self.direction) => break,
                read = self.from.read(&mut buffer) => {
                    let read = read.unwrap_or(0);
                    ended = read == 0;
                    self.count(read);
                    if !self.forward(&buffer[..read]).await {
                        break;
                    }
                }
            }
        }
        let _ = self.to.shutdown().await;
        if !ended {
            let by_order =
                self.orders.borrow().way(self.direction).half_closes > self.start.way(self.direction).half_closes;
            self.open.0.half_closes.fetch_add(u64::from(by_order), Ordering::SeqCst);
            // Half-closed by order: what still comes is read, so that the sender is not held up, and lost.
            while self.from.read(&mut buffer).await.is_ok_and(|read| read > 0) {}
        }
    }

    fn count(&self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let counters = &self.open.0;
        let (segments, total) = match self.direction {
            Direction::ToServer => (&counters.client_segments, &counters.client_bytes),
            Direction::ToClient => (&counters.server_segments, &counters.server_bytes),
        };
        segments.fetch_add(1, Ordering::SeqCst);
        total.fetch_add(bytes as u64, Ordering::SeqCst);
        match self.direction {
            Direction::ToServer => self.client_spoke.store(true, Ordering::SeqCst),
            Direction::ToClient => {
                let answer = self.client_spoke.swap(false, Ordering::SeqCst);
                counters.round_trips.fetch_add(u64::from(answer), Ordering::SeqCst);
            }
        }
    }

    /// Waits as long as the flow says, then writes. False when it was half-closed meanwhile, or the receiver is gone.
    async fn forward(&mut self, bytes: &[u8]) -> bool {
        let closed = half_closed(self.orders.clone(), self.start, self.direction);
        tokio::select! {
            biased;
            () = closed => false,
            () = delayed(&mut self.orders, self.direction) => self.to.write_all(bytes).await.is_ok(),
        }
    }
}

/// Resolves when the flow lets a piece through that came just now.
async fn delayed(orders: &mut watch::Receiver<Orders>, direction: Direction) {
    loop {
        let flow = orders.borrow_and_update().way(direction).flow;
        let wait = match flow {
            Flow::Pass => return,
            Flow::Delay(delay) => delay,
            Flow::BlackHole => Duration::MAX,
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => return,
            changed = orders.changed() => if changed.is_err() { return },
        }
    }
}

async fn half_closed(mut orders: watch::Receiver<Orders>, start: Orders, direction: Direction) {
    let before = start.way(direction).half_closes;
    let closed = orders.wait_for(|now| now.way(direction).half_closes > before).await.is_ok();
    if !closed {
        // The proxy is gone, which aborts this task as well.
        std::future::pending::<()>().await;
    }
}
