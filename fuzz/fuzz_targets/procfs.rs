//! The text of `/proc`, which holds names and arguments that strangers chose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_fuzz::within;
use sandhold_wire::{
    limits::PROCESS_COMMAND,
    procfs::{Stat, boot_time, user_and_memory},
    services::listening_sockets,
};

fuzz_target!(|data: &[u8]| {
    within((16 << 10) + 64 * data.len(), || look(data));
});

fn look(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let sockets = listening_sockets(&text, 3);
    assert!(sockets.len() <= 3);
    let (_, memory) = user_and_memory(&text);
    assert!(memory % 1024 == 0 || memory == u64::MAX);
    let boot = boot_time(&text).unwrap_or(0);
    for line in text.lines() {
        let Some(stat) = Stat::parse(line) else { continue };
        assert!(line.contains(&stat.name));
        for (seconds, before) in [
            (0.2, None),
            (0.0, None),
            (-1.0, None),
            (f64::MIN_POSITIVE, None),
            (f64::NAN, None),
            (f64::INFINITY, Some(&stat)),
        ] {
            let cpu = stat.cpu_since(before, seconds);
            assert!(cpu.is_finite() && cpu >= 0.0, "{cpu} of {stat:?} in {seconds} s");
        }
        assert!(stat.started_at(boot) >= boot);
        let command = stat.command(data);
        // What is no text becomes a replacement character of three bytes.
        assert!(command.len() <= 3 * PROCESS_COMMAND + 16, "{} bytes", command.len());
        assert!(!command.chars().any(char::is_control));
        let state = if stat.zombie { 'Z' } else { 'S' };
        let Stat {
            pid,
            name,
            ppid,
            used,
            started,
            ..
        } = &stat;
        let again = format!("{pid} ({name}) {state} {ppid} 0 0 0 0 0 0 0 0 0 {used} 0 0 0 0 0 0 0 {started} 0");
        assert_eq!(Stat::parse(&again).as_ref(), Some(&stat), "{again}");
    }
}
