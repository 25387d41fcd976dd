//! The MCP Inspector's command line, 2.12: strict about schemas, silent on standard error, in every era.

use std::{
    fs,
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    time::Duration,
};

use sandhold_tests::{places, run, run::Ended, scenario, turn};
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(60);

fn inspector(home: &Path, arguments: &[&str]) -> Ended {
    let mut command = Command::new(places::node().unwrap());
    command
        .arg(places::node_module("@modelcontextprotocol/inspector/clients/launcher/build/index.js").unwrap())
        .arg("--cli")
        .args(arguments)
        .env("HOME", home)
        .env("SANDHOLD_HOME", home.join("state"))
        .current_dir(home);
    run::run(scenario::own_settings_only(&mut command), b"", LIMIT).unwrap()
}

/// Over stdio. The Inspector passes its own environment on only where it is told to.
fn stdio(home: &Path, arguments: &[&str]) -> Ended {
    let program = places::sandhold().unwrap();
    let state = format!("SANDHOLD_HOME={}", home.join("state").display());
    let target = [&["-e", &state, program.to_str().unwrap(), "mcp"], arguments].concat();
    inspector(home, &target)
}

/// The same of all toolsets. It takes options of the server for its own: they stand in a program of one line.
fn all_toolsets(home: &Path, arguments: &[&str]) -> Ended {
    let server = home.join("all-toolsets");
    let line = format!(
        "#!/bin/sh\nexec '{}' mcp --toolsets all\n",
        places::sandhold().unwrap().display()
    );
    fs::write(&server, line).unwrap();
    fs::set_permissions(&server, fs::Permissions::from_mode(0o755)).unwrap();
    let state = format!("SANDHOLD_HOME={}", home.join("state").display());
    inspector(home, &[&["-e", &state, server.to_str().unwrap()], arguments].concat())
}

/// The names of the tools in an answer to `tools/list`.
fn names(listed: &Value) -> Vec<&str> {
    let tools = listed["tools"]
        .as_array()
        .or_else(|| listed["result"]["tools"].as_array());
    let tools = tools.unwrap_or_else(|| panic!("no tools in {listed}"));
    tools.iter().filter_map(|tool| tool["name"].as_str()).collect()
}

fn json(ended: &Ended) -> Value {
    assert_eq!(ended.code(), 0, "{}\n{}", ended.stdout, ended.stderr);
    assert_eq!(ended.stderr, "", "standard error has to stay empty");
    serde_json::from_str(&ended.stdout).unwrap_or_else(|error| panic!("{error}: {}", ended.stdout))
}

#[test]
fn strict_in_every_era() {
    let _turn = turn::shared().unwrap();
    let home = tempfile::tempdir().unwrap();
    for era in ["legacy", "auto", "modern"] {
        let list = [
            "--protocol-era",
            era,
            "--method",
            "tools/list",
            "--strict",
            "--format",
            "json",
            "-q",
        ];
        let default = json(&stdio(home.path(), &list));
        let whole = json(&all_toolsets(home.path(), &list));
        for tool in ["create_sandbox", "run_command", "edit_file"] {
            assert!(names(&default).contains(&tool), "{era}: {tool}");
        }
        for tool in ["open_shell", "watch_dir", "list_processes", "zip_dir", "start_service"] {
            assert!(names(&whole).contains(&tool), "{era}: {tool}");
        }
        assert!(names(&default).iter().all(|tool| names(&whole).contains(tool)), "{era}");
    }
}

/// The control: what the test above would see if a schema were bad.
#[test]
fn strict_complains_of_a_bad_schema() {
    let _turn = turn::shared().unwrap();
    let home = tempfile::tempdir().unwrap();
    let server = home.path().join("bad.py");
    fs::write(&server, BAD_SERVER).unwrap();
    let python = places::python("venv").unwrap();
    let list = ["--method", "tools/list", "--strict", "--format", "json", "-q"];
    let target = [python.to_str().unwrap(), server.to_str().unwrap()];
    let ended = inspector(home.path(), &[&target[..], &list].concat());
    assert_ne!(ended.stderr, "", "a schema of two types is complained of");
    assert!(ended.stdout.contains("bad"), "{}", ended.stdout);
}

/// A server whose one tool has a schema that some clients refuse.
const BAD_SERVER: &str = r#"
import json, sys
for line in sys.stdin:
    asked = json.loads(line)
    if asked.get("method") == "initialize":
        answer = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "bad", "version": "0"}}
    elif asked.get("method") == "tools/list":
        schema = {"type": "object", "properties": {"x": {"type": ["string", "integer"]}}}
        answer = {"tools": [{"name": "bad", "inputSchema": schema}]}
    else:
        continue
    print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
"#;

#[test]
fn calls_over_stdio() {
    let _turn = turn::shared().unwrap();
    let home = tempfile::tempdir().unwrap();
    for era in ["legacy", "modern"] {
        let call = [
            "--protocol-era",
            era,
            "--method",
            "tools/call",
            "--tool-name",
            "run_command",
            "--format",
            "json",
            "-q",
        ];
        let good = json(&stdio(
            home.path(),
            &[
                &call[..],
                &["--tool-args-json", r#"{"cmd":"echo seen by the inspector"}"#],
            ]
            .concat(),
        ));
        assert!(good.to_string().contains("seen by the inspector"), "{good}");
        let bad = stdio(
            home.path(),
            &[&call[..], &["--tool-args-json", r#"{"cmd":"true","cwd":"/nowhere"}"#]].concat(),
        );
        assert_eq!(
            bad.code(),
            5,
            "a tool error is exit code 5: {}\n{}",
            bad.stdout,
            bad.stderr
        );
    }
    let read = ["--method", "resources/list", "--format", "json", "-q"];
    assert!(json(&stdio(home.path(), &read)).to_string().contains("resources"));
    let prompts = json(&stdio(
        home.path(),
        &["--method", "prompts/list", "--format", "json", "-q"],
    ));
    assert!(prompts.to_string().contains("name"), "{prompts}");
}

/// A server on a port of its own; ends when dropped.
pub(crate) struct Http {
    child: Child,
    pub(crate) url: String,
    pub(crate) token: Option<String>,
}

impl Http {
    pub(crate) fn start(home: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(places::sandhold().unwrap());
        command
            .args(["mcp", "--http", "127.0.0.1:0"])
            .args(arguments)
            .env("SANDHOLD_HOME", home.join("state"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = scenario::own_settings_only(&mut command).spawn().unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let (lines, said) = mpsc::channel();
        // Reads to the end, so that the server never writes into a full pipe.
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = lines.send(line);
            }
        });
        let with_token = !arguments.contains(&"--no-token");
        let (mut url, mut token) = (None, None);
        while url.is_none() || (with_token && token.is_none()) {
            let line = said
                .recv_timeout(Duration::from_secs(15))
                .expect("the server says where it listens");
            let word = |mark: &str| {
                line.split_once(mark)
                    .and_then(|(_, rest)| rest.split_whitespace().next().map(str::to_owned))
            };
            url = url.or_else(|| word("listening on "));
            token = token.or_else(|| word("token: "));
        }
        Self {
            child,
            url: url.unwrap(),
            token,
        }
    }
}

impl Drop for Http {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.child),
            rustix::process::Signal::TERM,
        );
        let _ = run::wait(&mut self.child, Duration::from_secs(10));
    }
}

#[test]
fn http_with_and_without_the_token() {
    let _turn = turn::shared().unwrap();
    let home = tempfile::tempdir().unwrap();
    let server = Http::start(home.path(), &[]);
    let header = format!("Authorization: Bearer {}", server.token.as_deref().unwrap());
    for era in ["legacy", "modern"] {
        let list = [
            "--server-url",
            &server.url,
            "--transport",
            "http",
            "--protocol-era",
            era,
            "--format",
            "json",
            "-q",
            "--stored-auth-only",
            "--method",
            "tools/list",
        ];
        let listed = json(&inspector(
            home.path(),
            &[&list[..], &["--strict", "--header", &header]].concat(),
        ));
        assert!(listed.to_string().contains("run_command"), "{era}");
        let refused = inspector(home.path(), &list);
        assert_eq!(
            refused.code(),
            3,
            "no token is an authentication error: {}\n{}",
            refused.stdout,
            refused.stderr
        );
    }
}
