//! From a `StartRequest` to a running process.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStringExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use connectrpc::ConnectError;
use futures::task::AtomicWaker;
use rustix::process::{Gid, Uid};
use sandhold_wire::limits::ENV_PAIRS;
use sandhold_wire::names::job_of_tag;
use sandhold_wire::proto::process::{PTY, ProcessConfig, StartRequest};

use super::Process;
use super::hub::{Hub, Listener};
use super::pump::{Output, Pump};
use super::stdio::{Stdio, pipes, terminal};
use crate::paths;
use crate::state::State;
use crate::sys::{Job, SpawnError, Step};
use crate::users::User;

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
            "this sandbox keeps at most {} processes at once (its limit pids): end one first",
            state.max_processes
        )));
    }
    let is_job = request.tag.as_deref().is_some_and(|tag| job_of_tag(tag).is_some());
    if is_job && state.processes.running_jobs() >= state.max_jobs {
        return Err(ConnectError::resource_exhausted(format!(
            "this sandbox runs at most {} commands and jobs at once (its limit jobs): end one first",
            state.max_jobs
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
            state,
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
    let (pid, exit) = state
        .reaper
        .spawn(&job)
        .map_err(|error| failed(state, &config, &cwd, error))?;
    drop(child);

    let hub = Arc::new(match is_job {
        true => Hub::keeping(Arc::clone(&state.processes.budget)),
        false => Hub::default(),
    });
    let listener = hub.listen();
    let process = Arc::new(Process {
        pid: pid.as_raw_pid().unsigned_abs(),
        tag: request.tag,
        config,
        ids: (user.uid, user.gid),
        started: Instant::now(),
        hub,
        io,
        outputs: outputs.iter().map(Output::fd).collect(),
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

fn failed(state: &State, config: &ProcessConfig, cwd: &Path, failed: SpawnError) -> ConnectError {
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
        Step::Clone if errno == Some(Errno::AGAIN) => format!(
            "error starting process '{}': no new process: {error} (the sandbox's limit of {} processes and threads)",
            config.cmd, state.max_processes
        ),
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
