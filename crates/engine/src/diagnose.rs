//! What a failed step means on this machine, and the line that mends it.

use sandhold_runtime::RuntimeError;

use crate::launcher::message::{Failure, Step};

/// What the machine says about itself.
pub(crate) struct Facts {
    root: bool,
    container: bool,
    /// Debian's switch: `0` forbids.
    userns_clone: Option<String>,
    /// Ubuntu's switch: `1` forbids.
    apparmor: Option<String>,
    max_user_namespaces: Option<String>,
}

impl Facts {
    pub(crate) fn read() -> Self {
        let sysctl = |path: &str| std::fs::read_to_string(path).ok().map(|text| text.trim().to_owned());
        let exists = |path: &str| std::path::Path::new(path).exists();
        Self {
            root: rustix::process::geteuid().is_root(),
            container: exists("/.dockerenv") || exists("/run/.containerenv") || filtered(),
            userns_clone: sysctl("/proc/sys/kernel/unprivileged_userns_clone"),
            apparmor: sysctl("/proc/sys/kernel/apparmor_restrict_unprivileged_userns"),
            max_user_namespaces: sysctl("/proc/sys/user/max_user_namespaces"),
        }
    }

    /// What to do about a failed step, if anything is known.
    pub(crate) fn remedy(&self, failure: &Failure) -> Option<String> {
        let namespaces = matches!(
            failure.step,
            Step::UserNamespace
                | Step::IdMaps
                | Step::MountNamespace
                | Step::PrivateRoot
                | Step::Clone
                | Step::HostTree
        );
        match failure.errno {
            libc::ENOSPC if namespaces && self.max_user_namespaces.as_deref() == Some("0") => {
                Some("user namespaces are switched off: run `sudo sysctl -w user.max_user_namespaces=15000`".to_owned())
            }
            libc::ENOSPC if namespaces => Some(
                "the kernel's limit on namespaces is reached: end some sandboxes, or raise \
                 `sudo sysctl -w user.max_user_namespaces=100000`, and not more than 32 user namespaces can be nested"
                    .to_owned(),
            ),
            libc::ENOSYS => Some("the kernel is too old: the engine needs Linux 5.12 or newer".to_owned()),
            libc::EPERM | libc::EACCES if namespaces => self.namespace_remedy(failure.step),
            libc::EPERM | libc::EACCES if matches!(failure.step, Step::Proc | Step::Sys | Step::ProcMasks) => Some(
                "parts of /proc are covered, as in a container, so the kernel refuses a new one: start the container with \
                 `--security-opt systempaths=unconfined`"
                    .to_owned(),
            ),
            _ => None,
        }
    }

    fn namespace_remedy(&self, step: Step) -> Option<String> {
        if !self.root && self.userns_clone.as_deref() == Some("0") {
            return Some(
                "user namespaces are forbidden to ordinary users: run `sudo sysctl -w kernel.unprivileged_userns_clone=1`"
                    .to_owned(),
            );
        }
        if !self.root && self.apparmor.as_deref() == Some("1") {
            return Some(
                "AppArmor takes the rights from user namespaces of ordinary users (Ubuntu 23.10 and later): run \
                 `sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0`, or give the program a profile with the \
                 rule `userns,`"
                    .to_owned(),
            );
        }
        if step == Step::IdMaps && self.root {
            return Some(
                "this root may not use the ids from 1500000000 on, as in a container with a user namespace of its own: \
                 run the server as an ordinary user with sub-ids, or give the container the whole id range"
                    .to_owned(),
            );
        }
        self.container.then(|| {
            "the container's own filter forbids namespaces: start it with \
             `--security-opt seccomp=unconfined --security-opt apparmor=unconfined --security-opt systempaths=unconfined \
             --cap-add SYS_ADMIN`, or ask for `--isolation landlock`, which needs no namespaces and holds less"
                .to_owned()
        })
    }

    /// The failure as the engine's callers see it.
    pub(crate) fn explain(&self, failure: Failure) -> RuntimeError {
        match self.remedy(&failure) {
            Some(remedy) => RuntimeError::Unsupported(format!("{failure}: {}; {remedy}", errno_text(failure.errno))),
            None => {
                let cause = failure.cause();
                RuntimeError::failed(failure.to_string(), cause)
            }
        }
    }
}

fn errno_text(errno: i32) -> String {
    std::io::Error::from_raw_os_error(errno).to_string()
}

/// Whether somebody put a seccomp filter on this process.
fn filtered() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            root: false,
            container: false,
            userns_clone: None,
            apparmor: None,
            max_user_namespaces: Some("9".into()),
        }
    }

    fn failure(step: Step, errno: i32) -> Failure {
        Failure {
            step,
            object: String::new(),
            errno,
        }
    }

    #[test]
    fn each_known_refusal_names_the_line_that_mends_it() {
        let cases = [
            (
                Facts {
                    userns_clone: Some("0".into()),
                    ..facts()
                },
                failure(Step::UserNamespace, libc::EPERM),
                "unprivileged_userns_clone=1",
            ),
            (
                Facts {
                    apparmor: Some("1".into()),
                    ..facts()
                },
                failure(Step::MountNamespace, libc::EPERM),
                "apparmor_restrict_unprivileged_userns=0",
            ),
            (
                Facts {
                    max_user_namespaces: Some("0".into()),
                    ..facts()
                },
                failure(Step::UserNamespace, libc::ENOSPC),
                "max_user_namespaces=15000",
            ),
            (
                Facts {
                    container: true,
                    root: true,
                    ..facts()
                },
                failure(Step::MountNamespace, libc::EPERM),
                "--security-opt seccomp",
            ),
            (
                Facts { root: true, ..facts() },
                failure(Step::IdMaps, libc::EPERM),
                "whole id range",
            ),
            (facts(), failure(Step::Proc, libc::EPERM), "systempaths=unconfined"),
            (facts(), failure(Step::Clone, libc::ENOSYS), "Linux 5.12"),
        ];
        for (facts, failure, text) in cases {
            let said = facts.explain(failure).to_string();
            assert!(said.contains(text), "{said}");
        }
    }

    #[test]
    fn an_unknown_refusal_keeps_its_cause() {
        let error = facts().explain(failure(Step::Exec, libc::ENOEXEC));
        let source = std::error::Error::source(&error).unwrap().to_string();
        assert!(source.contains("Exec format"), "{source}");
    }
}
