//! A key pair of one's own: the daemon's identity, or a device's.
//!
//! Owns making, reading and using the key; refuses to know files. Peers know each other by the key's fingerprint; the
//! certificate that TLS wants around it is made when it is wanted.

use std::fmt;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use clawd_protocol::Fingerprint;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

/// The DER of a P-256 `SubjectPublicKeyInfo` up to the point itself (RFC 5480, section 2.1.1.1).
const P256_PREFIX: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

/// A P-256 key pair.
pub struct Identity {
    key: EcdsaKeyPair,
    pkcs8: PrivatePkcs8KeyDer<'static>,
    public_key: Vec<u8>,
}

/// Bytes that are no key, or a key that cannot be made.
#[derive(Debug)]
pub struct NoIdentity(String);

impl fmt::Display for NoIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a P-256 key in PKCS#8: {}", self.0)
    }
}

impl std::error::Error for NoIdentity {}

impl NoIdentity {
    fn because(why: impl fmt::Display) -> Self {
        Self(why.to_string())
    }
}

/// Only the fingerprint: the key is a secret.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.fingerprint())
    }
}

impl Identity {
    /// A new one.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn generate() -> Result<Self, NoIdentity> {
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .map_err(NoIdentity::because)?;
        Self::from_pkcs8(pkcs8.as_ref())
    }

    /// From the private key in PKCS#8 (RFC 5958).
    ///
    /// # Errors
    /// The bytes are something else.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Self, NoIdentity> {
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8)
            .map_err(NoIdentity::because)?;
        let public_key = [&P256_PREFIX, key.public_key().as_ref()].concat();
        Ok(Self { key, pkcs8: pkcs8.to_vec().into(), public_key })
    }

    /// The private key in PKCS#8. Write it into a private file and nowhere else.
    #[must_use]
    pub fn pkcs8(&self) -> &[u8] {
        self.pkcs8.secret_pkcs8_der()
    }

    /// The public key, as DER of a `SubjectPublicKeyInfo`.
    #[must_use]
    pub fn public_key(&self) -> &[u8] {
        &self.public_key
    }

    /// What it is known by.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(&self.public_key)
    }

    /// Its signature: ECDSA with SHA-256, as ASN.1 DER.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NoIdentity> {
        let signature = self.key.sign(&SystemRandom::new(), message);
        signature.map(|signature| signature.as_ref().to_vec()).map_err(NoIdentity::because)
    }

    /// A certificate around it, signed by itself.
    ///
    /// # Errors
    /// The system has no randomness.
    pub(super) fn certificate(&self) -> Result<CertificateDer<'static>, NoIdentity> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&self.pkcs8, &PKCS_ECDSA_P256_SHA256)
            .map_err(NoIdentity::because)?;
        let certificate = CertificateParams::new(vec!["clawd".to_owned()])
            .and_then(|params| params.self_signed(&key))
            .map_err(NoIdentity::because)?;
        Ok(certificate.der().clone())
    }

    pub(super) fn private_key(&self) -> PrivateKeyDer<'static> {
        self.pkcs8.clone_key().into()
    }
}

/// Whether `signature` over `message` was made with this P-256 key, given as DER of a `SubjectPublicKeyInfo`.
#[must_use]
pub fn verify(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    let Some(point) = public_key.strip_prefix(&P256_PREFIX) else { return false };
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point).verify(message, signature).is_ok()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use rustls::RootCertStore;
    use rustls::crypto::aws_lc_rs;
    use rustls::pki_types::UnixTime;
    use rustls::server::{ParsedCertificate, WebPkiClientVerifier};

    use super::*;

    #[test]
    fn a_key_reads_back_and_signs_for_itself_only() {
        let one = Identity::generate().unwrap();
        let again = Identity::from_pkcs8(one.pkcs8()).unwrap();
        assert_eq!(again.fingerprint(), one.fingerprint());
        let signature = one.sign(b"this").unwrap();
        assert!(verify(again.public_key(), b"this", &signature));
        assert!(!verify(again.public_key(), b"that", &signature));
        let other = Identity::generate().unwrap();
        assert_ne!(other.fingerprint(), one.fingerprint());
        assert!(!verify(other.public_key(), b"this", &signature));
        assert!(!verify(&other.public_key()[1..], b"this", &signature));
        assert!(!verify(other.public_key(), b"this", b""));
    }

    #[test]
    fn its_certificate_is_signed_by_its_key_and_never_ends() {
        let (one, other) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let shown = one.certificate().unwrap();
        let parsed = ParsedCertificate::try_from(&shown).unwrap();
        assert_eq!(parsed.subject_public_key_info().as_ref(), one.public_key());
        let is_vouched_for = |by: &Identity| {
            let mut roots = RootCertStore::empty();
            roots.add(by.certificate().unwrap()).unwrap();
            let provider = Arc::new(aws_lc_rs::default_provider());
            let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let in_2999 = UnixTime::since_unix_epoch(Duration::from_secs(32_472_144_000));
            builder.build().unwrap().verify_client_cert(&shown, &[], in_2999).is_ok()
        };
        assert!(is_vouched_for(&one));
        assert!(!is_vouched_for(&other));
    }

    #[test]
    fn a8_an_identity_does_not_print_its_key() {
        let identity = Identity::generate().unwrap();
        assert_eq!(format!("{identity:?}"), format!("Identity({})", identity.fingerprint()));
    }

    #[test]
    fn what_is_no_key_is_said_to_be_none() {
        for bytes in [&b""[..], b"no key", &[0x30; 138]] {
            let error = Identity::from_pkcs8(bytes).unwrap_err();
            assert!(error.to_string().contains("not a P-256 key"), "{error}");
        }
    }
}
