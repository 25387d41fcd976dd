//! The other sandbox: what of it must not be reached.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use crate::facts::Facts;
use crate::sys;

/// Makes a socket, files and a queue, greets whoever connects, and goes on until it is killed.
pub(crate) fn run(facts: &Facts) -> ExitCode {
    let (Some(name), Some(greeting)) = (&facts.neighbour, &facts.greeting) else {
        return ExitCode::from(2);
    };
    match prepare(facts, name) {
        Ok((tcp, unix)) => {
            let said = greeting.clone();
            std::thread::spawn(move || {
                for mut stream in unix.incoming().flatten() {
                    let _ = stream.write_all(said.as_bytes());
                }
            });
            let told = writeln!(std::io::stdout(), "ready").and_then(|()| std::io::stdout().flush());
            if told.is_err() {
                return ExitCode::FAILURE;
            }
            for mut stream in tcp.incoming().flatten() {
                let _ = stream.write_all(greeting.as_bytes());
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn prepare(facts: &Facts, name: &str) -> std::io::Result<(TcpListener, UnixListener)> {
    use std::os::linux::net::SocketAddrExt;
    for folder in ["/dev/shm", "/tmp"] {
        std::fs::write(format!("{folder}/{name}"), "of the other sandbox")?;
    }
    sys::queue_make(queue_key(name), true).map_err(std::io::Error::from_raw_os_error)?;
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
    let unix = UnixListener::bind_addr(&address)?;
    let tcp = TcpListener::bind(("127.0.0.1", facts.neighbour_tcp.unwrap_or(0)))?;
    Ok((tcp, unix))
}

/// The key of the queue of that name.
pub(crate) fn queue_key(name: &str) -> i32 {
    // Not 0, which is nobody's key, and not negative.
    i32::try_from(Facts::mark(name.as_bytes()) & 0x3fff_ffff).unwrap_or(1) | 1
}
