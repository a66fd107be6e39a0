//! Who holds a port. Nothing secret is said to find out: `GET /health` and no more (security A7).

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use serde::Deserialize;

const TIMEOUT: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: usize = 8 * 1024;

/// Who listens on a port of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listener {
    Nobody,
    Clawd { version: String, uptime_secs: u64 },
    Other,
}

/// Asks the port.
pub(crate) fn listener(address: SocketAddr) -> Listener {
    match TcpStream::connect_timeout(&address, TIMEOUT) {
        Err(_) => Listener::Nobody,
        Ok(stream) => ask(stream, address.port())
            .and_then(|answer| understand(&answer))
            .unwrap_or(Listener::Other),
    }
}

fn ask(mut stream: TcpStream, port: u16) -> Option<Vec<u8>> {
    let deadline = Instant::now() + TIMEOUT;
    stream.set_write_timeout(Some(TIMEOUT)).ok()?;
    let request =
        format!("GET /health HTTP/1.1\r\nHost: localhost:{port}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let mut buffer = [0; 1024];
    while answer.len() < ANSWER_BYTES_MAX {
        let left =
            deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero())?;
        stream.set_read_timeout(Some(left)).ok()?;
        match stream.read(&mut buffer).ok()? {
            0 => return Some(answer),
            length => answer.extend_from_slice(buffer.get(..length)?),
        }
    }
    None
}

fn understand(answer: &[u8]) -> Option<Listener> {
    #[derive(Deserialize)]
    struct Health {
        status: String,
        version: String,
        uptime: u64,
        #[serde(rename = "activeSessions")]
        _active_sessions: u64,
    }
    let (head, body) = std::str::from_utf8(answer).ok()?.split_once("\r\n\r\n")?;
    let health: Health = serde_json::from_str(body).ok()?;
    let is_well = head.starts_with("HTTP/1.1 200 ") && health.status == "ok";
    is_well.then_some(Listener::Clawd { version: health.version, uptime_secs: health.uptime })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};
    use std::thread;

    fn answered_by(answer: &'static str) -> (Listener, String) {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = server.local_addr().unwrap();
        let captured = thread::spawn(move || {
            let (mut stream, _) = server.accept().unwrap();
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).unwrap() > 0 {
                request.extend_from_slice(&byte);
            }
            stream.write_all(answer.as_bytes()).unwrap();
            drop(stream);
            String::from_utf8(request).unwrap()
        });
        (listener(address), captured.join().unwrap())
    }

    #[test]
    fn a_clawd_is_known_by_its_health() {
        let (listener, request) = answered_by(
            "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\
             {\"status\":\"ok\",\"ok\":true,\"version\":\"0.1.0\",\"uptime\":7,\"activeSessions\":0,\"port\":4300}",
        );
        assert_eq!(listener, Listener::Clawd { version: "0.1.0".to_owned(), uptime_secs: 7 });
        assert!(request.starts_with("GET /health HTTP/1.1\r\n"));
    }

    #[test]
    fn another_program_is_not_taken_for_one() {
        for answer in ["", "SSH-2.0-x\r\n", "HTTP/1.1 200 OK\r\n\r\n{}", "HTTP/1.1 404 No\r\n\r\n"]
        {
            assert_eq!(answered_by(answer).0, Listener::Other, "{answer}");
        }
    }
}
