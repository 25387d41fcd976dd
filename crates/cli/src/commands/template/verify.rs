//! `sandhold template verify`

use std::process::ExitCode;

use anyhow::{Result, bail};
use sandhold_gateway::{LayerReport, LayerState};

use super::{bytes, plain, screen::Screen, short};
use crate::provider::Connected;

/// What was found so far.
#[derive(Default)]
struct Found {
    whole: u64,
    bytes: u64,
    bad: u64,
    unused: u64,
    unused_bytes: u64,
}

#[expect(clippy::print_stdout, reason = "the command's output")]
pub(super) async fn run(connected: &Connected, template: Option<&str>) -> Result<ExitCode> {
    let Some(local) = &connected.local else {
        bail!("verify reads the layers on this machine: add --provider local, or run it where the server runs");
    };
    let (gateway, _) = local.start().await?;
    let screen = Screen::new();
    let mut found = Found::default();
    screen.now("reading layers");
    let looked = gateway.verify_layers(template, |layer| {
        if let Some(line) = found.add(&layer) {
            screen.end();
            println!("{line}");
        }
        screen.now(&format!(
            "{} layers, {} read",
            found.whole + found.bad,
            bytes(found.bytes)
        ));
    });
    let looked = looked.await;
    screen.end();
    looked?;
    println!("{}", found.summary());
    Ok(if found.bad == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

impl Found {
    /// Counts a layer. Returns what is to be said of it.
    fn add(&mut self, layer: &LayerReport) -> Option<String> {
        let size = layer.bytes.unwrap_or_default();
        let users = match layer.used_by.as_slice() {
            [] => "nothing uses it".to_owned(),
            users => format!("needed by {}", plain(&users.join(", "))),
        };
        let id = short(&layer.id.to_string());
        let line = match &layer.state {
            LayerState::Whole => {
                self.whole += 1;
                self.bytes += size;
                if layer.used_by.is_empty() {
                    self.unused += 1;
                    self.unused_bytes += size;
                    return Some(format!("unused   {id}  {}", bytes(size)));
                }
                return None;
            }
            LayerState::Damaged(why) => format!("damaged  {id}  {}: {}; {users}", bytes(size), plain(why)),
            LayerState::Missing => format!("missing  {id}  {users}"),
        };
        self.bad += 1;
        Some(line)
    }

    fn summary(&self) -> String {
        let mut text = format!("{} layers are whole, {}", self.whole, bytes(self.bytes));
        if self.bad > 0 {
            text.push_str(&format!(
                "; {} are damaged or missing: build what needs them again with --no-cache, after `sandhold template rm`",
                self.bad
            ));
        }
        if self.unused > 0 {
            text.push_str(&format!(
                "; {} of them ({}) are kept for later builds or removed in time",
                self.unused,
                bytes(self.unused_bytes)
            ));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use sandhold_runtime::LayerId;

    use super::*;

    #[test]
    fn what_is_wrong_is_told() {
        let mut found = Found::default();
        let mut layer = LayerReport {
            id: LayerId([0xab; 32]),
            bytes: Some(1_500_000),
            used_by: vec!["template web".into()],
            state: LayerState::Whole,
        };
        assert_eq!(found.add(&layer), None);
        layer.state = LayerState::Damaged("its content differs".into());
        assert_eq!(
            found.add(&layer).unwrap(),
            "damaged  abababababab  1.5 MB: its content differs; needed by template web"
        );
        layer.used_by.clear();
        layer.state = LayerState::Whole;
        assert_eq!(found.add(&layer).unwrap(), "unused   abababababab  1.5 MB");
        layer.state = LayerState::Missing;
        assert!(found.add(&layer).unwrap().starts_with("missing  "));
        assert_eq!((found.whole, found.bad, found.unused), (2, 2, 1));
    }
}
