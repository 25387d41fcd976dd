//! What a sandbox may be asked to be.

use sandhold_runtime::{Resources, RuntimeError, SandboxSpec};

use crate::limits::{
    CPUS_MAX, CPUS_MIN, DISK_DEFAULT, DISK_MAX, DISK_MIN, INODES_DEFAULT, INODES_MAX, INODES_MIN, MEMORY_DEFAULT,
    MEMORY_MAX, MEMORY_MIN, NAME, OPEN_FILES_DEFAULT, OPEN_FILES_MAX, OPEN_FILES_MIN, PIDS_DEFAULT, PIDS_MAX, PIDS_MIN,
    disk_max,
};

/// Limits with nothing left open.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) cpus: f64,
    pub(crate) pids: u64,
    pub(crate) disk_bytes: u64,
    pub(crate) inodes: u64,
    pub(crate) open_files: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: MEMORY_DEFAULT,
            cpus: host_cpus(),
            pids: PIDS_DEFAULT,
            disk_bytes: DISK_DEFAULT,
            inodes: INODES_DEFAULT,
            open_files: OPEN_FILES_DEFAULT,
        }
    }
}

fn host_cpus() -> f64 {
    std::thread::available_parallelism().map_or(1.0, |count| count.get() as f64)
}

impl Limits {
    /// The least of each that can be asked for.
    pub(crate) const LEAST: Self = Self {
        memory_bytes: MEMORY_MIN,
        cpus: CPUS_MIN,
        pids: PIDS_MIN,
        disk_bytes: DISK_MIN,
        inodes: INODES_MIN,
        open_files: OPEN_FILES_MIN,
    };
    /// The most.
    pub(crate) const MOST: Self = Self {
        memory_bytes: MEMORY_MAX,
        cpus: CPUS_MAX,
        pids: PIDS_MAX,
        disk_bytes: DISK_MAX,
        inodes: INODES_MAX,
        open_files: OPEN_FILES_MAX,
    };

    /// What was asked for, with `defaults` for the rest.
    ///
    /// # Errors
    /// [`RuntimeError::InvalidSpec`] names the field, its value and what is allowed.
    pub(crate) fn check(asked: &Resources, defaults: &Self) -> Result<Self, RuntimeError> {
        let whole = |name: &str, asked: Option<u64>, default: u64, min: u64, max: u64| match asked {
            Some(value) if !(min..=max).contains(&value) => Err(RuntimeError::InvalidSpec(format!(
                "{name} is {value}; allowed are {min} to {max}"
            ))),
            asked => Ok(asked.unwrap_or(default)),
        };
        let cpus = asked.cpus.unwrap_or(defaults.cpus);
        if !(CPUS_MIN..=CPUS_MAX).contains(&cpus) {
            return Err(RuntimeError::InvalidSpec(format!(
                "cpus is {cpus}; allowed are {CPUS_MIN} to {CPUS_MAX}"
            )));
        }
        let memory_bytes = whole(
            "memory_bytes",
            asked.memory_bytes,
            defaults.memory_bytes,
            MEMORY_MIN,
            MEMORY_MAX,
        )?;
        let disk_most = disk_max(memory_bytes);
        let disk_default = defaults.disk_bytes.min(disk_most);
        let disk_bytes = whole("disk_bytes", asked.disk_bytes, disk_default, DISK_MIN, DISK_MAX)?;
        if disk_bytes > disk_most {
            return Err(RuntimeError::InvalidSpec(format!(
                "disk_bytes is {disk_bytes}; at most {disk_most} go with {memory_bytes} memory_bytes, for files are kept in \
                 memory: ask for more memory or less disk"
            )));
        }
        Ok(Self {
            memory_bytes,
            cpus,
            pids: whole("pids", asked.pids, defaults.pids, PIDS_MIN, PIDS_MAX)?,
            disk_bytes,
            inodes: whole("inodes", asked.inodes, defaults.inodes, INODES_MIN, INODES_MAX)?,
            open_files: whole(
                "open_files",
                asked.open_files,
                defaults.open_files,
                OPEN_FILES_MIN,
                OPEN_FILES_MAX,
            )?,
        })
    }

    /// The processors, unless that is all there are.
    pub(crate) fn cpus_below_all(&self) -> Option<f64> {
        (self.cpus < host_cpus()).then_some(self.cpus)
    }

    pub(crate) fn as_resources(&self) -> Resources {
        Resources {
            memory_bytes: Some(self.memory_bytes),
            cpus: Some(self.cpus),
            pids: Some(self.pids),
            disk_bytes: Some(self.disk_bytes),
            inodes: Some(self.inodes),
            open_files: Some(self.open_files),
        }
    }
}

/// Checks the id, which names folders, and the host name.
pub(crate) fn check_names(spec: &SandboxSpec) -> Result<(), RuntimeError> {
    let id_ok = spec
        .id
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if !id_ok || !(1..=NAME).contains(&spec.id.len()) {
        let what = format!(
            "id is {:?}; allowed are 1 to {NAME} lower-case letters and digits",
            spec.id
        );
        return Err(RuntimeError::InvalidSpec(what));
    }
    let name = &spec.hostname;
    let name_ok = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.'));
    if !name_ok || !(1..=NAME).contains(&name.len()) {
        let what = format!("hostname is {name:?}; allowed are 1 to {NAME} letters, digits, dots and hyphens");
        return Err(RuntimeError::InvalidSpec(what));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_limit_names_field_value_and_range() {
        let asked = Resources {
            memory_bytes: Some(5),
            ..Resources::default()
        };
        let said = Limits::check(&asked, &Limits::default()).unwrap_err().to_string();
        assert!(
            said.contains("memory_bytes is 5") && said.contains(&MEMORY_MIN.to_string()),
            "{said}"
        );
        for cpus in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            let asked = Resources {
                cpus: Some(cpus),
                ..Resources::default()
            };
            assert!(Limits::check(&asked, &Limits::default()).is_err(), "{cpus}");
        }
    }

    #[test]
    fn the_disk_leaves_memory_over() {
        let check = |memory, disk| {
            let asked = Resources {
                memory_bytes: memory,
                disk_bytes: disk,
                ..Resources::default()
            };
            Limits::check(&asked, &Limits::default()).map(|limits| limits.disk_bytes)
        };
        assert_eq!(check(None, None).unwrap(), DISK_DEFAULT);
        assert_eq!(check(Some(64 << 20), None).unwrap(), 40 << 20);
        assert_eq!(check(Some(64 << 20), Some(40 << 20)).unwrap(), 40 << 20);
        let said = check(Some(64 << 20), Some((40 << 20) + 1)).unwrap_err().to_string();
        assert!(said.contains("disk_bytes is 41943041; at most 41943040"), "{said}");
        for memory in [MEMORY_MIN, MEMORY_DEFAULT, MEMORY_MAX] {
            assert!(disk_max(memory) + crate::limits::shm_bytes(memory) < memory, "{memory}");
        }
    }

    #[test]
    fn names_that_could_leave_their_folder_are_refused() {
        for id in ["", "a/b", "..", "A", "x y", &"a".repeat(64)] {
            let spec = SandboxSpec {
                id: id.to_owned(),
                root: sandhold_runtime::Root::default(),
                storage: sandhold_runtime::Storage::Memory,
                hostname: "h".into(),
                resources: Resources::default(),
                boot: vec![1],
            };
            assert!(check_names(&spec).is_err(), "{id}");
        }
    }
}
