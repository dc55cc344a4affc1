//! [`Wire`]: a stream to the server that reads along for the [`Session`], and whose end is the server's.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsStream};

use super::security::Stream;
use super::session::{Frames, Session};

/// A stream of PostgreSQL's protocol in the clear. Encryption is below it, in `S`.
///
/// Its shutdown reads until the server has closed its side: a server process frees its place before its socket goes,
/// so that another connection is let in once this one has ended.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    watch: Option<Watch>,
    shut: bool,
}

#[derive(Debug)]
struct Watch {
    session: Arc<Session>,
    sent: Frames,
    received: Frames,
}

impl<S> Wire<S> {
    /// A wire that reads along from the first byte on.
    pub(super) fn watched(stream: S, session: Arc<Session>) -> Self {
        let watch = Watch { session, sent: Frames::of_client(), received: Frames::of_server() };
        Self { stream, watch: Some(watch), shut: false }
    }

    /// A wire for one message, such as the request to cancel a query.
    pub(super) fn unwatched(stream: S) -> Self {
        Self { stream, watch: None, shut: false }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Wire<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let before = buf.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buf));
        if let Some(Watch { session, received, .. }) = &mut this.watch {
            let bytes = &buf.filled()[before..];
            if read.is_err() || bytes.is_empty() {
                session.lose();
            } else if !received.take(bytes, |kind, body| session.heard(kind, body)) {
                session.confuse();
            }
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let written = Pin::new(&mut this.stream).poll_write(cx, buf);
        if let Some(Watch { session, sent, .. }) = &mut this.watch {
            session.set_blocked(written.is_pending());
            match &written {
                Poll::Ready(Ok(written)) => {
                    let whole = sent.take(&buf[..*written], |kind, _| session.asked(kind));
                    if !whole {
                        session.confuse();
                    }
                }
                Poll::Ready(Err(_)) => session.lose(),
                Poll::Pending => {}
            }
        }
        written
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.shut {
            // A server that was faster has closed its side already; that is what is waited for anyway.
            let _ = ready!(Pin::new(&mut this.stream).poll_shutdown(cx));
            this.shut = true;
        }
        loop {
            let mut ignored = [0; 1024];
            let mut buf = ReadBuf::new(&mut ignored);
            match ready!(Pin::new(&mut this.stream).poll_read(cx, &mut buf)) {
                Ok(()) if !buf.filled().is_empty() => {}
                // A reset is an end as good as any.
                Ok(()) | Err(_) => return Poll::Ready(Ok(())),
            }
        }
    }
}

impl TlsStream for Wire<Stream> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn its_shutdown_waits_for_the_servers_end() {
        let (client, mut server) = duplex(64);
        let mut wire = Wire::unwatched(client);
        let mut shutdown = std::pin::pin!(wire.shutdown());
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(shutdown.as_mut().poll(&mut context).is_pending());
        server.write_all(b"a last word").await.expect("writes");
        assert!(shutdown.as_mut().poll(&mut context).is_pending());
        assert_eq!(server.read(&mut [0]).await.expect("reads"), 0, "the server was told");
        drop(server);
        shutdown.await.expect("the end");
    }

    #[tokio::test]
    async fn bytes_that_the_network_does_not_take_are_seen() {
        let (client, mut server) = duplex(4);
        let session = Arc::new(Session::new());
        session.heard(b'Z', b"I");
        let mut wire = Wire::watched(client, Arc::clone(&session));
        let mut context = Context::from_waker(std::task::Waker::noop());
        let startup = [0, 0, 0, 8, 0, 0, 0, 0];
        assert!(matches!(Pin::new(&mut wire).poll_write(&mut context, &startup), Poll::Ready(Ok(4))));
        assert!(session.owes_nothing());
        assert!(Pin::new(&mut wire).poll_write(&mut context, &startup[4..]).is_pending());
        assert!(!session.owes_nothing());
        server.read_exact(&mut [0; 4]).await.expect("reads");
        wire.write_all(&startup[4..]).await.expect("writes");
        assert!(session.owes_nothing());
        drop(server);
        assert_eq!(wire.read(&mut [0]).await.expect("the end"), 0);
        assert!(session.is_lost());
    }
}
