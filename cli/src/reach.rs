//! Whether a place where devices shall find the daemon leads to it.
//!
//! Owns one quick try over the network: TCP, then TLS 1.3 to our own key, and no word after that. Refuses to know what to do
//! about it. It is a try from this machine: a firewall between this and another one is not seen.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use clawd_protocol::Fingerprint;
use clawd_runtime_mio::tls::{Trusted, client_config, server_name};
use rustls::ClientConnection;

/// A machine answers itself at once, or does not.
const TIMEOUT: Duration = Duration::from_secs(1);

/// Tries `wss://ADDRESS:PORT`; why it does not lead to the daemon with this key, if it does not.
pub(crate) fn check(url: &str, key: Fingerprint) -> Result<SocketAddr, String> {
    let at = url.strip_prefix("wss://").map(|rest| rest.trim_end_matches('/'));
    let at: SocketAddr =
        at.and_then(|at| at.parse().ok()).ok_or("not wss:// with an address and a port")?;
    let config = client_config(Trusted::Key(key), None).map_err(|error| error.to_string())?;
    let mut tls =
        ClientConnection::new(config, server_name()).map_err(|error| error.to_string())?;
    let said = |error: io::Error| {
        let is_late = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
        if is_late { "no answer within 1 s".to_owned() } else { error.to_string() }
    };
    let mut stream = TcpStream::connect_timeout(&at, TIMEOUT).map_err(said)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(said)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(said)?;
    while tls.is_handshaking() {
        tls.complete_io(&mut stream).map_err(said)?;
    }
    tls.send_close_notify();
    let _ = tls.complete_io(&mut stream);
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clawd_runtime_mio::tls::{Identity, server_config};
    use rustls::ServerConnection;
    use std::net::TcpListener;
    use std::thread;

    /// Serves one handshake with this identity; without one, hangs up.
    fn serve(identity: Option<&Identity>) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("wss://{}", listener.local_addr().unwrap());
        let config = identity.map(|identity| server_config(identity).unwrap());
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let Some(config) = config else { return };
            let mut tls = ServerConnection::new(config).unwrap();
            while tls.is_handshaking() && tls.complete_io(&mut stream).is_ok() {}
        });
        url
    }

    #[test]
    fn g1_a_place_leads_to_us_only_with_our_own_key() {
        let (ours, others) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let key = ours.fingerprint();
        assert!(check(&serve(Some(&ours)), key).is_ok());
        assert!(check(&serve(Some(&others)), key).is_err());
        assert!(check(&serve(None), key).is_err());
    }

    #[test]
    fn what_is_no_place_is_not_tried() {
        let key = Fingerprint::of(b"");
        for url in ["", "ws://127.0.0.1:1", "wss://localhost:1", "wss://127.0.0.1", "wss://[::1"] {
            assert!(check(url, key).unwrap_err().contains("not wss://"), "{url}");
        }
    }
}
