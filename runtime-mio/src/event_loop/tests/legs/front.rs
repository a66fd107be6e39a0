//! A front that speaks TLS, before a relay that does not: all tests of legs once more, as legs are outside of tests.

use std::env;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::Command;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use super::*;
use crate::tls::TlsStream;

/// Where the front's certificate and key are, in a process that has its authority for a root.
const DIR: &str = "CLAWD_TEST_FRONT";
/// What the front holds of one direction before it reads no more of it.
const HELD_BYTES_MAX: usize = 256 * 1024;

pub(super) fn scheme() -> &'static str {
    if env::var_os(DIR).is_some() { "wss" } else { "ws" }
}

/// Where the relay behind `port` is to be reached.
pub(super) fn port_before(port: u16) -> u16 {
    let Some(dir) = env::var_os(DIR).map(PathBuf::from) else { return port };
    let certificate = fs::read(dir.join("certificate")).unwrap().into();
    let key = PrivateKeyDer::try_from(fs::read(dir.join("key")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let front = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, config) = (stream.unwrap(), Arc::clone(&config));
            let Ok(behind) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else { return };
            for stream in [&stream, &behind] {
                stream.set_nonblocking(true).unwrap();
                stream.set_nodelay(true).unwrap();
            }
            thread::spawn(move || pump(TlsStream::server(stream, &config).unwrap(), behind));
        }
    });
    front
}

/// Copies in both directions until one ends.
fn pump(mut front: TlsStream<TcpStream>, mut behind: TcpStream) {
    let (mut inwards, mut outwards) = (Vec::new(), Vec::new());
    loop {
        let is_whole = [
            copy(&mut front, &mut behind, &mut inwards),
            copy(&mut behind, &mut front, &mut outwards),
        ];
        if is_whole.contains(&None) || front.flush_pending().is_err() {
            break;
        }
        if is_whole.contains(&Some(false)) {
            continue;
        }
        let interest = |reads: bool, writes: bool| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, reads);
            flags.set(PollFlags::OUT, writes);
            flags
        };
        let of_front =
            interest(inwards.len() < HELD_BYTES_MAX, !outwards.is_empty() || front.wants_write());
        let of_behind = interest(outwards.len() < HELD_BYTES_MAX, !inwards.is_empty());
        let mut fds = [
            PollFd::from_borrowed_fd(front.io().as_fd(), of_front),
            PollFd::from_borrowed_fd(behind.as_fd(), of_behind),
        ];
        poll(&mut fds, None).unwrap();
    }
    let _ = front.end_writing();
}

/// Copies once. `None`: there is no more. Whether nothing is left to do for now.
fn copy(from: &mut impl Read, to: &mut impl Write, held: &mut Vec<u8>) -> Option<bool> {
    let is_blocked = |error: &io::Error| error.kind() == io::ErrorKind::WouldBlock;
    let mut is_idle = true;
    if held.len() < HELD_BYTES_MAX {
        let mut buffer = [0; 10_000];
        match from.read(&mut buffer) {
            Ok(0) => return None,
            Ok(length) => held.extend_from_slice(&buffer[..length]),
            Err(error) if is_blocked(&error) => {}
            Err(_) => return None,
        }
    }
    if !held.is_empty() {
        match to.write(held) {
            Ok(length) => {
                held.drain(..length);
                is_idle = false;
            }
            Err(error) if is_blocked(&error) => {}
            Err(_) => return None,
        }
    }
    Some(is_idle)
}

#[test]
fn g7_legs_are_the_same_over_tls_that_the_systems_roots_vouch_for() {
    if env::var_os(DIR).is_some() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, "an authority of the owner's");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, &authority).unwrap();
    fs::write(dir.path().join("certificate"), certificate.der()).unwrap();
    fs::write(dir.path().join("key"), key.serialize_der()).unwrap();
    let roots = dir.path().join("roots.pem");
    let base64 = data_encoding::BASE64.encode(authority.der());
    let lines: Vec<_> = base64.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    let pem = lines.join("\n");
    let pem = format!("-----BEGIN CERTIFICATE-----\n{pem}\n-----END CERTIFICATE-----\n");
    fs::write(&roots, pem).unwrap();
    let output = Command::new(env::current_exe().unwrap())
        .args(["event_loop::tests::legs::", "--nocapture"])
        .env(DIR, dir.path())
        .env("SSL_CERT_FILE", roots)
        .env_remove("SSL_CERT_DIR")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");
    assert!(!said.contains("running 0 tests"), "{said}");
}
