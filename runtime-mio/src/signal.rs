//! Signals as bytes in a socket that the loop polls.
//!
//! Owns the handlers; refuses to know what a signal leads to. SIGPIPE needs none: Rust ignores it, and a write to a
//! dead peer is an error like any other.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as Pair;

use mio::net::UnixStream;
use mio::{Interest, Registry, Token};
use signal_hook::SigId;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::{pipe, unregister};

/// One group of signals that mean the same to us. Handlers end with the value.
#[derive(Debug)]
pub(crate) struct Signal {
    receiver: UnixStream,
    handlers: Vec<SigId>,
}

impl Signal {
    /// Somebody wants the daemon to end. A terminal that goes away counts: there is no reload to tell it from.
    pub(crate) fn shutdown(registry: &Registry, token: Token) -> io::Result<Self> {
        Self::new(&[SIGTERM, SIGINT, SIGHUP], registry, token)
    }

    /// A child has ended.
    pub(crate) fn child(registry: &Registry, token: Token) -> io::Result<Self> {
        Self::new(&[SIGCHLD], registry, token)
    }

    fn new(signals: &[i32], registry: &Registry, token: Token) -> io::Result<Self> {
        let (receiver, sender) = Pair::pair()?;
        receiver.set_nonblocking(true)?;
        let mut receiver = UnixStream::from_std(receiver);
        registry.register(&mut receiver, token, Interest::READABLE)?;
        let mut signal = Self { receiver, handlers: Vec::new() };
        for number in signals {
            signal.handlers.push(pipe::register(*number, sender.try_clone()?)?);
        }
        Ok(signal)
    }

    /// Whether the signal came since the last question.
    pub(crate) fn has_come(&mut self) -> bool {
        let mut came = false;
        let mut buffer = [0; 64];
        // Many signals may be waiting; together they are one.
        while let Ok(1..) = self.receiver.read(&mut buffer) {
            came = true;
        }
        came
    }
}

impl Drop for Signal {
    fn drop(&mut self) {
        for handler in self.handlers.drain(..) {
            unregister(handler);
        }
    }
}
