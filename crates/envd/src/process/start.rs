//! From a `StartRequest` to a running process.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use connectrpc::ConnectError;
use futures::task::AtomicWaker;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Gid, Uid};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use sandhold_wire::limits::ENV_PAIRS;
use sandhold_wire::proto::process::{PTY, ProcessConfig, StartRequest};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;

use super::hub::{Hub, Listener, Source};
use super::input::Stdin;
use super::pump::{Output, Pump};
use super::{Io, Process};
use crate::paths;
use crate::state::State;
use crate::sys::{Job, SpawnError, Step, async_fd, dev_null};
use crate::users::User;

/// The terminal of a process, seen from its other side.
#[derive(Debug)]
pub(crate) struct Terminal {
    /// Read by the pump.
    pub(crate) master: Arc<AsyncFd<OwnedFd>>,
    /// Writers take turns.
    pub(crate) writing: Mutex<()>,
}

/// The size of a terminal whose size was not said.
const DEFAULT_SIZE: (u16, u16) = (80, 24);

/// A size as the kernel takes it.
pub(crate) fn winsize(pty: &PTY) -> Winsize {
    let given = |n: u32, default: u16| match u16::try_from(n) {
        Ok(0) => default,
        Ok(n) => n,
        Err(_) => u16::MAX,
    };
    let (cols, rows) = DEFAULT_SIZE;
    Winsize {
        ws_col: given(pty.size.cols, cols),
        ws_row: given(pty.size.rows, rows),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// Starts what `request` asks for as `user`, and listens from its first byte.
///
/// # Errors
/// `invalid_argument` for what cannot be executed, `resource_exhausted` where the sandbox or the system is full.
pub(crate) fn start(
    state: &Arc<State>,
    user: &User,
    request: StartRequest,
    deadline: Option<Instant>,
) -> Result<(Arc<Process>, Listener), ConnectError> {
    if state.processes.len() >= state.max_processes {
        return Err(ConnectError::resource_exhausted(format!(
            "this sandbox keeps at most {} processes at once: end one first",
            state.max_processes
        )));
    }
    let config = Option::<ProcessConfig>::from(request.process)
        .filter(|c| !c.cmd.is_empty())
        .ok_or_else(|| ConnectError::invalid_argument("the request names no command"))?;
    let pty = Option::<PTY>::from(request.pty);
    let env = environment(state, user, &config, pty.is_some())?;
    let cwd = paths::resolve(config.cwd.as_deref().unwrap_or(""), user, state.workdir.as_deref())
        .map_err(|e| ConnectError::invalid_argument(e.to_string()))?;

    let owner = (state.can_switch_user && user.uid != state.own_uid).then_some(user);
    let Stdio { child, io, outputs } = match &pty {
        Some(pty) => terminal(pty, owner),
        None => pipes(request.stdin.unwrap_or(true), owner),
    }
    .map_err(|error| {
        failed(
            &config,
            &cwd,
            SpawnError {
                step: Step::Stdio,
                error,
            },
        )
    })?;

    let groups: Vec<Gid> = user.groups.iter().map(|&g| Gid::from_raw(g)).collect();
    let ids = state
        .can_switch_user
        .then(|| (Uid::from_raw(user.uid), Gid::from_raw(user.gid), groups.as_slice()));
    let mut argv = vec![c_string(config.cmd.as_bytes())?];
    for arg in &config.args {
        argv.push(c_string(arg.as_bytes())?);
    }
    let envp = env
        .iter()
        .map(|(k, v)| c_string(format!("{k}={v}").as_bytes()))
        .collect::<Result<Vec<_>, _>>()?;
    let job = Job {
        programs: &programs(&config.cmd, env.get("PATH").map_or("", String::as_str))?,
        argv: &argv,
        envp: &envp,
        cwd: &c_string(&cwd.clone().into_os_string().into_vec())?,
        stdio: child.each_ref().map(|fd| fd.as_fd()),
        terminal: pty.is_some(),
        ids,
    };
    let (pid, exit) = state.reaper.spawn(&job).map_err(|error| failed(&config, &cwd, error))?;
    drop(child);

    let hub = Arc::new(Hub::default());
    let listener = hub.listen();
    let process = Arc::new(Process {
        pid: pid.as_raw_pid().unsigned_abs(),
        tag: request.tag,
        config,
        ids: (user.uid, user.gid),
        started: Instant::now(),
        hub,
        io,
        exited: AtomicBool::new(false),
        given_up: AtomicBool::new(false),
        pump: AtomicWaker::new(),
    });
    state.processes.started(&process);
    let deadline = deadline.map(|at| (at, listener.id()));
    tokio::spawn(Pump::new(
        Arc::clone(state),
        Arc::clone(&process),
        outputs,
        exit,
        deadline,
    ));
    Ok((process, listener))
}

/// Both sides of a process's input and output.
struct Stdio {
    child: [Arc<OwnedFd>; 3],
    io: Io,
    outputs: Vec<Output>,
}

fn pipes(with_stdin: bool, owner: Option<&User>) -> io::Result<Stdio> {
    let (stdin, writer) = if with_stdin {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&write, true)?;
        (Arc::new(give(read, owner)), Some(write))
    } else {
        (Arc::new(dev_null()?), None)
    };
    let (stdout, out) = output(Source::Stdout, owner)?;
    let (stderr, err) = output(Source::Stderr, owner)?;
    let io = Io::Pipes(Stdin::new(writer)?);
    Ok(Stdio {
        child: [stdin, Arc::new(stdout), Arc::new(stderr)],
        io,
        outputs: vec![out, err],
    })
}

fn output(source: Source, owner: Option<&User>) -> io::Result<(OwnedFd, Output)> {
    let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
    // The reading side alone: programs do not expect that their stdout does not block.
    rustix::io::ioctl_fionbio(&read, true)?;
    let read = async_fd(read, Interest::READABLE)?;
    Ok((give(write, owner), Output::new(source, Arc::new(read))))
}

/// Makes the user the owner, so that they may open `/dev/stdout` and `/dev/tty` anew.
fn give(fd: OwnedFd, owner: Option<&User>) -> OwnedFd {
    if let Some(user) = owner {
        // Without it only that opening fails.
        let _ = rustix::fs::fchown(&fd, Some(Uid::from_raw(user.uid)), None);
    }
    fd
}

fn terminal(pty: &PTY, owner: Option<&User>) -> io::Result<Stdio> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let master = openpt(flags)?;
    unlockpt(&master)?;
    tcsetwinsize(&master, winsize(pty))?;
    let slave = Arc::new(give(ioctl_tiocgptpeer(&master, flags)?, owner));
    rustix::io::ioctl_fionbio(&master, true)?;
    let master = Arc::new(async_fd(master, Interest::READABLE | Interest::WRITABLE)?);
    let outputs = vec![Output::new(Source::Pty, Arc::clone(&master))];
    let io = Io::Terminal(Terminal {
        master,
        writing: Mutex::new(()),
    });
    Ok(Stdio {
        child: [Arc::clone(&slave), Arc::clone(&slave), slave],
        io,
        outputs,
    })
}

/// `PATH` and who the user is, then the sandbox's variables, then the request's: the last one counts.
fn environment(
    state: &State,
    user: &User,
    config: &ProcessConfig,
    terminal: bool,
) -> Result<BTreeMap<String, String>, ConnectError> {
    if config.envs.len() > ENV_PAIRS {
        return Err(ConnectError::invalid_argument(format!(
            "{} environment variables, at most {ENV_PAIRS} are taken",
            config.envs.len()
        )));
    }
    if let Some(name) = config.envs.keys().find(|n| n.is_empty() || n.contains('=')) {
        return Err(ConnectError::invalid_argument(format!(
            "'{name}' cannot be the name of an environment variable"
        )));
    }
    let own = [
        ("PATH", &state.path),
        ("HOME", &user.home),
        ("USER", &user.name),
        ("LOGNAME", &user.name),
    ];
    let mut env: BTreeMap<String, String> = own.into_iter().map(|(k, v)| (k.to_owned(), v.clone())).collect();
    env.extend(state.envs());
    env.extend(config.envs.iter().map(|(k, v)| (k.clone(), v.clone())));
    if terminal {
        env.entry("TERM".to_owned())
            .or_insert_with(|| "xterm-256color".to_owned());
    }
    Ok(env)
}

/// The files that a command may mean.
fn programs(cmd: &str, path: &str) -> Result<Vec<CString>, ConnectError> {
    if cmd.contains('/') {
        return Ok(vec![c_string(cmd.as_bytes())?]);
    }
    let folders = path.split(':').filter(|folder| folder.starts_with('/'));
    folders
        .map(|folder| c_string(format!("{folder}/{cmd}").as_bytes()))
        .collect()
}

fn c_string(bytes: &[u8]) -> Result<CString, ConnectError> {
    CString::new(bytes)
        .map_err(|_| ConnectError::invalid_argument("a command, argument, variable or folder contains a zero byte"))
}

fn failed(config: &ProcessConfig, cwd: &Path, failed: SpawnError) -> ConnectError {
    use rustix::io::Errno;

    let SpawnError { step, error } = failed;
    let errno = Errno::from_io_error(&error);
    let full = [Errno::AGAIN, Errno::NOMEM, Errno::MFILE, Errno::NFILE, Errno::NOSPC];
    let text = match step {
        Step::Cwd if errno == Some(Errno::NOENT) => format!("cwd '{}' does not exist", cwd.display()),
        Step::Cwd => format!("cwd '{}' cannot be entered: {error}", cwd.display()),
        Step::Exec if errno == Some(Errno::NOENT) && !config.cmd.contains('/') => {
            format!(
                "error starting process '{}': exec: \"{}\": executable file not found in $PATH",
                config.cmd, config.cmd
            )
        }
        Step::Exec => format!("error starting process '{}': {error}", config.cmd),
        Step::Clone => format!("error starting process '{}': no new process: {error}", config.cmd),
        Step::Session => format!("error starting process '{}': no new session: {error}", config.cmd),
        Step::Terminal => format!("error starting process '{}': no terminal: {error}", config.cmd),
        Step::Stdio => format!("error starting process '{}': no pipes or terminal: {error}", config.cmd),
        Step::Ids => format!(
            "error starting process '{}': cannot become the user: {error}",
            config.cmd
        ),
    };
    if errno.is_some_and(|e| full.contains(&e)) {
        ConnectError::resource_exhausted(text)
    } else {
        ConnectError::invalid_argument(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_for_in_absolute_folders() {
        let names = |cmd, path| -> Vec<String> {
            programs(cmd, path)
                .unwrap()
                .into_iter()
                .map(|c| c.into_string().unwrap())
                .collect()
        };
        assert_eq!(names("ls", "/a::b:/c"), ["/a/ls", "/c/ls"]);
        assert_eq!(names("./ls", "/a"), ["./ls"]);
        assert_eq!(names("ls", ""), [""; 0]);
    }
}
