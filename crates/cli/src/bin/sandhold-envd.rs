//! The daemon inside every sandbox, see the `sandhold-envd` library.

fn main() -> std::process::ExitCode {
    sandhold_envd::main()
}
