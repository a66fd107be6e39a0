//! The journal: durable events, in the order in which they are told.
//!
//! Owns the statements that append, read and forget events; refuses to know who is told of them. Invariants: numbers
//! rise; what was forgotten is remembered as a number, so that nobody mistakes a hole for silence.

use clawd_protocol::record::{Chapter, EventPage, EventRecord, Role};
use clawd_protocol::{SessionId, Unix};
use rusqlite::{Connection, OptionalExtension, Result, Row, named_params};

use super::rows;

pub(super) fn chapters(db: &Connection) -> Result<Vec<Chapter>> {
    let read = |row: &Row<'_>| Ok(Chapter { id: row.get("id")?, start: row.get("start")? });
    rows::all(db, "SELECT * FROM chapter ORDER BY n", (), read)
}

pub(super) fn begin(db: &Connection, chapter: &Chapter, count_max: usize) -> Result<()> {
    db.execute("INSERT INTO chapter (id, start) VALUES (?1, ?2)", (&chapter.id, chapter.start))?;
    let old = "DELETE FROM chapter WHERE n <= (SELECT max(n) FROM chapter) - ?1";
    db.execute(old, (count_max,))?;
    Ok(())
}

pub(super) fn put(db: &Connection, event: &EventRecord) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO event (seq, at, nth, bytes_end, least_role, session, text)
         SELECT :seq, :at, ifnull(max(nth), 0) + 1, ifnull(max(bytes_end), 0) + :bytes,
                :least_role, :session, :text
         FROM (SELECT nth, bytes_end FROM event ORDER BY seq DESC LIMIT 1)",
    )?
    .execute(named_params! {
        ":seq": event.seq,
        ":at": event.at.as_millis(),
        ":bytes": event.text.len(),
        ":least_role": event.least_role.as_str(),
        ":session": event.session.map(|id| id.to_string()),
        ":text": event.text,
    })?;
    Ok(())
}

/// Forgets the oldest events. The first that is kept is found from the oldest end.
pub(super) fn prune(
    db: &Connection,
    before: Unix,
    count_max: usize,
    bytes_max: usize,
) -> Result<()> {
    let newest = "SELECT seq, nth, bytes_end FROM event ORDER BY seq DESC LIMIT 1";
    let newest = db.prepare_cached(newest)?.query_row((), |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
    });
    let Some((seq, nth, bytes)) = newest.optional()? else { return Ok(()) };
    let over =
        |newest: i64, max: usize| newest.saturating_sub(i64::try_from(max).unwrap_or(i64::MAX));
    let params = (before.as_millis(), over(nth, count_max), over(bytes, bytes_max));
    let first_kept: Option<i64> = db
        .prepare_cached(
            "SELECT seq FROM event
             WHERE at >= ?1 AND nth > ?2 AND bytes_end - octet_length(text) >= ?3
             ORDER BY seq LIMIT 1",
        )?
        .query_row(params, |row| row.get(0))
        .optional()?;
    let forgotten = first_kept.map_or(seq, |seq| seq - 1);
    let gone = db.prepare_cached("DELETE FROM event WHERE seq <= ?1")?.execute((forgotten,))?;
    if gone > 0 {
        db.prepare_cached("UPDATE journal SET forgotten = ?1")?.execute((forgotten,))?;
    }
    Ok(())
}

/// What told of a session goes with it: it is the user's text.
pub(super) fn forget_session(db: &Connection, id: SessionId) -> Result<()> {
    db.prepare_cached("DELETE FROM event WHERE session = ?1")?.execute((id.to_string(),))?;
    Ok(())
}

pub(super) fn page(
    db: &Connection,
    (after, through): (u64, u64),
    (limit, bytes_max): (usize, usize),
) -> Result<EventPage> {
    let forgotten = db.query_row("SELECT forgotten FROM journal", (), |row| row.get(0))?;
    let sql = "SELECT * FROM event WHERE seq > ?1 AND seq <= ?2 ORDER BY seq LIMIT ?3";
    let size = |event: &EventRecord| event.text.len();
    let events = rows::page(db, sql, (after, through, limit), event, bytes_max, size)?;
    Ok(EventPage { forgotten, events })
}

fn event(row: &Row<'_>) -> Result<EventRecord> {
    let session: Option<String> = row.get("session")?;
    Ok(EventRecord {
        seq: row.get("seq")?,
        at: rows::time(row, "at")?,
        least_role: rows::word(row, "least_role", Role::from_word)?,
        session: session.map(|_| rows::parsed(row, "session")).transpose()?,
        text: row.get("text")?,
    })
}
