//! An authority of our own, and the certificates that it gives to relays on this machine.
//!
//! Owns making them and the files they are in; refuses to know who trusts them.

use std::path::{Path, PathBuf};

use data_encoding::BASE64_MIME;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, date_time_ymd};

use crate::daemon::write_private;

/// See the module.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
#[derive(Debug)]
pub struct Vouched {
    /// The certificate.
    pub certificate: rcgen::Certificate,
    /// Its key.
    pub key: KeyPair,
}

impl Authority {
    /// A new one; the file with its own certificate.
    ///
    /// # Panics
    /// If the directory is not writable.
    #[must_use]
    pub fn new(dir: &Path) -> (Self, PathBuf) {
        let mut params = CertificateParams::new([]).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let path = dir.join("authority.pem");
        write_pem(&path, "CERTIFICATE", issuer.der());
        (Self(issuer), path)
    }

    /// A certificate for this machine, good from one year to another.
    ///
    /// # Panics
    /// If the system has no randomness.
    #[must_use]
    pub fn vouch(&self, years: [i32; 2]) -> Vouched {
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()]).expect("parameters");
        [params.not_before, params.not_after] = years.map(|year| date_time_ymd(year, 1, 1));
        let key = KeyPair::generate().expect("a key");
        Vouched { certificate: params.signed_by(&key, &self.0).expect("signed"), key }
    }
}

impl Vouched {
    /// Writes the certificate and the key, each in its file.
    ///
    /// # Panics
    /// If the directory is not writable.
    #[must_use]
    pub fn write(&self, dir: &Path) -> [PathBuf; 2] {
        let [chain, private] = ["chain.pem", "key.pem"].map(|name| dir.join(name));
        write_pem(&chain, "CERTIFICATE", self.certificate.der());
        write_pem(&private, "PRIVATE KEY", &self.key.serialize_der());
        [chain, private]
    }
}

fn write_pem(path: &Path, what: &str, der: &[u8]) {
    let base64 = BASE64_MIME.encode(der);
    let text = format!("-----BEGIN {what}-----\n{}\n-----END {what}-----\n", base64.trim_end());
    write_private(path, text.as_bytes());
}
