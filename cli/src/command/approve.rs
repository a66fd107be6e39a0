//! `approve` and `deny`: one decision, made here.
//!
//! Owns how an approval is found and what is said when somebody was quicker; refuses to know how it is asked about, which
//! is `question`'s. Invariant: without `--yes` nothing is allowed that was not shown whole (security H4, K2).

use std::os::fd::AsFd as _;
use std::time::Instant;

use clawd_protocol::text::{visible, visible_line};
use serde_json::json;

use super::decision::{self, Decision, News};
use super::question::{Answers, Ask, Offer, Question, Word};
use super::{resolve, summary};
use crate::args::{Approve, Deny};
use crate::connection::{Connection, Woken};
use crate::exit::{Exit, Failure};
use crate::home::Home;
use crate::render::Screen;
use crate::render::style::Mark;
use crate::render::time;
use crate::wire::{Approval, ToolCall};

/// What the agent is told where nobody says why.
const NO_REASON: &str = "denied by the person at the terminal";

/// `approve`.
pub(super) fn approve(home: &Home, screen: &Screen, args: &Approve) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let approval = find(&mut daemon, &args.id)?;
    let word = match said(&approval, args)? {
        Some(word) => word,
        None => ask(&mut daemon, screen, &approval, args.session)?,
    };
    let decision = match &word {
        Word::Once => Decision::Once,
        Word::Session => Decision::Session,
        Word::Answers(answers) => Decision::Answered(answers),
        Word::Deny => Decision::Deny(NO_REASON),
    };
    tell(&mut daemon, screen, &approval, decision)
}

/// What the command line itself says to it, if that is fit to be said.
fn said(approval: &Approval, args: &Approve) -> Result<Option<Word>, Failure> {
    let is_question = approval.kind == "question";
    if args.session && approval.kind != "tool" {
        let why = format!("a {} cannot be allowed for the session", visible_line(&approval.kind));
        return Err(Failure::usage(why).hint("leave `--session` out: each is asked anew"));
    }
    match args.answers.as_slice() {
        [] if is_question && args.yes => {
            Err(Failure::usage("a question needs an answer, not a yes")
                .hint(format!("clawd approve {} --answer TEXT", visible_line(&args.id))))
        }
        [] if args.session && args.yes => Ok(Some(Word::Session)),
        [] => Ok(args.yes.then_some(Word::Once)),
        texts if is_question => answers(&Ask::all(&approval.input), texts).map(Some),
        _ => Err(Failure::usage(format!("{} is no question", visible_line(&approval.tool)))
            .hint("leave `--answer` out")),
    }
}

/// Each question has its answer, in their order.
fn answers(asks: &[Ask], texts: &[String]) -> Result<Word, Failure> {
    if asks.len() != texts.len() {
        let asked: Vec<String> =
            asks.iter().map(|ask| format!("\n    {}", visible_line(&ask.question))).collect();
        let (asks, texts) = (asks.len(), texts.len());
        let why = format!("questions asked: {asks}, answers given: {texts}{}", asked.concat());
        return Err(Failure::usage(why).hint("write `--answer` once for each, in this order"));
    }
    let mut answers = Answers::new();
    for (ask, text) in asks.iter().zip(texts) {
        let answer = ask.answer(text).map_err(Failure::usage)?;
        answers.insert(ask.question.clone(), answer.into());
    }
    Ok(Word::Answers(answers))
}

/// `deny`.
pub(super) fn deny(home: &Home, screen: &Screen, args: &Deny) -> Result<Exit, Failure> {
    let mut daemon = home.connect()?;
    let approval = find(&mut daemon, &args.id)?;
    let reason = args.message.as_deref().unwrap_or(NO_REASON);
    tell(&mut daemon, screen, &approval, Decision::Deny(reason)).map(|_| Exit::Ok)
}

/// The approval whose id begins so; if it is decided already, an error that says how.
fn find(daemon: &mut Connection, prefix: &str) -> Result<Approval, Failure> {
    let (_, approvals) = decision::pending(daemon)?;
    let name = |it: &Approval| format!("{} {}", visible_line(&it.tool), summary(&it.input));
    let names: Vec<(String, String)> =
        approvals.iter().map(|approval| (approval.id.clone(), name(approval))).collect();
    let id = match resolve(prefix, "approval", &names) {
        Err(failure) if failure.kind == "approval_not_found" => {
            return Err(match decision::decided(daemon, prefix, None)? {
                Some(call) if !prefix.is_empty() => already(daemon, &call)?,
                Some(_) | None => failure,
            });
        }
        id => id?,
    };
    approvals.into_iter().find(|approval| approval.id == id).ok_or_else(|| {
        Failure::new(Exit::NotFound, "approval_not_found", format!("there is no approval `{id}`"))
    })
}

/// `a81c… was denied 12s ago by "Ana's phone"`.
fn already(daemon: &mut Connection, call: &ToolCall) -> Result<Failure, Failure> {
    let decision = call.decision.clone().unwrap_or_default();
    let when = time::parse(&decision.at)
        .map_or_else(|| visible_line(&decision.at).into_owned(), |at| time::ago(at, time::now()));
    let short: String = call.asked_as().chars().take(8).collect();
    let (word, who) = (decision::participle(&decision.kind), decision::who(daemon, &decision.by)?);
    Ok(Failure::new(
        Exit::NotFound,
        "already_decided",
        format!("{} was {word} {when} by {who}", visible_line(&short)),
    )
    .detail("by", decision.by)
    .detail("at", decision.at)
    .detail("kind", decision.kind))
}

/// Asks the person at the terminal; what others decide meanwhile goes first.
fn ask(
    daemon: &mut Connection,
    screen: &Screen,
    approval: &Approval,
    for_session: bool,
) -> Result<Word, Failure> {
    let nobody = || {
        let flag = match approval.kind.as_str() {
            "question" => "answer with `--answer TEXT`",
            _ => "add `--yes` if you know what it is",
        };
        Failure::usage("not confirmed, no terminal to ask on")
            .hint(format!("`clawd approvals --json` shows the whole of it; {flag}"))
    };
    if !Screen::can_ask() {
        return Err(nobody());
    }
    let call = ToolCall {
        id: approval.tool_call.clone(),
        name: approval.tool.clone(),
        input: approval.input.clone(),
        risk_level: approval.risk.clone(),
        kind: approval.kind.clone(),
        ..ToolCall::default()
    };
    if let Some(reason) = &approval.reason {
        screen.say(&screen.err.dim(&visible_line(reason)));
    }
    let offer = if for_session { Offer::Session } else { Offer::Any };
    let mut question = Question::put(&call, offer, screen.err).ok_or_else(nobody)?;
    loop {
        match daemon.wait(&[question.as_fd()], None)? {
            Woken::Event(event) => match decision::news(&event) {
                Some(News::Resolved { id, .. }) if id == approval.id => {
                    question.withdraw("this was decided elsewhere");
                    return Err(too_late(daemon, approval)?);
                }
                Some(_) | None => {}
            },
            Woken::Other(_) => {
                if let Some(word) = question.read() {
                    return Ok(word);
                }
            }
            Woken::Answer(_) | Woken::Timeout => {}
        }
    }
}

/// Somebody was quicker: who, and how.
fn too_late(daemon: &mut Connection, approval: &Approval) -> Result<Failure, Failure> {
    match decision::decided(daemon, &approval.id, Some(&approval.session))? {
        Some(call) => already(daemon, &call),
        None => Ok(Failure::new(Exit::NotFound, "already_decided", "this waits no more")),
    }
}

/// Tells the daemon; done once the agent has it.
fn tell(
    daemon: &mut Connection,
    screen: &Screen,
    approval: &Approval,
    decision: Decision<'_>,
) -> Result<Exit, Failure> {
    let began = Instant::now();
    let told = decision::tell(daemon, &approval.id, decision);
    match told {
        Err(failure) if failure.kind == "already_decided" => {
            return Err(too_late(daemon, approval)?);
        }
        told => told?,
    };
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let (word, mark, exit) = match decision {
        Decision::Once | Decision::Answered(_) => ("allow_once", Mark::Ok, Exit::Ok),
        Decision::Session => ("allow_session", Mark::Ok, Exit::Ok),
        Decision::Deny(_) => ("deny", Mark::Fail, Exit::Turn),
    };
    if screen.is_json() {
        screen.json(&json!({
            "approval_id": approval.id, "kind": word, "deliveredMs": took_ms,
        }))?;
        return Ok(exit);
    }
    let word = match decision {
        Decision::Answered(_) => "answered".to_owned(),
        Decision::Once | Decision::Session | Decision::Deny(_) => decision::participle(word),
    };
    let told = match decision {
        Decision::Deny(reason) => format!(", and the agent was told why: {}", visible(reason)),
        Decision::Once | Decision::Session | Decision::Answered(_) => String::new(),
    };
    screen.note(mark, &format!("{word}{told} (delivered in {took_ms} ms)"));
    Ok(exit)
}
