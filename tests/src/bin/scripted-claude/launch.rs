//! The options of a session: those that the daemon may give, and no other.

/// How it was started.
#[derive(Debug, Default)]
pub(crate) struct Launch {
    /// The conversation's id.
    pub(crate) conversation: String,
    /// Continue it.
    pub(crate) resume: bool,
    /// The model.
    pub(crate) model: String,
    /// Deltas are wanted.
    pub(crate) partial: bool,
    /// Asks go to standard output; otherwise tools are denied.
    pub(crate) asks: bool,
    /// `default`, …
    pub(crate) mode: String,
}

impl Launch {
    /// Reads the arguments as strictly as claude does.
    pub(crate) fn parse(args: &[&str]) -> Result<Self, String> {
        let mut launch = Self {
            model: "claude-opus-5-5".to_owned(),
            mode: "default".to_owned(),
            ..Self::default()
        };
        let (mut print, mut input, mut output, mut verbose) = (false, false, false, false);
        let mut rest = args.iter();
        while let Some(option) = rest.next() {
            let mut value = || rest.next().copied().ok_or(format!("error: {option} needs a value"));
            match *option {
                "-p" => print = true,
                "--input-format" => input = value()? == "stream-json",
                "--output-format" => output = value()? == "stream-json",
                "--verbose" => verbose = true,
                "--include-partial-messages" => launch.partial = true,
                "--permission-prompt-tool" => launch.asks = value()? == "stdio",
                "--permission-mode" => launch.mode = value()?.to_owned(),
                "--strict-mcp-config" => {}
                "--setting-sources" => drop(value()?),
                "--session-id" => launch.conversation = value()?.to_owned(),
                "--resume" => {
                    launch.conversation = value()?.to_owned();
                    launch.resume = true;
                }
                "--model" => launch.model = value()?.to_owned(),
                _ => return Err(format!("error: unknown option '{option}'")),
            }
        }
        if !(print && input && output && verbose) {
            return Err("Error: --print with stream-json output requires --verbose".to_owned());
        }
        if launch.mode != "default" {
            return Err(format!("scripted-claude knows no mode {}", launch.mode));
        }
        if !is_uuid(&launch.conversation) {
            return Err("Error: Invalid session ID. Must be a valid UUID.".to_owned());
        }
        Ok(launch)
    }
}

fn is_uuid(text: &str) -> bool {
    let groups: Vec<&str> = text.split('-').collect();
    groups.iter().map(|group| group.len()).eq([8, 4, 4, 4, 12])
        && groups.concat().bytes().all(|byte| byte.is_ascii_hexdigit())
}
