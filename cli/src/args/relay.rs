//! Relays.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use clawd_protocol::Fingerprint;

#[derive(Debug, Subcommand)]
pub(crate) enum Relay {
    /// Run a relay in the foreground: it introduces devices to daemons and sees ciphertext only
    Serve(RelayServe),
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
