//! What an allowed line for the shell must be, by a second and dumber reading (security H5).
//!
//! Owns a generous policy and the property that the fuzzer and the tests hold it to; refuses to share code with the
//! core's reader: the two must come to the same.

use clawd_protocol::policy::{Mode, Policy, Rule, Verdict, input_of};

/// What the policy allows: words, and whether others may follow.
pub const ALLOWED: &[(&[&str], bool)] = &[
    (&["git", "status"], false),
    (&["git", "log"], true),
    (&["ls"], true),
    (&["cat"], true),
    (&["echo"], true),
    (&["find", "."], true),
    (&["cargo", "test"], true),
    (&["make", "test"], false),
];

/// Rules that allow [`ALLOWED`]; `rm` is denied.
#[must_use]
pub fn generous(mode: Mode) -> Policy {
    let allowed = ALLOWED.iter().map(|(words, is_open)| {
        let rule = format!("Bash({}{})", words.join(" "), if *is_open { " *" } else { "" });
        Rule::parse(Verdict::Allow, &rule).expect("a rule")
    });
    let denied = Rule::parse(Verdict::Deny, "Bash(rm *)").expect("a rule");
    Policy { mode, rules: allowed.chain([denied]).collect(), ..Policy::default() }
}

/// What the policy says to a line.
#[must_use]
pub fn verdict(policy: &Policy, line: &str) -> Verdict {
    let input = input_of("Bash", line).expect("a command's input");
    policy.judge("Bash", &input, "/repo").verdict
}

/// Judges a line; panics if it is allowed and should not be. The first byte chooses the mode.
pub fn check_line(bytes: &[u8]) {
    let Some((first, line)) = bytes.split_first() else { return };
    let line = String::from_utf8_lossy(line);
    let mode = [Mode::Destructive, Mode::All, Mode::None][usize::from(first % 3)];
    let verdict = verdict(&generous(mode), &line);
    // Where nothing asks, what is denied still is, or asks.
    if verdict == Verdict::Allow && mode == Mode::None {
        let has_it = |command: &Vec<String>| command.first().is_some_and(|word| word == "rm");
        assert!(!split(&line).iter().flatten().any(has_it), "{line:?}");
    } else if verdict == Verdict::Allow {
        let commands = split(&line).unwrap_or_else(|| panic!("not plain: {line:?}"));
        assert!(
            !commands.is_empty() && commands.iter().all(|command| is_allowed(command)),
            "{line:?}"
        );
    }
    // The same text as a rule: it is one or it is none, and says where.
    for verdict in [Verdict::Allow, Verdict::Deny] {
        if let Err(fault) = Rule::parse(verdict, &line) {
            assert!(fault.at <= line.len() && fault.len > 0 && !fault.why.is_empty());
        }
    }
}

/// These words are on the list, and none that follows is known to run or write something.
#[must_use]
pub fn is_allowed(command: &[String]) -> bool {
    ALLOWED.iter().any(|(words, is_open)| {
        command.len() >= words.len()
            && words.iter().zip(command).all(|(ours, theirs)| ours == theirs)
            && (*is_open || command.len() == words.len())
            && !command.iter().any(|word| is_bad(&command[0], word))
    })
}

/// This program runs or writes something when it is given this word.
fn is_bad(program: &str, word: &str) -> bool {
    let name = word.split('=').next().unwrap_or_default();
    match program {
        "find" => {
            ["-exec", "-execdir", "-ok", "-okdir", "-delete", "-fprint", "-fls"].contains(&word)
        }
        "git" if word.starts_with("--") && name.len() > 2 => {
            let bad = ["--output", "--exec-path", "--ext-diff", "--upload-pack", "--config-env"];
            bad.iter().any(|bad| bad.starts_with(name))
        }
        "git" => word.starts_with("-c") || word.starts_with("-O"),
        "cargo" => name == "--config" || word.starts_with("-Z"),
        _ => false,
    }
}

/// The commands of a line and their words; `None` if there is a byte outside of quotes that could mean more.
fn split(line: &str) -> Option<Vec<Vec<String>>> {
    // Quoted parts first: what stands in them becomes letters that nothing else is made of.
    let (mut plain, mut quote) = (String::new(), None);
    for char in line.chars() {
        match (quote, char) {
            (None, '\'' | '"') => {
                quote = Some(char);
                plain.push('\u{1}');
            }
            (Some(open), char) if char == open => quote = None,
            (Some('"'), '$' | '`' | '\\' | '!') => return None,
            (Some(_), ' '..='~') => {
                plain.push(char::from_u32(u32::from(char) + 0xe000).expect("a private character"));
            }
            (None, ' ' | '\t' | ';' | '&' | '|') => plain.push(char),
            (None, 'a'..='z' | 'A'..='Z' | '0'..='9') => plain.push(char),
            (None, '_' | '-' | '.' | '/' | ':' | ',' | '@' | '%' | '+' | '=') => plain.push(char),
            (None, '*' | '?' | '~' | '^') => plain.push(char),
            (_, _) => return None,
        }
    }
    let is_background = plain.replace("&&", "").contains('&');
    if quote.is_some() || is_background {
        return None;
    }
    let back = |char: char| match u32::from(char) {
        code @ 0xe000..=0xe0ff => char::from_u32(code - 0xe000),
        1 => None,
        _ => Some(char),
    };
    let commands = plain.replace("&&", ";").replace("||", ";").replace('|', ";");
    let commands = commands.split(';').map(|command| {
        let words = command.split([' ', '\t']).filter(|word| !word.is_empty());
        words.map(|word| word.chars().filter_map(back).collect()).collect::<Vec<String>>()
    });
    let commands: Vec<_> = commands.collect();
    commands.iter().all(|command| !command.is_empty()).then_some(commands)
}
