//! The byte stream below a device's protocol: plain TCP, or TLS 1.3 made by the caller's configuration.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

/// Longest wait for a connection including the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How a device reaches the gateway.
#[derive(Clone)]
pub enum Transport {
    /// Plain TCP.
    Plain,
    /// TLS with this configuration, expecting this name in the gateway's certificate.
    Tls {
        /// Roots, client certificate and protocol versions.
        config: Arc<ClientConfig>,
        /// Name or address in the gateway's certificate.
        server_name: Arc<str>,
    },
}

/// Why no connection came about.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// TCP or TLS failed.
    #[error("no connection to {address}")]
    Io {
        /// Where to.
        address: SocketAddr,
        /// The system's or TLS's answer.
        #[source]
        source: std::io::Error,
    },
    /// No connection within [`CONNECT_TIMEOUT`].
    #[error("no connection to {0} in time")]
    Timeout(SocketAddr),
    /// The expected server name is neither a DNS name nor an address.
    #[error("{0:?} cannot be a server's name")]
    ServerName(Arc<str>),
}

/// A connected stream.
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Transport {
    pub(crate) async fn connect(&self, address: SocketAddr) -> Result<Stream, ConnectError> {
        tokio::time::timeout(CONNECT_TIMEOUT, self.open(address)).await.map_err(|_| ConnectError::Timeout(address))?
    }

    async fn open(&self, address: SocketAddr) -> Result<Stream, ConnectError> {
        let failed = |source| ConnectError::Io { address, source };
        let tcp = TcpStream::connect(address).await.map_err(failed)?;
        tcp.set_nodelay(true).map_err(failed)?;
        match self {
            Self::Plain => Ok(Stream::Plain(tcp)),
            Self::Tls { config, server_name } => {
                let name = ServerName::try_from(server_name.to_string()).map_err(|_| ConnectError::ServerName(server_name.clone()))?;
                let tls = TlsConnector::from(config.clone()).connect(name, tcp).await.map_err(failed)?;
                Ok(Stream::Tls(Box::new(tls)))
            }
        }
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<std::io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
