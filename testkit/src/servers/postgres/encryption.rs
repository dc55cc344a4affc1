//! How a server comes to speak TLS.

use super::{PostgresBuilder, PostgresError, PrivatePostgres};
use crate::servers::certificate::{CHAIN_FILE, Certificate, KEY_FILE};

impl PostgresBuilder {
    /// Has it speak TLS with whoever asks for it, with this certificate. By default it does not.
    #[must_use]
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.certificate = Some(certificate);
        // Paths are relative to the folder of its data.
        self.setting("ssl", "on")
            .setting("ssl_cert_file", &format!("../{CHAIN_FILE}"))
            .setting("ssl_key_file", &format!("../{KEY_FILE}"))
    }
}

impl PrivatePostgres {
    pub(super) fn own_certificate(&self, certificate: Option<&Certificate>) -> Result<(), PostgresError> {
        let written = certificate.map_or(Ok(()), |certificate| certificate.write(self.folder.path(), self.account));
        written.map_err(PostgresError::setup("write the server's certificate"))
    }
}
