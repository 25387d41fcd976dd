use super::*;

async fn compose(body: Value) -> Answer {
    send(router(), Method::POST, "/files/compose", &[], body.to_string()).await
}

#[tokio::test]
async fn sources_become_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("a"), noise(300_000)).unwrap();
    std::fs::write(at("b"), "tail").unwrap();
    std::fs::write(at("to"), "old").unwrap();
    let answer = compose(serde_json::json!({"source_paths": [at("a"), at("b")], "destination": at("to")})).await;
    assert_eq!(
        answer.json(),
        serde_json::json!({"path": at("to"), "name": "to", "type": "file"})
    );
    let composed = std::fs::read(at("to")).unwrap();
    assert!(composed[..300_000] == noise(300_000) && &composed[300_000..] == b"tail");
    let left: Vec<_> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(left, ["to"]);
}

#[tokio::test]
async fn refusals_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    std::fs::write(at("a"), "1").unwrap();
    for (sources, to, status, text) in [
        (vec![], at("to"), 400, "source_paths must not be empty".to_owned()),
        (vec![at("a")], String::new(), 400, "destination is required".to_owned()),
        (
            vec![at("a"), at("no")],
            at("to"),
            404,
            format!("source file not found: {}", at("no")),
        ),
        (
            vec![at("")],
            at("to"),
            400,
            format!("source path is not a regular file: {}", at("")),
        ),
        (
            vec![at("a")],
            at("a"),
            400,
            format!("source path \"{}\" cannot be the same as destination", at("a")),
        ),
        (
            vec![at("a")],
            at(""),
            400,
            format!("path is a directory: {}", folder.path().display()),
        ),
    ] {
        let answer = compose(serde_json::json!({"source_paths": sources, "destination": to})).await;
        assert_eq!(answer.refusal(), (status, text));
    }
    assert_eq!(compose(Value::Null).await.refusal().0, 400);
    let unknown = serde_json::json!({"source_paths": [at("a")], "destination": at("b"), "username": "no-such"});
    assert_eq!(compose(unknown).await.refusal().0, 401);
    assert_eq!(std::fs::read(at("a")).unwrap(), b"1");
}
