//! That the proxy counts and disturbs as told, with an echo server behind it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

use super::*;

/// Long enough for a byte to come through if it can. Waiting too short can only hide a fault, not make one up.
const A_WHILE: Duration = Duration::from_millis(50);

/// What the server's end of a connection saw last.
#[derive(Debug, PartialEq, Eq)]
enum End {
    Eof,
    Reset,
}

struct Echo {
    proxy: Proxy,
    ends: mpsc::UnboundedReceiver<End>,
}

/// Echoes everything, and tells how each connection ended.
async fn echo() -> Echo {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let (tell, ends) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                let mut buffer = [0; 1024];
                let end = loop {
                    match stream.read(&mut buffer).await {
                        Ok(0) => break End::Eof,
                        Err(_) => break End::Reset,
                        Ok(read) => drop(stream.write_all(&buffer[..read]).await),
                    }
                };
                let _ = tell.send(end);
            });
        }
    });
    Echo { proxy: Proxy::start(address).await.expect("a proxy"), ends }
}

async fn connect(proxy: &Proxy) -> TcpStream {
    let stream = TcpStream::connect(proxy.address()).await.expect("connects");
    stream.set_nodelay(true).expect("an option");
    stream
}

async fn ask(stream: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    stream.write_all(text).await.expect("writes");
    let mut answer = vec![0; text.len()];
    stream.read_exact(&mut answer).await.expect("an answer");
    answer
}

async fn answers(stream: &mut TcpStream) -> bool {
    let mut byte = [0];
    tokio::time::timeout(A_WHILE, stream.read_exact(&mut byte)).await.is_ok()
}

#[tokio::test]
async fn segments_and_round_trips_are_counted() {
    let Echo { proxy, .. } = echo().await;
    let mut stream = connect(&proxy).await;
    for _ in 0..5 {
        assert_eq!(ask(&mut stream, b"ping").await, b"ping");
    }
    let traffic = proxy.traffic();
    assert_eq!((traffic.connections, traffic.client_segments, traffic.round_trips), (1, 5, 5));
    assert_eq!((traffic.client_bytes, traffic.server_bytes), (20, 20));
    assert_eq!(proxy.open(), 1);
    drop(stream);
    proxy.until_open(0).await;
}

#[tokio::test]
async fn a_black_hole_swallows_one_direction_until_it_heals() {
    for direction in [Direction::ToServer, Direction::ToClient] {
        let Echo { proxy, .. } = echo().await;
        let mut stream = connect(&proxy).await;
        ask(&mut stream, b"a").await;
        proxy.set_flow(direction, Flow::BlackHole);
        stream.write_all(b"b").await.expect("writes");
        assert!(!answers(&mut stream).await, "{direction:?}");
        let reached_server = proxy.traffic().server_bytes == 2;
        assert_eq!(reached_server, direction == Direction::ToClient);
        proxy.set_flow(direction, Flow::Pass);
        assert!(answers(&mut stream).await);
    }
}

#[tokio::test]
async fn a_delay_holds_every_piece_back() {
    let Echo { proxy, .. } = echo().await;
    let mut stream = connect(&proxy).await;
    proxy.set_flow(Direction::ToClient, Flow::Delay(Duration::from_secs(3600)));
    stream.write_all(b"a").await.expect("writes");
    assert!(!answers(&mut stream).await);
    proxy.set_flows(Flow::Delay(Duration::from_millis(1)));
    assert!(answers(&mut stream).await, "a shorter delay holds for what waits already");
    assert_eq!(ask(&mut stream, b"b").await, b"b");
}

#[tokio::test]
async fn a_reset_reaches_the_side_it_is_for() {
    let Echo { proxy, mut ends } = echo().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"a").await;
    proxy.reset(Direction::ToClient);
    let error = stream.read(&mut [0]).await.expect_err("a reset");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(ends.try_recv().is_err(), "the server knows nothing");
    assert_eq!((proxy.open(), proxy.traffic().resets), (1, 1));
    proxy.reset(Direction::ToServer);
    assert_eq!(ends.recv().await, Some(End::Reset));
    proxy.until_open(0).await;
    assert_eq!(proxy.traffic().resets, 2);

    let mut next = connect(&proxy).await;
    assert_eq!(ask(&mut next, b"b").await, b"b", "earlier orders do not concern it");
    proxy.reset(Direction::ToServer);
    assert_eq!(ends.recv().await, Some(End::Reset));
    next.write_all(b"lost").await.expect("the client knows nothing");
    assert!(!answers(&mut next).await);
    drop(next);
    proxy.until_open(0).await;
}

#[tokio::test]
async fn a_half_close_ends_one_direction_only() {
    let Echo { proxy, mut ends } = echo().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"a").await;
    proxy.half_close(Direction::ToClient);
    assert_eq!(stream.read(&mut [0]).await.expect("the end"), 0);
    stream.write_all(b"still").await.expect("writes");
    assert!(ends.try_recv().is_err(), "the server's reads go on");
    drop(stream);
    assert_eq!(ends.recv().await, Some(End::Eof));

    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"a").await;
    proxy.half_close(Direction::ToServer);
    assert_eq!(ends.recv().await, Some(End::Eof));
}

#[tokio::test]
async fn an_end_of_stream_passes_through_and_not_through_a_black_hole() {
    let Echo { proxy, mut ends } = echo().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"a").await;
    drop(stream);
    assert_eq!(ends.recv().await, Some(End::Eof));

    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"a").await;
    proxy.set_flow(Direction::ToServer, Flow::BlackHole);
    drop(stream);
    assert!(tokio::time::timeout(A_WHILE, ends.recv()).await.is_err());
    proxy.set_flow(Direction::ToServer, Flow::Pass);
    assert_eq!(ends.recv().await, Some(End::Eof));
}

#[tokio::test]
async fn new_connections_can_be_refused_and_a_missing_server_is_a_reset() {
    let Echo { proxy, .. } = echo().await;
    proxy.set_refuse(true);
    let mut stream = connect(&proxy).await;
    assert!(stream.read(&mut [0]).await.is_err());
    proxy.set_refuse(false);
    assert_eq!(ask(&mut connect(&proxy).await, b"a").await, b"a");

    let gone = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
    let address = gone.local_addr().expect("an address");
    drop(gone);
    let proxy = Proxy::start(address).await.expect("a proxy");
    let mut stream = connect(&proxy).await;
    assert!(stream.read(&mut [0]).await.is_err());
}

#[tokio::test]
async fn dropping_the_proxy_breaks_its_connections() {
    let Echo { proxy, mut ends } = echo().await;
    let mut stream = connect(&proxy).await;
    ask(&mut stream, b"a").await;
    drop(proxy);
    assert!(!matches!(stream.read(&mut [0]).await, Ok(1..)));
    assert!(ends.recv().await.is_some());
}
