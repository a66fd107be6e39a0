//! Other people's text, made safe to look at (security K1).
//!
//! Owns which characters a terminal could act on or a reader cannot see, and how they are written instead: `\u{202e}`.
//! Refuses to know terminals. Invariants: what comes out holds no such character; and no two texts look the same, because
//! a backslash that would begin an escape is escaped too. Text of models, tools, repositories, devices and peers goes
//! through here on its way to a screen or a log.

use alloc::borrow::Cow;
use alloc::string::String;
use core::fmt::Write as _;

/// A text over several lines: `\n` and `\t` stay.
///
/// ```
/// use clawd_protocol::text::visible;
/// assert_eq!(visible("two\nlines"), "two\nlines");
/// assert_eq!(visible("\u{1b}[2Jgone"), r"\u{1b}[2Jgone");
/// assert_eq!(visible("exe.\u{202e}txt"), r"exe.\u{202e}txt");
/// assert_eq!(visible(r"\u{1b}"), r"\u{5c}u{1b}");
/// ```
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |char| !matches!(char, '\n' | '\t') && is_hidden(char))
}

/// A text that must stay on its line and in its column, such as a name: `\n` and `\t` are escaped too.
#[must_use]
pub fn visible_line(text: &str) -> Cow<'_, str> {
    escape(text, is_hidden)
}

/// Bytes that should be text: what is not UTF-8 becomes `\x9b`, the rest is as [`visible`] has it.
#[must_use]
pub fn visible_bytes(bytes: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = core::str::from_utf8(bytes)
        && !text.contains(r"\x")
    {
        return visible(text);
    }
    let mut out = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for (at, piece) in chunk.valid().split(r"\x").enumerate() {
            if at > 0 {
                out.push_str(r"\u{5c}x");
            }
            out.push_str(&visible(piece));
        }
        for byte in chunk.invalid() {
            let _ = write!(out, r"\x{byte:02x}");
        }
    }
    Cow::Owned(out)
}

/// A terminal may act on this character, or a reader may not see that it is there: controls, Unicode's format characters
/// (General_Category Cf), invisible letters, variation selectors, tags, separators of lines, and non-characters.
#[must_use]
pub fn is_hidden(char: char) -> bool {
    matches!(char,
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' // C0, DEL, C1
        | '\u{ad}' | '\u{34f}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
        | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
        | '\u{180b}'..='\u{180f}'
        | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' // zero width, direction
        | '\u{2060}'..='\u{206f}'
        | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
        | '\u{fdd0}'..='\u{fdef}'
        | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1345f}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}'
        | '\u{e0000}'..='\u{e0fff}' // tags, more variation selectors
    ) || is_noncharacter(char)
}

/// The last two code points of each plane stand for nothing, ever.
fn is_noncharacter(char: char) -> bool {
    u32::from(char) & 0xfffe == 0xfffe
}

/// `⚠` followed by the selector that asks for its coloured picture: seen, harmless, and in every second answer of a model.
fn is_pictured(before: Option<char>, char: char) -> bool {
    char == '\u{fe0f}'
        && matches!(
            before,
            Some(
                '\u{203c}'
                | '\u{2049}'
                | '\u{2139}'
                | '\u{2190}'..='\u{27bf}'
                | '\u{2900}'..='\u{2bff}'
                | '\u{1f000}'..='\u{1faff}',
            )
        )
}

fn escape(text: &str, is_unwanted: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(r"\u{") && !text.chars().any(&is_unwanted) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut before = None;
    for (at, char) in text.char_indices() {
        let begins_escape =
            char == '\\' && text.get(at..).is_some_and(|rest| rest.starts_with(r"\u{"));
        if begins_escape || (is_unwanted(char) && !is_pictured(before, char)) {
            let _ = write!(out, r"\u{{{:x}}}", u32::from(char));
        } else {
            out.push(char);
        }
        before = Some(char);
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The way back, which exists only to prove that nothing is lost.
    fn decode(shown: &str) -> String {
        let mut out = String::new();
        let mut rest = shown;
        while let Some((plain, escaped)) = rest.split_once(r"\u{") {
            let (hex, after) = escaped.split_once('}').unwrap();
            out.push_str(plain);
            out.push(char::from_u32(u32::from_str_radix(hex, 16).unwrap()).unwrap());
            rest = after;
        }
        out.push_str(rest);
        out
    }

    fn any_text() -> impl Strategy<Value = String> {
        let char = prop_oneof![
            any::<char>(),
            proptest::char::range('\0', '\u{ff}'),
            proptest::char::range('\u{2000}', '\u{206f}'),
            Just('\\'),
            Just('u'),
            Just('{'),
            Just('\u{fe0f}'),
            Just('⚠'),
        ];
        proptest::collection::vec(char, 0..64).prop_map(|chars| chars.into_iter().collect())
    }

    #[test]
    fn k1_what_acts_or_hides_is_shown() {
        for (text, shown) in [
            ("\u{1b}]0;title\u{7}", r"\u{1b}]0;title\u{7}"),
            ("a\rb", r"a\u{d}b"),
            ("\u{9b}31m", r"\u{9b}31m"),
            ("zero\u{200b}width", r"zero\u{200b}width"),
            ("tag\u{e0041}", r"tag\u{e0041}"),
            ("\u{feff}bom", r"\u{feff}bom"),
            ("soft\u{ad}hyphen", r"soft\u{ad}hyphen"),
            ("a\u{fe0f}", r"a\u{fe0f}"),
            ("⚠\u{fe0f}\u{fe0f}", "⚠\u{fe0f}\\u{fe0f}"),
            ("\u{1fffe}", r"\u{1fffe}"),
            ("plain, Größe, 漢字, עברית, 🦀", "plain, Größe, 漢字, עברית, 🦀"),
        ] {
            assert_eq!(visible(text), shown);
        }
        assert_eq!(visible_line("a\n\tb"), r"a\u{a}\u{9}b");
    }

    #[test]
    fn k1_bytes_that_are_not_text_are_shown() {
        assert_eq!(visible_bytes(b"ok\n"), "ok\n");
        assert_eq!(visible_bytes(b"a\x9b31m\xff"), r"a\x9b31m\xff");
        assert_eq!(visible_bytes(br"\x9b"), r"\u{5c}x9b");
    }

    proptest! {
        #[test]
        fn k1_nothing_hidden_comes_out_and_nothing_is_lost(text in any_text()) {
            let shown = visible(&text);
            let mut before = None;
            for char in shown.chars() {
                prop_assert!(
                    matches!(char, '\n' | '\t') || !is_hidden(char) || is_pictured(before, char)
                );
                before = Some(char);
            }
            prop_assert_eq!(decode(&shown), text.clone());
            let line = visible_line(&text);
            prop_assert!(!line.contains(['\n', '\t']));
            prop_assert_eq!(decode(&line), text);
        }

        #[test]
        fn k1_any_bytes_become_safe_text(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let shown = visible_bytes(&bytes);
            prop_assert_eq!(visible(&shown).contains('\u{1b}'), false);
            prop_assert!(!shown.chars().any(|char| char.is_control() && !matches!(char, '\n' | '\t')));
        }
    }
}
