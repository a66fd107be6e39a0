//! The daemon's answers, as far as people are shown them. `--json` prints the answers themselves.
//!
//! Unknown keys are ignored and missing ones are empty, so that daemons of other versions can be talked to.

use serde::Deserialize;
use serde_json::Value;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Status {
    pub(crate) version: String,
    pub(crate) uptime_secs: u64,
    pub(crate) active_sessions: u64,
    pub(crate) port: u16,
    pub(crate) pid: u32,
    pub(crate) pending_approvals: u64,
    pub(crate) providers: Vec<Provider>,
    pub(crate) relay: Option<Relay>,
    pub(crate) daemon_id: String,
}

/// What the daemon says about its relay.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Relay {
    pub(crate) enabled: bool,
    pub(crate) url: String,
    pub(crate) pin: Option<String>,
    /// `off`, `connecting`, `registered` or `waiting`.
    pub(crate) state: String,
    /// Why the last attempt came to nothing.
    pub(crate) error: Option<Trouble>,
    pub(crate) retry_in_secs: Option<u64>,
    pub(crate) rtt_ms: Option<u64>,
    pub(crate) tunnels: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Trouble {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Provider {
    pub(crate) name: String,
    /// `false` if the rest is not known.
    pub(crate) checked: Option<bool>,
    pub(crate) available: bool,
    pub(crate) installed: bool,
    pub(crate) authenticated: Option<bool>,
    pub(crate) version: Option<String>,
    pub(crate) path: Option<String>,
    /// Why it cannot be used.
    pub(crate) error: Option<String>,
    /// It is no model.
    pub(crate) demo: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Session {
    pub(crate) id: String,
    pub(crate) repo_path: String,
    pub(crate) title: String,
    pub(crate) provider: String,
    pub(crate) status: String,
    pub(crate) created_at: String,
    pub(crate) updated_at: String,
    pub(crate) message_count: u64,
    pub(crate) model: Option<String>,
    pub(crate) model_override: Option<String>,
    pub(crate) waiting_for: Option<String>,
    pub(crate) agent_session: Option<String>,
    pub(crate) usage: Usage,
}

impl Session {
    /// Enough of its id to type.
    pub(crate) fn short_id(&self) -> String {
        self.id.chars().take(8).collect()
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Usage {
    pub(crate) input_tokens: u64,
    pub(crate) output_tokens: u64,
    pub(crate) cost_micro_usd: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) role: String,
    pub(crate) content: String,
    pub(crate) status: String,
    pub(crate) created_at: String,
    pub(crate) client_message_id: Option<String>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct ToolCall {
    pub(crate) id: String,
    pub(crate) message_id: String,
    pub(crate) name: String,
    pub(crate) input: Value,
    pub(crate) status: String,
    pub(crate) risk_level: String,
    /// `tool`, `question` or `plan`.
    pub(crate) kind: String,
    pub(crate) decision: Option<Decided>,
    /// Once it was asked for.
    pub(crate) approval_id: Option<String>,
}

impl ToolCall {
    /// What it is called where it waits or waited for a decision.
    pub(crate) fn asked_as(&self) -> &str {
        self.approval_id.as_deref().unwrap_or(&self.id)
    }
}

/// Who decided on a tool call, when and how.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Decided {
    pub(crate) by: String,
    pub(crate) at: String,
    pub(crate) kind: String,
}

/// Something that waits for a decision.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub(crate) struct Approval {
    #[serde(rename = "approval_id")]
    pub(crate) id: String,
    #[serde(rename = "sessionId")]
    pub(crate) session: String,
    #[serde(rename = "sessionTitle")]
    pub(crate) title: String,
    #[serde(rename = "toolCallId")]
    pub(crate) tool_call: String,
    /// `tool`, `question` or `plan`.
    pub(crate) kind: String,
    pub(crate) tool: String,
    pub(crate) input: Value,
    pub(crate) risk: String,
    /// Why somebody is asked.
    pub(crate) reason: Option<String>,
    pub(crate) requested_at: String,
    pub(crate) expires_at: Option<String>,
}

/// What the policy says to a call.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Judgement {
    pub(crate) decision: String,
    pub(crate) rule: Option<String>,
    pub(crate) why: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) platform: String,
    pub(crate) role: String,
    pub(crate) last_seen_at: u64,
    pub(crate) expires_at: Option<u64>,
    pub(crate) revoked: bool,
    pub(crate) connected: bool,
    pub(crate) via: Option<String>,
}

/// A pairing window, as `daemon.pairPin` opens one.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Pairing {
    pub(crate) pin: String,
    pub(crate) expires_in_seconds: u64,
    /// Its name; no secret.
    #[serde(rename = "pairingId")]
    pub(crate) id: String,
    /// The one key that may answer.
    #[serde(rename = "daemonId")]
    pub(crate) daemon_id: String,
    /// Where devices on the network find the daemon.
    pub(crate) urls: Vec<String>,
    /// Where devices elsewhere find it.
    #[serde(rename = "relayUrl")]
    pub(crate) relay: Option<String>,
    /// Whether another machine can find it at all.
    pub(crate) reachable: bool,
    #[serde(rename = "qrPayload")]
    pub(crate) qr_payload: Value,
}

impl Pairing {
    /// What the QR code holds.
    pub(crate) fn payload(&self) -> String {
        self.qr_payload.as_str().map_or_else(|| self.qr_payload.to_string(), str::to_owned)
    }

    /// `482 913`.
    pub(crate) fn grouped_pin(&self) -> String {
        match self.pin.split_at_checked(3) {
            Some((first, rest)) if !rest.is_empty() => format!("{first} {rest}"),
            Some(_) | None => self.pin.clone(),
        }
    }
}
