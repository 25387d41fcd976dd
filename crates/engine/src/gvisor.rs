//! The level `gvisor`: a sandbox is a container of `runsc`, whose kernel is a program of its own.
//!
//! All sandboxes of a server share one root file system on disk, which they never write to: each has its changes in memory.
//! The init program connects out to a socket in a folder that is mounted read-only, see [`crate::bridge`].

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::{fs, io};

use sandhold_runtime::RuntimeError;
use serde_json::{Value, json};

use crate::config::InitProgram;
use crate::limits::USER_ID;
use crate::spec::Limits;
use crate::template::{Entry, FIXED, Owner, Template};

/// The init program inside.
const INIT: &str = "/etc/sandhold/bin/sandhold-envd";
/// Where the folder of the socket is inside.
const CONTROL: &str = "/run/sandhold-host";
/// The socket's name in it.
pub(crate) const SOCKET: &str = "s";
/// The folder of the socket, in a sandbox's private folder.
pub(crate) const CONTROL_FOLDER: &str = "host";
/// The root file system that all share, in the server's folder.
const ROOT: &str = "rootfs";

/// Docker's capabilities, over the sandbox's own kernel.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
];

/// Finds `runsc`.
///
/// # Errors
/// [`RuntimeError::Unsupported`] says where it can be had.
pub(crate) fn find(search_path: &OsStr) -> Result<PathBuf, RuntimeError> {
    let runs = |path: &PathBuf| {
        path.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    };
    std::env::split_paths(search_path)
        .filter(|folder| folder.is_absolute())
        .map(|folder| folder.join("runsc"))
        .find(runs)
        .ok_or_else(|| {
            RuntimeError::Unsupported(
                "the level gvisor needs the program runsc, which is not in PATH; install Debian's package `runsc` (Debian 13, \
                 or Debian 12 with bookworm-backports), or see https://gvisor.dev/docs/user_guide/install"
                    .to_owned(),
            )
        })
}

/// What this level does not hold or give, one sentence each.
pub(crate) fn warnings() -> Vec<String> {
    let root = rustix::process::geteuid().is_root();
    let mut warnings = vec![
        "there is no network but a loopback",
        "what a sandbox writes has no limit of its own: it is kept in memory and counts as that",
    ];
    if !root {
        warnings.push("runsc runs rootless: files that come with the sandbox belong to its root, and /home/user is open to all users inside");
    }
    warnings.into_iter().map(str::to_owned).collect()
}

/// Makes the root file system in the server's folder.
pub(crate) fn make_root(server: &Path, template: &Template, init: Option<&InitProgram>) -> io::Result<()> {
    // Files of the sandbox's `user` are here, under an id that a user of the host may have, too.
    fs::set_permissions(server, fs::Permissions::from_mode(0o700))?;
    let root = server.join(ROOT);
    fs::create_dir(&root)?;
    let fixed = root.join(FIXED);
    for entry in &template.own {
        make_entry(&root, entry)?;
    }
    for entry in &template.fixed {
        make_entry(&fixed, entry)?;
    }
    fs::create_dir_all(root.join(CONTROL.trim_start_matches('/')))?;
    if let Some(InitProgram::Path(path)) = init {
        let bin = fixed.join("bin");
        fs::create_dir_all(&bin)?;
        let own = root.join(INIT.trim_start_matches('/'));
        fs::copy(path, &own)?;
        fs::set_permissions(&own, fs::Permissions::from_mode(0o755))?;
        symlink("sandhold-envd", bin.join("sudo"))?;
    }
    Ok(())
}

fn make_entry(root: &Path, entry: &Entry) -> io::Result<()> {
    let is_root = rustix::process::geteuid().is_root();
    // Without root nothing can be given away, so that it has to be open.
    let open = |mode: u32, owner| {
        if owner == Owner::User && !is_root {
            mode | 0o066 | ((mode & 0o100) >> 3) | ((mode & 0o100) >> 6)
        } else {
            mode
        }
    };
    let (path, owner) = match entry {
        Entry::Dir { path, mode, owner } => {
            fs::DirBuilder::new().create(root.join(path))?;
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(open(*mode, *owner)))?;
            (path, *owner)
        }
        Entry::File {
            path,
            mode,
            owner,
            content,
        } => {
            fs::write(root.join(path), content)?;
            fs::set_permissions(root.join(path), fs::Permissions::from_mode(open(*mode, *owner)))?;
            (path, *owner)
        }
        Entry::Link { path, target } => {
            symlink(target, root.join(path))?;
            return Ok(());
        }
    };
    if owner == Owner::User && is_root {
        chown(root.join(path), Some(USER_ID), Some(USER_ID))?;
    }
    Ok(())
}

/// Makes the folder of one sandbox: its description for `runsc`, and the folder of its socket. `exec`: false runs nothing but
/// `/bin/true`.
pub(crate) fn make_bundle(
    server: &Path,
    (id, hostname): (&str, &str),
    template: &Template,
    limits: &Limits,
    (exec, init_args): (bool, &[String]),
) -> io::Result<()> {
    let folder = server.join(id);
    fs::DirBuilder::new().mode(0o700).create(&folder)?;
    let control = folder.join(CONTROL_FOLDER);
    fs::DirBuilder::new().mode(0o700).create(&control)?;
    fs::DirBuilder::new().mode(0o700).create(folder.join("state"))?;
    let text = serde_json::to_vec(&description(
        server,
        &control,
        hostname,
        template,
        limits,
        (exec, init_args),
    ))?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(folder.join("config.json"))?;
    io::Write::write_all(&mut file, &text)
}

/// The bundle's `config.json`, by the specification of the Open Container Initiative.
fn description(
    server: &Path,
    control: &Path,
    hostname: &str,
    template: &Template,
    limits: &Limits,
    (exec, init_args): (bool, &[String]),
) -> Value {
    let mut args = vec!["/bin/true".to_owned()];
    if exec {
        args = vec![INIT.to_owned(), "--connect".to_owned(), format!("{CONTROL}/{SOCKET}")];
        args.extend(init_args.iter().skip(1).cloned());
    }
    let mut mounts = vec![
        json!({"destination": "/proc", "type": "proc", "source": "proc"}),
        json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}),
        json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts"}),
        json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "nodev", "noexec"]}),
        json!({"destination": CONTROL, "type": "bind", "source": control, "options": ["bind", "ro"]}),
    ];
    mounts.extend(template.trees.iter().map(|tree| {
        json!({"destination": format!("/{}", tree.target), "type": "bind", "source": tree.source,
               "options": ["rbind", "ro", "nosuid", "nodev"]})
    }));
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/opt/sandhold/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
            "cwd": "/",
            "capabilities": {"bounding": CAPABILITIES, "effective": CAPABILITIES, "permitted": CAPABILITIES},
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "hard": limits.open_files, "soft": limits.open_files},
                {"type": "RLIMIT_CORE", "hard": 0, "soft": 0},
            ],
            "noNewPrivileges": true,
        },
        "root": {"path": server.join(ROOT), "readonly": false},
        "hostname": hostname,
        "mounts": mounts,
        "linux": {"namespaces": [
            {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
        ]},
    })
}

/// The arguments of `runsc` for the sandbox in this folder.
pub(crate) fn arguments(folder: &str, id: &str) -> Vec<OsString> {
    let mut args: Vec<String> = vec![
        "runsc".to_owned(),
        format!("--root={folder}/state"),
        "--network=none".to_owned(),
        "--host-uds=open".to_owned(),
        "--overlay2=root:memory".to_owned(),
        // The sandbox stands in the engine's own cgroups already.
        "--ignore-cgroups".to_owned(),
        "--platform=systrap".to_owned(),
    ];
    if !rustix::process::geteuid().is_root() {
        args.push("--rootless".to_owned());
    }
    args.extend(["run".to_owned(), format!("--bundle={folder}"), id.to_owned()]);
    args.into_iter().map(OsString::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_runsc_is_told_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let said = find(folder.path().as_os_str()).unwrap_err().to_string();
        assert!(
            said.contains("not in PATH; install") && said.contains("backports"),
            "{said}"
        );
        fs::write(folder.path().join("runsc"), "").unwrap();
        assert!(find(folder.path().as_os_str()).is_err(), "it cannot be run");
        fs::set_permissions(folder.path().join("runsc"), fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(find(folder.path().as_os_str()).unwrap(), folder.path().join("runsc"));
        assert!(find(OsStr::new("relative:")).is_err());
    }

    #[test]
    fn nothing_of_the_host_is_mounted_writable() {
        let template = Template::load(crate::template::BASE, None).unwrap().unwrap();
        let told = description(
            Path::new("/s"),
            Path::new("/s/i/host"),
            "h",
            &template,
            &Limits::default(),
            (true, &[]),
        );
        for mount in told["mounts"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|mount| mount["type"] == "bind")
        {
            assert!(mount["options"].as_array().unwrap().contains(&json!("ro")), "{mount}");
        }
        assert_eq!(told["process"]["noNewPrivileges"], true);
    }
}
