//! How codex is started.
//!
//! Owns its arguments and the names of its environment; refuses to know conversations: one process carries many, and what
//! differs between them is said to it, so that nothing of a person's text is ever an argument (security I1).

use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// The program's name in `PATH`.
pub const NAME: &str = "codex";

/// Npm installs a script under that name. It starts the program itself, and with older versions of node stays beside it for
/// nothing but its memory. The program's package is a sibling, or, where npm installed for everybody, inside.
pub const BEHIND: &[&str] = behind();

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
const fn behind() -> &'static [&'static str] {
    &[
        "../../codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex",
        "../node_modules/@openai/codex-linux-x64/vendor/x86_64-unknown-linux-musl/bin/codex",
    ]
}

#[cfg(all(target_os = "linux", target_arch = "aarch64"))]
const fn behind() -> &'static [&'static str] {
    &[
        "../../codex-linux-arm64/vendor/aarch64-unknown-linux-musl/bin/codex",
        "../node_modules/@openai/codex-linux-arm64/vendor/aarch64-unknown-linux-musl/bin/codex",
    ]
}

#[cfg(all(target_os = "macos", target_arch = "x86_64"))]
const fn behind() -> &'static [&'static str] {
    &[
        "../../codex-darwin-x64/vendor/x86_64-apple-darwin/bin/codex",
        "../node_modules/@openai/codex-darwin-x64/vendor/x86_64-apple-darwin/bin/codex",
    ]
}

#[cfg(all(target_os = "macos", target_arch = "aarch64"))]
const fn behind() -> &'static [&'static str] {
    &[
        "../../codex-darwin-arm64/vendor/aarch64-apple-darwin/bin/codex",
        "../node_modules/@openai/codex-darwin-arm64/vendor/aarch64-apple-darwin/bin/codex",
    ]
}

#[cfg(not(all(
    any(target_os = "linux", target_os = "macos"),
    any(target_arch = "x86_64", target_arch = "aarch64")
)))]
const fn behind() -> &'static [&'static str] {
    &[]
}

/// Variables that codex gets from the daemon's environment, where set; it gets no others but those the owner named
/// (security I3).
pub const INHERIT: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "PATH",
    "TMPDIR",
    "TERM",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    // Where the owner's own files are, if not in the usual places.
    "CODEX_HOME",
    "XDG_CONFIG_HOME",
    "XDG_CACHE_HOME",
    "XDG_DATA_HOME",
    "XDG_STATE_HOME",
    "XDG_RUNTIME_DIR",
];

/// Variables that codex always gets: what it writes to standard error is shown to people when it dies.
pub const SET: &[(&str, &str)] = &[("NO_COLOR", "1")];

/// What could act without asking is off, and what could wait for ever (security H1). Approvals themselves are agreed on
/// when a conversation is opened.
const ARGS: &[&str] = &[
    "app-server",
    // Without it, codex tries for ever to reach a model that is not there.
    "--disable",
    "unbounded_connection_retries",
    // A hook may answer an ask in our place.
    "--disable",
    "hooks",
    // Both bring tools along that a server of theirs may call harmless.
    "--disable",
    "apps",
    "--disable",
    "plugins",
    "--disable",
    "skill_mcp_dependency_install",
    // A goal begins turns by itself.
    "--disable",
    "goals",
    // Other agents of its own work in conversations of their own, which nobody here watches.
    "-c",
    "agents.enabled=false",
    // It runs at the provider, so nobody would be asked.
    "-c",
    "web_search=\"disabled\"",
    "-c",
    "analytics.enabled=false",
];

/// The arguments: always the same.
#[must_use]
pub fn launch() -> Vec<String> {
    ARGS.iter().map(ToString::to_string).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn h1_nothing_that_acts_unasked_is_on() {
        let args = launch();
        for pair in [
            ["--disable", "hooks"],
            ["--disable", "apps"],
            ["--disable", "plugins"],
            ["--disable", "goals"],
            ["-c", "agents.enabled=false"],
            ["-c", "web_search=\"disabled\""],
        ] {
            assert!(args.windows(2).any(|window| window == pair), "{pair:?}");
        }
        let is_careless = |arg: &String| arg.contains("dangerously") || arg.contains("full-access");
        assert!(!args.iter().any(is_careless));
    }

    #[test]
    fn i3_nothing_that_steers_a_program_is_inherited() {
        let steering =
            ["LD_PRELOAD", "NODE_OPTIONS", "BASH_ENV", "GIT_SSH_COMMAND", "OPENAI_BASE_URL"];
        assert!(INHERIT.iter().all(|name| !steering.contains(name)));
    }
}
