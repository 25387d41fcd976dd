//! `sandhold keys`: the API keys of `sandhold serve`.

use std::process::ExitCode;

use anyhow::{Result, bail};
use sandhold_gateway::Keys;

use crate::{args::KeysCommand, settings::Settings};

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(crate) fn run(command: KeysCommand, settings: &Settings) -> Result<ExitCode> {
    let keys = Keys::open(&settings.local.home)?;
    match command {
        KeysCommand::Create { name } => println!("{}", keys.create(&name)?),
        KeysCommand::List => {
            for key in keys.list()? {
                let state = if key.revoked { "revoked" } else { "works" };
                println!("{:>4}  {}…  {:7}  {}", key.id, key.start, state, key.name);
            }
        }
        KeysCommand::Revoke { id } => {
            if !keys.revoke(id)? {
                bail!("no working key has the number {id}; `sandhold keys list` shows them");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
