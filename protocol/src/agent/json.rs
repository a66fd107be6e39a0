//! Pieces of JSON, read without building a tree.
//!
//! Owns lenient reading of strings, numbers and lists inside a line, and the writing of one; refuses to know any message. `serde_json` skips a
//! [`RawValue`] without recursion, and typed reading descends one level at a time, so nesting costs no stack.

use alloc::borrow::Cow;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A value that may be absent; `null` is absent too.
pub(crate) type Raw<'a> = Option<&'a RawValue>;

/// Reads a value as a type; `None` if it is absent or of another type.
pub(crate) fn read<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> Option<T> {
    serde_json::from_str(raw?.get()).ok()
}

/// Reads an object as a struct. (A derived reader would take a list of its fields' values as well.)
pub(crate) fn object<'a, T: Deserialize<'a>>(raw: Raw<'a>) -> Option<T> {
    read(raw.filter(|raw| raw.get().starts_with('{')))
}

/// Reads a string.
pub(crate) fn text(raw: Raw<'_>) -> Option<Cow<'_, str>> {
    read::<Text<'_>>(raw).map(|text| text.0)
}

/// The value is the JSON `true`.
pub(crate) fn is_true(raw: Raw<'_>) -> bool {
    raw.is_some_and(|raw| raw.get() == "true")
}

/// Tells every element of a list, or every value of an object.
pub(crate) fn each<'a>(raw: Raw<'a>, tell: &mut dyn FnMut(&'a RawValue)) {
    let Some(raw) = raw else { return };
    // What is neither a list nor an object has no elements; there is nobody to report that to.
    let _ = serde_json::Deserializer::from_str(raw.get()).deserialize_any(Each(tell));
}

/// The value is an object nested at most this deeply (itself is 1).
pub(crate) fn is_object_within(raw: &RawValue, depth_max: usize) -> bool {
    let text = raw.get();
    let mut depth = 0_usize;
    let mut in_string = false;
    let mut is_escaped = false;
    for byte in text.bytes() {
        match (in_string, byte) {
            (true, _) if is_escaped => is_escaped = false,
            (true, b'\\') => is_escaped = true,
            (_, b'"') => in_string = !in_string,
            (false, b'{' | b'[') => depth = depth.saturating_add(1),
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (true | false, _) => {}
        }
        if depth > depth_max {
            return false;
        }
    }
    text.starts_with('{')
}

/// An amount of dollars as millionths, from the number's text: to the nearest, never negative, at most `u64::MAX`.
pub(crate) fn micro_usd(number: &str) -> Option<u64> {
    let (mantissa, exponent) = match number.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i32>().ok()?),
        None => (number, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    // Keep those digits that stand before the point once it has moved six places (and the exponent) to the right.
    let kept =
        i64::try_from(whole.len()).ok()?.saturating_add(i64::from(exponent)).saturating_add(6);
    let mut digits = whole.chars().chain(fraction.chars()).filter_map(|c| c.to_digit(10));
    let mut micro = 0_u64;
    for _ in 0..kept {
        let digit = digits.next();
        if (digit.is_none() && micro == 0) || micro == u64::MAX {
            break;
        }
        micro = micro.saturating_mul(10).saturating_add(u64::from(digit.unwrap_or(0)));
    }
    // claude adds up floats: 0.0024 may well be written as 0.0023999999999999998.
    let is_up = kept >= 0 && digits.next().is_some_and(|digit| digit >= 5);
    Some(micro.saturating_add(u64::from(is_up)))
}

/// One line. Separators that a reader of lines might break at can only stand inside strings here (a raw input may have
/// blanks between its tokens, and there a space means the same), where an escape says the same.
pub(crate) fn line(message: &impl Serialize) -> Vec<u8> {
    // Strings, options and raw JSON cannot fail to be written; nothing is a safer line than half of one.
    let json = serde_json::to_string(message).unwrap_or_default();
    let mut line = String::with_capacity(json.len().saturating_add(1));
    for piece in json.split_inclusive(['\n', '\r', '\u{2028}', '\u{2029}']) {
        let rest = piece.trim_end_matches(['\n', '\r', '\u{2028}', '\u{2029}']);
        line.push_str(rest);
        line.push_str(match piece.chars().next_back() {
            Some('\n' | '\r') => " ",
            Some('\u{2028}') => "\\u2028",
            Some('\u{2029}') => "\\u2029",
            Some(_) | None => "",
        });
    }
    line.push('\n');
    line.into_bytes()
}

/// A string in which half a surrogate pair, which JSON can say and UTF-8 cannot, became U+FFFD.
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_bytes(TextVisitor).map(Text)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Cow<'de, str>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Self::Value, E> {
        Ok(String::from_utf8_lossy(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Self::Value, E> {
        Ok(Cow::Owned(String::from_utf8_lossy(bytes).into_owned()))
    }
}

struct Each<'t, 'a>(&'t mut dyn FnMut(&'a RawValue));

impl<'de> Visitor<'de> for Each<'_, 'de> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list or an object")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while let Some(element) = list.next_element::<&'de RawValue>()? {
            (self.0)(element);
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        while let Some((_, value)) = object.next_entry::<IgnoredAny, &'de RawValue>()? {
            (self.0)(value);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn raw(json: &str) -> &RawValue {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn dollars_become_millionths_without_floats() {
        let table = [
            ("0", Some(0)),
            ("0.0008", Some(800)),
            ("8e-4", Some(800)),
            ("1.06E-3", Some(1060)),
            ("12.3456789", Some(12_345_679)),
            ("0.0023999999999999998", Some(2400)),
            ("0.0024000000000000002", Some(2400)),
            ("5e-7", Some(1)),
            ("9e-8", Some(0)),
            ("1e2", Some(100_000_000)),
            ("1.5e+1", Some(15_000_000)),
            ("1e-9", Some(0)),
            ("1e999999999", Some(u64::MAX)),
            ("0e999999999", Some(0)),
            ("1e-999999999", Some(0)),
            ("1e9999999999", None),
            ("-1", None),
            ("\"1\"", None),
            ("", None),
        ];
        for (number, micro) in table {
            assert_eq!(micro_usd(number), micro, "{number}");
        }
    }

    #[test]
    fn strings_are_unescaped_and_never_refused() {
        assert_eq!(text(Some(raw(r#""a\n\u00e9""#))).unwrap(), "a\né");
        assert_eq!(text(Some(raw(r#""x\ud83dy""#))).unwrap(), "x\u{fffd}\u{fffd}\u{fffd}y");
        assert_eq!(text(Some(raw("[1]"))), None);
        assert_eq!(text(None), None);
    }

    #[test]
    fn depth_is_counted_outside_strings() {
        assert!(is_object_within(raw(r#"{"a":{"b":[]}}"#), 3));
        assert!(!is_object_within(raw(r#"{"a":{"b":[]}}"#), 2));
        assert!(is_object_within(raw(r#"{"a":"{{{{\"{{{{"}"#), 1));
        assert!(!is_object_within(raw("[]"), 3));
        let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
        assert!(!is_object_within(raw(&deep), 64));
    }

    #[test]
    fn elements_of_lists_and_objects_are_told() {
        let mut seen = Vec::new();
        each(Some(raw(r#"[1,"b",{"c":[]}]"#)), &mut |e| seen.push(e.get().to_string()));
        each(Some(raw(r#"{"a":1,"b":[2]}"#)), &mut |e| seen.push(e.get().to_string()));
        each(Some(raw("3")), &mut |e| seen.push(e.get().to_string()));
        assert_eq!(seen, ["1", "\"b\"", "{\"c\":[]}", "1", "[2]"]);
    }

    proptest! {
        #[test]
        fn whole_millionths_are_exact(micro in 0..u64::from(u32::MAX)) {
            let number = format!("{}.{:06}", micro / 1_000_000, micro % 1_000_000);
            prop_assert_eq!(micro_usd(&number), Some(micro));
            prop_assert_eq!(micro_usd(&format!("{micro}e-6")), Some(micro));
        }

        #[test]
        fn any_text_is_a_number_or_none(number in "[-+0-9.eE]{0,12}") {
            let _ = micro_usd(&number);
        }
    }
}
