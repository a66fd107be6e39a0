//! Parameters of one call, read by name.
//!
//! Owns leniency towards clients, here and nowhere else: a key is taken in camelCase and in snake_case, and missing,
//! `null` and `[]` mean "no parameters". Every error names the field. Refuses to know the methods.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::rpc::RpcError;

/// The members of a params object, in the order sent.
#[derive(Debug, Default)]
pub(crate) struct Params<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'a> Params<'a> {
    /// Reads the raw value of `params`.
    pub(crate) fn read(raw: Option<&'a RawValue>) -> Result<Self, RpcError> {
        let Some(raw) = raw else { return Ok(Self::default()) };
        match raw.get() {
            "null" | "[]" => Ok(Self::default()),
            text if text.starts_with('{') => serde_json::from_str(text)
                .map_err(|_| RpcError::bad_params("params", "is not a JSON object")),
            _ => Err(RpcError::bad_params("params", "must be an object")),
        }
    }

    fn raw(&self, name: &str) -> Result<Option<&'a RawValue>, RpcError> {
        let mut found = None;
        for (key, value) in &self.0 {
            if is_same_key(name, key) && found.replace(*value).is_some() {
                return Err(RpcError::bad_params(name, "is given twice"));
            }
        }
        Ok(found.filter(|value| value.get() != "null"))
    }

    /// A text, if given.
    pub(crate) fn text(&self, name: &str) -> Result<Option<String>, RpcError> {
        self.typed(name, "must be a string")
    }

    /// A text or `null`, if given: `null` takes away what there was.
    pub(crate) fn maybe_text(&self, name: &str) -> Result<Option<Option<String>>, RpcError> {
        if self.raw(name)?.is_some() {
            return Ok(self.text(name)?.map(Some));
        }
        Ok(self.0.iter().any(|(key, _)| is_same_key(name, key)).then_some(None))
    }

    /// A text that must be given.
    pub(crate) fn need_text(&self, name: &str) -> Result<String, RpcError> {
        self.text(name)?.ok_or_else(|| RpcError::bad_params(name, "is missing"))
    }

    /// The JSON text of a value that must be given.
    pub(crate) fn need_raw(&self, name: &str) -> Result<&'a str, RpcError> {
        let raw = self.raw(name)?.ok_or_else(|| RpcError::bad_params(name, "is missing"))?;
        Ok(raw.get())
    }

    /// An id or word in a string, if given.
    pub(crate) fn word<T: FromStr>(&self, name: &str, what: &str) -> Result<Option<T>, RpcError> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        match text.parse() {
            Ok(value) => Ok(Some(value)),
            Err(_) => Err(RpcError::bad_params(name, &format!("must be {what}"))),
        }
    }

    /// An id or word that must be given.
    pub(crate) fn need_word<T: FromStr>(&self, name: &str, what: &str) -> Result<T, RpcError> {
        self.word(name, what)?.ok_or_else(|| RpcError::bad_params(name, "is missing"))
    }

    /// A whole number, if given.
    pub(crate) fn count(&self, name: &str) -> Result<Option<u64>, RpcError> {
        self.typed(name, "must be a whole number, 0 or more")
    }

    /// A boolean; `false` if not given.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, RpcError> {
        Ok(self.maybe_flag(name)?.unwrap_or(false))
    }

    /// A boolean, if given.
    pub(crate) fn maybe_flag(&self, name: &str) -> Result<Option<bool>, RpcError> {
        self.typed(name, "must be true or false")
    }

    /// Texts by name, if given: the names as sent, each once.
    pub(crate) fn texts(&self, name: &str) -> Result<Option<Vec<(String, String)>>, RpcError> {
        let Some(raw) = self.raw(name)? else { return Ok(None) };
        let must = "must be an object of strings";
        let members: Params<'_> =
            serde_json::from_str(raw.get()).map_err(|_| RpcError::bad_params(name, must))?;
        let mut texts: Vec<(String, String)> = Vec::new();
        for (key, value) in &members.0 {
            let text =
                serde_json::from_str(value.get()).map_err(|_| RpcError::bad_params(name, must))?;
            if texts.iter().any(|(before, _)| before == key) {
                return Err(RpcError::bad_params(name, "has a name twice"));
            }
            texts.push((key.clone().into_owned(), text));
        }
        Ok(Some(texts))
    }

    fn typed<T: Deserialize<'a>>(&self, name: &str, must: &str) -> Result<Option<T>, RpcError> {
        let Some(raw) = self.raw(name)? else { return Ok(None) };
        serde_json::from_str(raw.get()).map(Some).map_err(|_| RpcError::bad_params(name, must))
    }
}

/// `sessionId` is `sessionId` and `session_id`.
fn is_same_key(camel: &str, given: &str) -> bool {
    let mut given = given.bytes();
    for byte in camel.bytes() {
        let next = given.next();
        let is_same = next == Some(byte)
            || (byte.is_ascii_uppercase()
                && next == Some(b'_')
                && given.next() == Some(byte.to_ascii_lowercase()));
        if !is_same {
            return false;
        }
    }
    given.next().is_none()
}

struct Members;

impl<'de> Visitor<'de> for Members {
    type Value = Params<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(Key(key)) = map.next_key()? {
            members.push((key, map.next_value()?));
        }
        Ok(Params(members))
    }
}

impl<'de> Deserialize<'de> for Params<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Members)
    }
}

/// A key: borrowed where it has no escapes.
#[derive(serde::Deserialize)]
#[serde(transparent)]
pub(super) struct Key<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(json: &str, test: impl FnOnce(&Params<'_>) -> T) -> T {
        let raw: &RawValue = serde_json::from_str(json).unwrap();
        test(&Params::read(Some(raw)).unwrap())
    }

    #[test]
    fn keys_are_taken_in_both_casings() {
        for json in [r#"{"sessionId":"x"}"#, r#"{"session_id":"x"}"#, r#"{"sessio\u006eId":"x"}"#] {
            assert_eq!(with(json, |p| p.text("sessionId")).unwrap().unwrap(), "x");
        }
        assert_eq!(with(r#"{"sessionid":"x","session":1}"#, |p| p.text("sessionId")), Ok(None));
    }

    #[test]
    fn errors_name_the_field() {
        let twice = with(r#"{"sessionId":"x","session_id":"y"}"#, |p| p.text("sessionId"));
        assert!(twice.unwrap_err().message.contains("`sessionId` is given twice"));
        let wrong = with(r#"{"limit":-1}"#, |p| p.count("limit"));
        assert!(wrong.unwrap_err().message.contains("`limit` must be a whole number"));
        let missing = with("{}", |p| p.need_text("title"));
        assert!(missing.unwrap_err().message.contains("`title` is missing"));
    }

    #[test]
    fn nothing_means_no_parameters() {
        for json in ["null", "[]", "{}"] {
            assert_eq!(with(json, |p| p.text("x")), Ok(None));
        }
        let raw: &RawValue = serde_json::from_str("[1]").unwrap();
        assert!(Params::read(Some(raw)).is_err());
    }
}
