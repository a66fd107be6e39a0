//! What the demo answers to what.
//!
//! Owns its words; refuses to know how they are said.

use std::time::{Duration, Instant};

use super::inbox::News;
use super::tool::{FILE, Outcome};
use super::voice::End;
use super::{Demo, Stop};

/// Between two words: to be seen, and not to be waited for.
const WORD_EVERY: Duration = Duration::from_millis(30);
const SLOW_EVERY: Duration = Duration::from_secs(1);
/// Words that `stream` says if not told how many, and at most.
const WORDS: usize = 100;
const WORDS_MAX: usize = 5000;

const WELCOME: &str = "This is clawd's demo. No model answers here: these words come from a script inside clawd, and \
    nothing has left your machine. First I look around, which needs no approval.";
const HELP: &str = "This is clawd's demo, which is no model. It knows these words:\n\n\
    - `help`: this list\n\
    - `ask`: ask to write a file; allow it or deny it\n\
    - `stream 500`: say 500 words, quickly\n\
    - `slow`: say one word each second, until you interrupt it\n\
    - `fail`: end as a turn does whose provider fails\n\n\
    With a real agent in place of the demo, all the rest is the same.";

impl Demo {
    /// One turn.
    pub(super) fn play(&mut self, text: &str) -> Result<(), Stop> {
        let mut words = text.split_whitespace();
        let command = words.next().unwrap_or_default().to_lowercase();
        let number = words.next().and_then(|word| word.parse().ok());
        match command.as_str() {
            "help" => self.say(HELP, WORD_EVERY),
            "ask" => self.write(),
            "stream" => {
                let count = number.unwrap_or(WORDS).min(WORDS_MAX);
                let words: Vec<String> = (1..=count).map(|n| format!("demo-{n}")).collect();
                self.say(&words.join(" "), Duration::from_millis(1))
            }
            "slow" => self.say(&["demo"; 60].join(" … "), SLOW_EVERY),
            "fail" => {
                self.say("This demo fails now, as you asked.", WORD_EVERY)?;
                Err(Stop::Refused)
            }
            _ if self.is_new => self.tour(),
            _ => {
                let count = text.split_whitespace().count();
                let answer = format!(
                    "You wrote {count} words, and this is only the demo: no model has read them. Say `help` to see \
                     what it can do."
                );
                self.say(&answer, WORD_EVERY)
            }
        }
    }

    fn tour(&mut self) -> Result<(), Stop> {
        self.say(WELCOME, WORD_EVERY)?;
        let count = self.look_around()?;
        self.say(
            &format!(
                "There are {count} entries here. Now I ask to write {FILE}; nothing is written \
                 unless you allow it."
            ),
            WORD_EVERY,
        )?;
        self.write()?;
        self.say("That was a whole turn of the demo. Say `help` for more.", WORD_EVERY)
    }

    fn write(&mut self) -> Result<(), Stop> {
        let text = match self.write_file()? {
            Outcome::Done => {
                format!("You allowed it, so the demo wrote {FILE}. You can delete it.")
            }
            Outcome::Denied => format!("It was not allowed, so the demo did not write {FILE}."),
            Outcome::Failed => format!("You allowed it, but the demo could not write {FILE}."),
        };
        self.say(&text, WORD_EVERY)
    }

    /// Says a text word by word; an interrupt ends it at once.
    fn say(&mut self, text: &str, every: Duration) -> Result<(), Stop> {
        self.voice.begin_text()?;
        for word in text.split_inclusive(' ') {
            self.voice.delta(word)?;
            self.pause(Instant::now() + every)?;
        }
        Ok(self.voice.text(text)?)
    }

    fn pause(&mut self, until: Instant) -> Result<(), Stop> {
        loop {
            match self.inbox.next_in_turn(Some(until)) {
                News::Nothing => return Ok(()),
                News::Request { id, request } => {
                    self.answer(&id, &request)?;
                    if request["subtype"] == "interrupt" {
                        return Err(Stop::Interrupted(End::InSpeech));
                    }
                }
                News::Over => return Err(Stop::Over),
                News::Message(_) | News::Answer { .. } => {}
            }
        }
    }
}
