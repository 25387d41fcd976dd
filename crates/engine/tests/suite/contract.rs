//! What the traits of `sandhold-runtime` promise.

use sandhold_engine::Engine;
use sandhold_engine::{EngineConfig, InitProgram, probe};
use sandhold_runtime::{Resources, Runtime, RuntimeError, SandboxSpec};

use super::common::{USER, config, engine, out, probe_program, run, sandbox, sandbox_with, spec};

#[tokio::test]
async fn a_sandbox_answers_its_boot_message_and_runs_commands() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    assert_eq!(sandbox.boot_answer(), b"ready");
    let (code, output) = run(&*sandbox, USER, &["/bin/echo", "hello"]).await.unwrap();
    assert_eq!((code, output.as_str()), (0, "hello\n"));
    let (code, _) = run(&*sandbox, USER, &["/bin/sh", "-c", "exit 7"]).await.unwrap();
    assert_eq!(code, 7);
}

#[tokio::test]
async fn many_connections_at_once_do_not_mix() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    let tasks = (0..64).map(|number: i32| {
        let sandbox = sandbox.clone();
        tokio::spawn(async move {
            let text = number.to_string();
            let (code, output) = run(&*sandbox, USER, &["/bin/echo", &text]).await.unwrap();
            assert_eq!((code, output.trim()), (0, text.as_str()));
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test]
async fn bad_specifications_are_refused_by_name() {
    let engine = engine().await;
    let bad = [
        (
            SandboxSpec {
                id: "../x".into(),
                ..spec()
            },
            "id",
        ),
        (
            SandboxSpec {
                hostname: "a b".into(),
                ..spec()
            },
            "hostname",
        ),
        (
            SandboxSpec {
                boot: Vec::new(),
                ..spec()
            },
            "boot",
        ),
        (
            SandboxSpec {
                resources: Resources {
                    pids: Some(1),
                    ..Resources::default()
                },
                ..spec()
            },
            "pids",
        ),
        (
            SandboxSpec {
                resources: Resources {
                    cpus: Some(f64::NAN),
                    ..Resources::default()
                },
                ..spec()
            },
            "cpus",
        ),
    ];
    for (spec, field) in bad {
        match engine.create(spec).await.err() {
            Some(RuntimeError::InvalidSpec(said)) => assert!(said.starts_with(field), "{said}"),
            other => panic!("{field}: {other:?}"),
        }
    }
    let unknown = engine
        .create(SandboxSpec {
            root: sandhold_runtime::StoredRoot {
                base: sandhold_runtime::Base::Empty,
                layers: vec![sandhold_runtime::LayerId([7; 32])],
            }
            .into(),
            ..spec()
        })
        .await
        .err();
    assert!(matches!(unknown, Some(RuntimeError::UnknownLayer(_))), "{unknown:?}");
    assert_eq!(engine.live(), 0);
}

#[tokio::test]
async fn an_id_in_use_is_refused_and_free_again_after_the_end() {
    let engine = engine().await;
    let spec = spec();
    let first = engine.create(spec.clone()).await.unwrap();
    match engine.create(spec.clone()).await.err() {
        Some(RuntimeError::InvalidSpec(said)) => assert!(said.contains("in use"), "{said}"),
        other => panic!("{other:?}"),
    }
    assert_eq!(
        run(&*first, USER, &["/bin/echo", "x"]).await.unwrap().1,
        "x\n",
        "the first is unharmed"
    );
    first.kill().await;
    engine.create(spec).await.unwrap().kill().await;
}

#[tokio::test]
async fn a_full_engine_says_so_and_has_room_again() {
    let mut config = config();
    config.max_sandboxes = 2;
    let engine = Engine::start(config).await.unwrap();
    let first = sandbox(&engine).await;
    let _second = sandbox(&engine).await;
    let full = engine.create(spec()).await.err();
    assert!(matches!(full, Some(RuntimeError::Exhausted(_))), "{full:?}");
    first.kill().await;
    sandbox(&engine).await.kill().await;
}

#[tokio::test]
async fn an_init_program_that_goes_wrong_is_told_and_leaves_nothing() {
    let engine = engine().await;
    for (boot, text) in [("exit", "before it answered"), ("huge", "longer than")] {
        let error = engine
            .create(SandboxSpec {
                boot: boot.into(),
                ..spec()
            })
            .await
            .err()
            .expect("no sandbox");
        let cause = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        assert!(cause.contains(text), "{boot}: {error}: {cause}");
        assert_eq!(engine.live(), 0, "{boot}");
    }
}

#[tokio::test]
async fn an_init_program_that_never_answers_is_given_up_in_time() {
    let engine = engine().await;
    let begun = std::time::Instant::now();
    let error = engine
        .create(SandboxSpec {
            boot: b"silent".to_vec(),
            ..spec()
        })
        .await
        .err()
        .expect("no sandbox");
    let cause = std::error::Error::source(&error)
        .map(ToString::to_string)
        .unwrap_or_default();
    assert!(cause.contains("no answer within 10 s"), "{error}: {cause}");
    assert!(begun.elapsed().as_secs() < 14);
    assert_eq!(engine.live(), 0);
}

#[tokio::test]
async fn a_wrong_set_up_is_an_error_that_names_the_part() {
    let text = |error: RuntimeError| {
        let cause = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        format!("{error}: {cause}")
    };
    let launcher: Vec<std::ffi::OsString> = vec![probe_program().into(), "__launcher".into()];
    let missing = EngineConfig::new(InitProgram::Path("/no/such/file".into()), launcher.clone());
    let said = text(Engine::start(missing).await.expect_err("no init program"));
    assert!(said.contains("/no/such/file"), "{said}");
    let no_launcher = EngineConfig::new(InitProgram::Path(probe_program()), vec!["/bin/true".into()]);
    let said = text(Engine::start(no_launcher).await.expect_err("no launcher"));
    assert!(said.contains("launcher ended before it was ready"), "{said}");
    let none = EngineConfig::new(InitProgram::Path(probe_program()), vec!["/no/such/launcher".into()]);
    let said = text(Engine::start(none).await.expect_err("no launcher"));
    assert!(said.contains("/no/such/launcher"), "{said}");
}

#[tokio::test]
async fn the_engine_says_what_it_is() {
    let engine = engine().await;
    let info = engine.info();
    assert_eq!(info.isolation.level, "namespaces");
    assert_ne!(info.reach, sandhold_runtime::Reach::Nothing);
    let set = info.defaults;
    assert!(set.memory_bytes.is_some() && set.cpus.is_some() && set.pids.is_some() && set.disk_bytes.is_some());
    assert!(set.inodes.is_some() && set.open_files.is_some());
}

#[tokio::test]
async fn usage_counts_or_says_that_nothing_counts() {
    let engine = engine().await;
    let sandbox = sandbox(&engine).await;
    match sandbox.usage().await {
        Ok(before) => {
            out(
                &*sandbox,
                USER,
                "head -c 20000000 /dev/zero > /tmp/f; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
            )
            .await;
            let after = sandbox.usage().await.unwrap();
            assert!(
                after.memory_bytes >= before.memory_bytes + 19_000_000,
                "{before:?} {after:?}"
            );
            assert!(after.cpu_us > before.cpu_us && after.pids >= 1, "{before:?} {after:?}");
        }
        Err(RuntimeError::Unsupported(said)) => super::common::skip(&said),
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_frozen_sandbox_stands_still_goes_on_and_can_be_killed() {
    let engine = engine().await;
    if !engine.info().can_freeze {
        let error = sandbox(&engine).await.freeze().await.err();
        assert!(matches!(error, Some(RuntimeError::UnknownLayer(_))), "{error:?}");
        return super::common::skip("freezing: no cgroup");
    }
    let sandbox = sandbox(&engine).await;
    sandbox.freeze().await.unwrap();
    let waiting = run(&*sandbox, USER, &["/bin/echo", "late"]);
    tokio::pin!(waiting);
    let pause = std::time::Duration::from_millis(300);
    assert!(
        tokio::time::timeout(pause, &mut waiting).await.is_err(),
        "a frozen sandbox answered"
    );
    sandbox.thaw().await.unwrap();
    assert_eq!(waiting.await.unwrap().1, "late\n");
    sandbox.freeze().await.unwrap();
    let begun = std::time::Instant::now();
    sandbox.kill().await;
    assert!(begun.elapsed().as_secs() < 5);
    assert!(matches!(sandbox.freeze().await, Err(RuntimeError::Ended(_))));
}

#[tokio::test]
async fn the_doctor_finds_a_sandbox_here_and_names_what_a_wrong_launcher_lacks() {
    let report = probe(&[probe_program().into(), "__launcher".into()], std::ffi::OsStr::new("")).await;
    assert!(report.works(sandhold_runtime::Level::Namespaces), "{report:#?}");
    assert!(report.items.iter().any(|item| item.name == "kernel" && item.ok));
    let report = probe(&["/bin/true".into()], std::ffi::OsStr::new("")).await;
    assert!(!report.works(sandhold_runtime::Level::Namespaces), "{report:#?}");
}

#[tokio::test]
async fn open_files_are_limited() {
    let engine = engine().await;
    let few = Resources {
        open_files: Some(100),
        ..Resources::default()
    };
    let sandbox = sandbox_with(&engine, few).await;
    assert_eq!(out(&*sandbox, USER, "ulimit -Hn").await, "100");
    assert_eq!(out(&*sandbox, USER, "ulimit -Hc").await, "0");
}
