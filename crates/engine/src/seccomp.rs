//! The system calls a sandbox may make: `policy/seccomp.json` compiled to a seccomp program.
//!
//! The program is a binary search over the call numbers, written here and not by `seccompiler`: the kernel runs every
//! filter over all call numbers when it is installed (to fill its cache), so a list costs 0.1 ms at each start of a sandbox
//! and a search tree nearly nothing; and one program has to give several answers (allow, EPERM, EAFNOSUPPORT, ENOSYS).

use std::collections::BTreeMap;

use libc::sock_filter;
use serde::Deserialize;

use crate::syscalls::{Number, number};

mod assemble;
mod weakened;

use assemble::{answer, jump, load, ranges, search};
#[cfg(test)]
use weakened::weaken;
pub use weakened::{Weakened, policy_groups, restrict_self};

/// The policy as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Policy {
    #[serde(rename = "comment")]
    _comment: String,
    default: Action,
    groups: Vec<Group>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group {
    name: String,
    reason: String,
    action: Action,
    syscalls: Vec<String>,
    /// The action is for calls that one of these describes; the others get `otherwise`.
    #[serde(default)]
    when: Vec<Condition>,
    otherwise: Option<Action>,
}

/// A condition on the low 32 bits of an argument.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Condition {
    arg: u8,
    #[serde(default = "all_bits")]
    mask: u32,
    #[serde(default)]
    equals: Vec<u32>,
    #[serde(default)]
    none_of: Vec<u32>,
    and: Option<Box<Condition>>,
}

fn all_bits() -> u32 {
    u32::MAX
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Action {
    #[serde(rename = "allow")]
    Allow,
    #[serde(rename = "EPERM")]
    NotPermitted,
    #[serde(rename = "ENOSYS")]
    NotThere,
    #[serde(rename = "EAFNOSUPPORT")]
    NoSuchFamily,
}

impl Action {
    fn code(self) -> u32 {
        let errno = |code: i32| libc::SECCOMP_RET_ERRNO | (code as u32 & libc::SECCOMP_RET_DATA);
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::NotPermitted => errno(libc::EPERM),
            Self::NotThere => errno(libc::ENOSYS),
            Self::NoSuchFamily => errno(libc::EAFNOSUPPORT),
        }
    }
}

/// What is wrong with the policy.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PolicyError {
    #[error("the system call policy is not valid JSON of its kind")]
    Json(#[from] serde_json::Error),
    #[error("the system call policy names \"{0}\", which no architecture has")]
    UnknownCall(String),
    #[error("the system call policy names \"{0}\" twice")]
    Twice(String),
    #[error("the system call policy has no group \"{0}\"")]
    UnknownGroup(String),
    #[error("group \"{0}\" of the system call policy is incomplete")]
    Incomplete(String),
}

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the engine's system call policy knows x86_64 and aarch64");

/// Numbers from here on are the x32 calls of x86_64: a second door to the same calls, with its own bugs.
const X32_BIT: u32 = 0x4000_0000;

/// Where `struct seccomp_data` holds the call number, the architecture and the low half of argument 0 (both supported
/// architectures are little endian).
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCH: u32 = 4;
const OFFSET_ARGS: u32 = 16;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    action: Action,
    when: Vec<Condition>,
    otherwise: Action,
}

/// Which filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Variant {
    /// For a sandbox of namespaces.
    Namespaced,
    /// For one without: what namespaces would hold is refused. `unix`: whether sockets of the family unix can be made.
    Plain { unix: bool },
}

/// What replaces the groups of the same names, or comes beside them, for sandboxes without namespaces.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PlainPolicy {
    #[serde(rename = "comment")]
    _comment: String,
    groups: Vec<Group>,
    no_unix: Vec<Group>,
}

/// Compiles the policy that is built in.
pub(crate) fn program(variant: Variant) -> Result<Vec<sock_filter>, PolicyError> {
    compile(&policy(variant)?)
}

fn policy(variant: Variant) -> Result<Policy, PolicyError> {
    let mut policy = built_in()?;
    if let Variant::Plain { unix } = variant {
        let plain: PlainPolicy = serde_json::from_str(include_str!("../policy/seccomp-plain.json"))?;
        let more = if unix { Vec::new() } else { plain.no_unix };
        for group in plain.groups.into_iter().chain(more) {
            for other in &mut policy.groups {
                other.syscalls.retain(|name| !group.syscalls.contains(name));
            }
            policy.groups.push(group);
        }
    }
    Ok(policy)
}

fn built_in() -> Result<Policy, PolicyError> {
    Ok(serde_json::from_str(include_str!("../policy/seccomp.json"))?)
}

fn compile(policy: &Policy) -> Result<Vec<sock_filter>, PolicyError> {
    let mut rules = BTreeMap::new();
    for group in &policy.groups {
        let complete = group.when.is_empty() == group.otherwise.is_none() && group.reason.len() > 10;
        if !complete || group.when.iter().any(|condition| condition.arg > 5) {
            return Err(PolicyError::Incomplete(group.name.clone()));
        }
        let otherwise = group.otherwise.unwrap_or(group.action);
        let rule = Rule {
            action: group.action,
            when: group.when.clone(),
            otherwise,
        };
        for name in &group.syscalls {
            match number(name) {
                Number::Here(number) => {
                    if rules.insert(number, rule.clone()).is_some() {
                        return Err(PolicyError::Twice(name.clone()));
                    }
                }
                Number::Elsewhere => {}
                Number::Unknown => return Err(PolicyError::UnknownCall(name.clone())),
            }
        }
    }
    let default = Rule {
        action: policy.default,
        when: Vec::new(),
        otherwise: policy.default,
    };
    let mut code = vec![
        load(OFFSET_ARCH),
        jump(libc::BPF_JEQ, ARCH, 1, 0),
        answer(libc::SECCOMP_RET_KILL_PROCESS),
        load(OFFSET_NUMBER),
        jump(libc::BPF_JGE, X32_BIT, 0, 1),
        answer(Action::NotThere.code()),
    ];
    code.extend(search(&ranges(&rules, &default)));
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would.
    fn run(program: &[sock_filter], arch: u32, number: u32, args: [u64; 6]) -> u32 {
        let (mut at, mut acc) = (0usize, 0u32);
        loop {
            let step = program[at];
            let code = u32::from(step.code);
            at += 1;
            match code & 7 {
                libc::BPF_LD => {
                    acc = match step.k {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCH => arch,
                        offset => args[((offset - OFFSET_ARGS) / 8) as usize] as u32,
                    }
                }
                libc::BPF_ALU => acc &= step.k,
                libc::BPF_RET => return step.k,
                libc::BPF_JMP => {
                    at += match code & 0xf0 {
                        libc::BPF_JA => step.k as usize,
                        libc::BPF_JEQ if acc == step.k => step.jt as usize,
                        libc::BPF_JGE if acc >= step.k => step.jt as usize,
                        libc::BPF_JEQ | libc::BPF_JGE => step.jf as usize,
                        other => panic!("jump {other:#x}"),
                    }
                }
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn call(name: &str, args: &[u64]) -> u32 {
        let Number::Here(number) = number(name) else {
            panic!("{name} has no number here")
        };
        let mut all = [0; 6];
        all[..args.len()].copy_from_slice(args);
        run(&program(Variant::Namespaced).unwrap(), ARCH, number, all)
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

    /// Each call of each group gets another answer when its group is out of force; no call stands in the file for nothing.
    #[test]
    fn every_call_of_the_policy_is_there_for_something() {
        let groups = built_in().unwrap().groups;
        let full = compile(&built_in().unwrap()).unwrap();
        for group in &groups {
            let allows = group.action == Action::Allow;
            let mut mutants = Vec::new();
            if allows {
                mutants.push(Weakened::Without(&group.name));
            }
            if !allows || group.otherwise.is_some() {
                mutants.push(Weakened::Open(&group.name));
            }
            for mutant in mutants {
                let mutated = compile(&weaken(built_in().unwrap(), mutant).unwrap()).unwrap();
                for name in &group.syscalls {
                    let Number::Here(number) = number(name) else { continue };
                    // Arguments that meet the group's condition, and such that do not.
                    let differs = [0u64, 1, 2, 0x5412, 0x1000_0000, 0x4_0000].iter().any(|value| {
                        let args = [*value; 6];
                        run(&full, ARCH, number, args) != run(&mutated, ARCH, number, args)
                    });
                    assert!(differs, "{name} of {} under {mutant:?}", group.name);
                }
            }
        }
        assert!(matches!(
            weaken(built_in().unwrap(), Weakened::Open("nothing")),
            Err(PolicyError::UnknownGroup(_))
        ));
    }

    fn errno(code: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | code as u32
    }

    #[test]
    fn every_call_of_the_policy_gets_its_groups_answer() {
        let policy: Policy = serde_json::from_str(include_str!("../policy/seccomp.json")).unwrap();
        for group in policy.groups.iter().filter(|group| group.when.is_empty()) {
            for name in &group.syscalls {
                if let Number::Here(_) = number(name) {
                    assert_eq!(call(name, &[]), group.action.code(), "{name}");
                }
            }
        }
    }

    #[test]
    fn calls_that_nobody_named_do_not_exist() {
        let program = program(Variant::Namespaced).unwrap();
        for number in [335, 600, 4096, X32_BIT - 1] {
            assert_eq!(run(&program, ARCH, number, [0; 6]), errno(libc::ENOSYS), "{number}");
        }
    }

    #[test]
    fn foreign_architectures_are_killed_and_x32_is_refused() {
        let program = program(Variant::Namespaced).unwrap();
        assert_eq!(run(&program, 0x4000_0003, 1, [0; 6]), libc::SECCOMP_RET_KILL_PROCESS);
        for number in [X32_BIT, X32_BIT | 1, X32_BIT | 59, u32::MAX] {
            assert_eq!(run(&program, ARCH, number, [0; 6]), errno(libc::ENOSYS), "{number:#x}");
        }
    }

    #[test]
    fn arguments_decide() {
        assert_eq!(call("clone", &[libc::SIGCHLD as u64]), ALLOW);
        assert_eq!(call("clone", &[(libc::CLONE_VM | libc::CLONE_THREAD) as u64]), ALLOW);
        for bit in [25, 17, 26, 27, 28, 29, 30] {
            assert_eq!(call("clone", &[1 << bit]), errno(libc::EPERM), "bit {bit}");
        }
        assert_eq!(call("clone3", &[]), errno(libc::ENOSYS));
        for family in [1, 2, 10] {
            assert_eq!(call("socket", &[family, 1, 0]), ALLOW);
            // The kernel looks at 32 bits only.
            assert_eq!(call("socket", &[family | 1 << 32, 1, 0]), ALLOW);
        }
        assert_eq!(call("socket", &[16, 3, 0]), ALLOW);
        for protocol in [4, 6, 12, 15, 16] {
            assert_eq!(
                call("socket", &[16, 3, protocol]),
                errno(libc::EAFNOSUPPORT),
                "netlink {protocol}"
            );
        }
        for family in [0, 3, 9, 15, 17, 21, 30, 31, 33, 38, 40, 44, 40 | 1 << 32] {
            assert_eq!(
                call("socket", &[family, 1, 0]),
                errno(libc::EAFNOSUPPORT),
                "family {family}"
            );
        }
        for (protocol, allowed) in [
            (1, true),
            (6, true),
            (17, true),
            (58, true),
            (255, true),
            (132, false),
            (262, false),
        ] {
            let expected = if allowed { ALLOW } else { errno(libc::EAFNOSUPPORT) };
            assert_eq!(call("socket", &[2, 1, protocol]), expected, "protocol {protocol}");
        }
        assert_eq!(call("socketpair", &[1, 1, 0]), ALLOW);
        assert_eq!(call("socketpair", &[30, 1, 0]), errno(libc::EAFNOSUPPORT));
        assert_eq!(call("ioctl", &[0, 0x5401]), ALLOW);
        for request in [0x5412u64, 0x541c, 0x5423, 0x5412 | 7 << 32] {
            assert_eq!(call("ioctl", &[0, request]), errno(libc::EPERM), "{request:#x}");
        }
        assert_eq!(call("personality", &[0xffff_ffff]), ALLOW);
        assert_eq!(call("personality", &[0x0004_0000]), errno(libc::EPERM));
    }

    #[test]
    fn without_namespaces_what_they_would_hold_is_refused() {
        let answer = |unix, name: &str, args: &[u64]| {
            let Number::Here(number) = number(name) else {
                panic!("{name} has no number here")
            };
            let mut all = [0; 6];
            all[..args.len()].copy_from_slice(args);
            run(&program(Variant::Plain { unix }).unwrap(), ARCH, number, all)
        };
        let none = errno(libc::EAFNOSUPPORT);
        for unix in [true, false] {
            for family in [2, 10, 16, 17, 40, 0] {
                assert_eq!(answer(unix, "socket", &[family, 1, 0]), none, "family {family}");
            }
            for name in ["shmget", "msgget", "semget", "mq_open"] {
                assert_eq!(answer(unix, name, &[]), errno(libc::EPERM), "{name}");
            }
            for (name, own, other) in [
                ("prlimit64", [0u64, 7, 0], [5u64, 7, 0]),
                ("sched_setaffinity", [0, 8, 0], [5, 8, 0]),
                ("setpriority", [0, 0, 5], [0, 5, 5]),
                ("ioprio_set", [1, 0, 5], [1, 5, 5]),
            ] {
                assert_eq!(answer(unix, name, &own), ALLOW, "{name} of its own");
                assert_eq!(answer(unix, name, &other), errno(libc::EPERM), "{name} of another");
            }
            assert_eq!(answer(unix, "setpriority", &[2, 0, 5]), errno(libc::EPERM), "of a user");
            assert_eq!(answer(unix, "read", &[]), ALLOW);
            assert_eq!(answer(unix, "socketpair", &[1, 0x80801, 0]), ALLOW, "a stream pair");
        }
        assert_eq!(answer(true, "socket", &[1, 1, 0]), ALLOW);
        assert_eq!(answer(false, "socket", &[1, 1, 0]), none);
        // A pair of datagram sockets can be sent to any path.
        assert_eq!(answer(true, "socketpair", &[1, 2, 0]), ALLOW);
        assert_eq!(answer(false, "socketpair", &[1, 2, 0]), none);
        assert_eq!(answer(false, "socketpair", &[1, 0x80805, 0]), ALLOW);
    }

    #[test]
    fn the_search_is_shallow() {
        // The longest walk bounds what the kernel does for each call and each installation.
        let program = program(Variant::Namespaced).unwrap();
        assert!(program.len() < 500, "{} instructions", program.len());
    }

    #[test]
    fn a_misspelt_call_is_an_error() {
        let text = include_str!("../policy/seccomp.json").replace("\"futex\"", "\"futtex\"");
        assert!(matches!(
            compile(&serde_json::from_str(&text).unwrap()),
            Err(PolicyError::UnknownCall(_))
        ));
    }
}
