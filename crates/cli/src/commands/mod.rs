//! One function per command.

mod demo;
mod doctor;
mod keys;
mod mcp;
#[cfg(target_os = "linux")]
mod prove;
mod run;
mod serve;
mod signals;
mod template;
mod terminal;
mod tools;

use std::process::ExitCode;

use anyhow::Result;

use crate::{args::Command, settings::Settings};

pub(crate) async fn dispatch(command: Command, settings: Settings) -> Result<ExitCode> {
    match command {
        Command::Mcp(args) => mcp::run(args, settings).await,
        Command::Run(args) => run::run(args, settings).await,
        #[cfg(target_os = "linux")]
        Command::Doctor(args) if args.prove => prove::run(args.json, &settings).await,
        #[cfg(not(target_os = "linux"))]
        Command::Doctor(args) if args.prove => {
            anyhow::bail!("local sandboxes run on Linux alone: there is nothing to prove here")
        }
        Command::Doctor(args) => doctor::run(&args, &settings).await,
        Command::Serve(args) => serve::run(args, settings).await,
        Command::Keys(command) => keys::run(command, &settings),
        Command::Template(command) => template::run(command, settings).await,
        Command::Tools(args) => tools::run(args),
        Command::Demo => demo::run().await,
        // Taken care of before threads were started.
        Command::Launcher => Ok(ExitCode::FAILURE),
    }
}
