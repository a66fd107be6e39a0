//! `[approvals]`: what may run without being asked about.
//!
//! Owns the section's keys and the place of a mistake inside a rule; refuses to know what rules mean
//! (`clawd_protocol::policy` does).

use std::ops::Range;
use std::time::Duration;

use clawd_protocol::policy::{Mode, Policy, Rule, RuleFault, Verdict, WhenNobodyListens};
use serde::Deserialize;
use serde::de::Error as _;
use toml::Spanned;

use super::excerpt::Mistake;

/// A week: who has not answered until then has forgotten.
const TIMEOUT_SECS_MAX: u64 = 7 * 86_400;

/// The section, as it is written. Of several rules the stronger counts, in whatever order they stand.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Approvals {
    mode: ModeWord,
    timeout_secs: Option<Spanned<u64>>,
    /// It has one value, which may be written down.
    on_timeout: OnTimeout,
    when_nobody_listens: WhenWord,
    deny: Vec<Spanned<String>>,
    ask: Vec<Spanned<String>>,
    allow: Vec<Spanned<String>>,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ModeWord {
    All,
    #[default]
    Destructive,
    None,
}

#[derive(Debug, Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum WhenWord {
    #[default]
    Wait,
    Deny,
}

/// `"deny"`.
#[derive(Debug, Default)]
struct OnTimeout;

impl<'de> Deserialize<'de> for OnTimeout {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match String::deserialize(from)?.as_str() {
            "deny" => Ok(Self),
            _ => Err(D::Error::custom(
                "what nobody has decided in time is denied; `on_timeout` can only be \"deny\"",
            )),
        }
    }
}

impl Approvals {
    /// Looks for mistakes that the file's grammar does not know.
    pub(super) fn check(&self, source: &str) -> Result<(), Mistake<'static>> {
        let mistake = |span, what| Mistake { span, what, near: None, is_secret: false };
        if let Some(timeout) = &self.timeout_secs
            && !(1..=TIMEOUT_SECS_MAX).contains(timeout.get_ref())
        {
            let what = format!("`timeout_secs` must be from 1 to {TIMEOUT_SECS_MAX}, a week");
            return Err(mistake(timeout.span(), what));
        }
        for (verdict, rule) in self.written() {
            if let Err(fault) = Rule::parse(verdict, rule.get_ref()) {
                let near = fault.nearest.as_ref().map(|name| format!("; did you mean `{name}`?"));
                let near = near.unwrap_or_default();
                let what = format!("in the rule `{}`: {}{near}", rule.get_ref(), fault.why);
                return Err(mistake(place_of(&fault, rule, source), what));
            }
        }
        Ok(())
    }

    /// As the core needs it. `home` is the owner's home directory.
    pub(crate) fn policy(&self, home: Option<String>) -> Policy {
        let mode = match self.mode {
            ModeWord::All => Mode::All,
            ModeWord::Destructive => Mode::Destructive,
            ModeWord::None => Mode::None,
        };
        let when_nobody_listens = match self.when_nobody_listens {
            WhenWord::Wait => WhenNobodyListens::Wait,
            WhenWord::Deny => WhenNobodyListens::Deny,
        };
        let rules = self.written();
        // `check` has refused the file if one of them is none.
        let rules = rules.filter_map(|(verdict, rule)| Rule::parse(verdict, rule.get_ref()).ok());
        Policy { mode, when_nobody_listens, rules: rules.collect(), home }
    }

    /// How long a question waits for its answer.
    pub(crate) fn timeout(&self) -> Option<Duration> {
        self.timeout_secs.as_ref().map(|secs| Duration::from_secs(*secs.get_ref()))
    }

    /// All rules, the stronger first.
    fn written(&self) -> impl Iterator<Item = (Verdict, &Spanned<String>)> {
        let lists =
            [(Verdict::Deny, &self.deny), (Verdict::Ask, &self.ask), (Verdict::Allow, &self.allow)];
        lists.into_iter().flat_map(|(verdict, rules)| rules.iter().map(move |rule| (verdict, rule)))
    }
}

/// Where in the file the fault is; the whole text where escapes have moved it.
fn place_of(fault: &RuleFault, rule: &Spanned<String>, source: &str) -> Range<usize> {
    let whole = rule.span();
    let quoted = source.get(whole.clone()).unwrap_or_default();
    let is_long = quoted.starts_with("'''") || quoted.starts_with("\"\"\"");
    let start = whole.start + if is_long { 3 } else { 1 };
    if source.get(start..).is_some_and(|rest| rest.starts_with(rule.get_ref().as_str())) {
        let at = start + fault.at;
        return at..at + fault.len;
    }
    whole
}

#[cfg(test)]
mod tests;
