//! Unpacks layers of an image, the lowest first, each into a folder below the last argument, and names them:
//! `unpack LAYER.tar.gz... FOLDER`. With `umoci unpack` of the same image beside it, this is what throughput is measured with.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::time::Instant;

use sandhold_layers::{Limits, Owners, digest, stream, sync, unpack};
use sandhold_runtime::Compression;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let into = std::path::PathBuf::from(arguments.pop().ok_or("unpack LAYER.tar.gz... FOLDER")?);
    let mut made: Vec<File> = Vec::new();
    for (number, archive) in arguments.iter().enumerate() {
        let path = into.join(number.to_string());
        std::fs::create_dir_all(&path)?;
        let layer = File::options()
            .read(true)
            .custom_flags(rustix::fs::OFlags::DIRECTORY.bits() as i32)
            .open(&path)?;
        let compression = match std::path::Path::new(archive).extension().and_then(|end| end.to_str()) {
            Some("tar") => Compression::None,
            Some("zst") => Compression::Zstd,
            _ => Compression::Gzip,
        };
        let begin = Instant::now();
        let mut tar = stream(File::open(archive)?, compression, u64::MAX)?;
        let below: Vec<_> = made.iter().rev().map(AsFd::as_fd).collect();
        let done = unpack(&mut tar, layer.as_fd(), &below, Owners::Exact, &Limits::default())?;
        tar.finish()?;
        let unpacked = begin.elapsed();
        let (id, _) = digest(layer.as_fd(), Owners::Exact)?;
        let named = begin.elapsed() - unpacked;
        sync(layer.as_fd())?;
        let synced = begin.elapsed() - unpacked - named;
        writeln!(
            std::io::stdout(),
            "{id} {} bytes, {} files: unpacked in {unpacked:?}, named in {named:?}, durable in {synced:?}",
            done.bytes,
            done.files
        )?;
        made.push(layer);
    }
    Ok(())
}
