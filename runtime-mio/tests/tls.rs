//! Whom our sides of TLS take the other for, whatever it shows (security G1, G2).
//!
//! Both ends are in memory: what one has sent the other gets, until neither has more to say.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::rc::Rc;
use std::sync::Arc;

use clawd_runtime_mio::tls::{
    Identity, TlsStream, Trusted, client_config, server_config, server_name,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::crypto::aws_lc_rs::{default_provider, sign::any_supported_type};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig, ServerConnection};

#[derive(Debug, Default)]
struct Wire {
    there: VecDeque<u8>,
    back: VecDeque<u8>,
}

/// Our end of the wire.
#[derive(Debug, Clone, Default)]
struct Pipe(Rc<RefCell<Wire>>);

impl Read for Pipe {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.borrow_mut().back.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            length => Ok(length),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().there.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Shows this certificate, and signs with this key.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesServerCert for Shown {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0))
    }
}

fn rcgen_key(identity: &Identity) -> KeyPair {
    let pkcs8 = PrivatePkcs8KeyDer::from(identity.pkcs8().to_vec());
    KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn params() -> CertificateParams {
    CertificateParams::new(vec!["clawd".to_owned()]).unwrap()
}

fn showing(chain: Vec<CertificateDer<'static>>, signer: &Identity) -> Arc<ServerConfig> {
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signer.pkcs8().to_vec()));
    let key = any_supported_type(&key).unwrap();
    let shown = Shown(Arc::new(CertifiedKey::new(chain, key)));
    let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(shown));
    Arc::new(config)
}

fn self_signed(params: &CertificateParams, by: &Identity) -> CertificateDer<'static> {
    params.self_signed(&rcgen_key(by)).unwrap().der().clone()
}

/// What came of a device that wants this daemon and meets this server.
struct Meeting {
    device: TlsStream<Pipe>,
    server: ServerConnection,
    /// Why the device went no further.
    refusal: Option<io::Error>,
    /// What the server understood.
    heard: Vec<u8>,
}

fn meet(trusted: Trusted, own: Option<&Identity>, server: &Arc<ServerConfig>) -> Meeting {
    let pipe = Pipe::default();
    let config = client_config(trusted, own).unwrap();
    let mut device = TlsStream::client(pipe.clone(), &config, server_name()).unwrap();
    let mut server = ServerConnection::new(Arc::clone(server)).unwrap();
    let (mut refusal, mut heard, mut has_written) = (None, Vec::new(), false);
    device.flush_pending().unwrap();
    for _ in 0..10 {
        {
            let mut wire = pipe.0.borrow_mut();
            while !wire.there.is_empty() {
                server.read_tls(&mut wire.there).unwrap();
                // That it is told of the refusal is no failure of the test.
                let _ = server.process_new_packets();
                let _ = server.reader().read_to_end(&mut heard);
            }
            while server.wants_write() {
                server.write_tls(&mut wire.back).unwrap();
            }
        }
        match device.read(&mut [0; 100]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => refusal = refusal.or(read.err()),
        }
        // It tries as soon and as often as it can.
        has_written |= !has_written && device.write(b"secret").is_ok();
    }
    Meeting { device, server, refusal, heard }
}

#[track_caller]
fn refused(meeting: Meeting) {
    let error = meeting.refusal.expect("the device went on");
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert_eq!(meeting.heard, b"", "the server heard something");
    assert!(meeting.server.is_handshaking());
    assert!(meeting.device.is_handshaking() && meeting.device.peer_key().is_none());
}

#[track_caller]
fn accepted(meeting: &Meeting) {
    assert!(meeting.refusal.is_none(), "{:?}", meeting.refusal);
    assert_eq!(meeting.heard, b"secret");
}

#[test]
fn g1_another_key_hears_nothing_whatever_its_certificate_says() {
    let (daemon, other, authority) = three();
    let wanted = Trusted::Key(daemon.fingerprint());
    refused(meet(wanted, None, &server_config(&other).unwrap()));
    refused(meet(wanted, Some(&authority), &server_config(&other).unwrap()));
    // A valid chain for the same name.
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = self_signed(&ca, &authority);
    let issuer = Issuer::new(ca, rcgen_key(&authority));
    let leaf = params().signed_by(&rcgen_key(&other), &issuer).unwrap().der().clone();
    refused(meet(wanted, None, &showing(vec![leaf.clone(), root.clone()], &other)));
    // The right one is in the chain, but it is not the one that signs.
    let right = self_signed(&params(), &daemon);
    refused(meet(wanted, None, &showing(vec![leaf, root, right], &other)));
}

#[test]
fn g1_a_certificate_without_its_key_is_worth_nothing() {
    let (daemon, other, _) = three();
    let shown = self_signed(&params(), &daemon);
    for trusted in [Trusted::Key(daemon.fingerprint()), Trusted::AnyKey] {
        refused(meet(trusted, None, &showing(vec![shown.clone()], &other)));
    }
}

#[test]
fn g1_a_server_that_speaks_older_tls_only_hears_nothing_but_the_refusal() {
    let (daemon, _, _) = three();
    let pipe = Pipe::default();
    let config = client_config(Trusted::Key(daemon.fingerprint()), None).unwrap();
    let mut device = TlsStream::client(pipe.clone(), &config, server_name()).unwrap();
    device.flush_pending().unwrap();
    let hello: Vec<u8> = pipe.0.borrow_mut().there.drain(..).collect();
    // A ServerHello of TLS 1.2: our own session id back, ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no extensions.
    let session_id = &hello[43..43 + 33];
    assert_eq!(session_id[0], 32);
    let body = [&[3, 3][..], &[7; 32], session_id, &[0xc0, 0x2b, 0, 0, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    let answer = [&[0x16, 3, 3, 0, length + 4, 2, 0, 0, length], &body[..]].concat();
    pipe.0.borrow_mut().back.extend(answer);
    let error = device.read(&mut [0; 100]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
    assert_eq!(device.write(b"secret").unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let said: Vec<u8> = pipe.0.borrow_mut().there.drain(..).collect();
    // Fatal: protocol_version.
    assert_eq!(said, [0x15, 3, 3, 0, 2, 2, 70], "{error}");
}

#[test]
fn g1_an_expired_or_newly_signed_certificate_of_the_same_key_is_fine() {
    let (daemon, _, authority) = three();
    let wanted = Trusted::Key(daemon.fingerprint());
    accepted(&meet(wanted, None, &server_config(&daemon).unwrap()));
    let mut expired = params();
    (expired.not_before, expired.not_after) =
        (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    accepted(&meet(wanted, None, &showing(vec![self_signed(&expired, &daemon)], &daemon)));
    let issuer = Issuer::new(params(), rcgen_key(&authority));
    let resigned = params().signed_by(&rcgen_key(&daemon), &issuer).unwrap().der().clone();
    accepted(&meet(wanted, None, &showing(vec![resigned], &daemon)));
}

#[test]
fn d6_a_device_that_takes_any_key_knows_afterwards_which_it_was() {
    let (daemon, _, _) = three();
    let meeting = meet(Trusted::AnyKey, None, &server_config(&daemon).unwrap());
    accepted(&meeting);
    assert_eq!(meeting.device.peer_key(), Some(daemon.fingerprint()));
}

#[test]
fn e6_the_daemon_learns_the_key_that_the_device_has_proved() {
    let (daemon, device, _) = three();
    let config = server_config(&daemon).unwrap();
    let wanted = Trusted::Key(daemon.fingerprint());
    let key = |meeting: &Meeting| clawd_runtime_mio::tls::peer_key(&meeting.server);
    assert_eq!(key(&meet(wanted, Some(&device), &config)), Some(device.fingerprint()));
    assert_eq!(key(&meet(wanted, None, &config)), None);
}

#[test]
fn e6_a_device_cannot_show_a_key_that_it_does_not_have() {
    use rustls::client::ResolvesClientCert;
    #[derive(Debug)]
    struct Borrowed(Arc<CertifiedKey>);
    impl ResolvesClientCert for Borrowed {
        fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
            Some(Arc::clone(&self.0))
        }
        fn has_certs(&self) -> bool {
            true
        }
    }
    let (daemon, victim, thief) = three();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(thief.pkcs8().to_vec()));
    let key = any_supported_type(&key).unwrap();
    let shown = CertifiedKey::new(vec![self_signed(&params(), &victim)], key);
    let config = client_config(Trusted::Key(daemon.fingerprint()), None).unwrap();
    let mut config = Arc::unwrap_or_clone(config);
    config.client_auth_cert_resolver = Arc::new(Borrowed(Arc::new(shown)));

    let pipe = Pipe::default();
    let mut daemon = TlsStream::server(pipe.clone(), &server_config(&daemon).unwrap()).unwrap();
    let mut peer = rustls::ClientConnection::new(Arc::new(config), server_name()).unwrap();
    peer.writer().write_all(b"let me in").unwrap();
    let error = loop {
        {
            let mut wire = pipe.0.borrow_mut();
            while peer.wants_write() {
                peer.write_tls(&mut wire.back).unwrap();
            }
        }
        match daemon.read(&mut [0; 100]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => break result.expect_err("the daemon heard the thief"),
        }
        let mut wire = pipe.0.borrow_mut();
        assert!(!wire.there.is_empty(), "nobody goes on");
        while !wire.there.is_empty() {
            peer.read_tls(&mut wire.there).unwrap();
            peer.process_new_packets().unwrap();
        }
    };
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    assert!(!daemon.announce() && daemon.peer_key().is_none());
}

#[test]
fn g2_each_connection_is_tls_13_in_full_and_gives_nothing_to_come_back_with() {
    let (daemon, _, _) = three();
    let config = server_config(&daemon).unwrap();
    assert_eq!((config.send_tls13_tickets, config.max_early_data_size), (0, 0));
    assert!(!config.session_storage.can_cache() && !config.ticketer.enabled());
    for _ in 0..2 {
        let meeting = meet(Trusted::Key(daemon.fingerprint()), None, &config);
        accepted(&meeting);
        let server = &meeting.server;
        assert_eq!(server.protocol_version(), Some(ProtocolVersion::TLSv1_3));
        assert_eq!(server.handshake_kind(), Some(HandshakeKind::Full));
        let group = server.negotiated_key_exchange_group().map(|group| group.name());
        assert_eq!(group, Some(NamedGroup::X25519MLKEM768));
    }
    let client = client_config(Trusted::AnyKey, None).unwrap();
    assert!(!client.enable_early_data);
}

fn three() -> (Identity, Identity, Identity) {
    let one = || Identity::generate().unwrap();
    (one(), one(), one())
}
