//! Group 8: terminals and the ways between processes.

use std::io::Read;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Control, Kind, Listed, Tried};
use crate::attempt::{Attempt, by_errno, by_result, done, error_name, read, refused, unknown};
use crate::sys;

/// Sockets that rule a machine, of those that stand on many.
const RULERS: &[(&str, &str)] = &[
    ("docker-socket", "/run/docker.sock"),
    ("containerd-socket", "/run/containerd/containerd.sock"),
    ("podman-socket", "/run/podman/podman.sock"),
    ("dbus-socket", "/run/dbus/system_bus_socket"),
    ("systemd-socket", "/run/systemd/private"),
    ("x11-socket", "/tmp/.X11-unix/X0"),
];

pub(super) fn vectors() -> Vec<Listed> {
    let mut all = vec![
        Listed::new(
            8,
            "tiocsti",
            "push characters into a terminal (TIOCSTI)",
            "EPERM",
            |_| by_errno(sys::terminal_push()),
        ),
        Listed::new(
            8,
            "abstract-socket",
            "connect to an abstract socket of the host",
            "ECONNREFUSED or EPERM",
            |tried| match &tried.facts.abstract_socket {
                Some(name) => greeted(sys::abstract_stream(name), tried),
                None => unknown("the host has none to try"),
            },
        ),
        Listed::new(
            8,
            "path-socket",
            "connect to a socket file of the host",
            "ENOENT",
            |tried| match &tried.facts.socket {
                Some(path) => greeted(UnixStream::connect(path), tried),
                None => unknown("the host has none to try"),
            },
        ),
        Listed::new(
            8,
            "host-shm",
            "read shared memory of the host",
            "ENOENT",
            |tried| match &tried.facts.shm {
                Some(name) => read(format!("/dev/shm/{name}")),
                None => unknown("the host has none to try"),
            },
        ),
        Listed::new(
            8,
            "host-queue",
            "open a System V queue of the host",
            "ENOENT",
            |tried| match tried.facts.queue {
                Some(key) => by_result(
                    sys::queue_exists(key).map_err(std::io::Error::from_raw_os_error),
                    "it can be opened",
                ),
                None => unknown("the host has none to try"),
            },
        ),
        neighbour(
            "neighbour-socket",
            "connect to an abstract socket of the other sandbox",
            |tried, name| greeted(sys::abstract_stream(name), tried),
        ),
        neighbour("neighbour-shm", "read shared memory of the other sandbox", |_, name| {
            read(format!("/dev/shm/{name}"))
        }),
        neighbour("neighbour-file", "read a file of the other sandbox", |_, name| {
            read(format!("/tmp/{name}"))
        }),
        neighbour(
            "neighbour-queue",
            "open a System V queue of the other sandbox",
            |_, name| {
                let key = super::serve::queue_key(name);
                by_result(
                    sys::queue_exists(key).map_err(std::io::Error::from_raw_os_error),
                    "it can be opened",
                )
            },
        ),
        neighbour("neighbour-process", "see a process of the other sandbox", |_, name| {
            running(name)
        }),
    ];
    for (id, path) in RULERS {
        all.push(Listed::new(8, *id, format!("connect to {path}"), "ENOENT", move |_| {
            by_result(UnixStream::connect(path), "connected")
        }));
    }
    all
}

fn neighbour(id: &'static str, title: &'static str, attempt: fn(&Tried, &str) -> Attempt) -> Listed {
    let attempt = move |tried: &Tried| match &tried.facts.neighbour {
        Some(name) => attempt(tried, name),
        None => unknown("there is no other sandbox"),
    };
    Listed::new(8, id, title, "it is not there", attempt)
        .of(Kind::Neighbour)
        .with(Control::Neighbour)
}

/// A connection counts when the other side greets.
fn greeted(connected: std::io::Result<UnixStream>, tried: &Tried) -> Attempt {
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) => return refused(error_name(&error)),
    };
    let Some(greeting) = &tried.facts.greeting else {
        return unknown("no greeting is known");
    };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let mut said = vec![0; greeting.len()];
    match stream.read_exact(&mut said) {
        Ok(()) if said == greeting.as_bytes() => done("it greets"),
        _ => refused("nobody greets"),
    }
}

/// Whether a process has this word among its arguments.
fn running(word: &str) -> Attempt {
    let own = std::process::id().to_string();
    for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let (arguments, comm) = (process.path().join("cmdline"), process.path().join("comm"));
        if process.file_name().to_str() == Some(own.as_str()) || !comm.exists() {
            continue;
        }
        let arguments = std::fs::read(arguments).unwrap_or_default();
        let mut words = arguments.split(|byte| *byte == 0);
        // Its facts hold the word too, and so do those of whoever looks: only the one that serves is told to.
        if words.any(|said| said == b"serve") && arguments.windows(word.len()).any(|part| part == word.as_bytes()) {
            return done("it is seen");
        }
    }
    refused("none is seen")
}
