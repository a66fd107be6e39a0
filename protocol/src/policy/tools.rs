//! The tools by name: which only look, which ask a person something, and what of their input a rule can speak about.
//!
//! Owns the exact lists (security H2): a name that is not here is of an unknown tool, and those may change something.
//! Refuses to guess from parts of a name. Names are compared as they are, byte by byte.

/// Tools that only look. Every other name, and every name not known, may change something (security H2).
pub const READ_ONLY: &[&str] = &["Glob", "Grep", "LS", "NotebookRead", "Read", "TodoRead"];

/// The tools that a rule on `Read` speaks about.
const READERS: &[&str] = &["Glob", "Grep", "LS", "NotebookRead", "Read"];
/// The tools that a rule on `Edit` speaks about.
const WRITERS: &[&str] = &["ApplyPatch", "Edit", "MultiEdit", "NotebookEdit", "Write"];
/// Tools that *are* a question: no rule and no mode can answer in a person's place.
const QUESTIONS: &[&str] = &["AskUserQuestion", "ExitPlanMode"];
/// Other tools that agents have; only for noticing typos.
const OTHERS: &[&str] = &[
    "Agent",
    "BashOutput",
    "EnterPlanMode",
    "KillShell",
    "Skill",
    "SlashCommand",
    "Task",
    "TodoRead",
    "TodoWrite",
    "WebFetch",
    "WebSearch",
];
/// The tool whose input is a line for the shell.
pub(super) const SHELL: &str = "Bash";

/// What of a tool's input a rule can speak about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Matter {
    /// A line for the shell.
    Command,
    /// Files, under this key of the input.
    Path(&'static str),
    /// Everything under a directory; without the key it is the session's.
    Search,
    /// Several files at once.
    Patch,
    /// Nothing: only the name counts.
    Name,
}

/// The tool only looks.
#[must_use]
pub fn is_read_only(tool: &str) -> bool {
    READ_ONLY.contains(&tool)
}

pub(super) fn is_question(tool: &str) -> bool {
    QUESTIONS.contains(&tool)
}

pub(super) fn matter(tool: &str) -> Matter {
    match tool {
        SHELL => Matter::Command,
        "Read" | "Edit" | "MultiEdit" | "Write" => Matter::Path("file_path"),
        "NotebookEdit" | "NotebookRead" => Matter::Path("notebook_path"),
        "LS" | "Glob" | "Grep" => Matter::Search,
        "ApplyPatch" => Matter::Patch,
        _ => Matter::Name,
    }
}

/// The tool that a rule names is the one that is called, or stands for it: `Read` for all that look into files, `Edit`
/// for all that change them.
pub(super) fn is_meant(named: &str, called: &str) -> bool {
    match named {
        "Read" => READERS.contains(&called),
        "Edit" => WRITERS.contains(&called),
        named => named == called,
    }
}

/// The known tool that a name was probably meant to be; `None` if it is one, or near none.
pub(super) fn nearest_tool(name: &str) -> Option<&'static str> {
    let known = || {
        let lists = [&[SHELL][..], READERS, WRITERS, QUESTIONS, OTHERS];
        lists.into_iter().flatten().copied()
    };
    if name.starts_with("mcp__") || known().any(|tool| tool == name) {
        return None;
    }
    known().find(|tool| tool.eq_ignore_ascii_case(name)).or_else(|| nearest(name, known()))
}

/// The known word that is nearest to `word`, if it is near.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|name| (distance(word, name), name))
        .filter(|(distance, name)| *distance <= name.len().div_ceil(3))
        .min()
        .map(|(_, name)| name)
}

/// Levenshtein's: how many letters to insert, delete or change.
fn distance(from: &str, to: &str) -> usize {
    let mut row: alloc::vec::Vec<usize> = (0..=to.chars().count()).collect();
    for (i, a) in from.chars().enumerate() {
        let (mut diagonal, mut left) = (i, i.saturating_add(1));
        for (j, b) in to.chars().enumerate() {
            let above = row.get(j.saturating_add(1)).copied().unwrap_or(usize::MAX);
            let changed = diagonal.saturating_add(usize::from(a != b));
            let best = changed.min(above.saturating_add(1)).min(left.saturating_add(1));
            if let Some(slot) = row.get_mut(j) {
                *slot = left;
            }
            (diagonal, left) = (above, best);
        }
        if let Some(slot) = row.last_mut() {
            *slot = left;
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_levenshteins() {
        for (from, to, is) in [
            ("", "abc", 3),
            ("abc", "", 3),
            ("kitten", "sitting", 3),
            ("prot", "port", 2),
            ("a", "a", 0),
        ] {
            assert_eq!(distance(from, to), is, "{from} {to}");
        }
    }

    #[test]
    fn a_typo_is_told_from_a_name_of_somebody_elses_tool() {
        assert_eq!(nearest_tool("Bsah"), Some("Bash"));
        assert_eq!(nearest_tool("bash"), Some("Bash"));
        assert_eq!(nearest_tool("WebFech"), Some("WebFetch"));
        for fine in ["Bash", "LS", "ApplyPatch", "mcp__x__reed", "DeployToProduction"] {
            assert_eq!(nearest_tool(fine), None, "{fine}");
        }
    }

    #[test]
    fn h2_each_read_only_tool_is_listed_once_and_sorted() {
        assert!(READ_ONLY.is_sorted() && READERS.is_sorted() && WRITERS.is_sorted());
        assert!(!READ_ONLY.iter().any(|tool| WRITERS.contains(tool)));
    }
}
