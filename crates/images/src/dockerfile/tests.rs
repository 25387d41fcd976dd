use super::*;

fn plan_with(text: &str, build: &Build<'_>) -> Result<Plan, DockerfileError> {
    Dockerfile::parse(text)?.plan(build)
}

/// The steps over a base that sets `PATH` and `LANG`.
fn plan(text: &str) -> Plan {
    let base = Config {
        env: vec![("PATH".into(), "/bin".into()), ("LANG".into(), "C".into())],
        ..Config::default()
    };
    let build = Build {
        base: Some(&base),
        ..Build::default()
    };
    plan_with(text, &build).unwrap()
}

fn steps(rest: &str) -> Vec<(&'static str, Vec<String>)> {
    let steps = plan(&format!("FROM a\n{rest}")).steps;
    steps.into_iter().map(|step| (step.kind.name(), step.args)).collect()
}

fn one(rest: &str) -> (&'static str, Vec<String>) {
    let mut all = steps(rest);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0)
}

fn fault(text: &str) -> (usize, String) {
    let error = plan_with(text, &Build::default()).unwrap_err();
    (error.line, error.why)
}

fn is(kind: &'static str, args: &[&str]) -> (&'static str, Vec<String>) {
    (kind, args.iter().map(|arg| (*arg).to_owned()).collect())
}

#[test]
fn lines_are_joined_and_comments_left_out() {
    let plan = plan(
        "# syntax=docker/dockerfile:1\n# a comment\n\nfrom debian:12 as Build\n  # more\nRUN echo a && \\\n# between\n\n    echo b \\ \n  c\r\nrun [\"a b\", \"c\"]\n",
    );
    assert_eq!((plan.from.image.as_str(), plan.from.line), ("debian:12", 4));
    let run: Vec<_> = plan
        .steps
        .iter()
        .map(|step| (step.line, step.args[0].as_str()))
        .collect();
    assert_eq!(run, [(6, "echo a &&     echo b   c"), (11, "'a b' c")]);
    assert_eq!(
        one("# escape=`\nRUN a \\\nb"),
        is("RUN", &["a b"]),
        "only the first lines are directives"
    );
    let text = "# escape=`\nFROM a\nRUN a `\nb\\\nCOPY c:\\x d\\\n";
    let plan = plan_with(text, &Build::default()).unwrap();
    assert_eq!(plan.steps[0].args, ["a b\\"]);
    assert_eq!(plan.steps[1].args, ["c:\\x", "d\\", "", ""]);
}

#[test]
fn variables_are_replaced_where_docker_does() {
    assert_eq!(
        one("ENV A=1 B=\"x y\" C='$PATH' D=a\\ b E=$PATH"),
        is("ENV", &["A", "1", "B", "x y", "C", "$PATH", "D", "a b", "E", "/bin"])
    );
    assert_eq!(one("ENV A  the rest \"of\" it"), is("ENV", &["A", "the rest of it"]));
    // The reference's own example: one instruction sees the values from before it.
    let all = steps("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc");
    assert_eq!(all[1], is("ENV", &["abc", "bye", "def", "hello"]));
    assert_eq!(all[2], is("ENV", &["ghi", "bye"]));
    for (word, value) in [
        ("$PATH", "/bin"),
        ("${PATH}x", "/binx"),
        ("${NO:-d}", "d"),
        ("${NO-d}", "d"),
        ("${PATH:-d}", "/bin"),
        ("${PATH:+d}", "d"),
        ("x${NO:+d}", "x"),
        ("x${EMPTY:-d}${EMPTY-d}", "xd"),
        ("${NO:-${PATH}y}", "/biny"),
        ("x$NO", "x"),
        ("\\$PATH", "$PATH"),
        ("'$PATH'", "$PATH"),
        ("\"$PATH\"", "/bin"),
        ("\"\\$PATH\"", "$PATH"),
        ("a$", "a$"),
        ("$PATHx/", "/"),
    ] {
        assert_eq!(
            steps(&format!("ENV EMPTY=\nWORKDIR {word}"))[1],
            is("WORKDIR", &[value]),
            "{word}"
        );
    }
    assert_eq!(one("RUN echo $PATH '${X}'"), is("RUN", &["echo $PATH '${X}'"]));
    assert_eq!(
        one("COPY --chown=$LANG:x a$LANG /$LANG/"),
        is("COPY", &["aC", "/C/", "C:x", ""])
    );
    for bad in ["${PATH", "${", "${}", "${PATH#x}", "${NO:?gone}", "'", "\"x", "${:-x}"] {
        let base = Config::default();
        let build = Build {
            base: Some(&base),
            ..Build::default()
        };
        let error = plan_with(&format!("FROM a\nENV X=1\nWORKDIR {bad}"), &build).unwrap_err();
        assert!(error.line == 3 && !error.why.is_empty(), "{bad}");
    }
}

#[test]
fn arguments_have_defaults_and_given_values() {
    let text = "ARG TAG=12\nARG OTHER\nFROM debian:$TAG\nARG TAG\nARG A=1 B\nENV A=2\nARG C=${A}${TARGETARCH}\nARG TARGETARCH\nWORKDIR /$TAG/$A/$B/$C$TARGETARCH\n";
    let platform = Platform {
        os: "linux".into(),
        architecture: "arm64".into(),
        variant: String::new(),
    };
    let base = Config::default();
    let mut build = Build {
        platform: Some(&platform),
        base: Some(&base),
        ..Build::default()
    };
    let plan = plan_with(text, &build).unwrap();
    assert_eq!(plan.from.image, "debian:12");
    let args: Vec<_> = plan
        .steps
        .iter()
        .map(|step| (step.kind.name(), step.args.join(" ")))
        .collect();
    assert_eq!(args[0], ("ARG", "TAG 12".into()));
    assert_eq!(args[1], ("ARG", "A 1".into()), "B has no value");
    assert_eq!(
        args[3],
        ("ARG", "C 2".into()),
        "ENV stands over ARG, and TARGETARCH is not yet declared"
    );
    assert_eq!(args[5], ("WORKDIR", "/12/2//2arm64".into()));
    build.args = [("TAG", "13"), ("B", "b"), ("NOT", "x")]
        .map(|(a, b)| (a.to_owned(), b.to_owned()))
        .into();
    let plan = plan_with(text, &build).unwrap();
    assert_eq!(plan.from.image, "debian:13");
    assert_eq!(plan.steps.last().unwrap().args, ["/13/2/b/2arm64"]);
    assert!(
        plan.notes.iter().any(|note| note.text.contains("NOT")),
        "{:?}",
        plan.notes
    );
    assert_eq!(fault("ARG X\nFROM $X").0, 2);
    assert_eq!(fault("FROM a\nARG a-b=1").0, 2);
}

#[test]
fn what_is_not_known_is_left_for_the_builder() {
    let text = "FROM a\nENV A=1 PATH=/x:$PATH\nENV B=$A:$PATH:${HOME:-x}\nWORKDIR $B\nARG N=1\nUSER u$N\n";
    let plan = plan_with(text, &Build::default()).unwrap();
    let args: Vec<_> = plan.steps.iter().map(|step| step.args.join(" ")).collect();
    // PATH's value is known inside only, and there $PATH then is the new one.
    assert_eq!(args, ["A 1 PATH /x:$PATH", "B 1:$PATH:${HOME:-x}", "$B", "N 1", "u1"]);
    assert!(plan.sets_user && plan.sets_workdir);
}

#[test]
fn files_are_copied_by_one_step_each() {
    assert_eq!(one("COPY a b"), is("COPY", &["a", "b", "", ""]));
    assert_eq!(
        one("COPY --chmod=755 --link --chown=me:us [\"a b\", \"/c d\"]"),
        is("COPY", &["a b", "/c d", "me:us", "0755"])
    );
    assert_eq!(
        steps("COPY ./a /b/ *.txt /x/"),
        [
            is("COPY", &["a", "/x/", "", ""]),
            is("COPY", &["b", "/x/", "", ""]),
            is("COPY", &["*.txt", "/x/", "", ""])
        ]
    );
    assert_eq!(one("ADD . /"), is("COPY", &[".", "/", "", ""]));
    for (bad, word) in [
        ("COPY a", "destination"),
        ("COPY a b c", "slash"),
        ("COPY ../a b", "leads out"),
        ("COPY --from=x a b", "--from"),
        ("COPY --chmod=u+x a b", "mode"),
        ("COPY --parents a b", "--parents"),
        ("COPY [\"a\", 1]", "strings"),
        ("ADD https://x.io/a b", "curl"),
        ("ADD a.tar.GZ /", "tar -xf"),
        ("COPY <<EOF /a\nb", "EOF"),
    ] {
        let (line, why) = fault(&format!("FROM a\n{bad}"));
        assert!(line == 2 && why.contains(word), "{bad}: {why}");
    }
}

#[test]
fn heredocs_are_scripts_or_files() {
    assert_eq!(
        one("RUN <<EOF\necho a\n# b\n\necho $c\nEOF\n"),
        is("RUN", &["echo a\n# b\n\necho $c\n"])
    );
    assert_eq!(one("RUN <<-EOF\n\techo a\n\tEOF\n"), is("RUN", &["echo a\n"]));
    let all = steps("RUN python3 <<'A B'\nRUN not\nA B\nRUN y");
    assert_eq!(all, [is("RUN", &["python3 <<'A B'\nRUN not\nA B"]), is("RUN", &["y"])]);
    let all = steps("RUN python3 <<A && cat <<X >f\nx\nA\nRUN not\nX\nRUN y");
    assert_eq!(
        all,
        [
            is("RUN", &["python3 <<A && cat <<X >f\nx\nA\nRUN not\nX"]),
            is("RUN", &["y"])
        ]
    );
    assert_eq!(
        one("RUN echo '<<EOF' \"<<X\" a<<<b"),
        is("RUN", &["echo '<<EOF' \"<<X\" a<<<b"])
    );
}

/// What a heredoc becomes is run by a real shell.
#[cfg(unix)]
#[test]
fn heredocs_do_in_a_shell_what_docker_does() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    let run = |rest: &str| {
        let (_, args) = one(&rest.replace("ROOT", &root));
        let ended = std::process::Command::new("sh")
            .arg("-c")
            .arg(&args[0])
            .output()
            .unwrap();
        assert!(ended.status.success(), "{args:?} {ended:?}");
        String::from_utf8(ended.stdout).unwrap()
    };
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(
        run("RUN <<EOF\n#!/usr/bin/env -S awk -f\nBEGIN { print 6 * 7 }\nEOF"),
        "42\n"
    );
    run("COPY <<EOF ROOT/a/b.txt\n$PATH `x` $(y) \"q\" 'r' \\$Z\nEOF");
    assert_eq!(read("a/b.txt"), "/bin `x` $(y) \"q\" 'r' $Z\n");
    run("COPY <<'EOF' ROOT/a/\n$PATH \\\nSANDHOLD_EOF\nEOF");
    assert_eq!(read("a/EOF"), "$PATH \\\nSANDHOLD_EOF\n");
    run("COPY --chmod=640 <<x ROOT/a\nx");
    assert_eq!(read("a/x"), "");
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(folder.path().join("a/x"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o640);
}

#[test]
fn the_start_is_put_together_by_dockers_rule() {
    let start = |rest: &str| plan(&format!("FROM a\n{rest}")).start;
    for (rest, line) in [
        ("CMD a b | c", "a b | c"),
        ("CMD [\"a\", \"b c\"]", "a 'b c'"),
        ("ENTRYPOINT [\"e\"]\nCMD [\"a\", \"b c\"]", "e a 'b c'"),
        ("CMD [\"old\"]\nENTRYPOINT [\"e\"]\nCMD a b", "e /bin/sh -c 'a b'"),
        ("ENTRYPOINT e f\nCMD a", "e f"),
        ("SHELL [\"/bin/bash\", \"-c\"]\nCMD a b", "/bin/bash -c 'a b'"),
    ] {
        assert_eq!(start(rest).as_deref(), Some(line), "{rest}");
    }
    assert_eq!(start("RUN a"), None);
    assert_eq!(start("CMD []"), None);
    let base = Config {
        entrypoint: vec!["in".into()],
        cmd: vec!["old".into()],
        ..Config::default()
    };
    let build = Build {
        base: Some(&base),
        ..Build::default()
    };
    let start = |rest: &str| plan_with(&format!("FROM a\n{rest}"), &build).unwrap().start;
    assert_eq!(start("CMD [\"a\"]").as_deref(), Some("in a"));
    assert_eq!(start("ENTRYPOINT [\"a\"]").as_deref(), Some("a"));
    assert_eq!(start("USER x"), None, "what the image below starts is not asked for");
}

#[test]
fn other_instructions_are_noted_or_refused() {
    let all = plan(
        "FROM a\nEXPOSE 80\nLABEL a=b\nVOLUME /x\nSTOPSIGNAL 9\nHEALTHCHECK --interval=5s CMD x\nMAINTAINER me\nONBUILD RUN x\nSHELL [\"/bin/bash\", \"-eo\", \"pipefail\", \"-c\"]\nRUN a | b\n",
    );
    assert_eq!(
        all.notes.iter().map(|note| note.line).collect::<Vec<_>>(),
        [2, 3, 4, 5, 6, 7, 8]
    );
    assert_eq!(all.steps[0].args, ["/bin/bash -eo pipefail -c 'a | b'"]);
    for (text, line, word) in [
        ("", 1, "FROM"),
        ("RUN a", 1, "FROM"),
        ("RUN a\nFROM a", 1, "before FROM"),
        ("FROM a\nFROM b", 2, "stages"),
        ("FROM a\n\nRUNN x", 3, "RUNN"),
        ("FROM a b c", 1, "form"),
        ("FROM", 1, "form"),
        ("FROM a\nRUN --mount=type=cache,target=/x y", 2, "--mount"),
        ("FROM a\nRUN --network=none y", 2, "--network"),
        ("FROM a\nRUN", 2, "command"),
        ("FROM a\nSHELL bash", 2, "form"),
        ("FROM a\nENV A", 2, "form"),
        ("FROM a\nENV A=b c", 2, "="),
        ("FROM a\nWORKDIR", 2, "value"),
        ("FROM a\nRUN [\"a\", 1]", 2, "strings"),
        ("# escape=x\nFROM a", 1, "escape"),
    ] {
        let (at, why) = fault(text);
        assert!(at == line && why.contains(word), "{text:?}: {at} {why}");
    }
    let error = plan_with("FROM a\nCOPY --from=b /x \\\n /y", &Build::default())
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("line 2 of the Dockerfile: ") && error.contains("COPY --from=b /x  /y"),
        "{error}"
    );
}

#[test]
fn nothing_grows_without_bound() {
    let mut text = String::from("FROM a\nENV A=0123456789\n");
    for _ in 0..40 {
        text.push_str("ENV A=$A$A$A$A\n");
    }
    assert!(fault(&text).1.contains("bytes"));
    let deep = format!("FROM a\nWORKDIR {}x{}", "${A:-".repeat(100), "}".repeat(100));
    assert!(fault(&deep).1.contains("deep"));
    assert!(
        fault(&format!("FROM a\n{}", "RUN x\n".repeat(limits::INSTRUCTIONS + 1)))
            .1
            .contains("instructions")
    );
}
