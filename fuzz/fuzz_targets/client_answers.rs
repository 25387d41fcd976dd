//! The answers of a sandbox's daemon and of the scripts that stand in for it. The first byte says what was asked.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_client::{ArchiveReport, EnvdMetrics, SearchMode, SearchQuery, fuzz};
use sandhold_fuzz::within;
use sandhold_wire::{
    jobs::Jobs,
    limits::PROCESSES,
    procfs::{KillAnswer, ProcessList, ProcessRow},
    rest::{ApiError, WrittenFile},
    services::{Ports, Probed, Readiness},
};
use serde::{Serialize, de::DeserializeOwned};

fuzz_target!(|data: &[u8]| {
    let Some((what, body)) = data.split_first() else { return };
    // A few bytes become a row of a list; a pattern has its own.
    within((1 << 20) + 1024 * data.len(), || look(*what, body));
});

fn look(what: u8, body: &[u8]) {
    match what {
        b'a' => drop(fuzz::archive_line(body)),
        b'A' => drop(serde_json::from_slice::<ArchiveReport>(body)),
        b'e' => drop(same::<ApiError>(body)),
        b'j' => drop(same::<Jobs>(body)),
        b'k' => drop(same::<KillAnswer>(body)),
        b'm' => drop(same::<EnvdMetrics>(body)),
        b'p' => drop(same::<Ports>(body)),
        b'q' => drop(same::<Probed>(body)),
        b'r' => drop(same::<Readiness>(body)),
        b'w' => drop(serde_json::from_slice::<Vec<WrittenFile>>(body)),
        b'l' => drop(same::<ProcessList>(body)),
        b's' => drop(fuzz::found_by_server(body)),
        b'L' => {
            let Some(list) = fuzz::processes(body) else { return };
            assert!(list.processes.len() <= PROCESSES);
            assert!(list.processes.is_sorted_by_key(|row| row.pid));
            list.processes.iter().for_each(sane);
        }
        b'P' => {
            let Ok(text) = std::str::from_utf8(body) else { return };
            let ports = fuzz::ports(text);
            assert!(ports.listening.windows(2).all(|pair| pair[0].port < pair[1].port));
            assert!(ports.busiest.iter().all(|busy| busy.cpu_pct.is_finite()), "{ports:?}");
            // What is told to others is read by them.
            drop(same::<Ports>(&serde_json::to_vec(&ports).expect("it is written")).expect("it is read again"));
        }
        b'c' | b'C' | b'n' => {
            let query = SearchQuery {
                pattern: "[a-z]+".into(),
                path: "p".into(),
                glob: (what == b'C').then(|| "*.rs".into()),
                mode: if what == b'n' {
                    SearchMode::Name
                } else {
                    SearchMode::Content
                },
                case_sensitive: false,
                context_lines: 2,
                limit: 5,
                respect_ignore: what == b'C',
                user: None,
            };
            for cut in [false, true] {
                let Some(found) = fuzz::found_by_command(body, cut, &query).expect("the query is valid") else {
                    continue;
                };
                assert!(found.matches.len() <= 5);
                for one in found.matches {
                    assert!(one.before.len() <= 2 && one.after.len() <= 2);
                    assert!(!one.text.contains('\n'));
                    assert!(!one.path.is_empty());
                }
            }
        }
        status => {
            let status = 400 + u16::from(status);
            for text in fuzz::refusal(status, body) {
                assert!(!text.is_empty());
            }
        }
    }
}

/// Reads, writes and reads it again, which must be the same.
fn same<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(body: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(body).ok()?;
    let again = serde_json::to_vec(&read).expect("it is written");
    assert_eq!(serde_json::from_slice::<T>(&again).expect("it is read again"), read);
    Some(read)
}

fn sane(row: &ProcessRow) {
    assert!(row.cpu.is_finite() && row.cpu >= 0.0, "{row:?}");
    assert!(!row.command.chars().any(char::is_control));
}
