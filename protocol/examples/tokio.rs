//! A runtime on tokio: one task owns the daemon; each connection has one that reads and writes.
//!
//! Nothing is kept and no agent starts; all else is the real thing. Prints its address and a fresh local token, and
//! serves until it is told to shut down.

use std::io;
use std::net::Ipv4Addr;
use std::sync::Arc;

use clawd_protocol::ConnId;
use support::{LINGER, News, Order, Owner, Wire};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::sleep;

mod support;

/// The owner's end of a connection. The queue needs no bound of its own: the daemon counts what is not flushed.
struct Task {
    orders: UnboundedSender<Order>,
    go: UnboundedSender<()>,
    end: Arc<Notify>,
}

impl Wire for Task {
    fn order(&self, order: Order) {
        // A task that is gone has said so.
        let _ = self.orders.send(order);
    }

    fn go(&self) {
        let _ = self.go.send(());
    }

    fn cut_later(&self) {
        self.end.notify_one();
    }
}

type Tell = UnboundedSender<(ConnId, News<Task>)>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let mut owner = Owner::new(listener.local_addr()?.port(), &mut io::stdout())?;
    let (tell, mut news) = unbounded_channel();
    let mut ids = (0..).map(ConnId);
    while !owner.is_stopped {
        tokio::select! {
            Some((conn, news)) = news.recv() => owner.hear(conn, news),
            accepted = listener.accept() => {
                // A peer that is gone already is nobody's business.
                if let (Some(conn), Ok((stream, peer))) = (ids.next(), accepted) {
                    owner.hear(conn, News::Opened(open(conn, stream, &tell), peer.ip()));
                }
            }
            () = sleep(owner.patience()) => owner.tick(),
        }
    }
    sleep(LINGER).await;
    Ok(())
}

fn open(conn: ConnId, stream: TcpStream, tell: &Tell) -> Task {
    let ((orders, ordered), (go, gone)) = (unbounded_channel(), unbounded_channel());
    let end = Arc::new(Notify::new());
    let (tell, ended) = (tell.clone(), Arc::clone(&end));
    tokio::spawn(async move {
        let _ = stream.set_nodelay(true);
        let (reading, writing) = stream.into_split();
        let cut = async {
            ended.notified().await;
            sleep(LINGER).await;
        };
        tokio::select! {
            () = read(conn, reading, gone, &tell) => {}
            () = write(conn, writing, ordered, &tell) => {}
            () = cut => {}
        }
        let _ = tell.send((conn, News::Closed));
    });
    Task { orders, go, end }
}

async fn read(conn: ConnId, mut half: OwnedReadHalf, mut gone: UnboundedReceiver<()>, tell: &Tell) {
    let mut piece = vec![0; 16 * 1024];
    while let Ok(len @ 1..) = half.read(&mut piece).await {
        let bytes = piece.get(..len).unwrap_or_default().to_vec();
        if tell.send((conn, News::Read(bytes))).is_err() || gone.recv().await.is_none() {
            break;
        }
    }
}

/// Returns when writing has failed; after an orderly end the reader is the one that returns.
async fn write(
    conn: ConnId,
    mut half: OwnedWriteHalf,
    mut orders: UnboundedReceiver<Order>,
    tell: &Tell,
) {
    while let Some(Some((bytes, text))) = orders.recv().await {
        if half.write_all(&bytes).await.is_err() {
            return;
        }
        if text > 0 {
            let _ = tell.send((conn, News::Flushed(text)));
        }
    }
    let _ = half.shutdown().await;
    std::future::pending().await
}
