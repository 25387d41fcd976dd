//! Scenarios with the PyPI packages `mcp` 2 and `mcp` 1. Each script of `tests/python` says what it shows.

use std::time::Duration;

use sandhold_tests::scenario;

fn run(script: &str, arguments: &[&str], minutes: u64) {
    run_in("venv", script, arguments, minutes);
}

fn run_in(venv: &str, script: &str, arguments: &[&str], minutes: u64) {
    if let Err(error) = scenario::python(venv, script, arguments, Duration::from_secs(minutes * 60)) {
        panic!("{error:?}");
    }
}

#[test]
fn every_tool_over_stdio_modern() {
    run("tools.py", &["stdio", "modern"], 3);
}

#[test]
fn every_tool_over_stdio_legacy() {
    run("tools.py", &["stdio", "legacy"], 3);
}

#[test]
fn every_tool_over_http_modern() {
    run("tools.py", &["http", "modern"], 3);
}

#[test]
fn every_tool_over_http_legacy() {
    run("tools.py", &["http", "legacy"], 3);
}

#[test]
fn the_table_of_all_tools() {
    run("catalogue.py", &[], 4);
}

#[test]
fn the_table_of_all_tools_with_sandboxes_of_serve() {
    run("remote.py", &["catalogue.py"], 4);
}

#[test]
fn bad_commands_over_stdio() {
    run("commands.py", &["stdio", "modern"], 4);
}

#[test]
fn bad_commands_over_http() {
    run("commands.py", &["http", "modern"], 4);
}

#[test]
fn bad_commands_over_stdio_legacy() {
    run("commands.py", &["stdio", "legacy"], 4);
}

#[test]
fn every_tool_with_sandboxes_of_serve() {
    run("remote.py", &["tools.py", "stdio", "modern"], 3);
}

#[test]
fn every_tool_over_http_with_sandboxes_of_serve() {
    run("remote.py", &["tools.py", "http", "legacy"], 3);
}

#[test]
fn bad_commands_with_sandboxes_of_serve() {
    run("remote.py", &["commands.py", "stdio", "modern"], 4);
}

#[test]
fn a_real_job_with_sandboxes_of_serve() {
    run("remote.py", &["real_job.py", "20"], 5);
}

#[test]
fn servers_over_stdio() {
    run("services.py", &["stdio", "modern"], 5);
}

#[test]
fn servers_over_http() {
    run("services.py", &["http", "legacy"], 5);
}

#[test]
fn servers_with_sandboxes_of_serve() {
    run("remote.py", &["services.py", "stdio", "modern"], 5);
}

#[test]
fn servers_in_sandboxes_of_a_plain_daemon() {
    run("plain.py", &["services.py", "stdio", "legacy"], 6);
}

#[test]
fn a_terminal_with_real_programs() {
    run("terminal.py", &[], 4);
}

#[test]
fn a_terminal_with_sandboxes_of_serve() {
    run("remote.py", &["terminal.py"], 4);
}

#[test]
fn watches_and_processes() {
    run("watching.py", &[], 4);
}

#[test]
fn watches_and_processes_with_sandboxes_of_serve() {
    run("remote.py", &["watching.py"], 4);
}

#[test]
fn a_terminal_of_a_daemon_without_our_endpoints() {
    run("plain.py", &["terminal.py"], 4);
}

#[test]
fn watches_and_processes_of_a_daemon_without_our_endpoints() {
    run("plain.py", &["watching.py"], 4);
}

#[test]
fn transfer() {
    run("transfer.py", &[], 6);
}

#[test]
fn transfer_with_sandboxes_of_serve() {
    run("remote.py", &["transfer.py"], 6);
}

#[test]
fn transfer_with_a_daemon_like_that_of_e2b() {
    run("plain.py", &["transfer.py"], 6);
}

#[test]
fn unasked_ends() {
    run("lifecycle.py", &[], 4);
}

#[test]
fn limits_of_a_sandbox() {
    run("limits.py", &[], 4);
}

#[test]
fn bombs() {
    run("bombs.py", &[], 6);
}

#[test]
fn isolation() {
    run("isolation.py", &[], 3);
}

#[test]
fn network() {
    run("network.py", &[], 5);
}

#[test]
fn the_level_landlock() {
    run("levels.py", &["landlock"], 3);
}

#[test]
fn the_level_gvisor() {
    run("levels.py", &["gvisor"], 3);
}

#[test]
fn secrets_that_the_sandbox_never_sees() {
    run("hidden.py", &[], 5);
}

#[test]
fn http_transport() {
    run("transport.py", &[], 3);
}

#[test]
fn a_real_job() {
    run("real_job.py", &["125"], 5);
}

#[test]
fn the_readmes_entry() {
    run("readme.py", &[], 2);
}

#[test]
fn the_last_client_of_the_old_line() {
    run_in("venv-v1", "old_client.py", &[], 2);
}

#[test]
fn the_user_is_asked_modern() {
    run("consent.py", &["modern"], 3);
}

#[test]
fn the_user_is_asked_legacy() {
    run("consent.py", &["legacy"], 3);
}

#[test]
fn the_user_is_asked_by_the_old_line() {
    run_in("venv-v1", "consent.py", &["old"], 3);
}

#[test]
fn the_transport_of_2024() {
    run_in("venv-v1", "sse.py", &[], 4);
}

#[test]
fn jobs_outlive_their_server() {
    run("outlive.py", &[], 5);
}

#[test]
fn e2bs_own_sdks() {
    run("e2b_sdk.py", &[], 4);
}

#[test]
fn sudo_as_people_use_it() {
    run("sudo.py", &[], 3);
}

#[test]
fn traffic_to_ports_through_serve() {
    run("serve_traffic.py", &[], 4);
}

#[test]
fn calls_and_keys_of_serve() {
    run("serve_calls.py", &[], 4);
}

#[test]
fn paused_sandboxes_outlive_serve() {
    run("serve_paused.py", &[], 4);
}

#[test]
fn templates_by_e2bs_sdks() {
    run("templates.py", &[], 5);
}

#[test]
fn templates_by_the_command() {
    run("templates_cli.py", &["cli"], 5);
}

#[test]
fn templates_over_mcp() {
    run("templates_cli.py", &["mcp"], 4);
}

#[test]
fn templates_on_a_server_elsewhere() {
    run("templates_cli.py", &["remote"], 4);
}

#[test]
fn snapshots_and_forks_by_e2bs_sdks() {
    run("snapshots.py", &["sdk"], 4);
}

#[test]
fn snapshots_forks_and_undo_over_mcp() {
    run("snapshots.py", &["mcp"], 4);
}

#[test]
fn sandboxes_outlive_mcp() {
    run("snapshots.py", &["exit"], 4);
}

#[test]
fn what_was_kept_survives_the_servers_sigkill() {
    run("snapshots.py", &["killed"], 6);
}

#[test]
fn e2b_2_63_synchronous() {
    run("sdk_sync.py", &["2.63.0"], 3);
}

#[test]
fn e2b_2_63_asynchronous() {
    run("sdk_async.py", &[], 3);
}

#[test]
fn e2b_2_45() {
    run_in("venv-e2b-2.45.1", "sdk_sync.py", &["2.45.1"], 3);
}

#[test]
fn e2b_2_0_by_domain() {
    run_in("venv-e2b-2.0.0", "sdk_sync.py", &["2.0.0"], 3);
}

#[test]
fn e2b_1_5_by_domain() {
    run_in("venv-e2b-1.5.0", "sdk_sync.py", &["1.5.0"], 3);
}

#[test]
fn e2b_for_javascript() {
    run("sdk_node.py", &[], 3);
}
