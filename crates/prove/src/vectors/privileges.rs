//! Group 11: rights that could be had or gained.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::{Listed, Tried};
use crate::attempt::{Attempt, by_result, done, error_name, read, refused, unknown};
use crate::facts::Facts;

/// What root of a sandbox may have, over the sandbox's own ids: Docker's default set.
const OF_ROOT: u64 = 0xa804_25fb;
/// The id of an ordinary user, inside and outside.
const SOMEBODY: u32 = 1000;

pub(super) fn vectors() -> Vec<Listed> {
    vec![
        Listed::new(
            11,
            "capabilities",
            "have capabilities",
            "none as user, as root Docker's, over its own ids",
            |_| held("CapEff"),
        ),
        Listed::new(
            11,
            "capabilities-permitted",
            "be permitted capabilities",
            "none as user",
            |_| held("CapPrm"),
        ),
        Listed::new(
            11,
            "capabilities-bounding",
            "be able to gain capabilities",
            "Docker's at most",
            |_| bounding(),
        ),
        Listed::new(
            11,
            "capabilities-inherited",
            "have programs inherit capabilities",
            "the kernel refuses",
            |_| ambient(),
        ),
        Listed::new(
            11,
            "no-new-privs",
            "gain rights by executing a file",
            "NoNewPrivs is 1",
            |_| status("NoNewPrivs", "0"),
        ),
        Listed::new(11, "seccomp", "make system calls unfiltered", "Seccomp is 2", |_| {
            status("Seccomp", "0")
        }),
        Listed::new(
            11,
            "setuid-file",
            "gain rights by a set-user-id file",
            "the id stays",
            |_| set_user_id(),
        ),
        Listed::new(
            11,
            "file-capability",
            "gain rights by a file's capabilities",
            "none are gained",
            |_| file_capability(),
        ),
        Listed::new(
            11,
            "mounts-nosuid",
            "find a place for set-user-id files",
            "every mount is nosuid",
            |_| loose_mount("nosuid"),
        ),
        Listed::new(
            11,
            "mounts-nodev",
            "find a place for device nodes",
            "every mount is nodev, but the six nodes of /dev",
            |_| loose_mount("nodev"),
        ),
        Listed::new(11, "usr-write", "write below /usr", "EROFS or EACCES", |_| {
            let path = format!("/usr/.sandhold-prove-{}", std::process::id());
            let made = std::fs::File::create(&path);
            let _ = std::fs::remove_file(&path);
            by_result(made, "written")
        }),
        Listed::new(
            11,
            "host-users",
            "see the host's users",
            "/etc/passwd is another",
            host_users,
        ),
        Listed::new(
            11,
            "host-shadow",
            "read the passwords' hashes",
            "ENOENT, or none is there",
            |_| match std::fs::read_to_string("/etc/shadow") {
                Ok(text)
                    if text.lines().any(|line| {
                        line.split(':')
                            .nth(1)
                            .is_some_and(|hash| hash.len() > 12 || hash == "*")
                    }) =>
                {
                    done("readable")
                }
                Ok(_) => refused("none is there"),
                Err(error) => refused(error_name(&error)),
            },
        ),
        Listed::new(11, "host-name", "learn the host's name", "it is another", |tried| {
            let own = rustix::system::uname();
            match &tried.facts.hostname {
                Some(name) if own.nodename().to_string_lossy() == *name => done("it is the host's"),
                Some(_) => refused("it is another"),
                None => unknown("the host's is not known"),
            }
        }),
        Listed::new(11, "machine-id", "learn the machine's id", "ENOENT", |_| {
            read("/etc/machine-id")
        }),
        Listed::new(11, "ids-of-host-root", "have the host's ids", "they are mapped", |_| {
            ids()
        }),
    ]
}

fn line(name: &str) -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    text.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(':')
            .map(|value| value.trim().to_owned())
    })
}

fn status(name: &str, free: &str) -> Attempt {
    match line(name) {
        Some(value) if value == free => done(format!("{name} is {value}")),
        Some(value) => refused(format!("{name} is {value}")),
        None => unknown(format!("/proc/self/status has no {name}")),
    }
}

fn mask(name: &str) -> Option<u64> {
    u64::from_str_radix(&line(name)?, 16).ok()
}

fn held(name: &str) -> Attempt {
    let allowed = if rustix::process::geteuid().is_root() {
        OF_ROOT
    } else {
        0
    };
    match mask(name) {
        Some(set) if set & !allowed == 0 => refused(format!("{set:x}")),
        Some(set) => done(format!("{set:x}, {:x} of them too many", set & !allowed)),
        None => unknown("/proc/self/status does not tell"),
    }
}

fn bounding() -> Attempt {
    match mask("CapBnd") {
        Some(set) if set & !OF_ROOT == 0 => refused(format!("{set:x}")),
        Some(set) => done(format!("{set:x}")),
        None => unknown("/proc/self/status does not tell"),
    }
}

/// Makes all that this process may have inheritable and ambient.
fn ambient() -> Attempt {
    use rustix::thread::{
        CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set, set_capabilities,
    };
    let wanted = CapabilitySet::CHOWN;
    let raised = (|| {
        let now = capabilities(None)?;
        set_capabilities(
            None,
            CapabilitySets {
                inheritable: now.permitted,
                ..now
            },
        )?;
        configure_capability_in_ambient_set(wanted, true)
    })();
    by_result(raised.map_err(std::io::Error::from), "they are inherited")
}

/// A copy of `id` that belongs to root, run by somebody else.
fn set_user_id() -> Attempt {
    if !rustix::process::geteuid().is_root() {
        return unknown("only root can make one that is worth it");
    }
    let copy = match Copy::of("/usr/bin/id", 0o4755) {
        Ok(copy) => copy,
        Err(error) => return unknown(format!("no copy of `id` could be made: {}", error_name(&error))),
    };
    match copy.run(&["-u"]) {
        Ok(said) if said.trim() == "0" => done("it runs as root"),
        Ok(said) if said.trim() == SOMEBODY.to_string() => refused("the id stays"),
        Ok(said) => unknown(format!("it said {:?}", said.trim())),
        Err(error) => unknown(error_name(&error)),
    }
}

/// A copy of `cat` that may do what root may, and what the kernel says of it while it runs.
fn file_capability() -> Attempt {
    if !rustix::process::geteuid().is_root() {
        return unknown("only root can make one");
    }
    let copy = match Copy::of("/usr/bin/cat", 0o755) {
        Ok(copy) => copy,
        Err(error) => return unknown(format!("no copy of `cat` could be made: {}", error_name(&error))),
    };
    // Version 2, effective; CAP_CHOWN permitted.
    let mut value = [0u8; 20];
    value[..4].copy_from_slice(&0x0200_0001u32.to_le_bytes());
    value[4] = 1;
    let set = rustix::fs::setxattr(
        &copy.path,
        "security.capability",
        &value,
        rustix::fs::XattrFlags::empty(),
    );
    if let Err(error) = set {
        return refused(format!(
            "it cannot be given any: {}",
            crate::attempt::errno_name(error.raw_os_error())
        ));
    }
    match copy.run(&["/proc/self/status"]) {
        Ok(said) => match said.lines().find_map(|line| line.strip_prefix("CapEff:")) {
            Some(set) if set.trim().trim_start_matches('0').is_empty() => refused("none are gained"),
            Some(set) => done(format!("{} are gained", set.trim())),
            None => unknown("it did not say"),
        },
        Err(error) => unknown(error_name(&error)),
    }
}

/// A program copied to where this process may write.
struct Copy {
    path: std::path::PathBuf,
}

impl Copy {
    fn of(program: &str, mode: u32) -> std::io::Result<Self> {
        let path = std::env::temp_dir().join(format!("sandhold-copy-{}", std::process::id()));
        std::fs::copy(program, &path)?;
        let copy = Self { path };
        std::fs::set_permissions(&copy.path, std::fs::Permissions::from_mode(mode))?;
        Ok(copy)
    }

    /// Runs it as an ordinary user.
    fn run(&self, arguments: &[&str]) -> std::io::Result<String> {
        let mut command = Command::new(&self.path);
        command
            .args(arguments)
            .stdin(Stdio::null())
            .uid(SOMEBODY)
            .gid(SOMEBODY)
            .current_dir("/");
        Ok(String::from_utf8_lossy(&command.output()?.stdout).into_owned())
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A mount without this option. In /dev and over what is covered in /proc and /sys stand the harmless nodes.
fn loose_mount(option: &str) -> Attempt {
    let Ok(text) = std::fs::read_to_string("/proc/self/mounts") else {
        return unknown("mounts cannot be listed");
    };
    let loose = text.lines().find_map(|line| {
        let mut words = line.split(' ').skip(1);
        let (place, _, options) = (words.next()?, words.next()?, words.next()?);
        let nodes = option == "nodev" && ["/dev", "/proc/", "/sys/"].iter().any(|at| place.starts_with(at));
        (!nodes && !options.split(',').any(|one| one == option)).then_some(place)
    });
    match loose {
        Some(place) => done(format!("{place} is not {option}")),
        None => refused(format!("every mount is {option}")),
    }
}

fn host_users(tried: &Tried) -> Attempt {
    let Some(mark) = tried.facts.passwd else {
        return unknown("the host's are not known");
    };
    match std::fs::read("/etc/passwd") {
        Ok(text) if Facts::mark(&text) == mark => done("it is the host's file"),
        Ok(_) => refused("it is another file"),
        Err(error) => refused(error_name(&error)),
    }
}

/// Whether ids are what they are on the host: all of them, unchanged.
fn ids() -> Attempt {
    let Ok(text) = std::fs::read_to_string("/proc/self/uid_map") else {
        return unknown("the map cannot be read");
    };
    let numbers: Vec<u64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    match numbers[..] {
        [0, 0, count] if count >= 0xffff_fffe => done("all ids are the host's"),
        _ => refused(text.split_whitespace().collect::<Vec<_>>().join(" ")),
    }
}
