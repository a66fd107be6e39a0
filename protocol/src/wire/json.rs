//! The gate for JSON of strangers: every request passes here before anything reads a field of it (security B6).
//!
//! Owns the question whether a text is one JSON value (RFC 8259) that all readers understand alike; refuses to know
//! what it says. Invariants: one pass, no tree; no deeper than told; a text is let through only if each object has
//! each key once *after* unescaping, for of two equal keys one reader takes the first and another the last.
//!
//! The grammar is `serde_json`'s own, so nothing gets in here that would fail behind.

use alloc::borrow::{Cow, ToOwned};
use alloc::collections::BTreeSet;
use core::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum JsonFault {
    /// Not JSON, a number out of range, or a key that `serde_json` gives a meaning of its own.
    Syntax,
    /// Arrays and objects in each other beyond the limit.
    TooDeep,
    /// An object has a key twice.
    DuplicateKey,
    /// Something follows the value.
    TrailingData,
}

impl JsonFault {
    /// As a sentence goes on that begins with "the message".
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Syntax => "is not JSON",
            Self::TooDeep => "is nested too deeply",
            Self::DuplicateKey => "has a key twice in one object",
            Self::TrailingData => "has something after its JSON value",
        }
    }
}

/// One deeper `serde_json` stops by itself, and does not say that this was why.
const DEPTH_MAX: usize = 126;

/// With the feature `raw_value`, an object that begins with this key is read as the JSON *inside the text* behind it.
/// That would be a second document which nobody has checked.
const RAW_VALUE: &str = "$serde_json::private::RawValue";

/// Checks that `text` is one JSON value with at most `depth_max` arrays and objects in each other.
pub(crate) fn check(text: &str, depth_max: usize) -> Result<(), JsonFault> {
    let mut fault = JsonFault::Syntax;
    let mut json = serde_json::Deserializer::from_str(text);
    let gate = Gate { depth_left: depth_max.min(DEPTH_MAX), fault: &mut fault };
    match gate.deserialize(&mut json) {
        Ok(()) => json.end().map_err(|_| JsonFault::TrailingData),
        Err(_) => Err(fault),
    }
}

/// Lets one value pass.
struct Gate<'f> {
    depth_left: usize,
    /// Why, should it fail.
    fault: &'f mut JsonFault,
}

impl Gate<'_> {
    fn refuse<E: Error>(&mut self, fault: JsonFault) -> E {
        *self.fault = fault;
        E::custom("refused")
    }

    fn enter<E: Error>(&mut self) -> Result<(), E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => {
                self.depth_left = depth_left;
                Ok(())
            }
            None => Err(self.refuse(JsonFault::TooDeep)),
        }
    }

    const fn inner(&mut self) -> Gate<'_> {
        Gate { depth_left: self.depth_left, fault: self.fault }
    }
}

impl<'de> DeserializeSeed<'de> for Gate<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Gate<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut items: A) -> Result<(), A::Error> {
        self.enter()?;
        while items.next_element_seed(self.inner())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut entries: A) -> Result<(), A::Error> {
        self.enter()?;
        let mut seen = Seen::default();
        while let Some(Key(key)) = entries.next_key()? {
            if key == RAW_VALUE {
                return Err(self.refuse(JsonFault::Syntax));
            }
            if !seen.insert(key) {
                return Err(self.refuse(JsonFault::DuplicateKey));
            }
            entries.next_value_seed(self.inner())?;
        }
        Ok(())
    }
}

/// A key, unescaped; a copy only if it had escapes.
struct Key<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }

        from.deserialize_str(Text)
    }
}

/// The keys of one object so far. Most objects have few and plain ones: those are compared in place, nothing is
/// allocated. Only what is beyond goes into a set, so that a huge object costs no square of its size.
#[derive(Default)]
struct Seen<'de> {
    first: [&'de str; 8],
    count: usize,
    more: BTreeSet<Cow<'de, str>>,
}

impl<'de> Seen<'de> {
    /// Whether the key is new.
    fn insert(&mut self, key: Cow<'de, str>) -> bool {
        if self.first.iter().take(self.count).any(|other| **other == *key) {
            return false;
        }
        match (key, self.first.get_mut(self.count)) {
            (Cow::Borrowed(key), Some(slot)) if !self.more.contains(key) => {
                *slot = key;
                self.count += 1;
                true
            }
            (key, _) => self.more.insert(key),
        }
    }
}

#[cfg(test)]
mod tests;
