//! What is being written, to those who watch: whole texts, or what is new of them.
//!
//! Owns what was streamed last and who has exactly that; refuses to know when it is time. Each form is serialised once,
//! however many get it. Who has not got the text before this one, or wants whole texts, is sent all of it.
//!
//! | a listener wants | and has the text before | is sent |
//! |---|---|---|
//! | whole texts | – | `messageUpdated` |
//! | deltas | no | `messageDelta` at 0, the whole text |
//! | deltas | yes | `messageDelta` where the two begin to differ |

use alloc::string::String;
use alloc::vec::Vec;

use super::Work;
use crate::access::ctx::Ctx;
use crate::contract::id::{ConnId, MessageId, SessionId};
use crate::contract::record::Progress;
use crate::wire::event::Event;

/// What was streamed last of a message.
#[derive(Debug, Default)]
pub(super) struct Streamed {
    message: Option<MessageId>,
    text: String,
    /// Who wants deltas, and has it.
    heard: Vec<ConnId>,
}

impl Streamed {
    pub(super) const fn new() -> Self {
        Self { message: None, text: String::new(), heard: Vec::new() }
    }

    /// Something of this message was sent: its beginning was told.
    pub(super) fn is_about(&self, message: MessageId) -> bool {
        self.message == Some(message)
    }

    /// Sends a text to all who keep up.
    pub(super) fn tell(
        &mut self,
        cx: &mut Ctx<'_>,
        session_id: SessionId,
        message_id: MessageId,
        text: String,
    ) {
        if self.message.replace(message_id) != Some(message_id) {
            *self = Self { message: self.message, ..Self::new() };
        }
        let listeners = cx.listeners();
        if !listeners.whole.is_empty() {
            let event = whole(session_id, message_id, &text);
            cx.send_in_passing(&event, listeners.whole);
        }
        let (old, mut new): (Vec<_>, Vec<_>) =
            listeners.deltas.into_iter().partition(|conn| self.heard.binary_search(conn).is_ok());
        let offset = common_len(&self.text, &text);
        let (old, is_news) = match text.split_at_checked(offset) {
            Some((_, "")) if offset == self.text.len() => (old, None),
            Some((_, rest)) if offset > 0 => (old, Some(rest)),
            Some(_) | None => {
                new.extend(old);
                (Vec::new(), None)
            }
        };
        self.heard = match is_news {
            Some(text) if !old.is_empty() => cx.send_in_passing(
                &Event::MessageDelta { session_id, message_id, offset, text },
                old,
            ),
            Some(_) | None => old,
        };
        if !new.is_empty() {
            let text = &text;
            let event = Event::MessageDelta { session_id, message_id, offset: 0, text };
            self.heard.extend(cx.send_in_passing(&event, new));
        }
        self.heard.sort_unstable();
        self.text = text;
    }

    /// Shows the text to one who has just begun to watch.
    fn show(&mut self, cx: &mut Ctx<'_>, session_id: SessionId, conn: ConnId) {
        let Some(message_id) = self.message else { return };
        let wants_deltas = cx.peers.peer(conn).is_some_and(|peer| peer.wants_deltas);
        let text = &self.text;
        let event = if wants_deltas {
            Event::MessageDelta { session_id, message_id, offset: 0, text }
        } else {
            whole(session_id, message_id, text)
        };
        let got = cx.send_in_passing(&event, alloc::vec![conn]);
        if let Err(at) = self.heard.binary_search(&conn)
            && wants_deltas
            && !got.is_empty()
        {
            self.heard.insert(at, conn);
        }
    }
}

impl Work {
    /// Somebody hears things as they happen from now on.
    pub(crate) fn on_caught_up(&mut self, cx: &mut Ctx<'_>, conn: ConnId) {
        for (id, session) in &mut self.sessions {
            session.streamed.show(cx, *id, conn);
        }
    }
}

const fn whole(session_id: SessionId, message_id: MessageId, content: &str) -> Event<'_> {
    Event::MessageUpdated { session_id, message_id, content, status: Progress::Streaming }
}

/// How far two texts are the same: a place between characters of both.
fn common_len(a: &str, b: &str) -> usize {
    let bytes = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    b.floor_char_boundary(bytes)
}

#[cfg(test)]
mod tests {
    use super::common_len;

    #[test]
    fn texts_part_between_characters() {
        assert_eq!(common_len("", "abc"), 0);
        assert_eq!(common_len("abc", "abcd"), 3);
        assert_eq!(common_len("abcd", "abc"), 3);
        // Both begin with the same byte: the character as a whole differs.
        assert_eq!(common_len("aé", "aè"), 1);
        assert_eq!(common_len("a😀b", "a😀c"), 5);
    }
}
