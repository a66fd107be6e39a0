//! Questions that block: directories on slow disks, programs that take their time, long logs.
//!
//! Owns two threads, started by the first question, and a bounded queue; refuses to know who asked and why. The answers
//! come back through [`mio::Waker`].

mod addresses;
mod probe;

pub use addresses::reachable;

use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use clawd_protocol::{Answer, AskId, PathFault, Question, StoreFault};
use mio::Waker;

use crate::process::{ChildMark, Mark};
use crate::store::AuditReader;
use crate::tls::Identity;

const THREADS: usize = 2;
const QUEUE_MAX: usize = 64;

type Asked = (AskId, Question);
type Answered = (AskId, Answer);

/// What questions are about, where it is not all in the question.
#[derive(Debug, Clone, Default)]
struct Knows {
    audit: Option<AuditReader>,
    identity: Option<Arc<Identity>>,
    bound: Vec<IpAddr>,
}

/// The worker pool.
#[derive(Debug)]
pub struct Workers {
    waker: Arc<Waker>,
    mark: Mark,
    knows: Knows,
    queue: Option<SyncSender<Asked>>,
    answers: (Sender<Answered>, Receiver<Answered>),
}

impl Workers {
    /// No thread runs before the first question. `waker` is woken for every answer; `mark` is for what is run.
    #[must_use]
    pub fn new(waker: Arc<Waker>, mark: Mark) -> Self {
        Self { waker, mark, knows: Knows::default(), queue: None, answers: mpsc::channel() }
    }

    /// From now on they also read this audit log.
    #[must_use]
    pub fn with_audit(mut self, audit: AuditReader) -> Self {
        self.knows.audit = Some(audit);
        self
    }

    /// From now on they also sign, and know which addresses are listened on.
    #[must_use]
    pub fn with_identity(mut self, identity: Arc<Identity>, bound: Vec<IpAddr>) -> Self {
        self.knows.identity = Some(identity);
        self.knows.bound = bound;
        self
    }

    /// Queues a question that is not about stored history.
    ///
    /// # Errors
    /// Any other question, and one too many: answer it with [`Answer::Failed`].
    pub fn ask(&mut self, ask: AskId, question: Question) -> Result<(), StoreFault> {
        let failed = |why: &str| Err(StoreFault::Failed(why.to_owned()));
        match question {
            Question::Directory { .. }
            | Question::Probe { .. }
            | Question::Sign { .. }
            | Question::Addresses
            | Question::Audit { .. } => {}
            Question::Messages { .. }
            | Question::MessageByClientId { .. }
            | Question::ToolCalls { .. }
            | Question::ToolCall { .. }
            | Question::Approval { .. }
            | Question::Events { .. } => return failed("the workers know no history"),
        }
        if self.queue.is_none() {
            match self.start() {
                Ok(queue) => self.queue = Some(queue),
                Err(error) => return failed(&format!("could not start a thread: {error}")),
            }
        }
        let Some(queue) = &self.queue else { return failed("there are no workers") };
        match queue.try_send((ask, question)) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => failed("too many questions are waiting"),
            Err(TrySendError::Disconnected(_)) => failed("the workers have ended"),
        }
    }

    /// Takes the answers that have come.
    pub fn drain(&mut self) -> Vec<(AskId, Answer)> {
        self.answers.1.try_iter().collect()
    }

    fn start(&self) -> io::Result<SyncSender<Asked>> {
        let (queue, asked) = mpsc::sync_channel(QUEUE_MAX);
        let asked = Arc::new(Mutex::new(asked));
        for number in 0..THREADS {
            let (asked, answers) = (Arc::clone(&asked), self.answers.0.clone());
            let (waker, mark) = (Arc::clone(&self.waker), self.mark.clone());
            let knows = self.knows.clone();
            thread::Builder::new()
                .name(format!("worker-{number}"))
                .spawn(move || work(&asked, &answers, &waker, &mark, &knows))?;
        }
        Ok(queue)
    }
}

/// Ends when the pool is dropped: the queue is closed then.
fn work(
    asked: &Mutex<Receiver<Asked>>,
    answers: &Sender<Answered>,
    waker: &Waker,
    mark: &Mark,
    knows: &Knows,
) {
    loop {
        // One waits in the queue, the other for the lock: which is which does not matter.
        let next = asked.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((ask, question)) = next else { return };
        let mark = mark.of(&format!("probe-{ask}"));
        if answers.send((ask, answer(&question, &mark, knows))).is_err() {
            return;
        }
        // Should this fail, the loop is gone or will look when it wakes for something else.
        let _ = waker.wake();
    }
}

fn answer(question: &Question, mark: &ChildMark, knows: &Knows) -> Answer {
    let failed = |why: String| Answer::Failed(StoreFault::Failed(why));
    match question {
        Question::Directory { path } => Answer::Directory(directory(Path::new(path))),
        Question::Probe { program, runs, env, timeout } => {
            Answer::Probe(probe::probe(program, runs, env, mark, *timeout))
        }
        Question::Audit { .. } => match &knows.audit {
            Some(audit) => audit.answer(question),
            None => failed("there is no audit log".to_owned()),
        },
        Question::Sign { message } => match &knows.identity {
            Some(identity) => match identity.sign(message) {
                Ok(signature) => Answer::Signature(signature),
                Err(error) => failed(error.to_string()),
            },
            None => failed("there is no identity".to_owned()),
        },
        Question::Addresses => match addresses::reachable(&knows.bound) {
            Ok(found) => Answer::Addresses(found),
            Err(error) => failed(error.to_string()),
        },
        Question::Messages { .. }
        | Question::MessageByClientId { .. }
        | Question::ToolCalls { .. }
        | Question::ToolCall { .. }
        | Question::Approval { .. }
        | Question::Events { .. } => failed("not queued".to_owned()),
    }
}

fn directory(path: &Path) -> Result<String, PathFault> {
    let fault = |error: &io::Error| {
        if error.kind() == io::ErrorKind::PermissionDenied {
            PathFault::Denied
        } else if error.kind() == io::ErrorKind::NotADirectory {
            PathFault::NotADirectory
        } else {
            PathFault::Missing
        }
    };
    if !path.is_absolute() {
        return Err(PathFault::Missing);
    }
    let real = path.canonicalize().map_err(|error| fault(&error))?;
    if !fs::metadata(&real).map_err(|error| fault(&error))?.is_dir() {
        return Err(PathFault::NotADirectory);
    }
    let access = rustix::fs::Access::READ_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(&real, access).map_err(|_| PathFault::Denied)?;
    // A name that is not UTF-8 cannot be said in JSON, so nobody could ask for it again.
    real.into_os_string().into_string().map_err(|_| PathFault::Denied)
}
