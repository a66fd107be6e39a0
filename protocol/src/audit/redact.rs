//! No secret gets into the log: typed rules that know what secrets look like.
//!
//! Owns the list of forms; refuses to know where the text comes from. Each find leaves its type behind, such as
//! `[redacted ghp]`, so that a reader sees that there was one. Invariants: what a rule finds is gone; redacting twice is
//! redacting once; nothing panics on any text.
//!
//! The rules work on text as it stands, JSON inside of JSON included: a backslash before a quote is part of the quote.
//! A secret without a form (a password as a bare argument) cannot be told from a word; the log keeps only the beginning
//! of each input, and the SHA-256 of all of it.

use alloc::borrow::Cow;
use alloc::string::String;

/// How much of an input is shown, in characters.
const SUMMARY_CHARS_MAX: usize = 256;
/// How much of a text is looked at for its beginning.
const WINDOW_BYTES: usize = 4096;

/// A find: what stays before it, its type, and what comes after it.
struct Find<'a> {
    shown: &'a str,
    tag: &'static str,
    rest: &'a str,
}

/// What begins a secret, its type, how many characters follow at least, and which ones.
type Prefix = (&'static str, &'static str, usize, fn(char) -> bool);

/// Texts that begin a secret.
const PREFIXES: &[Prefix] = &[
    ("clawd_l_", "clawd", 8, is_word),
    ("clawd_d_", "clawd", 8, is_word),
    ("ghp_", "ghp", 16, is_word),
    ("gho_", "gho", 16, is_word),
    ("ghu_", "ghu", 16, is_word),
    ("ghs_", "ghs", 16, is_word),
    ("ghr_", "ghr", 16, is_word),
    ("github_pat_", "github_pat", 16, is_word),
    ("glpat-", "glpat", 16, is_dashed),
    ("sk_live_", "sk", 10, is_word),
    ("sk_test_", "sk", 10, is_word),
    ("rk_live_", "sk", 10, is_word),
    ("xoxa-", "xox", 8, is_dashed),
    ("xoxb-", "xox", 8, is_dashed),
    ("xoxe-", "xox", 8, is_dashed),
    ("xoxp-", "xox", 8, is_dashed),
    ("xoxr-", "xox", 8, is_dashed),
    ("xoxs-", "xox", 8, is_dashed),
    ("xapp-", "xox", 8, is_dashed),
    ("AIza", "google", 30, is_dashed),
    ("npm_", "npm", 30, is_word),
    ("pypi-", "pypi", 30, is_dashed),
    ("hf_", "hf", 30, is_word),
];

/// The same for prefixes that also end common words (`task-`): only where a word begins.
const WORD_PREFIXES: &[Prefix] = &[
    ("sk-", "sk", 16, is_dashed),
    ("AKIA", "aws", 16, is_capital),
    ("ASIA", "aws", 16, is_capital),
];

/// A name that holds one of these has a secret for a value.
const SECRET_NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "access-key",
    "private_key",
    "private-key",
    "credential",
    "authorization",
    "cookie",
];

/// A rule looks at the text from some place on, and is told whether a word begins there.
type Rule = for<'a> fn(&'a str, bool) -> Option<Find<'a>>;

const RULES: &[Rule] = &[private_key, prefixed, jwt, scheme, pair, user_info];

/// The text without secrets. Time may grow with the square of the length of a hostile text: bound it first.
///
/// ```
/// use clawd_protocol::audit::redact;
/// assert_eq!(redact("curl -H 'Authorization: Bearer abcdef123456'"), "curl -H 'Authorization: [redacted value]'");
/// assert_eq!(redact("PASSWORD=hunter2 make"), "PASSWORD=[redacted value] make");
/// assert_eq!(redact("a task-list"), "a task-list");
/// ```
#[must_use]
pub fn redact(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut is_changed = false;
    let mut rest = text;
    let mut before: [Option<char>; 2] = [None, None];
    while let Some(char) = rest.chars().next() {
        let begins_word = begins_word(before);
        if let Some(find) = RULES.iter().find_map(|rule| rule(rest, begins_word)) {
            is_changed = true;
            out.push_str(find.shown);
            out.push_str("[redacted ");
            out.push_str(find.tag);
            out.push(']');
            rest = find.rest;
            before = [None, None];
        } else {
            out.push(char);
            rest = rest.get(char.len_utf8()..).unwrap_or_default();
            before = [before[1], Some(char)];
        }
    }
    if is_changed { Cow::Owned(out) } else { Cow::Borrowed(text) }
}

/// The beginning of a tool's input, for people.
#[must_use]
pub fn summary(input: &str) -> String {
    bounded(input, SUMMARY_CHARS_MAX)
}

/// The beginning of a text of any length, redacted: at most so many characters, and a sign if there are more.
pub(super) fn bounded(text: &str, chars_max: usize) -> String {
    let window = text.floor_char_boundary(WINDOW_BYTES);
    let (seen, rest) = text.split_at_checked(window).unwrap_or((text, ""));
    let redacted = redact(seen);
    // What the window has cut may be half of a secret, which has no form any more.
    let safe = if rest.is_empty() {
        &*redacted
    } else {
        redacted.trim_end_matches(|char: char| !char.is_whitespace() && char != ']')
    };
    let mut short = cut(Cow::Borrowed(safe), chars_max).into_owned();
    if !rest.is_empty() && !short.ends_with('…') {
        short.push('…');
    }
    short
}

/// At most so many characters, and a sign that there are more.
pub(super) fn cut(text: Cow<'_, str>, chars_max: usize) -> Cow<'_, str> {
    match text.char_indices().nth(chars_max) {
        None => text,
        Some((at, _)) => {
            let mut short = String::from(text.get(..at).unwrap_or_default());
            short.push('…');
            Cow::Owned(short)
        }
    }
}

const fn is_word(char: char) -> bool {
    char.is_ascii_alphanumeric() || char == '_'
}

const fn is_dashed(char: char) -> bool {
    is_word(char) || char == '-'
}

const fn is_capital(char: char) -> bool {
    char.is_ascii_uppercase() || char.is_ascii_digit()
}

/// Nothing of a word stands before it; the letter of an escape, as in `\n`, is none.
fn begins_word(before: [Option<char>; 2]) -> bool {
    match before {
        [_, None] | [Some('\\'), Some('n' | 'r' | 't' | 'b' | 'f')] => true,
        [_, Some(char)] => !is_word(char),
    }
}

/// Splits where the characters of a kind end.
fn run(text: &str, is_in: impl Fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|char| !is_in(char)).unwrap_or(text.len());
    text.split_at_checked(end).unwrap_or((text, ""))
}

/// `-----BEGIN … PRIVATE KEY-----` to its end, or to the end of everything.
fn private_key(text: &str, _: bool) -> Option<Find<'_>> {
    let rest = text.strip_prefix("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    if label.len() > 64 || !label.ends_with("PRIVATE KEY") {
        return None;
    }
    let rest = rest.split_once("-----END ").and_then(|(_, rest)| rest.split_once("-----"));
    Some(Find { shown: "", tag: "private key", rest: rest.map_or("", |(_, rest)| rest) })
}

fn prefixed(text: &str, begins_word: bool) -> Option<Find<'_>> {
    let everywhere = PREFIXES.iter();
    let here = if begins_word { WORD_PREFIXES } else { &[] };
    everywhere.chain(here).find_map(|(prefix, tag, least, is_in)| {
        let (secret, rest) = run(text.strip_prefix(prefix)?, is_in);
        (secret.len() >= *least).then_some(Find { shown: "", tag, rest })
    })
}

/// `eyJ….….…`: three parts in base64url (RFC 7515), the first of which begins with `{"`.
fn jwt(text: &str, begins_word: bool) -> Option<Find<'_>> {
    if !begins_word {
        return None;
    }
    let (head, rest) = run(text.strip_prefix("eyJ")?, is_dashed);
    let (body, rest) = run(rest.strip_prefix('.')?, is_dashed);
    let (_, rest) = run(rest.strip_prefix('.')?, is_dashed);
    (head.len() >= 8 && body.len() >= 4).then_some(Find { shown: "", tag: "jwt", rest })
}

/// `Bearer …`, `Basic …` (RFC 9110, section 11.4).
fn scheme(text: &str, begins_word: bool) -> Option<Find<'_>> {
    if !begins_word {
        return None;
    }
    let (word, rest) = run(text, |char| char.is_ascii_alphabetic());
    let is_scheme = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
    let (space, value) = run(rest, |char| char == ' ');
    let (secret, rest) = run(value, |char| is_dashed(char) || "._~+/=".contains(char));
    let shown = text.get(..word.len() + space.len())?;
    let is_one = is_scheme && !space.is_empty() && secret.len() >= 8;
    is_one.then_some(Find { shown, tag: "value", rest })
}

/// `password=…`, `"apiToken": "…"`, `--secret …`: a name that says it, and a value.
fn pair(text: &str, begins_word: bool) -> Option<Find<'_>> {
    let (dashes, _) = run(text, |char| char == '-');
    if !begins_word || (dashes.is_empty() && !text.starts_with(is_word)) {
        return None;
    }
    let (name, rest) = run(text, |char| is_dashed(char) || char == '.');
    let lower = name.to_ascii_lowercase();
    if name.len() > 128 || !SECRET_NAMES.iter().any(|it| lower.contains(it)) {
        return None;
    }
    let (_, after) = run(rest, |char| matches!(char, '\\' | '"' | '\'' | ' ' | ']'));
    let value = match after.strip_prefix([':', '=']) {
        Some(after) => after.trim_start_matches(['=', '>', ' ']),
        None if dashes.len() == 2 && rest.starts_with(' ') => rest.trim_start_matches(' '),
        None => return None,
    };
    let (quote, value) = opening(value);
    let length = if quote.is_empty() { bare(value) } else { quoted(value, quote) };
    let (secret, rest) = value.split_at_checked(length)?;
    let shown = text.get(..text.len() - value.len())?;
    let is_one = !secret.is_empty() && !secret.starts_with("[redacted");
    is_one.then_some(Find { shown, tag: "value", rest })
}

/// The quote that a value begins with, with the backslashes before it.
fn opening(value: &str) -> (&str, &str) {
    let (backslashes, rest) = run(value, |char| char == '\\');
    if rest.starts_with(['"', '\'']) {
        value.split_at_checked(backslashes.len() + 1).unwrap_or((value, ""))
    } else {
        ("", value)
    }
}

/// Up to the quote that closes it: the same one, behind as many backslashes.
fn quoted(value: &str, quote: &str) -> usize {
    let mut from = 0;
    while let Some(found) = value.get(from..).and_then(|rest| rest.find(quote)) {
        let at = from + found;
        let is_deeper = value.get(..at).is_some_and(|before| before.ends_with('\\'));
        if !is_deeper {
            return at;
        }
        from = at + quote.len();
    }
    value.len()
}

/// Up to what cannot be in a bare value. A backslash takes the next character with it, unless that is an escaped end of
/// line or quote.
fn bare(value: &str) -> usize {
    // `Authorization: Bearer …`: the scheme is not the secret.
    let (word, rest) = run(value, |char| char.is_ascii_alphabetic());
    let is_scheme = word.eq_ignore_ascii_case("bearer") || word.eq_ignore_ascii_case("basic");
    let skip = if is_scheme && rest.starts_with(' ') { word.len() + 1 } else { 0 };
    let mut chars = value.char_indices().skip_while(|(at, _)| *at < skip).peekable();
    while let Some((at, char)) = chars.next() {
        let is_end = char.is_whitespace() || "\"'`&;,|<>(){}[]".contains(char);
        let next = chars.peek().map(|(_, next)| *next);
        if is_end || (char == '\\' && matches!(next, Some('n' | 'r' | 't' | '"' | '\''))) {
            return at;
        }
        if char == '\\' {
            chars.next();
        }
    }
    value.len()
}

/// `https://user:password@host`.
fn user_info(text: &str, _: bool) -> Option<Find<'_>> {
    let rest = text.strip_prefix("://")?;
    let (authority, _) = run(rest, |char| !char.is_whitespace() && !"/\\\"'?#<>".contains(char));
    let (info, _) = authority.rsplit_once('@')?;
    let (user, password) = info.split_once(':')?;
    let shown = text.get(..3 + user.len() + 1)?;
    let rest = text.get(3 + info.len()..)?;
    let is_one = !password.is_empty() && !password.starts_with("[redacted");
    is_one.then_some(Find { shown, tag: "password", rest })
}

#[cfg(test)]
mod tests;
