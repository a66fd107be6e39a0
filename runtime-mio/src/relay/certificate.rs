//! The certificate that a relay shows.
//!
//! Owns reading it from PEM files; refuses to know where it came from. TLS 1.3 and nothing older, no resumption.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;

use super::RelayError;

/// Where a certificate and its key are.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// The chain in PEM, the relay's own certificate first.
    pub chain: PathBuf,
    /// Its private key in PEM.
    pub key: PathBuf,
}

impl Certificate {
    pub(super) fn load(&self) -> Result<Arc<ServerConfig>, RelayError> {
        let chain = CertificateDer::pem_file_iter(&self.chain)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| refused(&self.chain, &error))?;
        if chain.is_empty() {
            return Err(refused(&self.chain, &"there is no certificate in it"));
        }
        let key =
            PrivateKeyDer::from_pem_file(&self.key).map_err(|error| refused(&self.key, &error))?;
        let mut config =
            ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
                .with_protocol_versions(&[&TLS13])
                .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
                .map_err(|error| refused(&self.key, &error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(Arc::new(config))
    }
}

fn refused(path: &Path, why: &dyn std::fmt::Display) -> RelayError {
    RelayError::Certificate { path: path.to_owned(), why: why.to_string() }
}
