//! The program `sandhold-envd`: the daemon inside every sandbox. With `--prove` it is the program that tries what a sandbox
//! must hold (`sandhold doctor --prove`), which has to run inside too and be linked statically.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    #[cfg(target_os = "linux")]
    if std::env::args_os()
        .nth(1)
        .is_some_and(|flag| flag == sandhold_prove::FLAG)
    {
        return sandhold_prove::main(
            std::env::args_os()
                .skip(2)
                .map(|text| text.to_string_lossy().into_owned()),
        );
    }
    sandhold_envd::main()
}
