//! The documents are true: each command in it exists, each file it names is there, and its settings are read.
//!
//! Owns the proof of README.md and of the errors in WIRE.md; refuses to know what the commands do (the other tests do).

use std::fs;
use std::path::Path;

use clawd_tests::daemon::{Site, write_private};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

fn readme() -> String {
    fs::read_to_string(root().join("README.md")).expect("README.md")
}

#[test]
fn every_clawd_command_exists() {
    let site = Site::new();
    let readme = readme();
    let commands: Vec<_> =
        readme.lines().filter_map(|line| line.strip_prefix("$ clawd ")).collect();
    assert!(commands.len() >= 6, "the README shows commands: {commands:?}");
    for command in commands {
        let is_word = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        let words: Vec<_> = command.split(' ').take_while(is_word).collect();
        let (code, _, complaint) = site.run(&[&words[..], &["--help"]].concat());
        assert_eq!(code, Some(0), "`clawd {command}`: {complaint}");
    }
}

#[test]
fn every_path_exists() {
    let readme = readme();
    let mut checked = 0;
    for path in readme.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
        let path = path.split('#').next().unwrap_or_default();
        if !path.starts_with("http") && !path.is_empty() {
            assert!(root().join(path).exists(), "{path}");
            checked += 1;
        }
    }
    assert!(checked >= 4, "the README links to files");
}

#[test]
fn the_settings_it_shows_are_settings() {
    let readme = readme();
    let blocks = readme.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let toml = blocks.collect::<Vec<_>>().concat();
    assert!(toml.contains("port = ") && toml.contains("[approvals]"), "{toml}");
    let site = Site::new();
    write_private(&site.data().join("config.toml"), toml.as_bytes());
    let (code, answer, complaint) = site.run(&["status", "--json"]);
    assert_eq!((code, complaint.as_str()), (Some(1), ""), "read without complaint; nothing runs");
    assert!(answer.contains("not_running"), "{answer}");
}

#[test]
fn help_names_every_file_and_only_settings_that_are_some() {
    let site = Site::new();
    let daemon = site.start();
    assert_eq!(site.run(&["stop"]).0, Some(0));
    drop(daemon);
    let (code, help, _) = site.run(&["help", "files"]);
    assert_eq!(code, Some(0));
    for file in fs::read_dir(site.data()).expect("it is there") {
        let name = file.expect("a file").file_name();
        let name = name.to_string_lossy();
        let name = name.trim_end_matches("-wal").trim_end_matches("-shm");
        assert!(help.lines().any(|line| line.starts_with(&format!("{name} "))), "{name}:\n{help}");
    }
    let toml: String = help
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(toml.contains("[approvals]"), "{help}");
    write_private(&site.data().join("config.toml"), toml.as_bytes());
    let (code, _, complaint) = site.run(&["policy", "list"]);
    assert_eq!((code, complaint.contains("error")), (Some(0), false), "{complaint}");
}

/// All Rust files of the workspace, as one text.
fn sources(dir: &Path, text: &mut String) {
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        let is_ours = !path.ends_with("target") && !path.ends_with(".git");
        if path.is_dir() && is_ours {
            sources(&path, text);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            text.push_str(&fs::read_to_string(&path).expect("a source file"));
        }
    }
}

#[test]
fn every_promise_has_the_tests_and_the_file_that_it_names() {
    let readme = readme();
    let table = readme.split("| promise |").nth(1).and_then(|rest| rest.split("\n\n").next());
    let mut code = String::new();
    sources(root(), &mut code);
    let mut promises = 0;
    for row in table.expect("the table").lines().skip(2) {
        for name in row.split('`').skip(1).step_by(2) {
            if let Some(prefix) = name.strip_suffix("_*") {
                assert!(code.contains(&format!("fn {prefix}_")), "no test begins with {prefix}_");
                promises += 1;
            } else if name.ends_with(".rs") || name.ends_with(".sh") {
                let places = ["", "protocol/src", "runtime-mio/src"];
                let is_there = |place: &&str| root().join(place).join(name).exists();
                assert!(places.iter().any(is_there), "{name}");
            }
        }
    }
    assert!(promises > 25, "the table names its tests");
}

#[test]
fn the_reference_has_every_kind_of_error() {
    let reference = fs::read_to_string(root().join("protocol/WIRE.md")).expect("WIRE.md");
    let mut code = String::new();
    sources(&root().join("protocol/src"), &mut code);
    let mut kinds = 0;
    for rest in
        ["RpcError::new(-32", "Self::new(-32"].iter().flat_map(|call| code.split(call).skip(1))
    {
        let number: String = rest.chars().take(3).collect();
        let kind = rest.split('"').nth(1).expect("a kind");
        let is_there = |line: &str| line.contains(&number) && line.contains(kind);
        assert!(reference.lines().any(is_there), "-32{number} {kind}");
        kinds += 1;
    }
    assert!(kinds > 15, "the core refuses in many ways");
}
