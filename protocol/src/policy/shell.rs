//! One line for the shell, as simple commands; or not at all (security H5).
//!
//! Owns a reader for the part of the shell's language that means the same in bash, zsh and sh without knowing anything
//! else: plain words, quotes, and `&&`, `||`, `;`, `|` between commands. Refuses everything that is more, however
//! harmless: a line that is not read here is a line that asks. Substitutions, variables, redirections, here-documents,
//! newlines, subshells, groups, background jobs, assignments, escapes, comments, history, braces, tildes at the start
//! of a word, characters beyond ASCII.
//!
//! A strict reader of our own, because none of the kept parsers fits: `yash-syntax` and `brush-parser` need `std`,
//! `tree-sitter-bash` is C, and all of them *understand* what must be refused here, which would have to be found again
//! in their trees. Invariant: what [`read`] returns is what the shell will run, word by word; where a word has a glob,
//! the shell runs words that begin with the same character.

use alloc::string::String;
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::Chars;

/// Longer lines ask.
const LINE_BYTES_MAX: usize = 4096;
/// Lines of more commands ask.
const COMMANDS_MAX: usize = 16;

/// Nothing stands before or after an operator.
pub(super) const EMPTY: &str = "there is an empty command";
/// It is more than [`read_one`] reads.
pub(super) const SEVERAL: &str = "there is more than one command";

/// One command with its arguments. It has at least one word, and its first is a plain name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Simple {
    pub(super) words: Vec<Word>,
    /// It reads what the command before it writes.
    pub(super) is_piped: bool,
}

/// A word, without its quotes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    /// The shell replaces it by names of files.
    pub(super) is_glob: bool,
    is_quoted: bool,
}

impl Simple {
    pub(super) fn program(&self) -> &str {
        self.words.first().map_or("", |word| &word.text)
    }

    pub(super) fn has_glob(&self) -> bool {
        self.words.iter().any(|word| word.is_glob)
    }
}

/// Reads a line; the error says what is in it that is not understood.
pub(super) fn read(line: &str) -> Result<Vec<Simple>, &'static str> {
    if line.len() > LINE_BYTES_MAX {
        return Err("the command is too long to judge");
    }
    let mut reader = Reader { chars: line.chars().peekable(), ..Reader::default() };
    while let Some(char) = reader.chars.next() {
        reader.take(char)?;
    }
    reader.end_command(false)?;
    Ok(reader.commands)
}

/// The words of a rule or of a fragment: one command, nothing else.
pub(super) fn read_one(text: &str) -> Result<Vec<Word>, &'static str> {
    let mut commands = read(text)?;
    match (commands.pop(), commands.is_empty()) {
        (Some(command), true) => Ok(command.words),
        (Some(_) | None, _) => Err(SEVERAL),
    }
}

/// Everything in a line that could be a word of some command, whatever quotes and operators say. For looking for what
/// is forbidden: too many words do no harm there.
pub(super) fn loose_words(line: &str) -> Vec<String> {
    let ends_word = |char: char| char.is_whitespace() || ";|&()<>{}$`,=!#".contains(char);
    let plain: String = line.chars().filter(|char| !"'\"\\".contains(*char)).collect();
    plain.split(ends_word).filter(|word| !word.is_empty()).map(fold).collect()
}

/// A name as file systems that ignore case compare it.
pub(super) fn fold(text: &str) -> String {
    if text.is_ascii() {
        return text.to_ascii_lowercase();
    }
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

struct Reader<'a> {
    chars: Peekable<Chars<'a>>,
    commands: Vec<Simple>,
    words: Vec<Word>,
    word: Option<Word>,
    is_piped: bool,
    /// The unquoted letter or digit before.
    is_after_letter: bool,
}

impl Default for Reader<'_> {
    fn default() -> Self {
        Self {
            chars: "".chars().peekable(),
            commands: Vec::new(),
            words: Vec::new(),
            word: None,
            is_piped: false,
            is_after_letter: false,
        }
    }
}

impl Reader<'_> {
    fn take(&mut self, char: char) -> Result<(), &'static str> {
        let is_after_letter = core::mem::replace(&mut self.is_after_letter, false);
        match char {
            ' ' | '\t' => self.end_word(),
            '\'' => self.quoted('\'')?,
            '"' => self.quoted('"')?,
            ';' => self.end_command(false)?,
            '&' if self.chars.next_if_eq(&'&').is_some() => self.end_command(false)?,
            '|' if self.chars.next_if_eq(&'|').is_some() => self.end_command(false)?,
            '|' => self.end_command(true)?,
            '*' | '?' => self.glob()?,
            '~' | '^' if is_after_letter => self.push(char),
            '=' if self.word.is_none() => return Err("a word begins with `=`"),
            'a'..='z' | 'A'..='Z' | '0'..='9' => {
                self.push(char);
                self.is_after_letter = true;
            }
            '_' | '-' | '.' | '/' | ':' | ',' | '@' | '%' | '+' | '=' => self.push(char),
            other => return Err(refusal(other)),
        }
        Ok(())
    }

    fn push(&mut self, char: char) {
        self.word.get_or_insert_default().text.push(char);
    }

    /// A glob in a word that begins otherwise: so no file's name becomes an option.
    fn glob(&mut self) -> Result<(), &'static str> {
        let word = self.word.get_or_insert_default();
        if word.text.is_empty() || word.text.starts_with('-') {
            return Err("a word begins with a pattern for names of files");
        }
        word.is_glob = true;
        word.text.push('*');
        Ok(())
    }

    fn quoted(&mut self, quote: char) -> Result<(), &'static str> {
        let word = self.word.get_or_insert_default();
        word.is_quoted = true;
        for char in self.chars.by_ref() {
            match char {
                // Two of them in a row are nothing in bash, and can be a quote in zsh.
                char if char == quote => {
                    return match self.chars.peek() {
                        Some(next) if *next == quote => Err("quotes follow each other"),
                        Some(_) | None => Ok(()),
                    };
                }
                '$' | '`' | '\\' | '!' if quote == '"' => return Err(refusal(char)),
                ' '..='~' => word.text.push(char),
                other => return Err(refusal(other)),
            }
        }
        Err("a quote is not closed")
    }

    fn end_word(&mut self) {
        self.words.extend(self.word.take());
    }

    fn end_command(&mut self, into_pipe: bool) -> Result<(), &'static str> {
        self.end_word();
        let words = core::mem::take(&mut self.words);
        let Some(first) = words.first() else { return Err(EMPTY) };
        if first.is_quoted || first.is_glob {
            return Err("the name of a program is quoted or a pattern");
        }
        if first.text.contains('=') {
            return Err("variables are set");
        }
        let is_name = |char: char| char.is_ascii_alphanumeric() || matches!(char, '.' | '/' | '_');
        if !first.text.starts_with(is_name) {
            return Err("a command begins with no name");
        }
        if self.commands.len() >= COMMANDS_MAX {
            return Err("there are too many commands in one line");
        }
        self.commands.push(Simple { words, is_piped: self.is_piped });
        self.is_piped = into_pipe;
        Ok(())
    }
}

/// Why a line with this character is not understood.
const fn refusal(char: char) -> &'static str {
    match char {
        '$' | '`' => "something is substituted",
        '<' | '>' => "something is redirected",
        '(' | ')' => "there is a subshell",
        '{' | '}' => "there are braces",
        '[' | ']' => "there is a pattern for names of files",
        '&' => "something runs in the background",
        '\n' | '\r' => "there is more than one line",
        '\\' => "something is escaped",
        '~' => "a home directory is looked up",
        '#' => "there is a comment",
        '!' | '^' => "there is a `!` or a `^`",
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => "there is a control character",
        _ => "there is a character beyond ASCII",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn words(line: &str) -> Vec<Vec<String>> {
        let texts = |command: Simple| command.words.into_iter().map(|word| word.text).collect();
        read(line).unwrap().into_iter().map(texts).collect()
    }

    #[test]
    fn plain_lines_are_read_as_the_shell_reads_them() {
        assert_eq!(words("git status"), [["git", "status"]]);
        assert_eq!(
            words(" a 'b c'\"d\"e ''  && b|c||d ; e"),
            [vec!["a", "b cde", ""], vec!["b"], vec!["c"], vec!["d"], vec!["e"],]
        );
        assert_eq!(
            words("git log HEAD~3 HEAD^ a:b --x=y"),
            [["git", "log", "HEAD~3", "HEAD^", "a:b", "--x=y"]]
        );
        let piped: Vec<bool> =
            read("a | b && c | d").unwrap().iter().map(|command| command.is_piped).collect();
        assert_eq!(piped, [false, true, false, true]);
    }

    #[test]
    fn what_is_more_than_words_is_refused() {
        for line in [
            "",
            " ",
            ";",
            "a;",
            "a;;b",
            "a &",
            "a & b",
            "a |& b",
            "a&&",
            "|a",
            "a\nb",
            "a\\\nb",
            "a $b",
            "a `b`",
            "a \"$b\"",
            "a \"`b`\"",
            "a > b",
            "a < b",
            "a <<b",
            "(a)",
            "{ a",
            "a {b,c}",
            "a ~",
            "~/a",
            "a=b",
            "a=b c",
            "a #b",
            "!a",
            "a !b",
            "a \"!b\"",
            "a [b]",
            "a *",
            "a -*",
            "'a' b",
            "a* b",
            "a 'b",
            "a \"b",
            "a \\b",
            "a =b",
            "-a",
            "a ü",
            "a 'ü'",
            "a \u{a0}b",
            "a \0",
            "a ^b",
            "a 'b''c'",
            "%1",
            "+x",
            "a 'b\nc'",
        ] {
            assert!(read(line).is_err(), "{line:?}");
        }
        assert!(read(&"a ".repeat(LINE_BYTES_MAX)).is_err());
        assert!(read(&["a"; COMMANDS_MAX].join(";")).is_ok());
        assert!(read(&["a"; COMMANDS_MAX + 1].join(";")).is_err());
    }

    #[test]
    fn loose_words_see_through_quotes() {
        assert_eq!(
            loose_words("sh -c 'r\"\"m \\-RF x;{ls,-l}'"),
            ["sh", "-c", "rm", "-rf", "x", "ls", "-l"]
        );
    }
}
