//! What a build tells its person: lines, and on a terminal below them one that changes.

use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sandhold_images::{Progress, Report};

use super::{bytes, plain};

/// How often the line that changes does.
const EVERY: Duration = Duration::from_millis(100);
/// Its characters, on a terminal whose width nobody asked for.
const WIDTH: usize = 78;

/// Standard error.
pub(super) struct Screen {
    terminal: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    shown: bool,
    changed: Option<Instant>,
    /// Layers on their way: bytes that are here, and all.
    layers: BTreeMap<usize, (u64, u64)>,
}

impl Screen {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            terminal: std::io::stderr().is_terminal(),
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line.
    pub(super) fn line(&self, text: &str) {
        let mut state = self.state();
        let mut out = std::io::stderr().lock();
        // Nobody reads any more: the build goes on all the same.
        let _ = writeln!(out, "{}{}", Self::clear(&mut state), plain(text));
        let _ = out.flush();
    }

    /// Shows a line until the next one, on a terminal.
    pub(super) fn now(&self, text: &str) {
        let mut state = self.state();
        let due = state.changed.is_none_or(|at| at.elapsed() >= EVERY);
        if !self.terminal || !due {
            return;
        }
        let text: String = plain(text).chars().take(WIDTH).collect();
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "{}{text}", Self::clear(&mut state));
        let _ = out.flush();
        state.shown = true;
        state.changed = Some(Instant::now());
    }

    /// Removes the line that changes.
    pub(super) fn end(&self) {
        let mut out = std::io::stderr().lock();
        let _ = write!(out, "{}", Self::clear(&mut self.state()));
        let _ = out.flush();
    }

    fn clear(state: &mut State) -> &'static str {
        if std::mem::take(&mut state.shown) {
            "\r\x1b[K"
        } else {
            ""
        }
    }

    /// Shows how far the layers of an image are.
    pub(super) fn report(self: &Arc<Self>) -> Arc<Report> {
        let this = Arc::clone(self);
        Arc::new(move |progress: Progress| {
            let line = {
                let mut state = this.state();
                if progress.done >= progress.total {
                    state.layers.remove(&progress.layer);
                } else {
                    state.layers.insert(progress.layer, (progress.done, progress.total));
                }
                pulling(&state.layers)
            };
            if let Some(line) = line {
                this.now(&line);
            }
        })
    }
}

fn pulling(layers: &BTreeMap<usize, (u64, u64)>) -> Option<String> {
    let one = |(layer, (done, total)): (&usize, &(u64, u64))| {
        format!("layer {}: {} of {}", layer + 1, bytes(*done), bytes(*total))
    };
    let lines: Vec<String> = layers.iter().map(one).collect();
    (!lines.is_empty()).then(|| lines.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_on_their_way_are_told() {
        let layers = BTreeMap::from([(0, (1_000_000, 20_000_000)), (2, (5, 10))]);
        assert_eq!(
            pulling(&layers).unwrap(),
            "layer 1: 1.0 MB of 20.0 MB, layer 3: 5 B of 10 B"
        );
        assert_eq!(pulling(&BTreeMap::new()), None);
    }
}
