//! 300 sandboxes made and ended in every way there is, SIGKILL of the server and of its launcher among them. What the
//! machine holds is the same before and after: processes, mounts, cgroups, network namespaces, sockets, files.

use std::{
    collections::BTreeSet,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use sandhold_tests::{
    machine::{self, Held},
    mcp::Server,
    turn,
};
use serde_json::{Value, json};

const SETTLE: Duration = Duration::from_secs(20);

fn create(server: &mut Server, arguments: &Value) -> String {
    let made = server.call("create_sandbox", arguments).unwrap();
    made["sandbox_id"].as_str().unwrap().to_owned()
}

/// Something of every kind that could be left behind: a process of its own session, a file, a socket, a listener.
fn live_in(server: &mut Server, sandbox: &str) {
    let cmd = "setsid sleep 3600 >/dev/null 2>&1 </dev/null & head -c 200000 /dev/zero > data; \
               mkfifo pipe 2>/dev/null; echo lived";
    let lived = server
        .call("run_command", &json!({"sandbox_id": sandbox, "cmd": cmd}))
        .unwrap();
    assert_eq!(lived["stdout"], "lived\n", "{lived}");
}

/// The sandboxes that a server made, of which every third did something.
fn fill(server: &mut Server, count: usize, timeout_s: u64) -> Vec<String> {
    (0..count)
        .map(|number| {
            let sandbox = create(server, &json!({"timeout_s": timeout_s}));
            if number % 3 == 0 {
                live_in(server, &sandbox);
            }
            sandbox
        })
        .collect()
}

fn unchanged(what: &str, before: &Held, folders: &[&Path]) {
    let left = Held::settle(before, folders, SETTLE).unwrap();
    assert!(
        left.is_empty(),
        "after {what}, {} things are left:\n{}",
        left.len(),
        left.join("\n")
    );
}

/// The process between the server and the sandboxes.
fn launcher(server: &Server) -> Pid {
    let tree = machine::descendants(server.pid()).unwrap();
    let parents: BTreeSet<u32> = tree
        .keys()
        .copied()
        .filter(|pid| !machine::descendants(*pid).unwrap().is_empty())
        .collect();
    let direct = parents.iter().find(|pid| {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status
            .lines()
            .any(|line| line.split_whitespace().eq(["PPid:", &server.pid().to_string()]))
    });
    Pid::from_raw(i32::try_from(*direct.unwrap_or_else(|| panic!("no launcher in {tree:?}"))).unwrap()).unwrap()
}

#[test]
fn nothing_is_left() {
    let _turn = turn::alone().unwrap();
    machine::adopt_orphans().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path();

    // The state folder's own files come with the first server.
    let mut first = Server::start(home, &[]).unwrap();
    let warm = create(&mut first, &json!({}));
    live_in(&mut first, &warm);
    first.close().unwrap();
    thread::sleep(Duration::from_millis(500));
    machine::reap();
    let before = Held::now(&[home]).unwrap();
    let mut total = 0;

    // Shut down one by one, while others are made. What lives with the server has to stay the same: no spare sandbox.
    let mut server = Server::start(home, &["--spares", "0"]).unwrap();
    let warm = create(&mut server, &json!({}));
    server.call("shutdown_sandbox", &json!({"sandbox_id": warm})).unwrap();
    let with_server = Held::now(&[home]).unwrap();
    let descriptors = machine::descriptors(server.pid()).unwrap();
    for _ in 0..10 {
        let made = fill(&mut server, 10, 600);
        total += made.len();
        let during = Held::now(&[home]).unwrap().beyond(&with_server);
        assert!(
            during.len() >= 10,
            "the control: ten sandboxes are seen while they live: {during:?}"
        );
        for sandbox in made {
            server
                .call("shutdown_sandbox", &json!({"sandbox_id": sandbox}))
                .unwrap();
        }
    }
    unchanged("100 times shutdown_sandbox", &with_server, &[home]);
    assert!(
        machine::descriptors(server.pid()).unwrap() <= descriptors + 2,
        "descriptors of the server"
    );

    // Ended by their timeouts.
    total += fill(&mut server, 50, 2).len();
    unchanged("50 timeouts", &with_server, &[home]);

    // Ended all at once.
    total += fill(&mut server, 30, 600).len();
    server.call("shutdown_all_sandboxes", &json!({})).unwrap();
    unchanged("shutdown_all_sandboxes", &with_server, &[home]);
    assert!(
        machine::descriptors(server.pid()).unwrap() <= descriptors + 2,
        "descriptors of the server"
    );

    // Ended by the launcher's death; the server tells it and can go on.
    let made = fill(&mut server, 20, 600);
    total += made.len();
    kill_process(launcher(&server), Signal::KILL).unwrap();
    let started = Instant::now();
    let told = server
        .result("run_command", &json!({"sandbox_id": made[0], "cmd": "true"}))
        .unwrap();
    assert_eq!(
        told["isError"],
        json!(true),
        "a sandbox whose launcher died is told as ended: {told}"
    );
    assert!(started.elapsed() < Duration::from_secs(10));
    let again = create(&mut server, &json!({}));
    live_in(&mut server, &again);
    server.close().unwrap();
    unchanged("SIGKILL of the launcher", &before, &[home]);

    // Ended by the server's end.
    let mut server = Server::start(home, &[]).unwrap();
    total += fill(&mut server, 40, 600).len();
    server.close().unwrap();
    unchanged("the server's end", &before, &[home]);

    // Ended by SIGKILL of the server, once at rest, once in the middle of calls and of a create.
    let mut server = Server::start(home, &[]).unwrap();
    total += fill(&mut server, 30, 600).len();
    server.kill().unwrap();
    unchanged("SIGKILL of the server", &before, &[home]);
    for delay in [0, 1, 2, 5, 10] {
        let mut server = Server::start(home, &[]).unwrap();
        let made = fill(&mut server, 5, 600);
        for sandbox in &made {
            server
                .send_call(
                    "run_command",
                    &json!({"sandbox_id": sandbox, "cmd": "yes | head -c 100000000 | wc -c"}),
                )
                .unwrap();
        }
        server.send_call("create_sandbox", &json!({})).unwrap();
        total += made.len() + 1;
        thread::sleep(Duration::from_millis(delay));
        server.kill().unwrap();
        unchanged("SIGKILL of the server in the middle", &before, &[home]);
    }
    assert!(total >= 300, "{total} sandboxes");
}
