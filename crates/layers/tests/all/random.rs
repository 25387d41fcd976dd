//! Trees and changes by chance, from few names, so that much meets.

use std::fmt::Write as _;

/// Commands for a shell that change the folder it is in: `count` of them. What does not apply is passed over.
pub(crate) fn commands(rng: &mut fastrand::Rng, count: usize, root: bool) -> String {
    let mut script = String::from("umask 022\n");
    for number in 0..count {
        let (path, other) = (path(rng), path(rng));
        // A link leads to a name beside it or below: never out of the folder.
        let line = match rng.u32(0..if root { 15 } else { 14 }) {
            0 | 1 => format!("mkdir -p {path}"),
            2 => format!("rm -rf {path}"),
            3 | 4 => format!("mkdir -p \"$(dirname {path})\"; [ -p {path} ] || echo {number} > {path}"),
            5 => format!(
                "rm -rf {path}; head -c {} /dev/zero | tr '\\0' {} > {path}",
                rng.u32(0..100_000),
                rng.u32(0..9)
            ),
            6 => format!("rm -rf {path}; ln -s {} {path}", name(rng)),
            7 => format!("[ -d {other} ] || ln -fT {path} {other}"),
            8 => format!("mv -T {path} {other}"),
            9 => format!(
                "[ -L {path} ] || chmod {:o} {path}",
                if root {
                    0o500 + rng.u32(0..0o300)
                } else {
                    0o700 + rng.u32(0..0o100)
                }
            ),
            10 => format!(
                "touch -hd @{}.{:09} {path}",
                rng.i32(-1000..i32::MAX),
                rng.u32(0..1_000_000_000)
            ),
            11 => format!("rm -rf {path}; mkfifo {path}"),
            12 => format!("[ -f {path} ] && echo more >> {path}"),
            13 => format!(
                "rm -rf {path}; mkdir -p {path}; truncate -s {}K {path}/sparse; echo end >> {path}/sparse",
                rng.u32(0..2000)
            ),
            _ => format!("chown -h {}:{} {path}", rng.u32(0..65_536), rng.u32(0..65_536)),
        };
        writeln!(script, "{{ {line}; }} 2>/dev/null || :").unwrap();
    }
    script
}

fn name(rng: &mut fastrand::Rng) -> &'static str {
    ["a", "b", "c", "$'d\\ne\\xff'"][rng.usize(0..4)]
}

fn path(rng: &mut fastrand::Rng) -> String {
    let names: Vec<_> = (0..rng.usize(1..5)).map(|_| name(rng)).collect();
    names.join("/")
}

/// A number to begin with, which is said, so that it can be tried again with `SANDHOLD_SEED`.
pub(crate) fn seed() -> fastrand::Rng {
    let seed = std::env::var("SANDHOLD_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    eprintln!("SANDHOLD_SEED={seed}");
    fastrand::Rng::with_seed(seed)
}
