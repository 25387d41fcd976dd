use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use super::*;
use crate::filesystem::metadata;

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn octets_are_written_and_overwritten_in_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/deep/a.txt");
    let answer = put(&path, &[], "hello").await;
    assert_eq!(answer.status, 200);
    let expected = serde_json::json!([{"path": path.to_str().unwrap(), "name": "a.txt", "type": "file"}]);
    assert_eq!(answer.json(), expected);
    assert_eq!(std::fs::read(&path).unwrap(), b"hello");
    assert_eq!(std::fs::metadata(path.parent().unwrap()).unwrap().mode() & 0o777, 0o755);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let before = std::fs::metadata(&path).unwrap();
    let data = noise(1_500_000);
    assert_eq!(put(&path, &[], data.clone()).await.status, 200);
    let after = std::fs::metadata(&path).unwrap();
    assert!(std::fs::read(&path).unwrap() == data);
    assert_eq!((before.ino(), before.mode()), (after.ino(), after.mode()));
    assert_eq!(put(&path, &[], "").await.status, 200);
    assert_eq!(std::fs::metadata(&path).unwrap().len(), 0);
    let none = send(router(), Method::POST, "/files", &[OCTETS], "x").await;
    assert_eq!(
        none.refusal(),
        (400, "path query parameter is required for raw body upload".into())
    );
}

#[tokio::test]
async fn files_and_new_folders_belong_to_the_user() {
    if !rustix::process::geteuid().is_root() {
        // Only root can give files away; the same code runs for one's own user in every other test.
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sub/a");
    let owner = |path: &Path| {
        let meta = std::fs::metadata(path).unwrap();
        (meta.uid(), meta.gid())
    };
    let url = format!("{}&username=nobody", url(&path));
    assert_eq!(send(router(), Method::POST, &url, &[OCTETS], "x").await.status, 200);
    assert_eq!(owner(&path), (65534, 65534));
    assert_eq!(owner(path.parent().unwrap()), (65534, 65534));
    assert_eq!(owner(folder.path()), (0, 0));
    assert_eq!(put(&path, &[], "y").await.status, 200);
    assert_eq!(owner(&path), (0, 0));
    assert_eq!(send(router(), Method::POST, &url, &[OCTETS], "x").await.status, 200);
    let atomic = format!("{}&atomic=true", super::url(&path));
    assert_eq!(send(router(), Method::POST, &atomic, &[OCTETS], "z").await.status, 200);
    assert_eq!(owner(&path), (65534, 65534), "replacing keeps the owner");
    assert_eq!(std::fs::read(&path).unwrap(), b"z");
}

fn form(parts: &[(&str, &str, &str)]) -> String {
    let mut body = String::new();
    for (field, file, data) in parts {
        body += &format!(
            "--BOUND\r\nContent-Disposition: form-data; name=\"{field}\"; {file}\r\nContent-Type: text/plain\r\n\r\n{data}\r\n"
        );
    }
    body + "--BOUND--\r\n"
}

const FORM: (&str, &str) = ("content-type", "multipart/form-data; boundary=BOUND");

#[tokio::test]
async fn multipart_names_files_by_query_or_by_part() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let named = |name: &str| format!("filename=\"{}\"", at(name).display());
    let body = form(&[("note", "x=y", "ignored"), ("file", &named("elsewhere"), "one")]);
    let answer = send(router(), Method::POST, &url(&at("here")), &[FORM], body).await;
    assert_eq!(answer.json()[0]["path"], at("here").to_str().unwrap());
    assert_eq!(
        (std::fs::read(at("here")).unwrap(), at("elsewhere").exists()),
        (b"one".to_vec(), false)
    );

    let umlaut = format!(
        "filename=\"x\"; filename*=UTF-8''{}%C3%A4",
        coded(at("").to_str().unwrap())
    );
    let large = "0123456789".repeat(200_000);
    let body = form(&[
        ("file", &named("a"), "1"),
        ("file", &named("sub/b"), &large),
        ("file", &umlaut, "3"),
    ]);
    let answer = send(router(), Method::POST, "/files", &[FORM], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let written: Vec<_> = answer
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["name"].clone())
        .collect();
    assert_eq!(written, ["a", "b", "ä"]);
    assert!(std::fs::read(at("sub/b")).unwrap() == large.as_bytes());
    assert_eq!(std::fs::read(at("ä")).unwrap(), b"3");

    let body = form(&[
        ("file", &named("c"), "1"),
        ("file", &named("d"), "2"),
        ("file", &named("c"), "3"),
    ]);
    let (status, text) = send(router(), Method::POST, "/files", &[FORM], body).await.refusal();
    assert_eq!(status, 400);
    assert!(
        text.starts_with("you cannot upload multiple files to the same path '"),
        "{text}"
    );
    assert!(
        text.ends_with(&format!(
            "also the following files were uploaded: {}",
            at("d").display()
        )),
        "{text}"
    );
    assert_eq!(std::fs::read(at("c")).unwrap(), b"1");
    let body = form(&[("file", &named("x"), "1"), ("file", &named("y"), "2")]);
    let twice = send(router(), Method::POST, &url(&at("one")), &[FORM], body).await;
    assert_eq!(twice.refusal().0, 400);
}

#[tokio::test]
async fn broken_forms_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    for (content_type, body) in [
        ("multipart/form-data", form(&[("file", "filename=\"a\"", "1")])),
        (
            "multipart/form-data; boundary=BOUND",
            "--BOUND\r\nContent-Dis".to_owned(),
        ),
        ("multipart/form-data; boundary=BOUND", form(&[("file", "x=y", "1")])),
        ("text/plain", "x".to_owned()),
        ("", "x".to_owned()),
    ] {
        let answer = send(
            router(),
            Method::POST,
            "/files",
            &[("content-type", content_type)],
            body,
        )
        .await;
        assert_eq!(answer.refusal().0, 400, "{content_type}");
    }
    // What was written of a file whose end never came is gone.
    let cut = form(&[("file", "filename=\"a\"", &"x".repeat(600_000))]);
    let answer = send(router(), Method::POST, &url(&path), &[FORM], cut[..500_000].to_owned()).await;
    assert_eq!(answer.refusal().0, 400);
    assert_eq!(names(folder.path()), Vec::<String>::new());
    let nobody = send(router(), Method::POST, "/files", &[FORM], form(&[])).await;
    assert_eq!((nobody.status.as_u16(), nobody.text()), (200, "[]"));
}

#[tokio::test]
async fn gzipped_bodies_are_decoded() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let data = noise(900_000);
    let coding = ("content-encoding", "gzip");
    assert_eq!(put(&path, &[coding], gzip(&data)).await.status, 200);
    assert!(std::fs::read(&path).unwrap() == data);
    let two = [gzip(b"one "), gzip(b"two")].concat();
    assert_eq!(put(&path, &[coding], two).await.status, 200);
    assert_eq!(std::fs::read(&path).unwrap(), b"one two");
    let body = gzip(form(&[("file", "filename=\"x\"", "in a form")]).as_bytes());
    assert_eq!(
        send(router(), Method::POST, &url(&path), &[FORM, coding], body)
            .await
            .status,
        200
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"in a form");
    let other = folder.path().join("b");
    for body in [b"no gzip".to_vec(), gzip(&data)[..400_000].to_vec()] {
        let (status, text) = put(&other, &[coding], body).await.refusal();
        assert_eq!(status, 400);
        assert!(text.starts_with("error decompressing request body"), "{text}");
        assert!(!other.exists());
    }
    let (status, text) = put(&other, &[("content-encoding", "br")], "x").await.refusal();
    assert_eq!(
        (status, text.as_str()),
        (400, "unsupported Content-Encoding: br, supported: gzip")
    );
}

#[tokio::test]
async fn metadata_is_kept_replaced_and_cleared() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a");
    let answer = put(&path, &[("X-Metadata-Color", "blue"), ("x-metadata-n", "1")], "x").await;
    assert_eq!(
        answer.json()[0]["metadata"],
        serde_json::json!({"color": "blue", "n": "1"}),
        "{}",
        answer.text()
    );
    assert_eq!(
        metadata::read(&path),
        [("color".into(), "blue".into()), ("n".into(), "1".into())].into()
    );
    put(&path, &[("x-metadata-n", "2")], "x").await;
    assert_eq!(metadata::read(&path), [("n".into(), "2".into())].into());
    let atomic = format!("{}&atomic=true", url(&path));
    let headers = [OCTETS, ("x-metadata-m", "3")];
    assert_eq!(send(router(), Method::POST, &atomic, &headers, "x").await.status, 200);
    assert_eq!(metadata::read(&path), [("m".into(), "3".into())].into());
    put(&path, &[], "x").await;
    assert!(metadata::read(&path).is_empty());
    let key = format!("x-metadata-{}", "k".repeat(247));
    for (name, value) in [
        (key.as_str(), "x"),
        ("x-metadata-", "x"),
        ("x-metadata-a", "ä"),
        ("x-metadata-a", "x\ty"),
    ] {
        assert_eq!(
            put(&path, &[(name, value)], "x").await.refusal().0,
            400,
            "{name} {value}"
        );
    }
    let (long, longer) = ("v".repeat(4095), "v".repeat(4096));
    assert_eq!(put(&path, &[("x-metadata-a", &longer)], "x").await.refusal().0, 400);
    // Allowed by the protocol; some file systems have less room in an inode.
    assert!([200, 400, 507].contains(&put(&path, &[("x-metadata-a", &long)], "x").await.status.as_u16()));
}

#[tokio::test]
async fn metadata_needs_a_file_system_that_keeps_it() {
    // Links below /proc lead to regular files of a file system without user attributes.
    let path = Path::new("/proc/self/comm");
    let (status, text) = put(path, &[("x-metadata-a", "b")], "x").await.refusal();
    assert_eq!(status, 400);
    assert!(text.contains("cannot keep metadata"), "{text}");
    assert!(!std::fs::read(path).unwrap().is_empty());
    // Such files have no length either, and can be written all the same.
    assert_eq!(put(Path::new("/proc/self/comm"), &[], "renamed").await.status, 200);
}

#[tokio::test]
async fn atomic_uploads_replace_the_file_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    let atomic = async |path: &Path, body: Body| {
        send(
            router(),
            Method::POST,
            &format!("{}&atomic=true", url(path)),
            &[OCTETS],
            body,
        )
        .await
    };
    assert_eq!(atomic(&at("new/a"), "x".into()).await.status, 200);
    assert_eq!(names(&at("new")), ["a"]);
    std::fs::write(at("real"), "old").unwrap();
    std::fs::set_permissions(at("real"), std::fs::Permissions::from_mode(0o4751)).unwrap();
    std::os::unix::fs::symlink("real", at("link")).unwrap();
    std::os::unix::fs::symlink(at("link"), at("link2")).unwrap();
    let before = std::fs::metadata(at("real")).unwrap();
    assert_eq!(atomic(&at("link2"), noise(700_000).into()).await.status, 200);
    let after = std::fs::metadata(at("real")).unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!(before.mode(), after.mode());
    assert_eq!(after.len(), 700_000);
    assert!(at("link").is_symlink() && at("link2").is_symlink());
    std::os::unix::fs::symlink("later/file", at("dangling")).unwrap();
    assert_eq!(atomic(&at("dangling"), "x".into()).await.status, 200);
    assert_eq!(std::fs::read(at("later/file")).unwrap(), b"x");
    // A body that breaks off leaves what was there.
    let pieces = [Ok(bytes::Bytes::from(noise(600_000))), Err(io::Error::other("gone"))];
    let broken = Body::from_stream(futures::stream::iter(pieces));
    assert_eq!(atomic(&at("real"), broken).await.refusal().0, 400);
    assert_eq!(std::fs::metadata(at("real")).unwrap().len(), 700_000);
    assert_eq!(
        names(folder.path()),
        ["dangling", "later", "link", "link2", "new", "real"]
    );
}

#[tokio::test]
async fn what_cannot_be_written_is_refused_with_its_reason() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("file"), "").unwrap();
    let pipe = at("pipe");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    let long = at(&"n".repeat(256));
    for (path, status, wanted) in [
        (folder.path().to_owned(), 400, "path is a directory: ".to_owned()),
        (
            at("file/below"),
            400,
            format!("path '{}' is not a directory", at("file").display()),
        ),
        (
            at("file/below/more"),
            400,
            format!("path '{}' is not a directory", at("file").display()),
        ),
        (
            pipe.clone(),
            400,
            format!(
                "path '{}' is a named pipe, only regular files can be written",
                pipe.display()
            ),
        ),
        ("/dev/null".into(), 400, "path '/dev/null' is a device".to_owned()),
        (long, 400, "error getting file info".to_owned()),
        (
            "/proc/self/nothing".into(),
            404,
            "error opening file '/proc/self/nothing'".to_owned(),
        ),
    ] {
        for suffix in ["", "&atomic=true"] {
            let answer = send(
                router(),
                Method::POST,
                &format!("{}{suffix}", url(&path)),
                &[OCTETS],
                "x",
            )
            .await;
            let (code, text) = answer.refusal();
            if suffix.is_empty() {
                assert!(text.starts_with(&wanted), "{text}");
                assert_eq!(code, status, "{text}");
            } else {
                assert!(code == 400 || code == status, "{code} {text}");
            }
        }
    }
    let mut buffer = String::new();
    let text = put(&at(&"n".repeat(256)), &[], "x").await.refusal().1;
    buffer.push_str(&text);
    assert!(buffer.ends_with("file name too long"), "{buffer}");
}
