use std::time::Duration;

use connectrpc::ConnectRpcBody;

use super::*;

/// A stream of watch events as they arrive.
struct Stream {
    body: ConnectRpcBody,
    read: Vec<u8>,
}

impl Stream {
    async fn open(client: &Client, request: Value, headers: &[(&str, &str)]) -> Self {
        let text = request.to_string();
        let mut body = vec![0];
        body.extend(u32::try_from(text.len()).unwrap().to_be_bytes());
        body.extend(text.into_bytes());
        let answer = client.send("WatchDir", "application/connect+json", headers, body).await;
        assert_eq!(answer.status(), 200);
        Self {
            body: answer.into_body(),
            read: Vec::new(),
        }
    }

    /// The next message.
    async fn next(&mut self) -> Value {
        loop {
            if let Some(head) = self.read.first_chunk::<5>() {
                let len = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
                if self.read.len() >= 5 + len {
                    let rest = self.read.split_off(5 + len);
                    let message = std::mem::replace(&mut self.read, rest);
                    return serde_json::from_slice(&message[5..]).unwrap();
                }
            }
            let frame = tokio::time::timeout(Duration::from_secs(5), self.body.frame()).await;
            let frame = frame.expect("an event comes").expect("the stream goes on").unwrap();
            self.read.extend(frame.into_data().unwrap());
        }
    }

    async fn started(client: &Client, request: Value) -> Self {
        let mut stream = Self::open(client, request, &[]).await;
        assert_eq!(stream.next().await, json!({"start": {}}));
        stream
    }

    /// The next events as `KIND name`, up to and without the creation of `end`, which this makes.
    async fn until(&mut self, end: &Path) -> Vec<String> {
        std::fs::write(end, "").unwrap();
        let mark = format!("CREATE {}", end.file_name().unwrap().to_str().unwrap());
        let mut events = Vec::new();
        loop {
            let event = short(&self.next().await["filesystem"]);
            if event == mark {
                return events;
            }
            events.push(event);
        }
    }
}

fn short(event: &Value) -> String {
    let kind = event["type"].as_str().unwrap().strip_prefix("EVENT_TYPE_").unwrap();
    format!("{kind} {}", event["name"].as_str().unwrap())
}

fn watch(path: &Path, recursive: bool) -> Value {
    json!({"path": path.to_str().unwrap(), "recursive": recursive})
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir(at("sub")).unwrap();
    let mut stream = Stream::started(&Client::new(), watch(folder.path(), false)).await;
    std::fs::write(at("a"), "x").unwrap();
    std::fs::set_permissions(at("a"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    std::fs::rename(at("a"), at("b")).unwrap();
    std::fs::remove_file(at("b")).unwrap();
    std::fs::write(at("sub/unseen"), "x").unwrap();
    let events = stream.until(&at("end")).await;
    assert_eq!(
        events,
        ["CREATE a", "WRITE a", "CHMOD a", "RENAME a", "CREATE b", "REMOVE b"]
    );
    std::fs::remove_dir_all(folder.path()).unwrap();
    let mut last = String::new();
    while last != "REMOVE ." {
        last = short(&stream.next().await["filesystem"]);
    }
}

#[tokio::test]
async fn recursive_watches_follow_new_folders_without_gaps_or_doubles() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("old/deep")).unwrap();
    let mut stream = Stream::started(&Client::new(), watch(folder.path(), true)).await;
    std::fs::write(at("old/deep/a"), "").unwrap();
    assert_eq!(stream.until(&at("end0")).await, ["CREATE old/deep/a"]);
    // Faster than any watch can be set up: what is there already when it stands must be told, and only once.
    let mut expected = Vec::new();
    for dir in 0..30 {
        std::fs::create_dir_all(at(&format!("n{dir}/s/t"))).unwrap();
        expected.extend([format!("n{dir}"), format!("n{dir}/s"), format!("n{dir}/s/t")]);
        for file in 0..10 {
            let name = format!("n{dir}/s/t/f{file}");
            std::fs::write(at(&name), "").unwrap();
            expected.push(name);
        }
    }
    let mut created: Vec<String> = Vec::new();
    while created.len() < expected.len() {
        let event = short(&stream.next().await["filesystem"]);
        created.push(event.strip_prefix("CREATE ").expect(&event).to_owned());
    }
    created.sort();
    expected.sort();
    assert_eq!(created, expected);
    assert_eq!(stream.until(&at("end1")).await, Vec::<String>::new());
    // Created, removed and created again is told as that.
    std::fs::create_dir(at("again")).unwrap();
    std::fs::write(at("again/x"), "").unwrap();
    assert_eq!(stream.until(&at("end2")).await, ["CREATE again", "CREATE again/x"]);
    std::fs::remove_file(at("again/x")).unwrap();
    std::fs::write(at("again/x"), "").unwrap();
    assert_eq!(stream.until(&at("end3")).await, ["REMOVE again/x", "CREATE again/x"]);
}

#[tokio::test]
async fn moved_folders_keep_their_watch_under_their_new_name() {
    let folder = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::create_dir_all(at("a/deep")).unwrap();
    let mut stream = Stream::started(&Client::new(), watch(folder.path(), true)).await;
    std::fs::rename(at("a"), at("b")).unwrap();
    std::fs::write(at("b/deep/x"), "").unwrap();
    assert_eq!(
        stream.until(&at("end0")).await,
        ["RENAME a", "CREATE b", "CREATE b/deep/x"]
    );
    let away = outside.path().join("away");
    std::fs::rename(at("b"), &away).unwrap();
    assert_eq!(stream.until(&at("end1")).await, ["RENAME b"]);
    tokio::time::sleep(super::super::limits::MOVE_PAIRING * 2).await;
    std::fs::write(away.join("deep/unseen"), "").unwrap();
    assert_eq!(stream.until(&at("end2")).await, Vec::<String>::new());
    std::fs::rename(&away, at("c")).unwrap();
    let mut events = stream.until(&at("end3")).await;
    events.sort();
    assert_eq!(
        events,
        ["CREATE c", "CREATE c/deep", "CREATE c/deep/unseen", "CREATE c/deep/x"]
    );
    std::fs::write(at("c/deep/seen"), "").unwrap();
    assert_eq!(stream.until(&at("end4")).await, ["CREATE c/deep/seen"]);
    std::fs::remove_dir_all(at("c")).unwrap();
    let events = stream.until(&at("end5")).await;
    assert_eq!(events.len(), 5, "{events:?}");
    assert!(events.iter().all(|e| e.starts_with("REMOVE c")), "{events:?}");
}

#[tokio::test]
async fn entries_come_with_the_events_that_have_one() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let mut request = watch(folder.path(), false);
    request["includeEntry"] = json!(true);
    let mut stream = Stream::started(&Client::new(), request).await;
    std::fs::write(at("a"), "hello").unwrap();
    for kind in ["CREATE a", "WRITE a"] {
        let event = stream.next().await["filesystem"].clone();
        assert_eq!(short(&event), kind);
        assert_eq!(event["entry"]["path"], at("a").to_str().unwrap());
        assert_eq!(event["entry"]["owner"], crate::files::tests::me());
    }
    std::fs::remove_file(at("a")).unwrap();
    let event = stream.next().await["filesystem"].clone();
    assert_eq!((short(&event).as_str(), &event["entry"]), ("REMOVE a", &Value::Null));
}

#[tokio::test]
async fn silence_is_broken_by_keepalives() {
    let folder = tempfile::tempdir().unwrap();
    let headers = [("keepalive-ping-interval", "1")];
    let mut stream = Stream::open(&Client::new(), watch(folder.path(), false), &headers).await;
    assert_eq!(stream.next().await, json!({"start": {}}));
    assert_eq!(stream.next().await, json!({"keepalive": {}}));
    std::fs::write(folder.path().join("a"), "").unwrap();
    assert_eq!(short(&stream.next().await["filesystem"]), "CREATE a");
}

#[tokio::test]
async fn the_clients_deadline_ends_a_watch() {
    let folder = tempfile::tempdir().unwrap();
    let headers = [("connect-timeout-ms", "300")];
    let begun = std::time::Instant::now();
    let mut stream = Stream::open(&Client::new(), watch(folder.path(), false), &headers).await;
    assert_eq!(stream.next().await, json!({"start": {}}));
    let end = loop {
        let message = stream.next().await;
        if message.get("keepalive").is_none() {
            break message;
        }
    };
    assert_eq!(end["error"]["code"], "deadline_exceeded", "{end}");
    assert!(begun.elapsed() >= Duration::from_millis(290));
}

#[tokio::test]
async fn what_is_no_folder_is_not_watched() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    let client = Client::new();
    let (code, text) = client.refusal("CreateWatcher", watch(&at("file"), false)).await;
    assert_eq!(
        (code.as_str(), text),
        (
            "invalid_argument",
            format!("path {} not a directory", at("file").display())
        )
    );
    let (code, text) = client.refusal("CreateWatcher", watch(&at("no"), false)).await;
    assert_eq!(code, "not_found");
    assert!(
        text.starts_with(&format!("path {} not found", at("no").display())),
        "{text}"
    );
    let mut stream = Stream::open(&client, watch(&at("file"), false), &[]).await;
    assert_eq!(stream.next().await["error"]["code"], "invalid_argument");
}

#[tokio::test]
async fn watchers_are_asked() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let client = Client::new();
    let id = client.ask("CreateWatcher", watch(folder.path(), true)).await;
    assert!(id["watcherId"].as_str().unwrap().starts_with('w'));
    assert_eq!(client.ask("GetWatcherEvents", id.clone()).await, json!({}));
    std::fs::create_dir(at("d")).unwrap();
    std::fs::write(at("d/f"), "").unwrap();
    let mut events = Vec::new();
    for _ in 0..100 {
        let answer = client.ask("GetWatcherEvents", id.clone()).await;
        events.extend(answer["events"].as_array().into_iter().flatten().map(short));
        if events.len() >= 2 {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(events, ["CREATE d", "CREATE d/f"]);
    client.ask("RemoveWatcher", id.clone()).await;
    let text = format!("watcher with id {} not found", id["watcherId"].as_str().unwrap());
    for method in ["GetWatcherEvents", "RemoveWatcher"] {
        assert_eq!(
            client.refusal(method, id.clone()).await,
            ("not_found".into(), text.clone())
        );
    }
}

#[tokio::test]
async fn lost_changes_are_told() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let queue = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let queue: usize = queue.trim().parse().unwrap();
    let mut stream = Stream::started(&Client::new(), watch(folder.path(), false)).await;
    // Nobody reads the stream meanwhile; a creation and a removal each.
    for number in 0..queue {
        let path = folder.path().join(number.to_string());
        std::fs::write(&path, "").unwrap();
        std::fs::remove_file(&path).unwrap();
    }
    let error = loop {
        let message = stream.next().await;
        if !message["error"].is_null() {
            break message["error"].clone();
        }
    };
    assert_eq!(error["code"], "internal");
    let text = "watcher error: more changes than the queue holds, some were lost; watch again";
    assert_eq!(error["message"], text);
}
