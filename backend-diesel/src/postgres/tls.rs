//! [`Tls`]: whom to believe that it is the server. How a stream gets encrypted is in `security.rs`.

use std::fmt;
use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect as _};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What a PostgreSQL server of version 17 and later wants to hear from a client that begins with TLS at once.
const ALPN: &[u8] = b"postgresql";

/// Whom to believe that it is the server: the certificates of authorities, or a whole [`ClientConfig`] of rustls. See
/// [`PostgresFactory::tls`](crate::PostgresFactory::tls). Cheap to clone.
#[derive(Clone)]
pub struct Tls {
    make: MakeRustlsConnect,
}

impl Tls {
    /// Believes the authorities that Mozilla's browser does (the list is that of the crate `webpki-roots`, and as old as
    /// its version): for servers whose certificate a public authority has issued.
    #[must_use]
    pub fn webpki_roots() -> Self {
        Self::roots(RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() })
    }

    /// Believes the authorities whose certificates are in this text, and nobody else: what libpq and many providers call
    /// the root certificate.
    ///
    /// # Errors
    /// When it is not PEM, holds no certificate, or one that is none.
    pub fn root_certificates(pem: impl AsRef<[u8]>) -> io::Result<Self> {
        let invalid = |text: String| io::Error::new(io::ErrorKind::InvalidData, text);
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem.as_ref()) {
            let certificate = certificate.map_err(|error| invalid(error.to_string()))?;
            roots.add(certificate).map_err(|error| invalid(error.to_string()))?;
        }
        if roots.is_empty() {
            return Err(invalid("there is no certificate in it".to_owned()));
        }
        Ok(Self::roots(roots))
    }

    /// Whatever the config says, for a certificate of the client's own, another list of authorities or another provider of
    /// cryptography. What it verifies is what is verified: rustls's own verifiers check the chain and the name, one that
    /// is set through `dangerous()` may check nothing.
    #[must_use]
    pub fn config(config: ClientConfig) -> Self {
        Self { make: MakeRustlsConnect::new(config) }
    }

    fn roots(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        #[expect(clippy::expect_used, reason = "the provider is the line above's and has them")]
        let mut config =
            versions.expect("ring has TLS 1.2 and 1.3").with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![ALPN.to_vec()];
        Self::config(config)
    }

    /// Shakes hands on `stream` with whoever proves to be called `name`.
    pub(super) async fn shake_hands<S>(&self, name: &str, stream: S) -> io::Result<Encrypted<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connect = match <MakeRustlsConnect as MakeTlsConnect<S>>::make_tls_connect(&mut self.make.clone(), name) {
            Ok(connect) => connect,
            Err(never) => match never {},
        };
        connect.connect(stream).await
    }
}

/// An encrypted stream over `S`.
pub(super) type Encrypted<S> = <MakeRustlsConnect as MakeTlsConnect<S>>::Stream;

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_without_certificates_is_no_list_of_authorities() {
        for text in ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"] {
            let error = Tls::root_certificates(text).expect_err(text);
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        }
    }
}
