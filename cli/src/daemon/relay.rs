//! A relay of one's own: its errors as exits.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use clawd_protocol::access::token::TokenDigest;
use clawd_protocol::relay::rendezvous::RelayConfig;
use clawd_runtime_mio::files;
use clawd_runtime_mio::relay::{self, Certificate, RelayError, RelayOptions};

use crate::args::RelayServe;
use crate::exit::{Exit, Failure};

/// Tokens are for programs: there is no reason for a short one.
const ACCESS_TOKEN_CHARS_MIN: usize = 20;
const ACCESS_TOKENS_BYTES_MAX: usize = 64 * 1024;

/// Runs a relay until it is told to stop; `on_ready` is told where it listens.
pub(crate) fn serve_relay(
    bind: SocketAddr,
    hosts: Vec<String>,
    args: &RelayServe,
    on_ready: impl FnOnce(SocketAddr),
) -> Result<(), Failure> {
    let pair = args.tls_cert.clone().zip(args.tls_key.clone());
    let access_tokens = match &args.access_token_file {
        Some(path) => access_tokens(path)?,
        None => Vec::new(),
    };
    let config = RelayConfig {
        hosts,
        prefix: args.prefix.clone(),
        access_tokens,
        allowed: args.allowed.clone(),
        trusts_proxy: args.trust_proxy,
        ..RelayConfig::default()
    };
    let certificate = pair.map(|(chain, key)| Certificate { chain, key });
    let options = RelayOptions { bind, certificate, config, log: Box::new(io::stderr()) };
    relay::run(options, Box::new(on_ready)).map_err(|error| {
        let message = error.to_string();
        match error {
            RelayError::PortTaken { .. } => Failure::new(Exit::PortTaken, "port_taken", message)
                .hint("stop the program that has it, or choose another with `--bind`"),
            RelayError::Bind { .. } => Failure::new(Exit::Usage, "bind", message)
                .hint("choose an address of this machine with `--bind`; ports below 1024 need rights"),
            RelayError::Certificate { .. } => Failure::new(Exit::Usage, "certificate", message)
                .hint("give PEM files: `--tls-cert` the whole chain, `--tls-key` the key of its first"),
            RelayError::System(error) => Failure::io("the relay cannot go on", &error),
        }
    })
}

/// One in each line; only their hashes are kept.
fn access_tokens(path: &Path) -> Result<Vec<TokenDigest>, Failure> {
    let wrong = |why: &str| {
        Failure::new(Exit::Usage, "access_token", format!("{}: {why}", path.display()))
            .hint("write one token into each line, such as `openssl rand -hex 32` makes")
    };
    let bytes = files::read_private(path, ACCESS_TOKENS_BYTES_MAX).map_err(super::failed)?;
    let bytes = bytes.ok_or_else(|| wrong("there is no such file"))?;
    let text = String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))?;
    let tokens: Vec<&str> = text.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    if tokens.is_empty() {
        return Err(wrong("there is no token in it, and nobody could register"));
    }
    if tokens.iter().any(|token| token.len() < ACCESS_TOKEN_CHARS_MIN) {
        return Err(wrong("a token in it is shorter than 20 characters"));
    }
    Ok(tokens.into_iter().map(TokenDigest::of).collect())
}
