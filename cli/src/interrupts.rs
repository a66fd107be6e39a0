//! Signals as something that can be waited for.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

use crate::exit::Failure;

/// Ctrl-C and its like, as a descriptor.
#[derive(Debug)]
pub(crate) struct Interrupts(UnixStream);

impl Interrupts {
    /// From now on these signals do not end the process.
    pub(crate) fn catch(signals: &[i32]) -> Result<Self, Failure> {
        let io = |error: io::Error| Failure::io("cannot listen for Ctrl-C", &error);
        let (read, write) = UnixStream::pair().map_err(io)?;
        read.set_nonblocking(true).map_err(io)?;
        for signal in signals {
            signal_hook::low_level::pipe::register(*signal, write.try_clone().map_err(io)?)
                .map_err(io)?;
        }
        Ok(Self(read))
    }

    /// How many have come since the last look.
    pub(crate) fn take(&mut self) -> usize {
        let mut bytes = [0; 16];
        self.0.read(&mut bytes).unwrap_or(0)
    }
}

impl AsFd for Interrupts {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
