//! From a caller's request to a program, its arguments and its environment.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};
use serde::{Deserialize, Serialize};

use super::packet::Request;

/// Whom the daemon lets run something, and as whom.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Grant {
    /// The caller's name, or number.
    pub(crate) caller: String,
    pub(crate) caller_uid: u32,
    pub(crate) caller_gid: u32,
    /// The user's name.
    pub(crate) user: String,
    /// The user's home.
    pub(crate) home: String,
    /// The user's login shell.
    pub(crate) shell: String,
    /// Where programs are looked for.
    pub(crate) path: String,
}

/// A program to start.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Program {
    /// Its file.
    pub(crate) file: PathBuf,
    /// What it is called.
    pub(crate) name: OsString,
    pub(crate) args: Vec<OsString>,
    pub(crate) env: BTreeMap<OsString, OsString>,
}

/// Variables of the caller that stay.
const KEPT: &[&str] = &["COLORTERM", "DISPLAY", "LANG", "LANGUAGE", "LS_COLORS", "TERM", "TZ"];

/// What to run.
///
/// # Errors
/// The words of `sudo` for a command that is not there.
pub(crate) fn resolve(grant: &Grant, request: &Request) -> Result<Program, String> {
    let mut env = environment(grant, request);
    let (file, name, args) = if request.login || request.shell {
        let own = request.shell.then(|| variable(request, "SHELL")).flatten();
        let shell = own
            .filter(|s| s.as_bytes().starts_with(b"/"))
            .unwrap_or_else(|| grant.shell.clone().into());
        let shell = if shell.is_empty() { "/bin/sh".into() } else { shell };
        let mut name = Path::new(&shell).file_name().unwrap_or(&shell).to_owned();
        if request.login {
            name = [OsStr::new("-"), &name].into_iter().collect();
        }
        let args = if request.command.is_empty() {
            Vec::new()
        } else {
            vec!["-c".into(), escaped(&request.command)]
        };
        (PathBuf::from(shell), name, args)
    } else {
        let mut words = request.command.iter().cloned();
        let name = words.next().ok_or("there is nothing to run")?;
        (find(&name, &grant.path)?, name, words.collect())
    };
    let mut line = file.clone().into_os_string();
    for arg in &args {
        line.push(" ");
        line.push(arg);
    }
    env.insert("SUDO_COMMAND".into(), line);
    Ok(Program { file, name, args, env })
}

fn environment(grant: &Grant, request: &Request) -> BTreeMap<OsString, OsString> {
    let keep = |name: &OsStr| {
        let text = name.to_string_lossy();
        let listed = KEPT.contains(&&*text) || text.starts_with("LC_") || request.keep.iter().any(|k| k == name);
        listed || (request.keep_env && !request.login)
    };
    let mut env: BTreeMap<OsString, OsString> = request
        .env
        .iter()
        .filter_map(|pair| split(pair))
        .filter(|(name, _)| keep(name))
        .collect();
    let kept = |env: &BTreeMap<OsString, OsString>, name: &str| {
        env.contains_key(OsStr::new(name)) && !request.set_home && !request.login
    };
    if !kept(&env, "HOME") {
        env.insert("HOME".into(), grant.home.clone().into());
    }
    if !(request.keep_env && kept(&env, "SHELL")) {
        env.insert("SHELL".into(), grant.shell.clone().into());
    }
    for (name, value) in [
        ("USER", grant.user.clone()),
        ("LOGNAME", grant.user.clone()),
        ("PATH", grant.path.clone()),
        ("SUDO_USER", grant.caller.clone()),
        ("SUDO_UID", grant.caller_uid.to_string()),
        ("SUDO_GID", grant.caller_gid.to_string()),
    ] {
        env.insert(name.into(), value.into());
    }
    env.extend(request.set.iter().filter_map(|pair| split(pair)));
    env
}

fn split(pair: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = pair.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    let owned = |bytes: &[u8]| OsString::from_vec(bytes.to_vec());
    Some((owned(&bytes[..at]), owned(&bytes[at + 1..])))
}

fn variable(request: &Request, name: &str) -> Option<OsString> {
    let pairs = request.env.iter().filter_map(|pair| split(pair));
    pairs.rev().find(|(n, _)| n == name).map(|(_, value)| value)
}

/// The file of a command: as it stands with a slash, else from `path`.
fn find(name: &OsStr, path: &str) -> Result<PathBuf, String> {
    let said = name.to_string_lossy();
    let runs = |file: &Path| file.is_file() && accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS).is_ok();
    if name.as_bytes().contains(&b'/') {
        let file = PathBuf::from(name);
        return if runs(&file) {
            Ok(file)
        } else if file.exists() {
            Err(format!("{said}: this file cannot be executed"))
        } else {
            Err(format!("{said}: command not found"))
        };
    }
    path.split(':')
        .filter(|folder| folder.starts_with('/'))
        .map(|folder| Path::new(folder).join(name))
        .find(|file| runs(file))
        .ok_or_else(|| format!("{said}: command not found"))
}

/// The words as one line for `sh -c`, each read by the shell as it stands here; `$` keeps its meaning, as with sudo.
fn escaped(words: &[OsString]) -> OsString {
    let mut line = Vec::new();
    for (index, word) in words.iter().enumerate() {
        if index > 0 {
            line.push(b' ');
        }
        for &byte in word.as_bytes() {
            if !byte.is_ascii_alphanumeric() && !b"_-$".contains(&byte) && byte.is_ascii() {
                line.push(b'\\');
            }
            line.push(byte);
        }
    }
    OsString::from_vec(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant() -> Grant {
        Grant {
            caller: "user".into(),
            caller_uid: 1000,
            caller_gid: 1001,
            user: "root".into(),
            home: "/root".into(),
            shell: "/bin/bash".into(),
            path: "/usr/bin:/bin".into(),
        }
    }

    fn request(command: &[&str]) -> Request {
        Request {
            command: command.iter().map(OsString::from).collect(),
            env: [
                "HOME=/home/user",
                "TERM=x",
                "LC_ALL=C",
                "LD_PRELOAD=/x",
                "PATH=/evil",
                "A=b",
                "SHELL=/bin/dash",
            ]
            .map(OsString::from)
            .to_vec(),
            ..Request::default()
        }
    }

    fn value<'a>(program: &'a Program, name: &str) -> Option<&'a str> {
        program.env.get(OsStr::new(name)).map(|v| v.to_str().unwrap())
    }

    #[test]
    fn the_environment_is_the_users() {
        let program = resolve(&grant(), &request(&["env", "-0"])).unwrap();
        for (name, wanted) in [
            ("HOME", Some("/root")),
            ("USER", Some("root")),
            ("LOGNAME", Some("root")),
            ("SHELL", Some("/bin/bash")),
            ("PATH", Some("/usr/bin:/bin")),
            ("TERM", Some("x")),
            ("LC_ALL", Some("C")),
            ("LD_PRELOAD", None),
            ("A", None),
            ("SUDO_USER", Some("user")),
            ("SUDO_UID", Some("1000")),
            ("SUDO_GID", Some("1001")),
            ("SUDO_COMMAND", Some("/usr/bin/env -0")),
        ] {
            assert_eq!(value(&program, name), wanted, "{name}");
        }
    }

    #[test]
    fn what_is_asked_to_stay_stays() {
        let all = Request {
            keep_env: true,
            set: vec!["A=c".into()],
            ..request(&["env"])
        };
        let program = resolve(&grant(), &all).unwrap();
        assert_eq!(value(&program, "HOME"), Some("/home/user"));
        assert_eq!(value(&program, "A"), Some("c"));
        assert_eq!(value(&program, "USER"), Some("root"));
        assert_eq!(value(&program, "PATH"), Some("/usr/bin:/bin"));
        let home = Request { set_home: true, ..all };
        assert_eq!(value(&resolve(&grant(), &home).unwrap(), "HOME"), Some("/root"));
        let one = Request {
            keep: vec!["A".into()],
            ..request(&["env"])
        };
        let program = resolve(&grant(), &one).unwrap();
        assert_eq!((value(&program, "A"), value(&program, "LD_PRELOAD")), (Some("b"), None));
    }

    #[test]
    fn shells() {
        let login = Request {
            login: true,
            ..request(&["echo", "a b", "$HOME"])
        };
        let program = resolve(&grant(), &login).unwrap();
        assert_eq!(
            (program.file.to_str(), program.name.to_str()),
            (Some("/bin/bash"), Some("-bash"))
        );
        assert_eq!(program.args, ["-c", "echo a\\ b $HOME"]);
        let shell = Request {
            shell: true,
            ..request(&[])
        };
        let program = resolve(&grant(), &shell).unwrap();
        assert_eq!((program.file.to_str(), program.args.len()), (Some("/bin/dash"), 0));
    }

    #[test]
    fn commands_that_are_not_there() {
        for (name, said) in [
            ("no-such-command", "command not found"),
            ("/etc/passwd", "cannot be executed"),
        ] {
            let error = resolve(&grant(), &request(&[name])).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
