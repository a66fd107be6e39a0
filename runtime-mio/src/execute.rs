//! One effect, done.
//!
//! Owns the one match over everything that the core may want; refuses to know why it wants it. Effects on connections
//! that are gone, and on those that are ending, are dropped: the core learns of the end by `Closed`.

use std::rc::Rc;

use clawd_protocol::{Answer, AskId, ConnId, Effect, Input, Question, Response, To};

use crate::connection::Phase;
use crate::hands::{Hands, Order};
use crate::head;
use crate::outbox::COPY_BYTES_MAX;
use crate::websocket::{self, Decoder};

impl Hands {
    /// Does one effect.
    pub(crate) fn execute(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to: To::One(conn), text } => self.send_one(conn, text),
            Effect::Send { to: To::Many(conns), text } => self.send_many(&conns, &text),
            Effect::Respond { conn, response } => self.respond(conn, &response),
            Effect::Upgrade { conn, key, message_bytes_max } => {
                self.upgrade(conn, &key, message_bytes_max);
            }
            Effect::Admit { conn, message_bytes_max } => {
                if let Some(connection) = self.connections.get_mut(conn)
                    && let Phase::Open(decoder) = &mut connection.phase
                {
                    decoder.admit(message_bytes_max);
                }
            }
            Effect::Close { conn, code, reason } => self.close(conn, code, reason),
            Effect::Pause { conn } => {
                if let Some(connection) = self.connections.get_mut(conn) {
                    connection.is_paused = true;
                }
            }
            Effect::Resume { conn } => {
                if let Some(connection) = self.connections.get_mut(conn) {
                    connection.is_paused = false;
                    self.mark_unfinished(conn);
                }
            }
            Effect::Store { op, changes, sync } => self.stores.push((op, changes, sync)),
            Effect::Ask { ask, question } => self.ask(ask, question),
            Effect::Spawn { proc, command } => self.orders.push(Order::Spawn(proc, command)),
            Effect::Feed { proc, bytes } => self.orders.push(Order::Feed(proc, bytes)),
            Effect::Finish { proc } => self.orders.push(Order::Finish(proc)),
            Effect::Kill { proc } => self.orders.push(Order::Kill(proc)),
            Effect::Dial { leg, dial } => self.dial(leg, dial),
            Effect::Say { leg, text } => self.say(leg, text),
            Effect::HangUp { leg } => self.hang_up(leg),
            Effect::Log { note } => self.notes.push(note),
            Effect::Stop => self.is_stopped = true,
        }
    }

    fn send_one(&mut self, conn: ConnId, text: String) {
        let Some(connection) = self.sendable(conn) else { return };
        let credit = text.len();
        if credit > COPY_BYTES_MAX {
            websocket::put_text_header(connection.outbox.tail(0), credit);
            connection.outbox.push_own(text.into_bytes(), credit);
        } else {
            let tail = connection.outbox.tail(credit);
            websocket::put_text_header(tail, credit);
            tail.extend_from_slice(text.as_bytes());
        }
        self.mark_dirty(conn);
    }

    fn send_many(&mut self, conns: &[ConnId], text: &str) {
        let credit = text.len();
        let mut frame = std::mem::take(&mut self.scratch);
        frame.clear();
        websocket::put_text_header(&mut frame, credit);
        frame.extend_from_slice(text.as_bytes());
        if credit > COPY_BYTES_MAX {
            let frame: Rc<[u8]> = frame.into();
            for conn in conns {
                if let Some(connection) = self.sendable(*conn) {
                    connection.outbox.push_shared(Rc::clone(&frame), credit);
                    self.mark_dirty(*conn);
                }
            }
        } else {
            for conn in conns {
                if let Some(connection) = self.sendable(*conn) {
                    connection.outbox.tail(credit).extend_from_slice(&frame);
                    self.mark_dirty(*conn);
                }
            }
            self.scratch = frame;
        }
    }

    fn respond(&mut self, conn: ConnId, response: &Response) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.is_ending || matches!(connection.phase, Phase::Open(_)) {
            return;
        }
        head::put_response(connection.outbox.tail(0), response);
        self.end(conn);
    }

    fn upgrade(&mut self, conn: ConnId, key: &str, message_bytes_max: usize) {
        let Some(connection) = self.connections.get_mut(conn) else { return };
        if connection.is_ending || !matches!(connection.phase, Phase::Asked) {
            return;
        }
        connection.phase = Phase::Open(Decoder::new(message_bytes_max));
        head::put_upgrade(connection.outbox.tail(0), key);
        self.mark_dirty(conn);
        self.mark_unfinished(conn);
    }

    fn close(&mut self, conn: ConnId, code: u16, reason: &str) {
        if let Some(connection) = self.sendable(conn) {
            websocket::put_close(connection.outbox.tail(0), Some(code), reason);
        } else if let Some(connection) = self.connections.get_mut(conn)
            && connection.outbox.is_empty()
            && !connection.is_ending
        {
            // There are no last words to wait for.
            return self.drop_connection(conn);
        }
        self.end(conn);
    }

    fn ask(&mut self, ask: AskId, question: Question) {
        match question {
            Question::Directory { .. }
            | Question::Probe { .. }
            | Question::Sign { .. }
            | Question::Addresses => {
                self.ask_workers(ask, question);
            }
            Question::Messages { .. }
            | Question::MessageByClientId { .. }
            | Question::ToolCalls { .. }
            | Question::ToolCall { .. }
            | Question::Approval { .. }
            | Question::Audit { .. }
            | Question::Events { .. } => self.questions.push((ask, question)),
        }
    }

    /// For those who may wait.
    pub(crate) fn ask_workers(&mut self, ask: AskId, question: Question) {
        if let Err(fault) = self.workers.ask(ask, question) {
            self.on_answer(ask, Answer::Failed(fault));
        }
    }

    /// An answer to tell the core.
    pub(crate) fn on_answer(&mut self, ask: AskId, answer: Answer) {
        self.happened.push_back(Input::Answered { ask, answer });
    }
}
