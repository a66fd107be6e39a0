//! Several ways at once, each with a head start over the next.
//!
//! Owns who starts when; refuses to know what a way is. An address that says nothing costs a quarter of a second then, not its
//! whole deadline, and the first ways still win where they work (RFC 8305, section 5, does the same with the addresses of a name).

use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;
use std::vec;

/// What each way is ahead of the next (RFC 8305, section 8).
pub(super) const HEAD_START: Duration = Duration::from_millis(250);

/// What came of each way, as it comes: an iterator. Whoever stops asking leaves the rest to end by themselves.
pub(super) struct Race<W, T> {
    waiting: vec::IntoIter<W>,
    under_way: usize,
    go: Arc<dyn Fn(&W) -> T + Send + Sync>,
    is_lost: fn(&T) -> bool,
    head_start: Duration,
    finish: Sender<(W, T)>,
    finished: Receiver<(W, T)>,
}

impl<W: Clone + Send + 'static, T: Send + 'static> Race<W, T> {
    /// Nobody goes yet. `is_lost` says that a way led nowhere, so that the next need not wait.
    pub(super) fn new(
        ways: Vec<W>,
        head_start: Duration,
        is_lost: fn(&T) -> bool,
        go: impl Fn(&W) -> T + Send + Sync + 'static,
    ) -> Self {
        let (waiting, go) = (ways.into_iter(), Arc::new(go));
        let (finish, finished) = mpsc::channel();
        Self { waiting, under_way: 0, go, is_lost, head_start, finish, finished }
    }

    fn start_next(&mut self) {
        let Some(way) = self.waiting.next() else { return };
        let (go, finish) = (Arc::clone(&self.go), self.finish.clone());
        let run = move |way: W| {
            let came = go(&way);
            // Nobody may be left to hear it.
            let _ = finish.send((way, came));
        };
        let (here, there) = (run.clone(), way.clone());
        self.under_way += 1;
        // Where no thread can be had, one way after the other it is.
        if thread::Builder::new().spawn(move || run(there)).is_err() {
            here(way);
        }
    }
}

impl<W: Clone + Send + 'static, T: Send + 'static> Iterator for Race<W, T> {
    type Item = (W, T);

    fn next(&mut self) -> Option<Self::Item> {
        if self.under_way == 0 {
            self.start_next();
        }
        while self.under_way > 0 {
            let patience = if self.waiting.len() > 0 { self.head_start } else { Duration::MAX };
            match self.finished.recv_timeout(patience) {
                Ok(finished) => {
                    self.under_way -= 1;
                    if (self.is_lost)(&finished.1) {
                        self.start_next();
                    }
                    return Some(finished);
                }
                Err(RecvTimeoutError::Timeout) => self.start_next(),
                // It cannot be: one sender is our own.
                Err(RecvTimeoutError::Disconnected) => return None,
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Ways that end when they are told to, with what they are told.
    struct Course {
        started: Arc<Mutex<Vec<usize>>>,
        ends: Vec<Sender<bool>>,
        race: Race<usize, bool>,
    }

    fn course(ways: usize, head_start: Duration) -> Course {
        let started: Arc<Mutex<Vec<usize>>> = Arc::default();
        let (ends, told): (Vec<_>, Vec<_>) = (0..ways).map(|_| mpsc::channel::<bool>()).unzip();
        let told: Vec<Mutex<Receiver<bool>>> = told.into_iter().map(Mutex::new).collect();
        let noted = Arc::clone(&started);
        let go = move |way: &usize| {
            noted.lock().unwrap().push(*way);
            told[*way].lock().unwrap().recv().unwrap_or(false)
        };
        let race = Race::new((0..ways).collect(), head_start, |won| !won, go);
        Course { started, ends, race }
    }

    #[test]
    fn who_says_nothing_holds_up_nobody() {
        let mut course = course(3, Duration::from_millis(1));
        course.ends[2].send(true).unwrap();
        assert_eq!(course.race.next(), Some((2, true)));
        course.ends[0].send(true).unwrap();
        assert_eq!(course.race.next(), Some((0, true)));
    }

    #[test]
    fn who_is_ahead_and_answers_keeps_the_others_at_home() {
        let mut course = course(2, LONG);
        course.ends[0].send(true).unwrap();
        assert_eq!(course.race.next(), Some((0, true)));
        assert_eq!(*course.started.lock().unwrap(), [0]);
    }

    #[test]
    fn a_way_that_leads_nowhere_starts_the_next_at_once() {
        let mut course = course(3, LONG);
        course.ends[0].send(false).unwrap();
        course.ends[1].send(false).unwrap();
        assert_eq!(course.race.next(), Some((0, false)));
        assert_eq!(course.race.next(), Some((1, false)));
        course.ends[2].send(true).unwrap();
        assert_eq!(course.race.next(), Some((2, true)));
        assert_eq!(course.race.next(), None, "each way is gone once");
        assert_eq!(*course.started.lock().unwrap(), [0, 1, 2]);
    }

    #[test]
    fn a_winner_who_disappoints_is_followed_by_the_rest() {
        let mut course = course(2, LONG);
        course.ends[0].send(true).unwrap();
        course.ends[1].send(true).unwrap();
        assert_eq!(course.race.next(), Some((0, true)));
        assert_eq!(course.race.next(), Some((1, true)));
        assert_eq!(course.race.next(), None);
    }
}
