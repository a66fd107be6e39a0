//! Rules on commands: words, compared as words.
//!
//! Owns both comparisons; refuses to know tools. To allow, a rule is taken at its least: these words from the first one
//! on, all of them as they are, and `*` for further ones that are not known to be dangerous. To ask or deny, it is taken
//! at its most: the program under any path and case, its words in any order, behind any wrapper.

use alloc::string::String;
use alloc::vec::Vec;

use super::programs::{base_name, kind, letters};
use super::shell::{self, Simple, Word, fold};

/// Which commands a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandPattern {
    words: Vec<Word>,
    /// Further words may follow.
    is_open: bool,
}

/// How surely a rule that asks or denies is about a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Threat {
    /// It is, or is so written that it may well be.
    Hit,
    /// Nobody can tell.
    Doubt(&'static str),
    /// Nobody can tell, but its owner may have known when allowing just this.
    Unseen(&'static str),
    /// It is not.
    Nothing,
}

impl CommandPattern {
    /// Reads a pattern. An error is the offset of what is wrong, and why.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let open = text.strip_suffix(":*").or_else(|| text.strip_suffix(" *"));
        let fixed = open.unwrap_or(text);
        if fixed.trim().is_empty() {
            return Err((0, "there is no command"));
        }
        // The reader stops at what it refuses: the shortest beginning that it refuses for the same reason ends there.
        let words = shell::read_one(fixed).map_err(|why| (offset_of(fixed, why), why))?;
        if words.iter().any(|word| word.is_glob) {
            let at = fixed.find(['*', '?']).unwrap_or_default();
            return Err((
                at,
                "`*` stands for further words, at the end and after a space; quote it otherwise",
            ));
        }
        Ok(Self { words, is_open: open.is_some() })
    }

    /// Why this may not be allowed, ever.
    pub(super) fn objection(&self) -> Option<(&str, &'static str)> {
        let program = self.words.first()?;
        let why = kind(&program.text).objection(&self.words, self.is_open)?;
        Some((&program.text, why))
    }

    /// Whether an allow of this rule holds for the command.
    pub(super) fn allows(&self, command: &Simple) -> bool {
        let Some((fixed, more)) = command.words.split_at_checked(self.words.len()) else {
            return false;
        };
        let is_same = |(rule, word): (&Word, &Word)| !word.is_glob && rule.text == word.text;
        if !self.words.iter().zip(fixed).all(is_same) || (!more.is_empty() && !self.is_open) {
            return false;
        }
        let kind = kind(command.program());
        let takes_program = command.is_piped && kind.is_opaque();
        !takes_program
            && kind.objection(&self.words, self.is_open).is_none()
            && !kind.is_risky(more)
    }

    /// How surely a rule that asks or denies is about this line.
    pub(super) fn threatens(
        &self,
        line: &str,
        commands: Result<&[Simple], &'static str>,
    ) -> Threat {
        let Ok(commands) = commands else {
            return match self.is_among(&shell::loose_words(line)) {
                true => Threat::Hit,
                false => Threat::Doubt("nobody can tell what the command is"),
            };
        };
        let threats = commands.iter().map(|command| self.threatens_one(command));
        threats.fold(Threat::Nothing, Threat::or)
    }

    fn threatens_one(&self, command: &Simple) -> Threat {
        let words: Vec<String> = command.words.iter().map(|word| fold(&word.text)).collect();
        if self.is_at(&words) {
            return Threat::Hit;
        }
        let flat = command.words.iter().flat_map(|word| shell::loose_words(&word.text));
        let is_among = self.is_among(&flat.collect::<Vec<_>>());
        let kind = kind(command.program());
        match (kind.is_opaque() || kind.is_risky(&command.words), is_among) {
            (true, true) => Threat::Hit,
            (true, false) => Threat::Unseen("it runs another program, and nobody can tell which"),
            (false, true) => Threat::Doubt("its words are those of a command that must not pass"),
            (false, false) if command.has_glob() && self.is_program(&words) => {
                Threat::Doubt("the names of files may make it another command")
            }
            (false, false) => Threat::Nothing,
        }
    }

    /// These words are the command, as far as this rule tells.
    fn is_at(&self, words: &[String]) -> bool {
        let further = words.get(1..).unwrap_or_default();
        self.is_program(words)
            && self.words.iter().skip(1).all(|rule| is_there(&fold(&rule.text), further))
    }

    fn is_program(&self, words: &[String]) -> bool {
        let name = self.words.first().map(|word| base_name(&word.text));
        words.first().map(|word| base_name(word)) == name
    }

    /// Some of these words, and those behind it, are the command. If any is, the first of that name is: it has the
    /// most behind it.
    fn is_among(&self, words: &[String]) -> bool {
        let name = self.words.first().map(|word| base_name(&word.text));
        let first = words.iter().position(|word| Some(base_name(word)) == name);
        first.and_then(|at| words.get(at..)).is_some_and(|words| self.is_at(words))
    }
}

impl Threat {
    pub(super) fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Hit, _) | (_, Self::Hit) => Self::Hit,
            (Self::Doubt(why), _) | (_, Self::Doubt(why)) => Self::Doubt(why),
            (Self::Unseen(why), _) | (_, Self::Unseen(why)) => Self::Unseen(why),
            (Self::Nothing, Self::Nothing) => Self::Nothing,
        }
    }
}

/// A rule's word is one of these, or its letters are bundled there in another way (`-rf` as `-r -f`).
fn is_there(rule: &str, words: &[String]) -> bool {
    if words
        .iter()
        .any(|word| word == rule || word.strip_prefix(rule).is_some_and(|v| v.starts_with('=')))
    {
        return true;
    }
    let given: Vec<char> = words.iter().filter_map(|word| letters(word)).flatten().collect();
    letters(rule).is_some_and(|wanted| wanted.iter().all(|letter| given.contains(letter)))
}

/// Where in a text the reader stopped.
fn offset_of(text: &str, why: &'static str) -> usize {
    // An operator is where the text before it would be whole, were it not for the command that is missing.
    let why = if why == shell::SEVERAL { shell::EMPTY } else { why };
    let mut ends = text.char_indices().map(|(at, char)| (at, at.saturating_add(char.len_utf8())));
    let stops = |end: usize| text.get(..end).is_some_and(|part| shell::read(part) == Err(why));
    ends.find(|(_, end)| stops(*end)).map_or(0, |(at, _)| at)
}
