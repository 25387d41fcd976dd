//! Compiles the protos with protox, so that no `protoc` is needed, and generates messages and service stubs.

use std::path::PathBuf;

const PROTOS: [&str; 2] = ["proto/process.proto", "proto/filesystem.proto"];

fn main() {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    let set = out.join("descriptors.bin");
    let mut compiler = protox::Compiler::new(["proto"]).expect("proto folder");
    compiler.include_imports(true).include_source_info(true);
    compiler
        .open_files(PROTOS.map(|p| p.trim_start_matches("proto/")))
        .expect("protos compile");
    std::fs::write(&set, compiler.encode_file_descriptor_set()).expect("write descriptors");
    // The generator asks cargo to watch this file. As new as this run, it would count as changed ever after.
    let file = std::fs::File::options()
        .write(true)
        .open(&set)
        .expect("open descriptors");
    file.set_modified(std::time::UNIX_EPOCH).expect("date descriptors");
    connectrpc_build::Config::new()
        .files(&PROTOS.map(|p| p.trim_start_matches("proto/")))
        .includes(&["proto/"])
        .descriptor_set(&set)
        .include_file("_connectrpc.rs")
        .compile()
        .expect("generate code");
    for proto in PROTOS {
        println!("cargo:rerun-if-changed={proto}");
    }
}
