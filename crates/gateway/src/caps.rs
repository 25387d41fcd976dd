//! Limits of sandboxes: what the operator gives and allows, and what a caller asks for within that.

use sandhold_runtime::{Resources, RuntimeInfo};
use sandhold_wire::{
    caps::{Cap, Caps, DaemonCaps, shown},
    rest::NewSandbox,
};

use crate::error::Refusal;

const MIB: f64 = 1_048_576.0;

/// The operator's word on limits.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct CapRules {
    /// Of sandboxes that ask for none; the runtime's and the daemon's own where open.
    pub defaults: Caps,
    /// The most that a caller may ask for; what the runtime allows where open. A default is never above it.
    pub most: Caps,
}

impl CapRules {
    /// Both, each checked by itself against what can be had at all where that is known: the daemon's own limits. The rest is
    /// the runtime's to check.
    ///
    /// # Errors
    /// Names the limit, its value and what is allowed.
    pub fn new(defaults: Caps, most: Caps) -> Result<Self, String> {
        let (least, highest) = (DaemonCaps::LEAST.caps(), DaemonCaps::MOST.caps());
        for (cap, value) in defaults.each().chain(most.each()) {
            check(cap, value, least.get(cap), highest.get(cap))?;
        }
        for (cap, most) in most.each() {
            if defaults.get(cap).is_some_and(|value| value > most) {
                return Err(format!(
                    "the default of {} is {}, more than the {} that may be asked for",
                    cap.name(),
                    shown(defaults.get(cap).unwrap_or_default()),
                    shown(most)
                ));
            }
        }
        Ok(Self { defaults, most })
    }

    /// What a runtime should take as its defaults, so that none is above what may be asked for; where nothing is said it
    /// keeps its own, which are `usual`.
    #[must_use]
    pub fn runtime_defaults(&self, usual: &Resources) -> Resources {
        let usual = of_resources(usual);
        let mut caps = self.bounded(usual);
        for cap in Cap::ALL {
            if self.defaults.get(cap).is_none() && caps.get(cap) == usual.get(cap) {
                caps.set(cap, None);
            }
        }
        resources(&caps)
    }

    /// The defaults, with `usual` where they are open, none above what may be asked for.
    fn bounded(&self, usual: Caps) -> Caps {
        let mut caps = self.defaults.or(&usual);
        for (cap, most) in self.most.each() {
            caps.set(cap, caps.get(cap).map(|value| value.min(most)));
        }
        caps
    }

    /// The daemon's limits of a sandbox that was asked for with `asked`.
    pub(crate) fn daemon(&self, asked: &Caps) -> DaemonCaps {
        DaemonCaps::of(&asked.or(&self.bounded(DaemonCaps::default().caps())))
    }

    /// Refuses what a caller may not ask for.
    pub(crate) fn check(&self, asked: &Caps, info: &RuntimeInfo) -> Result<(), Refusal> {
        let least = of_resources(&info.least).or(&DaemonCaps::LEAST.caps());
        let most = of_resources(&info.most).or(&DaemonCaps::MOST.caps());
        for (cap, value) in asked.each() {
            let highest = self.most.get(cap).into_iter().chain(most.get(cap)).reduce(f64::min);
            check(cap, value, least.get(cap), highest).map_err(Refusal::bad_request)?;
        }
        Ok(())
    }
}

fn check(cap: Cap, value: f64, least: Option<f64>, most: Option<f64>) -> Result<(), String> {
    let name = cap.name();
    if !cap.is_fraction() && value.fract() != 0.0 {
        return Err(format!("{name} is {}; a whole number is needed", shown(value)));
    }
    let fits = value > 0.0 && value >= least.unwrap_or(0.0) && value <= most.unwrap_or(f64::MAX);
    if fits {
        return Ok(());
    }
    // Sizes of the engine are in bytes, and the least of them less than a mebibyte may be.
    let least = match (least, cap.is_fraction()) {
        (Some(least), true) => shown(least),
        (Some(least), false) => shown(least.ceil()),
        (None, true) => "more than 0".to_owned(),
        (None, false) => "1".to_owned(),
    };
    let range = match most {
        Some(most) => format!(
            "{least} to {}",
            shown(if cap.is_fraction() { most } else { most.floor() })
        ),
        None => format!("{least} and more"),
    };
    Err(format!("{name} is {}; {range} is allowed", shown(value)))
}

/// What a request asks for.
pub(crate) fn asked(request: &NewSandbox) -> Result<Caps, Refusal> {
    let mut caps = Caps::default();
    for (name, value) in request.limits.iter().flatten() {
        let cap = Cap::of_rest_name(name).ok_or_else(|| {
            let known: Vec<&str> = Cap::ALL.into_iter().map(Cap::rest_name).collect();
            Refusal::bad_request(format!("limits has {name:?}; it can have {}", known.join(", ")))
        })?;
        caps.set(cap, Some(*value));
    }
    #[expect(
        clippy::cast_precision_loss,
        reason = "what is beyond 52 bits is refused in any case"
    )]
    let whole = |value: Option<u64>| value.map(|mb| mb as f64);
    let own = Caps::default()
        .with(Cap::Cpus, request.cpu_count)
        .with(Cap::MemoryMb, whole(request.memory_mb))
        .with(Cap::DiskMb, whole(request.disk_size_mb));
    Ok(own.or(&caps))
}

/// Those that are the runtime's to keep.
pub(crate) fn resources(caps: &Caps) -> Resources {
    let bytes = |cap| caps.whole(cap).map(|mb| mb.saturating_mul(1 << 20));
    Resources {
        memory_bytes: bytes(Cap::MemoryMb),
        cpus: caps.get(Cap::Cpus),
        pids: caps.whole(Cap::Pids),
        disk_bytes: bytes(Cap::DiskMb),
        inodes: caps.whole(Cap::Inodes),
        open_files: caps.whole(Cap::OpenFiles),
    }
}

/// The other way round.
#[expect(clippy::cast_precision_loss, reason = "what is shown needs no 64 bits")]
pub(crate) fn of_resources(resources: &Resources) -> Caps {
    let mib = |bytes: Option<u64>| bytes.map(|bytes| bytes as f64 / MIB);
    let whole = |number: Option<u64>| number.map(|number| number as f64);
    Caps::default()
        .with(Cap::MemoryMb, mib(resources.memory_bytes))
        .with(Cap::DiskMb, mib(resources.disk_bytes))
        .with(Cap::Cpus, resources.cpus)
        .with(Cap::Pids, whole(resources.pids))
        .with(Cap::Inodes, whole(resources.inodes))
        .with(Cap::OpenFiles, whole(resources.open_files))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caps(pairs: &[(Cap, f64)]) -> Caps {
        pairs
            .iter()
            .fold(Caps::default(), |caps, (cap, value)| caps.with(*cap, Some(*value)))
    }

    fn info() -> RuntimeInfo {
        RuntimeInfo {
            isolation: sandhold_runtime::Isolation::default(),
            defaults: Resources::default(),
            least: Resources {
                memory_bytes: Some(16 << 20),
                cpus: Some(0.01),
                ..Resources::default()
            },
            most: Resources {
                memory_bytes: Some(1 << 40),
                ..Resources::default()
            },
            no_layers: None,
            ca_bundle: None,
            reach: sandhold_runtime::Reach::Nothing,
            can_freeze: false,
            can_switch_user: false,
        }
    }

    #[test]
    fn a_caller_may_ask_for_what_the_operator_allows() {
        let rules = CapRules::new(Caps::default(), caps(&[(Cap::MemoryMb, 4096.0), (Cap::Jobs, 8.0)])).unwrap();
        let said = |pairs: &[(Cap, f64)]| rules.check(&caps(pairs), &info()).map_err(|e| format!("{e:?}"));
        said(&[
            (Cap::MemoryMb, 4096.0),
            (Cap::Cpus, 0.5),
            (Cap::Jobs, 8.0),
            (Cap::Pids, 9.0),
        ])
        .unwrap();
        for (asked, wanted) in [
            ((Cap::MemoryMb, 4097.0), "memory_mb is 4097; 16 to 4096 is allowed"),
            ((Cap::MemoryMb, 15.0), "memory_mb is 15; 16 to 4096 is allowed"),
            ((Cap::Jobs, 9.0), "jobs is 9; 1 to 8 is allowed"),
            ((Cap::Cpus, 0.0), "cpus is 0; 0.01 and more is allowed"),
            ((Cap::Pids, 1.5), "pids is 1.5; a whole number is needed"),
            ((Cap::Pids, -1.0), "pids is -1; 1 and more is allowed"),
            ((Cap::LogBytes, 1.0), "log_bytes is 1; 4096 to 33554432 is allowed"),
            ((Cap::Cpus, f64::NAN), "cpus is NaN"),
        ] {
            let error = said(&[asked]).unwrap_err();
            assert!(error.contains(wanted), "{error}");
        }
    }

    #[test]
    fn defaults_stay_below_what_may_be_asked_for() {
        let most = caps(&[(Cap::MemoryMb, 1024.0), (Cap::OutputBytesPerS, 1e6)]);
        let rules = CapRules::new(caps(&[(Cap::Pids, 64.0)]), most).unwrap();
        let usual = Resources {
            memory_bytes: Some(2 << 30),
            pids: Some(512),
            inodes: Some(7),
            ..Resources::default()
        };
        let defaults = rules.runtime_defaults(&usual);
        assert_eq!(
            (defaults.memory_bytes, defaults.pids, defaults.inodes),
            (Some(1 << 30), Some(64), None)
        );
        assert_eq!(rules.daemon(&Caps::default()).output_bytes_per_s, 1_000_000);
        assert_eq!(rules.daemon(&caps(&[(Cap::Jobs, 3.0)])).jobs, 3);
        let error = CapRules::new(caps(&[(Cap::MemoryMb, 2048.0)]), most).unwrap_err();
        assert!(error.contains("memory_mb is 2048, more than the 1024"), "{error}");
        assert!(CapRules::new(caps(&[(Cap::Jobs, 1e9)]), Caps::default()).is_err());
    }

    #[test]
    fn limits_are_asked_for_by_name() {
        let read = |text: &str| asked(&serde_json::from_str(text).unwrap());
        let caps =
            read(r#"{"templateID":"base","memoryMB":64,"limits":{"openFiles":100,"memoryMB":1,"logBytes":8192}}"#)
                .unwrap();
        assert_eq!(
            (
                caps.whole(Cap::OpenFiles),
                caps.whole(Cap::MemoryMb),
                caps.whole(Cap::LogBytes)
            ),
            (Some(100), Some(64), Some(8192))
        );
        let error = read(r#"{"templateID":"base","limits":{"files":1}}"#).unwrap_err();
        assert!(format!("{error:?}").contains("openFiles"), "{error:?}");
    }
}
