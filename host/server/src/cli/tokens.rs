//! `wharf token`: creates tokens.

use std::fs::File;
use std::io::Read as _;

use anyhow::Context as _;
use clap::Subcommand;
use serde_json::json;

use crate::access::TokenHash;
use crate::cli_error::ExitStatus;
use crate::output::{print_json, print_line};

/// Random bytes of a token: as many as its hash has.
const TOKEN_BYTES: usize = 32;
/// The beginning of each token, so that tools which search for leaked secrets find it.
const TOKEN_PREFIX: &str = "wharf_";

/// Commands about tokens.
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print a new token once, and its hash for wharf.toml
    New {
        /// Name of the token, the author of what its bearer changes
        #[arg(default_value = "ci")]
        name: String,
    },
}

impl TokenCommand {
    /// Runs the command.
    pub(crate) fn run(self, json: bool) -> anyhow::Result<ExitStatus> {
        let TokenCommand::New { name } = self;
        let mut random = [0_u8; TOKEN_BYTES];
        let urandom = "/dev/urandom";
        File::open(urandom)
            .and_then(|mut file| file.read_exact(&mut random))
            .with_context(|| format!("could not read random bytes from {urandom}"))?;
        let token = random.iter().fold(TOKEN_PREFIX.to_owned(), |token, byte| format!("{token}{byte:02x}"));
        let hash = TokenHash::of(&token);
        if json {
            print_json(&json!({"name": name, "token": token, "hash": hash.to_string()}))?;
            return Ok(ExitStatus::Done);
        }
        let name = toml::Value::String(name);
        print_line(&format!(
            "{token}\n\nThe token is shown this once. The host needs its hash only; add to wharf.toml:\n\n\
             [[tokens]]\nname = {name}\nhash = \"{hash}\"\ncan = [\"read\", \"enqueue:*\"]"
        ))?;
        Ok(ExitStatus::Done)
    }
}
