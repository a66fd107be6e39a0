//! Whom each side takes the other for.
//!
//! Owns the demands on certificates; refuses to know whose keys are good for what. Invariant: whatever a certificate says, the
//! handshake's own signature is verified with the key in it, so nobody shows a key that is not his.

use std::sync::Arc;
use std::{fmt, io};

use clawd_protocol::Fingerprint;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, CommonState, DigitallySignedStruct, DistinguishedName, Error,
    OtherError, PeerIncompatible, RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};

use super::Identity;

/// Which servers a client talks to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trusted {
    /// The one with this key, whatever else its certificate says (security G1).
    Key(Fingerprint),
    /// Anybody for now: what is said next proves who it is, or that it is another, as pairing by PIN does (D6).
    AnyKey,
}

/// The server has shown another key than the trusted one: this. It has not proved to have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrongKey(pub Fingerprint);

impl fmt::Display for WrongKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it has another key: {}", self.0)
    }
}

impl std::error::Error for WrongKey {}

impl WrongKey {
    /// If that is why there is no connection.
    #[must_use]
    pub fn of(error: &Error) -> Option<Self> {
        let Error::InvalidCertificate(CertificateError::Other(OtherError(why))) = error else {
            return None;
        };
        why.downcast_ref().copied()
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn certificate(identity: &Identity) -> Result<CertificateDer<'static>, Error> {
    identity.certificate().map_err(|error| Error::General(error.to_string()))
}

/// The daemon's side: shows its identity, and asks for the peer's key without insisting.
///
/// # Errors
/// The identity is not one that TLS can use, or the system has no randomness.
pub fn server_config(identity: &Identity) -> Result<Arc<ServerConfig>, Error> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(Arc::new(AnyClient(provider())))
        .with_single_cert(vec![certificate(identity)?], identity.private_key())?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    Ok(Arc::new(config))
}

/// The daemon's side, made when the first peer speaks TLS. A daemon that serves only its own machine, as most do, has
/// none of it in memory.
#[derive(Debug)]
pub(crate) struct Acceptor {
    identity: Arc<Identity>,
    config: Option<Arc<ServerConfig>>,
}

impl Acceptor {
    pub(crate) const fn new(identity: Arc<Identity>) -> Self {
        Self { identity, config: None }
    }

    /// A session in which the peer has said nothing yet.
    pub(crate) fn accept(&mut self) -> Result<ServerConnection, Error> {
        let config = match &self.config {
            Some(config) => config,
            None => self.config.insert(server_config(&self.identity)?),
        };
        ServerConnection::new(Arc::clone(config))
    }
}

/// A device's side: to a daemon's key, showing its own.
///
/// # Errors
/// The device's identity is not one that TLS can use.
pub fn client_config(trusted: Trusted, own: Option<&Identity>) -> Result<Arc<ClientConfig>, Error> {
    let verifier = Arc::new(ByKey { trusted, provider: provider() });
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => builder.with_client_auth_cert(vec![certificate(own)?], own.private_key())?,
        None => builder.with_no_client_auth(),
    };
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// To a relay: a certificate for its name that the system's roots vouch for and, if one is pinned, its key (security G7).
///
/// # Errors
/// The system has no roots.
pub fn relay_config(pin: Option<Fingerprint>) -> io::Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    let found = rustls_native_certs::load_native_certs();
    roots.add_parsable_certificates(found.certs);
    relay_config_with(roots, pin)
}

/// The same with other roots than the system's.
///
/// # Errors
/// There are no roots.
pub fn relay_config_with(
    roots: RootCertStore,
    pin: Option<Fingerprint>,
) -> io::Result<Arc<ClientConfig>> {
    let by_roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|_| io::Error::other("there are no root certificates"))?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .map_err(io::Error::other)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(ByRoots { by_roots, pin }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// A name for a connection on which names do not matter; none is sent.
#[must_use]
pub fn server_name() -> ServerName<'static> {
    ServerName::IpAddress(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED).into())
}

/// The key that the peer has shown and proved to have, once the handshake is over.
#[must_use]
pub fn peer_key(tls: &CommonState) -> Option<Fingerprint> {
    key_of(tls.peer_certificates()?.first()?).ok()
}

fn key_of(certificate: &CertificateDer<'_>) -> Result<Fingerprint, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    Ok(Fingerprint::of(&parsed.subject_public_key_info()))
}

fn no_tls12() -> Error {
    Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)
}

/// A daemon, by its key.
#[derive(Debug)]
struct ByKey {
    trusted: Trusted,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for ByKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let key = key_of(end_entity)?;
        match self.trusted {
            Trusted::Key(wanted) if wanted != key => {
                let wrong = OtherError(Arc::new(WrongKey(key)));
                Err(Error::InvalidCertificate(CertificateError::Other(wrong)))
            }
            Trusted::Key(_) | Trusted::AnyKey => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A relay, by its name and the system's roots, and by its key where one is pinned.
#[derive(Debug)]
struct ByRoots {
    by_roots: Arc<WebPkiServerVerifier>,
    pin: Option<Fingerprint>,
}

impl ServerCertVerifier for ByRoots {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let is_pinned = self.pin.is_none_or(|pin| key_of(end_entity) == Ok(pin));
        if !is_pinned {
            return Err(Error::InvalidCertificate(
                CertificateError::ApplicationVerificationFailure,
            ));
        }
        let by_roots = &self.by_roots;
        by_roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.by_roots.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by_roots.supported_verify_schemes()
    }
}

/// Any device, or nobody in particular: what its key may do, the core knows.
#[derive(Debug)]
struct AnyClient(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        key_of(end_entity).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
