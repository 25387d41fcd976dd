//! Files: what is written is read back, and refusals say what to do.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::stub::{Session, text};

#[tokio::test]
async fn write_edit_and_read() {
    let session = Session::open().await;
    let written = session
        .good("write_file", json!({"path": "/a/b.txt", "content": "one\r\ntwo\r\n"}))
        .await;
    assert_eq!((&written["path"], &written["size"]), (&json!("/a/b.txt"), &json!(10)));
    let edited = session
        .good(
            "edit_file",
            json!({"path": "/a/b.txt", "old_text": "two", "new_text": "2\n3"}),
        )
        .await;
    assert_eq!(edited["replacements"], 1);
    assert_eq!(session.world.lock().unwrap().files["/a/b.txt"], b"one\r\n2\r\n3\r\n");
    let read = session
        .call(
            "read_file",
            json!({"path": "/a/b.txt", "offset_line": 2, "limit_lines": 1}),
        )
        .await;
    let answer = read.structured_content.clone().unwrap();
    assert_eq!(
        (&answer["text"], &answer["total_lines"], &answer["truncated"]),
        (&json!("2\r\n"), &json!(3), &json!(true))
    );
    assert!(text(&read).contains("go on with offset_line 3"));
    session.close().await;
}

#[tokio::test]
async fn edits_that_do_not_fit_change_nothing() {
    let session = Session::open().await;
    session
        .good(
            "write_file",
            json!({"path": "/f", "content": "alpha beta\nalpha beta\n"}),
        )
        .await;
    let told = session
        .bad("edit_file", json!({"path": "/f", "old_text": "alpha", "new_text": "x"}))
        .await;
    assert_eq!(told["error"]["code"], "ambiguous");
    let told = session
        .bad(
            "edit_file",
            json!({"path": "/f", "old_text": "alpha bets", "new_text": "x"}),
        )
        .await;
    assert!(
        told["error"]["message"]
            .as_str()
            .unwrap()
            .contains("Nearest, from line 1:\nalpha beta"),
        "{told}"
    );
    assert_eq!(session.world.lock().unwrap().files["/f"], b"alpha beta\nalpha beta\n");
    session.close().await;
}

#[tokio::test]
async fn several_files_have_a_row_each() {
    let session = Session::open().await;
    let files = json!([{"path": "/1", "content": "a"}, {"path": "/2", "content": "aGk=", "encoding": "base64"}]);
    let written = session.good("write_files", json!({ "files": files })).await;
    assert_eq!(written["results"][1]["size"], 2);
    let bad = json!([{"path": "/3", "content": "a"}, {"path": "", "content": "b"}]);
    let told = session.bad("write_files", json!({ "files": bad })).await;
    assert!(
        told["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("files[1].path is empty"),
        "{told}"
    );
    assert!(
        !session.world.lock().unwrap().files.contains_key("/3"),
        "all is checked before anything is written"
    );
    session.close().await;
}

#[tokio::test]
async fn binary_and_pictures() {
    let session = Session::open().await;
    let png = b"\x89PNG\r\n\x1a\n\0\0";
    for (path, data) in [
        ("/p.png", &png[..]),
        ("/bin", b"\0\x01\x02"),
        ("/latin1", b"gr\xfc\xdfe"),
    ] {
        let content = STANDARD.encode(data);
        session
            .good(
                "write_file",
                json!({"path": path, "content": content, "encoding": "base64"}),
            )
            .await;
    }
    let shown = session.call("read_file", json!({"path": "/p.png"})).await;
    let image = shown.content.iter().find_map(|c| c.as_image()).unwrap();
    assert_eq!(
        (image.mime_type.as_str(), image.data.as_str()),
        ("image/png", STANDARD.encode(png).as_str())
    );
    for path in ["/bin", "/latin1"] {
        let told = session.bad("read_file", json!({"path": path})).await;
        assert_eq!(told["error"]["code"], "not_text");
    }
    assert_eq!(
        session
            .good("read_file", json!({"path": "/bin", "encoding": "base64"}))
            .await["base64"],
        "AAEC"
    );
    let told = session.bad("read_file", json!({"path": "/missing"})).await;
    assert_eq!(told["error"]["code"], "not_found");
    session.close().await;
}

#[tokio::test]
async fn long_files_are_read_in_pages() {
    let session = Session::open().await;
    let content: String = (1..=20_000).map(|i| format!("line {i}\n")).collect();
    session
        .good("write_file", json!({"path": "/long", "content": content}))
        .await;
    let (mut all, mut offset) = (String::new(), 1);
    loop {
        let page = session
            .good("read_file", json!({"path": "/long", "offset_line": offset}))
            .await;
        let text = page["text"].as_str().unwrap();
        assert!(text.len() <= sandhold_mcp::budget::ANSWER);
        all.push_str(text);
        offset += text.lines().count();
        if page["truncated"] == false {
            break;
        }
    }
    assert_eq!(all, content);
    let end = session
        .good("read_file", json!({"path": "/long", "offset_line": -1}))
        .await;
    assert_eq!(end["text"], "line 20000\n");
    session.close().await;
}

#[tokio::test]
async fn content_has_a_limit() {
    let session = Session::open().await;
    let content = "x".repeat(sandhold_mcp::limits::CONTENT + 1);
    let told = session
        .bad("write_file", json!({"path": "/f", "content": content}))
        .await;
    assert!(
        told["error"]["message"]
            .as_str()
            .unwrap()
            .starts_with("content is 4194305 bytes; at most 4194304"),
        "{told}"
    );
    session.close().await;
}
