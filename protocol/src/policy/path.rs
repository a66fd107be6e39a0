//! Names of files in rules and in what tools are given.
//!
//! Owns patterns for paths and the comparison of names; refuses to look at the disk. So a rule speaks of names: where a
//! symbolic link leads is not known here (the documentation says so). Invariant: an allow holds only for a path that
//! is written plainly, and never for a file that decides what runs later.
//!
//! | in a pattern | stands for |
//! |---|---|
//! | `/…` | an absolute path |
//! | `~/…` | a path in the owner's home directory |
//! | anything else | a path in the session's directory |
//! | `*` | any part of one name |
//! | `**` as a whole name | any number of names, also none |

use alloc::borrow::Cow;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use super::shell::fold;
use crate::text::is_hidden;

/// Files whose content is run, or decides what is, without another question.
const DECIDING: &[&str] =
    &[".claude", ".codex", ".envrc", ".git", ".husky", ".idea", ".mcp.json", ".vscode"];
/// Longer paths are not compared; no system opens them.
const PATH_BYTES_MAX: usize = 4096;

/// Which paths a rule is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PathPattern {
    base: Base,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Base {
    Root,
    Home,
    Session,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    /// `**`.
    Any,
    /// A name, maybe with `*`.
    Name(String),
    /// A name of the directory that the pattern is relative to.
    Exactly(String),
}

/// A path that a tool was given, as far as its names tell where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    parts: Vec<String>,
    /// There is nothing in it that means something else to somebody else.
    is_plain: bool,
}

impl PathPattern {
    /// Reads a pattern. An error is the offset of what is wrong, and why.
    pub(super) fn parse(text: &str) -> Result<Self, (usize, &'static str)> {
        let (base, rest) = match text.strip_prefix("~/") {
            Some(rest) => (Base::Home, rest),
            None => text.strip_prefix('/').map_or((Base::Session, text), |rest| (Base::Root, rest)),
        };
        let mut at = text.len().saturating_sub(rest.len());
        let mut parts = Vec::new();
        for name in rest.split('/') {
            parts.push(Part::parse(name).map_err(|why| (at, why))?);
            at = at.saturating_add(name.len()).saturating_add(1);
        }
        Ok(Self { base, parts })
    }

    /// Whether the path is one of these; `None` where the pattern's base is not known. `exactly`: with regard to case.
    pub(super) fn matches(
        &self,
        place: &Place,
        cwd: &str,
        home: Option<&str>,
        exactly: bool,
    ) -> Option<bool> {
        let is_same = |pattern: &Part, name: &str| match exactly {
            true => pattern.is_named(name),
            false => pattern.folded().is_named(&fold(name)),
        };
        Some(is_match(&self.whole(cwd, home)?, &place.parts, is_same))
    }

    /// Whether something in this directory could be one of these.
    pub(super) fn is_in(&self, place: &Place, cwd: &str, home: Option<&str>) -> bool {
        let Some(parts) = self.whole(cwd, home) else { return true };
        let mut names = place.parts.iter();
        for part in &parts {
            match (part, names.next()) {
                (Part::Any, _) | (Part::Name(_) | Part::Exactly(_), None) => return true,
                (Part::Name(_) | Part::Exactly(_), Some(name)) => {
                    if !part.folded().is_named(&fold(name)) {
                        return false;
                    }
                }
            }
        }
        names.next().is_none()
    }

    /// The pattern from the root on; `None` if its base is not known.
    fn whole(&self, cwd: &str, home: Option<&str>) -> Option<Vec<Part>> {
        let base = match self.base {
            Base::Root => "/",
            Base::Home => home?,
            Base::Session => cwd,
        };
        let base = Place::read(base, "", None);
        let literal = base.parts.into_iter().map(Part::Exactly);
        base.is_plain.then(|| literal.chain(self.parts.iter().cloned()).collect())
    }
}

impl Part {
    fn parse(name: &str) -> Result<Self, &'static str> {
        match name {
            "" => Err("a name is empty"),
            "." | ".." => Err("`.` and `..` are resolved before comparing, so this never matches"),
            "**" => Ok(Self::Any),
            name if name.contains("**") => Err("`**` stands for whole names only"),
            name if name.contains(['?', '[', ']', '{', '}', '\\']) => {
                Err("only `*` and `**` stand for something else; `?`, `[]`, `{}` and `\\` do not")
            }
            name if name.chars().any(is_hidden) => Err("a character cannot be seen"),
            name => Ok(Self::Name(name.to_string())),
        }
    }

    fn folded(&self) -> Self {
        match self {
            Self::Any => Self::Any,
            Self::Name(name) => Self::Name(fold(name)),
            Self::Exactly(name) => Self::Exactly(fold(name)),
        }
    }

    /// Whether a single name is this one.
    fn is_named(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exactly(exact) => exact == name,
            Self::Name(pattern) => is_name_match(pattern, name),
        }
    }
}

impl Place {
    /// Reads what a tool was given. `.` and `..` are taken out; the latter only as far as names tell.
    pub(super) fn read(path: &str, cwd: &str, home: Option<&str>) -> Self {
        if path.len() > PATH_BYTES_MAX {
            return Self { parts: Vec::new(), is_plain: false };
        }
        let is_odd = path.trim() != path || path.is_empty() || path.chars().any(is_hidden);
        let (whole, is_home) = match (path.strip_prefix('~'), home) {
            (Some(rest), Some(home)) => (Cow::Owned([home, rest].concat()), true),
            (Some(_), None) => (Cow::Borrowed(path), true),
            (None, _) if path.starts_with('/') => (Cow::Borrowed(path), false),
            (None, _) => (Cow::Owned([cwd, "/", path].concat()), false),
        };
        let (mut parts, mut has_dots) = (Vec::<String>::new(), false);
        for name in whole.split('/') {
            match name {
                "" | "." => {}
                ".." => {
                    has_dots = true;
                    parts.pop();
                }
                name => parts.push(name.to_string()),
            }
        }
        let is_plain = whole.starts_with('/')
            && !(is_odd || is_home || has_dots)
            && !path.contains(['\\', '\0']);
        Self { parts, is_plain }
    }

    /// An allow may hold for it.
    pub(super) const fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// It lies in this directory.
    pub(super) fn is_within(&self, cwd: &str) -> bool {
        let dir = Self::read(cwd, "", None);
        dir.is_plain && self.parts.starts_with(&dir.parts)
    }

    /// Its content decides what is run later.
    pub(super) fn is_deciding(&self) -> bool {
        self.parts.iter().any(|name| DECIDING.contains(&fold(name).as_str()))
    }
}

/// Whether the names are what the pattern says: as with `*` in a text, going back no further than to the last `**`.
fn is_match(parts: &[Part], names: &[String], is_same: impl Fn(&Part, &str) -> bool) -> bool {
    let (mut part, mut name) = (0_usize, 0_usize);
    let mut last_any = None;
    while let Some(current) = names.get(name) {
        match (parts.get(part), last_any) {
            (Some(Part::Any), _) => {
                part = part.saturating_add(1);
                last_any = Some((part, name));
            }
            (Some(pattern), _) if is_same(pattern, current) => {
                part = part.saturating_add(1);
                name = name.saturating_add(1);
            }
            (_, Some((after_any, skipped))) => {
                let skipped = skipped.saturating_add(1);
                (part, name, last_any) = (after_any, skipped, Some((after_any, skipped)));
            }
            (_, None) => return false,
        }
    }
    parts.get(part..).is_some_and(|rest| rest.iter().all(|part| matches!(part, Part::Any)))
}

/// Whether a name is what a pattern with `*` says.
fn is_name_match(pattern: &str, name: &str) -> bool {
    let mut pieces = pattern.split('*');
    let first = pieces.next().unwrap_or_default();
    let Some(mut rest) = name.strip_prefix(first) else { return false };
    let mut pieces: Vec<&str> = pieces.collect();
    let Some(last) = pieces.pop() else { return rest.is_empty() };
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(pattern: &str, path: &str) -> bool {
        let place = Place::read(path, "/repo", Some("/home/me"));
        let pattern = PathPattern::parse(pattern).unwrap();
        pattern.matches(&place, "/repo", Some("/home/me"), true).unwrap()
    }

    #[test]
    fn patterns_stand_for_what_the_table_says() {
        for (pattern, path) in [
            ("src/**", "src/a/b.rs"),
            ("src/**", "/repo/src/a"),
            ("src/**", "src"),
            ("src/*.rs", "src/a.rs"),
            ("/etc/**", "/etc/ssh/config"),
            ("~/.ssh/**", "/home/me/.ssh/id"),
            ("**/.env", ".env"),
            ("**/.env", "a/b/.env"),
            ("**", "x"),
            ("a*b*c", "aXbYc"),
            ("**/a/**/b", "x/a/a/y/b"),
            ("a", "./a/."),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("src/**", "/src/a"),
            ("src/**", "src2/a"),
            ("src/**", "src/../x"),
            ("src/*.rs", "src/a/b.rs"),
            ("src/*", "src"),
            ("**/.env", "a/.env/b"),
            ("a*b*c", "acb"),
            ("**", "/etc"),
            ("ab*ba", "aba"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_that_never_matches_is_told_with_its_place() {
        for (pattern, at) in [
            ("", 0),
            ("/", 1),
            ("src/", 4),
            ("a//b", 2),
            ("../x", 0),
            ("src/./x", 4),
            ("~/", 2),
            ("a/b**", 2),
            ("src/[ab]", 4),
            ("a/\u{0}", 2),
            ("src/x?", 4),
        ] {
            assert_eq!(PathPattern::parse(pattern).unwrap_err().0, at, "{pattern:?}");
        }
    }

    #[test]
    fn only_plain_paths_are_plain() {
        let read = |path: &str| Place::read(path, "/repo", Some("/home/me"));
        for path in ["/repo/a", "a/b", "./a", "größe.md", "a b"] {
            assert!(read(path).is_plain(), "{path:?}");
        }
        for path in [
            "",
            "../a",
            "a/../b",
            "~/a",
            "~root/a",
            " a",
            "a ",
            "a\u{200b}b",
            "a\nb",
            "a\0",
            "a\\b",
        ] {
            assert!(!read(path).is_plain(), "{path:?}");
        }
        assert!(!Place::read("a", "repo", None).is_plain());
        assert!(read("a").is_within("/repo") && !read("/repo2/a").is_within("/repo"));
        assert!(read("a/.GIT/hooks/pre-commit").is_deciding() && !read("a/git").is_deciding());
    }
}
