//! Records to rows and back.
//!
//! Owns every SQL statement that writes or reads a record; refuses to know transactions. A row that does not read back
//! as a record is an error, never a guess.

use std::fmt;
use std::str::FromStr;

use clawd_protocol::record::{
    AskKind, Author, Decision, DecisionKind, DeviceRecord, MessageRecord, Progress, Role,
    SessionRecord, SessionStatus, ToolCallRecord, Usage,
};
use clawd_protocol::{Fingerprint, SessionId, Unix};
use rusqlite::types::Type;
use rusqlite::{Connection, Error, Params, Result, Row, named_params};

pub(super) const DEVICES: &str = "SELECT * FROM device ORDER BY id";
pub(super) const SESSIONS: &str = "SELECT * FROM session ORDER BY created_at, id";
pub(super) const OPEN_MESSAGES: &str =
    "SELECT * FROM message WHERE status NOT IN ('done', 'error') ORDER BY n";
pub(super) const OPEN_TOOL_CALLS: &str =
    "SELECT * FROM tool_call WHERE status NOT IN ('done', 'error') ORDER BY n";

/// All rows of a query as records.
pub(super) fn all<T, P: Params>(
    db: &Connection,
    sql: &str,
    params: P,
    read: fn(&Row<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    db.prepare_cached(sql)?.query_map(params, read)?.collect()
}

/// The first rows of a query, as many as fit into `bytes_max` and at least one. The rest is not read.
pub(super) fn page<T, P: Params>(
    db: &Connection,
    sql: &str,
    params: P,
    read: fn(&Row<'_>) -> Result<T>,
    bytes_max: usize,
    size: fn(&T) -> usize,
) -> Result<Vec<T>> {
    let mut statement = db.prepare_cached(sql)?;
    let mut page = Vec::new();
    let mut room = bytes_max;
    for record in statement.query_map(params, read)? {
        let record = record?;
        match room.checked_sub(size(&record)) {
            Some(left) => room = left,
            None if page.is_empty() => room = 0,
            None => break,
        }
        page.push(record);
    }
    Ok(page)
}

pub(super) fn put_device(db: &Connection, device: &DeviceRecord) -> Result<()> {
    db.prepare_cached(
        "INSERT OR REPLACE INTO device
           (id, name, platform, role, token_sha256, next_token_sha256, rotated_at, created_at,
            last_seen_at, last_via, expires_at, revoked_at, key_sha256)
         VALUES
           (:id, :name, :platform, :role, :token_sha256, :next_token_sha256, :rotated_at,
            :created_at, :last_seen_at, :last_via, :expires_at, :revoked_at, :key_sha256)",
    )?
    .execute(named_params! {
        ":id": device.id.as_str(),
        ":name": device.name,
        ":platform": device.platform,
        ":role": device.role.as_str(),
        ":token_sha256": device.token_sha256,
        ":next_token_sha256": device.next_token_sha256,
        ":rotated_at": device.rotated_at.map(Unix::as_millis),
        ":created_at": device.created_at.as_millis(),
        ":last_seen_at": device.last_seen_at.as_millis(),
        ":last_via": device.last_via,
        ":expires_at": device.expires_at.map(Unix::as_millis),
        ":revoked_at": device.revoked_at.map(Unix::as_millis),
        ":key_sha256": device.key.map(Fingerprint::to_bytes),
    })?;
    Ok(())
}

pub(super) fn device(row: &Row<'_>) -> Result<DeviceRecord> {
    Ok(DeviceRecord {
        id: parsed(row, "id")?,
        name: row.get("name")?,
        platform: row.get("platform")?,
        role: word(row, "role", Role::from_word)?,
        token_sha256: row.get("token_sha256")?,
        next_token_sha256: row.get("next_token_sha256")?,
        rotated_at: maybe_time(row, "rotated_at")?,
        created_at: time(row, "created_at")?,
        last_seen_at: time(row, "last_seen_at")?,
        last_via: row.get("last_via")?,
        expires_at: maybe_time(row, "expires_at")?,
        revoked_at: maybe_time(row, "revoked_at")?,
        key: row.get::<_, Option<[u8; 32]>>("key_sha256")?.map(Fingerprint::from_bytes),
    })
}

// An upsert, here and below: a REPLACE would delete the old row first and all that hangs on it.
pub(super) fn put_session(db: &Connection, session: &SessionRecord) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO session
           (id, repo_path, title, provider, status, created_at, updated_at, message_count, model,
            model_override, agent_session, agent_resumable, input_tokens, output_tokens,
            cost_micro_usd)
         VALUES
           (:id, :repo_path, :title, :provider, :status, :created_at, :updated_at, :message_count,
            :model, :model_override, :agent_session, :agent_resumable, :input_tokens,
            :output_tokens, :cost_micro_usd)
         ON CONFLICT (id) DO UPDATE SET
           repo_path = excluded.repo_path, title = excluded.title, provider = excluded.provider,
           status = excluded.status, created_at = excluded.created_at,
           updated_at = excluded.updated_at, message_count = excluded.message_count,
           model = excluded.model, model_override = excluded.model_override,
           agent_session = excluded.agent_session, agent_resumable = excluded.agent_resumable,
           input_tokens = excluded.input_tokens, output_tokens = excluded.output_tokens,
           cost_micro_usd = excluded.cost_micro_usd",
    )?
    .execute(named_params! {
        ":id": session.id.to_string(),
        ":repo_path": session.repo_path,
        ":title": session.title,
        ":provider": session.provider,
        ":status": session.status.as_str(),
        ":created_at": session.created_at.as_millis(),
        ":updated_at": session.updated_at.as_millis(),
        ":message_count": session.message_count,
        ":model": session.model,
        ":model_override": session.model_override,
        ":agent_session": session.agent_session,
        ":agent_resumable": session.agent_resumable,
        ":input_tokens": session.usage.input_tokens,
        ":output_tokens": session.usage.output_tokens,
        ":cost_micro_usd": session.usage.cost_micro_usd,
    })?;
    Ok(())
}

pub(super) fn session(row: &Row<'_>) -> Result<SessionRecord> {
    Ok(SessionRecord {
        id: parsed(row, "id")?,
        repo_path: row.get("repo_path")?,
        title: row.get("title")?,
        provider: row.get("provider")?,
        status: word(row, "status", SessionStatus::from_word)?,
        created_at: time(row, "created_at")?,
        updated_at: time(row, "updated_at")?,
        message_count: row.get("message_count")?,
        model: row.get("model")?,
        model_override: row.get("model_override")?,
        agent_session: row.get("agent_session")?,
        agent_resumable: row.get("agent_resumable")?,
        usage: Usage {
            input_tokens: row.get("input_tokens")?,
            output_tokens: row.get("output_tokens")?,
            cost_micro_usd: row.get("cost_micro_usd")?,
        },
    })
}

pub(super) fn delete_session(db: &Connection, id: SessionId) -> Result<()> {
    db.prepare_cached("DELETE FROM session WHERE id = ?1")?.execute((id.to_string(),))?;
    Ok(())
}

pub(super) fn put_message(db: &Connection, message: &MessageRecord) -> Result<()> {
    db.prepare_cached(
        "INSERT INTO message
           (id, session, ordinal, author, content, status, created_at, metadata, client_id)
         VALUES
           (:id, :session, :ordinal, :author, :content, :status, :created_at, :metadata,
            :client_id)
         ON CONFLICT (id) DO UPDATE SET
           session = excluded.session, ordinal = excluded.ordinal, author = excluded.author,
           content = excluded.content, status = excluded.status,
           created_at = excluded.created_at, metadata = excluded.metadata,
           client_id = excluded.client_id",
    )?
    .execute(named_params! {
        ":id": message.id.to_string(),
        ":session": message.session.to_string(),
        ":ordinal": message.ordinal,
        ":author": message.author.as_str(),
        ":content": message.content,
        ":status": message.status.as_str(),
        ":created_at": message.created_at.as_millis(),
        ":metadata": message.metadata,
        ":client_id": message.client_id,
    })?;
    Ok(())
}

pub(super) fn message(row: &Row<'_>) -> Result<MessageRecord> {
    Ok(MessageRecord {
        id: parsed(row, "id")?,
        session: parsed(row, "session")?,
        ordinal: row.get("ordinal")?,
        author: word(row, "author", Author::from_word)?,
        content: row.get("content")?,
        status: word(row, "status", Progress::from_word)?,
        created_at: time(row, "created_at")?,
        metadata: row.get("metadata")?,
        client_id: row.get("client_id")?,
    })
}

pub(super) fn put_tool_call(db: &Connection, call: &ToolCallRecord) -> Result<()> {
    let decision = call.decision.as_ref();
    db.prepare_cached(
        "INSERT INTO tool_call
           (id, session, message, provider_id, name, input, status, risk, created_at,
            completed_at, requires_approval, expires_at, decided_by, decided_at, decision, output,
            kind, approval, rule, reason, answers, is_carried, is_announced)
         VALUES
           (:id, :session, :message, :provider_id, :name, :input, :status, :risk, :created_at,
            :completed_at, :requires_approval, :expires_at, :decided_by, :decided_at, :decision,
            :output, :kind, :approval, :rule, :reason, :answers, :is_carried,
            :is_announced)
         ON CONFLICT (id) DO UPDATE SET
           session = excluded.session, message = excluded.message,
           provider_id = excluded.provider_id, name = excluded.name, input = excluded.input,
           status = excluded.status, risk = excluded.risk, created_at = excluded.created_at,
           completed_at = excluded.completed_at, requires_approval = excluded.requires_approval,
           expires_at = excluded.expires_at, decided_by = excluded.decided_by,
           decided_at = excluded.decided_at, decision = excluded.decision,
           output = excluded.output, kind = excluded.kind, approval = excluded.approval,
           rule = excluded.rule, reason = excluded.reason, answers = excluded.answers,
           is_carried = excluded.is_carried, is_announced = excluded.is_announced",
    )?
    .execute(named_params! {
        ":id": call.id.to_string(),
        ":session": call.session.to_string(),
        ":message": call.message.to_string(),
        ":provider_id": call.provider_id,
        ":name": call.name,
        ":input": call.input,
        ":status": call.status.as_str(),
        ":risk": call.risk,
        ":created_at": call.created_at.as_millis(),
        ":completed_at": call.completed_at.map(Unix::as_millis),
        ":requires_approval": call.requires_approval,
        ":expires_at": call.expires_at.map(Unix::as_millis),
        ":decided_by": decision.map(|decision| &decision.by),
        ":decided_at": decision.map(|decision| decision.at.as_millis()),
        ":decision": decision.map(|decision| decision.kind.as_str()),
        ":output": call.output,
        ":kind": call.kind.as_str(),
        ":approval": call.approval.map(|id| id.to_string()),
        ":rule": call.rule,
        ":reason": call.reason,
        ":answers": call.answers,
        ":is_carried": call.is_carried,
        ":is_announced": call.is_announced,
    })?;
    Ok(())
}

pub(super) fn tool_call(row: &Row<'_>) -> Result<ToolCallRecord> {
    let decision = match row.get::<_, Option<String>>("decided_by")? {
        None => None,
        Some(by) => Some(Decision {
            by,
            at: time(row, "decided_at")?,
            kind: word(row, "decision", DecisionKind::from_word)?,
        }),
    };
    Ok(ToolCallRecord {
        id: parsed(row, "id")?,
        session: parsed(row, "session")?,
        message: parsed(row, "message")?,
        provider_id: row.get("provider_id")?,
        name: row.get("name")?,
        input: row.get("input")?,
        status: word(row, "status", Progress::from_word)?,
        risk: row.get("risk")?,
        created_at: time(row, "created_at")?,
        completed_at: maybe_time(row, "completed_at")?,
        requires_approval: row.get("requires_approval")?,
        expires_at: maybe_time(row, "expires_at")?,
        decision,
        output: row.get("output")?,
        kind: word(row, "kind", AskKind::from_word)?,
        approval: match row.get::<_, Option<String>>("approval")? {
            None => None,
            Some(_) => Some(parsed(row, "approval")?),
        },
        rule: row.get("rule")?,
        reason: row.get("reason")?,
        answers: row.get("answers")?,
        is_carried: row.get("is_carried")?,
        is_announced: row.get("is_announced")?,
    })
}

pub(super) fn time(row: &Row<'_>, column: &str) -> Result<Unix> {
    row.get(column).map(Unix::from_millis)
}

fn maybe_time(row: &Row<'_>, column: &str) -> Result<Option<Unix>> {
    Ok(row.get::<_, Option<u64>>(column)?.map(Unix::from_millis))
}

pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(row: &Row<'_>, column: &str) -> Result<T> {
    let text: String = row.get(column)?;
    text.parse().map_err(|error| unreadable(row, column, format!("{error}: {text:?}")))
}

pub(super) fn word<T>(row: &Row<'_>, column: &str, read: fn(&str) -> Option<T>) -> Result<T> {
    let text: String = row.get(column)?;
    read(&text).ok_or_else(|| unreadable(row, column, format!("unknown word {text:?}")))
}

fn unreadable(row: &Row<'_>, column: &str, reason: String) -> Error {
    let index = row.as_ref().column_index(column).unwrap_or_default();
    Error::FromSqlConversionFailure(index, Type::Text, format!("{column}: {reason}").into())
}
