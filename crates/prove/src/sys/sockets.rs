//! Sockets, terminals and queues that the standard library does not know.

use std::ffi::c_int;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

use super::{call, last, pad};

/// Makes a socket and closes it.
pub(crate) fn socket(family: c_int, kind: c_int, protocol: c_int) -> Result<usize, i32> {
    open(family, kind, protocol).map(|_| 0)
}

fn open(family: c_int, kind: c_int, protocol: c_int) -> Result<OwnedFd, i32> {
    // SAFETY: takes three numbers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    if fd < 0 {
        return Err(last());
    }
    // SAFETY: the descriptor is new and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Connects to an abstract socket.
pub(crate) fn abstract_stream(name: &str) -> std::io::Result<UnixStream> {
    use std::os::linux::net::SocketAddrExt;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    UnixStream::connect_addr(&address)
}

/// Asks for a connection to the machine's hypervisor. Nobody has to listen there: any answer of the socket's kind shows
/// that it can be asked.
pub(crate) fn vsock_host() -> Result<usize, i32> {
    let socket = open(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_NONBLOCK, 0)?;
    // SAFETY: sockaddr_vm is plain data, for which zeroes are valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as u16;
    address.svm_cid = 2;
    address.svm_port = 1;
    let len = size_of::<libc::sockaddr_vm>();
    call(
        libc::SYS_connect,
        pad([
            socket.as_raw_fd().cast_unsigned() as usize,
            &raw const address as usize,
            len,
        ]),
    )
}

/// Sets the flags of the loopback interface to what they are.
pub(crate) fn flags_of_loopback() -> Result<usize, i32> {
    let socket = open(libc::AF_INET, libc::SOCK_DGRAM, 0)?;
    // SAFETY: ifreq is plain data, for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    for (name, value) in [("get", libc::SIOCGIFFLAGS), ("set", libc::SIOCSIFFLAGS)] {
        // SAFETY: both calls take one ifreq, which outlives them.
        if unsafe { libc::ioctl(socket.as_raw_fd(), value, &raw mut request) } < 0 {
            return Err(if name == "get" { libc::ENODEV } else { last() });
        }
    }
    Ok(0)
}

/// Sends a ping and waits for its answer: `ETIMEDOUT` if none comes.
pub(crate) fn icmp_echo(to: std::net::Ipv4Addr) -> Result<usize, i32> {
    let socket = open(libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP)
        .or_else(|_| open(libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP))?;
    let time = libc::timeval { tv_sec: 1, tv_usec: 0 };
    // SAFETY: the option takes one timeval.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVTIMEO,
            (&raw const time).cast(),
            size_of::<libc::timeval>() as u32,
        )
    };
    // Type 8, code 0, checksum of type 8, id 0, sequence 0, no data.
    let packet: [u8; 8] = [8, 0, 0xf7, 0xff, 0, 0, 0, 0];
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: 0,
        sin_addr: libc::in_addr {
            s_addr: u32::from(to).to_be(),
        },
        sin_zero: [0; 8],
    };
    let fd = socket.as_raw_fd().cast_unsigned() as usize;
    let len = size_of::<libc::sockaddr_in>();
    call(
        libc::SYS_sendto,
        [
            fd,
            packet.as_ptr() as usize,
            packet.len(),
            0,
            &raw const address as usize,
            len,
        ],
    )?;
    let mut answer = [0u8; 128];
    for _ in 0..4 {
        let got = call(
            libc::SYS_recvfrom,
            [fd, answer.as_mut_ptr() as usize, answer.len(), 0, 0, 0],
        )
        .map_err(|code| if code == libc::EAGAIN { libc::ETIMEDOUT } else { code })?;
        // A raw socket shows the IP header, and on the loopback one's own question too.
        let kind = if got >= 28 && answer[0] >> 4 == 4 {
            answer[20]
        } else {
            answer[0]
        };
        if kind == 0 {
            return Ok(got);
        }
    }
    Err(libc::ETIMEDOUT)
}

/// Pushes a character into a new terminal of this process's own.
pub(crate) fn terminal_push() -> Result<usize, i32> {
    let master = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY)
        .map_err(rustix::io::Errno::raw_os_error)?;
    rustix::pty::unlockpt(&master).map_err(rustix::io::Errno::raw_os_error)?;
    let name = rustix::pty::ptsname(&master, Vec::new()).map_err(rustix::io::Errno::raw_os_error)?;
    // The attempt leads a group and may not start a session: a child may.
    // SAFETY: the program has one thread.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let code = push(&name).err().unwrap_or(0);
        // SAFETY: ends the child.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: the pid is a child's and `status` a valid place.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    match libc::WEXITSTATUS(status) {
        0 if libc::WIFEXITED(status) => Ok(0),
        code => Err(code),
    }
}

fn push(name: &std::ffi::CStr) -> Result<(), i32> {
    rustix::process::setsid().map_err(rustix::io::Errno::raw_os_error)?;
    let slave = rustix::fs::open(name, rustix::fs::OFlags::RDWR, rustix::fs::Mode::empty())
        .map_err(rustix::io::Errno::raw_os_error)?;
    let fd = slave.as_raw_fd().cast_unsigned() as usize;
    let byte = *b"x";
    call(libc::SYS_ioctl, pad([fd, libc::TIOCSCTTY as usize, 0]))?;
    call(
        libc::SYS_ioctl,
        pad([fd, libc::TIOCSTI as usize, byte.as_ptr() as usize]),
    )
    .map(|_| ())
}

/// Whether a System V queue with this key can be had.
pub(crate) fn queue_exists(key: i32) -> Result<usize, i32> {
    call(libc::SYS_msgget, pad([key.cast_unsigned() as usize, 0]))
}

/// Makes a System V queue that everybody may use; `None` removes it again.
pub(crate) fn queue_make(key: i32, make: bool) -> Result<usize, i32> {
    let key = key.cast_unsigned() as usize;
    if make {
        return call(
            libc::SYS_msgget,
            pad([key, (libc::IPC_CREAT | libc::IPC_EXCL | 0o666) as usize]),
        );
    }
    let id = call(libc::SYS_msgget, pad([key, 0]))?;
    call(libc::SYS_msgctl, pad([id, libc::IPC_RMID as usize, 0]))
}

/// Asks for a priority above the usual one.
pub(crate) fn raise_priority(real_time: bool) -> Result<usize, i32> {
    if real_time {
        let parameter = [1i32; 1];
        return call(
            libc::SYS_sched_setscheduler,
            pad([0, libc::SCHED_FIFO as usize, parameter.as_ptr() as usize]),
        );
    }
    call(libc::SYS_setpriority, pad([0, 0, (-5isize).cast_unsigned()]))
}
