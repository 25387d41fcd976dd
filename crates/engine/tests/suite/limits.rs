//! Limits, each with a control: the same work below the limit goes through.

use sandhold_runtime::{Resources, Runtime, Sandbox};

use super::common::{USER, engine, out, run, sandbox_with, sh, skip};

const MIB: u64 = 1 << 20;

#[tokio::test]
async fn a_full_disk_is_enospc_and_does_not_break_the_sandbox() {
    let engine = engine().await;
    let sandbox = sandbox_with(
        &engine,
        Resources {
            disk_bytes: Some(16 * MIB),
            ..Resources::default()
        },
    )
    .await;
    out(&*sandbox, USER, "head -c 8000000 /dev/zero > /tmp/fits").await;
    let (code, output) = sh(&*sandbox, USER, "head -c 20000000 /dev/zero > /tmp/big").await;
    assert!(code != 0 && output.contains("No space left"), "{code} {output}");
    out(&*sandbox, USER, "rm /tmp/big && echo again > /tmp/small").await;
}

#[tokio::test]
async fn files_meet_the_limit_of_the_disk_before_that_of_memory() {
    let engine = engine().await;
    let sandbox = sandbox_with(
        &engine,
        Resources {
            memory_bytes: Some(128 * MIB),
            ..Resources::default()
        },
    )
    .await;
    out(
        &*sandbox,
        USER,
        "head -c 50000000 /dev/zero > /tmp/fits && rm /tmp/fits",
    )
    .await;
    // Both file systems that are kept in memory, to the brim.
    for file in ["/tmp/big", "/dev/shm/big"] {
        let (code, output) = sh(&*sandbox, USER, &format!("head -c 200000000 /dev/zero > {file}")).await;
        assert!(code != 0 && output.contains("No space left"), "{file}: {code} {output}");
    }
    out(&*sandbox, USER, "rm /tmp/big && echo again > /tmp/small").await;
}

#[tokio::test]
async fn files_are_counted() {
    let engine = engine().await;
    let sandbox = sandbox_with(
        &engine,
        Resources {
            inodes: Some(400),
            ..Resources::default()
        },
    )
    .await;
    out(
        &*sandbox,
        USER,
        "i=0; while [ $i -lt 50 ]; do : > /tmp/a$i || exit 1; i=$((i+1)); done",
    )
    .await;
    let (code, output) = sh(
        &*sandbox,
        USER,
        "i=0; while [ $i -lt 500 ]; do : > /tmp/b$i || exit 9; i=$((i+1)); done",
    )
    .await;
    assert!(code != 0 && output.contains("No space left"), "{code} {output}");
}

#[tokio::test]
async fn processes_are_counted() {
    let engine = engine().await;
    let sandbox = sandbox_with(
        &engine,
        Resources {
            pids: Some(40),
            ..Resources::default()
        },
    )
    .await;
    let start = |count: u32| {
        format!(
            "i=0; while [ $i -lt {count} ]; do sleep 2 & i=$((i+1)); done >/dev/null; kill $(jobs -p) 2>/dev/null; exit 0"
        )
    };
    let (code, output) = sh(&*sandbox, USER, &start(10)).await;
    assert!(code == 0 && !output.contains("fork"), "{code} {output}");
    let (_, output) = sh(&*sandbox, USER, &start(100)).await;
    assert!(
        output.to_lowercase().contains("fork") || output.contains("Resource temporarily"),
        "{output}"
    );
    // Where nothing counts processes the daemon's own limit held.
    if let Ok(usage) = sandbox.usage().await
        && let Some(times) = usage.met.pids
    {
        assert!(times > 0, "it was counted");
        assert_eq!(usage.met.memory, Some(0), "and nothing else was");
    }
    let told = sh(&*sandbox, USER, "echo alive").await;
    assert_eq!(told, (0, "alive\n".to_owned()), "the sandbox goes on");
}

#[tokio::test]
async fn memory_is_limited_and_the_sandbox_survives() {
    let engine = engine().await;
    if engine
        .info()
        .isolation
        .warnings
        .iter()
        .any(|warning| warning.contains("memory"))
    {
        return skip("the memory limit: no cgroup");
    }
    let sandbox = sandbox_with(
        &engine,
        Resources {
            memory_bytes: Some(64 * MIB),
            ..Resources::default()
        },
    )
    .await;
    // tail keeps what it read in memory when there is no line end.
    let hog = |mib: u64| format!("head -c {} /dev/zero | tail -c 1000000000 | wc -c", mib * MIB);
    assert_eq!(out(&*sandbox, USER, &hog(20)).await.trim(), (20 * MIB).to_string());
    let (_, output) = sh(&*sandbox, USER, &hog(300)).await;
    assert_ne!(output.trim(), (300 * MIB).to_string(), "300 MiB fitted into 64");
    assert_eq!(out(&*sandbox, USER, "echo alive").await, "alive");
    let met = sandbox.usage().await.unwrap().met;
    assert!(met.memory.is_some_and(|times| times > 0), "it was counted: {met:?}");
    assert_eq!(met.pids, Some(0), "and nothing else was");
}

#[tokio::test]
async fn processor_time_is_limited() {
    let engine = engine().await;
    if engine
        .info()
        .isolation
        .warnings
        .iter()
        .any(|warning| warning.contains("processor time"))
    {
        return skip("the processor limit: no cgroup");
    }
    let busy = "i=0; while [ $i -lt 200000000 ]; do i=$((i+1)); done";
    let tenth = sandbox_with(
        &engine,
        Resources {
            cpus: Some(0.1),
            ..Resources::default()
        },
    )
    .await;
    let whole = sandbox_with(
        &engine,
        Resources {
            cpus: Some(1.0),
            ..Resources::default()
        },
    )
    .await;
    // What a second of work costs; the machine may be busy with other things, so the control may try again.
    let second = async |sandbox: &dyn Sandbox| {
        let before = sandbox.usage().await.unwrap().cpu_us;
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
        sandbox.usage().await.unwrap().cpu_us - before
    };
    let work = [&tenth, &whole].map(|sandbox| {
        let sandbox = sandbox.clone();
        tokio::spawn(async move { drop(run(&*sandbox, USER, &["/bin/sh", "-c", busy]).await) })
    });
    let limited = second(&*tenth).await;
    assert!((1..250_000).contains(&limited), "{limited} µs in a second at a tenth");
    let mut most = 0;
    for _ in 0..20 {
        most = most.max(second(&*whole).await);
        if most > 300_000 {
            break;
        }
    }
    assert!(most > 300_000, "the control: {most} µs in a second at one");
    tenth.kill().await;
    whole.kill().await;
    for task in work {
        task.await.unwrap();
    }
}
