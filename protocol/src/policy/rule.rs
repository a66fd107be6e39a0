//! One rule: a verdict on some calls of tools, as its owner wrote it.
//!
//! Owns the grammar; refuses to know where rules stand. A rule that can never match, or allows more than it seems to, is
//! a fault, with the place in it.
//!
//! ```text
//! rule    = tool | tool "(" pattern ")"
//! tool    = a name, exactly | "mcp__" server "__*"
//! pattern = a command, for Bash | a path, for tools with files
//! ```
//!
//! `Read` speaks about every tool that looks into files, `Edit` about every one that changes them. Without a pattern a
//! rule is about every call of the tool; to allow, only about files in the session's directory.
//!
//! | rule | stands for |
//! |---|---|
//! | `Bash(git status)` | exactly this; to ask or deny, also with further words |
//! | `Bash(git log *)`, `Bash(git log:*)` | these words, then any others |
//! | `Edit(src/**)`, `Read(~/.ssh/**)`, `Read(/etc/*)` | files, as [`path`](super::path) says |
//! | `mcp__github__get_issue`, `mcp__github__*` | one tool of a server, all its tools |

use alloc::borrow::{Cow, ToOwned};
use alloc::format;
use alloc::string::{String, ToString};

use super::Verdict;
use super::command::{CommandPattern, Threat};
use super::path::{PathPattern, Place};
use super::shell::Simple;
use super::subject::{Ground, Subject};
use super::tools::{self, Matter, SHELL};

/// Longer rules are not read.
const RULE_BYTES_MAX: usize = 1024;

/// A rule of the owner's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    text: String,
    verdict: Verdict,
    tool: Tool,
    pattern: Pattern,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Tool {
    Named(String),
    /// All of a server, by what their names begin with.
    Server(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    All,
    Command(CommandPattern),
    Path(PathPattern),
}

/// What is wrong with a rule, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// Bytes from the rule's beginning.
    pub at: usize,
    /// Bytes that are wrong, at least one.
    pub len: usize,
    /// As a sentence goes on after the place.
    pub why: Cow<'static, str>,
    /// What was probably meant.
    pub nearest: Option<String>,
}

impl RuleFault {
    fn new(at: usize, part: &str, why: impl Into<Cow<'static, str>>) -> Self {
        Self { at, len: part.len().max(1), why: why.into(), nearest: None }
    }
}

impl Rule {
    /// Reads a rule as its owner wrote it.
    ///
    /// ```
    /// use clawd_protocol::policy::{Rule, Verdict};
    /// assert!(Rule::parse(Verdict::Allow, "Bash(git status)").is_ok());
    /// assert_eq!(Rule::parse(Verdict::Allow, "Bash(sudo ls)").unwrap_err().at, 5);
    /// assert_eq!(Rule::parse(Verdict::Deny, "Bsah(ls)").unwrap_err().nearest.as_deref(), Some("Bash"));
    /// ```
    pub fn parse(verdict: Verdict, text: &str) -> Result<Self, RuleFault> {
        if text.len() > RULE_BYTES_MAX {
            return Err(RuleFault::new(0, text, "the rule is too long"));
        }
        let (name, pattern) = match text.split_once('(') {
            None => (text, None),
            Some((name, rest)) => {
                let Some(pattern) = rest.strip_suffix(')') else {
                    return Err(RuleFault::new(text.len(), "", "a `)` is missing at the end"));
                };
                (name, Some((name.len().saturating_add(1), pattern)))
            }
        };
        let tool = Tool::parse(name)?;
        let pattern = match (pattern, &tool) {
            (None, _) => Pattern::All,
            (Some((at, "*")), _) => {
                let why = format!("write `{name}` alone for every call");
                return Err(RuleFault::new(at, "*", why));
            }
            (Some((at, pattern)), Tool::Server(_)) => {
                return Err(RuleFault::new(at, pattern, "such tools take no pattern"));
            }
            (Some((at, pattern)), Tool::Named(name)) => Pattern::parse(name, at, pattern)?,
        };
        let rule = Self { text: text.to_owned(), verdict, tool, pattern };
        match rule.objection() {
            Some(fault) if verdict == Verdict::Allow => Err(fault),
            Some(_) | None => Ok(rule),
        }
    }

    /// As its owner wrote it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What it says.
    #[must_use]
    pub const fn verdict(&self) -> Verdict {
        self.verdict
    }

    /// Why this must not be allowed by a rule at all.
    fn objection(&self) -> Option<RuleFault> {
        match (&self.pattern, &self.tool) {
            (Pattern::Command(pattern), _) => {
                let (program, why) = pattern.objection()?;
                let at = self.text.find(program).unwrap_or_default();
                Some(RuleFault::new(at, program, format!("`{program}` {why}")))
            }
            (Pattern::All, Tool::Named(name)) if name == SHELL => Some(RuleFault::new(
                0,
                name,
                "this would allow every command; name those that you mean, as in `Bash(git status)`",
            )),
            (_, Tool::Named(name)) if tools::is_question(name) => Some(RuleFault::new(
                0,
                name,
                format!("`{name}` asks you something; no rule can answer it"),
            )),
            (Pattern::All | Pattern::Path(_), Tool::Named(_) | Tool::Server(_)) => None,
        }
    }

    pub(super) fn is_about(&self, called: &str) -> bool {
        match (&self.tool, self.verdict) {
            (Tool::Named(name), Verdict::Allow) => tools::is_meant(name, called),
            (Tool::Named(name), Verdict::Ask | Verdict::Deny) => {
                tools::is_meant(name, called) || name.eq_ignore_ascii_case(called)
            }
            (Tool::Server(prefix), _) => {
                called.strip_prefix(prefix.as_str()).is_some_and(|tool| !tool.is_empty())
            }
        }
    }

    /// It speaks about all calls, whatever their input.
    pub(super) const fn is_about_all(&self) -> bool {
        matches!(self.pattern, Pattern::All)
    }

    /// Whether this allows one command of a line.
    pub(super) fn allows_command(&self, command: &Simple) -> bool {
        match &self.pattern {
            Pattern::Command(pattern) => pattern.allows(command),
            Pattern::All | Pattern::Path(_) => false,
        }
    }

    /// Whether this allows a tool to touch one place.
    pub(super) fn allows_place(&self, place: &Place, ground: Ground<'_>) -> bool {
        place.is_plain()
            && match &self.pattern {
                Pattern::All => place.is_within(ground.cwd),
                Pattern::Path(pattern) => {
                    pattern.matches(place, ground.cwd, ground.home, true) == Some(true)
                }
                Pattern::Command(_) => false,
            }
    }

    /// How surely this rule, which asks or denies, is about a call.
    pub(super) fn threatens(&self, subject: &Subject<'_>, ground: Ground<'_>) -> Threat {
        match (&self.pattern, subject) {
            (Pattern::All, _) => Threat::Hit,
            (Pattern::Command(pattern), Subject::Line { line, commands }) => {
                pattern.threatens(line, commands.as_deref().map_err(|why| *why))
            }
            (Pattern::Path(pattern), Subject::Files(places) | Subject::Search(places)) => {
                let is_search = matches!(subject, Subject::Search(_));
                let threats = places.iter().map(|place| {
                    match pattern.matches(place, ground.cwd, ground.home, false) {
                        Some(true) => Threat::Hit,
                        None => Threat::Doubt("the rule's directory is not known"),
                        Some(false) if !place.is_plain() => {
                            Threat::Doubt("nobody can tell where the path leads")
                        }
                        Some(false)
                            if is_search && pattern.is_in(place, ground.cwd, ground.home) =>
                        {
                            Threat::Doubt("what it looks through may hold such files")
                        }
                        Some(false) => Threat::Nothing,
                    }
                });
                threats.fold(Threat::Nothing, Threat::or)
            }
            (Pattern::Command(_) | Pattern::Path(_), _) => Threat::Nothing,
        }
    }
}

impl Tool {
    fn parse(name: &str) -> Result<Self, RuleFault> {
        let is_word = |char: char| char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.');
        if name.is_empty() {
            return Err(RuleFault::new(
                0,
                "",
                "there is no tool; a rule is `Tool` or `Tool(pattern)`",
            ));
        }
        let prefix = name.strip_suffix("__*");
        if let Some((at, char)) =
            prefix.unwrap_or(name).char_indices().find(|(_, char)| !is_word(*char))
        {
            let why = match char {
                '*' => "`*` stands for tools only in `mcp__server__*`",
                _ => "a tool's name has no such character",
            };
            return Err(RuleFault::new(at, char.encode_utf8(&mut [0; 4]), why));
        }
        let server = name.strip_prefix("mcp__").map(|rest| rest.split_once("__"));
        match (server, prefix) {
            (Some(Some((server, tool))), _) if server.is_empty() || tool.is_empty() => {
                Err(RuleFault::new(0, name, "a tool of a server is `mcp__server__tool`"))
            }
            (Some(None), None) => Err(RuleFault {
                nearest: Some(format!("{name}__*")),
                ..RuleFault::new(0, name, "no tool has this name")
            }),
            (Some(Some(_)), Some(prefix)) => Ok(Self::Server(format!("{prefix}__"))),
            (Some(None) | None, Some(_)) => {
                Err(RuleFault::new(0, name, "`*` stands for tools only in `mcp__server__*`"))
            }
            (Some(Some(_)) | None, None) => match tools::nearest_tool(name) {
                Some(nearest) => Err(RuleFault {
                    nearest: Some(nearest.to_string()),
                    ..RuleFault::new(0, name, format!("no tool is called `{name}`"))
                }),
                None => Ok(Self::Named(name.to_owned())),
            },
        }
    }
}

impl Pattern {
    fn parse(tool: &str, at: usize, text: &str) -> Result<Self, RuleFault> {
        let fault = |(offset, why): (usize, &'static str)| {
            let part = text.get(offset..).and_then(|rest| rest.chars().next());
            let part = part.map_or(String::new(), String::from);
            RuleFault::new(at.saturating_add(offset), &part, format!("this can never match: {why}"))
        };
        match tools::matter(tool) {
            Matter::Command => CommandPattern::parse(text).map(Self::Command).map_err(fault),
            Matter::Path(_) | Matter::Search | Matter::Patch => {
                PathPattern::parse(text).map(Self::Path).map_err(fault)
            }
            Matter::Name => {
                let why = format!("`{tool}` has neither a command nor a path; write it alone");
                Err(RuleFault::new(at, text, why))
            }
        }
    }
}
