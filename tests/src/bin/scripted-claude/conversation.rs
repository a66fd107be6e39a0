//! The file of a conversation: where claude keeps it, so that forgetting and resuming behave alike.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::path::PathBuf;
use std::{env, process};

use serde_json::{Value, json};

/// A conversation and what is known of it.
#[derive(Debug)]
pub(crate) struct Conversation {
    path: PathBuf,
    /// Prompts so far.
    pub(crate) prompts: Vec<String>,
    /// Calls of the model so far: every one costs the same.
    pub(crate) calls: u64,
}

impl Conversation {
    /// A new one, whose id must be free.
    pub(crate) fn begin(id: &str) -> Result<Self, String> {
        let path = path_of(id)?;
        if path.exists() {
            return Err(format!("Error: Session ID {id} is already in use."));
        }
        Ok(Self { path, prompts: Vec::new(), calls: 0 })
    }

    /// One that was written down; `None` if there is none of this id.
    pub(crate) fn resume(id: &str) -> Result<Option<Self>, String> {
        let path = path_of(id)?;
        let Ok(file) = File::open(&path) else { return Ok(None) };
        let mut it = Self { path, prompts: Vec::new(), calls: 0 };
        for line in BufReader::new(file).lines() {
            let line: Value = line.map_err(text)?.parse().map_err(text)?;
            if let Some(prompt) = line["prompt"].as_str() {
                it.prompts.push(prompt.to_owned());
            }
            it.calls += line["calls"].as_u64().unwrap_or(0);
        }
        Ok(Some(it))
    }

    /// Writes a prompt down. The first one makes the file.
    pub(crate) fn prompt(&mut self, prompt: &str) -> io::Result<()> {
        self.prompts.push(prompt.to_owned());
        self.append(&json!({ "prompt": prompt }))
    }

    /// Writes down a call of the model.
    pub(crate) fn call(&mut self) -> io::Result<()> {
        self.calls += 1;
        self.append(&json!({ "calls": 1 }))
    }

    fn append(&self, line: &Value) -> io::Result<()> {
        if let Some(dir) = self.path.parent() {
            fs::create_dir_all(dir)?;
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        file.write_all(format!("{line}\n").as_bytes())
    }
}

/// `$HOME/.claude/projects/<directory with dashes>/<id>.jsonl`.
fn path_of(id: &str) -> Result<PathBuf, String> {
    let home = match (env::var_os("CLAUDE_CONFIG_DIR"), env::var_os("HOME")) {
        (Some(dir), _) => PathBuf::from(dir),
        (None, Some(home)) => PathBuf::from(home).join(".claude"),
        (None, None) => return Err("HOME is not set".to_owned()),
    };
    let cwd = env::current_dir().map_err(text)?;
    let project = cwd.to_string_lossy().replace('/', "-");
    Ok(home.join("projects").join(project).join(format!("{id}.jsonl")))
}

fn text(error: impl ToString) -> String {
    format!("scripted-claude {}: {}", process::id(), error.to_string())
}
