//! The program `sandhold-envd`: the daemon inside every sandbox.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    sandhold_envd::main()
}
