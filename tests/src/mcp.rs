//! A small MCP client over standard input and output, for tests and benchmarks where a foreign client would be in the
//! way: the leak test kills what it talks to, and a benchmark must not measure its client.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde_json::{Value, json};

use crate::{places, run, scenario};

/// How long an answer may take: beyond the 45 seconds that every tool keeps to.
const ANSWER: Duration = Duration::from_secs(60);
/// How long a server may take to end after its standard input was closed.
const END: Duration = Duration::from_secs(10);

/// A running `sandhold mcp`.
#[derive(Debug)]
pub struct Server {
    child: Child,
    input: Option<ChildStdin>,
    output: ChildStdout,
    stderr: File,
    unread: Vec<u8>,
    next: u64,
}

impl Server {
    /// Starts `sandhold mcp` with its state under `home` and shakes hands, protocol 2025-11-25.
    ///
    /// # Errors
    /// It does not start or does not answer.
    pub fn start(home: &Path, arguments: &[&str]) -> Result<Self> {
        let stderr = tempfile::tempfile()?;
        let mut command = Command::new(places::sandhold()?);
        command
            .arg("mcp")
            .args(arguments)
            .env("SANDHOLD_HOME", home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?)
            .process_group(0);
        scenario::own_settings_only(&mut command);
        let mut child = command.spawn().context("starting sandhold mcp")?;
        let input = child.stdin.take();
        let output = child.stdout.take().context("no standard output")?;
        let mut server = Self {
            child,
            input,
            output,
            stderr,
            unread: Vec::new(),
            next: 1,
        };
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {},
            "clientInfo": {"name": "sandhold-tests", "version": "0"}});
        server.request("initialize", &hello)?;
        server.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))?;
        Ok(server)
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Calls a tool and returns its `structuredContent`.
    ///
    /// # Errors
    /// No answer, a protocol error, or an answer that says `isError`.
    pub fn call(&mut self, tool: &str, arguments: &Value) -> Result<Value> {
        let mut result = self.result(tool, arguments)?;
        ensure!(result["isError"] != json!(true), "{tool}: {}", result["content"]);
        Ok(result["structuredContent"].take())
    }

    /// Calls a tool and returns its whole result, whether it is an error or not.
    ///
    /// # Errors
    /// No answer, or a protocol error.
    pub fn result(&mut self, tool: &str, arguments: &Value) -> Result<Value> {
        self.request("tools/call", &json!({"name": tool, "arguments": arguments}))
    }

    /// Sends a call of a tool and does not wait for its answer.
    ///
    /// # Errors
    /// The server does not read.
    pub fn send_call(&mut self, tool: &str, arguments: &Value) -> Result<()> {
        let id = self.next;
        self.next += 1;
        let params = json!({"name": tool, "arguments": arguments});
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}))
    }

    /// Sends a request and returns its `result`.
    ///
    /// # Errors
    /// No answer, or a protocol error.
    pub fn request(&mut self, method: &str, params: &Value) -> Result<Value> {
        let id = self.next;
        self.next += 1;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))?;
        let until = Instant::now() + ANSWER;
        loop {
            let mut answer = self
                .receive(until)
                .with_context(|| format!("waiting for the answer to {method}"))?;
            // Notifications and late answers to earlier calls pass by.
            if answer["id"] == json!(id) {
                ensure!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
                return Ok(answer["result"].take());
            }
        }
    }

    fn send(&mut self, message: &Value) -> Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.input
            .as_mut()
            .context("standard input is closed")?
            .write_all(&line)
            .context("writing a request")
    }

    fn receive(&mut self, until: Instant) -> Result<Value> {
        loop {
            if let Some(end) = self.unread.iter().position(|&byte| byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return serde_json::from_slice(&line)
                    .with_context(|| format!("standard output holds no message: {}", String::from_utf8_lossy(&line)));
            }
            let left = until.saturating_duration_since(Instant::now());
            let wait = Timespec {
                tv_sec: i64::try_from(left.as_secs())?,
                tv_nsec: i64::from(left.subsec_nanos()),
            };
            let ready = poll(
                &mut [PollFd::from_borrowed_fd(self.output.as_fd(), PollFlags::IN)],
                Some(&wait),
            )?;
            ensure!(ready > 0, "no answer in time");
            let mut chunk = [0; 65536];
            let read = self.output.read(&mut chunk)?;
            if read == 0 {
                bail!("the server ended; it wrote: {}", self.said()?);
            }
            self.unread.extend_from_slice(&chunk[..read]);
        }
    }

    /// What it wrote to standard error.
    ///
    /// # Errors
    /// The file could not be read.
    pub fn said(&mut self) -> Result<String> {
        let mut text = String::new();
        self.stderr.seek(SeekFrom::Start(0))?;
        self.stderr.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Closes its standard input and waits for its end, as clients do.
    ///
    /// # Errors
    /// It did not end in time.
    pub fn close(mut self) -> Result<ExitStatus> {
        self.input = None;
        run::wait(&mut self.child, END)?.with_context(|| format!("the server did not end within {END:?}"))
    }

    /// Sends SIGKILL to the server alone, not to its group, and waits for its end.
    ///
    /// # Errors
    /// The system call failed.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            run::kill_group(&self.child);
            // Nothing more can be done about a failure here.
            let _ = self.child.wait();
        }
    }
}
