//! What is said to codex: each function makes one line.
//!
//! Owns the encoding; refuses to know when something is said. Persistent grants have no words here: the daemon's policy is
//! the one place where more than one call is allowed.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::agent::json::line;

/// Asks before every command and every change of a file, and takes the answers from us.
pub(super) const POLICY: &str = "untrusted";
pub(super) const REVIEWER: &str = "user";
/// A conversation is opened in the sandbox that holds most; for any other, codex would write into the owner's
/// configuration that the directory is trusted.
pub(super) const SANDBOX: &str = "read-only";
/// Its turns have none. What was allowed has to run as the owner's own commands do, and once: codex would try it in the
/// sandbox first, and go on outside only if it fails there soon enough for codex to see why.
const TURN_SANDBOX: &str = "dangerFullAccess";

/// A request of ours.
#[derive(Serialize)]
struct Request<P> {
    id: u64,
    method: &'static str,
    params: P,
}

pub(super) fn initialize(id: u64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        client_info: ClientInfo,
        capabilities: Capabilities,
    }
    #[derive(Serialize)]
    struct ClientInfo {
        name: &'static str,
        title: &'static str,
        version: &'static str,
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Capabilities {
        experimental_api: bool,
    }
    let version = env!("CARGO_PKG_VERSION");
    // Without the experimental part there is no way to end a command.
    let params = Params {
        client_info: ClientInfo { name: "clawd", title: "clawd", version },
        capabilities: Capabilities { experimental_api: true },
    };
    line(&Request { id, method: "initialize", params })
}

pub(super) fn initialized() -> Vec<u8> {
    #[derive(Serialize)]
    struct Notification {
        method: &'static str,
    }
    line(&Notification { method: "initialized" })
}

pub(super) fn read_account(id: u64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        refresh_token: bool,
    }
    line(&Request { id, method: "account/read", params: Params { refresh_token: false } })
}

pub(super) fn read_config(id: u64) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params {
        include_layers: bool,
    }
    line(&Request { id, method: "config/read", params: Params { include_layers: false } })
}

pub(super) fn read_directory(id: u64, path: &str) -> Vec<u8> {
    line(&Request { id, method: "fs/readDirectory", params: Path { path } })
}

pub(super) fn read_file(id: u64, path: &str) -> Vec<u8> {
    line(&Request { id, method: "fs/readFile", params: Path { path } })
}

#[derive(Serialize)]
struct Path<'a> {
    path: &'a str,
}

/// What a conversation is to be like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    /// The one to be continued.
    pub(super) thread: Option<&'a str>,
    pub(super) cwd: &'a str,
    pub(super) model: Option<&'a str>,
    /// Directories that the owner trusts when working with codex alone.
    pub(super) projects: &'a [alloc::string::String],
    /// The servers of tools that the owner has set up.
    pub(super) servers: &'a [alloc::string::String],
}

/// Begins or continues a conversation. No directory is trusted in it, so that nothing a repository brings along allows or
/// starts anything (security H7); and no server of tools is started, since codex would believe it which ones are harmless.
pub(super) fn open_thread(id: u64, terms: &Terms<'_>) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        thread_id: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        exclude_turns: Option<bool>,
        cwd: &'a str,
        #[serde(skip_serializing_if = "Option::is_none")]
        model: Option<&'a str>,
        approval_policy: &'static str,
        approvals_reviewer: &'static str,
        sandbox: &'static str,
        config: Config<'a>,
    }
    #[derive(Serialize)]
    struct Config<'a> {
        projects: BTreeMap<&'a str, Trust>,
        mcp_servers: BTreeMap<&'a str, Server>,
    }
    #[derive(Serialize)]
    struct Trust {
        trust_level: &'static str,
    }
    #[derive(Serialize)]
    struct Server {
        enabled: bool,
    }
    let distrust = |path| (path, Trust { trust_level: "untrusted" });
    let off = |name| (name, Server { enabled: false });
    let paths = terms.projects.iter().map(|path| path.as_str()).chain([terms.cwd]);
    let config = Config {
        projects: paths.map(distrust).collect(),
        mcp_servers: terms.servers.iter().map(|name| off(name.as_str())).collect(),
    };
    let params = Params {
        thread_id: terms.thread,
        exclude_turns: terms.thread.map(|_| true),
        cwd: terms.cwd,
        model: terms.model,
        approval_policy: POLICY,
        approvals_reviewer: REVIEWER,
        sandbox: SANDBOX,
        config,
    };
    let method = if terms.thread.is_some() { "thread/resume" } else { "thread/start" };
    line(&Request { id, method, params })
}

/// A person's message. `message` names it in codex's own history.
pub(super) fn start_turn(id: u64, thread: &str, text: &str, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        thread_id: &'a str,
        client_user_message_id: &'a str,
        input: [Text<'a>; 1],
        approval_policy: &'static str,
        approvals_reviewer: &'static str,
        sandbox_policy: Sandbox,
    }
    #[derive(Serialize)]
    struct Sandbox {
        r#type: &'static str,
    }
    #[derive(Serialize)]
    struct Text<'a> {
        r#type: &'static str,
        text: &'a str,
    }
    let params = Params {
        thread_id: thread,
        client_user_message_id: message,
        input: [Text { r#type: "text", text }],
        approval_policy: POLICY,
        approvals_reviewer: REVIEWER,
        sandbox_policy: Sandbox { r#type: TURN_SANDBOX },
    };
    line(&Request { id, method: "turn/start", params })
}

/// Stops a turn, but none of the commands that run in it.
pub(super) fn interrupt_turn(id: u64, thread: &str, turn: &str) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        thread_id: &'a str,
        turn_id: &'a str,
    }
    let params = Params { thread_id: thread, turn_id: turn };
    line(&Request { id, method: "turn/interrupt", params })
}

/// Ends the commands that run in a conversation.
pub(super) fn end_commands(id: u64, thread: &str) -> Vec<u8> {
    about_thread(id, "thread/backgroundTerminals/clean", thread)
}

/// The conversation may be unloaded.
pub(super) fn leave_thread(id: u64, thread: &str) -> Vec<u8> {
    about_thread(id, "thread/unsubscribe", thread)
}

fn about_thread(id: u64, method: &'static str, thread: &str) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Params<'a> {
        thread_id: &'a str,
    }
    line(&Request { id, method, params: Params { thread_id: thread } })
}

/// Lets go on what it asked for, this once, or does not. `request` is the id of the request, as JSON.
pub(super) fn decide(request: &str, is_allowed: bool) -> Vec<u8> {
    #[derive(Serialize)]
    struct Answer<'a> {
        id: &'a RawValue,
        result: Decision,
    }
    #[derive(Serialize)]
    struct Decision {
        decision: &'static str,
    }
    let decision = if is_allowed { "accept" } else { "decline" };
    // What is no JSON cannot be the id of a request.
    let Ok(id) = serde_json::from_str(request) else { return Vec::new() };
    line(&Answer { id, result: Decision { decision } })
}

/// Refuses a request. Codex takes that for a no, and goes on.
pub(super) fn refuse(request: &RawValue, message: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Answer<'a> {
        id: &'a RawValue,
        error: Error<'a>,
    }
    #[derive(Serialize)]
    struct Error<'a> {
        code: i32,
        message: &'a str,
    }
    line(&Answer { id: request, error: Error { code: -32601, message } })
}
