//! Where cargo puts programs, and that they are as new as their sources.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};

fn program(package: &str, name: &str) -> PathBuf {
    build(package, &["--bin", name]);
    programs().join(name)
}

/// `package`'s example `name`, built now if it is older than its sources.
#[must_use]
pub fn example(package: &str, name: &str) -> PathBuf {
    build(package, &["--example", name]);
    programs().join("examples").join(name)
}

fn programs() -> PathBuf {
    let this = std::env::current_exe().expect("this program has a path");
    let parents = this.ancestors().skip(1);
    let is_profile = |dir: &&Path| !matches!(dir.file_name(), Some(name) if name == "deps");
    parents.into_iter().find(is_profile).expect("cargo's layout").to_path_buf()
}

/// Asks cargo, which knows best whether there is anything to do. Without cargo, what is there is taken.
fn build(package: &str, what: &[&str]) {
    static ONE_AT_A_TIME: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let mut done = ONE_AT_A_TIME.lock().expect("no build panicked");
    let key = format!("{package} {what:?}");
    let Ok(cargo) = std::env::var("CARGO") else { return };
    if done.contains(&key) {
        return;
    }
    let profile = programs();
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--package", package]).args(what);
    command.arg("--target-dir").arg(profile.parent().expect("the target directory"));
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let status = command.current_dir(env!("CARGO_MANIFEST_DIR")).status().expect("cargo runs");
    assert!(status.success(), "cargo build --package {package} {what:?}");
    done.push(key);
}

/// The daemon.
pub(super) fn clawd() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| program("clawd", "clawd"))
}

/// The agent that does what its prompt says.
#[must_use]
pub fn scripted_claude() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| program("clawd-tests", "scripted-claude"))
}

/// The codex that does what its prompt says.
#[must_use]
pub fn scripted_codex() -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| program("clawd-tests", "scripted-codex"))
}
