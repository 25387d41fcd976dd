//! Every limit of the tools, and the checks that refuse what is beyond them. Sizes are bytes.

use std::time::Duration;

use crate::{answer::ToolError, args::Pair};

/// A command line.
pub const CMD: usize = 64 << 10;
/// Content of one file in `write_file` and `write_files`.
pub const CONTENT: usize = 4 << 20;
/// Files in one `write_files`.
pub const FILES: usize = 100;
/// Content of all files of one `write_files` together.
pub const CONTENT_TOTAL: usize = 8 << 20;
/// A path.
pub const PATH: usize = 4096;
/// Standard input given with `run_command` or `send_stdin`.
pub const STDIN: usize = 1 << 20;
/// Environment variables of one call.
pub const ENV_PAIRS: usize = 256;
/// Value of an environment variable.
pub const ENV_VALUE: usize = 64 << 10;
/// Pairs of metadata.
pub const METADATA_PAIRS: usize = 64;
/// Name or value of a pair of metadata.
pub const METADATA_LEN: usize = 1024;
/// A URL of `http_probe`, or the path of a server.
pub const URL: usize = 4096;
/// Headers of one `http_probe`.
pub const HEADERS: usize = 64;
/// Value of a header.
pub const HEADER: usize = 8 << 10;
/// Body that `http_probe` sends.
pub const PROBE_BODY: usize = 256 << 10;
/// A body that is no text and is returned as base64.
pub const PROBE_BASE64: usize = 16 << 10;
/// A regular expression or glob.
pub const PATTERN: usize = 1024;
/// Most blocked connections that an answer shows.
pub const BLOCKED_SHOWN: usize = 8;
/// Longest wait for what a sandbox was refused; the answer goes without it then.
pub const BLOCKED_WAIT: Duration = Duration::from_millis(500);
/// How much earlier than a command is known to run a refusal of it may have been noted.
pub const BLOCKED_GRACE: Duration = Duration::from_millis(2);
/// A snapshot's or checkpoint's id or name.
pub const SNAPSHOT_NAME: usize = 260;
/// A template's name, id or tag, alone or with a tag.
pub const TEMPLATE_NAME: usize = 260;
/// The name of an image.
pub const IMAGE_NAME: usize = 1024;
/// A Dockerfile.
pub const DOCKERFILE: usize = 256 << 10;
/// Templates that are listed.
pub const TEMPLATES: usize = 500;
/// How long a template's build is followed.
pub const BUILD_FOLLOWED: Duration = Duration::from_secs(3 * 3600);
/// Tries to ask how a build is before it is given up, one after the other.
pub const BUILD_TRIES: u32 = 8;
/// How long after one that failed the next comes.
pub const BUILD_RETRY: Duration = Duration::from_secs(5);
/// How long a server is asked for the names of templates that are like one that is not there.
pub const NAMES_WAIT: Duration = Duration::from_secs(3);
/// Names of templates that an error tells.
pub const NAMES_TOLD: usize = 5;
/// Forks of one call.
pub const FORKS: u64 = 20;
/// Paths that `diff_sandbox` lists when nothing is said.
pub const CHANGES: u64 = 200;
/// The most that can be asked for.
pub const CHANGES_MOST: u64 = 1000;
/// How long a checkpoint before a call may take; the call goes on without it then.
pub const CHECKPOINT_WAIT: Duration = Duration::from_secs(10);
/// Most rules of one list.
pub const NETWORK_RULES: usize = 256;
/// A job id chosen by the caller.
pub const JOB_ID: usize = 64;
/// Depth of `list_dir`.
pub const DEPTH: u64 = 16;
/// Matches of `search_files`.
pub const MATCHES: u64 = 1000;
/// Context lines around a match.
pub const CONTEXT_LINES: u64 = 20;
/// Lifetime of a sandbox in seconds; the server may allow less.
pub const SANDBOX_TIMEOUT_S: u64 = 86_400;
/// Deadline of a command in seconds.
pub const COMMAND_TIMEOUT_S: u64 = 86_400;
/// How long `get_job_status` waits, in seconds.
pub const WAIT_S: u64 = 40;
/// How long a server is waited for by `start_service` and after it, in seconds.
pub const READY_TIMEOUT_S: u64 = 3600;
/// How long `http_probe` may take, in seconds.
pub const PROBE_TIMEOUT_S: u64 = 40;
/// Processes that `service_diagnostics` shows.
pub const BUSIEST: usize = 8;
/// Logs that it shows, of jobs and of files each.
pub const LOGS: usize = 6;
/// Bytes of the end of one log.
pub const LOG_TAIL: usize = 1500;
/// A file that `edit_file` changes.
pub const EDIT: u64 = 4 << 20;
/// A file that `read_file` reads in one piece; a larger one is scanned.
pub const READ_WHOLE: u64 = 4 << 20;
/// How far `read_file` scans a large file for lines.
pub const READ_SCAN: u64 = 64 << 20;
/// How much of the end of a large file a negative offset sees.
pub const READ_TAIL: u64 = 1 << 20;
/// A picture that is returned as one.
pub const IMAGE: usize = 4 << 20;
/// A file that is returned as base64.
pub const BASE64: usize = 256 << 10;

/// A file that is read as a resource.
pub const RESOURCE: u64 = 4 << 20;
/// Code of one `run_in_all_sandboxes`.
pub const CODE: usize = 1 << 20;
/// Sandboxes that one `run_in_all_sandboxes` works in at the same time.
pub const SIDE_BY_SIDE: usize = 10;

/// One file that `upload_file` or `download_file` carries.
pub const TRANSFER: u64 = 64 << 30;
/// Pieces in which it is carried.
pub const TRANSFER_PIECE: usize = 256 << 10;
/// How long a signed URL may be valid, in seconds.
pub const URL_S: u64 = 7 * 86_400;
/// How long one is valid when nothing is said.
pub const DEFAULT_URL_S: u64 = 600;
/// The same for a project, which a person fetches when they come to it.
pub const PROJECT_URL_S: u64 = 3600;
/// How often a transfer that goes on as a job says how far it is.
pub const WORK_TELLS: Duration = Duration::from_secs(5);

/// Deadline of a command when none is given.
pub const DEFAULT_COMMAND_TIMEOUT: Duration = Duration::from_secs(60);
/// Every tool answers within this time; what lasts longer goes on as a job.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(45);
/// How long a server is waited for when nothing is said.
pub const DEFAULT_READY_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one that accepts connections may stay silent before it counts as one that does not speak HTTP, where no path
/// was named.
pub const READY_PATIENCE: Duration = Duration::from_secs(1);
/// What is kept of [`ANSWER_WITHIN`] to say why a server is not ready.
pub const READY_REPORT: Duration = Duration::from_secs(5);
/// How long a server may take to listen after the command that started it ended well: it may run on by itself.
pub const READY_DETACHED: Duration = Duration::from_secs(3);
/// How long `http_probe` waits when nothing is said.
pub const DEFAULT_PROBE_TIMEOUT: Duration = Duration::from_secs(10);
/// Lifetime of a sandbox when none is given, and what is left of it after every call.
pub const SANDBOX_LIFETIME: Duration = Duration::from_secs(300);
/// The lifetime is extended at most once in this time.
pub const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(30);
/// What a process may take to end by itself between TERM and KILL.
pub const TERM_GRACE: Duration = Duration::from_secs(5);
/// How long past its deadline a process is waited for before it is killed from here.
pub const DEADLINE_GRACE: Duration = Duration::from_secs(2);
/// Arguments of a call as a question to a person shows them.
pub const QUESTION: usize = 600;
/// How long a person may take to answer a question, and how long the signed state of one is good.
pub const CONSENT_WAIT: Duration = Duration::from_secs(300);
/// Time between two signs to the client that a person is still being asked.
pub const CONSENT_PROGRESS: Duration = Duration::from_secs(5);
/// Answered questions that are remembered until their states expire; beyond it questions are asked again.
pub const CONSENTS_SPENT: usize = 4096;
/// Least time between two progress notifications.
pub const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How long the sandboxes of a caller are looked through for a job, and each of them.
pub const JOB_SEARCH: Duration = Duration::from_secs(8);
/// Sandboxes that are looked through, the newest first.
pub const JOB_SEARCH_SANDBOXES: usize = 64;
/// Of them, side by side.
pub const JOB_SEARCH_WIDE: usize = 8;
/// How long the output that a job printed before it was found may take.
pub const CATCH_UP: Duration = Duration::from_secs(10);
/// Reasons of cancelled requests that are kept, how often one is looked for, and the pause between two looks.
pub const CANCEL_REASONS: usize = 256;
/// See [`CANCEL_REASONS`].
pub const CANCEL_LOOKS: u32 = 20;
/// See [`CANCEL_REASONS`].
pub const CANCEL_PAUSE: Duration = Duration::from_millis(5);
/// What is left for an answer after a wait.
pub const ANSWER_MARGIN: Duration = Duration::from_secs(2);
/// Output of a job kept in memory, for each of its two streams.
pub const JOB_STREAM: usize = 2 << 20;
/// Of that, the part kept from the beginning once there is more.
pub const JOB_STREAM_HEAD: usize = 512 << 10;
/// Output of all jobs of a caller kept in memory; beyond it the oldest finished ones are dropped.
pub const JOBS_MEMORY: usize = 64 << 20;
/// Jobs kept, finished ones included.
pub const JOBS: usize = 256;
/// Jobs that run at the same time.
pub const JOBS_RUNNING: usize = 64;
/// Output of one stream that is written to a file in the sandbox.
pub const SPILL: u64 = 16 << 20;
/// Such files of one sandbox together; beyond it those of the oldest jobs that ended are removed.
pub const SPILL_TOTAL: u64 = 64 << 20;

/// Of what a command that failed printed last on each stream, the bytes that are looked through for a limit it met.
pub const MET_SAID: usize = 8 << 10;
/// How long it is waited for what the server knows of them.
pub const MET_ASK: Duration = Duration::from_secs(2);
/// `/dev/shm` counts as full with less than so many bytes left.
pub const MET_SHM_LEFT: u64 = 64 << 10;
/// A command printed as fast as it may from this part of the rate on.
pub const MET_RATE: f64 = 0.7;

/// Shells of a caller that run at the same time.
pub const SHELLS: usize = 16;
/// Shells kept, ended ones included.
pub const SHELLS_KEPT: usize = 32;
/// Columns of a terminal, and what it has unless told.
pub const SHELL_COLS: u64 = 300;
/// See [`SHELL_COLS`].
pub const DEFAULT_SHELL_COLS: u32 = 100;
/// Rows of a terminal.
pub const SHELL_ROWS: u64 = 100;
/// See [`SHELL_ROWS`].
pub const DEFAULT_SHELL_ROWS: u32 = 30;
/// Keys in one `send_keys`.
pub const KEYS: usize = 256;
/// Output of a shell that is kept until it is read.
pub const SHELL_UNREAD: usize = 1 << 20;
/// Characters of a terminal's title.
pub const SHELL_TITLE: usize = 200;
/// Questions of programs that a terminal answers in a second.
pub const SHELL_ANSWERS: usize = 64;
/// Output of a shell that is taken in a second; a program that prints more is slowed down.
pub const SHELL_RATE: usize = 16 << 20;
/// How long `read_shell` waits, in milliseconds.
pub const SHELL_WAIT_MS: u64 = 40_000;
/// The same when it is not told.
pub const DEFAULT_SHELL_WAIT_MS: u64 = 1000;
/// Silence after which a shell's output counts as settled.
pub const SHELL_SETTLED: Duration = Duration::from_millis(400);
/// Silence after which it is asked whether the shell waits for input.
pub const SHELL_CALM: Duration = Duration::from_millis(30);
/// How long typing may take.
pub const SHELL_TYPING: Duration = Duration::from_secs(10);
/// Watches of a caller.
pub const WATCHES: usize = 32;
/// Changes that a watch keeps until they are fetched.
pub const WATCH_EVENTS: usize = 8192;
/// Bytes of names in them.
pub const WATCH_NAMES: usize = 1 << 20;
/// How long `get_watch_events` waits, in milliseconds.
pub const WATCH_WAIT_MS: u64 = 40_000;
/// How long after the first change it waits for those that come with it.
pub const WATCH_TOGETHER: Duration = Duration::from_millis(20);
/// How long `kill` waits for the end of the process.
pub const KILL_WAIT: Duration = Duration::from_secs(2);
/// How far back `sandbox_metrics` looks, in seconds.
pub const METRICS_SINCE_S: u64 = 86_400;
/// The same when it is not told.
pub const DEFAULT_METRICS_SINCE_S: u64 = 300;
/// Rows of its answer; more are thinned out.
pub const METRICS_ROWS: usize = 60;

/// Longest message on standard input.
pub const STDIO_MESSAGE: usize = 16 << 20;
/// Largest body of an HTTP request.
pub const HTTP_BODY: usize = 16 << 20;
/// A legacy HTTP session without a message for this long ends.
pub const HTTP_SESSION_IDLE: Duration = Duration::from_secs(600);
/// Legacy HTTP sessions at the same time.
pub const HTTP_SESSIONS: usize = 256;
/// Silence on an event stream before a keep-alive comment.
pub const HTTP_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long calls that still run may take when the client has closed standard input.
pub const EOF_GRACE: Duration = Duration::from_millis(1200);

/// Refuses `value` of `argument` unless it is at most `max` bytes.
pub(crate) fn at_most(argument: &str, len: usize, max: usize) -> Result<(), ToolError> {
    if len <= max {
        return Ok(());
    }
    Err(ToolError::invalid(format!(
        "{argument} is {len} bytes; at most {max} are allowed"
    )))
}

/// Refuses what cannot be the id or name of a snapshot or checkpoint.
pub(crate) fn snapshot(argument: &str, name: &str) -> Result<(), ToolError> {
    at_most(argument, name.len(), SNAPSHOT_NAME)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/".contains(&byte);
    if !name.is_empty() && name.bytes().all(fits) {
        return Ok(());
    }
    Err(
        ToolError::invalid(format!("{argument} is {name:?}, which is no id or name of a snapshot"))
            .hint("list_snapshots shows them."),
    )
}

/// Refuses what cannot name a template.
pub(crate) fn template(argument: &str, name: &str) -> Result<(), ToolError> {
    at_most(argument, name.len(), TEMPLATE_NAME)?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./:".contains(&byte);
    if !name.is_empty() && name.bytes().all(fits) {
        return Ok(());
    }
    Err(
        ToolError::invalid(format!("{argument} is {name:?}, which cannot name a template"))
            .hint("Lower-case letters, digits, - and _ make a name; a tag may follow after a colon."),
    )
}

/// Refuses a number outside `min..=max`.
pub(crate) fn between(argument: &str, value: u64, min: u64, max: u64) -> Result<u64, ToolError> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(ToolError::invalid(format!(
        "{argument} is {value}; {min} to {max} is allowed"
    )))
}

/// Refuses more than `max` entries.
pub(crate) fn count(argument: &str, len: usize, max: usize) -> Result<(), ToolError> {
    if len <= max {
        return Ok(());
    }
    Err(ToolError::invalid(format!(
        "{argument} has {len} entries; at most {max} are allowed"
    )))
}

/// Refuses text that no program can be given.
fn no_nul(argument: &str, value: &str) -> Result<(), ToolError> {
    if !value.contains('\0') {
        return Ok(());
    }
    Err(ToolError::invalid(format!(
        "{argument} contains a NUL byte; none is allowed"
    )))
}

/// Refuses what is not a path.
pub(crate) fn path(argument: &str, value: &str) -> Result<(), ToolError> {
    if value.is_empty() {
        return Err(ToolError::invalid(format!(
            "{argument} is empty; a path is needed, for example notes.txt or /tmp/x"
        )));
    }
    no_nul(argument, value)?;
    at_most(argument, value.len(), PATH)
}

/// Refuses what is not a command line.
pub(crate) fn cmd(value: &str) -> Result<(), ToolError> {
    if value.trim().is_empty() {
        return Err(ToolError::invalid(
            "cmd is empty; a shell command is needed, for example ls -l".to_owned(),
        ));
    }
    no_nul("cmd", value)?;
    at_most("cmd", value.len(), CMD)
}

/// Refuses names that no shell takes for a variable.
pub(crate) fn envs(values: &[Pair]) -> Result<(), ToolError> {
    count("envs", values.len(), ENV_PAIRS)?;
    for Pair { name, value } in values {
        let mut bytes = name.bytes();
        let starts = bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
        if !starts || !bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let shown: String = name.chars().take(80).collect();
            return Err(ToolError::invalid(format!(
                "envs has the name {shown:?}; a name is letters, digits and _ and starts with no digit"
            )));
        }
        no_nul(&format!("envs {name}"), value)?;
        at_most(&format!("envs {name}"), value.len(), ENV_VALUE)?;
    }
    Ok(())
}

/// Refuses too many or too long pairs.
pub(crate) fn metadata(values: &[Pair]) -> Result<(), ToolError> {
    count("metadata", values.len(), METADATA_PAIRS)?;
    for Pair { name, value } in values {
        at_most("metadata name", name.len(), METADATA_LEN)?;
        at_most("metadata value", value.len(), METADATA_LEN)?;
    }
    Ok(())
}

/// Refuses what is not a port.
pub(crate) fn port(value: u64) -> Result<u16, ToolError> {
    let port = between("port", value, 1, u64::from(u16::MAX))?;
    Ok(u16::try_from(port).unwrap_or(u16::MAX))
}

/// Refuses what cannot be asked of a server as a path.
pub(crate) fn url_path(argument: &str, value: &str) -> Result<(), ToolError> {
    at_most(argument, value.len(), URL)?;
    if value.starts_with('/') && value.bytes().all(|b| b.is_ascii_graphic()) {
        return Ok(());
    }
    let shown: String = value.chars().take(80).collect();
    Err(ToolError::invalid(format!(
        "{argument} is {shown:?}; it must begin with / and hold no space, for example /health"
    )))
}

/// Refuses what cannot be the headers of a request.
pub(crate) fn headers(values: &[Pair]) -> Result<(), ToolError> {
    count("headers", values.len(), HEADERS)?;
    for Pair { name, value } in values {
        let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
        if name.is_empty() || name.len() > 256 || !name.bytes().all(token) {
            let shown: String = name.chars().take(80).collect();
            return Err(ToolError::invalid(format!(
                "headers has the name {shown:?}, which is no name of a header"
            )));
        }
        at_most(&format!("headers {name}"), value.len(), HEADER)?;
        if value.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return Err(ToolError::invalid(format!(
                "headers {name} has a line break or a control character"
            )));
        }
    }
    Ok(())
}

/// Refuses what cannot be a job id.
pub(crate) fn job_id(value: &str) -> Result<(), ToolError> {
    let fits = !value.is_empty() && value.len() <= JOB_ID;
    if fits
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    {
        return Ok(());
    }
    let shown: String = value.chars().take(80).collect();
    Err(ToolError::invalid(format!(
        "job_id is {shown:?}; 1 to {JOB_ID} letters, digits, _ and - are allowed"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(name: &str, value: &str) -> Vec<Pair> {
        vec![Pair {
            name: name.into(),
            value: value.into(),
        }]
    }

    #[test]
    fn refusals_name_argument_value_and_limit() {
        let said = |e: Result<(), ToolError>| e.unwrap_err().message;
        assert_eq!(
            said(at_most("cmd", 70_000, CMD)),
            "cmd is 70000 bytes; at most 65536 are allowed"
        );
        assert_eq!(
            said(between("depth", 99, 1, DEPTH).map(drop)),
            "depth is 99; 1 to 16 is allowed"
        );
        assert_eq!(
            said(count("files", 101, FILES)),
            "files has 101 entries; at most 100 are allowed"
        );
        assert!(said(envs(&pair("1A", ""))).contains("\"1A\""));
        assert!(said(envs(&pair("A", "\0"))).contains("NUL"));
        assert!(said(envs(&pair("A=B", ""))).contains("A=B"));
        assert!(said(job_id("a/b")).contains("a/b"));
        assert_eq!(said(port(65_536).map(drop)), "port is 65536; 1 to 65535 is allowed");
        assert!(said(url_path("path", "health")).contains("begin with /"));
        assert!(said(url_path("path", "/a b")).contains("no space"));
        assert!(said(headers(&pair("a b", "x"))).contains("\"a b\""));
        assert!(said(headers(&pair("a", "x\r\nb: c"))).contains("line break"));
        assert!(said(path("path", "")).contains("empty"));
        assert!(said(cmd(" \n")).contains("empty"));
    }

    #[test]
    fn what_is_allowed_passes() {
        envs(&pair("_A1", "x y")).unwrap();
        metadata(&pair(&"k".repeat(METADATA_LEN), "v")).unwrap();
        cmd(&"x".repeat(CMD)).unwrap();
        job_id("build-1_a").unwrap();
        headers(&pair("X-A", "b\tc ü")).unwrap();
        url_path("path", "/a?b=%20").unwrap();
        assert_eq!(port(8080).unwrap(), 8080);
        path("path", "~/ü").unwrap();
    }
}
