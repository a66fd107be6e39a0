//! A runtime on blocking threads: one owns the daemon; each connection has one that reads and one that writes.
//!
//! Nothing is kept and no agent starts; all else is the real thing. Prints its address and a fresh local token, and
//! serves until it is told to shut down.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{sleep, spawn};

use clawd_protocol::ConnId;
use support::{LINGER, News, Order, Owner, Wire};

mod support;

/// The owner's end of a connection.
struct Threads {
    stream: TcpStream,
    orders: Sender<Order>,
    go: Sender<()>,
}

impl Wire for Threads {
    fn order(&self, order: Order) {
        // A writer that is gone has cut the connection; the reader will say so.
        let _ = self.orders.send(order);
    }

    fn go(&self) {
        let _ = self.go.send(());
    }

    fn cut_later(&self) {
        if let Ok(stream) = self.stream.try_clone() {
            spawn(move || {
                sleep(LINGER);
                stream.shutdown(Shutdown::Both)
            });
        }
    }
}

type Tell = Sender<(ConnId, News<Threads>)>;

fn main() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let mut owner = Owner::new(listener.local_addr()?.port(), &mut io::stdout())?;
    let (tell, news) = channel();
    spawn(move || {
        for (conn, stream) in (0..).map(ConnId).zip(listener.incoming().flatten()) {
            // A peer that is gone already is nobody's business.
            let _ = open(conn, stream, &tell);
        }
    });
    while !owner.is_stopped {
        match news.recv_timeout(owner.patience()) {
            Ok((conn, news)) => owner.hear(conn, news),
            Err(_) => owner.tick(),
        }
    }
    sleep(LINGER);
    Ok(())
}

fn open(conn: ConnId, stream: TcpStream, tell: &Tell) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let peer = stream.peer_addr()?.ip();
    let (reading, writing) = (stream.try_clone()?, stream.try_clone()?);
    let ((orders, ordered), (go, gone)) = (channel(), channel());
    // Told before its threads begin, so that it is the first thing heard of this connection.
    let _ = tell.send((conn, News::Opened(Threads { stream, orders, go }, peer)));
    let (to_reader, to_writer) = (tell.clone(), tell.clone());
    spawn(move || read(conn, reading, &gone, &to_reader));
    spawn(move || write(conn, writing, &ordered, &to_writer));
    Ok(())
}

fn read(conn: ConnId, mut stream: TcpStream, gone: &Receiver<()>, tell: &Tell) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = stream.read(&mut piece) {
        let bytes = piece.get(..len).unwrap_or_default().to_vec();
        if tell.send((conn, News::Read(bytes))).is_err() || gone.recv().is_err() {
            break;
        }
    }
    let _ = tell.send((conn, News::Closed));
}

fn write(conn: ConnId, mut stream: TcpStream, orders: &Receiver<Order>, tell: &Tell) {
    while let Ok(Some((bytes, text))) = orders.recv() {
        if stream.write_all(&bytes).is_err() {
            let _ = stream.shutdown(Shutdown::Both);
            return;
        }
        if text > 0 {
            let _ = tell.send((conn, News::Flushed(text)));
        }
    }
    let _ = stream.shutdown(Shutdown::Write);
}
