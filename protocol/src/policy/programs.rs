//! Programs that can be told to run other programs, and how much of a command a rule must pin down because of it.
//!
//! Owns four lists; refuses to know rules. A program that is on none of them is taken at its word: a rule that ends in
//! `*` allows it with any further words, and what it does with them is for the owner to know. The lists are compared
//! with the last part of a path, in any case, without a version (`/usr/bin/Python3.12` is `python`).

use alloc::string::String;
use alloc::vec::Vec;

use super::shell::{Word, fold};

/// What a program does with its words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// They are another command, or change what the shell does with the next one. Never allowed by a rule.
    Runner,
    /// The first is a file with a program, the others are that program's.
    Interpreter,
    /// Some of them can be commands, in too many ways: allowed only word by word.
    Exact,
    /// The first says what it does.
    Subcommands(&'static Risks),
    /// Some are known to run commands or to write files.
    Careful(&'static Risks),
    /// Nothing is known against it.
    Plain,
}

/// Words of a program that a `*` never stands for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Risks {
    program: &'static str,
    /// Long options, also when shortened.
    options: &'static str,
    /// Short options, also when bundled.
    letters: &'static str,
    /// What it does that is allowed only word by word.
    exact: &'static str,
}

/// Shells, and what runs a command that is given to it.
const RUNNERS: &str = "\
    ash at bash batch busybox caffeinate chroot chrt chpst command coproc csh cu dash \
    dbus-run-session doas elvish entr env eval exec expect fakeroot fish flatpak-spawn \
    flock gdb hyperfine ionice ksh lldb ltrace mksh nice nohup noglob nocorrect \
    nsenter nu numactl oksh parallel pdksh perf pkexec proot pwsh powershell rbash rlwrap \
    rsh rtld runcon runuser screen script setarch setpriv setsid sg sh socat ssh sshpass \
    start-stop-daemon stdbuf strace su sudo systemd-run taskset tclsh tcsh time timeout \
    tmux torsocks toybox unbuffer unshare valgrind watch watchexec xargs xterm xvfb-run \
    yash zsh";

/// What the shell itself has: it changes what the next command means, or takes code.
const BUILTINS: &str = "\
    . alias autoload bind bindkey builtin cd chdir compgen complete declare disable \
    emulate enable export fc fg bg float functions getopts hash history integer let local \
    mapfile newgrp popd pushd read readarray readonly rehash sched set setopt shopt source \
    suspend trap typeset ulimit umask unalias unset unsetopt vared zcompile zle zmodload \
    zparseopts zstyle";

/// Words of the shell's grammar.
const GRAMMAR: &str = "\
    case do done elif else end esac fi for foreach function if in repeat select then until \
    while";

const INTERPRETERS: &str = "\
    bunx jruby julia lua luajit node nodejs npx perl php pipx pnpx pypy python raku \
    rscript ruby ts-node tsx uvx";

const EXACT: &str = "\
    ant awk bazel bc cc clang clang++ cmake cpio crontab dc ed emacs emacsclient ex g++ \
    gawk gcc gmake gradle gradlew gsed guile ghci info irb java jshell just ld less m4 \
    mail mailx make man mawk meson more most mvn mvnw mysql nano nawk nc ncat netcat ninja \
    nvim openssl osascript pico pg printf psql rake rsync rustc scp sed sftp split sqlite \
    ssh-keygen systemctl tar bsdtar gtar tcpdump telnet test tsc vi view vim vimdiff \
    zip 7z";

const SUBCOMMANDS: &[Risks] = &[
    Risks {
        program: "git",
        options: "\
            config config-env exec exec-path ext-diff extcmd git-dir no-index \
            open-files-in-pager output paginate receive-pack separate-git-dir template \
            textconv upload-pack work-tree",
        letters: "cCOux",
        exact: "\
            am alias bisect bugreport config credential daemon difftool fast-import \
            filter-branch for-each-repo gui help hook init instaweb maintenance mergetool \
            p4 remote send-email submodule svn update-index var web--browse worktree",
    },
    Risks {
        program: "cargo",
        options: "config manifest-path exec git path registry index",
        letters: "CZ",
        exact: "config install login owner publish watch",
    },
    Risks { program: "npm", options: NODE_OPTIONS, letters: "cCg", exact: NODE_EXACT },
    Risks { program: "pnpm", options: NODE_OPTIONS, letters: "cCg", exact: NODE_EXACT },
    Risks { program: "yarn", options: NODE_OPTIONS, letters: "cCg", exact: NODE_EXACT },
    Risks { program: "bun", options: NODE_OPTIONS, letters: "cCegpr", exact: NODE_EXACT },
    Risks { program: "deno", options: "allow config import-map", letters: "Ac", exact: DENO_EXACT },
    Risks {
        program: "go",
        options: "\
            asmflags C compiler exec gccgoflags gcflags ldflags modfile o overlay pkgdir \
            toolexec vettool w",
        letters: "",
        exact: "env generate get install run tool",
    },
    Risks { program: "docker", options: "config host context", letters: "Hcv", exact: BOX_EXACT },
    Risks { program: "podman", options: "config url connection", letters: "cv", exact: BOX_EXACT },
    Risks { program: "kubectl", options: "kubeconfig server", letters: "s", exact: BOX_EXACT },
    Risks {
        program: "uv",
        options: "config-file with directory project",
        letters: "",
        exact: DENO_EXACT,
    },
    Risks { program: "poetry", options: "directory project", letters: "CP", exact: DENO_EXACT },
];

const NODE_OPTIONS: &str = "\
    call config cwd dir editor eval git global globalconfig node-arg node-options package \
    prefix preload print require script-shell shell userconfig use-yarnrc viewer";
const NODE_EXACT: &str = "config create dlx edit exec explore help init node repl set x";
const DENO_EXACT: &str = "eval install repl run task tool x";
const BOX_EXACT: &str = "compose config context cp debug exec plugin run";

const CAREFUL: &[Risks] = &[
    Risks {
        program: "find",
        options: "\
            delete exec execdir files0-from fls fprint fprint0 fprintf ok okdir",
        letters: "",
        exact: "",
    },
    Risks { program: "fd", options: "exec exec-batch", letters: "xX", exact: "" },
    Risks { program: "fdfind", options: "exec exec-batch", letters: "xX", exact: "" },
    Risks { program: "rg", options: "hostname-bin pre search-zip", letters: "z", exact: "" },
    Risks {
        program: "sort",
        options: "compress-program output temporary",
        letters: "oT",
        exact: "",
    },
    Risks { program: "tree", options: "output", letters: "oR", exact: "" },
    Risks {
        program: "wget",
        options: "config execute output use-askpass",
        letters: "eOPo",
        exact: "",
    },
    Risks {
        program: "curl",
        options: "config output remote-name engine",
        letters: "KoO",
        exact: "",
    },
];

/// What kind of program this name is of.
pub(super) fn kind(program: &str) -> Kind {
    let name = base_name(program);
    let bare = name
        .trim_end_matches(|char: char| char.is_ascii_digit() || matches!(char, '.' | '-' | '_'));
    let is = |known: &str| known == name || (known == bare && !bare.is_empty());
    let in_list = |list: &str| list.split_ascii_whitespace().any(is);
    let risks = |table: &'static [Risks]| table.iter().find(|row| is(row.program));
    let is_loader = name.starts_with("ld-linux") || name.starts_with("ld.so");
    if in_list(RUNNERS) || in_list(BUILTINS) || in_list(GRAMMAR) || is_loader {
        return Kind::Runner;
    }
    if in_list(INTERPRETERS) {
        return Kind::Interpreter;
    }
    if in_list(EXACT) {
        return Kind::Exact;
    }
    if let Some(row) = risks(SUBCOMMANDS) {
        return Kind::Subcommands(row);
    }
    risks(CAREFUL).map_or(Kind::Plain, Kind::Careful)
}

impl Kind {
    /// It may run what its words say: a rule that forbids cannot see through it.
    pub(super) const fn is_opaque(self) -> bool {
        matches!(self, Self::Runner | Self::Interpreter | Self::Exact)
    }

    /// Why a rule may not allow these words, with or without any further ones.
    pub(super) fn objection(self, words: &[Word], is_open: bool) -> Option<&'static str> {
        let second = words.get(1).map(|word| word.text.as_str());
        let is_named = |word: &str| !word.starts_with('-') && !word.is_empty();
        match self {
            Self::Runner => {
                Some("runs or changes other commands, so allowing it would allow anything")
            }
            Self::Interpreter => match (second, words.get(2)) {
                (Some("-m"), Some(module)) if is_named(&module.text) => None,
                (Some(script), _) if is_named(script) => None,
                (Some(option), _) if !is_open && option != "-" => None,
                (Some(_) | None, _) => Some("runs any program, so the rule must name which"),
            },
            Self::Exact if is_open => Some(
                "can be told by its words to run anything, so the rule must name them all, without `*`",
            ),
            Self::Subcommands(risks) if is_open => match second {
                Some(sub) if has(risks.exact, sub) => {
                    Some("can run anything here, so the rule must name all words, without `*`")
                }
                Some(sub) if is_named(sub) => None,
                Some(_) | None => Some("does too many things, so the rule must name which"),
            },
            Self::Exact | Self::Subcommands(_) | Self::Careful(_) | Self::Plain => None,
        }
    }

    /// A `*` does not stand for these words.
    pub(super) fn is_risky(self, words: &[Word]) -> bool {
        match self {
            Self::Subcommands(risks) | Self::Careful(risks) => {
                words.iter().any(|word| risks.forbids(&word.text))
            }
            Self::Runner | Self::Interpreter | Self::Exact | Self::Plain => false,
        }
    }
}

impl Risks {
    fn forbids(&self, word: &str) -> bool {
        // `ext::sh -c …` is a git remote that is a command.
        if self.program == "git" && word.contains("::") {
            return true;
        }
        let Some(option) = word.strip_prefix('-') else { return false };
        let (long, is_long) = option.strip_prefix('-').map_or((option, false), |long| (long, true));
        let name = long.split('=').next().unwrap_or(long);
        match self.letters {
            // No short options: `-exec` is one word, and is never shortened.
            "" => has(self.options, name),
            // Programs take the beginning of a long option for the whole.
            _ if is_long => {
                let mut options = self.options.split_ascii_whitespace();
                !name.is_empty() && options.any(|known| known.starts_with(name))
            }
            letters => option.contains(|char| letters.contains(char)),
        }
    }
}

fn has(list: &str, wanted: &str) -> bool {
    list.split_ascii_whitespace().any(|word| word == wanted)
}

/// The last part of a path, as a file system that ignores case has it.
pub(super) fn base_name(program: &str) -> String {
    fold(program.rsplit('/').next().unwrap_or(program))
}

/// The letters of bundled short options (`-rf`), sorted; `None` if the word is something else.
pub(super) fn letters(word: &str) -> Option<Vec<char>> {
    let letters =
        word.strip_prefix('-').filter(|rest| !rest.is_empty() && !rest.starts_with('-'))?;
    Some(letters.chars().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_known_by_whatever_name() {
        for runner in
            ["sudo", "/usr/bin/env", "BASH", "bash5", "bash-5.2", "./sh", "time", "cd", "if", "."]
        {
            assert_eq!(kind(runner), Kind::Runner, "{runner}");
        }
        for interpreter in ["python", "python3", "/opt/Python3.12", "node", "perl5.38"] {
            assert_eq!(kind(interpreter), Kind::Interpreter, "{interpreter}");
        }
        for exact in ["awk", "sed", "make", "vim", "7z", "test"] {
            assert_eq!(kind(exact), Kind::Exact, "{exact}");
        }
        for plain in ["ls", "cat", "base64", "./scripts/test.sh", "shfmt", "md5sum", ".."] {
            assert_eq!(kind(plain), Kind::Plain, "{plain}");
        }
        assert!(
            matches!(kind("git"), Kind::Subcommands(_)) && matches!(kind("find"), Kind::Careful(_))
        );
    }

    #[test]
    fn no_program_is_in_two_lists() {
        let tables = SUBCOMMANDS.iter().chain(CAREFUL).map(|row| row.program);
        let lists = [RUNNERS, BUILTINS, GRAMMAR, INTERPRETERS, EXACT];
        let words = lists.into_iter().flat_map(str::split_ascii_whitespace);
        let mut all: Vec<_> = words.chain(tables).collect();
        all.sort_unstable();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn risky_words_are_known_shortened_and_bundled() {
        let risky = |program: &str, word: &str| {
            let words = super::super::shell::read_one(&format!("x {word}")).unwrap();
            kind(program).is_risky(&words)
        };
        for (program, word) in [
            ("git", "--output=/etc/x"),
            ("git", "--outp"),
            ("git", "--upload-pack=x"),
            ("git", "--exec"),
            ("git", "-nOvi"),
            ("git", "-c"),
            ("git", "ext::sh"),
            ("find", "-exec"),
            ("find", "-delete"),
            ("find", "-okdir"),
            ("find", "-ok"),
            ("find", "-fprintf"),
            ("go", "-exec"),
            ("go", "--toolexec=x"),
            ("cargo", "--config"),
            ("npm", "--script-s"),
            ("rg", "--pre"),
            ("rg", "--pre=x"),
            ("fd", "-X"),
            ("sort", "-ro"),
            ("sort", "--compress-prog=x"),
        ] {
            assert!(risky(program, word), "{program} {word}");
        }
        for (program, word) in [
            ("git", "--oneline"),
            ("git", "-p"),
            ("git", "-5"),
            ("git", "HEAD"),
            ("find", "-name"),
            ("find", "-type"),
            ("find", "-o"),
            ("rg", "--pretty"),
            ("cargo", "--release"),
            ("go", "-race"),
            ("go", "./..."),
            ("ls", "-c"),
            ("git", "--"),
        ] {
            assert!(!risky(program, word), "{program} {word}");
        }
    }
}
