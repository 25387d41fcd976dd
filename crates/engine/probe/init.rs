//! The init program.

use std::io::{BufRead, BufReader, Write};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitCode};

use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, recvmsg, send};

#[expect(unsafe_code, reason = "the control socket is inherited as descriptor 3")]
fn control() -> BorrowedFd<'static> {
    // SAFETY: the engine puts the control socket there, and nothing closes it.
    unsafe { BorrowedFd::borrow_raw(3) }
}

pub(crate) fn run() -> ExitCode {
    // As the daemon does: the orphans of the sandbox come here.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let control = control();
    rustix::io::fcntl_setfd(control, rustix::io::FdFlags::CLOEXEC).expect("fcntl");
    let mut boot = vec![0; 256 << 10];
    let (len, _) = rustix::net::recv(control, &mut boot, RecvFlags::empty()).expect("boot");
    match &boot[..len] {
        // How an init program can go wrong.
        b"exit" => return ExitCode::from(3),
        b"silent" => std::thread::sleep(std::time::Duration::from_secs(60)),
        b"empty" => drop(send(control, b"", SendFlags::NOSIGNAL)),
        b"garbage" => drop(send(control, &[0xff; 4096], SendFlags::NOSIGNAL)),
        // It answers and never takes a connection.
        b"deaf" => {
            let _ = send(control, b"ready", SendFlags::NOSIGNAL);
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        // It answers for ever, with a descriptor each time.
        b"endless" => {
            let file = std::fs::File::open("/").expect("a folder");
            std::thread::spawn(move || {
                loop {
                    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
                    let mut rights = rustix::net::SendAncillaryBuffer::new(&mut space);
                    let fds = [std::os::fd::AsFd::as_fd(&file)];
                    rights.push(rustix::net::SendAncillaryMessage::ScmRights(&fds));
                    let said = [std::io::IoSlice::new(b"ready")];
                    if rustix::net::sendmsg(control, &said, &mut rights, SendFlags::NOSIGNAL).is_err() {
                        return;
                    }
                }
            });
        }
        // It lets go of the socket and lives on.
        b"gone" => {
            let _ = send(control, b"ready", SendFlags::NOSIGNAL);
            let _ = rustix::net::shutdown(control, rustix::net::Shutdown::Both);
            std::thread::sleep(std::time::Duration::from_secs(600));
        }
        b"huge" => drop(send(control, &vec![b'x'; 150 << 10], SendFlags::NOSIGNAL)),
        _ => drop(send(control, b"ready", SendFlags::NOSIGNAL)),
    }
    loop {
        let mut byte = [0];
        let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut rights = RecvAncillaryBuffer::new(&mut space);
        let slices = &mut [std::io::IoSliceMut::new(&mut byte)];
        match recvmsg(control, slices, &mut rights, RecvFlags::CMSG_CLOEXEC) {
            Ok(received) if received.bytes == 1 => {}
            _ => return ExitCode::SUCCESS,
        }
        for message in rights.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                for fd in fds {
                    std::thread::spawn(move || serve(fd));
                }
            }
        }
    }
}

fn serve(fd: OwnedFd) {
    rustix::io::ioctl_fionbio(&fd, false).expect("blocking");
    let stream = UnixStream::from(fd);
    let mut line = String::new();
    if BufReader::new(&stream).read_line(&mut line).is_err() {
        return;
    }
    let words: Vec<&str> = line.trim_end_matches('\n').split('\t').collect();
    let [user, program, args @ ..] = &words[..] else { return };
    let user: u32 = user.parse().expect("user");
    let program = if *program == "self" { "/proc/self/exe" } else { program };
    let mut command = Command::new(program);
    command
        .args(args)
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin");
    // Where the sandbox stands on the host's own root, the one user is who this is.
    let plain = std::env::var_os("SANDHOLD_PLAIN").is_some();
    let own = std::env::var("HOME").unwrap_or_default();
    let home = match user {
        _ if plain => own.as_str(),
        0 => "/root",
        _ => "/home/user",
    };
    if let Some(folder) = std::env::var_os("TMPDIR") {
        command.env("TMPDIR", folder);
    }
    command.env("HOME", home).env("LANG", "C.UTF-8").current_dir(home);
    if !plain && rustix::process::getuid().as_raw() != user {
        command.uid(user).gid(user);
    }
    let answer = match command.output() {
        Ok(output) => {
            let code = output
                .status
                .code()
                .unwrap_or_else(|| -output.status.signal().unwrap_or(0));
            let mut answer = format!("{code}\n").into_bytes();
            answer.extend(output.stdout);
            answer.extend(output.stderr);
            answer
        }
        Err(error) => format!("127\n{error}").into_bytes(),
    };
    let _ = (&stream).write_all(&answer);
}
