//! The program `sandhold`: arguments and environment become settings, each command is one function.
#![forbid(unsafe_code)]

mod args;
mod commands;
mod daemon;
mod dockerfile;
mod images;
mod local;
mod logging;
mod loopback;
mod provider;
mod secrets;
mod settings;
mod tls;

use std::process::ExitCode;

use args::{Args, Command};
use clap::Parser;
use settings::Settings;

fn main() -> ExitCode {
    let args = Args::parse();
    // The engine's helper process: small, without threads, and not a command for people.
    if matches!(args.command, Command::Launcher) {
        return sandhold_engine::launcher_main();
    }
    let settings = match Settings::read(&args) {
        Ok(settings) => settings,
        Err(error) => return report(&error),
    };
    logging::start(&settings.log);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&anyhow::Error::new(error).context("cannot start the program's threads")),
    };
    let done = runtime.block_on(commands::dispatch(args.command, settings));
    // Threads that still read standard input must not hold the program up.
    runtime.shutdown_background();
    done.unwrap_or_else(|error| report(&error))
}

/// Prints an error and its causes, once.
#[expect(clippy::print_stderr, reason = "the program's last words")]
fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("sandhold: {error:#}");
    ExitCode::FAILURE
}
