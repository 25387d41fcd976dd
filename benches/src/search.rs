//! `search_files` beside ripgrep, on the same tree of the same sandbox. A call over MCP, from question to answer, stands
//! beside ripgrep's own time, from its start to its end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sandhold_tests::mcp::Server;
use serde_json::{Value, json};

use crate::{Aim, Rounds, envd, heading, row, stats::Times};

/// Files in a folder of the tree.
const FOLDER: usize = 100;
/// So many of the files hold what is looked for, fewer than one answer has room for.
const NEEDLES: usize = 20;
/// What is looked for: words that a search can skip to, and a pattern that has none.
const PATTERNS: [(&str, &str); 2] = [
    ("a word", "needle_[0-9]+"),
    ("a pattern without a word", "[a-z]+_[0-9]{4}z"),
];

/// Writes the tree: files of some 2 KiB that look like a program, and a `.gitignore` that names some of them.
const TREE: &str = "import os, sys
files, folder, needles = map(int, sys.argv[1:])
text = ''.join(f'    value_{n} = compute(left[{n}], right[{n}]) + offset\\n' for n in range(40))
for at in range(files):
    if at % folder == 0:
        place = f'tree/part{at // folder}'
        os.makedirs(place)
    found = f'needle_{at % 10000:04}z\\n' if at % (files // needles) == 0 else ''
    with open(f'{place}/file{at}.py', 'w') as file:
        file.write(f'def function_{at}(left, right):\\n{text}{found}')
    if at % folder == 0:
        open(f'{place}/ignored.log', 'w').write('needle_0000z\\n' * 100)
open('tree/.gitignore', 'w').write('*.log\\n')
";

/// Measures both.
pub(crate) fn search(rounds: &Rounds, aims: &mut Vec<Aim>) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut server = Server::start(home.path(), &[])?;
    server.call("write_file", &json!({"path": "tree.py", "content": TREE}))?;
    let cmd = format!("python3 tree.py {} {FOLDER} {NEEDLES}", rounds.files);
    run(&mut server, &cmd)?;
    let with_rg = server.call("run_command", &json!({"cmd": "command -v rg"}))?["exit_code"] == 0;

    heading(&format!("A search through {} files of a sandbox", rounds.files));
    for (what, pattern) in PATTERNS {
        let (mut ours, mut theirs) = (Times::default(), Times::default());
        for round in 0..rounds.warm + rounds.search {
            if round == rounds.warm {
                ours.clear();
                theirs.clear();
            }
            let found = ours.measure(|| server.call("search_files", &json!({"pattern": pattern, "path": "tree"})))?;
            let found = found["matches"].as_array().map_or(0, Vec::len);
            ensure!(found == NEEDLES, "search_files found {found} of {NEEDLES}");
            if with_rg {
                theirs.push(ripgrep(&mut server, pattern)?);
            }
        }
        row(&format!("search_files, {what}, over MCP"), &ours);
        if with_rg {
            row(&format!("ripgrep, {what}"), &theirs);
            aims.push(Aim {
                what: format!("search_files of {what}, beside ripgrep (medians)"),
                got: ours.median() / theirs.median(),
                most: 1.5,
                unit: "×",
            });
        } else {
            println!("  {:<44} not measured: not installed", "ripgrep");
        }
    }
    server.close()?;
    Ok(())
}

/// A command that has to end well.
fn run(server: &mut Server, cmd: &str) -> Result<Value> {
    let said = server.call("run_command", &json!({"cmd": cmd, "timeout_s": 40}))?;
    ensure!(said["exit_code"] == 0, "{cmd}: {}", envd::shown(&said));
    Ok(said)
}

/// From ripgrep's start to its end, by the clock of the shell that starts it. It, too, keeps to `.gitignore` files where
/// there is no repository, and gives the numbers of lines.
fn ripgrep(server: &mut Server, pattern: &str) -> Result<Duration> {
    let cmd = format!(
        "began=$EPOCHREALTIME; rg --no-require-git --line-number '{pattern}' tree >found; ended=$EPOCHREALTIME; \
         wc -l <found; echo $(( ${{ended/[.,]/}} - ${{began/[.,]/}} ))"
    );
    let said = run(server, &cmd)?;
    let mut numbers = said["stdout"]
        .as_str()
        .context("no stdout")?
        .split_whitespace()
        .map(str::parse::<u64>);
    let found = numbers.next().context("no count")??;
    ensure!(found == NEEDLES as u64, "ripgrep found {found} of {NEEDLES}");
    Ok(Duration::from_micros(numbers.next().context("no time")??))
}
