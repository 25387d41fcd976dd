//! The init program as a sealed copy in memory.
//!
//! What runs as process 1 cannot be overwritten from inside (CVE-2019-5736) because its pages belong to no file, and it
//! may be executed but not read by the ids of a sandbox: the kernel then makes the process undumpable from its first
//! instruction, so that nothing inside can look into its memory or its descriptors.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, Mode, SealFlags, fchmod, fcntl_add_seals, memfd_create};
use rustix::io::Errno;

use crate::config::InitProgram;
use crate::limits::INIT_FILE;

/// Copies and seals the program.
///
/// # Errors
/// It cannot be read, is no ELF file, needs a dynamic loader or is too large, or the kernel makes no such file.
pub(crate) fn seal(program: &InitProgram) -> io::Result<OwnedFd> {
    let mut source = match program {
        InitProgram::Path(path) => File::open(path)?,
        InitProgram::Fd(fd) => {
            let mut file = File::from(fd.try_clone()?);
            file.rewind()?;
            file
        }
    };
    let mut content = Vec::new();
    (&mut source).take(INIT_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > INIT_FILE {
        return Err(io::Error::other(format!("it is larger than {INIT_FILE} bytes")));
    }
    check_elf(&content)?;
    let mut copy = File::from(memfd()?);
    copy.write_all(&content)?;
    fchmod(&copy, Mode::from_raw_mode(0o111))?;
    fcntl_add_seals(
        &copy,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(copy.into())
}

fn memfd() -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux 6.3 asks for the flag, and sysctl vm.memfd_noexec=1 insists; older kernels do not know it.
    match memfd_create("sandhold-envd", flags | MemfdFlags::EXEC) {
        Err(Errno::INVAL) => Ok(memfd_create("sandhold-envd", flags)?),
        Err(Errno::ACCESS) => Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "sysctl vm.memfd_noexec=2 forbids programs in memory: set it to 1 or 0",
        )),
        other => Ok(other?),
    }
}

/// A 64-bit ELF file without an interpreter.
fn check_elf(content: &[u8]) -> io::Result<()> {
    const PT_INTERP: u32 = 3;
    let number = |at: usize, len: usize| -> Option<u64> {
        let bytes = content.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    if !content.starts_with(b"\x7fELF\x02\x01") {
        return Err(io::Error::other("it is no 64-bit ELF program"));
    }
    let headers = || -> Option<(usize, usize, u64)> {
        Some((
            usize::try_from(number(32, 8)?).ok()?,
            usize::try_from(number(54, 2)?).ok()?,
            number(56, 2)?,
        ))
    };
    let Some((start, size, count)) = headers() else {
        return Err(io::Error::other("its ELF header is cut short"));
    };
    for index in 0..count as usize {
        let Some(kind) = number(start.saturating_add(index * size), 4) else {
            return Err(io::Error::other("its ELF header is cut short"));
        };
        if kind as u32 == PT_INTERP {
            return Err(io::Error::other(
                "it needs a dynamic loader; it must be linked statically",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_copy_is_sealed() {
        let own = InitProgram::Path(std::env::current_exe().unwrap());
        let mut copy = File::from(seal(&own).unwrap());
        assert_eq!(copy.write(b"x").unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert!(copy.set_len(0).is_err());
        assert_eq!(
            copy.metadata().unwrap().permissions(),
            std::os::unix::fs::PermissionsExt::from_mode(0o100_111)
        );
    }

    #[test]
    fn scripts_and_dynamic_programs_are_refused() {
        let mut script = tempfile::NamedTempFile::new().unwrap();
        script.write_all(b"#!/bin/sh\n").unwrap();
        let error = seal(&InitProgram::Path(script.path().into())).unwrap_err();
        assert!(error.to_string().contains("ELF"), "{error}");
        let error = seal(&InitProgram::Path("/usr/bin/env".into())).unwrap_err();
        assert!(error.to_string().contains("statically"), "{error}");
    }
}
