//! The command line that codex shows, taken apart: `/bin/bash -lc 'ls -l'`.
//!
//! Owns the one form in which a script is taken out of its quotes; refuses to guess. What is not exactly three words, a
//! shell of this system, `-c` or `-lc`, and a script, stays whole: what is shown must be what runs (security H4).

use alloc::string::String;

/// Where shells of the system are. One that an agent could have put somewhere itself is not taken for one.
const PLACES: &[&str] = &["/bin/", "/usr/bin/", "/run/current-system/sw/bin/"];
const SHELLS: &[&str] = &["bash", "dash", "sh", "zsh"];

/// A script, and the shell that is to run it: `/bin/bash -lc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Script {
    pub(super) shell: String,
    pub(super) text: String,
}

/// Takes the script out of a command line.
pub(super) fn script(line: &str) -> Option<Script> {
    let mut rest = line;
    let shell = word(&mut rest)?;
    let flag = word(&mut rest)?;
    let text = word(&mut rest)?;
    let is_shell = PLACES.iter().filter_map(|place| shell.strip_prefix(place));
    let is_shell = is_shell.into_iter().any(|name| SHELLS.contains(&name));
    if !rest.is_empty() || !is_shell || !matches!(&*flag, "-c" | "-lc") {
        return None;
    }
    let mut shell = shell;
    shell.push(' ');
    shell.push_str(&flag);
    Some(Script { shell, text })
}

/// Takes the next word, and one space after it. `None` if a POSIX shell would make anything of it but its characters.
fn word(rest: &mut &str) -> Option<String> {
    let mut word = String::new();
    let mut is_word = false;
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            None => break,
            Some(' ') => {
                // Nothing but a word may follow.
                if chars.as_str().is_empty() {
                    return None;
                }
                break;
            }
            Some('\'') => loop {
                match chars.next()? {
                    '\'' => break,
                    other => word.push(other),
                }
            },
            Some('"') => in_double_quotes(&mut chars, &mut word)?,
            Some(c) if c.is_ascii_alphanumeric() || "-_./:=@%+,".contains(c) => word.push(c),
            Some(_) => return None,
        }
        is_word = true;
    }
    *rest = chars.as_str();
    is_word.then_some(word)
}

fn in_double_quotes(chars: &mut core::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match chars.next()? {
            '"' => return Some(()),
            '$' | '`' => return None,
            '\\' => match chars.next()? {
                escaped @ ('$' | '`' | '"' | '\\') => word.push(escaped),
                '\n' => {}
                other => word.extend(['\\', other]),
            },
            other => word.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::ToString;
    use proptest::prelude::*;

    #[test]
    fn scripts_are_taken_out_of_their_quotes() {
        for (line, shell, text) in [
            ("/bin/bash -lc ls", "/bin/bash -lc", "ls"),
            ("/bin/bash -lc 'echo hi > out.txt'", "/bin/bash -lc", "echo hi > out.txt"),
            ("/usr/bin/sh -c pwd", "/usr/bin/sh -c", "pwd"),
            ("/bin/zsh -lc ''", "/bin/zsh -lc", ""),
            (
                r#"/bin/bash -lc "echo 'it'\\''s' \"q\"
two""#,
                "/bin/bash -lc",
                "echo 'it'\\''s' \"q\"\ntwo",
            ),
            (r#"/bin/bash -c 'a'"'"'b'"#, "/bin/bash -c", "a'b"),
            (r#"/bin/bash -c "\$HOME \n \`""#, "/bin/bash -c", "$HOME \\n `"),
        ] {
            let script = script(line).unwrap();
            assert_eq!((&*script.shell, &*script.text), (shell, text), "{line}");
        }
    }

    #[test]
    fn h4_what_is_anything_else_stays_whole() {
        for line in [
            "",
            "ls",
            "bash -lc ls",
            "/bin/bash ls",
            "/bin/bash -lc",
            "/bin/bash -lc ",
            "/bin/bash -lc ls ",
            "/bin/bash -lc ls -l",
            "/bin/bash  -lc ls",
            " /bin/bash -lc ls",
            "/bin/bash -x -lc ls",
            "/bin/bash -ic ls",
            "/bin/bash -lc 'ls",
            "/bin/bash -lc \"ls",
            "/bin/bash -lc $X",
            "/bin/bash -lc \"$X\"",
            "/bin/bash -lc \"`x`\"",
            "/bin/bash -lc a;b",
            "/bin/bash -lc a\\ b",
            "/bin/bash -lc a\nb",
            "/bin/bash\t-lc ls",
            "/tmp/bash -lc ls",
            "/bin/../tmp/bash -lc ls",
            "/usr/bin/python3 -c ls",
            "/usr/bin/env -lc ls",
            "/bin/bash -lc ls\u{a0}x",
        ] {
            assert_eq!(script(line), None, "{line:?}");
        }
    }

    proptest! {
        #[test]
        fn h4_any_script_in_quotes_is_told_exactly(text in any::<String>()) {
            let quoted = format!("'{}'", text.replace('\'', "'\"'\"'"));
            let found = script(&format!("/bin/bash -lc {quoted}")).unwrap();
            prop_assert_eq!(&found.text, &text);
            let mut escaped = String::new();
            for c in text.chars() {
                if "$`\"\\".contains(c) { escaped.push('\\'); }
                escaped.push(c);
            }
            let found = script(&format!("/bin/bash -lc \"{escaped}\"")).unwrap();
            prop_assert_eq!(found.text, text);
        }

        #[test]
        fn any_line_is_read(line in "[ '\"\\\\$a-c/-]{0,20}") {
            if let Some(found) = script(&line) {
                prop_assert!(found.shell.starts_with('/'));
            }
            let _ = script(&line.to_string());
        }
    }
}
