//! What the demo is told.
//!
//! Owns standard input and the messages that wait for their turn; refuses to know what they mean. Whoever waits, for an
//! answer or only for a moment to pass, waits here, so that an interrupt or the end is never late.

use std::collections::VecDeque;
use std::io::{self, BufRead as _};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Messages that wait for their turn; one more is as good as the end.
const WAITING_MAX: usize = 64;

#[derive(Debug)]
pub(super) enum News {
    /// A person's message.
    Message(String),
    /// The host wants something.
    Request { id: String, request: Value },
    /// The host's answer; nothing if it could give none.
    Answer { id: String, response: Option<Value> },
    /// The time is over, and nothing came.
    Nothing,
    /// Nothing more will come.
    Over,
}

#[derive(Debug)]
pub(super) struct Inbox {
    news: Receiver<News>,
    waiting: VecDeque<String>,
}

impl Inbox {
    /// Begins to listen.
    pub(super) fn open() -> Self {
        let (sender, news) = channel();
        thread::spawn(move || listen(&sender));
        Self { news, waiting: VecDeque::new() }
    }

    /// The next news between turns.
    pub(super) fn next(&mut self) -> News {
        match self.waiting.pop_front() {
            Some(text) => News::Message(text),
            None => self.news.recv().unwrap_or(News::Over),
        }
    }

    /// The next news in a turn, until a moment or for as long as it takes. Messages are put aside.
    pub(super) fn next_in_turn(&mut self, until: Option<Instant>) -> News {
        loop {
            let news = match until {
                None => self.news.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(until) => self.news.recv_timeout(left(until)),
            };
            match news {
                Ok(News::Message(_)) if self.waiting.len() >= WAITING_MAX => return News::Over,
                Ok(News::Message(text)) => self.waiting.push_back(text),
                Ok(news) => return news,
                Err(RecvTimeoutError::Timeout) => return News::Nothing,
                Err(RecvTimeoutError::Disconnected) => return News::Over,
            }
        }
    }
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

/// Reads until the end or a line that is no JSON, which is the end too.
fn listen(sender: &Sender<News>) {
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let Ok(line) = serde_json::from_str::<Value>(&line) else { return };
        if let Some(news) = read(line)
            && sender.send(news).is_err()
        {
            return;
        }
    }
}

fn read(mut line: Value) -> Option<News> {
    let id = |value: &Value| Some(value.as_str()?.to_owned());
    match line["type"].as_str()? {
        "user" => {
            let content = &line["message"]["content"];
            let blocks = content.as_array().into_iter().flatten();
            let texts: Vec<&str> = blocks.filter_map(|block| block["text"].as_str()).collect();
            Some(News::Message(content.as_str().map_or_else(|| texts.join("\n"), str::to_owned)))
        }
        "control_request" => {
            Some(News::Request { id: id(&line["request_id"])?, request: line["request"].take() })
        }
        "control_response" => {
            let response = &mut line["response"];
            let is_good = response["subtype"] == "success";
            let id = id(&response["request_id"])?;
            Some(News::Answer { id, response: is_good.then(|| response["response"].take()) })
        }
        _ => None,
    }
}
