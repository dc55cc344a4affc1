//! [`Stream`]: a socket to the server, encrypted or not as the config and the server have it. Whom to believe is in `tls.rs`.
//!
//! tokio-postgres could ask for encryption by itself, but then nobody could read along in the clear. So it is done
//! here, below the [`Wire`], and tokio-postgres gets a stream that [`Settled`] says is ready.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio_postgres::Config;
use tokio_postgres::config::{SslMode, SslNegotiation};
#[cfg(feature = "tls-rustls")]
use tokio_postgres::tls::TlsStream as _;
use tokio_postgres::tls::{ChannelBinding, TlsConnect};

use super::socket::{Address, Socket};
#[cfg(feature = "tls-rustls")]
use super::tls::Encrypted;
#[cfg(feature = "tls-rustls")]
pub(super) use super::tls::Tls;
use super::wire::Wire;

/// Without the feature there is none.
#[cfg(not(feature = "tls-rustls"))]
#[derive(Debug, Clone)]
pub(super) enum Tls {}

/// The question whether the server speaks TLS: a length of eight bytes, and a number in the place of a version.
const REQUEST: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// A socket as the protocol sees it. The encrypted one lies upon a wire of its own, which reads to the end of the
/// socket: the server says the end of the encryption before that.
pub(super) enum Stream {
    Clear(Socket),
    #[cfg(feature = "tls-rustls")]
    Encrypted(Box<Encrypted<Wire<Socket>>>),
}

impl Stream {
    /// Encrypts `socket` if the config wants it and the server can, or says why there is no connection then.
    pub(super) async fn secure(
        socket: Socket,
        address: &Address,
        config: &Config,
        tls: Option<&Tls>,
    ) -> io::Result<Self> {
        let refuse = |why| Err(io::Error::new(io::ErrorKind::Unsupported, why));
        let required = match config.get_ssl_mode() {
            SslMode::Disable => return Ok(Self::Clear(socket)),
            SslMode::Prefer => false,
            // A later mode would ask for more, not for less.
            _ => true,
        };
        let (tls, name) = match (tls, address.name()) {
            (Some(tls), Some(name)) => (tls, name),
            _ if !required => return Ok(Self::Clear(socket)),
            (None, _) => return refuse("sslmode=require asks for encryption, and the factory was given no `tls`"),
            (_, None) => return refuse("sslmode=require asks for encryption, which there is none of on a Unix socket"),
        };
        let mut socket = socket;
        if config.get_ssl_negotiation() == SslNegotiation::Direct {
            if !required {
                return refuse("sslnegotiation=direct asks for sslmode=require");
            }
        } else if !offers_encryption(&mut socket).await? {
            return if required { refuse("the server does not speak TLS") } else { Ok(Self::Clear(socket)) };
        }
        Self::encrypt(socket, name, tls).await
    }

    /// Encrypts `socket` as another one to the same server was.
    pub(super) async fn secure_likewise(
        socket: Socket,
        address: &Address,
        config: &Config,
        tls: Option<&Tls>,
    ) -> io::Result<Self> {
        let mut config = config.clone();
        config.ssl_mode(if tls.is_some() { SslMode::Require } else { SslMode::Disable });
        Self::secure(socket, address, &config, tls).await
    }

    #[cfg(feature = "tls-rustls")]
    async fn encrypt(socket: Socket, name: &str, tls: &Tls) -> io::Result<Self> {
        let encrypted = tls.shake_hands(name, Wire::unwatched(socket)).await?;
        Ok(Self::Encrypted(Box::new(encrypted)))
    }

    #[cfg(not(feature = "tls-rustls"))]
    async fn encrypt(_: Socket, _: &str, tls: &Tls) -> io::Result<Self> {
        match *tls {}
    }

    pub(super) fn is_encrypted(&self) -> bool {
        !matches!(self, Self::Clear(_))
    }

    pub(super) fn channel_binding(&self) -> ChannelBinding {
        match self {
            Self::Clear(_) => ChannelBinding::none(),
            #[cfg(feature = "tls-rustls")]
            Self::Encrypted(stream) => stream.channel_binding(),
        }
    }
}

/// Tells tokio-postgres that a stream is as it should be: see [`settled`].
pub(super) struct Settled;

/// The config that goes with it.
pub(super) fn settled(config: &Config) -> Config {
    let mut config = config.clone();
    config.ssl_mode(SslMode::Require).ssl_negotiation(SslNegotiation::Direct);
    config
}

impl TlsConnect<Wire<Stream>> for Settled {
    type Stream = Wire<Stream>;
    type Error = Infallible;
    type Future = Ready<Result<Wire<Stream>, Infallible>>;

    fn connect(self, stream: Wire<Stream>) -> Self::Future {
        ready(Ok(stream))
    }
}

/// Reads one byte and no more: what somebody in between might send after it must not pass for encrypted.
async fn offers_encryption(socket: &mut Socket) -> io::Result<bool> {
    socket.write_all(&REQUEST).await?;
    // Anything but an S is a no: an N, or the error of a server that does not know the question.
    Ok(socket.read_u8().await? == b'S')
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(feature = "tls-rustls")]
            Self::Encrypted(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(feature = "tls-rustls")]
            Self::Encrypted(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(feature = "tls-rustls")]
            Self::Encrypted(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Clear(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls-rustls")]
            Self::Encrypted(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
