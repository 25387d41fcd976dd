//! What the daemon is told when it starts, what it answers, and the version in its file.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sandhold_fuzz::within;
use sandhold_wire::boot::{BootReady, BootSpec, VERSION_END, VERSION_MARK, daemon_version};

fuzz_target!(|data: &[u8]| {
    within((16 << 10) + 256 * data.len(), || look(data));
});

fn look(data: &[u8]) {
    if let Ok(spec) = serde_json::from_slice::<BootSpec>(data) {
        let again = serde_json::to_vec(&spec).expect("it is written");
        assert_eq!(
            serde_json::from_slice::<BootSpec>(&again).expect("it is read again"),
            spec
        );
    }
    let ready = serde_json::from_slice::<BootReady>(data).ok();
    if let Some(ready) = &ready {
        let again = serde_json::to_vec(ready).expect("it is written");
        assert_eq!(
            &serde_json::from_slice::<BootReady>(&again).expect("it is read again"),
            ready
        );
    }
    let ours = ready.is_some_and(|ready| ready.version == sandhold_gateway::fuzz::VERSION);
    assert_eq!(sandhold_gateway::fuzz::boot_answer(data), ours);
    if let Some(version) = daemon_version(data) {
        assert!(version.len() < 32 && version.starts_with(|c: char| c.is_ascii_digit()));
        let marked = format!("{VERSION_MARK}{version}{VERSION_END}");
        assert!(data.windows(marked.len()).any(|part| part == marked.as_bytes()));
        assert_eq!(daemon_version(marked.as_bytes()), Some(version));
    }
}
