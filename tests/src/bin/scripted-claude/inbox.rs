//! What comes in while a turn goes on: lines of the host, and the end of a tool.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;

/// Something that came.
#[derive(Debug)]
pub(crate) enum News {
    /// A person's message, and the id it was given.
    User { text: String, uuid: Option<String> },
    /// A request of the host's.
    Request { id: String, request: Value },
    /// The host's answer to a request: the reply, or the error.
    Answer { id: String, reply: Result<Value, String> },
    /// A tool's shell has exited; whether well.
    ToolEnded { is_ok: bool },
    /// A line that is no JSON.
    Bad(String),
    /// Standard input has ended.
    Eof,
    /// Nothing came in the time given.
    Silence,
}

/// Where news waits. Messages that come in the middle of a turn wait for its end.
#[derive(Debug)]
pub(crate) struct Inbox {
    news: Receiver<News>,
    /// For threads that have news of their own.
    pub(crate) sender: Sender<News>,
    queued: VecDeque<News>,
    /// Standard input has ended.
    pub(crate) is_over: bool,
}

impl Inbox {
    /// Begins to read standard input.
    pub(crate) fn open() -> Self {
        let (sender, news) = channel();
        let reader = sender.clone();
        thread::spawn(move || {
            for line in io::stdin().lock().lines() {
                let Ok(line) = line else { break };
                if let Some(news) = read(&line)
                    && reader.send(news).is_err()
                {
                    return;
                }
            }
            let _ = reader.send(News::Eof);
        });
        Self { news, sender, queued: VecDeque::new(), is_over: false }
    }

    /// The next news between turns; messages that waited come first. [`News::Eof`] only when nothing is left.
    pub(crate) fn next(&mut self) -> News {
        match self.queued.pop_front() {
            Some(news) => news,
            None if self.is_over => News::Eof,
            None => self.receive(None),
        }
    }

    /// The next news in the middle of a turn; messages are put aside.
    pub(crate) fn next_in_turn(&mut self, within: Option<Duration>) -> News {
        loop {
            let news = self.receive(within);
            if !matches!(news, News::User { .. }) {
                return news;
            }
            self.queued.push_back(news);
        }
    }

    fn receive(&mut self, within: Option<Duration>) -> News {
        let news = match within {
            Some(time) => self.news.recv_timeout(time),
            None => self.news.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match news {
            Ok(News::Eof) | Err(RecvTimeoutError::Disconnected) => {
                self.is_over = true;
                News::Eof
            }
            Ok(news) => news,
            Err(RecvTimeoutError::Timeout) => News::Silence,
        }
    }
}

/// What a line of the host means; `None` for those that claude ignores.
fn read(line: &str) -> Option<News> {
    if line.trim().is_empty() {
        return None;
    }
    let Ok(value) = line.parse::<Value>() else { return Some(News::Bad(line.to_owned())) };
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match value["type"].as_str()? {
        "user" => {
            let content = &value["message"]["content"];
            let text_of = text(content).or_else(|| text(&content[0]["text"]))?;
            Some(News::User { text: text_of, uuid: text(&value["uuid"]) })
        }
        "control_request" => Some(News::Request {
            id: text(&value["request_id"])?,
            request: value["request"].clone(),
        }),
        "control_response" => {
            let response = &value["response"];
            let reply = match response["subtype"].as_str() {
                Some("success") => Ok(response["response"].clone()),
                _ => Err(text(&response["error"]).unwrap_or_default()),
            };
            Some(News::Answer { id: text(&response["request_id"])?, reply })
        }
        _ => None,
    }
}
