//! What a tool is about to do, as far as rules can speak about it: a line for the shell, or files.
//!
//! Owns the reading of tools' inputs; refuses to judge them. Invariant: an input that could be read in two ways, by us
//! and by the tool, is not read at all: other types, a key twice, keys that are not known where they could matter.

use alloc::borrow::Cow;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::path::Place;
use super::shell::{self, Simple};
use super::tools::{Matter, matter};
use crate::agent::json::{each, object, read};
use crate::wire::json;

/// Deeper inputs are not read.
const DEPTH_MAX: usize = 64;

/// What a tool's input is about.
#[derive(Debug)]
pub(super) enum Subject<'a> {
    /// A line for the shell, and its commands or why they are not known.
    Line { line: Cow<'a, str>, commands: Result<Vec<Simple>, &'static str> },
    /// These files.
    Files(Vec<Place>),
    /// What lies under these directories.
    Search(Vec<Place>),
    /// Nothing that a rule can speak about.
    Name,
}

/// All keys that say where or what. Unknown ones are in the way of a command only.
#[derive(Deserialize, Default)]
struct Input<'a> {
    #[serde(borrow, default)]
    command: Option<&'a RawValue>,
    #[serde(borrow, default)]
    cwd: Option<&'a RawValue>,
    #[serde(borrow, default)]
    shell: Option<&'a RawValue>,
    #[serde(borrow, default)]
    run_in_background: Option<&'a RawValue>,
    #[serde(borrow, default)]
    file_path: Option<&'a RawValue>,
    #[serde(borrow, default)]
    notebook_path: Option<&'a RawValue>,
    #[serde(borrow, default)]
    path: Option<&'a RawValue>,
    #[serde(borrow, default)]
    glob: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pattern: Option<&'a RawValue>,
    #[serde(borrow, default)]
    changes: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Change<'a> {
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    kind: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct ChangeKind<'a> {
    #[serde(borrow, default, alias = "movePath")]
    move_path: Option<Cow<'a, str>>,
}

/// Where a call works.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    pub(super) cwd: &'a str,
    pub(super) home: Option<&'a str>,
}

impl<'a> Subject<'a> {
    /// Reads the input of a call; the error says why it cannot be.
    pub(super) fn read(
        tool: &str,
        input: &'a str,
        ground: Ground<'_>,
    ) -> Result<Self, &'static str> {
        json::check(input, DEPTH_MAX).map_err(|_| "its input cannot be read")?;
        let raw: &RawValue = serde_json::from_str(input).map_err(|_| "its input cannot be read")?;
        let input: Input<'a> = object(Some(raw)).ok_or("its input is no object")?;
        match matter(tool) {
            Matter::Command => line(raw, &input, ground),
            Matter::Path(key) => files(&input, key, ground),
            Matter::Search => search(tool, &input, ground),
            Matter::Patch => patch(&input, ground),
            Matter::Name => Ok(Self::Name),
        }
    }
}

/// The input that a tool would get with this command or path as all that matters; `None` for other tools.
#[must_use]
pub fn input_of(tool: &str, text: &str) -> Option<String> {
    let text = serde_json::to_string(text).ok()?;
    match matter(tool) {
        Matter::Command => Some(format!(r#"{{"command":{text}}}"#)),
        Matter::Path(key) => Some(format!(r#"{{"{key}":{text}}}"#)),
        Matter::Search => Some(format!(r#"{{"path":{text},"pattern":""}}"#)),
        Matter::Patch => Some(format!(r#"{{"changes":[{{"path":{text},"kind":"update"}}]}}"#)),
        Matter::Name => None,
    }
}

/// How codex runs a line, in shells that read a plain one alike.
const SHELLS: &[&str] = &[
    "/bin/bash -lc",
    "/bin/bash -c",
    "/bin/sh -lc",
    "/bin/sh -c",
    "/bin/zsh -lc",
    "/bin/zsh -c",
    "/usr/bin/bash -lc",
    "/usr/bin/bash -c",
    "/usr/bin/sh -lc",
    "/usr/bin/sh -c",
    "/usr/bin/zsh -lc",
    "/usr/bin/zsh -c",
];

fn line<'a>(
    raw: &'a RawValue,
    input: &Input<'a>,
    ground: Ground<'_>,
) -> Result<Subject<'a>, &'static str> {
    let line: Cow<'a, str> = text(input.command)?.ok_or("its input has no `command`")?;
    // A directory further down may be another repository, whose settings run what they like: as `git -C` would be, it is
    // not what the rule speaks of.
    let is_elsewhere = text(input.cwd)?.is_some_and(|cwd| cwd != ground.cwd);
    let has_strange_shell = text(input.shell)?.is_some_and(|shell| !SHELLS.contains(&&*shell));
    let is_background = input.run_in_background.is_some_and(|raw| raw.get() != "false");
    let commands = if is_elsewhere {
        Err("it runs outside of the session's directory")
    } else if has_strange_shell {
        Err("nobody knows how its shell reads it")
    } else if is_background {
        Err("it runs in the background")
    } else if has_other_keys(raw) {
        Err("its input says more than the command")
    } else {
        shell::read(&line)
    };
    Ok(Subject::Line { line, commands })
}

/// There is something in a command's input that may change how it is run.
fn has_other_keys(raw: &RawValue) -> bool {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only whether there are others is asked")]
    struct Known<'a> {
        #[serde(borrow)]
        command: &'a RawValue,
        #[serde(borrow, default)]
        cwd: Option<&'a RawValue>,
        #[serde(borrow, default)]
        description: Option<&'a RawValue>,
        #[serde(borrow, default)]
        run_in_background: Option<&'a RawValue>,
        #[serde(borrow, default)]
        shell: Option<&'a RawValue>,
        #[serde(borrow, default)]
        timeout: Option<&'a RawValue>,
    }
    read::<Known<'_>>(Some(raw)).is_none()
}

/// All places that the input names; the tool's own key must be there.
fn files<'a>(
    input: &Input<'a>,
    key: &str,
    ground: Ground<'_>,
) -> Result<Subject<'a>, &'static str> {
    let mut places = Vec::new();
    let mut has_own = false;
    let named = [
        ("file_path", input.file_path),
        ("notebook_path", input.notebook_path),
        ("path", input.path),
    ];
    for (name, raw) in named {
        if let Some(path) = text(raw)? {
            has_own |= name == key;
            places.push(Place::read(&path, ground.cwd, ground.home));
        }
    }
    if has_own { Ok(Subject::Files(places)) } else { Err("its input names no file") }
}

fn search<'a>(
    tool: &str,
    input: &Input<'a>,
    ground: Ground<'_>,
) -> Result<Subject<'a>, &'static str> {
    let root = text(input.path)?.unwrap_or(Cow::Borrowed("."));
    let mut places = Vec::from([Place::read(&root, ground.cwd, ground.home)]);
    // What Glob looks for can lead out of where it looks. What Grep looks for is text.
    let globs = [text(input.glob)?, text(input.pattern)?.filter(|_| tool == "Glob")];
    for glob in globs.into_iter().flatten() {
        // `..` at the end: the directory that it looks in, as far as its names tell.
        if glob.starts_with(['/', '~']) {
            places.push(Place::read(&[&glob, "/.."].concat(), ground.cwd, ground.home));
        } else if glob.contains("..") || glob.contains('\\') {
            let whole = [&root, "/", &glob, "/.."].concat();
            places.push(Place::read(&whole, ground.cwd, ground.home));
        }
    }
    Ok(Subject::Search(places))
}

/// A patch of more files asks: nobody has looked at each of them against each rule.
const CHANGES_MAX: usize = 256;

fn patch<'a>(input: &Input<'a>, ground: Ground<'_>) -> Result<Subject<'a>, &'static str> {
    const UNREAD: &str = "its list of changes cannot be read";
    let raw = input.changes.filter(|raw| raw.get().starts_with('[')).ok_or(UNREAD)?;
    let mut places = Vec::new();
    let mut is_read = true;
    each(Some(raw), &mut |change| {
        if places.len() >= CHANGES_MAX {
            is_read = false;
            return;
        }
        let Some(change) = object::<Change<'_>>(Some(change)) else {
            is_read = false;
            return;
        };
        places.push(Place::read(&change.path, ground.cwd, ground.home));
        let Some(kind) = change.kind.filter(|kind| !kind.get().starts_with('"')) else { return };
        match object::<ChangeKind<'_>>(Some(kind)) {
            Some(ChangeKind { move_path: Some(path) }) => {
                places.push(Place::read(&path, ground.cwd, ground.home));
            }
            Some(ChangeKind { move_path: None }) => {}
            None => is_read = false,
        }
    });
    if is_read && !places.is_empty() { Ok(Subject::Files(places)) } else { Err(UNREAD) }
}

/// A string, or nothing; anything else is not read.
fn text(raw: Option<&RawValue>) -> Result<Option<Cow<'_, str>>, &'static str> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    match raw.filter(|raw| raw.get() != "null") {
        None => Ok(None),
        Some(raw) => serde_json::from_str::<Text<'_>>(raw.get())
            .map(|text| Some(text.0))
            .map_err(|_| "a part of its input is no text"),
    }
}
