//! Search, by the server and by commands.

use std::path::Path;

use sandhold_client::{Error, SearchMode, SearchQuery, SearchResult};
use serde_json::json;

use crate::{
    host::host,
    stub::{Stub, reply, sandbox},
};

fn query(mode: SearchMode, pattern: &str, path: &str) -> SearchQuery {
    SearchQuery {
        pattern: pattern.into(),
        path: path.into(),
        glob: None,
        mode,
        case_sensitive: true,
        context_lines: 0,
        limit: 100,
        respect_ignore: true,
        user: None,
    }
}

#[tokio::test]
async fn by_the_server() {
    let stub = Stub::with_sandbox(|_, _| {
        reply(
            200,
            r#"{"matches":[{"path":"/a","line":2,"text":"x","before":["w"],"after":[]}],"truncated":true,"files_searched":9}"#,
        )
    });
    for client in [stub.in_process(), stub.http().await] {
        let asked = SearchQuery {
            glob: Some("*.rs".into()),
            context_lines: 1,
            user: Some("root".into()),
            ..query(SearchMode::Content, "x+", "src")
        };
        let found = sandbox(&client).await.files().search(asked).await.unwrap();
        assert_eq!(
            (found.truncated, found.files_searched, found.matches[0].line),
            (true, 9, 2)
        );
        assert_eq!(found.matches[0].before, ["w"]);
        let seen = stub.last();
        assert_eq!(seen.line, "POST /sandhold/search");
        assert_eq!(seen.header("x-access-token"), Some(crate::stub::TOKEN));
        assert_eq!(
            seen.json(),
            json!({"pattern": "x+", "path": "src", "glob": "*.rs", "mode": "content", "case_sensitive": true,
                "context_lines": 1, "limit": 100, "respect_ignore": true, "username": "root"})
        );
    }
}

#[tokio::test]
async fn a_missing_path_is_no_missing_search() {
    let stub = Stub::with_sandbox(|_, _| reply(404, r#"{"code":404,"message":"path '/x' does not exist"}"#));
    let error = sandbox(&stub.in_process())
        .await
        .files()
        .search(query(SearchMode::Name, "a", "/x"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(text) if text == "path '/x' does not exist"),
        "{error:?}"
    );
    assert_eq!(stub.lines().len(), 2);
}

fn write(home: &Path, name: &str, text: &str) {
    let path = home.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

/// Paths below the home with lines, in order.
fn told(home: &Path, found: &SearchResult) -> Vec<(String, u64)> {
    let base = home.to_str().unwrap();
    let below = |path: &str| {
        path.strip_prefix(base)
            .unwrap_or(path)
            .trim_start_matches('/')
            .to_owned()
    };
    let mut all: Vec<_> = found.matches.iter().map(|hit| (below(&hit.path), hit.line)).collect();
    all.sort();
    all
}

#[tokio::test]
async fn lines_by_grep() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    write(&home, "p/a.rs", "zero\nfn main() {}\nx\ny\nfn other() {}\n");
    write(&home, "p/sub/b c\nd.rs", "FN Main() {}\n");
    write(&home, "p/notes.txt", "fn main is text\n");
    write(&home, "p/.hidden/c.rs", "fn main hidden\n");
    std::fs::write(home.join("p/binary"), b"fn main\0\xff").unwrap();
    let files = host(&home).await.files();
    let pattern = r"fn \w+";

    let found = files.search(query(SearchMode::Content, pattern, "p")).await.unwrap();
    assert_eq!(
        told(&home, &found),
        [("p/a.rs".into(), 2), ("p/a.rs".into(), 5), ("p/notes.txt".into(), 1)]
    );
    assert!(!found.truncated);
    assert_eq!(
        found.matches.iter().find(|hit| hit.line == 5).unwrap().text,
        "fn other() {}"
    );

    let found = files
        .search(SearchQuery {
            glob: Some("*.rs".into()),
            case_sensitive: false,
            respect_ignore: false,
            ..query(SearchMode::Content, "fn main", "~/p")
        })
        .await
        .unwrap();
    assert_eq!(
        told(&home, &found),
        [
            ("p/.hidden/c.rs".into(), 1),
            ("p/a.rs".into(), 2),
            ("p/sub/b c\nd.rs".into(), 1)
        ]
    );

    let context = SearchQuery {
        context_lines: 1,
        ..query(SearchMode::Content, "^fn", "p/a.rs")
    };
    let found = files.search(context).await.unwrap();
    assert_eq!(told(&home, &found), [("p/a.rs".into(), 2), ("p/a.rs".into(), 5)]);
    assert_eq!(
        (&found.matches[0].before[..], &found.matches[0].after[..]),
        (&["zero".into()][..], &["x".into()][..])
    );

    let found = files
        .search(SearchQuery {
            limit: 1,
            ..query(SearchMode::Content, "fn", "p")
        })
        .await
        .unwrap();
    assert!(found.truncated && found.matches.len() == 1);

    let found = files
        .search(query(SearchMode::Content, "nowhere to be found", "p"))
        .await
        .unwrap();
    assert!(found.matches.is_empty() && !found.truncated);
}

#[tokio::test]
async fn nothing_of_the_users_is_run() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    write(&home, "$(touch x)/-rf", "`touch y`; $HOME --help\n");
    let files = host(&home).await.files();
    for pattern in ["`touch y`; \\$HOME", "--help"] {
        let found = files
            .search(query(SearchMode::Content, pattern, "$(touch x)"))
            .await
            .unwrap();
        assert_eq!(told(&home, &found), [("$(touch x)/-rf".into(), 1)], "{pattern}");
    }
    assert!(!home.join("x").exists() && !home.join("y").exists());
}

#[tokio::test]
async fn bad_searches() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), "f", "text\n");
    let files = host(dir.path()).await.files();
    let error = files.search(query(SearchMode::Content, "(", ".")).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    let error = files.search(query(SearchMode::Name, "(", ".")).await.unwrap_err();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error:?}");
    let error = files
        .search(query(SearchMode::Content, "x", "absent"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, Error::NotFound(text) if text == "path 'absent' does not exist"),
        "{error:?}"
    );
    let glob = SearchQuery {
        glob: Some("[".into()),
        ..query(SearchMode::Content, "x", ".")
    };
    assert!(matches!(files.search(glob).await, Err(Error::InvalidArgument(_))));
}

#[tokio::test]
async fn names_by_find() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    for name in ["src/main.rs", "src/deep/Main.py", "main\nx/y", ".git-like/main"] {
        write(&home, name, "");
    }
    let files = host(&home).await.files();
    let found = files.search(query(SearchMode::Name, "(?i)^main", ".")).await.unwrap();
    assert_eq!(
        told(&home, &found),
        [
            ("main\nx".into(), 0),
            ("src/deep/Main.py".into(), 0),
            ("src/main.rs".into(), 0)
        ]
    );
    let all = SearchQuery {
        respect_ignore: false,
        ..query(SearchMode::Name, "^main$", "")
    };
    assert_eq!(
        told(&home, &files.search(all).await.unwrap()),
        [(".git-like/main".into(), 0)]
    );
    let limited = SearchQuery {
        limit: 1,
        ..query(SearchMode::Name, "m", ".")
    };
    let found = files.search(limited).await.unwrap();
    assert!(found.truncated && found.matches.len() == 1);
}

#[tokio::test]
async fn gitignore_with_git() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().canonicalize().unwrap();
    let git = std::process::Command::new("git")
        .arg("-C")
        .arg(&home)
        .args(["init", "-q"])
        .status();
    if !git.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this machine has no git");
        return;
    }
    write(&home, ".gitignore", "target/\n");
    write(&home, "src/a b.rs", "needle\n");
    write(&home, "target/a.rs", "needle\n");
    let files = host(&home).await.files();
    let found = files.search(query(SearchMode::Content, "needle", ".")).await.unwrap();
    assert_eq!(told(&home, &found), [("src/a b.rs".into(), 1)]);
    let found = files.search(query(SearchMode::Name, "a|src", ".")).await.unwrap();
    assert_eq!(told(&home, &found), [("src".into(), 0), ("src/a b.rs".into(), 0)]);
    let all = SearchQuery {
        respect_ignore: false,
        ..query(SearchMode::Content, "needle", ".")
    };
    assert_eq!(files.search(all).await.unwrap().matches.len(), 2);
}
