//! The daemon's protocol by hand over a stream of the engine: what is measured is the engine and the daemon, not a client.

use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use sandhold_runtime::{Sandbox, Stream};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// The largest answer that is read.
const ANSWER: usize = 64 << 10;

/// A connection to the daemon that is kept open.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    unread: Vec<u8>,
}

/// Where to stop reading.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// The first event with output.
    Output,
    /// The event of the process's end.
    End,
}

impl Connection {
    pub(crate) async fn open(sandbox: &Arc<dyn Sandbox>) -> Result<Self> {
        Ok(Self {
            stream: sandbox.connect().await?,
            unread: Vec::new(),
        })
    }

    /// Starts a process and reads its events. After [`Until::Output`] the connection is of no further use.
    pub(crate) async fn start(&mut self, program: &str, arguments: &[&str], until: Until) -> Result<()> {
        let message = json!({"process": {"cmd": program, "args": arguments}, "stdin": false}).to_string();
        let length = u32::try_from(message.len())?;
        let mut request = format!(
            "POST /process.Process/Start HTTP/1.1\r\nHost: envd\r\nContent-Type: application/connect+json\r\n\
             Connect-Protocol-Version: 1\r\nContent-Length: {}\r\n\r\n",
            message.len() + 5
        )
        .into_bytes();
        request.push(0);
        request.extend_from_slice(&length.to_be_bytes());
        request.extend_from_slice(message.as_bytes());
        self.stream.write_all(&request).await?;
        self.unread.clear();
        loop {
            // Events are short JSON texts in a chunked body; no event spans what these marks are looked for in.
            let text = String::from_utf8_lossy(&self.unread);
            if until == Until::Output && text.contains("\"stdout\"") {
                return Ok(());
            }
            if text.contains("\"end\"") && text.ends_with("0\r\n\r\n") {
                return if until == Until::End {
                    Ok(())
                } else {
                    bail!("no output: {text}")
                };
            }
            if text.contains("\"error\"") && text.ends_with("0\r\n\r\n") {
                bail!("the daemon refused: {text}");
            }
            let mut chunk = [0; 4096];
            let read = self.stream.read(&mut chunk).await?;
            if read == 0 || self.unread.len() > ANSWER {
                bail!(
                    "the daemon's answer broke off: {}",
                    String::from_utf8_lossy(&self.unread)
                );
            }
            self.unread.extend_from_slice(&chunk[..read]);
        }
    }

    /// Runs a script and waits for its end.
    pub(crate) async fn shell(&mut self, script: &str) -> Result<()> {
        self.start("/usr/bin/bash", &["-c", script], Until::End).await?;
        let text = String::from_utf8_lossy(&self.unread);
        ensure!(text.contains("\"exit status 0\""), "{script}: {text}");
        Ok(())
    }
}

/// What the gateway would tell the daemon.
pub(crate) fn boot(id: &str) -> Result<Vec<u8>> {
    let spec = sandhold_wire::boot::BootSpec {
        sandbox_id: id.to_owned(),
        template_id: "base".to_owned(),
        default_user: "user".to_owned(),
        max_processes: 512,
        can_switch_user: true,
        ..sandhold_wire::boot::BootSpec::default()
    };
    serde_json::to_vec(&spec).context("the boot message")
}

/// The text of a tool's answer, for a message about it.
pub(crate) fn shown(value: &Value) -> String {
    value.to_string().chars().take(300).collect()
}
