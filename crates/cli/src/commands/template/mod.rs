//! `sandhold template`: what sandboxes are made of.

mod build;
mod list;
mod screen;
mod show;
mod source;
mod verify;

use std::process::ExitCode;

use anyhow::{Context, Result};
use sandhold_client::Client;

use crate::{args::TemplateCommand, provider::Connected, settings::Settings};

pub(super) async fn run(command: TemplateCommand, settings: Settings) -> Result<ExitCode> {
    match command {
        TemplateCommand::Build(args) => build::run(*args, settings).await,
        other => {
            let connected = Connected::without_spares(&settings)?;
            let done = match other {
                TemplateCommand::List { json } => list::run(&connected.client, json).await,
                TemplateCommand::Inspect { name, json } => show::run(&connected.client, &name, json).await,
                TemplateCommand::Rm { names } => remove(&connected.client, &names).await,
                TemplateCommand::Verify { name } => verify::run(&connected, name.as_deref()).await,
                TemplateCommand::Build(_) => Ok(ExitCode::FAILURE),
            };
            connected.shutdown().await;
            done
        }
    }
}

/// Deletes templates, and of `NAME:TAG` the tag. What is not there does not keep the others.
#[expect(clippy::print_stdout, reason = "the command's output")]
#[expect(clippy::print_stderr, reason = "for the person who started it")]
async fn remove(client: &Client, names: &[String]) -> Result<ExitCode> {
    let mut all = true;
    for name in names {
        match name.split_once(':') {
            Some((template, tag)) => {
                let removed = client.remove_template_tags(template, vec![tag.to_owned()]).await;
                removed.with_context(|| format!("the tag {name} cannot be removed"))?;
                println!("{name} is removed; the build stays");
            }
            None => {
                let deleted = client.delete_template(name).await;
                match deleted.with_context(|| format!("the template {name} cannot be deleted"))? {
                    true => println!("{name} is deleted"),
                    false => {
                        eprintln!("sandhold: there is no template {name}; `sandhold template list` shows them");
                        all = false;
                    }
                }
            }
        }
    }
    Ok(if all { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Bytes as a person reads them: `12.3 MB`.
#[expect(clippy::cast_precision_loss, reason = "for a person")]
fn bytes(count: u64) -> String {
    let mut value = count as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let digits = usize::from(unit != "B");
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

/// A text of a server or a sandbox on one line, without what a terminal obeys.
fn plain(text: &str) -> String {
    text.chars()
        .map(|c| if c == '\t' { ' ' } else { c })
        .filter(|c| !c.is_control())
        .collect()
}

/// The first digits of a layer's name or a build's id.
fn short(id: &str) -> String {
    plain(id).chars().take(12).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_short_and_plain() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(12_345_678), "12.3 MB");
        assert_eq!(bytes(5_000_000_000_000), "5.0 TB");
        assert_eq!(plain("a\tb\u{1b}[2J\nc\r"), "a b[2Jc");
    }
}
