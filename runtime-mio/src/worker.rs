//! Questions that block.

use std::sync::Arc;

use clawd_protocol::{Answer, AskId, Question};
use mio::Waker;

/// The worker pool.
#[derive(Debug)]
pub struct Workers;

impl Workers {
    /// No thread runs before the first question. `waker` is woken for every answer.
    #[must_use]
    pub fn new(waker: Arc<Waker>) -> Self {
        let _ = waker;
        unimplemented!()
    }

    /// Queues a `Directory` or `Probe` question; any other, and one too many, is answered at once with `Failed`.
    pub fn ask(&mut self, ask: AskId, question: Question) -> Result<(), Answer> {
        let _ = (ask, question);
        unimplemented!()
    }

    /// Takes the answers that have come.
    pub fn drain(&mut self) -> Vec<(AskId, Answer)> {
        unimplemented!()
    }
}
