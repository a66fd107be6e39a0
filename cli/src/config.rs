//! `config.toml`: what its owner may set, and errors that show the place.
//!
//! Owns the file's schema and the words for its mistakes; refuses to know how the file is opened safely (`daemon` does).
//! Invariant: nothing that stands in an `env` table is ever shown, also not in an error (security A8).

use std::collections::BTreeMap;
use std::fmt;

use clawd_protocol::access::token::Secret;
use clawd_protocol::policy::nearest;
use serde::Deserialize;
use serde::de::{SeqAccess, Visitor};

use crate::exit::{Exit, Failure};
pub(crate) use approvals::Approvals;
use excerpt::Mistake;

mod approvals;
mod excerpt;

/// The file's name in the data directory.
pub(crate) const FILE: &str = "config.toml";

/// Everything that may be set. A key that is not here is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// The machine's name, as devices see it.
    pub(crate) name: Option<String>,
    pub(crate) port: Option<u16>,
    /// One address or several.
    pub(crate) bind: Option<Bind>,
    /// Names beside localhost that may stand in `Host`.
    pub(crate) hosts: Vec<String>,
    /// Web origins that may connect.
    pub(crate) origins: Vec<String>,
    pub(crate) provider: Providers,
    pub(crate) approvals: Approvals,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Providers {
    pub(crate) claude: Provider,
    pub(crate) codex: Provider,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Provider {
    /// The program's absolute path.
    pub(crate) path: Option<String>,
    /// Added to its environment.
    pub(crate) env: BTreeMap<String, SecretValue>,
}

/// Addresses to listen on: one text, or a list of them.
#[derive(Debug)]
pub(crate) struct Bind(pub(crate) Vec<String>);

impl<'de> Deserialize<'de> for Bind {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = Bind;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an address in quotes, or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Bind, E> {
                Ok(Bind(vec![text.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Bind, A::Error> {
                let mut texts = Vec::new();
                while let Some(text) = list.next_element()? {
                    texts.push(text);
                }
                Ok(Bind(texts))
            }
        }
        from.deserialize_any(Words)
    }
}

/// A value that may be an API key.
#[derive(Debug)]
pub(crate) struct SecretValue(pub(crate) Secret);

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from).map(|text| Self(Secret::new(text)))
    }
}

/// Reads the text of a `config.toml`; `shown` is how the file is called in errors.
pub(crate) fn parse(source: &str, shown: &str) -> Result<ConfigFile, Failure> {
    let config: ConfigFile =
        toml::from_str(source).map_err(|error| explain(source, shown, &error))?;
    config.approvals.check(source).map_err(|mistake| excerpt::show(source, shown, &mistake))?;
    let programs = [("claude", &config.provider.claude), ("codex", &config.provider.codex)];
    for (name, provider) in programs {
        let path = provider.path.as_deref().unwrap_or("/");
        if !path.starts_with('/') {
            let why = format!("{shown}: provider.{name}.path is not absolute: `{path}`");
            return Err(Failure::new(Exit::Usage, "config", why)
                .hint(format!("write the whole path, as `command -v {name}` prints it")));
        }
    }
    Ok(config)
}

fn explain(source: &str, shown: &str, error: &toml::de::Error) -> Failure {
    let span = error.span().unwrap_or(0..0);
    let is_secret = is_in_env(source, span.start);
    let unknown = unknown_word(error.message());
    let what = match &unknown {
        Some((what, word, _)) => format!("unknown {what} `{word}`"),
        None if is_secret => "a value here must be a text in quotes".to_owned(),
        None => error.message().lines().next().unwrap_or("not TOML").to_owned(),
    };
    let near = unknown.as_ref().and_then(|(_, word, known)| nearest(word, known.iter().copied()));
    excerpt::show(source, shown, &Mistake { span, what, near, is_secret })
}

/// Under a header that ends in `env`, or on a line that speaks of it.
fn is_in_env(source: &str, at: usize) -> bool {
    let place = excerpt::Place::of(source, at);
    let before = source.get(..place.start).unwrap_or_default();
    let header = before.lines().rev().find(|line| line.trim_start().starts_with('['));
    header.is_some_and(|header| header.contains("env")) || place.line.contains("env")
}

/// The key or value and those that it could have been, out of serde's message.
fn unknown_word(message: &str) -> Option<(&'static str, &str, Vec<&str>)> {
    let key = message.strip_prefix("unknown field ").map(|rest| ("key", rest));
    let value = || message.strip_prefix("unknown variant ").map(|rest| ("value", rest));
    let (what, rest) = key.or_else(value)?;
    let mut names = rest.split('`').skip(1).step_by(2);
    Some((what, names.next()?, names.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(source: &str) -> Failure {
        parse(source, "config.toml").unwrap_err()
    }

    #[test]
    fn everything_that_may_be_set_is_read() {
        let config = parse(
            "port = 4301\nname = \"desk\"\nhosts = [\"desk.lan\"]\norigins = []\n\
             [provider.claude]\npath = \"/opt/claude\"\n[provider.claude.env]\nKEY = \"value\"\n",
            "config.toml",
        )
        .unwrap();
        assert_eq!(config.port, Some(4301));
        assert_eq!(config.provider.claude.path.as_deref(), Some("/opt/claude"));
        assert_eq!(config.provider.claude.env["KEY"].0.expose(), "value");
        assert!(parse("", "config.toml").is_ok());
    }

    #[test]
    fn addresses_are_one_text_or_a_list() {
        let bind = |source| parse(source, "config.toml").unwrap().bind.unwrap().0;
        assert_eq!(bind("bind = \"::1\""), ["::1"]);
        assert_eq!(bind("bind = [\"0.0.0.0\", \"::\"]"), ["0.0.0.0", "::"]);
        let failure = failure("bind = 7");
        assert!(failure.message.contains("expected an address in quotes"), "{}", failure.message);
    }

    #[test]
    fn an_unknown_key_is_shown_in_its_place_with_the_nearest_one() {
        let failure = failure("# mine\n\n  prot = 20\n");
        assert_eq!(failure.exit, Exit::Usage);
        assert_eq!(failure.message, "config.toml:3:3: unknown key `prot`");
        assert_eq!(
            &*failure.excerpt.unwrap(),
            "    3 |   prot = 20\n      |   ^^^^ did you mean `port`?"
        );
    }

    #[test]
    fn a_key_that_is_near_nothing_gets_no_advice() {
        let failure = failure("zzzzzzzz = 1\n");
        assert!(failure.excerpt.unwrap().ends_with("^^^^^^^^"));
    }

    #[test]
    fn wrong_types_and_broken_syntax_show_line_and_column() {
        assert!(failure("port = \"x\"").message.starts_with("config.toml:1:8: invalid type"));
        assert!(failure("port = 99999").message.starts_with("config.toml:1:8: "));
        assert!(failure("a = 1\nb = [1,\n").message.starts_with("config.toml:"));
        assert!(failure("[provider.claude]\npath = \"claude\"").message.contains("not absolute"));
    }

    #[test]
    fn a8_errors_near_secrets_do_not_show_them() {
        for source in [
            "[provider.claude.env]\nKEY = 12345678\n",
            "[provider.claude.env]\nKEY = \"12345678\n",
            "[provider.claude.env]\nKEY = 12345678 # mine\nOTHER = \"x\"\n",
            "[provider.claude]\nenv = { KEY = 12345678 }\n",
            "[provider.claude]\nenv.KEY = 12345678\n",
            "[provider.claude]\nenv = \"12345678\"\n",
        ] {
            let failure = failure(source);
            let shown = format!("{} {:?}", failure.message, failure.excerpt);
            assert!(!shown.contains("12345678"), "{shown}");
            assert!(shown.contains("config.toml:2:"), "{shown}");
        }
    }
}
