//! The limits of one sandbox, under the names that tools, flags and refusals have in common. No defaults of an engine:
//! those are the engine's.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::{
    JOBS, JOBS_MAX, LOG_BYTES, LOG_BYTES_MAX, LOG_BYTES_MIN, OUTPUT_RATE, OUTPUT_RATE_MAX, OUTPUT_RATE_MIN,
};

/// What can be limited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cap {
    /// Processors, in fractions.
    Cpus,
    /// Memory in MiB, files in memory included.
    MemoryMb,
    /// Bytes of the writable root, in MiB.
    DiskMb,
    /// Processes and threads.
    Pids,
    /// Files and folders of the writable root.
    Inodes,
    /// Open files of one process.
    OpenFiles,
    /// Output of all processes that were started through the API, in bytes a second.
    OutputBytesPerS,
    /// Jobs that run at once.
    Jobs,
    /// Newest output of a job that is kept for those who read later, for each of its two streams, in bytes.
    LogBytes,
}

impl Cap {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Cpus,
        Self::MemoryMb,
        Self::DiskMb,
        Self::Pids,
        Self::Inodes,
        Self::OpenFiles,
        Self::OutputBytesPerS,
        Self::Jobs,
        Self::LogBytes,
    ];

    /// Its name in tools, flags and refusals.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpus => "cpus",
            Self::MemoryMb => "memory_mb",
            Self::DiskMb => "disk_mb",
            Self::Pids => "pids",
            Self::Inodes => "inodes",
            Self::OpenFiles => "open_files",
            Self::OutputBytesPerS => "output_bytes_per_s",
            Self::Jobs => "jobs",
            Self::LogBytes => "log_bytes",
        }
    }

    /// Its name in REST bodies: E2B's where E2B has one.
    #[must_use]
    pub fn rest_name(self) -> &'static str {
        match self {
            Self::Cpus => "cpuCount",
            Self::MemoryMb => "memoryMB",
            Self::DiskMb => "diskSizeMB",
            Self::Pids => "pids",
            Self::Inodes => "inodes",
            Self::OpenFiles => "openFiles",
            Self::OutputBytesPerS => "outputBytesPerS",
            Self::Jobs => "jobs",
            Self::LogBytes => "logBytes",
        }
    }

    /// What it bounds, in a few words.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Cpus => "processors, in fractions",
            Self::MemoryMb => "memory in MiB, its disk included",
            Self::DiskMb => "disk in MiB",
            Self::Pids => "processes and threads",
            Self::Inodes => "files and folders",
            Self::OpenFiles => "open files of one process",
            Self::OutputBytesPerS => {
                "output of all commands together, in bytes a second; who prints more is slowed down"
            }
            Self::Jobs => "commands and jobs that run at once",
            Self::LogBytes => "newest output of a job that is kept for late readers, of each stream, in bytes",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cap| cap.name() == name)
    }

    /// The one of this name in REST bodies.
    #[must_use]
    pub fn of_rest_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|cap| cap.rest_name() == name)
    }

    /// Whether it may be a fraction.
    #[must_use]
    pub fn is_fraction(self) -> bool {
        self == Self::Cpus
    }
}

/// A value for some of the limits. Whole numbers but for [`Cap::Cpus`].
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Caps([Option<f64>; Cap::ALL.len()]);

impl Caps {
    /// Reads `pids=64,cpus=0.5`: names with their values, commas between.
    ///
    /// # Errors
    /// The pair that is none, and the names that there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut caps = Self::default();
        for pair in text.split(',').map(str::trim).filter(|pair| !pair.is_empty()) {
            let known = pair
                .split_once('=')
                .and_then(|(name, value)| Some((Cap::of_name(name.trim())?, value.trim().parse::<f64>().ok()?)));
            let Some((cap, value)) = known else {
                let shown: String = pair.chars().take(80).collect();
                let names: Vec<&str> = Cap::ALL.into_iter().map(Cap::name).collect();
                return Err(format!(
                    "{shown:?} is not NAME=NUMBER, where a name is one of {}",
                    names.join(", ")
                ));
            };
            caps.set(cap, Some(value));
        }
        Ok(caps)
    }

    /// The value of one.
    #[must_use]
    pub fn get(&self, cap: Cap) -> Option<f64> {
        self.0[cap as usize]
    }

    /// The value of one that is a whole number; what is beyond 64 bits is as much as fits.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the cast keeps to the bounds of the type"
    )]
    pub fn whole(&self, cap: Cap) -> Option<u64> {
        self.get(cap).map(|value| value as u64)
    }

    /// Sets one, or takes it out.
    pub fn set(&mut self, cap: Cap, value: Option<f64>) {
        self.0[cap as usize] = value;
    }

    /// With this one set.
    #[must_use]
    pub fn with(mut self, cap: Cap, value: Option<f64>) -> Self {
        self.set(cap, value);
        self
    }

    /// These, and what is left open from `rest`.
    #[must_use]
    pub fn or(mut self, rest: &Self) -> Self {
        for cap in Cap::ALL {
            self.set(cap, self.get(cap).or(rest.get(cap)));
        }
        self
    }

    /// Those that are set.
    pub fn each(&self) -> impl Iterator<Item = (Cap, f64)> + '_ {
        Cap::ALL
            .into_iter()
            .filter_map(|cap| self.get(cap).map(|value| (cap, value)))
    }

    /// As REST bodies have them.
    #[must_use]
    pub fn to_rest(&self) -> BTreeMap<String, f64> {
        self.each()
            .map(|(cap, value)| (cap.rest_name().to_owned(), value))
            .collect()
    }

    /// From an answer; what a newer server knows beside them is left out.
    #[must_use]
    pub fn of_rest(map: &BTreeMap<String, f64>) -> Self {
        let mut caps = Self::default();
        for (name, value) in map {
            if let Some(cap) = Cap::of_rest_name(name) {
                caps.set(cap, Some(*value));
            }
        }
        caps
    }
}

/// Whole numbers without a point.
#[must_use]
pub fn shown(value: f64) -> String {
    // Rust prints the shortest text that reads back as the same number: 2, 0.5.
    format!("{value}")
}

/// What a sandbox's daemon holds its processes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct DaemonCaps {
    /// See [`Cap::OutputBytesPerS`].
    pub output_bytes_per_s: u64,
    /// See [`Cap::Jobs`].
    pub jobs: u64,
    /// See [`Cap::LogBytes`].
    pub log_bytes: u64,
}

impl Default for DaemonCaps {
    fn default() -> Self {
        Self {
            output_bytes_per_s: OUTPUT_RATE,
            jobs: JOBS,
            log_bytes: LOG_BYTES,
        }
    }
}

impl DaemonCaps {
    /// The least of each.
    pub const LEAST: Self = Self {
        output_bytes_per_s: OUTPUT_RATE_MIN,
        jobs: 1,
        log_bytes: LOG_BYTES_MIN,
    };
    /// The most of each.
    pub const MOST: Self = Self {
        output_bytes_per_s: OUTPUT_RATE_MAX,
        jobs: JOBS_MAX,
        log_bytes: LOG_BYTES_MAX,
    };

    /// Among the others.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "the most of each is far below 52 bits")]
    pub fn caps(&self) -> Caps {
        Caps::default()
            .with(Cap::OutputBytesPerS, Some(self.output_bytes_per_s as f64))
            .with(Cap::Jobs, Some(self.jobs as f64))
            .with(Cap::LogBytes, Some(self.log_bytes as f64))
    }

    /// Those of `caps`, the default where one is open.
    #[must_use]
    pub fn of(caps: &Caps) -> Self {
        let usual = Self::default();
        Self {
            output_bytes_per_s: caps.whole(Cap::OutputBytesPerS).unwrap_or(usual.output_bytes_per_s),
            jobs: caps.whole(Cap::Jobs).unwrap_or(usual.jobs),
            log_bytes: caps.whole(Cap::LogBytes).unwrap_or(usual.log_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_each_ones_own() {
        for (at, cap) in Cap::ALL.into_iter().enumerate() {
            assert_eq!(cap as usize, at, "the order of the table");
            assert_eq!(Cap::of_name(cap.name()), Some(cap));
            assert_eq!(Cap::of_rest_name(cap.rest_name()), Some(cap));
        }
        assert_eq!(Cap::of_name("memory"), None);
    }

    #[test]
    fn what_is_open_is_filled_in() {
        let asked = Caps::default().with(Cap::Pids, Some(64.0));
        let usual = Caps::default().with(Cap::Pids, Some(512.0)).with(Cap::Cpus, Some(0.5));
        let all = asked.or(&usual);
        assert_eq!(
            (all.whole(Cap::Pids), all.get(Cap::Cpus), all.get(Cap::Jobs)),
            (Some(64), Some(0.5), None)
        );
        assert_eq!(Caps::of_rest(&all.to_rest()), all);
        assert_eq!(Caps::parse("pids=64, cpus=0.5,").unwrap(), all);
        for bad in ["memory=1", "pids", "pids=many", "pids=1;jobs=2"] {
            let error = Caps::parse(bad).unwrap_err();
            assert!(error.contains(bad) && error.contains("open_files"), "{error}");
        }
        assert_eq!(shown(2.0) + " " + &shown(0.5), "2 0.5");
    }

    #[test]
    fn the_daemons_own_keep_to_their_bounds() {
        let usual = DaemonCaps::default();
        assert_eq!(DaemonCaps::of(&usual.caps()), usual);
        for ((cap, value), (least, most)) in usual
            .caps()
            .each()
            .zip(DaemonCaps::LEAST.caps().each().zip(DaemonCaps::MOST.caps().each()))
        {
            assert!(least.1 <= value && value <= most.1, "{}", cap.name());
        }
    }
}
