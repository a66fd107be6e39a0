//! Daemons elsewhere.

use clap::{Args, Subcommand};

#[derive(Debug, Subcommand)]
pub(crate) enum Remote {
    /// Become a device of another daemon, whose owner has typed `clawd pair`
    #[command(after_help = "Examples:
  clawd remote pair '{\"v\":1,…}'            what its QR code says
  clawd remote pair --url wss://192.168.1.23:4300 --as desk
  clawd remote pair --relay wss://relay.example.org --id DAEMONID

With --url or --relay it asks for the PIN that is shown there.
rpc: device.pair, device.pairStart, device.pairFinish")]
    Pair(RemotePair),
    /// List the daemons that this command line is a device of
    #[command(alias = "ls")]
    List,
    /// Say where a daemon is now, if it cannot be asked through a relay
    #[command(
        name = "move",
        after_help = "Example: clawd remote move desk 192.168.1.77

Nothing is kept unless the daemon's own key answers there."
    )]
    Move {
        /// Its name here
        name: String,
        /// Its address in this network: wss://HOST:PORT, HOST:PORT or HOST
        address: String,
    },
    /// Forget a daemon, and have it forget this device
    #[command(alias = "rm", after_help = "rpc: device.revoke")]
    Remove {
        /// Its name here
        name: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Debug, Args)]
pub(crate) struct RemotePair {
    /// The text of the QR code; `-` reads it from stdin, so that it is in no history
    #[arg(
        value_name = "PAYLOAD",
        required_unless_present_any = ["url", "relay"],
        conflicts_with_all = ["url", "relay", "id", "pin_stdin"]
    )]
    pub(crate) payload: Option<String>,
    /// Its address in this network: wss://HOST:PORT
    #[arg(long)]
    pub(crate) url: Option<String>,
    /// The relay at which it is; --id says which daemon there
    #[arg(long, value_name = "URL", requires = "id")]
    pub(crate) relay: Option<String>,
    /// Its id, as `clawd identity show` there prints it
    #[arg(long, value_name = "DAEMONID")]
    pub(crate) id: Option<String>,
    /// What to call it here [default: what it calls itself]
    #[arg(long = "as", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// What it calls this device [default: this machine's name]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) device_name: Option<String>,
    /// Read the PIN from stdin
    #[arg(long, hide_short_help = true)]
    pub(crate) pin_stdin: bool,
}
