//! What a server shows who it is with: [`Certificate`], issued by an [`Authority`] of the test's own.

use std::fmt;
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::account::Account;

/// Files of a certificate in a server's folder.
pub(super) const CHAIN_FILE: &str = "server.crt";
pub(super) const KEY_FILE: &str = "server.key";

/// A server's certificate and its key.
#[derive(Clone)]
pub struct Certificate {
    chain: String,
    key: String,
}

impl Certificate {
    /// One that is there already: the certificate, with those between it and its authority after it, and its key. Both
    /// are PEM.
    #[must_use]
    pub fn from_pem(chain: impl Into<String>, key: impl Into<String>) -> Self {
        Self { chain: chain.into(), key: key.into() }
    }

    /// Writes both into `folder`, for the account's eyes only, as a server asks of a key.
    pub(super) fn write(&self, folder: &Path, account: Account) -> io::Result<()> {
        for (file, text) in [(CHAIN_FILE, &self.chain), (KEY_FILE, &self.key)] {
            let path = folder.join(file);
            fs::write(&path, text)?;
            fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            account.own(&path)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").finish_non_exhaustive()
    }
}

#[cfg(feature = "tls")]
pub use authority::Authority;

#[cfg(feature = "tls")]
mod authority {
    use std::fmt;
    use std::io;

    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

    use super::Certificate;

    /// A certificate authority that nobody trusts but who is told to: the test.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use tenantry_testkit::PrivatePostgres;
    /// use tenantry_testkit::servers::Authority;
    ///
    /// let authority = Authority::new()?;
    /// let certificate = authority.issue(&["localhost", "127.0.0.1"])?;
    /// let server = PrivatePostgres::builder().certificate(certificate).start()?;
    /// println!("trust this and connect to port {}:\n{}", server.port(), authority.pem());
    /// # Ok(()) }
    /// ```
    pub struct Authority {
        issuer: CertifiedIssuer<'static, KeyPair>,
    }

    impl Authority {
        /// A new one, with a key of its own.
        ///
        /// # Errors
        /// When the system has no random numbers.
        pub fn new() -> io::Result<Self> {
            let mut params = CertificateParams::default();
            params.distinguished_name.push(DnType::CommonName, "an authority of a test");
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            let key = KeyPair::generate().map_err(io::Error::other)?;
            let issuer = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
            Ok(Self { issuer })
        }

        /// A certificate for a server that is called by any of these names: host names and IP addresses.
        ///
        /// # Errors
        /// When one of them can be neither.
        pub fn issue(&self, names: &[&str]) -> io::Result<Certificate> {
            let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
            let params = CertificateParams::new(names).map_err(io::Error::other)?;
            let key = KeyPair::generate().map_err(io::Error::other)?;
            let certificate = params.signed_by(&key, &self.issuer).map_err(io::Error::other)?;
            Ok(Certificate::from_pem(certificate.pem(), key.serialize_pem()))
        }

        /// Its own certificate, which a client has to trust, as PEM.
        #[must_use]
        pub fn pem(&self) -> String {
            self.issuer.pem()
        }
    }

    impl fmt::Debug for Authority {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.debug_struct("Authority").finish_non_exhaustive()
        }
    }
}
