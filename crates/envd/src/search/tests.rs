//! Tests of the search, through the router.

use axum::body::Body;
use http::Request as HttpRequest;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tempfile::TempDir;
use tower::ServiceExt;

use super::*;
use crate::files::tests::state;

async fn ask(body: Value) -> (u16, Value) {
    let request = HttpRequest::post("/sandhold/search")
        .body(Body::from(body.to_string()))
        .unwrap();
    let answer = router(state(None)).oneshot(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

fn project() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in [
        ("src/main.rs", "one\ntwo needle\nthree\nfour Needle\nfive\nsix\n"),
        ("src/lib.rs", "needle\r\n"),
        ("notes.txt", "no such thing\nneedle at the end"),
        (".hidden", "needle\n"),
        (".gitignore", "build/\n*.log\n"),
        ("build/out.txt", "needle\n"),
        ("a.log", "needle\n"),
        (".git/config", "needle\n"),
    ] {
        let path = folder.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::write(folder.path().join("blob.bin"), b"needle\nneedle\0\n").unwrap();
    folder
}

/// The answer with the arguments in `more`, and its matches as `path:line`.
async fn find(folder: &TempDir, pattern: &str, more: Value) -> (Value, Vec<String>) {
    let mut body = json!({"pattern": pattern, "path": folder.path().to_str().unwrap()});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, answer) = ask(body).await;
    assert_eq!(status, 200, "{answer}");
    let places = answer["matches"].as_array().unwrap().iter().map(|m| {
        let path = Path::new(m["path"].as_str().unwrap())
            .strip_prefix(folder.path())
            .unwrap();
        format!("{}:{}", path.display(), m["line"])
    });
    let places = places.collect();
    (answer, places)
}

#[tokio::test]
async fn lines_are_found_where_a_person_would_look() {
    let folder = project();
    let (answer, places) = find(&folder, "needle", json!({})).await;
    assert_eq!(places, [".hidden:1", "notes.txt:2", "src/lib.rs:1", "src/main.rs:2"]);
    assert_eq!(
        (&answer["truncated"], &answer["files_searched"]),
        (&json!(false), &json!(6))
    );
    assert_eq!(answer["matches"][2]["text"], "needle");
    let (_, places) = find(&folder, "^four n", json!({"case_sensitive": false})).await;
    assert_eq!(places, ["src/main.rs:4"]);
    let (_, places) = find(
        &folder,
        "needle",
        json!({"respect_ignore": false, "glob": "*.{log,txt}"}),
    )
    .await;
    assert_eq!(places, ["a.log:1", "build/out.txt:1", "notes.txt:2"]);
    // A glob does not bring back what is ignored.
    let (_, places) = find(&folder, "needle", json!({"glob": "*.{log,txt}"})).await;
    assert_eq!(places, ["notes.txt:2"]);
    let (_, places) = find(&folder, "needle", json!({"glob": "!src/**"})).await;
    assert_eq!(places, [".hidden:1", "notes.txt:2"]);
    let one = json!({"path": folder.path().join("src/lib.rs").to_str().unwrap()});
    assert_eq!(find(&folder, "needle", one).await.1, ["src/lib.rs:1"]);
}

#[tokio::test]
async fn matches_come_with_the_lines_around_them() {
    let folder = project();
    let more = json!({"case_sensitive": false, "context_lines": 2, "glob": "main.rs"});
    let (answer, places) = find(&folder, "needle", more).await;
    assert_eq!(places, ["src/main.rs:2", "src/main.rs:4"]);
    let matches = &answer["matches"];
    assert_eq!(matches[0]["before"], json!(["one"]));
    assert_eq!(matches[0]["after"], json!(["three", "four Needle"]));
    assert_eq!(matches[1]["before"], json!(["two needle", "three"]));
    assert_eq!(matches[1]["after"], json!(["five", "six"]));
}

#[tokio::test]
async fn names_are_found() {
    let folder = project();
    let name = |more: Value| {
        let mut all = json!({"mode": "name"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    assert_eq!(
        find(&folder, r"\.rs$", name(json!({}))).await.1,
        ["src/lib.rs:0", "src/main.rs:0"]
    );
    assert_eq!(find(&folder, "^src$", name(json!({}))).await.1, ["src:0"]);
    assert_eq!(find(&folder, "^src/m", name(json!({}))).await.1, ["src/main.rs:0"]);
    assert_eq!(find(&folder, "out", name(json!({}))).await.1, Vec::<String>::new());
    assert_eq!(
        find(&folder, "out", name(json!({"respect_ignore": false}))).await.1,
        ["build/out.txt:0"]
    );
    let (answer, places) = find(&folder, ".", name(json!({"limit": 2}))).await;
    assert_eq!((places.len(), &answer["truncated"]), (2, &json!(true)));
}

#[tokio::test]
async fn answers_are_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let long = format!("{}é{}\n", "x".repeat(limits::SEARCH_LINE - 1), "y".repeat(100));
    std::fs::write(folder.path().join("a"), long.repeat(2000)).unwrap();
    let (answer, places) = find(&folder, "x", json!({"limit": 2000})).await;
    assert_eq!(answer["truncated"], true);
    assert!(places.len() > 400 && places.len() < 600, "{}", places.len());
    assert!(answer.to_string().len() < limits::SEARCH_ANSWER * 2);
    let text = answer["matches"][0]["text"].as_str().unwrap();
    assert_eq!(text, format!("{}…", "x".repeat(limits::SEARCH_LINE - 1)));
    let (answer, places) = find(&folder, "x", json!({"limit": 3})).await;
    assert_eq!((places.len(), &answer["truncated"]), (3, &json!(true)));
    std::fs::write(folder.path().join("a"), "x\nx\nx\n").unwrap();
    let (answer, places) = find(&folder, "x", json!({"limit": 3})).await;
    assert_eq!((places.len(), &answer["truncated"]), (3, &json!(false)));
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let folder = project();
    let at = folder.path().to_str().unwrap();
    for (body, status, wanted) in [
        (
            json!({"pattern": "(", "path": at}),
            400,
            "pattern '(' is not a regular expression: ",
        ),
        (
            json!({"pattern": "a\nb", "path": at}),
            400,
            "pattern 'a\nb' is not a regular expression: ",
        ),
        (
            json!({"pattern": "a", "path": at, "glob": "{"}),
            400,
            "glob '{' is not valid: ",
        ),
        (json!({"pattern": "a", "path": format!("{at}/no")}), 404, "path '"),
        (
            json!({"pattern": "a", "path": at, "mode": "x"}),
            400,
            "invalid request body: ",
        ),
        (json!({"path": at}), 400, "invalid request body: "),
        (
            json!({"pattern": "a", "path": at, "username": "no-such"}),
            401,
            "error looking up user",
        ),
    ] {
        let (code, answer) = ask(body).await;
        assert_eq!(code, status, "{answer}");
        assert!(answer["message"].as_str().unwrap().starts_with(wanted), "{answer}");
    }
}

#[tokio::test]
async fn a_search_ends_when_its_time_is_up_or_its_client_gone() {
    let folder = project();
    let request: super::Request = serde_json::from_value(json!({"pattern": "needle", "path": ""})).unwrap();
    let stop = Stop {
        cancelled: Arc::default(),
        deadline: Instant::now(),
    };
    let answer = run(&request, folder.path(), &stop).unwrap();
    assert!(answer.truncated && answer.matches.is_empty());
    let stop = Stop::new();
    drop(Cancel(Arc::clone(&stop.cancelled)));
    assert!(run(&request, folder.path(), &stop).unwrap().truncated);
    // In the middle of a file too.
    let file = File::open(folder.path().join("src/main.rs")).unwrap();
    let error = Stoppable { file, stop: &stop }.read(&mut [0; 8]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[tokio::test]
async fn pipes_devices_and_links_are_not_opened() {
    let folder = project();
    let pipe = folder.path().join("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.path().join("zero")).unwrap();
    std::os::unix::fs::symlink(folder.path(), folder.path().join("circle")).unwrap();
    let (answer, _) = find(&folder, "needle", json!({})).await;
    assert_eq!(answer["files_searched"], 6);
}

/// More files than one thread is given at once, the first of them so long that those behind it are ready before it.
#[tokio::test]
async fn many_files_keep_their_order_whoever_looked_into_them() {
    const FILES: usize = limits::SEARCH_PIECE * 20;
    let folder = tempfile::tempdir().unwrap();
    let mut wanted = Vec::new();
    for number in 0..FILES {
        let name = format!("part{:02}/{number:05}", number / 100);
        let path = folder.path().join(&name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let before = if number == 0 {
            "hay\n".repeat(1 << 20)
        } else {
            String::new()
        };
        let lines = if number % 3 == 0 {
            "needle\nhay\nneedle\nhay\n"
        } else {
            "hay\n"
        };
        std::fs::write(path, format!("{before}{lines}")).unwrap();
        if number % 3 == 0 {
            let first = before.len() / 4 + 1;
            wanted.extend([format!("{name}:{first}"), format!("{name}:{}", first + 2)]);
        }
    }
    let (answer, places) = find(
        &folder,
        "needle",
        json!({"limit": limits::SEARCH_MATCHES, "context_lines": 1}),
    )
    .await;
    assert_eq!(places, wanted);
    assert_eq!(
        (&answer["files_searched"], &answer["truncated"]),
        (&json!(FILES), &json!(false))
    );
    let last = answer["matches"].as_array().unwrap().last().unwrap();
    assert_eq!((&last["before"], &last["after"]), (&json!(["hay"]), &json!(["hay"])));
    for limit in [1, 43, 2 * limits::SEARCH_PIECE, wanted.len() - 1] {
        let (answer, places) = find(&folder, "needle", json!({"limit": limit})).await;
        assert_eq!(places, wanted[..limit], "{limit}");
        // The file of the first match that has no room was looked into, none behind it counts.
        let files = limit / 2 * 3 + 1;
        assert_eq!(
            (&answer["files_searched"], &answer["truncated"]),
            (&json!(files), &json!(true)),
            "{limit}"
        );
    }
    let (answer, places) = find(&folder, "needle", json!({"limit": wanted.len()})).await;
    assert_eq!((places, &answer["truncated"]), (wanted, &json!(false)));
}
