//! Relays: whether this daemon is to be found at one, and running one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clawd_protocol::Fingerprint;
use clawd_protocol::relay::{RelayUrl, pin};

#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// Run a relay in the foreground: it introduces devices to daemons and sees ciphertext only
    Serve(RelayServe),
    /// Let paired devices find this machine from anywhere
    Enable(RelayEnable),
    /// Leave the relay; devices on the same network still find this machine
    #[command(after_help = "rpc: daemon.setRelay")]
    Disable,
    /// Say whether the relay is reached
    #[command(after_help = "rpc: daemon.status")]
    Status,
    /// Try the way through the relay, step by step
    #[command(after_help = "rpc: daemon.status")]
    Test,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clawd relay enable
  clawd relay enable --url wss://relay.example.org --access-token-file token.txt

The relay learns this daemon's id, addresses, sizes and times; what is said it cannot read.

rpc: daemon.setRelay, daemon.status")]
pub(crate) struct RelayEnable {
    /// Where it is [default: the one that is set, else wss://api.clawde.io/relay]
    #[arg(long)]
    pub(crate) url: Option<RelayUrl>,
    /// Only with this key: sha256/BASE64, beside what the system's authorities say
    #[arg(long, value_name = "PIN", value_parser = pin::parse)]
    pub(crate) pin: Option<Fingerprint>,
    /// A file with what the relay wants to see; `-` for stdin
    #[arg(long, value_name = "FILE")]
    pub(crate) access_token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  clawd relay serve --bind 0.0.0.0:443 --host relay.example.org --tls-cert c.pem --tls-key k.pem
  clawd relay serve --host relay.example.org --trust-proxy     behind nginx on this machine

GET /health says that it runs; GET /metrics, from this machine only, how much.")]
pub(crate) struct RelayServe {
    /// Where to listen [default: 127.0.0.1:4400]
    #[arg(long, id = "bind", value_name = "ADDR:PORT")]
    pub(crate) bind: Option<String>,
    /// Certificate chain, PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A name in the wss:// address that daemons use; may be given again
    #[arg(long = "host", value_name = "NAME")]
    pub(crate) hosts: Vec<String>,
    /// Path before /v1, such as /relay
    #[arg(long, value_name = "PATH", default_value = "", hide_default_value = true)]
    pub(crate) prefix: String,
    /// Only daemons that know a token of this private file register
    #[arg(long, value_name = "FILE")]
    pub(crate) access_token_file: Option<PathBuf>,
    /// Only these daemons register; may be given again
    #[arg(long = "allow", value_name = "ID")]
    pub(crate) allowed: Vec<Fingerprint>,
    /// Believe a proxy on this machine for whom it asks
    #[arg(long)]
    pub(crate) trust_proxy: bool,
    /// Serve without TLS beyond this machine
    #[arg(long)]
    pub(crate) plain: bool,
}
