//! Somebody in the middle who sees TLS records, and may do as he likes with one of them.
//!
//! Owns one relayed connection and what was seen of it; refuses to know what is inside of a record.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};

/// What is done with a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trick {
    /// One bit in its middle is changed.
    Flip,
    /// It never arrives.
    Drop,
    /// It arrives twice.
    Replay,
    /// It arrives after the one behind it.
    Swap,
    /// Half of it arrives, and then the end.
    Truncate,
    /// This arrives in its place.
    Splice(Vec<u8>),
}

/// Whose record it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// The one that connects.
    Client,
    /// The one that accepts.
    Daemon,
}

/// One trick: with the record of this number, counted from each side for itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Whose.
    pub from: From,
    /// Which. Records that only say "change cipher spec" do not count: they carry nothing.
    pub index: usize,
    /// What.
    pub trick: Trick,
}

/// The records that each side has sent, as they were sent.
#[derive(Debug, Default)]
pub struct Seen {
    /// By the one that connected.
    pub client: Vec<Vec<u8>>,
    /// By the one that accepted.
    pub daemon: Vec<Vec<u8>>,
}

/// Relays one connection.
#[derive(Debug)]
pub struct Middle {
    /// Where to connect to.
    pub port: u16,
    thread: JoinHandle<io::Result<Seen>>,
}

impl Middle {
    /// Waits for a connection and takes it to the port `to`.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start(to: u16, plan: Option<Plan>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("a bound listener").port();
        let thread = thread::spawn(move || relay(&listener, to, plan));
        Self { port, thread }
    }

    /// Waits for the end of the connection on both sides.
    ///
    /// # Panics
    /// If nobody connected.
    #[must_use]
    pub fn end(self) -> Seen {
        self.thread.join().expect("no panic").expect("a relayed connection")
    }
}

fn relay(listener: &TcpListener, to: u16, plan: Option<Plan>) -> io::Result<Seen> {
    let (client, _) = listener.accept()?;
    let daemon = TcpStream::connect((Ipv4Addr::LOCALHOST, to))?;
    for socket in [&client, &daemon] {
        socket.set_nodelay(true)?;
    }
    let of = |from| plan.clone().filter(|plan| plan.from == from);
    let (there, back) = (of(From::Client), of(From::Daemon));
    let (client_too, daemon_too) = (client.try_clone()?, daemon.try_clone()?);
    let there = thread::spawn(move || pump(client_too, daemon_too, there));
    let back = pump(daemon, client, back);
    Ok(Seen { client: there.join().expect("no panic"), daemon: back })
}

/// Carries records from one to the other until one of them ends.
fn pump(mut from: TcpStream, mut to: TcpStream, plan: Option<Plan>) -> Vec<Vec<u8>> {
    let mut seen = Vec::new();
    let mut held = None;
    while let Ok(record) = read_record(&mut from) {
        let is_counted = record[0] != CHANGE_CIPHER_SPEC;
        let trick = plan.as_ref().filter(|plan| is_counted && plan.index == seen.len());
        let sent = match trick.map(|plan| &plan.trick) {
            None => to.write_all(&record),
            Some(Trick::Flip) => {
                let mut record = record.clone();
                let middle = HEAD + (record.len() - HEAD) / 2;
                record[middle] ^= 1;
                to.write_all(&record)
            }
            Some(Trick::Drop) => Ok(()),
            Some(Trick::Replay) => to.write_all(&[&record[..], &record].concat()),
            Some(Trick::Swap) => {
                held = Some(record.clone());
                Ok(())
            }
            Some(Trick::Truncate) => {
                let _ = to.write_all(&record[..record.len() / 2]);
                Err(io::ErrorKind::ConnectionAborted.into())
            }
            Some(Trick::Splice(other)) => to.write_all(other),
        };
        let sent = match held.take_if(|held| *held != record) {
            Some(held) => sent.and_then(|()| to.write_all(&held)),
            None => sent,
        };
        if is_counted {
            seen.push(record);
        }
        if sent.is_err() {
            let _ = from.shutdown(Shutdown::Both);
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
    seen
}

/// The type, a version and the length (RFC 8446, 5.1).
const HEAD: usize = 5;
const CHANGE_CIPHER_SPEC: u8 = 20;

fn read_record(from: &mut TcpStream) -> io::Result<Vec<u8>> {
    let mut record = vec![0; HEAD];
    from.read_exact(&mut record)?;
    let length = usize::from(u16::from_be_bytes([record[3], record[4]]));
    record.resize(HEAD + length, 0);
    from.read_exact(&mut record[HEAD..])?;
    Ok(record)
}
