//! The program that tries.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use crate::attempt::{Attempt, errno_name, refused, unknown};
use crate::facts::{Facts, Place};
use crate::report::{Found, Line};
use crate::sys;
use crate::vectors::{Kind, Tried, all, serve};

/// What the daemon's program is started with to be this one: `--prove [FACTS]`, or `--prove serve FACTS`.
pub const FLAG: &str = "--prove";

/// How long one attempt may take. What hangs longer got nowhere.
const ATTEMPT_TIME: Duration = Duration::from_secs(20);
/// What one attempt may say, in bytes.
const ATTEMPT_TEXT: usize = 64 << 10;

/// Tries the vectors and prints one [`Line`] of JSON each. With the argument `serve` it is the other sandbox instead, and
/// ends when it is killed.
///
/// Without facts the vectors that need them cannot be tested; the others are tried where it runs.
#[must_use]
pub fn main(arguments: impl Iterator<Item = String>) -> ExitCode {
    // Before anything is opened here.
    let inherited = sys::open_descriptors();
    let mut arguments: Vec<String> = arguments.collect();
    let serving = arguments.first().is_some_and(|first| first == "serve");
    if serving {
        arguments.remove(0);
    }
    let facts = match arguments.first().map(|text| serde_json::from_str::<Facts>(text)) {
        None => Facts::default(),
        Some(Ok(facts)) => facts,
        Some(Err(error)) => {
            let _ = writeln!(
                std::io::stderr(),
                "sandhold-envd {FLAG}: the facts are not understood: {error}"
            );
            return ExitCode::from(2);
        }
    };
    if serving {
        return serve::run(&facts);
    }
    let tried = Tried {
        victim: victim(&facts),
        inherited,
        facts,
    };
    let mut output = std::io::stdout();
    for vector in all() {
        let asked = if tried.facts.only.is_empty() {
            vector.kind == Kind::Plain
        } else {
            tried.facts.only.contains(&vector.id)
        };
        if !asked {
            continue;
        }
        let control = vector
            .relative
            .filter(|_| tried.facts.controls || vector.kind != Kind::Bomb);
        let control = control.map(|relative| in_child(&tried, &relative));
        let line = Line {
            found: if tried.facts.controls {
                unknown("not tried")
            } else {
                in_child(&tried, &*vector.attempt)
            },
            id: vector.id,
            group: vector.group,
            control,
        };
        let text = serde_json::to_string(&line).unwrap_or_default();
        if writeln!(output, "{text}").and_then(|()| output.flush()).is_err() {
            break;
        }
    }
    if let Some(victim) = tried.victim.filter(|_| !tried.facts.inside()) {
        sys::end(victim);
    }
    ExitCode::SUCCESS
}

/// Whom attempts on other processes go to: inside the daemon, outside a process made for it.
fn victim(facts: &Facts) -> Option<i32> {
    if facts.inside() { Some(1) } else { sys::sleeper() }
}

/// Makes an attempt in a process of its own.
fn in_child(tried: &Tried, attempt: &dyn Fn(&Tried) -> Attempt) -> Attempt {
    let apart = tried.facts.place == Place::OwnNamespaces;
    let ended = sys::in_child(ATTEMPT_TIME, ATTEMPT_TEXT, || {
        if apart && let Err(code) = sys::own_namespaces() {
            let found = unknown(format!("no namespaces of its own: {}", errno_name(code)));
            return serde_json::to_vec(&found).unwrap_or_default();
        }
        serde_json::to_vec(&attempt(tried)).unwrap_or_default()
    });
    match ended {
        Ok(sys::Ended { signal: Some(0), .. }) => refused("it got nowhere in time"),
        Ok(sys::Ended {
            signal: Some(libc::SIGSYS),
            ..
        }) => refused("killed for the call (SIGSYS)"),
        Ok(sys::Ended {
            signal: Some(libc::SIGKILL),
            said,
        }) if said.is_empty() => refused("killed (SIGKILL)"),
        Ok(sys::Ended {
            signal: Some(number),
            said,
        }) if said.is_empty() => unknown(format!("it ended by signal {number}")),
        Ok(sys::Ended { said, .. }) => {
            serde_json::from_slice::<Found>(&said).unwrap_or_else(|_| unknown("it said nothing"))
        }
        Err(code) => unknown(format!("no process could be made for it: {}", errno_name(code))),
    }
}
