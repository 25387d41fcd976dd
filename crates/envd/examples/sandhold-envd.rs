//! The daemon as a program of this crate alone, for its tests. The one that is shipped is built by `sandhold`.

fn main() -> std::process::ExitCode {
    sandhold_envd::main()
}
