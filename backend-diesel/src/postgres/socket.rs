//! Sockets to the server: [`Socket`], TCP or Unix, opened as a `Config` says. tokio-postgres keeps its own to itself.

use std::io;
use std::net::{IpAddr, SocketAddr};
#[cfg(unix)]
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
#[cfg(unix)]
use tokio::net::UnixStream;
use tokio_postgres::Config;
use tokio_postgres::config::{Host, LoadBalanceHosts};

/// One place where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Address {
    /// And what its certificate has to call it.
    Tcp(SocketAddr, Arc<str>),
    #[cfg(unix)]
    Unix(PathBuf),
}

impl Address {
    /// The name that a certificate there has to be for: the host as the config has it, else its IP address.
    pub(super) fn name(&self) -> Option<&str> {
        match self {
            Self::Tcp(_, name) => Some(name),
            #[cfg(unix)]
            Self::Unix(_) => None,
        }
    }
}

/// The places that a config names, in the order in which to try them: its hosts, each with all of its addresses. A host
/// that cannot be resolved is an error in its place.
pub(super) async fn addresses(config: &Config) -> Vec<io::Result<Address>> {
    let (hosts, addrs) = (config.get_hosts(), config.get_hostaddrs());
    let mut found = Vec::new();
    for index in order(config, hosts.len().max(addrs.len())) {
        let port = config.get_ports().get(index).or_else(|| config.get_ports().first()).copied().unwrap_or(5432);
        match (addrs.get(index), hosts.get(index)) {
            (Some(ip), Some(Host::Tcp(name))) => found.push(Ok(tcp(*ip, port, name))),
            (Some(ip), _) => found.push(Ok(tcp(*ip, port, &ip.to_string()))),
            (None, Some(Host::Tcp(name))) => match tokio::net::lookup_host((name.as_str(), port)).await {
                Ok(resolved) => found.extend(resolved.map(|address| Ok(Address::Tcp(address, name.as_str().into())))),
                Err(error) => found.push(Err(error)),
            },
            #[cfg(unix)]
            (None, Some(Host::Unix(folder))) => {
                found.push(Ok(Address::Unix(folder.join(format!(".s.PGSQL.{port}")))));
            }
            (None, None) => {}
        }
    }
    if found.is_empty() {
        found.push(Err(io::Error::new(io::ErrorKind::InvalidInput, "the config names no host")));
    }
    found
}

fn order(config: &Config, hosts: usize) -> Vec<usize> {
    let mut indices: Vec<_> = (0..hosts).collect();
    if config.get_load_balance_hosts() == LoadBalanceHosts::Random {
        fastrand::shuffle(&mut indices);
    }
    indices
}

fn tcp(ip: IpAddr, port: u16, name: &str) -> Address {
    Address::Tcp(SocketAddr::new(ip, port), name.into())
}

/// A stream to the server.
#[derive(Debug)]
pub(super) enum Socket {
    Tcp(TcpStream),
    #[cfg(unix)]
    Unix(UnixStream),
}

impl Socket {
    /// Opens one, within the config's `connect_timeout` if it has one, and with its keepalives.
    pub(super) async fn open(address: &Address, config: &Config) -> io::Result<Self> {
        let open = async {
            match address {
                Address::Tcp(address, _) => TcpStream::connect(address).await.map(Self::Tcp),
                #[cfg(unix)]
                Address::Unix(path) => UnixStream::connect(path).await.map(Self::Unix),
            }
        };
        let socket = match config.get_connect_timeout() {
            Some(timeout) => tokio::time::timeout(*timeout, open).await??,
            None => open.await?,
        };
        socket.set_options(config)?;
        Ok(socket)
    }

    fn set_options(&self, config: &Config) -> io::Result<()> {
        let stream = match self {
            Self::Tcp(stream) => stream,
            #[cfg(unix)]
            Self::Unix(_) => return Ok(()),
        };
        stream.set_nodelay(true)?;
        let socket = SockRef::from(stream);
        #[cfg(target_os = "linux")]
        if let Some(timeout) = config.get_tcp_user_timeout() {
            socket.set_tcp_user_timeout(Some(*timeout))?;
        }
        if config.get_keepalives() {
            let mut keepalive = TcpKeepalive::new().with_time(config.get_keepalives_idle());
            if let Some(interval) = config.get_keepalives_interval() {
                keepalive = keepalive.with_interval(interval);
            }
            if let Some(retries) = config.get_keepalives_retries() {
                keepalive = keepalive.with_retries(retries);
            }
            socket.set_tcp_keepalive(&keepalive)?;
        }
        Ok(())
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut *self {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(unix)]
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn of(config: &str) -> Vec<Option<Address>> {
        let config: Config = config.parse().expect("a config");
        addresses(&config).await.into_iter().map(Result::ok).collect()
    }

    #[tokio::test]
    async fn hosts_are_tried_in_order_each_with_its_port() {
        let local = |port, name| Some(tcp(IpAddr::from([127, 0, 0, 1]), port, name));
        let ip = "127.0.0.1";
        assert_eq!(of("host=127.0.0.1").await, [local(5432, ip)]);
        assert_eq!(of("host=127.0.0.1,127.0.0.1 port=1,2").await, [local(1, ip), local(2, ip)]);
        assert_eq!(of("host=a.invalid hostaddr=127.0.0.1 port=7").await, [local(7, "a.invalid")]);
        assert_eq!(of("hostaddr=127.0.0.1 port=7").await, [local(7, ip)]);
        assert_eq!(of("user=a").await, [None]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_path_is_a_folder_with_a_socket() {
        assert_eq!(of("host=/run/pg port=7").await, [Some(Address::Unix("/run/pg/.s.PGSQL.7".into()))]);
    }
}
