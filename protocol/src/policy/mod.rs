//! What may run without a person being asked (security H2, H5, H6).
//!
//! Owns the owner's policy and the judgement on one call of a tool: allow, ask or deny, and which rule says so. Refuses
//! to know sessions, processes, people and the disk: a pure function of the policy, the tool's name, its input and the
//! directory it works in.
//!
//! ```text
//! a rule denies it                    ─▶ deny
//! a rule asks about it, or one that denies might mean it ─▶ ask
//! its input cannot be read, or it is a question itself   ─▶ ask
//! rules allow all of it               ─▶ allow
//! otherwise, by mode:  all ─▶ ask     destructive ─▶ allow if it only looks, else ask     none ─▶ allow
//! ```
//!
//! Of several rules the stronger verdict counts, whatever their order; the first of that strength is named. Invariant:
//! in the mode `destructive` nothing that may change something is allowed but by a rule, and a line for the shell only
//! if each of its commands is.
//!
//! | module | owns |
//! |---|---|
//! | `rule` | the grammar of one rule |
//! | `tools` | the lists of tools |
//! | `subject` | what of a tool's input is a command, and what a path |
//! | `shell`, `command`, `programs` | lines for the shell, rules on them, programs that run programs |
//! | `path` | paths and rules on them |
//!
//! What it is not: isolation. A command that is allowed does what it does; a rule on paths speaks of names and does not
//! know where links lead, nor that `cat` reads what `Read` may not.

mod command;
mod path;
mod programs;
mod rule;
mod shell;
mod subject;
mod tools;

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use command::Threat;
pub use rule::{Rule, RuleFault};
pub use subject::input_of;
use subject::{Ground, Subject};
pub use tools::{READ_ONLY, is_read_only, nearest};

/// What is to happen with a call of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// It runs.
    Allow,
    /// A person decides.
    Ask,
    /// It does not run.
    Deny,
}

/// What happens where no rule says anything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Mode {
    /// Everything asks, also what only looks.
    All,
    /// What only looks runs, everything else asks.
    #[default]
    Destructive,
    /// Everything runs. Its owner's own choice, and visible as such.
    None,
}

/// What happens with an ask while no client is there to answer it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum WhenNobodyListens {
    /// It waits for one, until the time for an approval is over.
    #[default]
    Wait,
    /// The answer is no.
    Deny,
}

/// What its owner set about approvals. How long one waits is in the limits.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// What happens where no rule says anything.
    pub mode: Mode,
    /// What happens with an ask while nobody is there.
    pub when_nobody_listens: WhenNobodyListens,
    /// The rules, in the order in which they are named.
    pub rules: Vec<Rule>,
    /// The owner's home directory, for `~/` in rules; without it such rules only ever ask.
    pub home: Option<String>,
}

/// What is to happen with a call, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement<'a> {
    /// What is to happen.
    pub verdict: Verdict,
    /// The rule that says so; for a line of several commands, that on the first.
    pub rule: Option<&'a Rule>,
    /// In words, for people.
    pub why: Cow<'static, str>,
}

/// What rules say against a call.
#[derive(Debug, Default)]
struct Against<'a> {
    /// Whatever others allow.
    surely: Option<Judgement<'a>>,
    /// Unless another allows it.
    maybe: Option<Judgement<'a>>,
}

impl Verdict {
    /// As clients see it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Ask => "ask",
            Self::Deny => "deny",
        }
    }
}

impl Mode {
    /// As it stands in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Destructive => "destructive",
            Self::None => "none",
        }
    }
}

impl WhenNobodyListens {
    /// As it stands in the configuration.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Deny => "deny",
        }
    }
}

impl<'a> Judgement<'a> {
    fn new(
        verdict: Verdict,
        rule: impl Into<Option<&'a Rule>>,
        why: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { verdict, rule: rule.into(), why: why.into() }
    }
}

impl Policy {
    /// What is to happen with this call. `input` is the JSON that the agent sent, `cwd` where the session works.
    ///
    /// ```
    /// use clawd_protocol::policy::{Policy, Rule, Verdict};
    /// let rules = vec![Rule::parse(Verdict::Allow, "Bash(git status)").unwrap()];
    /// let policy = Policy { rules, ..Policy::default() };
    /// let verdict = |line: &str| {
    ///     let input = format!(r#"{{"command":"{line}"}}"#);
    ///     policy.judge("Bash", &input, "/repo").verdict
    /// };
    /// assert_eq!(verdict("git status"), Verdict::Allow);
    /// assert_eq!(verdict("git status && rm x"), Verdict::Ask);
    /// ```
    #[must_use]
    pub fn judge(&self, tool: &str, input: &str, cwd: &str) -> Judgement<'_> {
        let ground = Ground { cwd, home: self.home.as_deref() };
        let subject = Subject::read(tool, input, ground);
        let Against { surely, maybe } = self.against(tool, subject.as_ref(), ground);
        if let Some(judgement) = surely {
            return judgement;
        }
        let subject = match subject {
            Ok(subject) => subject,
            Err(why) => return Judgement::new(Verdict::Ask, None, why),
        };
        if tools::is_question(tool) {
            return Judgement::new(Verdict::Ask, None, "it is a question to a person");
        }
        match (self.allowing(tool, &subject, ground), maybe) {
            (Some(rule), _) => Judgement::new(Verdict::Allow, rule, "a rule allows it"),
            (None, Some(judgement)) => judgement,
            (None, None) => self.by_mode(tool, &subject),
        }
    }

    /// Whether the agent may go on without asking, before anything is decided: for tools that only look, where nothing
    /// is against it.
    #[must_use]
    pub fn may_pass_unasked(&self, tool: &str, input: &str, cwd: &str) -> bool {
        is_read_only(tool)
            && self.mode != Mode::All
            && self.judge(tool, input, cwd).verdict == Verdict::Allow
    }

    /// The strongest words against a call.
    fn against(
        &self,
        tool: &str,
        subject: Result<&Subject<'_>, &&'static str>,
        ground: Ground<'_>,
    ) -> Against<'_> {
        let mut against = Against::default();
        let rules = self.rules.iter();
        for rule in rules.filter(|rule| rule.verdict() != Verdict::Allow && rule.is_about(tool)) {
            let threat = match subject {
                Ok(subject) => rule.threatens(subject, ground),
                Err(_) if rule.is_about_all() => Threat::Hit,
                Err(why) => Threat::Doubt(why),
            };
            let maybe = |why| {
                let why = format!("this rule might be about it: {why}");
                Judgement::new(Verdict::Ask, rule, why)
            };
            match (threat, rule.verdict()) {
                (Threat::Nothing, _) => {}
                (Threat::Hit, Verdict::Deny) => {
                    let denied = Judgement::new(Verdict::Deny, rule, "a rule denies it");
                    return Against { surely: Some(denied), maybe: None };
                }
                (Threat::Hit, Verdict::Ask | Verdict::Allow) => {
                    let asks = Judgement::new(Verdict::Ask, rule, "a rule asks about it");
                    against.surely.get_or_insert(asks);
                }
                (Threat::Doubt(why), _) => {
                    against.surely.get_or_insert_with(|| maybe(why));
                }
                (Threat::Unseen(why), _) => {
                    against.maybe.get_or_insert_with(|| maybe(why));
                }
            }
        }
        against
    }

    /// The first rule that allows it, if rules allow all of it.
    fn allowing(&self, tool: &str, subject: &Subject<'_>, ground: Ground<'_>) -> Option<&Rule> {
        let rules = || {
            let rules = self.rules.iter();
            rules.filter(|rule| rule.verdict() == Verdict::Allow && rule.is_about(tool))
        };
        let found: Vec<Option<&Rule>> = match subject {
            Subject::Line { commands, .. } => {
                let commands = commands.as_ref().ok()?.iter();
                commands.map(|command| rules().find(|rule| rule.allows_command(command))).collect()
            }
            Subject::Files(places) | Subject::Search(places) => {
                if !is_read_only(tool) && places.iter().any(path::Place::is_deciding) {
                    return None;
                }
                let places = places.iter();
                places.map(|place| rules().find(|rule| rule.allows_place(place, ground))).collect()
            }
            Subject::Name => Vec::from([rules().find(|rule| rule.is_about_all())]),
        };
        found.into_iter().collect::<Option<Vec<_>>>()?.first().copied()
    }

    fn by_mode(&self, tool: &str, subject: &Subject<'_>) -> Judgement<'static> {
        let why = |fixed: &'static str| match subject {
            Subject::Line { commands: Err(why), .. } => {
                format!("no rule can allow the command: {why}").into()
            }
            Subject::Line { .. } | Subject::Files(_) | Subject::Search(_) | Subject::Name => {
                Cow::Borrowed(fixed)
            }
        };
        match self.mode {
            Mode::All => {
                Judgement::new(Verdict::Ask, None, why("the mode is `all`, and no rule allows it"))
            }
            Mode::Destructive if is_read_only(tool) => {
                Judgement::new(Verdict::Allow, None, "the tool only looks")
            }
            Mode::Destructive => Judgement::new(
                Verdict::Ask,
                None,
                why("it may change something, and no rule allows it"),
            ),
            Mode::None => Judgement::new(Verdict::Allow, None, "the mode is `none`: nothing asks"),
        }
    }
}

#[cfg(test)]
mod tests;
