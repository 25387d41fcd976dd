//! `sandhold demo`: a real MCP session, shown. This program starts itself as the server, as a client would.

use std::process::{ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    time::Instant,
};

/// Lines of an answer that are shown.
const SHOWN_LINES: usize = 12;

const SLUG: &str = "def slug(title):\n    return title.lower().replace(' ', '-')\n";
const TEST: &str = "import unittest\nfrom slug import slug\n\nclass SlugTest(unittest.TestCase):\n    \
def test_words(self):\n        self.assertEqual(slug('Hello World'), 'hello-world')\n\n    \
def test_spaces_at_the_ends(self):\n        self.assertEqual(slug('  Hello '), 'hello')\n\nunittest.main()\n";

pub(crate) async fn run() -> Result<ExitCode> {
    let mut session = Session::start().await?;
    let tools = session.request("tools/list", json!({})).await?;
    let names: Vec<_> = tools["tools"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|t| t["name"].as_str())
        .collect();
    say(&format!(
        "The server offers {} tools: {}\n",
        names.len(),
        names.join(", ")
    ));

    let made = session.call("create_sandbox", json!({"set_as_default": true})).await?;
    let calls = [
        ("sandbox_info", json!({})),
        (
            "write_files",
            json!({"files": [{"path": "project/slug.py", "content": SLUG}, {"path": "project/test_slug.py", "content": TEST}]}),
        ),
        ("run_command", json!({"cmd": "python3 test_slug.py", "cwd": "project"})),
        (
            "edit_file",
            json!({"path": "project/slug.py", "old_text": "title.lower()", "new_text": "title.strip().lower()"}),
        ),
        ("run_command", json!({"cmd": "python3 test_slug.py", "cwd": "project"})),
        (
            "run_command_bg",
            json!({"cmd": "for i in 1 2 3; do echo step $i; sleep 0.3; done"}),
        ),
    ];
    let mut last = made;
    for (tool, arguments) in calls {
        last = session.call(tool, arguments).await?;
    }
    if let Some(job) = last["job_id"].as_str() {
        session
            .call("get_job_status", json!({"job_id": job, "wait_s": 10}))
            .await?;
    }
    session.call("shutdown_sandbox", json!({})).await?;
    session.end().await?;
    say("That was one session. To give it to your agent, add this to your MCP client's configuration:");
    say(r#"  {"mcpServers": {"sandhold": {"command": "sandhold", "args": ["mcp"]}}}"#);
    Ok(ExitCode::SUCCESS)
}

struct Session {
    server: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    last_id: u64,
}

impl Session {
    async fn start() -> Result<Self> {
        let program = std::env::current_exe().context("cannot tell where this program's file is")?;
        say(&format!(
            "Starting the MCP server: {} mcp",
            program.file_name().unwrap_or_default().display()
        ));
        let mut server = Command::new(program)
            .arg("mcp")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start the MCP server")?;
        let (Some(input), Some(output)) = (server.stdin.take(), server.stdout.take()) else {
            bail!("the MCP server has no pipes");
        };
        let mut session = Self {
            server,
            input,
            output: BufReader::new(output).lines(),
            last_id: 0,
        };
        let hello = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "sandhold-demo", "version": env!("CARGO_PKG_VERSION")}});
        session.request("initialize", hello).await?;
        session
            .send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
            .await?;
        Ok(session)
    }

    async fn send(&mut self, message: &Value) -> Result<()> {
        let line = format!("{message}\n");
        self.input
            .write_all(line.as_bytes())
            .await
            .context("the MCP server does not read")
    }

    async fn request(&mut self, method: &str, params: Value) -> Result<Value> {
        self.last_id += 1;
        let id = self.last_id;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}))
            .await?;
        loop {
            let line = self
                .output
                .next_line()
                .await
                .context("the MCP server does not answer")?;
            let line = line.context("the MCP server ended")?;
            let mut message: Value =
                serde_json::from_str(&line).context("the MCP server answered something that is not JSON")?;
            if message["id"] != id {
                continue;
            }
            if let Some(error) = message.get("error") {
                bail!("{method} failed: {}", error["message"].as_str().unwrap_or("no message"));
            }
            return Ok(message["result"].take());
        }
    }

    /// Calls a tool, shows call and answer, and returns its structured content.
    async fn call(&mut self, tool: &str, arguments: Value) -> Result<Value> {
        say(&format!("→ {tool} {}", shorten(&arguments.to_string(), 150)));
        let start = Instant::now();
        let mut result = self
            .request("tools/call", json!({"name": tool, "arguments": arguments}))
            .await?;
        let took = start.elapsed();
        let texts = result["content"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|c| c["text"].as_str());
        let text = texts.collect::<Vec<_>>().join("\n");
        let lines: Vec<_> = text.trim_end().lines().collect();
        for line in lines.iter().take(SHOWN_LINES) {
            say(&format!("  {}", shorten(line, 150)));
        }
        if lines.len() > SHOWN_LINES {
            say(&format!("  … {} more lines", lines.len() - SHOWN_LINES));
        }
        say(&format!("  ({:.1} ms)\n", took.as_secs_f64() * 1e3));
        if result["isError"] == true {
            bail!("{tool} failed; `sandhold doctor` says what this machine lacks");
        }
        Ok(result["structuredContent"].take())
    }

    async fn end(mut self) -> Result<()> {
        drop(self.input);
        self.server.wait().await.context("the MCP server does not end")?;
        Ok(())
    }
}

fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    text.chars().take(max).chain(['…']).collect()
}

#[expect(clippy::print_stdout, reason = "the command's output")]
fn say(line: &str) {
    println!("{line}");
}
