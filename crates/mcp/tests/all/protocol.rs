//! What every MCP client relies on.

use rmcp::model::{CallToolRequestParams, GetPromptRequestParams, ReadResourceRequestParams};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio_util::sync::CancellationToken;

use crate::stub::{Session, server, text};

#[tokio::test]
async fn lists_tools_prompts_and_resources() {
    let session = Session::open().await;
    let tools = session.client.list_all_tools().await.unwrap();
    assert_eq!(tools.len(), sandhold_mcp::tools().len());
    assert!(tools.iter().all(|t| t.output_schema.is_some()));
    assert_eq!(session.client.list_all_prompts().await.unwrap().len(), 2);
    let prompt = async |name: &str, arguments: Value| {
        let arguments = arguments.as_object().unwrap().clone();
        let request = GetPromptRequestParams::new(name).with_arguments(arguments);
        session.client.get_prompt(request).await
    };
    let said = prompt("start_web_project", json!({"what": "a guest book"}))
        .await
        .unwrap();
    assert!(serde_json::to_string(&said).unwrap().contains("a guest book"));
    let said = prompt("analyse_data_file", json!({"path": "x.csv", "question": "how many?"})).await;
    assert!(serde_json::to_string(&said.unwrap()).unwrap().contains("how many?"));
    let refused = prompt("analyse_data_file", json!({"path": " "})).await.unwrap_err();
    assert!(
        refused
            .to_string()
            .contains("argument path of analyse_data_file is missing"),
        "{refused}"
    );
    let help = session
        .client
        .read_resource(ReadResourceRequestParams::new("sandhold://help"))
        .await
        .unwrap();
    let help = serde_json::to_string(&help).unwrap();
    assert!(
        help.contains("run_command") && help.contains("not possible here: fly"),
        "{help}"
    );
    let catalogue = session
        .client
        .read_resource(ReadResourceRequestParams::new("sandhold://tools"))
        .await
        .unwrap();
    let catalogue = serde_json::to_value(catalogue).unwrap();
    let catalogue: Value = serde_json::from_str(catalogue["contents"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!(catalogue["tools"].as_array().unwrap().len(), tools.len());
    assert!(catalogue["tools"][0]["outputSchema"]["properties"]["exit_code"].is_object());
    let missing = session
        .client
        .read_resource(ReadResourceRequestParams::new("sandhold://nope"))
        .await
        .unwrap_err();
    assert!(format!("{missing:?}").contains("sandhold://nope"));
    session.good("run_command", json!({"cmd": "out x"})).await;
    let resources = session.client.list_all_resources().await.unwrap();
    let uri = resources
        .iter()
        .find(|r| r.uri.starts_with("sandhold://sandbox/"))
        .unwrap()
        .uri
        .clone();
    let info = session
        .client
        .read_resource(ReadResourceRequestParams::new(uri))
        .await
        .unwrap();
    assert!(serde_json::to_string(&info).unwrap().contains("memory_mb"));
    session.close().await;
}

#[tokio::test]
async fn long_things_are_linked_and_the_links_can_be_read() {
    let session = Session::open().await;
    let read = async |uri: String| session.client.read_resource(ReadResourceRequestParams::new(uri)).await;
    let cut = session
        .call("run_command", json!({"cmd": "out begin; flood 100000; out end"}))
        .await;
    let answer = cut.structured_content.clone().unwrap();
    let link = cut.content.iter().find_map(|c| c.as_resource_link()).unwrap();
    assert_eq!(answer["artifacts"][0]["uri"], link.uri);
    let whole = serde_json::to_value(read(link.uri.clone()).await.unwrap()).unwrap();
    let text = whole["contents"][0]["text"].as_str().unwrap();
    assert!(text.starts_with("begin\nx") && text.ends_with("xend\n") && text.len() > 100_000);
    let uncut = session.call("run_command", json!({"cmd": "out x"})).await;
    assert!(uncut.structured_content.unwrap().get("artifacts").is_none());

    let zeros = json!({"path": "/b.bin", "content": "AAEC", "encoding": "base64"});
    session.good("write_file", zeros).await;
    let told = session.bad("read_file", json!({"path": "/b.bin"})).await;
    assert_eq!(told["error"]["code"], "not_text");
    let blob = serde_json::to_value(
        read(told["artifacts"][0]["uri"].as_str().unwrap().into())
            .await
            .unwrap(),
    )
    .unwrap();
    assert_eq!(blob["contents"][0]["blob"], "AAEC");
    let id = told["sandbox_id"].as_str().unwrap();
    for gone in [
        format!("sandhold://sandbox/{id}/file/nowhere"),
        "sandhold://sandbox/inone/file/b.bin".into(),
    ] {
        let error = read(gone.clone()).await.unwrap_err();
        assert!(format!("{error:?}").contains(&gone), "{error:?}");
    }
    session.close().await;
}

#[tokio::test]
async fn code_runs_in_all_sandboxes() {
    let session = Session::open().await;
    let none = session.bad("run_in_all_sandboxes", json!({"code": "1"})).await;
    assert_eq!(none["error"]["code"], "no_sandbox");
    for _ in 0..3 {
        session.good("create_sandbox", json!({})).await;
    }
    let told = session
        .bad("run_in_all_sandboxes", json!({"code": "1", "language": "cobol"}))
        .await;
    assert!(told["error"]["message"].as_str().unwrap().contains("`bash`"), "{told}");
    let answer = session.good("run_in_all_sandboxes", json!({"code": "print(1)"})).await;
    let rows = answer["results"].as_array().unwrap();
    let good = |row: &&Value| row["exit_code"] == 0 && row["stdout"] == "python3 -\n";
    assert_eq!((rows.len(), rows.iter().filter(good).count()), (3, 3), "{answer}");
    let given: Vec<Vec<u8>> = session.world.lock().unwrap().stdin.values().cloned().collect();
    assert_eq!(given, vec![b"print(1)".to_vec(); 3]);
    session.close().await;
}

#[tokio::test]
async fn unknown_tools_are_a_protocol_error_and_bad_arguments_are_not() {
    let session = Session::open().await;
    let error = session
        .client
        .call_tool(CallToolRequestParams::new("rm"))
        .await
        .unwrap_err();
    assert!(error.to_string().contains("Unknown tool: rm"), "{error}");
    let answer = session.bad("read_file", json!({"file": "x"})).await;
    assert!(
        answer["error"]["message"]
            .as_str()
            .unwrap()
            .contains("unknown argument `file`")
    );
    assert!(
        answer["error"]["hint"]
            .as_str()
            .unwrap()
            .contains("path (string, required)")
    );
    assert_eq!(
        session.world.lock().unwrap().made,
        0,
        "nothing is made for a refused call"
    );
    session.close().await;
}

#[tokio::test]
async fn every_structured_answer_fits_its_schema() {
    let session = Session::open().await;
    let calls = [
        ("run_command", json!({"cmd": "out a; err b; exit 3"})),
        ("list_jobs", json!({})),
        ("sandbox_info", json!({})),
        ("list_sandboxes", json!({})),
        ("write_file", json!({"path": "/f", "content": "a\nb\n"})),
        ("read_file", json!({"path": "/f"})),
        ("edit_file", json!({"path": "/f", "old_text": "b", "new_text": "c"})),
        ("read_file", json!({"path": "/missing"})),
        ("shutdown_all_sandboxes", json!({})),
    ];
    let schemas = sandhold_mcp::tools();
    for (tool, arguments) in calls {
        let result = session.call(tool, arguments).await;
        let answer = result.structured_content.unwrap();
        let schema = &schemas.iter().find(|t| t.name == tool).unwrap().output["properties"];
        for (field, value) in answer.as_object().unwrap() {
            let kind = match value {
                Value::Bool(_) => "boolean",
                Value::Number(n) if n.is_f64() => "number",
                Value::Number(_) => "integer",
                Value::String(_) => "string",
                Value::Array(_) => "array",
                Value::Object(_) => "object",
                Value::Null => "null",
            };
            assert_eq!(schema[field]["type"], kind, "{tool}.{field} = {value}");
        }
    }
    session.close().await;
}

/// Speaks the stateless revision by hand.
#[tokio::test]
async fn the_stateless_revision_needs_no_initialize() {
    let (_world, server) = server().await;
    let (near, far) = tokio::io::duplex(1 << 20);
    let (reader, writer) = tokio::io::split(far);
    let serving = tokio::spawn(sandhold_mcp::serve_io(server, reader, writer, CancellationToken::new()));
    let (reader, mut writer) = tokio::io::split(near);
    let mut lines = BufReader::new(reader).lines();
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}, "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"}});
    let mut ask = async |id: i32, method: &str, mut params: Value| -> Value {
        params["_meta"] = meta.clone();
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        writer.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        serde_json::from_str(&lines.next_line().await.unwrap().unwrap()).unwrap()
    };
    let found = ask(1, "server/discover", json!({})).await;
    assert!(
        found["result"]["supportedVersions"]
            .as_array()
            .unwrap()
            .contains(&json!("2026-07-28")),
        "{found}"
    );
    assert!(
        found["result"]["instructions"]
            .as_str()
            .unwrap()
            .contains("run_command")
    );
    let tools = ask(2, "tools/list", json!({})).await;
    assert_eq!(
        (&tools["result"]["cacheScope"], &tools["result"]["ttlMs"]),
        (&json!("public"), &json!(300_000))
    );
    // All toolsets are on.
    assert!(
        tools.to_string().len() <= 48_000,
        "the list is {} bytes",
        tools.to_string().len()
    );
    let called = ask(
        3,
        "tools/call",
        json!({"name": "run_command", "arguments": {"cmd": "out hello"}}),
    )
    .await;
    assert_eq!(called["result"]["structuredContent"]["stdout"], "hello\n", "{called}");
    assert_eq!(called["result"]["resultType"], "complete");
    drop((lines, writer));
    tokio::time::timeout(std::time::Duration::from_secs(2), serving)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_message_that_is_too_long_is_answered() {
    let session = Session::open().await;
    let long = "x".repeat(sandhold_mcp::limits::STDIO_MESSAGE);
    let params = CallToolRequestParams::new("write_file")
        .with_arguments(json!({"path": "/f", "content": long}).as_object().unwrap().clone());
    let error = session.client.call_tool(params).await.unwrap_err();
    assert!(error.to_string().contains("longer than 16777216 bytes"), "{error}");
    session.good("list_jobs", json!({})).await;
    session.close().await;
}

#[tokio::test]
async fn the_end_of_the_input_ends_the_server_soon() {
    let session = Session::open().await;
    session.good("run_command", json!({"cmd": "out x"})).await;
    let began = std::time::Instant::now();
    let (client, world) = (session.client.peer().clone(), session.world.clone());
    let running = tokio::spawn(async move {
        let arguments = json!({"cmd": "hang"}).as_object().unwrap().clone();
        client
            .call_tool(CallToolRequestParams::new("run_command").with_arguments(arguments))
            .await
    });
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    session.close().await;
    assert!(
        began.elapsed() < std::time::Duration::from_secs(2),
        "{:?}",
        began.elapsed()
    );
    assert!(running.await.unwrap().is_err());
    assert!(
        world.lock().unwrap().signals.is_empty(),
        "what runs is left to the owner of the sandbox"
    );
}

#[tokio::test]
async fn answers_are_not_said_twice_and_texts_are_short() {
    let session = Session::open().await;
    let result = session.call("run_command", json!({"cmd": "out needle; exit 1"})).await;
    assert_eq!(text(&result).matches("needle").count(), 1);
    assert_eq!(
        result.structured_content.unwrap().to_string().matches("needle").count(),
        1
    );
    session.close().await;
}
