//! Asking the user: both eras of the protocol, what the user may say, the three policies, and states that are not right.

use std::sync::{Arc, Mutex};

use rmcp::{
    ClientHandler, RoleClient, ServiceExt,
    model::{
        CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig, ElicitRequestParams, ElicitResult,
        ElicitationAction, ElicitationCapability, Implementation,
    },
    service::{RequestContext, RunningService},
};
use sandhold_mcp::{Confirm, Server, serve_io};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

use crate::stub::{Shared, server_that, text};

/// A person who says the same to every question.
#[derive(Clone)]
struct Person {
    can_be_asked: bool,
    action: ElicitationAction,
    ticks: bool,
    asked: Arc<Mutex<Vec<String>>>,
}

impl ClientHandler for Person {
    fn get_info(&self) -> ClientConfig {
        let mut capabilities = ClientCapabilities::default();
        capabilities.elicitation = self.can_be_asked.then(ElicitationCapability::default);
        ClientConfig::new(capabilities, Implementation::new("t", "1"))
    }

    async fn create_elicitation(
        &self,
        request: ElicitRequestParams,
        _cx: RequestContext<RoleClient>,
    ) -> Result<ElicitResult, rmcp::ErrorData> {
        let ElicitRequestParams::FormElicitationParams { message, .. } = request else {
            panic!("not a form")
        };
        self.asked.lock().unwrap().push(message);
        let answer = ElicitResult::new(self.action.clone());
        Ok(match self.action {
            ElicitationAction::Accept => answer.with_content(json!({"confirm": self.ticks})),
            _ => answer,
        })
    }
}

struct Session {
    world: Shared,
    person: Person,
    client: RunningService<RoleClient, Person>,
}

fn serve(server: Server) -> tokio::io::DuplexStream {
    let (near, far) = tokio::io::duplex(64 << 10);
    let (reader, writer) = tokio::io::split(far);
    tokio::spawn(serve_io(server, reader, writer, CancellationToken::new()));
    near
}

async fn session(confirm: Confirm, person: Option<(ElicitationAction, bool)>) -> Session {
    let (world, server) = server_that(confirm).await;
    let (action, ticks) = person.clone().unwrap_or((ElicitationAction::Accept, true));
    let person = Person {
        can_be_asked: person.is_some(),
        action,
        ticks,
        asked: Arc::default(),
    };
    let client = person.clone().serve(serve(server)).await.unwrap();
    Session { world, person, client }
}

impl Session {
    async fn call(&self, tool: &'static str, arguments: Value) -> CallToolResult {
        let params = CallToolRequestParams::new(tool).with_arguments(arguments.as_object().unwrap().clone());
        self.client.call_tool(params).await.unwrap()
    }

    fn asked(&self) -> Vec<String> {
        self.person.asked.lock().unwrap().clone()
    }

    fn alive(&self) -> usize {
        self.world.lock().unwrap().alive.len()
    }
}

fn code(result: &CallToolResult) -> Option<String> {
    Some(
        result.structured_content.as_ref()?["error"]["code"]
            .as_str()?
            .to_owned(),
    )
}

#[tokio::test]
async fn a_session_asks_and_heeds_what_is_said() {
    let yes = (ElicitationAction::Accept, true);
    for (person, wanted) in [
        (yes, None),
        ((ElicitationAction::Accept, false), Some("declined")),
        ((ElicitationAction::Decline, false), Some("declined")),
        ((ElicitationAction::Cancel, false), Some("declined")),
    ] {
        let session = session(Confirm::Destructive, Some(person.clone())).await;
        session.call("create_sandbox", json!({})).await;
        assert!(session.asked().is_empty(), "nothing is destroyed yet");
        let result = session.call("shutdown_all_sandboxes", json!({})).await;
        assert_eq!(code(&result).as_deref(), wanted, "{person:?}: {}", text(&result));
        assert_eq!(session.alive(), usize::from(wanted.is_some()), "{person:?}");
        let asked = session.asked();
        assert!(
            asked.len() == 1 && asked[0].contains("End all 1 sandboxes"),
            "{asked:?}"
        );
        if wanted.is_some() {
            assert!(text(&result).contains("Do not try it again"), "{}", text(&result));
        }
        session.call("write_file", json!({"path": "/f", "content": ""})).await;
        assert_eq!(session.asked().len(), 1, "other tools do not ask");
    }
}

#[tokio::test]
async fn the_policy_decides_where_the_client_cannot_ask() {
    for (confirm, wanted) in [
        (Confirm::Never, None),
        (Confirm::Destructive, None),
        (Confirm::Always, Some("consent_needed")),
    ] {
        let session = session(confirm, None).await;
        session.call("create_sandbox", json!({})).await;
        let result = session.call("shutdown_all_sandboxes", json!({})).await;
        assert_eq!(code(&result).as_deref(), wanted, "{confirm:?}");
        assert_eq!(session.alive(), usize::from(wanted.is_some()), "{confirm:?}");
        assert!(session.asked().is_empty());
        if wanted.is_some() {
            assert!(text(&result).contains("--confirm destructive"), "{}", text(&result));
        }
    }
}

#[tokio::test]
async fn the_policy_decides_what_is_asked() {
    let yes = || Some((ElicitationAction::Accept, true));
    let never = session(Confirm::Never, yes()).await;
    never.call("create_sandbox", json!({})).await;
    never.call("shutdown_all_sandboxes", json!({})).await;
    assert_eq!((never.alive(), never.asked().len()), (0, 0));

    let always = session(Confirm::Always, yes()).await;
    always.call("create_sandbox", json!({})).await;
    always.call("list_sandboxes", json!({})).await;
    assert!(always.asked().is_empty(), "these destroy nothing");
    let done = always.call("run_command", json!({"cmd": "out hello"})).await;
    assert!(text(&done).contains("hello"));
    assert_eq!(always.asked(), [r#"Run a command? run_command {"cmd":"out hello"}"#]);
    let forged = json!({"cmd": "out a\u{202e}\n\nAccept.", "user": "root"});
    always.call("run_command", forged).await;
    assert_eq!(
        always.asked()[1],
        r#"Run a command? run_command {"cmd":"out a\u{202e}\n\nAccept.","user":"root"}"#
    );
    always.call("shutdown_all_sandboxes", json!({})).await;
    assert_eq!((always.alive(), always.asked().len()), (0, 3), "one question a call");

    let no = session(Confirm::Always, Some((ElicitationAction::Decline, false))).await;
    let refused = no.call("run_command", json!({"cmd": "out hello"})).await;
    assert_eq!(code(&refused).as_deref(), Some("declined"));
    assert_eq!(no.world.lock().unwrap().made, 0, "nothing was begun");
}

/// A client of the stateless revision, by hand.
struct Rounds {
    world: Shared,
    capabilities: Value,
    lines: tokio::io::Lines<BufReader<tokio::io::ReadHalf<tokio::io::DuplexStream>>>,
    writer: tokio::io::WriteHalf<tokio::io::DuplexStream>,
    id: u32,
}

impl Rounds {
    async fn open(confirm: Confirm, capabilities: Value) -> Self {
        let (world, server) = server_that(confirm).await;
        let (reader, writer) = tokio::io::split(serve(server));
        let lines = BufReader::new(reader).lines();
        let mut rounds = Self {
            world,
            capabilities,
            lines,
            writer,
            id: 0,
        };
        rounds.call("create_sandbox", json!({}), json!({})).await;
        rounds
    }

    /// Calls a tool; `more` are further params. Returns the whole answer.
    async fn call(&mut self, tool: &str, arguments: Value, more: Value) -> Value {
        self.id += 1;
        let mut params = json!({"name": tool, "arguments": arguments, "_meta": {
            "io.modelcontextprotocol/protocolVersion": "2026-07-28",
            "io.modelcontextprotocol/clientCapabilities": self.capabilities,
            "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}}});
        params
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let request = json!({"jsonrpc": "2.0", "id": self.id, "method": "tools/call", "params": params});
        self.writer.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
    }

    /// Makes the call that has a question for an answer. Returns the state.
    async fn question(&mut self) -> String {
        let asked = self.call("shutdown_all_sandboxes", json!({}), json!({})).await;
        let result = &asked["result"];
        assert_eq!(result["resultType"], "input_required", "{asked}");
        let question = &result["inputRequests"]["consent"];
        assert_eq!(question["method"], "elicitation/create");
        assert_eq!(question["params"]["requestedSchema"]["required"], json!(["confirm"]));
        assert_eq!(self.alive(), 1, "nothing was done");
        result["requestState"].as_str().unwrap().to_owned()
    }

    fn alive(&self) -> usize {
        self.world.lock().unwrap().alive.len()
    }
}

fn said(state: &str, answer: Value) -> Value {
    json!({"requestState": state, "inputResponses": {"consent": answer}})
}

fn yes() -> Value {
    json!({"action": "accept", "content": {"confirm": true}})
}

#[tokio::test]
async fn a_call_without_a_session_is_asked_and_made_again() {
    let no = [
        json!({"action": "accept", "content": {"confirm": false}}),
        json!({"action": "accept"}),
        json!({"action": "decline"}),
        json!({"action": "cancel"}),
    ];
    let mut client = Rounds::open(Confirm::Destructive, json!({"elicitation": {"form": {}}})).await;
    for answer in no {
        let state = client.question().await;
        let told = client
            .call("shutdown_all_sandboxes", json!({}), said(&state, answer.clone()))
            .await;
        assert_eq!(
            told["result"]["structuredContent"]["error"]["code"], "declined",
            "{answer}: {told}"
        );
        assert_eq!(client.alive(), 1);
    }
    let state = client.question().await;
    let told = client
        .call("shutdown_all_sandboxes", json!({}), said(&state, yes()))
        .await;
    assert_eq!(told["result"]["structuredContent"]["ok"], true, "{told}");
    assert_eq!(client.alive(), 0);
}

#[tokio::test]
async fn a_yes_is_good_for_one_call_and_its_arguments() {
    let mut client = Rounds::open(Confirm::Always, json!({"elicitation": {"form": {}}})).await;
    // `create_sandbox` destroys nothing; a command may.
    let asked = client.call("run_command", json!({"cmd": "out one"}), json!({})).await;
    let state = asked["result"]["requestState"].as_str().unwrap().to_owned();
    for (name, tool, arguments) in [
        ("other arguments", "run_command", json!({"cmd": "out two"})),
        ("another tool", "run_command_bg", json!({"cmd": "out one"})),
    ] {
        let told = client.call(tool, arguments, said(&state, yes())).await;
        assert_eq!(told["error"]["code"], -32602, "{name}: {told}");
    }
    let mut forged = state.clone();
    let last = if forged.pop() == Some('A') { 'B' } else { 'A' };
    forged.push(last);
    for forged in [&forged, "rs1.e30.e30", ""] {
        let told = client
            .call("run_command", json!({"cmd": "out one"}), said(forged, yes()))
            .await;
        assert_eq!(told["error"]["code"], -32602, "{forged}: {told}");
    }
    let without = json!({"inputResponses": {"consent": yes()}});
    let told = client.call("run_command", json!({"cmd": "out one"}), without).await;
    assert_eq!(
        told["result"]["resultType"], "input_required",
        "a yes to no question: {told}"
    );
    for empty in [json!({}), json!({"other": yes()}), json!({"consent": 7})] {
        let told = client
            .call(
                "run_command",
                json!({"cmd": "out one"}),
                json!({"requestState": &state, "inputResponses": empty}),
            )
            .await;
        assert_eq!(told["result"]["resultType"], "input_required", "{told}");
    }

    let told = client
        .call("run_command", json!({"cmd": "out one"}), said(&state, yes()))
        .await;
    assert_eq!(told["result"]["structuredContent"]["stdout"], "one\n", "{told}");
    let again = client
        .call("run_command", json!({"cmd": "out one"}), said(&state, yes()))
        .await;
    assert_eq!(again["result"]["resultType"], "input_required", "replayed: {again}");
}

#[tokio::test]
async fn a_yes_is_to_the_question_that_was_read() {
    let mut client = Rounds::open(Confirm::Destructive, json!({"elicitation": {"form": {}}})).await;
    let state = client.question().await;
    client.call("create_sandbox", json!({}), json!({})).await;
    let told = client
        .call("shutdown_all_sandboxes", json!({}), said(&state, yes()))
        .await;
    let message = &told["result"]["inputRequests"]["consent"]["params"]["message"];
    assert!(message.as_str().unwrap().contains("End all 2 sandboxes"), "{told}");
    assert_eq!(client.alive(), 2);
}

#[tokio::test]
async fn without_a_session_the_policy_decides_where_the_client_cannot_ask() {
    for capabilities in [json!({}), json!({"elicitation": {"url": {}}})] {
        let mut client = Rounds::open(Confirm::Destructive, capabilities.clone()).await;
        let told = client.call("shutdown_all_sandboxes", json!({}), json!({})).await;
        assert_eq!(
            (&told["result"]["structuredContent"]["ok"], client.alive()),
            (&json!(true), 0)
        );
        let mut client = Rounds::open(Confirm::Always, capabilities).await;
        let told = client.call("shutdown_all_sandboxes", json!({}), json!({})).await;
        assert_eq!(
            told["result"]["structuredContent"]["error"]["code"], "consent_needed",
            "{told}"
        );
        assert_eq!(client.alive(), 1);
    }
    let mut client = Rounds::open(Confirm::Never, json!({"elicitation": {}})).await;
    client.call("shutdown_all_sandboxes", json!({}), json!({})).await;
    assert_eq!(client.alive(), 0);
}
