//! Pages of history, read when asked for.
//!
//! Owns the reading statements behind a [`Question`]; refuses to know who may ask.

use clawd_protocol::record::{MessageRecord, ToolCallRecord};
use clawd_protocol::{Answer, MessageId, Question, SessionId, StoreFault, ToolCallId};
use rusqlite::{Connection, Result};

use super::{fault, journal, rows};

pub(super) fn answer(db: &Connection, question: &Question) -> Answer {
    let answer = match question {
        Question::Messages { session, before, after, limit, bytes_max } => {
            messages(db, *session, *before, *after, (*limit, *bytes_max))
        }
        Question::MessageByClientId { session, client_id } => rows::all(
            db,
            "SELECT * FROM message WHERE session = ?1 AND client_id = ?2",
            (session.to_string(), client_id),
            rows::message,
        )
        .map(|mut found| Answer::Message(found.pop())),
        Question::ToolCalls { session, before, limit, bytes_max } => {
            tool_calls(db, *session, *before, (*limit, *bytes_max))
        }
        Question::ToolCall { session, id } => rows::all(
            db,
            "SELECT * FROM tool_call WHERE session = ?1 AND id = ?2",
            (session.to_string(), id.to_string()),
            rows::tool_call,
        )
        .map(|mut found| Answer::ToolCall(found.pop().map(Box::new))),
        Question::Events { after, through, limit, bytes_max } => {
            journal::page(db, (*after, *through), (*limit, *bytes_max)).map(Answer::Events)
        }
        Question::Approval { id } => rows::all(
            db,
            "SELECT * FROM tool_call WHERE approval = ?1 ORDER BY n DESC LIMIT 1",
            (id.to_string(),),
            rows::tool_call,
        )
        .map(|mut found| Answer::ToolCall(found.pop().map(Box::new))),
        Question::Audit { .. }
        | Question::Directory { .. }
        | Question::Sign { .. }
        | Question::Addresses
        | Question::Probe { .. } => {
            let reason = "the store was asked what is not its to know".to_owned();
            return Answer::Failed(StoreFault::Failed(reason));
        }
    };
    answer.unwrap_or_else(|error| Answer::Failed(fault(&error)))
}

/// The last `limit` before `before`, or the first after `after`, or the last; oldest first. A message that is not there
/// has nothing before or after it.
fn messages(
    db: &Connection,
    session: SessionId,
    before: Option<MessageId>,
    after: Option<MessageId>,
    (limit, bytes_max): (usize, usize),
) -> Result<Answer> {
    let session = session.to_string();
    let before = before.map(|id| id.to_string());
    let after = after.map(|id| id.to_string());
    let forwards = before.is_none() && after.is_some();
    let sql = if forwards {
        "SELECT * FROM message WHERE session = ?1 AND ?2 IS NULL AND
           ordinal > (SELECT ordinal FROM message WHERE id = ?3 AND session = ?1)
         ORDER BY ordinal LIMIT ?4"
    } else {
        "SELECT * FROM message WHERE session = ?1 AND
           (?2 IS NULL OR ordinal < (SELECT ordinal FROM message WHERE id = ?2 AND session = ?1)) AND
           (?3 IS NULL OR ordinal > (SELECT ordinal FROM message WHERE id = ?3 AND session = ?1))
         ORDER BY ordinal DESC LIMIT ?4"
    };
    let params = (session, before, after, limit);
    let size = |it: &MessageRecord| it.content.len() + it.metadata.len();
    let mut page = rows::page(db, sql, params, rows::message, bytes_max, size)?;
    if !forwards {
        page.reverse();
    }
    Ok(Answer::Messages(page))
}

fn tool_calls(
    db: &Connection,
    session: SessionId,
    before: Option<ToolCallId>,
    (limit, bytes_max): (usize, usize),
) -> Result<Answer> {
    let sql = "SELECT * FROM tool_call WHERE session = ?1 AND
           (?2 IS NULL OR n < (SELECT n FROM tool_call WHERE id = ?2 AND session = ?1))
         ORDER BY n DESC LIMIT ?3";
    let params = (session.to_string(), before.map(|id| id.to_string()), limit);
    let size =
        |it: &ToolCallRecord| it.input.len() + it.output.as_ref().map_or(0, |output| output.len());
    let mut page = rows::page(db, sql, params, rows::tool_call, bytes_max, size)?;
    page.reverse();
    Ok(Answer::ToolCalls(page))
}
