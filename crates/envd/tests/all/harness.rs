//! Starts the daemon with a control socket, opens connections over it and speaks Connect on them.

use std::convert::Infallible;
use std::io::{IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::{Buf, Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, socketpair,
};
use sandhold_wire::boot::{BootReady, BootSpec, CONNECTION};
use serde_json::{Value, json};
use tokio::net::UnixStream;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The program, which cargo builds with the tests of this crate.
pub(crate) fn program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().unwrap().parent().unwrap().join("examples/sandhold-envd");
    assert!(
        path.exists(),
        "{} is missing: build the example `sandhold-envd`",
        path.display()
    );
    path
}

/// A command that runs the daemon with `control` as its third descriptor.
pub(crate) fn command(control: OwnedFd) -> Command {
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", r#"exec "$0" 3<&0 0</dev/null"#])
        .arg(program())
        .stdin(Stdio::from(control));
    command
}

pub(crate) fn control_pair() -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
}

/// The name of the user that runs the tests.
pub(crate) fn own_name() -> String {
    let uid = rustix::process::getuid().as_raw().to_string();
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd
        .lines()
        .find(|l| l.split(':').nth(2) == Some(uid.as_str()))
        .expect("a line for this user");
    line.split(':').next().unwrap().to_owned()
}

pub(crate) fn spec() -> BootSpec {
    BootSpec {
        sandbox_id: "itest".into(),
        template_id: "base".into(),
        default_user: own_name(),
        max_processes: 64,
        can_switch_user: rustix::process::getuid().is_root(),
        ..BootSpec::default()
    }
}

/// A running daemon. Dropped: its host is gone, and so is it.
pub(crate) struct Daemon {
    control: Option<OwnedFd>,
    pub(crate) child: Child,
    pub(crate) ready: BootReady,
}

impl Daemon {
    pub(crate) fn start() -> Self {
        Self::with(&spec())
    }

    pub(crate) fn with(spec: &BootSpec) -> Self {
        let (host, inside) = control_pair();
        let child = command(inside).spawn().unwrap();
        rustix::net::send(&host, &serde_json::to_vec(spec).unwrap(), SendFlags::empty()).unwrap();
        let mut bytes = vec![0; 64 << 10];
        let (n, _) = rustix::net::recv(&host, &mut bytes, rustix::net::RecvFlags::empty()).unwrap();
        let ready = serde_json::from_slice(&bytes[..n]).unwrap();
        Self {
            control: Some(host),
            child,
            ready,
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn raw(&self) -> UnixStream {
        let (ours, theirs) = StdUnixStream::pair().unwrap();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        let fds = [theirs.as_fd()];
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&fds)));
        let control = self.control.as_ref().unwrap();
        rustix::net::sendmsg(
            control,
            &[IoSlice::new(&[CONNECTION])],
            &mut ancillary,
            SendFlags::empty(),
        )
        .unwrap();
        ours.set_nonblocking(true).unwrap();
        UnixStream::from_std(ours).unwrap()
    }

    pub(crate) async fn client(&self) -> Client {
        let (sender, connection) = handshake(TokioIo::new(self.raw())).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client(sender)
    }

    /// Hangs up and waits for the daemon to end.
    pub(crate) fn hang_up(&mut self) -> std::process::ExitStatus {
        self.control = None;
        self.child.wait().unwrap()
    }

    /// Resident memory in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.hang_up();
    }
}

pub(crate) type Body = BoxBody<Bytes, Infallible>;

pub(crate) fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// One connection.
pub(crate) struct Client(pub(crate) SendRequest<Body>);

/// How a call ended that was not answered.
#[derive(Debug, PartialEq)]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Client {
    pub(crate) async fn send(&mut self, request: Request<Body>) -> Response<Incoming> {
        self.0.ready().await.unwrap();
        tokio::time::timeout(PATIENCE, self.0.send_request(request))
            .await
            .expect("an answer in time")
            .unwrap()
    }

    pub(crate) async fn get(&mut self, path: &str, headers: &[(&str, &str)]) -> (Response<()>, Bytes) {
        let mut request = Request::builder().uri(path).header("host", "x");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (head, body) = self.send(request.body(full("")).unwrap()).await.into_parts();
        (Response::from_parts(head, ()), body.collect().await.unwrap().to_bytes())
    }

    /// A unary call of `process.Process`.
    pub(crate) async fn call(&mut self, method: &str, message: Value) -> Result<Value, Refused> {
        let request = Request::post(format!("/process.Process/{method}"))
            .header("host", "x")
            .header("content-type", "application/json")
            .body(full(message.to_string()))
            .unwrap();
        let (head, body) = self.send(request).await.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body: Value = serde_json::from_slice(&body).unwrap();
        if head.status == StatusCode::OK {
            Ok(body)
        } else {
            Err(refused(head.status, &body))
        }
    }

    /// A server stream of `process.Process`.
    pub(crate) async fn stream(&mut self, method: &str, message: &Value, headers: &[(&str, &str)]) -> Events {
        let mut request = Request::post(format!("/process.Process/{method}"))
            .header("host", "x")
            .header("content-type", "application/connect+json");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = self
            .send(request.body(full(envelope(message.to_string().as_bytes()))).unwrap())
            .await;
        Events {
            response,
            buffer: BytesMut::new(),
        }
    }

    /// `Start` of a shell script without stdin, followed to its end.
    pub(crate) async fn sh(&mut self, script: &str) -> Run {
        self.run(
            &json!({"process": {"cmd": "/bin/sh", "args": ["-c", script]}, "stdin": false}),
            &[],
        )
        .await
    }

    /// `Start`, followed to its end.
    pub(crate) async fn run(&mut self, message: &Value, headers: &[(&str, &str)]) -> Run {
        self.stream("Start", message, headers).await.rest().await
    }
}

/// The message that starts a script.
pub(crate) fn script(text: &str) -> Value {
    json!({"process": {"cmd": "/bin/sh", "args": ["-c", text]}, "stdin": false})
}

/// The message that starts a script with a stdin.
pub(crate) fn with_stdin(text: &str) -> Value {
    json!({"process": {"cmd": "/bin/sh", "args": ["-c", text]}})
}

pub(crate) fn by_pid(pid: u64) -> Value {
    json!({"process": {"pid": pid}})
}

pub(crate) fn refused(status: StatusCode, body: &Value) -> Refused {
    Refused {
        status,
        code: body["code"].as_str().unwrap_or_default().to_owned(),
        message: body["message"].as_str().unwrap_or_default().to_owned(),
    }
}

pub(crate) fn envelope(message: &[u8]) -> Bytes {
    let mut out = vec![0];
    out.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    out.extend(message);
    out.into()
}

/// A server stream.
pub(crate) struct Events {
    pub(crate) response: Response<Incoming>,
    buffer: BytesMut,
}

/// What a stream brought until its end.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) pid: u64,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: Vec<u8>,
    pub(crate) pty: Vec<u8>,
    pub(crate) keepalives: usize,
    pub(crate) end: Value,
    pub(crate) error: Option<(String, String)>,
}

impl Run {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    fn take(&mut self, message: &Value) {
        let event = &message["event"];
        let bytes = |field: &str| {
            STANDARD
                .decode(event["data"][field].as_str().unwrap_or_default())
                .unwrap()
        };
        self.stdout.extend(bytes("stdout"));
        self.stderr.extend(bytes("stderr"));
        self.pty.extend(bytes("pty"));
        if let Some(pid) = event["start"]["pid"].as_u64() {
            self.pid = pid;
        }
        if event.get("keepalive").is_some() {
            self.keepalives += 1;
        }
        if let Some(end) = event.get("end") {
            self.end = end.clone();
        }
    }
}

impl Events {
    /// The next raw frame: its flags and its message.
    pub(crate) async fn frame(&mut self) -> Option<(u8, Bytes)> {
        loop {
            if self.buffer.len() >= 5 {
                let len = u32::from_be_bytes(self.buffer[1..5].try_into().unwrap()) as usize;
                if self.buffer.len() >= 5 + len {
                    let flags = self.buffer.get_u8();
                    self.buffer.advance(4);
                    return Some((flags, self.buffer.split_to(len).freeze()));
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.response.body_mut().frame())
                .await
                .expect("a frame in time");
            self.buffer.extend(frame?.ok()?.into_data().unwrap());
        }
    }

    /// The next event; none at the end of the stream.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let (flags, message) = self.frame().await?;
        (flags == 0).then(|| serde_json::from_slice(&message).unwrap())
    }

    /// The pid of the start event, which comes first.
    pub(crate) async fn pid(&mut self) -> u64 {
        let first = self.next().await.expect("a start event");
        first["event"]["start"]["pid"]
            .as_u64()
            .unwrap_or_else(|| panic!("{first}"))
    }

    /// Reads on until the output so far contains `text`.
    pub(crate) async fn until(&mut self, text: &str) -> Run {
        let mut run = Run::default();
        loop {
            run.take(
                &self
                    .next()
                    .await
                    .unwrap_or_else(|| panic!("the stream ended before {text:?}: {run:?}")),
            );
            let all = [&run.stdout[..], &run.stderr, &run.pty].concat();
            if String::from_utf8_lossy(&all).contains(text) {
                return run;
            }
        }
    }

    /// Everything up to the end of the stream.
    pub(crate) async fn rest(mut self) -> Run {
        let mut run = Run::default();
        while let Some((flags, message)) = self.frame().await {
            let message: Value = serde_json::from_slice(&message).unwrap();
            if flags == 0 {
                run.take(&message);
            } else if let Some(error) = message.get("error") {
                let field = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
                run.error = Some((field("code"), field("message")));
            }
        }
        run
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Whether a process is there and not a zombie.
pub(crate) fn alive(pid: u64) -> bool {
    let mut stat = String::new();
    let file = std::fs::File::open(format!("/proc/{pid}/stat"));
    file.is_ok_and(|mut f| f.read_to_string(&mut stat).is_ok())
        && stat
            .rsplit_once(')')
            .is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}
