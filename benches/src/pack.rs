//! `zip_dir` beside the zip program, on the same folders of the same sandbox. A call over MCP, from question to answer,
//! stands beside the program's own time, from its start to its end.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sandhold_tests::mcp::Server;
use serde_json::{Value, json};

use crate::{Aim, Rounds, envd, heading, row, stats::Times};

/// Writes two folders: `small`, files of some hundred words in folders of a hundred, and `large`, three long ones.
const TREES: &str = "import os, random, sys
files, folder = int(sys.argv[1]), 100
random.seed(1)
words = [f'word{random.randrange(5000)}' for _ in range(20000)]
for at in range(files):
    if at % folder == 0:
        place = f'small/part{at // folder}'
        os.makedirs(place)
    with open(f'{place}/{at}.txt', 'w') as file:
        file.write(' '.join(random.choices(words, k=200 + at % 400)))
os.makedirs('large')
for at in range(3):
    with open(f'large/{at}.txt', 'w') as file:
        for _ in range(10):
            file.write(' '.join(random.choices(words, k=200000)))
";

/// Measures both.
pub(crate) fn pack(rounds: &Rounds, aims: &mut Vec<Aim>) -> Result<()> {
    let home = tempfile::tempdir()?;
    let mut server = Server::start(home.path(), &[])?;
    server.call("write_file", &json!({"path": "trees.py", "content": TREES}))?;
    run(&mut server, &format!("python3 trees.py {}", rounds.packed))?;
    let with_zip = server.call("run_command", &json!({"cmd": "command -v zip"}))?["exit_code"] == 0;

    heading(&format!("Packing {} small files, and three large ones", rounds.packed));
    for folder in ["small", "large"] {
        let (mut ours, mut theirs) = (Times::default(), Times::default());
        for _ in 0..rounds.packs {
            run(&mut server, "rm -f ours.zip theirs.zip")?;
            ours.measure(|| {
                let packed = server.call("zip_dir", &json!({"src_dir": folder, "dest_zip": "ours.zip"}))?;
                ensure!(
                    packed["entries"].as_u64() > Some(2),
                    "zip_dir: {}",
                    envd::shown(&packed)
                );
                Ok(())
            })?;
            if with_zip {
                theirs.push(zip(&mut server, folder)?);
            }
        }
        row(&format!("zip_dir of {folder} files, over MCP"), &ours);
        if with_zip {
            row(&format!("zip -qr of {folder} files"), &theirs);
            aims.push(Aim {
                what: format!("zip_dir of {folder} files, beside zip (medians)"),
                got: ours.median() / theirs.median(),
                most: 1.0,
                unit: "×",
            });
        } else {
            println!("  {:<44} not measured: not installed", "zip");
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

/// From zip's start to its end, by the clock of the shell that starts it.
fn zip(server: &mut Server, folder: &str) -> Result<Duration> {
    let cmd = format!(
        "cd {folder}; began=$EPOCHREALTIME; zip -qr ../theirs.zip .; ended=$EPOCHREALTIME; \
         echo $(( ${{ended/[.,]/}} - ${{began/[.,]/}} ))"
    );
    let said = run(server, &cmd)?;
    let micros = said["stdout"].as_str().context("no stdout")?.trim().parse()?;
    Ok(Duration::from_micros(micros))
}
