//! E2B's Python SDK reads the same Dockerfile and packs the same files.

use std::{path::Path, process::Command};

use sandhold_images::{context::Context, dockerfile::Dockerfile};
use sandhold_tests::{places, scenario};
use serde_json::Value;

/// Prints the steps of a Dockerfile, or the hash and the names in the tar of a source.
const SCRIPT: &str = r#"
import json, sys
from e2b.template.main import TemplateBase
from e2b.template.utils import calculate_files_hash, read_dockerignore, tar_file_stream
import tarfile
if sys.argv[1] == "steps":
    t = TemplateBase(file_context_path="/").from_dockerfile(sys.stdin.read())
    inner = t._template
    print("\n" + json.dumps({"steps": [[i["type"].value, i["args"]] for i in inner._instructions], "start": inner._start_cmd,
                             "from": inner._base_image}))
else:
    folder, source, dest = sys.argv[2:]
    rules = read_dockerignore(folder)
    found = calculate_files_hash(source, dest, folder, rules, False, None)
    with tarfile.open(fileobj=tar_file_stream(source, folder, rules, False, False)) as tar:
        names = [[m.name, m.mode, m.size, int(m.mtime), m.linkname, m.type.decode()] for m in tar]
    print("\n" + json.dumps({"hash": found, "names": names}))
"#;

fn ask(arguments: &[&str], stdin: &str) -> Option<Value> {
    let python = places::cache().join("venv/bin/python");
    if !python.exists() {
        scenario::note("images: not held against E2B's SDK, which is not installed").unwrap();
        return None;
    }
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("input");
    std::fs::write(&input, stdin).unwrap();
    let ended = Command::new(python)
        .args(["-c", SCRIPT])
        .args(arguments)
        .stdin(std::fs::File::open(input).unwrap())
        .output()
        .unwrap();
    let out = String::from_utf8(ended.stdout).unwrap();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    Some(serde_json::from_str(out.trim().lines().last().unwrap()).unwrap())
}

#[test]
fn a_dockerfile_has_the_same_steps() {
    let text = "# a comment\nFROM debian:12 AS x\nRUN apt-get update && \\\n    # why\n    apt-get install -y curl\n\
        RUN [\"echo\", \"a b\"]\nENV A=1 B=\"x y\"\nENV C d e\nENV PATH=/x:$PATH\nCOPY a.txt b /x/\nCOPY --chown=me:us --chmod=755 [\"c d\", \"/e\"]\n\
        ADD . /app\nWORKDIR /app\nUSER me\nRUN <<EOF\necho a\necho \"$b\"\nEOF\nRUN cat <<X >f && echo\nhello\nX\n\
        EXPOSE 80\nLABEL a=b\nENTRYPOINT [\"/bin/e\", \"-x\"]\nCMD [\"a\", \"b c\"]\n";
    let Some(theirs) = ask(&["steps"], text) else { return };
    let file = Dockerfile::parse(text).unwrap();
    let ours = file.plan(&sandhold_images::dockerfile::Build::default()).unwrap();
    assert_eq!(theirs["from"], ours.from.image.as_str());
    assert_eq!(theirs["start"], ours.start.unwrap());
    // The SDK begins with root in /; the builder here knows that by itself.
    let steps: Vec<Value> = ours
        .steps
        .iter()
        .map(|step| serde_json::json!([step.kind.name(), step.args]))
        .collect();
    let theirs = theirs["steps"].as_array().unwrap();
    assert_eq!(theirs[0], serde_json::json!(["USER", ["root"]]));
    assert_eq!(theirs[1], serde_json::json!(["WORKDIR", ["/"]]));
    assert_eq!(theirs[2..], steps);
}

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, content).unwrap();
}

#[test]
fn files_have_the_same_hash_and_names() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path();
    for (name, content) in [
        ("a.txt", "1"),
        ("a/x.rs", "22"),
        ("a/deep/er/y.rs", "333"),
        ("a-b", "4"),
        (".hidden", "5"),
        ("target/x", "6"),
        ("docs/a.md", "7"),
        ("docs/b.md", "8"),
        (".dockerignore", "# not these\ntarget\ndocs/*\n!docs/a.md\n**/*.tmp\n"),
        ("a/z.tmp", "9"),
        ("ünï/ç", "10"),
    ] {
        write(at, name, content);
    }
    std::os::unix::fs::symlink("../a.txt", at.join("a/link")).unwrap();
    std::os::unix::fs::symlink("/etc", at.join("out")).unwrap();
    let context = Context::open(at).unwrap();
    for source in [
        ".",
        "a",
        "a.txt",
        "*.txt",
        "a*",
        "docs",
        "a/**/*.rs",
        "out",
        "./a/",
        "ünï",
    ] {
        let arguments = ["files", &at.display().to_string(), source, "/to"].map(str::to_owned);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let Some(theirs) = ask(&arguments, "") else { return };
        assert_eq!(theirs["hash"], context.hash(source, "/to").unwrap(), "{source}");
        let mut bytes = Vec::new();
        context.pack(source, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(&*bytes);
        let ours: Vec<Value> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let header = entry.header();
                let name = String::from_utf8(entry.path_bytes().into_owned()).unwrap();
                let link = entry
                    .link_name()
                    .unwrap()
                    .map(|to| to.display().to_string())
                    .unwrap_or_default();
                let kind = char::from(header.entry_type().as_byte()).to_string();
                serde_json::json!([
                    name.trim_end_matches('/'),
                    header.mode().unwrap(),
                    entry.size(),
                    header.mtime().unwrap(),
                    link,
                    kind
                ])
            })
            .collect();
        assert_eq!(theirs["names"], Value::Array(ours), "{source}");
    }
}
